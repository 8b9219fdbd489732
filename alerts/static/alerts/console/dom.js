// Elements without markup: everything that is given as text becomes a text node.

import { ago, exact } from "./time.js";

/** `element("p", {class: "muted", hidden: true}, "text", child)`; handlers are given as `onclick` and so on. */
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (typeof value === "boolean") made.toggleAttribute(key, value);
    else if (value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** A button with words on it. */
export function button(words, onclick, properties = {}) {
  return element("button", { type: "button", class: "button", onclick, ...properties }, words);
}

/** "5 min ago", with the exact time for those who point at it. */
export function age(iso) {
  const date = new Date(iso);
  return element("time", { datetime: iso, title: exact(date) }, ago(date));
}

export const byId = (id) => document.getElementById(id);
