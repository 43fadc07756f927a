// Parts that several views are made of.
import { job } from "./api.js";
import { bytes, el, fill, freshId, number, say, toast, trying } from "./dom.js";

/** An item to be seen, heard or read. */
export function shown(frame, item, label) {
  const figure = el("figure", { class: "shown" });
  if (item.text) figure.append(passage(item.text.now));
  // The caption says what the image is, once.
  else figure.append(picture(frame, item.image));
  if (item.sound) figure.append(player(frame.url(item.sound), label));
  if (label) figure.append(el("figcaption", { text: label }));
  return figure;
}

export function picture(frame, image, label = "") {
  const made = el("img", { src: frame.url(image), alt: label, width: image.width, height: image.height });
  made.classList.toggle("small", image.width < 160);
  return made;
}

export function passage(parts) {
  const text = el("p", { class: "passage", tabindex: "0" });
  for (const [words, differs] of parts) text.append(differs ? el("mark", { text: words }) : words);
  return text;
}

/** A player with one button and a line, in the style of the page. */
export function player(url, label = "sound") {
  const audio = new Audio(url);
  const button = el("button", { type: "button", class: "play", "aria-label": `Play: ${label}` });
  const line = el("span", { class: "line" });
  const box = el("span", { class: "player" }, button, el("span", { class: "track" }, line));
  button.addEventListener("click", () => (audio.paused ? audio.play() : audio.pause()));
  const mark = () => {
    box.classList.toggle("on", !audio.paused);
    button.setAttribute("aria-label", `${audio.paused ? "Play" : "Pause"}: ${label}`);
  };
  for (const kind of ["play", "pause", "ended"]) audio.addEventListener(kind, mark);
  audio.addEventListener("timeupdate", () => {
    line.style.setProperty("--at", audio.duration ? audio.currentTime / audio.duration : 0);
  });
  return box;
}

let speaker = null;
// Seconds in which a clip grows loud and soft, so that its ends do not click.
const EDGE = 0.004;

/** As `player`, of a part of a sound: bytes of the whole, and the shares of it between which it is heard. */
export function clip(bytes, from, to, label) {
  const button = el("button", { type: "button", class: "play", "aria-label": `Play: ${label}` });
  const line = el("span", { class: "line" });
  const box = el("span", { class: "player" }, button, el("span", { class: "track" }, line));
  let source = null;
  const mark = () => {
    box.classList.toggle("on", source !== null);
    button.setAttribute("aria-label", `${source ? "Stop" : "Play"}: ${label}`);
  };
  const play = async () => {
    speaker ??= new AudioContext();
    await speaker.resume();
    const sound = await speaker.decodeAudioData(bytes.slice().buffer);
    const begin = speaker.currentTime;
    const seconds = (to - from) * sound.duration;
    const volume = speaker.createGain();
    for (const [time, level] of [[0, 0], [EDGE, 1], [seconds - EDGE, 1], [seconds, 0]]) volume.gain.linearRampToValueAtTime(level, begin + time);
    source = new AudioBufferSourceNode(speaker, { buffer: sound });
    source.connect(volume).connect(speaker.destination);
    source.onended = () => {
      source = null;
      mark();
    };
    source.start(begin, from * sound.duration, seconds);
    box.dataset.seconds = seconds.toFixed(3);
    mark();
    const move = () => {
      line.style.setProperty("--at", source ? Math.min(1, (speaker.currentTime - begin) / seconds) : 0);
      if (source) requestAnimationFrame(move);
    };
    move();
  };
  button.addEventListener("click", () => (source ? source.stop() : trying(play)));
  return box;
}

/** Two images, one over the other, with a line between that can be moved. */
export function split(before, after, labels) {
  const range = el("input", {
    type: "range",
    min: "0",
    max: "100",
    value: "50",
    step: "1",
    class: "split-range",
    "aria-label": `Line between ${labels[0]} and ${labels[1]}`,
  });
  const top = el("div", { class: "split-top" }, before);
  const box = el(
    "div",
    { class: "split" },
    after,
    top,
    el("span", { class: "split-line" }),
    el("span", { class: "tag left", text: labels[0] }),
    el("span", { class: "tag right", text: labels[1] }),
    range,
  );
  const move = () => box.style.setProperty("--split", `${range.value}%`);
  range.addEventListener("input", move);
  move();
  return box;
}

/** A slider with its name and value. */
export function slider(name, { min = 0, max = 1, step = 0.01, value = 0.5, words = (v) => v, oninput } = {}) {
  const id = freshId("slider");
  const output = el("output", { for: id, text: words(value) });
  const input = el("input", { type: "range", id, min: `${min}`, max: `${max}`, step: `${step}`, value: `${value}` });
  const paint = () => {
    const share = max > min ? (input.value - min) / (max - min) : 0;
    input.style.setProperty("--share", share);
    output.textContent = words(Number(input.value));
  };
  input.addEventListener("input", () => {
    paint();
    oninput?.(Number(input.value));
  });
  paint();
  const box = el("div", { class: "field slider" }, el("label", { for: id, text: name }), output, input);
  return {
    box,
    get value() {
      return Number(input.value);
    },
    set value(given) {
      input.value = given;
      paint();
    },
    input,
  };
}

/** A text or number with its name. */
export function textField(name, given = {}) {
  const id = freshId("field");
  const input = el("input", { type: "text", id, autocomplete: "off", spellcheck: "false", ...given });
  return { box: el("div", { class: "field" }, el("label", { for: id, text: name }), input), input };
}

export function choice(name, options, given = {}) {
  const id = freshId("choice");
  const select = el("select", { id, ...given });
  setOptions(select, options);
  const box = el("div", { class: "field" }, el("label", { for: id, text: name }), el("span", { class: "select" }, select));
  return { box, select };
}

export function setOptions(select, options, value) {
  fill(select, options.map(([key, text]) => el("option", { value: key, text })));
  if (value !== undefined && value !== null) select.value = value;
}

/** One of several, side by side: radio buttons that look like one control. */
export function segments(name, options, chosen, onchange) {
  const group = freshId("segments");
  const box = el("fieldset", { class: "segments" }, el("legend", { text: name }));
  for (const [key, text] of options) {
    const id = freshId("segment");
    const radio = el("input", { type: "radio", name: group, id, value: key, checked: key === chosen });
    radio.addEventListener("change", () => onchange(key));
    box.append(radio, el("label", { for: id, text }));
  }
  return box;
}

export const button = (text, onclick, kind = "") =>
  el("button", { type: "button", class: `button ${kind}`, text, onclick });

export function save(url, name, text = "Save") {
  return el("a", { class: "button quiet", href: url, download: name, text });
}

/** The command and the Python that give the same. */
export function recipe(result) {
  const box = el("details", { class: "recipe" }, el("summary", { text: "The same in a terminal or in Python" }));
  for (const [name, text] of [["Terminal", result.command], ["Python", result.python]]) {
    if (!text) continue;
    const copy = button("Copy", async () => {
      await trying(() => navigator.clipboard.writeText(text));
      say("Copied");
      copy.textContent = "Copied";
    }, "quiet small");
    copy.setAttribute("aria-label", `Copy: ${name}`);
    const code = el("pre", { tabindex: "0", role: "region", "aria-label": name }, el("code", { text }));
    box.append(el("div", { class: "recipe-part" }, el("h4", { text: name }), copy, code));
  }
  return box;
}

/** Run a job: its place shows how far it is, with a button that cancels it. */
export async function working(place, verb, body, words) {
  const stop = new AbortController();
  const bar = el("span", { class: "bar", role: "progressbar", "aria-label": words, "aria-valuemin": "0", "aria-valuemax": "100" });
  const note = el("span", { text: words });
  const box = el("div", { class: "working" }, note, bar, button("Cancel", () => stop.abort(), "quiet small"));
  fill(place, box);
  say(words);
  try {
    return await job(`/api/do/${verb}`, body, {
      signal: stop.signal,
      told: (state) => {
        bar.style.setProperty("--done", state.progress);
        bar.setAttribute("aria-valuenow", Math.round(100 * state.progress));
        bar.classList.toggle("unknown", state.progress === 0);
        note.textContent = state.before ? `${words} – ${state.before} before it` : words;
      },
    });
  } catch (error) {
    fill(place);
    toast(error.message, "bad");
    if (error.constructor.name !== "Failure") console.error(error);
    return undefined;
  }
}

export const rateWords = (value, name) =>
  name === "kbps" ? `${number(value / 1, 2)} kbps` : `${number(value, 3)} ${name}`;

export { bytes };
