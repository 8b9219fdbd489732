// A section whose items come page by page from the API.
//
// new Paged(title, api, path, signal, item, {query, empty}?)   `item(result)` makes the element of one
//   .element
//   .load()             loads the newest page, in place of everything
//   .offerNewer(count)  shows a button that loads again
//   .first              the newest result, or null
//   .onload             called after each page
// It is hidden while it has no items, unless `empty` says what to show then.

import { isAborted } from "./api.js";
import { button, element } from "./dom.js";
import { counted } from "./words.js";

export class Paged {
  #api;
  #path;
  #signal;
  #item;
  #query;
  #none;
  #next = null;
  #newer = 0;
  #list = element("ol", { class: "records" });
  #more = button("Show more", () => this.#load(this.#next), { hidden: true });
  #offer = button("", () => this.load(), { class: "button button-quiet", hidden: true });
  #problem = element("p", { class: "field-error", hidden: true });
  first = null;
  onload = () => {};

  constructor(title, api, path, signal, item, { query = {}, empty = "" } = {}) {
    this.#api = api;
    this.#path = path;
    this.#signal = signal;
    this.#item = item;
    this.#query = query;
    this.#none = element("p", { class: "muted", hidden: true }, empty);
    this.element = section(title, this.#offer, this.#none, this.#list, this.#problem, this.#more);
  }

  load() {
    this.#newer = 0;
    this.#offer.hidden = true;
    return this.#load(null);
  }

  // Loading by itself would move what is being read.
  offerNewer(count) {
    this.#newer += count;
    this.#offer.textContent = `Show ${counted(this.#newer, "newer alert")}`;
    this.#offer.hidden = this.#newer <= 0;
  }

  async #load(query) {
    try {
      const answer = await this.#api.get(this.#path, query ?? this.#query, { signal: this.#signal });
      const items = answer.results.map(this.#item);
      if (query) this.#list.append(...items);
      else this.#list.replaceChildren(...items);
      if (!query) this.first = answer.results[0] ?? null;
      this.#next = answer.next && new URL(answer.next, location.href).searchParams;
      this.#more.hidden = !answer.next;
      this.#problem.hidden = true;
      const isEmpty = this.#list.childElementCount === 0;
      this.#none.hidden = !isEmpty;
      this.element.hidden = isEmpty && this.#none.textContent === "";
      this.onload();
    } catch (error) {
      if (isAborted(error)) return;
      this.#problem.textContent = error.message;
      this.#problem.hidden = false;
      this.element.hidden = false;
    }
  }
}

export function section(title, ...children) {
  return element("section", { class: "section" }, title ? element("h3", {}, title) : null, ...children);
}
