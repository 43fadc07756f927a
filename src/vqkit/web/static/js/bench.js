// What lies on the bench: the model, and the items that it is tried on.
import { el, fill, say, trying } from "./dom.js";
import { button, choice, setOptions } from "./parts.js";
import { addFiles, store } from "./store.js";

export function setName(set) {
  if (store.builtIn.includes(set)) return `${set} (built in)`;
  const found = store.sets.find((one) => one.id === set);
  if (!found) return "files";
  return found.num_files === 1 ? found.names[0] : `your ${found.num_files} files`;
}

// Built-in sets are of images.
export const setOptionsOf = () => [
  ...(store.model && store.model.signal !== "image" ? [] : store.builtIn.map((name) => [name, setName(name)])),
  ...store.sets.filter((set) => set.num_files).map((set) => [set.id, setName(set.id)]),
];

export function filePicker(text, onfiles, folder = false) {
  const input = el("input", { type: "file", multiple: true, class: "unseen", tabindex: "-1", "aria-hidden": "true" });
  if (folder) input.setAttribute("webkitdirectory", "");
  input.addEventListener("change", () => {
    const files = [...input.files].filter((file) => !file.name.startsWith("."));
    input.value = "";
    onfiles(files);
  });
  return el("span", { class: "picker" }, button(text, () => input.click(), "quiet"), input);
}

export function createBench(root) {
  const model = choice("Model", [], { onchange: () => trying(() => store.choose(model.select.value)) });
  const set = choice("Items", [], { onchange: () => trying(() => store.open(set.select.value)) });
  const facts = el("p", { class: "facts" });
  const strip = el("div", { class: "strip", role: "listbox", "aria-label": "Items of the set", tabindex: "-1" });
  const add = filePicker("Add files", addFiles);
  const note = el("p", { class: "soft", hidden: true });
  root.append(el("div", { class: "bench-row" }, model.box, set.box, add), facts, strip, note);

  store.on("state", () => {
    setOptions(model.select, store.models.map((one) => [one.id, one.name]), store.model?.id);
    setOptions(set.select, setOptionsOf(), store.set);
  });
  store.on("model", () => {
    model.select.value = store.model.id;
    const wanted = ["signal", "codes", "network", "has"];
    const found = (store.abilities?.facts ?? []).filter(([name]) => wanted.includes(name));
    fill(facts, found.map(([name, text]) => el("span", {}, el("b", { text: `${name} ` }), text)));
  });
  store.on("items", () => {
    setOptions(set.select, setOptionsOf(), store.set);
    fill(strip, store.items.map((item) => thumbnail(item)));
    strip.hidden = !store.items.length;
    note.hidden = Boolean(store.items.length) || !store.skipped.length;
    if (!note.hidden) note.textContent = `This model reads none of them: ${store.skipped[0].reason}`;
  });
  store.on("item", () => {
    for (const shown of strip.querySelectorAll("button")) {
      const isChosen = shown.item === store.item;
      shown.setAttribute("aria-selected", isChosen);
      shown.tabIndex = isChosen ? 0 : -1;
    }
  });
  strip.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = store.items[store.items.indexOf(store.item) + step];
    if (!next) return;
    store.pick(next);
    strip.querySelector('[aria-selected="true"]').focus();
  });
}

function thumbnail(item) {
  const image = el("img", { src: item.url, alt: "" });
  image.classList.toggle("small", item.image.width < 160);
  const made = el("button", { type: "button", class: "thumb", role: "option", "aria-label": item.name, title: item.name }, image);
  made.item = item;
  made.addEventListener("click", () => {
    store.pick(item);
    say(`${item.name} chosen`);
  });
  return made;
}
