// What belongs in the store: the groups that pass the filters, from the API and then from the socket, and those that
// the reader is using although they no longer do.
//
// new Feed({api, store, order, filters, socket, isInUse, isShown})   `isInUse(id)`: selected, open or focused
//   .start(userId)     loads for the first time; from then on it follows the filters and the socket
//   .receive(groups)   takes groups from an answer, as from the socket
//   .more()            loads older groups
//   .release()         lets go of the groups that do not pass the filters and are no longer in use
//   .drop(ids)         lets go of those of `ids` that do not pass the filters, in use or not
//   .isStray(id)       whether the group is only here because it is, or was, in use
//   .status            {loading, hasMore, problem, left, outside}; `left` counts the groups that made room, `outside`
//                      those that are new and critical and do not pass the filters
//   dispatches "status" when that changed, and "loaded" (detail: {anew}) after the groups were loaded; `anew` if what
//     the page had before may be wrong

import { inWords, isAborted, Problem } from "./api.js";
import { matcher } from "./match.js";
import { isUrgent } from "./store.js";
import { setClock } from "./time.js";

const PAGE = 100; // groups
const LIMIT = 10_000; // groups that are kept; the older ones can be loaded again by scrolling
const SLACK = 1_000; // groups; so that room is made seldom
const MAX_URGENT_PAGES = 25; // of 200
const RETRY_AFTER = 5_000; // milliseconds
const AGE_EVERY = 10_000;

export class Feed extends EventTarget {
  #parts;
  #userId;
  #matches;
  #request = new AbortController();
  #next = null; // the query of the next page of older groups
  #isStale = true; // what is in the store may be wrong, until everything was loaded and the socket goes on from there
  #strays = new Set();
  #left = new Set();
  #urgent = new Map(); // id → group, of all that are new and critical
  #outside = new Set(); // the ids of those that do not pass the filters
  status = { loading: true, hasMore: false, problem: "", left: 0, outside: 0 };

  constructor(parts) {
    super();
    this.#parts = parts;
    parts.socket.addEventListener("groups", ({ detail: groups }) => this.receive(groups));
    parts.socket.addEventListener("reset", () => {
      this.#isStale = true;
      this.#load();
    });
    parts.filters.addEventListener("change", () => this.#applyFilters());
    setInterval(() => this.#age(), AGE_EVERY);
  }

  start(userId) {
    this.#userId = userId;
    this.#matches = matcher(this.#parts.filters.query, userId);
    return this.#load();
  }

  isStray(id) {
    return this.#strays.has(id);
  }

  receive(groups) {
    const { store, order, isInUse } = this.#parts;
    const [wanted, unwanted] = [[], []];
    for (const group of groups) {
      this.#noteUrgent(group);
      if (this.#matches(group)) {
        this.#strays.delete(group.id);
        this.#left.delete(group.id);
        wanted.push(group);
      } else if (store.has(group.id)) {
        const stays = order.held || isInUse(group.id);
        if (stays) this.#strays.add(group.id);
        (stays ? wanted : unwanted).push(group);
      }
    }
    store.put(wanted);
    store.remove(unwanted.map((group) => group.id));
    if (!order.held) this.release();
    this.#makeRoom();
  }

  // An analyst who looks at something else must still hear of what is new and critical.
  #noteUrgent(group) {
    if (this.#urgent.get(group.id)?.revision > group.revision) return;
    this.#urgent.delete(group.id);
    this.#outside.delete(group.id);
    if (!isUrgent(group)) return;
    this.#urgent.set(group.id, group);
    if (!this.#matches(group)) this.#outside.add(group.id);
  }

  release() {
    this.drop([...this.#strays].filter((id) => !this.#parts.isInUse(id)));
  }

  // Time goes by, and some groups no longer pass.
  #age() {
    const { store, filters, isInUse, order } = this.#parts;
    if (!filters.get("within") || order.held) return;
    const old = [...store.values()].filter((group) => !this.#matches(group) && !isInUse(group.id));
    for (const group of old) this.#noteUrgent(group);
    store.remove(old.map((group) => group.id));
    this.#say(this.#numbers);
  }

  drop(ids) {
    this.#parts.store.remove(ids.filter((id) => this.#strays.delete(id)));
  }

  async more() {
    if (this.status.loading || !this.#next) return;
    this.#say({ loading: true });
    const { signal } = this.#request;
    try {
      const answer = await this.#parts.api.get("groups", this.#next, { signal });
      this.#add(answer.results);
      this.#next = following(answer);
      this.#say({ loading: false, hasMore: this.#next !== null, problem: "", ...this.#numbers });
    } catch (error) {
      if (!isAborted(error)) this.#say({ loading: false, problem: error.message });
    }
  }

  // What is here already is shown at once; the server adds the rest.
  #applyFilters() {
    const { store, filters } = this.#parts;
    this.#matches = matcher(filters.query, this.#userId);
    this.#strays.clear();
    this.#left.clear();
    store.remove([...store.values()].filter((group) => !this.#matches(group)).map((group) => group.id));
    this.#sortUrgent();
    this.#load();
  }

  // The page knows all of them already.
  #sortUrgent() {
    const urgent = [...this.#urgent.values()];
    this.#outside = new Set(urgent.filter((group) => !this.#matches(group)).map((group) => group.id));
    this.#add(urgent.filter(this.#matches));
  }

  async #load() {
    this.#request.abort();
    this.#request = new AbortController();
    const { signal } = this.#request;
    this.#say({ loading: true, problem: "" });
    try {
      const anew = this.#isStale;
      const latest = await (anew ? this.#loadAnew(signal) : this.#latest(signal));
      this.#add(latest.groups, { anew });
      this.#next = latest.next;
      this.#say({ loading: false, hasMore: this.#next !== null, problem: latest.problem, ...this.#numbers });
      if (anew) this.#parts.socket.start(latest.revision, this.#lastAlert());
      this.#isStale = false;
      this.dispatchEvent(new CustomEvent("loaded", { detail: { anew } }));
    } catch (error) {
      if (isAborted(error)) return;
      this.#say({ loading: false, hasMore: false, problem: error.message });
      if (!(error instanceof Problem)) setTimeout(() => signal.aborted || this.#load(), RETRY_AFTER);
    }
  }

  // The database may have been restored, and have older states than the page.
  async #loadAnew(signal) {
    const [urgent, latest] = await Promise.all([this.#allUrgent(signal), this.#latest(signal)]);
    this.#forget([...urgent.groups, ...latest.groups]);
    this.#urgent.clear();
    this.#outside.clear();
    for (const group of urgent.groups) this.#noteUrgent(group);
    const groups = [...urgent.groups.filter(this.#matches), ...latest.groups];
    return { ...latest, groups, revision: Math.min(urgent.revision, latest.revision) };
  }

  // Only without filters is it the last of all.
  #lastAlert() {
    const { store, filters } = this.#parts;
    return filters.size === 0 ? Math.max(0, ...Array.from(store.values(), (group) => group.last_alert_id)) : null;
  }

  async #latest(signal) {
    const query = this.#parts.filters.query;
    query.set("limit", PAGE);
    try {
      const answer = await this.#parts.api.get("groups", query, { signal });
      setClock(answer.now);
      return { groups: answer.results, next: following(answer), revision: answer.revision, problem: "" };
    } catch (error) {
      if (!(error instanceof Problem && error.status === 400)) throw error;
      return this.#withoutFilters(inWords(error));
    }
  }

  // Nobody understands the filters, so no group passes them. The page still listens for what is critical.
  #withoutFilters(problem) {
    const { store, isInUse } = this.#parts;
    this.#matches = () => false;
    store.remove([...store.values()].map((group) => group.id).filter((id) => !isInUse(id)));
    this.#sortUrgent();
    return { groups: [], next: null, revision: Number.POSITIVE_INFINITY, problem };
  }

  // All that are new and critical, however long ago they changed and whether they pass the filters or not.
  async #allUrgent(signal) {
    const found = { groups: [], revision: Number.POSITIVE_INFINITY };
    let query = new URLSearchParams({ severity: "critical", status: "new", limit: 200 });
    for (let page = 0; query && page < MAX_URGENT_PAGES; page += 1) {
      const answer = await this.#parts.api.get("groups", query, { signal });
      found.groups.push(...answer.results);
      found.revision = Math.min(found.revision, answer.revision);
      query = following(answer);
    }
    return found;
  }

  #add(groups, options) {
    const ids = groups.map((group) => group.id);
    for (const id of ids) {
      this.#left.delete(id);
      this.#strays.delete(id);
    }
    this.#parts.store.put(groups, options);
    this.#parts.order.settle(ids);
  }

  // After a gap, what was not loaded again may have changed in any way.
  #forget(loaded) {
    const { store, isInUse } = this.#parts;
    const ids = new Set(loaded.map((group) => group.id));
    const unknown = [...store.values()].map((group) => group.id).filter((id) => !ids.has(id));
    this.#left.clear();
    for (const id of unknown) this.#strays.add(id);
    store.remove(unknown.filter((id) => !isInUse(id)));
  }

  #makeRoom() {
    const { store, isInUse, isShown } = this.#parts;
    if (store.size < LIMIT + SLACK) return this.#say(this.#numbers);
    const leaving = new Set();
    for (const mayGo of [(group) => group.status !== "new", (group) => !isUrgent(group)]) {
      for (const id of this.#lastOnes()) {
        if (leaving.size === store.size - LIMIT) break;
        if (mayGo(store.get(id)) && !isInUse(id) && !isShown(id)) leaving.add(id);
      }
    }
    for (const id of leaving) this.#left.add(id);
    this.#goBackTo([...leaving].map((id) => store.get(id)));
    store.remove([...leaving]);
    this.#say({ hasMore: this.#next !== null, ...this.#numbers });
  }

  // From the end of the list upwards, then what waits above it.
  *#lastOnes() {
    const { order } = this.#parts;
    for (let index = order.length - 1; index >= 0; index -= 1) yield order.at(index);
    yield* order.arrived;
  }

  // The next page of older groups begins with the first of those that made room.
  #goBackTo(groups) {
    const query = this.#parts.filters.query;
    query.set("limit", PAGE);
    query.set(
      "cursor",
      Math.max(Number(this.#next?.get("cursor") ?? 0), ...groups.map(({ revision }) => revision + 1)),
    );
    this.#next = query;
  }

  get #numbers() {
    return { left: this.#left.size, outside: this.#outside.size };
  }

  #say(news) {
    if (Object.entries(news).every(([name, value]) => this.status[name] === value)) return;
    this.status = { ...this.status, ...news };
    this.dispatchEvent(new Event("status"));
  }
}

function following(answer) {
  return answer.next && new URL(answer.next, location.href).searchParams;
}
