// Which groups the analyst wants to see. The filters are parameters of the page's address, with the names that
// GET /api/v1/groups knows, so a view can be kept, sent to a colleague and left with the back button.
//
// new Filters()
//   .query                        the filters as a new URLSearchParams, ready for the API
//   .get(name), .all(name)        as URLSearchParams has them
//   .set(name, values, {typing})  replaces the values of one filter; null, "" or [] removes it; `typing` makes one
//                                 step of the history of what is typed without a pause
//   .toggle(name, value)          adds or removes one of the values
//   .adopt(query)                 replaces all of them, as a saved filter does
//   .clear()
//   .size                         how many names are set
//   dispatches "change", also when the reader goes back or forward
// Parameters with other names, such as `open`, are left alone.

export const NAMES = [
  "severity",
  "status",
  "disposition",
  "assignee",
  "device",
  "source",
  "destination",
  "address",
  "tenant",
  "q",
  "since",
  "within",
  "until",
  "suppressed",
];

export class Filters extends EventTarget {
  #typing = false; // the last step of the history is of what is being typed

  constructor() {
    super();
    this.last = this.query.toString();
    window.addEventListener("popstate", () => this.#announce());
  }

  get query() {
    const parameters = new URLSearchParams(location.search);
    return new URLSearchParams([...parameters].filter(([name, value]) => NAMES.includes(name) && value !== ""));
  }

  get size() {
    return new Set(this.query.keys()).size;
  }

  get(name) {
    return this.query.get(name);
  }

  all(name) {
    return this.query.getAll(name);
  }

  set(name, values, { typing = false } = {}) {
    const query = this.query;
    query.delete(name);
    for (const value of [values ?? []].flat()) if (value !== "") query.append(name, value);
    this.#go(query, typing);
  }

  toggle(name, value) {
    const values = this.all(name);
    this.set(name, values.includes(value) ? values.filter((other) => other !== value) : [...values, value]);
  }

  adopt(query) {
    this.#go(new URLSearchParams(query), false);
  }

  clear() {
    this.adopt("");
  }

  #go(query, typing) {
    const address = new URL(location.href);
    const others = [...address.searchParams].filter(([name]) => !NAMES.includes(name));
    address.search = new URLSearchParams([...query, ...others]);
    if (typing && this.#typing) history.replaceState(history.state, "", address);
    else history.pushState(history.state, "", address);
    this.#typing = typing;
    this.#announce();
  }

  #announce() {
    const query = this.query.toString();
    if (query === this.last) return;
    this.last = query;
    this.dispatchEvent(new Event("change"));
  }
}
