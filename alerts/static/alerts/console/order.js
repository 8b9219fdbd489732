// In which order the groups are shown: the new and critical ones first, then those with the latest alert. While a
// reader works in the list, rows must not move under them: what arrives and what would move waits, except what is new
// and critical.
//
// new Order(store)   follows the store
//   .length, .at(index) → id, .indexOf(id) → index or -1, or -1 while it waits for its first place
//   .version           another number after each change of it
//   .held              set by the list; true: changes wait
//   .arrived, .moved   sets of the ids that wait: without a place as yet, and for a new place
//   .settle(ids?)      gives them (all that wait, or those of `ids`) the place that they deserve

import { isUrgent } from "./store.js";

export class Order {
  #store;
  #places = new Map(); // id → {urgent, alert, id}
  #sorted = []; // places
  version = 0;
  held = false;
  arrived = new Set();
  moved = new Set();

  constructor(store) {
    this.#store = store;
    store.addEventListener("change", ({ detail: changes }) => {
      this.#remove(changes.filter(({ after }) => !after).map(({ id }) => id));
      for (const { id, after } of changes) if (after) this.#apply(id, after);
    });
  }

  get length() {
    return this.#sorted.length;
  }

  at(index) {
    return this.#sorted[index]?.id;
  }

  indexOf(id) {
    const place = this.#places.get(id);
    return place ? this.#search(place) : -1;
  }

  settle(ids = [...this.arrived, ...this.moved]) {
    for (const id of ids) {
      const group = this.#store.get(id);
      if (group) this.#place(placeOf(group));
    }
  }

  #apply(id, group) {
    const [last, place] = [this.#places.get(id), placeOf(group)];
    const mayWait = this.held && !(place.urgent && !last?.urgent);
    if (!mayWait || (last && compare(last, place) === 0)) this.#place(place);
    else if (last) this.moved.add(id);
    else this.arrived.add(id);
  }

  #place(place) {
    const last = this.#places.get(place.id);
    this.arrived.delete(place.id);
    this.moved.delete(place.id);
    if (last && compare(last, place) === 0) return;
    this.version += 1;
    if (last) this.#sorted.splice(this.#search(last), 1);
    this.#places.set(place.id, place);
    this.#sorted.splice(this.#search(place), 0, place);
  }

  #remove(ids) {
    if (ids.length === 0) return;
    this.version += 1;
    for (const id of ids) {
      this.#places.delete(id);
      this.arrived.delete(id);
      this.moved.delete(id);
    }
    this.#sorted = this.#sorted.filter(({ id }) => this.#places.has(id));
  }

  // The index of `place`, or that at which it belongs.
  #search(place) {
    let [low, high] = [0, this.#sorted.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (compare(this.#sorted[middle], place) < 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

function placeOf(group) {
  return { urgent: isUrgent(group), alert: group.last_alert_id, id: group.id };
}

function compare(one, other) {
  if (one.urgent !== other.urgent) return one.urgent ? -1 : 1;
  return other.alert - one.alert || other.id - one.id;
}
