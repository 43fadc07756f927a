// From files to a model: what was found, and a run that can be followed, stopped and resumed.
import { job, post, remove } from "./api.js";
import { filePicker, setName } from "./bench.js";
import { $, count, el, fill, number, say, trying } from "./dom.js";
import { button, picture, player, slider, textField } from "./parts.js";
import { STATES, box, follow, followed, title } from "./run.js";
import { store } from "./store.js";

const BUILT_IN = {
  emoji: "3,375 drawings of 32×32, with captions and classes",
  digits: "1,797 handwritten digits of 8×8",
  "fashion-mnist": "70,000 pieces of clothing, 28×28 in grey",
};
let parts;
let chosen = null;

export function create(root) {
  const sources = el("div", { class: "sources" });
  const found = el("div", { class: "found" });
  const run = el("div");
  const runs = el("div", { class: "runs" });
  parts = { sources, found, run, runs };
  root.append(
    el("header", { class: "head" }, el("h1", { id: "title-train", text: "Train" }), el("p", {
      text: "Drop images, recordings or text. A look at them chooses the settings, and a minute later there is a first model.",
    })),
    sources, found, run, runs,
  );
  store.on("state", () => {
    showSources();
    showRuns();
  });
}

export function enter() {
  parts.run.append(box);
  const running = store.runs.find((one) => one.state === "running");
  if (running) follow(running.id);
}

export const drop = (files) =>
  trying(async () => {
    if (!files.length) return;
    const bar = el("span", { class: "bar" });
    fill(parts.found, el("div", { class: "working" }, el("span", { text: `Taking in ${files.length} files` }), bar));
    store.set = store.builtIn.includes(store.set) ? null : store.set;
    const isFresh = store.sets.some((one) => one.id === store.set) && files.length > 1;
    if (isFresh) store.set = null;
    const { set, kept } = await store.add(files, (done, all) => bar.style.setProperty("--done", done / all));
    fill(parts.found);
    if (kept) await choose(set);
  });

function showSources() {
  const cards = store.builtIn.map((name) => source(name, name, BUILT_IN[name]));
  const own = store.sets.filter((set) => set.num_files > 1 || set.has_shards).slice(-3).map((set) => source(set.id, setName(set.id), set.names.slice(0, 3).join(", ")));
  const target = el("div", { class: "target" },
    el("p", { class: "target-title", text: "Drop files or a folder" }),
    el("p", { class: "soft", text: "PNG, JPEG, WebP, AVIF · WAV, FLAC, MP3 · text · tar and Parquet of images" }),
    el("div", { class: "row" }, filePicker("Choose files", drop), filePicker("Choose a folder", drop, true)));
  fill(parts.sources, target, el("div", { class: "cards" }, [...own, ...cards]));
}

function source(id, title, text) {
  const made = el("button", { type: "button", class: "source", "aria-pressed": `${chosen === id}` }, el("b", { text: title }), el("span", { text }));
  made.dataset.set = id;
  made.addEventListener("click", () => choose(id));
  if (store.builtIn.includes(id)) return made;
  const drop = button("Remove", () => trying(async () => {
    await remove(`/api/sets/${id}`);
    if (chosen === id) fill(parts.found);
    await store.refresh();
  }), "quiet small");
  drop.setAttribute("aria-label", `Remove ${title}`);
  return el("div", { class: "own" }, made, drop);
}

async function choose(set) {
  chosen = set;
  for (const one of parts.sources.querySelectorAll(".source")) one.setAttribute("aria-pressed", `${one.dataset.set === set}`);
  const bar = el("span", { class: "bar unknown" });
  fill(parts.found, el("div", { class: "working" }, el("span", { text: "Looking at the files" }), bar));
  const frame = await trying(() => job("/api/survey", { set, minutes: 3 }, { told: (state) => bar.style.setProperty("--done", state.progress) }));
  if (chosen !== set) return;
  fill(parts.found);
  if (frame) showFound(set, frame);
}

function showFound(set, frame) {
  const found = frame.result;
  const classes = Object.keys(found.classes).length;
  const wanted = Math.round(Math.min(30, Math.max(1, found.minutes ?? 3)));
  const minutes = slider("Minutes", { min: 1, max: 30, step: 1, value: wanted, words: (value) => `${value} min` });
  const name = textField("Name", { value: store.builtIn.includes(set) ? set : "my model", maxlength: "40" });
  const facts = [
    [count(found.count), `${found.item}s`],
    [count(found.splits.train), "to train on"],
    [count(found.splits.validation + found.splits.test), "held out"],
    ...(classes ? [[count(classes), "classes"]] : []),
    ...(found.num_bad ? [[count(found.num_bad), "cannot be read"]] : []),
  ];
  const samples = found.samples.map((image) => picture(frame, image));
  const start = button("Start training", () => begin(set, minutes.value, name.input.value), "primary");
  start.disabled = found.is_refused;
  const why = el("ul", { class: "reasons" }, found.reasons.map((text) => el("li", { text })));
  const more = [...found.notes.map((text) => el("li", { text })), ...found.bad.map((one) => el("li", { class: "bad", text: `${one.name}: ${one.reason}` }))];
  fill(
    parts.found,
    el("div", { class: "card survey" },
      el("h2", { text: "What was found" }),
      el("dl", { class: "tiles" }, facts.map(([value, text]) => el("div", {}, el("dt", { text }), el("dd", { text: value })))),
      el("p", { class: "soft", text: found.size }),
      el("div", { class: "samples", role: "group", "aria-label": "Some of them" }, found.sounds.length ? found.sounds.map((sound, index) => el("div", { class: "sample" }, samples[index], player(frame.url(sound), `recording ${index + 1}`))) : samples),
      more.length ? el("ul", { class: "reasons" }, more) : null,
      el("h3", { text: `Recipe: ${found.recipe}${found.minutes ? `, made for ${number(found.minutes, 0)} minutes` : ""}` }), why,
      el("div", { class: "row start" }, name.box, minutes.box, start)),
  );
  say(`${count(found.count)} ${found.item}s found`);
}

async function begin(set, minutes, called) {
  const run = await trying(() => post("/api/runs", { set, minutes, called }));
  if (!run) return;
  say("Training has begun");
  // The run takes its place.
  chosen = null;
  fill(parts.found);
  showSources();
  follow(run.id);
}

function showRuns() {
  const others = store.runs.filter((run) => run.id !== followed());
  if (!others.length) return fill(parts.runs);
  const rows = others.slice(0, 8).map((run) => {
    const open = button("Open", () => {
      follow(run.id);
      $("#main").scrollIntoView();
    }, "quiet small");
    open.setAttribute("aria-label", `Open the run ${title(run)}`);
    return el("li", {}, el("span", { class: `state ${run.state}`, text: STATES[run.state] }), el("b", { text: title(run) }), el("span", { class: "soft", text: `${run.minutes} min` }), open);
  });
  return fill(parts.runs, el("h2", { text: "Runs" }), el("ul", { class: "list" }, rows));
}
