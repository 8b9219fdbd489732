// The rows: newest first, each alert once, and never moving under the reader's eyes. There is room for LIMIT; what is
// critical, expanded, focused or selected stays beyond that, and what was removed is counted.

import { createRow, searchText, updateAge } from "./row.js";

export const LIMIT = 500;
export const LIMIT_OF_CRITICAL = 2_000; // the page must not grow for ever
const SCROLLED_DOWN = 48;

export class AlertList {
  #entries = new Map();
  #removed = 0;

  constructor({ list, template, filter, showTenant }) {
    this.list = list;
    this.template = template;
    this.filter = filter;
    this.showTenant = showTenant;
  }

  get size() {
    return this.#entries.size;
  }

  /** How many alerts were here, or came, and are not shown to make room. */
  get removed() {
    return this.#removed;
  }

  /**
   * Those of `alerts`, in id order, that there will be room for: the newest, and all that are critical. The others are
   * counted as removed, so that thousands of rows need not be made first.
   */
  choose(alerts) {
    const spare = alerts.length - LIMIT;
    const chosen = alerts.filter(({ severity }, index) => index >= spare || severity === "critical");
    this.#removed += alerts.length - chosen.length;
    return chosen;
  }

  /** Adds those of `alerts` that are not here yet; returns the new rows that the filter shows. */
  add(alerts, { fresh }) {
    const rows = [];
    this.#keepReadingPosition(() => {
      for (const alert of alerts) {
        if (!this.#entries.has(alert.id)) rows.push(this.#insert(alert, fresh));
      }
      this.#trim();
    });
    return rows.filter((row) => row.isConnected && !row.hidden);
  }

  /** Shows what the filter lets through; returns how many. */
  applyFilter() {
    let shown = 0;
    for (const entry of this.#entries.values()) {
      this.#filterEntry(entry);
      if (!entry.row.hidden) shown += 1;
    }
    return shown;
  }

  /** How many of the alerts here, shown or not, have each severity. */
  severityCounts() {
    const counts = {};
    for (const { row } of this.#entries.values()) {
      counts[row.dataset.severity] = (counts[row.dataset.severity] ?? 0) + 1;
    }
    return counts;
  }

  updateAges(now) {
    for (const { row, received } of this.#entries.values()) updateAge(row, received, now);
  }

  #insert(alert, fresh) {
    const row = createRow(this.template, alert, { showTenant: this.showTenant });
    const entry = { row, text: searchText(alert), received: new Date(alert.received_at) };
    row.classList.toggle("is-new", fresh);
    this.#filterEntry(entry);
    this.#entries.set(alert.id, entry);
    this.list.insertBefore(row, this.#firstOlderThan(alert.id));
    return row;
  }

  // Frames come in id order, so this is nearly always the first row.
  #firstOlderThan(id) {
    let row = this.list.firstElementChild;
    while (row && Number(row.dataset.alertId) > id) row = row.nextElementSibling;
    return row;
  }

  #filterEntry({ row, text }) {
    row.hidden = !this.filter.matches(row.dataset.severity, text);
  }

  #trim() {
    let row = this.list.lastElementChild;
    while (row && this.#entries.size > LIMIT) {
      const newer = row.previousElementSibling;
      if (!this.#mustStay(row) || this.#entries.size > LIMIT_OF_CRITICAL) this.#remove(row);
      row = newer;
    }
  }

  #mustStay(row) {
    return (
      row.dataset.severity === "critical" ||
      row.classList.contains("is-open") ||
      row.contains(document.activeElement) ||
      getSelection().containsNode(row, true)
    );
  }

  #remove(row) {
    this.#entries.delete(Number(row.dataset.alertId));
    row.remove();
    this.#removed += 1;
  }

  // Not every browser anchors the scroll position by itself, so live.css switches that off and we do it.
  #keepReadingPosition(change) {
    const anchor = isScrolledDown() ? this.#firstRowInView() : null;
    const before = anchor?.getBoundingClientRect().top;
    change();
    if (anchor?.isConnected) {
      window.scrollBy({ top: anchor.getBoundingClientRect().top - before, behavior: "instant" });
    }
  }

  #firstRowInView() {
    for (const row of this.list.children) {
      if (!row.hidden && row.getBoundingClientRect().bottom > 0) return row;
    }
    return null;
  }
}

export function isScrolledDown() {
  return window.scrollY > SCROLLED_DOWN;
}
