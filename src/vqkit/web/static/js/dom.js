// Elements, and how numbers are written.

/** An element: attributes, `on` handlers, `class`, `text`, and children. */
export function el(tag, given = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "class") made.className = value;
    else if (name === "text") made.textContent = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name in made && typeof value !== "string" && name !== "list") made[name] = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

export const fill = (parent, ...children) => {
  parent.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined));
  return parent;
};

export const $ = (selector, from = document) => from.querySelector(selector);

/** Tell people who do not see the page. */
export function say(text) {
  $("#said").textContent = text;
}

export function toast(text, kind = "note") {
  const shown = el("div", { class: `toast ${kind}`, text });
  $("#toasts").append(shown);
  setTimeout(() => shown.remove(), 7000);
}

/** Run something that a person asked for; what goes wrong is said. */
export async function trying(action) {
  try {
    return await action();
  } catch (error) {
    toast(error.message, "bad");
    if (error.constructor.name !== "Failure") console.error(error);
    return undefined;
  }
}

export const number = (value, digits = 2) =>
  value === null || value === undefined || !Number.isFinite(value) ? "–" : value.toFixed(digits);

export const count = (value) => value.toLocaleString("en").replaceAll(",", "\u202f");

export function bytes(value) {
  if (value < 10_000) return `${count(value)} B`;
  if (value < 10_000_000) return `${(value / 1000).toFixed(1)} kB`;
  return `${(value / 1e6).toFixed(1)} MB`;
}

export const percent = (value) => `${Math.round(100 * value)} %`;

let numbers = 0;
export const freshId = (word) => `${word}-${(numbers += 1)}`;
