// New items, and items made anew; before them a prior, where there is none.
import { post } from "./api.js";
import { setOptionsOf } from "./bench.js";
import { el, fill, say, toast, trying } from "./dom.js";
import { Mask } from "./mask.js";
import { button, choice, picture, player, recipe, save, segments, shown, slider, split, textField, working } from "./parts.js";
import { box as followedRun, open } from "./run.js";
import { store } from "./store.js";

const VERBS = [
  ["generate", "Generate"],
  ["inpaint", "Inpaint"],
  ["variations", "Variations"],
  ["interpolate", "Interpolate"],
  ["restyle", "Restyle"],
  ["denoise", "Denoise"],
];
const NEEDS_PRIOR = ["generate", "inpaint", "variations"];
const IMAGES_ONLY = ["inpaint", "restyle"];

let verb = "generate";
let parts;
let mask;
let fields = {};
// The run of a prior that was begun here last.
let begun = null;

export function create(root) {
  const tabs = el("div", { class: "verbs" });
  const form = el("div", { class: "card form" });
  const run = el("div");
  const made = el("div", { class: "made", "aria-live": "polite" });
  const prior = el("div");
  parts = { tabs, form, prior, run, made, root };
  root.append(
    el("header", { class: "head" }, el("h1", { id: "title-make", text: "Make" }), el("p", {
      text: "Draw new items from the prior, make parts anew, go from one to another. The same seed gives the same result, here, in a terminal and in Python.",
    })),
    tabs, el("div", { class: "making" }, el("div", {}, form, prior), el("div", {}, run, made)),
  );
  tabs.append(segments("What to make", VERBS, verb, (chosen) => {
    verb = chosen;
    fill(parts.made);
    showForm();
  }));
  store.on("model", () => {
    fill(parts.made);
    showForm();
  });
  store.on("item", () => verb !== "generate" && showForm());
  store.on("state", () => {
    if (root.hidden || !store.abilities) return;
    if (store.abilities.has_prior) showPrior(store.abilities, showRun(store.abilities));
    else showForm();
  });
}

export const enter = () => showForm();

function showForm() {
  const able = store.abilities;
  fields = {};
  mask = null;
  fill(parts.prior);
  if (!able) return fill(parts.form, el("p", { class: "soft", text: "Train a model first." }));
  const training = showRun(able);
  showPrior(able, training);
  if (NEEDS_PRIOR.includes(verb) && !able.has_prior) return fill(parts.form, priorForm(training));
  if (IMAGES_ONLY.includes(verb) && !able.is_image) return fill(parts.form, el("p", { class: "soft", text: "Of images alone, here." }));
  if (verb !== "generate" && !store.item) return fill(parts.form, el("p", { class: "soft", text: "Choose an item above, or drop one." }));
  return fill(parts.form, FORMS[verb](able), button(VERBS.find(([key]) => key === verb)[1], () => run(), "primary wide"));
}

/** The run of this model's prior, if it goes on or can: it takes its place beside the form. */
function showRun(able) {
  const mine = store.runs.find((run) => run.kind === "prior" && run.model === store.model.id);
  // What became of one that was to replace another is told to whoever began it.
  const isToldOf = mine?.state === "failed" && (!able.has_prior || mine.id === begun);
  const isOpen = mine && (["running", "stopped"].includes(mine.state) || isToldOf);
  fill(parts.run, isOpen ? followedRun : null);
  if (!isOpen) return null;
  if (!parts.root.hidden) open(mine);
  return mine;
}

/** What the prior is that is there, and another one in its place. */
function showPrior(able, training) {
  if (!able.has_prior || !NEEDS_PRIOR.includes(verb)) return fill(parts.prior);
  const wasOpen = parts.prior.firstChild?.open ?? false;
  const facts = el("dl", { class: "known" }, able.prior.map(([name, text]) => [el("dt", { text: name }), el("dd", { text })]).flat());
  const form = el("div", { class: "fields" }, priorForm(training, true));
  return fill(parts.prior, el("details", { class: "card", open: wasOpen }, el("summary", { text: "The prior of this model" }), facts, form));
}

const CONDITIONS = [["auto", "what the set has"], ["none", "nothing"], ["class", "the class"], ["caption", "the caption"]];

function priorForm(training, isAnother = false) {
  const about = el("p", { text: isAnother ? "Another one is trained beside it, and takes its place once it is complete; until then this one draws." : "A prior knows which codes go together. This model has none yet; with one, it draws items of its own." });
  const heading = isAnother ? "Train another" : "Train a prior";
  if (training?.state === "running") return [el("h2", { text: isAnother ? "Another is being trained" : "The prior is being trained" }), about, el("p", { class: "soft", text: "It goes on when this page is closed." })];
  if (training?.state === "stopped") return [el("h2", { text: isAnother ? "Another was stopped" : "The prior was stopped" }), about, el("p", { class: "soft", text: "Resume goes on where it was." })];
  const options = setOptionsOf();
  if (!options.length) return [el("h2", { text: heading }), about, el("p", { class: "soft", text: "Drop the files that it shall learn from, as a rule those that the model was trained on." })];
  const set = choice("Learns from", options);
  // As a rule what the model learnt from.
  const wanted = store.model.set ?? store.set;
  if (options.some(([id]) => id === wanted)) set.select.value = wanted;
  const minutes = slider("Minutes", { min: 1, max: 60, step: 1, value: 10, words: (value) => `${value} min` });
  const told = choice("Is told", CONDITIONS);
  const start = () => begin({ set: set.select.value, minutes: minutes.value, condition: told.select.value, replaces: isAnother });
  return [el("h2", { text: heading }), about, set.box, told.box, minutes.box, button(isAnother ? "Train another prior" : "Train the prior", start, isAnother ? "wide" : "primary wide")];
}

const begin = (settings) =>
  trying(async () => {
    const run = await post("/api/priors", { model: store.model.id, ...settings });
    begun = run.id;
    say("Training has begun");
    await store.refresh();
  });

const conditions = (able) => {
  const box = el("div", { class: "fields" });
  if (able.classes.length) {
    const field = choice("Class", [["", "any"], ...able.classes.map((name) => [name, name])]);
    fields.class = () => field.select.value;
    box.append(field.box);
  }
  if (able.has_prompts) {
    const field = textField("Prompt", { placeholder: "such as: red heart", maxlength: "200" });
    fields.prompt = () => field.input.value.trim();
    box.append(field.box);
  }
  return box;
};

const drawing = (able, num) => {
  const seed = textField("Seed", { value: "0", inputmode: "numeric", maxlength: "15" });
  const again = button("Another seed", () => (seed.input.value = `${Math.floor(Math.random() * 1e6)}`), "quiet small");
  const temperature = slider("Temperature", { min: 0, max: 2, step: 0.05, value: 1, words: (value) => value.toFixed(2) });
  fields.seed = () => Math.max(0, Math.floor(Number(seed.input.value) || 0));
  fields.temperature = () => temperature.value;
  const box = el("div", { class: "fields" }, el("div", { class: "row" }, seed.box, again), temperature.box);
  if (able.classes.length || able.has_prompts) {
    const guidance = slider("Guidance", { min: 1, max: 6, step: 0.25, value: 1, words: (value) => (value === 1 ? "none" : value.toFixed(2)) });
    fields.cfg = () => guidance.value;
    box.append(guidance.box);
  }
  if (num) {
    const many = slider("How many", { min: 1, max: num[1], step: 1, value: num[0], words: (value) => `${value}` });
    fields.num = () => many.value;
    box.append(many.box);
  }
  return box;
};

const other = (label) => {
  const items = store.items.filter((item) => item !== store.item);
  const field = choice(label, items.map((item, index) => [index, item.name]));
  const image = el("img", { alt: "" });
  const see = () => {
    const item = items[Number(field.select.value)];
    if (!item) return;
    image.src = item.url;
    image.classList.toggle("small", item.image.width < 160);
  };
  field.select.addEventListener("change", see);
  see();
  fields.other = () => items[Number(field.select.value)]?.ref;
  return el("div", { class: "row other" }, field.box, image);
};

const FORMS = {
  generate: (able) => [conditions(able), drawing(able, [16, 36])],
  inpaint: (able) => {
    mask = new Mask(store);
    fields.mask = () => mask.bits();
    return [mask.box, conditions(able), drawing(able, [4, 12])];
  },
  variations: (able) => {
    const strength = slider("How much is new", { min: 0, max: 1, step: 0.05, value: 0.3, words: (value) => `${Math.round(100 * value)} %` });
    fields.strength = () => strength.value;
    return [strength.box, drawing(able, [8, 24])];
  },
  interpolate: (able) => {
    const boxes = [other("To")];
    fields.codes = () => false;
    if (able.has_prior) {
      let by = "latents";
      boxes.push(segments("By way of", [["latents", "latents"], ["codes", "codes, drawn"]], by, (chosen) => (by = chosen)));
      fields.codes = () => by === "codes";
    }
    fields.num = () => 12;
    return boxes;
  },
  restyle: (able) => {
    let method = "wct";
    const alpha = slider("How much of the style", { min: 0, max: 1, step: 0.05, value: 0.7, words: (value) => `${Math.round(100 * value)} %` });
    fields.alpha = () => alpha.value;
    fields.method = () => method;
    return [other("Style"), segments("Method", able.methods.map((name) => [name, name]), method, (chosen) => (method = chosen)), alpha.box];
  },
  denoise: (able) => {
    let isAuto = true;
    const strength = slider("Strength", { min: 0, max: 1, step: 0.05, value: 0.5, words: (value) => value.toFixed(2) });
    strength.box.hidden = true;
    fields.strength = () => (isAuto ? null : strength.value);
    const note = able.removes_noise ? null : el("p", { class: "soft", text: "This model never saw noise in training and may keep it; the recipe “denoise” trains one that did." });
    return [note, segments("How much is smoothed", [["auto", "as the item needs"], ["set", "by hand"]], "auto", (chosen) => {
      isAuto = chosen === "auto";
      strength.box.hidden = isAuto;
    }), strength.box];
  },
};

async function run() {
  const body = { model: store.model.id };
  if (verb !== "generate") body.item = store.item.ref;
  for (const [name, value] of Object.entries(fields)) body[name] = value();
  if (verb === "inpaint" && !body.mask) return toast("Paint over what is to be made anew.");
  if ("other" in body && !body.other) return toast("A second item is needed: add one above.");
  if (body.cfg > 1 && !body.class && !body.prompt) return toast("Guidance needs a class or a prompt.");
  const asked = verb;
  const frame = await working(parts.made, asked, body, "Working");
  if (!frame || asked !== verb) return undefined;
  fill(parts.made, RESULTS[asked]?.(frame) ?? sheet(frame), recipe(frame.result));
  document.body.dataset.made = asked;
  return undefined;
}

const nameOf = (index) => `${verb}-${String(index + 1).padStart(2, "0")}${store.abilities.suffix}`;

function sheet(frame) {
  const one = (item, index) => el("li", {}, shown(frame, item, ""), save(frame.url(item.save), nameOf(index)));
  const few = frame.result.items.length < 2 ? "single" : "";
  return el("ul", { class: `sheet ${few}` }, frame.result.items.map(one));
}

/** A slider over what lies between two items, and all of it below. */
function frames(frame) {
  const { items } = frame.result;
  const box = el("div", { class: "film" });
  const see = (index) => fill(box, shown(frame, items[index], ""));
  const control = slider("From one to the other", { min: 0, max: items.length - 1, step: 1, value: 0, words: (value) => `${value + 1} of ${items.length}`, oninput: see });
  see(0);
  return el("div", { class: "card" }, box, control.box, sheet(frame));
}

function cleaned(frame) {
  const { original, items, told } = frame.result;
  const [after] = items;
  const box = after.text
    ? shown(frame, after, "")
    : split(picture(frame, original.image, "Before"), picture(frame, after.image, "After"), ["before", "after"]);
  const sounds = after.sound ? el("div", { class: "sounds" }, player(frame.url(original.sound), "before"), player(frame.url(after.sound), "after")) : null;
  return el("div", { class: "card stage" }, box, sounds, el("p", { class: "soft", text: told }), save(frame.url(after.save), nameOf(0)));
}

const RESULTS = { interpolate: frames, denoise: cleaned };
