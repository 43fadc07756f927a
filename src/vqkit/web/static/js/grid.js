// Codes of an item as a canvas of cells: clicked, painted on, and moved over with the arrow keys.
import { el, say } from "./dom.js";

// Cells in a row of items of one dimension, and how high they are at least.
const WRAP = 32;
const HIGH = 30;

export class Grid {
  chosen = null;
  isPainting = false;

  constructor({ pick, stroke, colour }) {
    this.pick = pick;
    this.stroke = stroke;
    this.colour = colour;
    this.canvas = el("canvas", {
      tabindex: "0", role: "application", "aria-label": "Codes of the item", "aria-describedby": "grid-hint",
    });
    this.box = el("div", { class: "grid" }, this.canvas);
    this.canvas.addEventListener("pointerdown", (event) => this.press(event));
    this.canvas.addEventListener("pointermove", (event) => this.drag(event));
    for (const kind of ["pointerup", "pointercancel"]) this.canvas.addEventListener(kind, () => (this.last = null));
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(this.box);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  show(codes, sides, changed) {
    if (this.codes?.length !== codes.length) this.chosen = null;
    this.codes = codes;
    this.changed = changed;
    this.isLine = sides.length === 1;
    this.columns = sides.length === 1 ? Math.min(WRAP, sides[0]) : sides.at(-1);
    this.rows = Math.ceil(codes.length / this.columns);
    this.draw();
  }

  draw() {
    if (!this.codes || !this.box.clientWidth) return;
    const scale = window.devicePixelRatio || 1;
    const tall = this.isLine ? Infinity : 520 / this.rows;
    const side = Math.max(2, Math.min(this.box.clientWidth / this.columns, tall, 56));
    const cell = Math.round(side * scale);
    const high = this.isLine ? Math.max(cell, HIGH * scale) : cell;
    this.canvas.width = cell * this.columns;
    this.canvas.height = high * this.rows;
    this.canvas.style.width = `${this.canvas.width / scale}px`;
    const pen = this.canvas.getContext("2d");
    const gap = cell > 8 ? scale : 0;
    const styles = getComputedStyle(document.documentElement);
    const accent = styles.getPropertyValue("--accent");
    pen.imageSmoothingEnabled = false;
    this.codes.forEach((code, position) => {
      const x = (position % this.columns) * cell;
      const y = Math.floor(position / this.columns) * high;
      this.colour(code)(pen, x, y, cell - gap, high - gap);
      if (this.changed.has(position)) {
        pen.fillStyle = accent;
        const mark = Math.max(3, cell / 5);
        pen.fillRect(x + cell - gap - mark, y, mark, mark);
      }
    });
    if (this.chosen !== null) {
      const x = (this.chosen % this.columns) * cell;
      const y = Math.floor(this.chosen / this.columns) * high;
      pen.strokeStyle = "#fff";
      pen.lineWidth = 4 * scale;
      pen.strokeRect(x + scale, y + scale, cell - gap - 2 * scale, high - gap - 2 * scale);
      pen.strokeStyle = accent;
      pen.lineWidth = 2 * scale;
      pen.strokeRect(x + scale, y + scale, cell - gap - 2 * scale, high - gap - 2 * scale);
    }
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    const column = Math.floor(((event.clientX - box.left) / box.width) * this.columns);
    const row = Math.floor(((event.clientY - box.top) / box.height) * this.rows);
    const position = row * this.columns + column;
    const isIn = column >= 0 && row >= 0 && column < this.columns && row < this.rows;
    return isIn && position < this.codes.length ? position : null;
  }

  press(event) {
    const position = this.at(event);
    if (position === null) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.last = position;
    this.choose(position);
  }

  drag(event) {
    if (!this.isPainting || this.last === null || this.last === undefined) return;
    const position = this.at(event);
    if (position === null || position === this.last) return;
    this.last = position;
    this.chosen = position;
    this.stroke(position);
  }

  choose(position) {
    this.chosen = position;
    this.draw();
    this.pick(position);
  }

  key(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: this.columns, ArrowUp: -this.columns }[event.key];
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.choose(this.chosen ?? 0);
      return;
    }
    if (!step) return;
    event.preventDefault();
    const next = this.chosen === null ? 0 : this.chosen + step;
    if (next < 0 || next >= this.codes.length) return;
    this.chosen = next;
    this.draw();
    const where = `row ${Math.floor(next / this.columns) + 1}, column ${(next % this.columns) + 1}`;
    say(`${where}: code ${this.codes[next]}`);
    if (!this.isPainting) this.pick(next);
  }
}
