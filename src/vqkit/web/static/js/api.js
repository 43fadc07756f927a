// What the page asks the server for. Answers with files are frames: a length, JSON, bytes.

export class Failure extends Error {}

async function asked(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Failure("The server does not answer. Is it still running?");
  }
  if (!response.ok) {
    const said = await response.json().catch(() => ({}));
    throw new Failure(said.error ?? "That did not work.");
  }
  return response;
}

const asJson = (body) => ({
  method: "POST",
  headers: { "content-type": "application/json" },
  body: JSON.stringify(body),
});

export const get = async (path) => (await asked(path)).json();
export const post = async (path, body = {}) => (await asked(path, asJson(body))).json();
export const remove = async (path) => (await asked(path, { method: "DELETE" })).json();

/** A result and its files, which become addresses when they are first asked for. */
export class Frame {
  constructor(buffer) {
    const length = new DataView(buffer).getUint32(0, true);
    const message = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
    this.result = message.result;
    this.files = [];
    let at = 4 + length;
    for (const size of message.blobs) {
      this.files.push(new Uint8Array(buffer, at, size));
      at += size;
    }
    this.urls = new Map();
  }

  url(named) {
    if (!this.urls.has(named.file)) {
      const blob = new Blob([this.files[named.file]], { type: named.type });
      this.urls.set(named.file, URL.createObjectURL(blob));
    }
    return this.urls.get(named.file);
  }

  release() {
    for (const url of this.urls.values()) URL.revokeObjectURL(url);
    this.urls.clear();
  }
}

export async function framed(path, body) {
  const response = await asked(path, body === undefined ? {} : asJson(body));
  return new Frame(await response.arrayBuffer());
}

/** The result of a job, when it is over. told: gets how far it is. signal: cancels it. */
export async function job(path, body, { told = () => {}, signal } = {}) {
  let state = await post(path, body);
  const cancel = () => remove(`/api/jobs/${state.id}`).catch(() => {});
  signal?.addEventListener("abort", cancel);
  try {
    while (state.state === "waiting" || state.state === "running") {
      told(state);
      state = await get(`/api/jobs/${state.id}?wait=0.4`);
    }
  } finally {
    signal?.removeEventListener("abort", cancel);
  }
  if (state.state === "cancelled") throw new Failure("Cancelled.");
  if (state.state === "failed") throw new Failure(sentence(state.error));
  return framed(`/api/jobs/${state.id}/result`);
}

/** Files of so many bytes at most into a set, one after the other: how many were kept, and why others were not. */
export async function upload(set, files, most, told = () => {}) {
  const skipped = [];
  let kept = 0;
  for (const file of files) {
    const path = `/api/sets/${set}/files?name=${encodeURIComponent(file.name)}`;
    try {
      if (file.size > most) throw new Failure(`files of ${most >> 20} MiB at most are taken in here; vqkit train FOLDER reads larger ones where they lie`);
      await (await asked(path, { method: "POST", body: file })).json();
      kept += 1;
    } catch (error) {
      skipped.push(`${file.name}: ${error.message}`);
    }
    told(kept + skipped.length, files.length);
  }
  return { kept, skipped };
}

export const sentence = (text) => {
  const whole = text ? text[0].toUpperCase() + text.slice(1) : "That did not work";
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
};
