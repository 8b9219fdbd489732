// Which groups are selected.
//
// new Selection()
//   .size, .has(id), .ids → array
//   .toggle(id)                 also the end from which a range begins
//   .extend(ids)                selects all of them, as shift does
//   .drop(ids), .clear()
//   .anchor                     the id that was toggled last, or null
//   dispatches "change" (detail: the ids whose state changed)

export class Selection extends EventTarget {
  #ids = new Set();
  anchor = null;

  get size() {
    return this.#ids.size;
  }

  get ids() {
    return [...this.#ids];
  }

  has(id) {
    return this.#ids.has(id);
  }

  toggle(id) {
    this.anchor = id;
    if (!this.#ids.delete(id)) this.#ids.add(id);
    this.#announce([id]);
  }

  extend(ids) {
    const added = ids.filter((id) => !this.#ids.has(id));
    for (const id of added) this.#ids.add(id);
    this.#announce(added);
  }

  drop(ids) {
    this.#announce(ids.filter((id) => this.#ids.delete(id)));
  }

  clear() {
    this.anchor = null;
    this.drop(this.ids);
  }

  #announce(ids) {
    if (ids.length > 0) this.dispatchEvent(new CustomEvent("change", { detail: ids }));
  }
}
