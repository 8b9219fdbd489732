// Which alerts the analyst wants to see: by severity (remembered in this browser) and by search.

const STORED_AS = "ingestcloud.hiddenSeverities";

export class AlertFilter extends EventTarget {
  #hidden = new Set(recall());
  #words = [];

  /** Dispatches "change" when the set of matching alerts may have changed. */
  toggle(severity) {
    if (!this.#hidden.delete(severity)) this.#hidden.add(severity);
    remember([...this.#hidden]);
    this.dispatchEvent(new Event("change"));
  }

  search(text) {
    this.#words = text.toLowerCase().split(/\s+/).filter(Boolean);
    this.dispatchEvent(new Event("change"));
  }

  clear() {
    this.#hidden.clear();
    remember([]);
    this.search("");
  }

  shows(severity) {
    return !this.#hidden.has(severity);
  }

  /** Every word must occur, in any order. */
  matches(severity, text) {
    return this.shows(severity) && this.#words.every((word) => text.includes(word));
  }
}

// A browser may deny storage, and the user can edit it: all severities are shown then.
function recall() {
  try {
    const stored = JSON.parse(localStorage.getItem(STORED_AS));
    return Array.isArray(stored) ? stored : [];
  } catch {
    return [];
  }
}

function remember(hidden) {
  try {
    localStorage.setItem(STORED_AS, JSON.stringify(hidden));
  } catch {
    // The choice lasts until the page is closed.
  }
}
