// Two models on the same files.
import { el, fill, number } from "./dom.js";
import { button, choice, passage, picture, player, setOptions, working } from "./parts.js";
import { store } from "./store.js";

let parts;
let second;

export function create(root) {
  const form = el("div", { class: "card form" });
  const made = el("div", { class: "made" });
  parts = { form, made };
  second = choice("Second model", []);
  root.append(
    el("header", { class: "head" }, el("h1", { id: "title-compare", text: "Compare" }), el("p", {
      text: "Two models on the same items: what each keeps, and what it costs.",
    })),
    form, made,
  );
  showForm();
  store.on("state", showForm);
  store.on("model", showForm);
}

/** Models that read the same files as the one on the bench. */
const others = () => store.models.filter((one) => one.id !== store.model?.id && one.signal === store.model?.signal);

function showForm() {
  const found = others();
  if (!found.length) {
    fill(parts.form, el("p", { class: "soft", text: "A second model of the same kind of files is needed: train one with other settings." }));
    return;
  }
  setOptions(second.select, found.map((one) => [one.id, one.name]));
  fill(parts.form, el("div", { class: "row" }, second.box, button("Compare", run, "primary")), el("p", { class: "soft", text: "The first model is the one above; the items are those of the strip, twelve at most." }));
}

async function run() {
  if (!store.items.length) return;
  const items = store.items.slice(0, 12).map((item) => item.ref);
  const names = [store.model.name, store.models.find((one) => one.id === second.select.value).name];
  const frame = await working(parts.made, "compare", { models: [store.model.id, second.select.value], items }, "Comparing");
  if (!frame) return;
  const { rows, means, unit, measure } = frame.result;
  const best = means[0].quality >= means[1].quality ? 0 : 1;
  const head = el("dl", { class: "versus" }, means.map((mean, index) => el("div", { class: index === best ? "best" : "" }, el("dt", { text: names[index] }), el("dd", {}, el("b", { text: number(mean.quality) }), ` ${unit} ${measure}`, el("span", { text: `${number(mean.rate, 3)} ${rows[0].rate_name}` })))));
  const table = el("ul", { class: "rows" }, rows.map((row) => rowOf(frame, row, names, unit)));
  fill(parts.made, head, table);
  document.body.dataset.compared = `${rows.length}`;
}

function rowOf(frame, row, names, unit) {
  const cell = (item, label, figures) => el("div", { class: "cell" },
    item.text ? passage(item.text.now) : picture(frame, item.image, `${row.name}, ${label}`),
    item.sound ? player(frame.url(item.sound), `${row.name}, ${label}`) : null,
    el("p", {}, el("b", { text: label }), figures ? ` ${figures}` : ""));

  return el("li", {}, cell(row.original, "original"), row.by.map((one, index) => cell(one, names[index], `${number(one.quality)} ${unit} · ${number(one.bits / 8, 0)} B`)));
}
