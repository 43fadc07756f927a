// Curves of a run: one line for training, one for held-out items.
import { el, number } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 320;
const HEIGHT = 132;
const EDGE = { left: 4, right: 4, top: 8, bottom: 18 };

function shape(tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

/** rows: of metrics.jsonl. key: what is drawn. */
export function chart(title, rows, key, unit = "") {
  const series = ["train", "validation"].map((split) => rows.filter((row) => row.split === split && Number.isFinite(row[key])));
  const all = series.flat();
  const last = series[1].at(-1) ?? series[0].at(-1);
  const value = last ? `${number(last[key], last[key] < 1 ? 3 : 2)}${unit}` : "–";
  const figure = el("figure", { class: "chart" }, el("figcaption", {}, el("span", { text: title }), el("b", { text: value })));
  const picture = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title}: ${value}` });
  figure.append(picture);
  if (all.length < 2) return figure;
  const steps = all.map((row) => row.step);
  const values = all.map((row) => row[key]).sort((a, b) => a - b);
  // What the first steps have lies far outside of all that comes later.
  const low = values[Math.floor(0.02 * (values.length - 1))];
  const high = values[Math.ceil(0.98 * (values.length - 1))];
  const [first, end] = [Math.min(...steps), Math.max(...steps)];
  const x = (step) => EDGE.left + ((WIDTH - EDGE.left - EDGE.right) * (step - first)) / Math.max(1, end - first);
  const y = (one) => {
    const share = high > low ? Math.min(1.05, Math.max(-0.05, (one - low) / (high - low))) : 0.5;
    return HEIGHT - EDGE.bottom - (HEIGHT - EDGE.top - EDGE.bottom) * share;
  };
  picture.append(shape("line", { class: "axis", x1: 0, x2: WIDTH, y1: HEIGHT - EDGE.bottom + 4, y2: HEIGHT - EDGE.bottom + 4 }));
  picture.append(shape("text", { class: "label", x: EDGE.left, y: HEIGHT - 3 }, `step ${first}`));
  picture.append(shape("text", { class: "label", x: WIDTH - EDGE.right, y: HEIGHT - 3, "text-anchor": "end" }, `${end}`));
  series.forEach((some, index) => {
    const points = some.map((row) => `${x(row.step).toFixed(1)},${y(row[key]).toFixed(1)}`).join(" ");
    if (some.length > 1) picture.append(shape("polyline", { class: index ? "held-out" : "training", points }));
    else if (some.length) picture.append(shape("circle", { class: "held-out", cx: x(some[0].step), cy: y(some[0][key]), r: 3 }));
  });
  return figure;
}
