// A brush over an item: what is to be made anew. Arrow keys and Enter paint as well.
import { framed } from "./api.js";
import { el, say, trying } from "./dom.js";
import { button, save, slider } from "./parts.js";

export class Mask {
  constructor(store) {
    const { item } = store;
    this.canvas = el("canvas", { tabindex: "0", role: "application", "aria-label": "Brush over the image. Arrow keys move it, Enter paints." });
    this.size = slider("Brush", { min: 0.04, max: 0.4, step: 0.02, value: 0.2, words: (value) => `${Math.round(100 * value)} %` });
    this.link = save("", "mask.png", "Save the mask");
    this.link.addEventListener("click", () => (this.link.href = this.file()));
    this.box = el("div", { class: "mask" }, this.canvas, this.size.box, el("div", { class: "row" }, button("Clear", () => this.clear(), "quiet small"), this.link));
    this.place = [0.5, 0.5];
    this.canvas.addEventListener("pointerdown", (event) => {
      this.canvas.setPointerCapture(event.pointerId);
      this.isDown = true;
      this.move(event);
    });
    this.canvas.addEventListener("pointermove", (event) => this.isDown && this.move(event));
    for (const kind of ["pointerup", "pointercancel"]) this.canvas.addEventListener(kind, () => (this.isDown = false));
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    trying(() => this.load(store, item));
  }

  async load(store, item) {
    // At its own size, which the small one of the strip may not have.
    const frame = await framed("/api/look", { model: store.model.id, item: item.ref });
    const { image } = frame.result.original;
    this.image = await createImageBitmap(new Blob([frame.files[image.file]], { type: "image/png" }));
    this.width = image.width;
    this.height = image.height;
    this.hidden = new Uint8Array(this.width * this.height);
    this.canvas.width = this.width;
    this.canvas.height = this.height;
    this.canvas.classList.toggle("small", this.width < 160);
    this.draw();
  }

  move(event) {
    const box = this.canvas.getBoundingClientRect();
    this.place = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    this.paint();
  }

  key(event) {
    const step = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
    if (step) {
      event.preventDefault();
      this.place = this.place.map((value, axis) => Math.min(1, Math.max(0, value + 0.05 * step[axis])));
      this.draw();
      say(`Brush at ${this.place.map((value) => `${Math.round(100 * value)} %`).join(", ")}`);
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.paint();
    }
  }

  paint() {
    if (!this.hidden) return;
    const radius = (this.size.value * Math.min(this.width, this.height)) / 2 + 0.5;
    const [x, y] = [this.place[0] * this.width, this.place[1] * this.height];
    for (let row = Math.max(0, Math.floor(y - radius)); row < Math.min(this.height, y + radius); row += 1) {
      for (let column = Math.max(0, Math.floor(x - radius)); column < Math.min(this.width, x + radius); column += 1) {
        if ((column + 0.5 - x) ** 2 + (row + 0.5 - y) ** 2 <= radius ** 2) this.hidden[row * this.width + column] = 1;
      }
    }
    this.draw();
  }

  clear() {
    this.hidden.fill(0);
    this.draw();
  }

  draw() {
    if (!this.image) return;
    const pen = this.canvas.getContext("2d", { willReadFrequently: true });
    pen.drawImage(this.image, 0, 0);
    const shown = pen.getImageData(0, 0, this.width, this.height);
    this.hidden.forEach((is, index) => {
      if (!is) return;
      const at = 4 * index;
      shown.data[at] = 0.35 * shown.data[at] + 150;
      shown.data[at + 1] = 0.35 * shown.data[at + 1] + 50;
      shown.data[at + 2] = 0.35 * shown.data[at + 2] + 30;
    });
    pen.putImageData(shown, 0, 0);
    if (document.activeElement === this.canvas && !this.isDown) {
      pen.strokeStyle = "#d6542f";
      pen.strokeRect(this.place[0] * this.width - 1, this.place[1] * this.height - 1, 2, 2);
    }
  }

  /** A bit for each position, row after row, in base64; '' where nothing is hidden. */
  bits() {
    if (!this.hidden?.some(Boolean)) return "";
    const packed = new Uint8Array(Math.ceil(this.hidden.length / 8));
    this.hidden.forEach((is, index) => {
      if (is) packed[index >> 3] |= 128 >> (index & 7);
    });
    return btoa(Array.from(packed, (one) => String.fromCharCode(one)).join(""));
  }

  /** The mask as an image, as the command takes it: white is made anew. */
  file() {
    const canvas = el("canvas", { width: this.width, height: this.height });
    const pen = canvas.getContext("2d");
    const shown = pen.createImageData(this.width, this.height);
    this.hidden.forEach((is, index) => shown.data.set(is ? [255, 255, 255, 255] : [0, 0, 0, 255], 4 * index));
    pen.putImageData(shown, 0, 0);
    return canvas.toDataURL("image/png");
  }
}
