// A run that is followed: one at a time, in whichever section shows it.
import { framed, get, post } from "./api.js";
import { chart } from "./chart.js";
import { count, el, fill, number, toast, trying } from "./dom.js";
import { button, passage, picture, player, recipe, shown } from "./parts.js";
import { store } from "./store.js";

// Milliseconds between two looks at a run.
const EVERY = 1500;
// Of looks that fail, before a run is given up, and before what it makes is no longer asked for.
const PATIENCE = 20;
const PATIENCE_WITH_ITEMS = 2;

export const STATES = { running: "training", finished: "finished", stopped: "stopped; it can go on", failed: "it ended" };
export const title = (run) => (run.kind === "prior" ? `Prior of ${run.name}` : run.name);

/** What is seen of the run. */
export const box = el("div", { class: "run" });

let current = null;
let seen = null;
export const followed = () => current;

/** Follow a run, unless it is seen already and nothing more happens to it. */
export const open = (run) => (run.id === seen && run.state !== "running" ? undefined : follow(run.id));

export async function follow(id) {
  if (current === id) return;
  current = seen = id;
  fill(box);
  delete box.dataset.state;
  const view = { rows: [], step: -1, frame: null, items: null, same: null, failures: 0, unseen: 0 };
  while (current === id) {
    const run = await trying(() => get(`/api/runs/${id}?seen=${view.rows.length}`));
    if (current !== id) break;
    if (!run) {
      if ((view.failures += 1) > PATIENCE) current = null;
    } else {
      view.failures = 0;
      // A run that goes on drops what it did behind its checkpoint.
      if (run.num_rows < view.rows.length) view.rows = [];
      else view.rows.push(...run.rows);
      await seeItems(id, run, view);
      if (current !== id) break;
      show(run, view);
      if (run.state !== "running") {
        await ended(run);
        break;
      }
    }
    await new Promise((done) => setTimeout(done, EVERY));
  }
  view.frame?.release();
}

async function seeItems(id, run, view) {
  const isAsked = ["running", "stopped"].includes(run.state) && view.rows.length;
  if (!isAsked || view.unseen >= PATIENCE_WITH_ITEMS) return;
  const frame = await framed(`/api/runs/${id}/follow`, { step: view.step }).catch(() => null);
  if (!frame) view.unseen += 1;
  if (!frame || frame.result.step === null) return;
  view.frame?.release();
  view.frame = frame;
  view.step = frame.result.step;
  // Made once, so that a sound that plays goes on while figures change around it.
  view.items = run.kind === "prior" ? drawnOf(frame) : pairsOf(frame);
  document.body.dataset.followed = `${view.step}`;
}

async function ended(run) {
  current = null;
  await store.refresh();
  if (run.state !== "finished") return;
  toast(`${title(run)} is ready`);
  // A prior is of use to whoever has its model open; a new model is what one waited for.
  if (run.kind === "model" || store.model?.id === run.model) await trying(() => store.choose(run.model));
}

const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

function show(run, view) {
  const step = view.rows.at(-1)?.step ?? 0;
  const spent = `step ${count(step)}, ${clock(view.rows.at(-1)?.seconds ?? 0)} of ${run.minutes} min`;
  const head = el("header", { class: "run-head" }, el("span", { class: `state ${run.state}`, text: STATES[run.state] }), el("h2", { text: title(run) }), el("span", { class: "soft", text: spent }), buttons(run));
  const log = el("pre", { class: "log", tabindex: "0", role: "region", "aria-label": "What the run says", text: run.lines.slice(-6).join("\n") });
  view.same ??= recipe(run);
  fill(box, el("div", { class: "card" }, head, view.items ?? awaited(run), curves(run, view.rows), log, view.same));
  box.dataset.state = run.state;
  box.dataset.step = `${step}`;
}

function buttons(run) {
  const row = el("div", { class: "row" });
  if (run.state === "running") row.append(button("Stop", () => trying(() => post(`/api/runs/${run.id}/stop`)), "quiet"));
  if (run.state === "stopped") row.append(button("Resume", () => trying(async () => {
    await post(`/api/runs/${run.id}/resume`);
    follow(run.id);
  }), "primary"));
  const [href, text] = run.kind === "prior" ? ["#make", "Draw from it"] : ["#look", "Look at it"];
  if (run.state === "finished") row.append(el("a", { class: "button primary", href, text }));
  return row;
}

const QUALITY = { psnr: ["PSNR", " dB"], spectral_snr: ["Spectral SNR", " dB"], byte_accuracy: ["Bytes right", " %"] };

function curves(run, rows) {
  const has = (name) => rows.some((row) => name in row);
  if (run.kind === "prior") {
    return el("div", { class: "charts" }, chart("Bits a code, in order", rows, "bits_per_code"), chart("Bits a code, in any order", rows, "bits_per_code_any_order"), chart("Loss", rows, "loss"));
  }
  const key = Object.keys(QUALITY).find(has) ?? "psnr";
  const usage = has("usage") ? "usage" : "perplexity";
  return el("div", { class: "charts" }, chart(QUALITY[key][0], rows, key, QUALITY[key][1]), chart("Loss", rows, "loss"), chart(usage === "usage" ? "Usage of the codebook" : "Perplexity", rows, usage));
}

function awaited(run) {
  if (run.state !== "running") return null;
  const what = run.kind === "prior" ? "What it draws comes with the first checkpoint, after 25 steps." : "The first reconstructions come with the first checkpoint, in a few seconds.";
  return el("p", { class: "soft", text: what });
}

function pairsOf(frame) {
  const { pairs, step, quality, unit } = frame.result;
  const one = ({ before, now }, index) => {
    if (now.text) return el("div", { class: "pair" }, passage(now.text.now));
    return el("div", { class: "pair" }, picture(frame, before.image, "Original"), picture(frame, now.image, "Reconstruction"), now.sound ? player(frame.url(now.sound), `reconstruction ${index + 1}`) : null);
  };
  return el("div", {}, el("h3", { text: `Held-out items after ${count(step)} steps: ${number(quality)} ${unit}` }), el("div", { class: "pairs" }, pairs.map(one)));
}

function drawnOf(frame) {
  const { drawn, labels, step } = frame.result;
  const items = drawn.map((item, index) => el("li", {}, shown(frame, item, labels[index] ?? "")));
  return el("div", { class: "drawn" }, el("h3", { text: `Drawn after ${count(step)} steps, from the same seed each time` }), el("ul", { class: "sheet" }, items));
}
