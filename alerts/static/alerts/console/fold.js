// The list as it is shown: the groups in their order or, folded, with those under one another that share a title, an
// address or a device, below a heading. `fold=NAME` in the page's address.
//
// new Fold({order, store, select})   `select` is the element that chooses by what
//   .length, .at(index) → id, .indexOf(id) → index or -1   of groups and of headings; the id of a heading is a string
//   .heading(id) → {words, groups, isOpen}, or undefined for a group
//   .toggle(id)                    shows the groups below a heading, or hides all but those that are new and critical
//   .groupsOf(id) → ids            of a heading; of a group, itself
//   .ids                           of all groups, in their order
//   .held, .arrived, .moved, .settle(ids?)   as those of the order
//   dispatches "change" when what is shown changed without the order

import { isUrgent } from "./store.js";

const KEYS = {
  title: (group) => group.title,
  source: (group) => group.source_ip,
  destination: (group) => group.destination_ip,
  device: (group) => group.device?.name,
};

export class Fold extends EventTarget {
  #parts;
  #by = "";
  #closed = new Set(); // ids of headings
  #version = -1; // of the order that the entries were made from
  #entries = [];
  #indexes = new Map();
  #bundles = new Map(); // id of the heading → {words, ids}

  constructor(parts) {
    super();
    this.#parts = parts;
    parts.select.addEventListener("change", () => {
      this.#remember(parts.select.value);
      this.#followAddress();
    });
    window.addEventListener("popstate", () => this.#followAddress());
    this.#followAddress();
  }

  get length() {
    return this.#by ? this.#made().length : this.#parts.order.length;
  }

  at(index) {
    return this.#by ? this.#made()[index] : this.#parts.order.at(index);
  }

  indexOf(id) {
    if (!this.#by) return this.#parts.order.indexOf(id);
    this.#made();
    return this.#indexes.get(id) ?? -1;
  }

  heading(id) {
    const bundle = this.#bundles.get(id);
    if (!bundle) return undefined;
    const groups = bundle.ids.map((each) => this.#parts.store.get(each));
    return { words: bundle.words, groups, isOpen: !this.#closed.has(id) };
  }

  toggle(id) {
    if (!this.#closed.delete(id)) this.#closed.add(id);
    this.#version = -1;
    this.dispatchEvent(new Event("change"));
  }

  groupsOf(id) {
    return this.#bundles.get(id)?.ids ?? [id];
  }

  get ids() {
    const { order } = this.#parts;
    return Array.from({ length: order.length }, (_, index) => order.at(index));
  }

  get held() {
    return this.#parts.order.held;
  }

  set held(held) {
    this.#parts.order.held = held;
  }

  get arrived() {
    return this.#parts.order.arrived;
  }

  get moved() {
    return this.#parts.order.moved;
  }

  settle(ids) {
    this.#parts.order.settle(ids);
  }

  #followAddress() {
    const wanted = new URLSearchParams(location.search).get("fold");
    const by = Object.hasOwn(KEYS, wanted) ? wanted : "";
    this.#parts.select.value = by;
    if (by === this.#by) return;
    this.#by = by;
    this.#closed.clear();
    this.#bundles.clear();
    this.#version = -1;
    this.dispatchEvent(new Event("change"));
  }

  #remember(by) {
    const address = new URL(location.href);
    if (by) address.searchParams.set("fold", by);
    else address.searchParams.delete("fold");
    history.replaceState(history.state, "", address);
  }

  // All of it again when the order changed, at most once a frame: ten thousand groups take a few milliseconds.
  #made() {
    const { order } = this.#parts;
    if (this.#version === order.version) return this.#entries;
    this.#version = order.version;
    this.#gather();
    this.#entries = [];
    for (const id of this.ids) {
      const heading = this.#headingOf(id);
      const bundle = this.#bundles.get(heading);
      if (!bundle) this.#entries.push(id);
      else if (bundle.ids[0] === id) this.#entries.push(heading, ...this.#unfolded(heading));
    }
    this.#indexes = new Map(this.#entries.map((id, index) => [id, index]));
    return this.#entries;
  }

  #gather() {
    this.#bundles.clear();
    for (const id of this.ids) {
      const words = this.#key(id);
      if (!words) continue;
      const heading = this.#headingOf(id);
      if (this.#bundles.has(heading)) this.#bundles.get(heading).ids.push(id);
      else this.#bundles.set(heading, { words, ids: [id] });
    }
    for (const [heading, { ids }] of this.#bundles) if (ids.length === 1) this.#bundles.delete(heading);
  }

  #key(id) {
    return KEYS[this.#by](this.#parts.store.get(id));
  }

  #headingOf(id) {
    return `${this.#by} ${this.#key(id)}`;
  }

  #unfolded(heading) {
    const { ids } = this.#bundles.get(heading);
    return this.#closed.has(heading) ? ids.filter((id) => isUrgent(this.#parts.store.get(id))) : ids;
  }
}
