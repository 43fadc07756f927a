// The page: sections, the bench above them, and files that are dropped anywhere.
import { createBench } from "./bench.js";
import * as compare from "./compare.js";
import * as compress from "./compress.js";
import { $, trying } from "./dom.js";
import * as look from "./look.js";
import * as make from "./make.js";
import { addFiles, dropped, store } from "./store.js";
import * as train from "./train.js";

const VIEWS = { train, look, make, compress, compare };
const TITLES = { train: "Train", look: "Look", make: "Make", compress: "Compress", compare: "Compare" };

function show() {
  const name = location.hash.slice(1);
  const chosen = name in VIEWS ? name : store.models.length ? "look" : "train";
  for (const view of Object.keys(VIEWS)) $(`#view-${view}`).hidden = view !== chosen;
  for (const link of document.querySelectorAll(".rail nav a")) {
    if (link.hash === `#${chosen}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  $("#bench").hidden = chosen === "train";
  document.title = `${TITLES[chosen]} – vqkit studio`;
  document.body.dataset.view = chosen;
  VIEWS[chosen].enter?.();
  scrollTo(0, 0);
}

function keys(event) {
  const inField = event.target.closest("input, select, textarea, [contenteditable]");
  if (inField || event.ctrlKey || event.metaKey || event.altKey) return;
  const name = Object.keys(VIEWS)[Number(event.key) - 1];
  if (name) location.hash = name;
}

function dropping() {
  let depth = 0;
  const veil = $("#dropping");
  const hasFiles = (event) => [...event.dataTransfer.types].includes("Files");
  addEventListener("dragenter", (event) => {
    if (hasFiles(event)) veil.hidden = (depth += 1) === 0;
  });
  addEventListener("dragleave", (event) => {
    if (hasFiles(event)) veil.hidden = (depth -= 1) <= 0;
  });
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    veil.hidden = true;
    trying(async () => {
      const files = await dropped(event.dataTransfer);
      const view = document.body.dataset.view;
      const takes = VIEWS[view].drop ?? addFiles;
      await takes(files);
    });
  });
}

createBench($("#bench"));
for (const [name, view] of Object.entries(VIEWS)) view.create($(`#view-${name}`));
addEventListener("hashchange", show);
addEventListener("keydown", keys);
dropping();
await trying(() => store.refresh());
show();
document.body.dataset.ready = "yes";
// Of a folder of many models, one that cannot be read must not keep the page from the others.
for (const model of store.models) {
  await trying(() => store.choose(model.id));
  if (store.abilities) break;
}
document.body.dataset.open = "yes";
