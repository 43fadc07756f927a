// Originals beside reconstructions, stages peeled off, and codes that can be looked up and changed.
import { framed } from "./api.js";
import { Atlas } from "./atlas.js";
import { $, el, fill, number, say, trying } from "./dom.js";
import { Grid } from "./grid.js";
import { button, choice, passage, picture, player, slider, split } from "./parts.js";
import { store } from "./store.js";

let parts;
let looked = null;
let painted = null;
let edits = new Map();
let history = [];
let place = 0;
let brush = null;
let isPainting = false;
let atlas;
let grid;
let isSending = false;
let isChanged = false;
let answers = 0;

export function create(root) {
  const stage = el("div", { class: "stage card" });
  const peel = el("div", { class: "peel" });
  const codes = el("div", { class: "codes card" });
  const shelf = el("div");
  const inspector = el("aside", { class: "inspector card", "aria-label": "The chosen code" });
  parts = { stage, peel, codes, shelf, inspector, root };
  root.append(
    el("header", { class: "head" }, el("h1", { id: "title-look", text: "Look" }), el("p", {
      text: "What the model keeps of an item, code by code. Choose a code to see what it means; give its place another one and see what changes.",
    })),
    el("div", { class: "look" }, el("div", { class: "look-left" }, stage, peel), codes, inspector),
  );
  atlas = new Atlas(inspector, shelf, { choose: (code) => useCode(code), place: () => place });
  grid = new Grid({ pick: (position) => picked(position), stroke: (position) => stroke(position), colour: (code) => atlas.colour(place, code) });
  atlas.ready = () => grid.draw();
  store.on("item", () => !root.hidden && open());
  store.on("model", () => atlas.forget());
}

export function enter() {
  if (store.item && looked?.item !== store.item) open();
  if (!store.model) fill(parts.stage, el("p", { class: "soft", text: "No model yet. Train one, or start the studio in a folder that has some." }));
}

async function open() {
  const item = store.item;
  if (!item) {
    looked = null;
    fill(parts.stage, el("p", { class: "soft", text: "Nothing to look at yet: choose a set above, or drop files here." }));
    fill(parts.peel);
    fill(parts.codes);
    return;
  }
  await trying(async () => {
    const frame = await framed("/api/look", { model: store.model.id, item: item.ref });
    if (store.item !== item) return;
    looked?.frame.release();
    looked = { frame, item, ...frame.result };
    edits = new Map();
    history = [];
    place = 0;
    brush = null;
    showStage(looked.peeled.at(-1), frame);
    showPeel();
    showCodes();
    atlas.open(store.model, item.ref.set, looked);
    document.body.dataset.looked = item.name;
  });
}

function showStage(now, frame) {
  const { original } = looked;
  const kind = now.text ? "text" : "image";
  const figures = el("p", { class: "figures" },
    el("span", {}, el("b", { text: number(now.quality) }), ` ${looked.unit}`),
    el("span", {}, el("b", { text: number(now.bits ?? looked.peeled.at(-1).bits, 0) }), " bits"),
    edits.size ? el("span", { class: "changed" }, el("b", { text: `${edits.size}` }), edits.size === 1 ? " code changed" : " codes changed") : null);
  if (kind === "text") {
    fill(parts.stage, el("div", { class: "texts" }, el("h2", { text: "Original" }), passage(now.text.before), el("h2", { text: "Reconstruction" }), passage(now.text.now)), figures);
    return;
  }
  const known = $(".split", parts.stage);
  if (known && known.item === looked.item) {
    // Only what changes: the line stays where it was put.
    const image = $(".split > img", known);
    image.src = frame.url(now.image);
    $(".figures", parts.stage).replaceWith(figures);
    $(".sounds", parts.stage)?.replaceWith(sounds(now, frame));
    return;
  }
  const box = split(picture(looked.frame, original.image, "Original"), picture(frame, now.image, "Reconstruction"), ["original", "reconstruction"]);
  box.item = looked.item;
  fill(parts.stage, box, figures, now.sound ? sounds(now, frame) : null);
}

const sounds = (now, frame) =>
  el("div", { class: "sounds" }, player(looked.frame.url(looked.original.sound), "original"), player(frame.url(now.sound), "reconstruction"));

function showPeel() {
  const count = looked.peeled.length;
  if (count < 2) return fill(parts.peel);
  const control = slider("Stages kept", {
    min: 1, max: count, step: 1, value: count,
    words: (value) => `${value} of ${count}`,
    oninput: (value) => showStage(looked.peeled[value - 1], looked.frame),
  });
  return fill(parts.peel, el("div", { class: "card" }, control.box));
}

function showCodes() {
  if (!looked.codes) {
    fill(parts.codes, el("p", { class: "soft", text: "There are no codes to click: this model has none, or more than a page shows. Smaller items have fewer." }));
    return;
  }
  const tool = el("div", { class: "tools" });
  const paint = el("button", { type: "button", class: "button toggle", "aria-pressed": "false", text: "Paint" });
  paint.addEventListener("click", () => setPainting(!isPainting));
  const undo = button("Undo", () => undoLast(), "quiet");
  const reset = button("Reset", () => {
    edits.clear();
    history = [];
    refresh();
  }, "quiet");
  tool.append(paint, undo, reset);
  if (looked.places.length > 1) {
    const stage = choice("Codes of", looked.places.map((name, index) => [index, name]));
    stage.select.addEventListener("change", () => {
      place = Number(stage.select.value);
      brush = null;
      draw();
      atlas.choose(null);
    });
    tool.prepend(stage.box);
  }
  fill(parts.codes, el("h2", { text: "Codes" }), tool, grid.box, el("p", { class: "hint", id: "grid-hint", text: "Click a code, or move with the arrow keys. Then choose another from the palette to put it there." }), parts.shelf);
  parts.paint = paint;
  setPainting(false);
  draw();
}

function setPainting(given) {
  isPainting = given;
  parts.paint?.setAttribute("aria-pressed", given);
  grid.isPainting = given;
  if (given && brush === null) say("Choose a code from the palette to paint with");
}

const codeAt = (position) => edits.get(`${place},${position}`)?.[2] ?? looked.codes[place][position];

function draw() {
  const shown = looked.codes[place].map((_, position) => codeAt(position));
  const changed = new Set([...edits.values()].filter((edit) => edit[0] === place).map((edit) => edit[1]));
  grid.show(shown, looked.grid, changed);
}

function picked(position) {
  if (isPainting && brush !== null) return stroke(position);
  const code = codeAt(position);
  atlas.choose(code);
  return say(`Code ${code}`);
}

function stroke(position) {
  if (brush !== null) change(position, brush);
}

/** A code of the palette: what is painted with, or what goes to the chosen place. */
function useCode(code) {
  brush = code;
  return !isPainting && grid.chosen !== null ? change(grid.chosen, code) : undefined;
}

function change(position, code) {
  const key = `${place},${position}`;
  if (codeAt(position) === code) return undefined;
  history.push([key, edits.get(key)]);
  if (looked.codes[place][position] === code) edits.delete(key);
  else edits.set(key, [place, position, code]);
  return refresh();
}

function undoLast() {
  const last = history.pop();
  if (!last) return;
  if (last[1]) edits.set(...last);
  else edits.delete(last[0]);
  refresh();
}

/** Send what was changed; while an answer is on its way, later changes wait for one more. */
async function refresh() {
  draw();
  isChanged = true;
  if (isSending) return;
  isSending = true;
  const started = performance.now();
  while (isChanged) {
    isChanged = false;
    await trying(async () => {
      const mine = looked;
      const body = { model: store.model.id, item: mine.item.ref, edits: [...edits.values()] };
      const frame = await framed("/api/paint", body);
      // Another item was chosen meanwhile.
      if (mine !== looked) return;
      showStage({ ...frame.result, bits: looked.peeled.at(-1).bits }, frame);
      painted?.release();
      painted = frame;
      await $(".split > img", parts.stage)?.decode?.();
      document.body.dataset.painted = `${edits.size}`;
      document.body.dataset.answers = `${(answers += 1)}`;
      document.body.dataset.clickMs = `${performance.now() - started}`;
    });
  }
  isSending = false;
}
