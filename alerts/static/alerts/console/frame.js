// What is around the list: how many groups there are, what waits above, what is loading, and the title of the tab.
//
// new Frame({list, detail, order, store, feed, filters, counts, place, announcer})   `announcer` is read out by screen readers: sparingly
//   .isFresh(id)    whether the group arrived in the last seconds
//   .showWaiting()  lets what waits take its place, at the top of the list

import { isUrgent } from "./store.js";
import { counted } from "./words.js";

const FRESH_FOR = 4_000; // milliseconds
const TITLE = document.title.trim();

export class Frame {
  #parts;
  #fresh = new Map(); // id → when it stops to be fresh
  #above = 0; // urgent groups that came in above the screen

  constructor(parts) {
    this.#parts = parts;
    const { list, store, feed, counts, place } = parts;
    this.waiting = place.querySelector(".waiting");
    this.outside = place.querySelector(".outside");
    this.outside.addEventListener("click", () => parts.filters.adopt("severity=critical&status=new"));
    this.waiting.addEventListener("click", () => this.showWaiting());
    store.addEventListener("change", ({ detail: changes }) => this.#onChange(changes));
    feed.addEventListener("status", () => {
      this.#showStatus();
      this.#showTitle();
    });
    feed.addEventListener("loaded", () => {
      this.#fresh.clear();
      this.#announce(this.#countInWords(feed.status.hasMore));
    });
    counts.addEventListener("change", () => {
      this.#showTitle();
      this.#showStatus();
    });
    list.addEventListener("drawn", () => this.#show());
    list.addEventListener("settle", () => this.#settle());
    list.addEventListener("nearend", () => feed.more());
    setInterval(() => this.#tick(), 1_000);
  }

  isFresh(id) {
    return this.#fresh.has(id);
  }

  showWaiting() {
    const { list, order } = this.#parts;
    this.#settle();
    list.toTop();
    if (order.length > 0) list.focus(order.at(0));
  }

  #settle() {
    const { feed, list } = this.#parts;
    list.release();
    feed.release();
  }

  #onChange(changes) {
    const { feed, list } = this.#parts;
    if (feed.status.loading) return;
    const until = Date.now() + FRESH_FOR;
    const urgent = changes.filter(({ before, after }) => after && isUrgent(after) && !(before && isUrgent(before)));
    for (const { id, before, after } of changes) if (after && !before) this.#fresh.set(id, until);
    if (!list.isAtTop) this.#above += urgent.length;
    if (urgent.length === 1) this.#announce(`Critical: ${urgent[0].after.title}`);
    else if (urgent.length > 1) this.#announce(`${urgent.length} new critical groups`);
    this.#showTitle();
  }

  #announce(words) {
    this.#parts.announcer.textContent = words;
  }

  #tick() {
    if (document.hidden) return;
    const { list, detail } = this.#parts;
    const gone = [...this.#fresh].filter(([, until]) => until < Date.now()).map(([id]) => id);
    for (const id of gone) this.#fresh.delete(id);
    list.redraw(gone);
    list.updateAges();
    detail.updateAges();
  }

  #show() {
    this.#showWaiting();
    this.#showStatus();
  }

  #showWaiting() {
    const { list, order } = this.#parts;
    const { arrived, moved } = order;
    if (list.isAtTop) this.#above = 0;
    const words = [];
    if (this.#above > 0) words.push(`${this.#above.toLocaleString()} critical`);
    if (arrived.size > 0) words.push(`${arrived.size.toLocaleString()} new`);
    if (moved.size > 0) words.push(`${moved.size.toLocaleString()} moved`);
    this.waiting.textContent = `↑ ${words.join(", ")}`;
    this.waiting.hidden = words.length === 0;
    this.waiting.classList.toggle("is-urgent", this.#above > 0);
  }

  #showStatus() {
    const { place, order, feed } = this.#parts;
    const { loading, hasMore, problem, left, outside } = feed.status;
    const isEmpty = order.length === 0 && !loading && !problem;
    place.querySelector(".list-count").textContent = this.#countInWords(hasMore);
    place.querySelector(".list-left").textContent =
      left === 0 ? "" : `${counted(left, "older group")} made room; scroll to the end to see them.`;
    this.outside.textContent = `${counted(outside, "new critical group")} outside these filters`;
    this.outside.hidden = outside === 0;
    place.querySelector(".list-end").textContent = loading ? "Loading…" : problem;
    place.querySelector(".empty").hidden = !isEmpty;
    place.querySelector("[role=grid]").hidden = isEmpty;
  }

  #countInWords(hasMore) {
    const { store, counts } = this.#parts;
    if (!hasMore || !counts.summary) return counted(store.size, "group");
    const { total, is_exact: isExact } = counts.summary;
    return `${store.size.toLocaleString()} of ${counted(Math.max(total, store.size), "group")}${isExact ? "" : " or more"}`;
  }

  #showTitle() {
    const { store, counts, feed } = this.#parts;
    const urgent = store.counts.urgent + feed.status.outside;
    const fresh = counts.summary?.by_status.new ?? store.counts.status.new ?? 0;
    const words = [];
    if (urgent > 0) words.push(`${urgent.toLocaleString()} critical`);
    if (fresh > 0) words.push(`${fresh.toLocaleString()} new`);
    document.title = words.length > 0 ? `${words.join(", ")} · ${TITLE}` : TITLE;
  }
}
