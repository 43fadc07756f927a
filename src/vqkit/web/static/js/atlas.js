// What codes mean: how often they occur, what is seen, heard or read there, real places, neighbours.
import { count, el, fill, freshId, percent, say, trying } from "./dom.js";
import { button, clip, working } from "./parts.js";

// Of a sheet, as the server lays it out.
const COLUMNS = 32;
const MAX_PALETTE = 512;

export class Atlas {
  ready = () => {};

  constructor(root, shelf, { choose, place }) {
    this.root = root;
    this.shelf = shelf;
    this.useCode = choose;
    this.place = place;
    this.known = new Map();
    this.found = null;
    this.code = null;
  }

  forget() {
    this.found = null;
    this.code = null;
    fill(this.root);
    fill(this.shelf);
  }

  open(model, set, looked) {
    this.model = model;
    this.set = set;
    this.looked = looked;
    this.code = null;
    this.found = this.known.get(`${model.id} ${set}`) ?? null;
    this.show();
  }

  async make() {
    const key = `${this.model.id} ${this.set}`;
    const frame = await working(this.work, "atlas", { model: this.model.id, set: this.set }, "Looking at many items");
    if (!frame) return this.show();
    await trying(async () => {
      const load = async (named) => (named ? createImageBitmap(new Blob([frame.files[named.file]], { type: named.type })) : null);
      const books = [];
      for (const book of frame.result.books) {
        const rows = new Map(book.codes.map((code, row) => [code, row]));
        books.push({ ...book, rows, means: await load(book.means), typical: await load(book.typical) });
      }
      const { places, pool } = frame.result;
      if (pool) {
        pool.shown = await Promise.all(pool.shown.map(load));
        pool.played = pool.played.map((named) => frame.files[named.file]);
      }
      this.found = { books, places, pool };
      this.known.set(key, this.found);
      document.body.dataset.atlas = key;
    });
    this.show();
    this.ready();
    return undefined;
  }

  book(place) {
    const number = this.found?.places.findIndex((places) => places.includes(place)) ?? -1;
    return number < 0 ? null : this.found.books[number];
  }

  /** What draws a code: its mean patch, where it fits best, or a colour of its own. */
  colour(place, code) {
    const book = this.book(place);
    const row = book?.rows.get(code);
    if (book?.means && row !== undefined) {
      const [high, wide] = book.patch;
      return (pen, x, y, width, height) =>
        pen.drawImage(book.means, (row % COLUMNS) * wide, Math.floor(row / COLUMNS) * high, wide, high, x, y, width, height);
    }
    const [best] = (row !== undefined && this.found.pool && book.cutouts[row]) || [];
    if (best) return (pen, x, y, width, height) => this.glyph(pen, best, x, y, width, height);
    const hue = (code * 137.508) % 360;
    return (pen, x, y, width, height) => {
      pen.fillStyle = code < 0 ? "#8884" : `hsl(${hue} 42% ${44 + ((code * 7) % 5) * 6}%)`;
      pen.fillRect(x, y, width, height);
    };
  }

  choose(code) {
    this.code = code;
    this.show();
  }

  show() {
    const place = this.place();
    const book = this.book(place);
    this.work = el("div");
    fill(
      this.root,
      el("h2", { text: this.code === null ? "Atlas" : `Code ${this.code}` }),
      this.code === null ? el("p", { class: "soft", text: "Choose a code in the grid." }) : this.about(book),
      this.found ? null : el("div", { class: "ask" }, el("p", { class: "soft", text: "What does each code stand for? A look at up to 1,024 items tells." }), button("Make the atlas", () => this.make())),
      this.work,
    );
    const kind = `${this.model?.id} ${this.looked?.item.name} ${place} ${Boolean(this.found)}`;
    if (kind !== this.shelf.dataset.kind || !this.shelf.firstChild) fill(this.shelf, this.palette(place, book));
    this.shelf.dataset.kind = kind;
  }

  about(book) {
    const row = book?.rows.get(this.code);
    if (!book || row === undefined) return el("p", { class: "soft", text: book ? "It does not occur in the items that were looked at." : "" });
    const total = book.counts.reduce((sum, one) => sum + one, 0);
    const rank = [...book.counts].filter((one) => one > book.counts[row]).length + 1;
    const told = el("p", { class: "figures" }, el("span", {}, el("b", { text: count(book.counts[row]) }), " times"), el("span", {}, el("b", { text: `${((100 * book.counts[row]) / total).toFixed(1)} %` }), " of all"), el("span", {}, "rank ", el("b", { text: `${rank}` }), ` of ${book.codes.length}`));
    const box = el("div", {}, told);
    if (book.means) {
      box.append(el("div", { class: "patches" }, this.patch(book.means, row % COLUMNS, Math.floor(row / COLUMNS), book.patch, "Mean of what it stands for", "big"), el("div", { class: "typical" }, Array.from({ length: Math.min(book.num_typical[row], 6) }, (_, index) => this.patch(book.typical, index, row, book.patch, "A real place")))));
      box.append(el("h3", { text: "Where it occurs" }), this.map(book.positions[row]));
    }
    if (book.strings?.length) box.append(el("h3", { text: "What it stands for" }), this.strings(row, book));
    if (this.found.pool && book.cutouts[row].length) {
      const cutouts = book.cutouts[row].map((cut, index) => this.cutout(cut, `cut-out ${index + 1} of code ${this.code}`));
      box.append(el("h3", { text: "Where it fits best" }), el("div", { class: "cutouts" }, cutouts));
    }
    const near = book.neighbours[row].slice(0, 5);
    if (near.length) box.append(el("h3", { text: "Nearest codes" }), el("div", { class: "near" }, near.map((code) => this.swatch(code, book))));
    return box;
  }

  /** A code in the middle of where it fits best, with as much of what lies around it. */
  glyph(pen, [part, , own], x, y, width, height) {
    const { pool } = this.found;
    const from = Math.max(0, own - pool.cell);
    const to = Math.min(pool.lengths[part], own + 2 * pool.cell);
    this.section(pen, part, from, to, x, y, width, height);
  }

  section(pen, part, from, to, x, y, width, height) {
    const image = this.found.pool.shown[part];
    const each = image.width / this.found.pool.lengths[part];
    pen.imageSmoothingEnabled = true;
    pen.drawImage(image, from * each, 0, (to - from) * each, image.height, x, y, width, height);
  }

  /** A cut-out of a real item, with the code marked, that can be heard where there is a sound. */
  cutout([part, start, own], label) {
    const { pool } = this.found;
    const length = pool.lengths[part];
    const end = Math.min(length, start + pool.window);
    const canvas = el("canvas", { width: 480, height: 132, role: "img", "aria-label": `${label}, with the place of the code marked` });
    const pen = canvas.getContext("2d");
    this.section(pen, part, start, end, 0, 0, 480, 124);
    const left = (480 * (own - start)) / (end - start);
    const wide = (480 * (Math.min(end, own + pool.cell) - own)) / (end - start);
    pen.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--accent");
    pen.fillRect(left, 126, wide, 6);
    const sound = pool.played[part];
    return el("figure", { class: "cutout" }, canvas, sound ? clip(sound, start / length, end / length, label) : null, el("figcaption", { text: pool.names[part] }));
  }

  strings(row, book) {
    const most = book.strings[row][0]?.[1] ?? 1;
    return el("ol", { class: "strings" }, book.strings[row].map(([text, times]) => {
      const bar = el("span", { class: "meter", "aria-hidden": "true" });
      bar.style.setProperty("--size", times / most);
      return el("li", {}, el("code", { text }), el("span", { text: `${times === 1 ? "once" : `${count(times)} times`}, ${((100 * times) / book.counts[row]).toFixed(1)} %` }), bar);
    }));
  }

  patch(sheet, column, row, [high, wide], label, kind = "") {
    const canvas = el("canvas", { width: wide, height: high, class: `patch ${kind}`, role: "img", "aria-label": label });
    canvas.getContext("2d").drawImage(sheet, column * wide, row * high, wide, high, 0, 0, wide, high);
    return canvas;
  }

  map(counts) {
    const most = Math.max(1, ...counts.flat());
    const canvas = el("canvas", { width: counts[0].length, height: counts.length, class: "map", role: "img", "aria-label": "Where in the item it occurs: darker means more often" });
    const pen = canvas.getContext("2d");
    counts.forEach((row, y) => row.forEach((one, x) => {
      pen.fillStyle = `rgb(214 84 47 / ${0.06 + (0.94 * one) / most})`;
      pen.fillRect(x, y, 1, 1);
    }));
    return canvas;
  }

  swatch(code, book) {
    const canvas = el("canvas", { width: 24, height: 24, "aria-hidden": "true" });
    const pen = canvas.getContext("2d");
    pen.imageSmoothingEnabled = false;
    this.colour(this.place(), code)(pen, 0, 0, 24, 24);
    const made = el("button", { type: "button", class: "swatch", "aria-label": `Use code ${code}`, title: `code ${code}` }, canvas);
    made.dataset.code = code;
    made.addEventListener("click", async () => {
      // The image first: what is said of the code comes behind it.
      await this.useCode(code);
      if (this.shelf.contains(made)) this.choose(code);
      for (const one of document.querySelectorAll(".swatch")) one.classList.toggle("on", one.dataset.code === made.dataset.code);
      say(`Code ${code} in use`);
    });
    return made;
  }

  palette(place, book) {
    const size = this.looked?.sizes[place] ?? 0;
    const seen = new Set(book ? book.codes : this.looked?.codes?.[place] ?? []);
    const all = book ? book.codes : [...seen, ...Array.from({ length: size }, (_, code) => code).filter((code) => !seen.has(code))];
    const shown = all.slice(0, MAX_PALETTE);
    if (!shown.length) return null;
    const id = freshId("palette");
    const told = book ? `${percent(book.usage)} of ${count(size)} codes occur, as many as ${Math.round(book.perplexity)} equally often ones` : `${count(size)} codes`;
    return el("div", { class: "shelf" }, el("h3", { id, text: "Palette" }), el("p", { class: "soft", text: told }), el("div", { class: "palette", role: "group", "aria-labelledby": id, tabindex: "0" }, shown.map((code) => this.swatch(code, book))));
  }
}
