// Which alerts the analyst wants to see: severities (remembered in this browser) and a search.

const STORED_AS = "ingestcloud.hiddenSeverities";

export class AlertFilter extends EventTarget {
  #hidden = new Set(recall());
  #words = [];

  /** Dispatches "change" whenever other alerts match than before. */
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

// A browser may deny storage, and anybody may write into it: then all severities are shown.
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
    // The choice holds until the page is left.
  }
}
