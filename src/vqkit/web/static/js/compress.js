// An item as a file, beside files of other codecs that are as large; and files opened again.
import { Failure, post, upload } from "./api.js";
import { filePicker } from "./bench.js";
import { bytes, el, fill, number, trying } from "./dom.js";
import { button, recipe, save, segments, shown, slider, working } from "./parts.js";
import { addFiles, store } from "./store.js";

const OWN = "own";
let parts;
let rate = null;

export function create(root) {
  const form = el("div", { class: "card form" });
  const made = el("div", { class: "made" });
  const opened = el("div", { class: "made" });
  parts = { form, made, opened };
  root.append(
    el("header", { class: "head" }, el("h1", { id: "title-compress", text: "Compress" }), el("p", {
      text: "One item as a real file, every byte counted, beside the codecs that everyone has, at the same size.",
    })),
    el("div", { class: "making" }, el("div", {}, form, opener()), el("div", {}, made, opened)),
  );
  store.on("model", showForm);
  store.on("item", showForm);
}

export const enter = () => showForm();

/** Files of the format are opened, all others are items. */
export async function drop(files) {
  const [first] = files.filter((file) => file.name.toLowerCase().endsWith(".vq"));
  if (first) return open(first);
  return addFiles(files);
}

function opener() {
  return el("div", { class: "card" }, el("h2", { text: "Open a .vq file" }), el("p", { class: "soft", text: "Drop one anywhere on this page. Its model is found among those in the folder." }), filePicker("Choose a .vq file", ([file]) => file && open(file)));
}

function showForm() {
  const able = store.abilities;
  if (!able || !store.item) return fill(parts.form, el("p", { class: "soft", text: "Choose an item above, or drop one." }));
  const bits = slider("Bits for each position", { min: -2, max: 3, step: 0.05, value: 0.5, words: (value) => (2 ** value).toFixed(2) });
  bits.box.hidden = rate !== OWN;
  const named = able.rates.length > 1 ? able.rates.map((name) => [name, name]) : [["", "as trained"]];
  const options = [...named, ...(able.has_lossless ? [["lossless", "lossless"]] : []), [OWN, "at most …"]];
  if (!options.some(([key]) => key === (rate ?? ""))) rate = options.find(([key]) => key === "full")?.[0] ?? options[0][0];
  const kinds = segments("Rate", options, rate ?? "", (chosen) => {
    rate = chosen;
    bits.box.hidden = rate !== OWN;
  });
  return fill(parts.form, el("h2", { text: store.item.name }), kinds, bits.box, button("Compress", () => run(rate === OWN ? 2 ** bits.value : rate || null), "primary wide"));
}

async function run(wanted) {
  const frame = await working(parts.made, "compress", { model: store.model.id, item: store.item.ref, rate: wanted }, "Compressing");
  if (!frame) return;
  const { rows, original, raw_bytes: raw, unit, file, name, rate_name: rateName, bits_of_a_byte: bits } = frame.result;
  const most = Math.max(...rows.map((row) => row.bytes));
  const one = (row) => {
    const figures = el("div", { class: "codec-figures" }, el("b", { text: row.name }), el("span", { class: "size", text: bytes(row.bytes) }), el("span", { class: "meter" }), el("span", { text: `${number(row.bytes * bits, 3)} ${rateName}` }), el("span", { text: row.is_exact ? "exact" : `${number(row.quality)} ${unit}` }));
    if (row.bytes > rows[0].bytes * 1.05) figures.append(el("span", { class: "note", text: "its smallest file" }));
    figures.style.setProperty("--size", row.bytes / most);
    return el("li", { class: row.is_ours ? "codec ours" : "codec" }, shown(frame, row, ""), figures);
  };
  const first = el("li", { class: "codec" }, shown(frame, original, ""), el("div", { class: "codec-figures" }, el("b", { text: "Original" }), el("span", { class: "size", text: bytes(raw) }), el("span", { text: "as plain values" })));
  fill(
    parts.made,
    el("p", { class: "lead" }, el("b", { text: bytes(rows[0].bytes) }), ` – ${number(raw / rows[0].bytes, 1)} times smaller than plain values`),
    el("ul", { class: "codecs" }, first, rows.map(one)),
    el("div", { class: "row" }, save(frame.url(file), name, `Download ${name}`)),
    recipe(frame.result),
  );
  document.body.dataset.compressed = `${rows[0].bytes}`;
}

const open = (file) =>
  trying(async () => {
    const set = (await post("/api/sets")).id;
    const { kept, skipped } = await upload(set, [file], store.fileBytes);
    if (!kept) throw new Failure(skipped[0]);
    const frame = await working(parts.opened, "open", { item: { set, index: 0 } }, "Opening");
    if (!frame) return;
    const { items, suffix, truncated, bytes: size } = frame.result;
    const list = items.map((item, index) => {
      const name = (item.name || `item-${index + 1}`).replace(/\.[^.]*$/, "") + suffix;
      return el("li", {}, shown(frame, item, `${item.name || "no name"}, ${item.extent}`), save(frame.url(item.save), name));
    });
    fill(parts.opened, el("h2", { text: `${file.name}: ${bytes(size)}` }), truncated ? el("p", { class: "soft", text: "The file is cut off: what is there is coarser or shorter than it was." }) : null, el("ul", { class: "sheet" }, list), recipe(frame.result));
    document.body.dataset.opened = `${items.length}`;
  });
