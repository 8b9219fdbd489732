// The rows: newest first, each alert once, and never moving while the analyst reads. There is room for LIMIT_OF_CRITICAL
// critical alerts and for LIMIT others; neither kind displaces the other. Beyond that the oldest rows are removed and
// counted, except those in use: expanded, focused or selected.

import { createRow, searchText, updateAge } from "./row.js";

export const LIMIT = 500;
export const LIMIT_OF_CRITICAL = 2_000;
const SCROLLED_DOWN = 48; // pixels

export class AlertList {
  #entries = new Map();
  #removed = { critical: 0, other: 0 };

  constructor({ list, template, filter, showTenant }) {
    this.list = list;
    this.template = template;
    this.filter = filter;
    this.showTenant = showTenant;
  }

  get size() {
    return this.#entries.size;
  }

  /** How many alerts were removed, or never added, to make room: `{critical, other}`. */
  get removed() {
    return this.#removed;
  }

  /** The newest of `alerts` that fit, in id order, so that thousands of rows aren't created only to be removed. */
  choose(alerts) {
    const room = { critical: LIMIT_OF_CRITICAL, other: LIMIT };
    const fits = ({ severity }) => {
      room[kind(severity)] -= 1;
      if (room[kind(severity)] >= 0) return true;
      this.#removed[kind(severity)] += 1;
      return false;
    };
    return alerts.toReversed().filter(fits).reverse();
  }

  /** Adds the `alerts` that are not in the list yet; returns the new rows that the filter shows. */
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

  /** Shows the rows that pass the filter; returns how many there are. */
  applyFilter() {
    let shown = 0;
    for (const entry of this.#entries.values()) {
      this.#filterEntry(entry);
      if (!entry.row.hidden) shown += 1;
    }
    return shown;
  }

  /** How many alerts in the list, shown or not, have each severity. */
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
    if (this.#entries.size <= LIMIT) return;
    const rows = { critical: [], other: [] };
    for (const row of this.list.children) {
      if (!isInUse(row)) rows[kind(row.dataset.severity)].push(row);
    }
    for (const row of rows.critical.slice(LIMIT_OF_CRITICAL)) this.#remove(row);
    for (const row of rows.other.slice(LIMIT)) this.#remove(row);
  }

  #remove(row) {
    this.#entries.delete(Number(row.dataset.alertId));
    row.remove();
    this.#removed[kind(row.dataset.severity)] += 1;
  }

  // Not every browser anchors the scroll position itself, so live.css switches that off and we do it here.
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

function kind(severity) {
  return severity === "critical" ? "critical" : "other";
}

function isInUse(row) {
  return (
    row.classList.contains("is-open") || row.contains(document.activeElement) || getSelection().containsNode(row, true)
  );
}
