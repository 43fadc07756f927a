// What is chosen: a model, a set, an item of it. Views listen.
import { framed, get, post, upload } from "./api.js";
import { toast, trying } from "./dom.js";

class Store extends EventTarget {
  models = [];
  sets = [];
  runs = [];
  builtIn = [];
  fileBytes = 0;
  model = null;
  set = null;
  items = [];
  skipped = [];
  item = null;
  abilities = null;
  samples = null;

  on(kind, listener) {
    this.addEventListener(kind, () => listener());
  }

  tell(kind) {
    this.dispatchEvent(new Event(kind));
  }

  async refresh() {
    const state = await get("/api/state");
    this.models = state.models;
    this.sets = state.sets;
    this.runs = state.runs;
    this.builtIn = state.built_in;
    this.fileBytes = state.file_bytes;
    this.tell("state");
  }

  /** Choose a model, with the set that it was trained on where that is here. */
  async choose(id) {
    const model = this.models.find((one) => one.id === id) ?? null;
    if (!model) return;
    this.abilities = await post("/api/abilities", { model: id });
    this.model = model;
    const named = model.set ?? (this.set && !this.builtIn.includes(this.set) ? this.set : null);
    const set = named ?? this.sets.at(-1)?.id ?? null;
    this.tell("model");
    await this.open(set);
  }

  /** Choose a set: its items as the model sees them. */
  async open(set, last = false) {
    this.set = set;
    this.items = [];
    this.skipped = [];
    this.item = null;
    this.samples?.release();
    this.samples = null;
    if (set && this.model) {
      const frame = await framed("/api/samples", { model: this.model.id, set });
      this.samples = frame;
      this.items = frame.result.items.map((item) => ({
        ...item,
        url: frame.url(item.image),
        ref: { set, index: item.index },
      }));
      this.skipped = frame.result.skipped ?? [];
    }
    this.tell("items");
    this.pick(last ? this.items.at(-1) : this.items[0]);
  }

  pick(item) {
    this.item = item ?? null;
    this.tell("item");
  }

  /** Dropped files become a set of their own, or part of the one that is open. */
  async add(files, told) {
    const isOwn = this.set && !this.builtIn.includes(this.set);
    const set = isOwn ? this.set : (await post("/api/sets")).id;
    const { kept, skipped } = await upload(set, files, this.fileBytes, told);
    for (const reason of skipped.slice(0, 3)) toast(reason, "bad");
    await this.refresh();
    return { set, kept };
  }
}

export const store = new Store();

/** Files of a drop, those in folders too. */
export async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files];
  const found = [];
  for (const entry of entries) await walk(entry, found);
  return found;
}

async function walk(entry, found) {
  if (entry.isFile) {
    const file = await new Promise((done, fail) => entry.file(done, fail));
    if (!file.name.startsWith(".")) found.push(file);
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const some = await new Promise((done, fail) => reader.readEntries(done, fail));
    if (!some.length) return;
    for (const one of some) await walk(one, found);
  }
}

export const addFiles = (files) =>
  trying(async () => {
    if (!files.length) return;
    const { set, kept } = await store.add(files);
    if (kept) await store.open(set, true);
  });
