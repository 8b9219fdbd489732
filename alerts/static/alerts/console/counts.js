// How many groups there are: exact for what is stored, from GET /api/v1/groups/summary, not only for what is loaded.
//
// new Counts({api, filters, store})
//   .refresh()         asks again now
//   .summary           the last answer, or null
//   dispatches "change"
// While groups change it asks again every few seconds, unless nobody looks at the page.

import { isAborted } from "./api.js";

const REFRESH_AFTER = 5_000; // milliseconds
const SHARE = 20; // it waits so many times as long as the last answer took, so that large tables are not counted all day

export class Counts extends EventTarget {
  #parts;
  #timer = null;
  #took = 0; // milliseconds
  #request = new AbortController();
  summary = null;

  constructor(parts) {
    super();
    this.#parts = parts;
    parts.filters.addEventListener("change", () => this.refresh());
    parts.store.addEventListener("change", () => {
      this.#timer ??= setTimeout(() => this.refresh(), Math.max(REFRESH_AFTER, SHARE * this.#took));
    });
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.refresh();
    });
  }

  async refresh() {
    clearTimeout(this.#timer);
    this.#timer = null;
    if (document.hidden) return;
    this.#request.abort();
    this.#request = new AbortController();
    const { signal } = this.#request;
    const asked = performance.now();
    try {
      this.summary = await this.#parts.api.get("groups/summary", this.#parts.filters.query, { signal });
      this.#took = performance.now() - asked;
      this.dispatchEvent(new Event("change"));
    } catch (error) {
      if (!isAborted(error)) this.summary = null; // the list says what is wrong
    }
  }
}
