// The list: a window on the ordered groups, and on the headings between them if they are folded. Only the rows near the screen are in the document; each is kept for as long
// as it is near or has the focus. Everything that changed is drawn together, at most once a frame.
//
// new GroupList({grid, template, store, order, selection, stateOf})   `order` is the fold
//   `stateOf(id)` → {open, busy, stray, fresh}: what the row shows besides its group
//   .redraw(ids?)          these rows (or all) have to be filled again
//   .focusedId             the group or heading with the focus, or with the one stop of the tab key
//   .hasFocus, .isShown(id), .isAtTop
//   .focus(id), .step(±1), .toTop()
//   .between(one, other)   the groups, in the order of the list
//   .release()             what waits takes its place; the view stays with the row that is being read
//   dispatches "focuschange" (detail: {id}), "open" (detail: {id}), "toggle" (detail: {id, range}),
//   "settle" when the reader no longer works in the list, "nearend" when older groups may be wanted, "drawn"

import { createRow, fillAge, fillHeading, fillRow, fillState, idOf } from "./row.js";

const OVERSCAN = 8; // rows
const NEAR_END = 30; // rows
const POINTED_FOR = 2_000; // milliseconds after which a pointer that rests no longer means reading
const SCROLLED_DOWN = 48; // pixels

export class GroupList extends EventTarget {
  #parts;
  #grid;
  #body;
  #rows = new Map(); // id → element, of the rows in the document
  #dirty = new Set(); // ids whose rows have to be filled again
  #allDirty = false;
  #frame = null;
  #rowHeight = 1; // pixels
  #anchor = null; // {id, index}: the row that stays where it is on the screen
  #pointedAt = 0;
  #focusedIndex = 0;
  #top = 0; // where the first row is, in pixels below the top of the screen
  isAtTop = true;
  #drawnLength = 0;
  focusedId = null;

  constructor(parts) {
    super();
    this.#parts = parts;
    this.#grid = parts.grid;
    this.#body = parts.grid.querySelector(".rows");
    new ResizeObserver(() => this.#measure()).observe(this.#grid);
    window.addEventListener("scroll", () => this.#schedule(), { passive: true });
    this.#listenToReader();
    parts.store.addEventListener("change", ({ detail: changes }) => this.redraw(changes.map(({ id }) => id)));
    parts.order.addEventListener("change", () => this.redraw());
    parts.selection.addEventListener("change", ({ detail: ids }) => this.redraw(ids));
  }

  get hasFocus() {
    return this.#body.contains(document.activeElement);
  }

  isShown(id) {
    return this.#rows.has(id);
  }

  redraw(ids) {
    if (!ids) this.#allDirty = true;
    else for (const id of ids) this.#dirty.add(id);
    this.#schedule();
  }

  updateAges() {
    for (const [id, row] of this.#rows) if (this.#parts.store.has(id)) fillAge(row, this.#parts.store.get(id));
  }

  focus(id) {
    this.focusedId = id;
    this.#draw();
    const row = this.#rows.get(id);
    if (!row) return;
    this.#scrollTo(this.#parts.order.indexOf(id));
    row.focus({ preventScroll: true });
  }

  /** Moves the focus by `step` rows; returns the id of the row that has it then. */
  step(step) {
    const { order } = this.#parts;
    const index = order.indexOf(this.focusedId);
    const next = index < 0 ? 0 : Math.max(0, Math.min(order.length - 1, index + step));
    if (order.length > 0) this.focus(order.at(next));
    return this.focusedId;
  }

  /** The ids from `one` to `other`, both included. */
  between(one, other) {
    const { order } = this.#parts;
    const [first, last] = [order.indexOf(one), order.indexOf(other)].sort((a, b) => a - b);
    if (first < 0) return order.groupsOf(other);
    return Array.from({ length: last - first + 1 }, (_, offset) => order.groupsOf(order.at(first + offset))).flat();
  }

  release() {
    this.#parts.order.settle();
    this.redraw();
  }

  toTop() {
    this.#anchor = null;
    window.scrollTo({ top: 0, behavior: "instant" });
    this.#schedule();
  }

  #listenToReader() {
    this.#body.addEventListener("focusin", (event) => this.#onFocus(event.target.closest(".row")));
    this.#body.addEventListener("focusout", () => this.#schedule());
    this.#body.addEventListener("click", (event) => this.#onClick(event));
    this.#body.addEventListener("pointermove", ({ pointerType }) => {
      if (pointerType === "mouse") this.#onPointer();
    });
  }

  #onPointer() {
    if (this.#pointedAt === 0) setTimeout(() => this.#forgetPointer(), POINTED_FOR);
    this.#pointedAt = Date.now();
    this.#parts.order.held = true;
  }

  #forgetPointer() {
    const rest = this.#pointedAt + POINTED_FOR - Date.now();
    if (rest > 0) return setTimeout(() => this.#forgetPointer(), rest);
    this.#pointedAt = 0;
    this.#schedule();
  }

  #onFocus(row) {
    const id = idOf(row);
    const last = this.focusedId;
    this.focusedId = id;
    this.#parts.order.held = true;
    this.redraw([last, id]);
    this.dispatchEvent(new CustomEvent("focuschange", { detail: { id } }));
  }

  #onClick(event) {
    const row = event.target.closest(".row");
    if (!row || !getSelection().isCollapsed) return;
    const id = idOf(row);
    row.focus({ preventScroll: true });
    const selects = event.target.closest(".row-check") || event.shiftKey || event.ctrlKey || event.metaKey;
    const detail = { id, range: event.shiftKey };
    this.dispatchEvent(new CustomEvent(selects ? "toggle" : "open", { detail }));
  }

  #schedule() {
    this.#frame ??= requestAnimationFrame(() => this.#draw());
  }

  #measure() {
    const last = this.#rowHeight;
    this.#rowHeight = Number.parseFloat(getComputedStyle(this.#grid).getPropertyValue("--row-height"));
    if (this.#rowHeight === last) return;
    this.#drawnLength = -1; // the list gets another height, and the row that is being read stays where it is
    this.#stretch();
    if (this.#anchor && !this.isAtTop) {
      window.scrollBy({ top: this.#anchor.index * (this.#rowHeight - last), behavior: "instant" });
    }
    this.redraw();
  }

  #draw() {
    if (this.#frame !== null) cancelAnimationFrame(this.#frame);
    this.#frame = null;
    this.#followReader();
    const { order } = this.#parts;
    this.#stretch();
    const top = this.#keepReadingPosition();
    const first = Math.max(0, Math.floor(-top / this.#rowHeight) - OVERSCAN);
    const last = Math.min(order.length, Math.ceil((window.innerHeight - top) / this.#rowHeight) + OVERSCAN);
    this.#place(this.#wanted(first, last));
    this.#rememberAnchor(top);
    this.#dirty.clear();
    this.#allDirty = false;
    if (last > order.length - NEAR_END) this.dispatchEvent(new Event("nearend"));
    this.dispatchEvent(new Event("drawn"));
  }

  // Everything is measured before anything is changed, because measuring after a change makes the browser lay out twice.
  #stretch() {
    const { length } = this.#parts.order;
    this.#top = this.#body.getBoundingClientRect().top;
    if (length === this.#drawnLength) return;
    this.#body.style.height = `${length * this.#rowHeight}px`;
    this.#grid.setAttribute("aria-rowcount", length + 1);
    const isShorter = length < this.#drawnLength; // and the page may have been scrolled further down
    this.#drawnLength = length;
    if (isShorter && !this.isAtTop) this.#top = this.#body.getBoundingClientRect().top;
  }

  // Whoever has the focus in the list, points at it or has scrolled down is reading: rows hold still.
  #followReader() {
    const { order } = this.#parts;
    this.isAtTop = window.scrollY <= SCROLLED_DOWN;
    const reads = this.hasFocus || this.#pointedAt > 0 || !this.isAtTop;
    const settles = order.held && !reads;
    order.held = reads;
    if (settles) this.dispatchEvent(new Event("settle"));
  }

  // Returns where the first row is.
  #keepReadingPosition() {
    if (!this.#anchor || this.isAtTop) return this.#top;
    const index = this.#parts.order.indexOf(this.#anchor.id);
    if (index < 0 || index === this.#anchor.index) return this.#top;
    const moved = (index - this.#anchor.index) * this.#rowHeight;
    window.scrollBy({ top: moved, behavior: "instant" });
    return this.#body.getBoundingClientRect().top;
  }

  #rememberAnchor(top) {
    const { order } = this.#parts;
    const index = Math.max(0, Math.ceil(-top / this.#rowHeight));
    const focused = order.indexOf(this.focusedId);
    const isOnScreen = focused >= index && focused * this.#rowHeight + top < window.innerHeight;
    const chosen = isOnScreen ? focused : index;
    this.#anchor = chosen < order.length ? { id: order.at(chosen), index: chosen } : null;
  }

  /** The rows to have in the document, as pairs of index and id. */
  #wanted(first, last) {
    const { order } = this.#parts;
    const wanted = [];
    const focused = this.#keepFocusable();
    if (focused >= 0 && focused < first) wanted.push([focused, this.focusedId]);
    for (let index = first; index < last; index += 1) wanted.push([index, order.at(index)]);
    if (focused >= last) wanted.push([focused, this.focusedId]);
    return wanted;
  }

  // The tab key always finds a row: if the one that it found was removed, the row that took its place.
  #keepFocusable() {
    const { order } = this.#parts;
    let index = order.indexOf(this.focusedId);
    if (index < 0 && order.length > 0) {
      index = Math.min(this.#focusedIndex, order.length - 1);
      this.focusedId = order.at(index);
      this.#dirty.add(this.focusedId);
    }
    this.#focusedIndex = Math.max(0, index);
    return index;
  }

  #place(wanted) {
    const hadFocus = this.hasFocus;
    const ids = new Set(wanted.map(([, id]) => id));
    for (const [id, row] of this.#rows) {
      if (ids.has(id)) continue;
      row.remove();
      this.#rows.delete(id);
    }
    // An element that is moved loses the focus, so the others are moved around the one that has it.
    const pivot = document.activeElement?.closest(".row");
    let cursor = this.#body.firstElementChild;
    for (const [index, id] of wanted) {
      const row = this.#fill(index, id);
      if (row === cursor) cursor = cursor.nextElementSibling;
      else if (row === pivot) cursor = row.nextElementSibling;
      else this.#body.insertBefore(row, cursor);
    }
    if (hadFocus && !this.hasFocus) this.#rows.get(this.focusedId)?.focus({ preventScroll: true });
  }

  #fill(index, id) {
    const row = this.#rows.get(id) ?? createRow(this.#parts.template);
    const isNew = !this.#rows.has(id);
    if (isNew) this.#rows.set(id, row);
    const { order, selection, store, stateOf } = this.#parts;
    const heading = order.heading(id);
    const selected = order.groupsOf(id).every((each) => selection.has(each));
    const state = { ...stateOf(id), index, selected, focused: id === this.focusedId };
    if (heading) fillHeading(row, id, heading, state);
    else if (isNew || this.#allDirty || this.#dirty.has(id)) fillRow(row, store.get(id), state);
    else if (row.dataset.index !== String(index) || state.focused !== (row.tabIndex === 0)) fillState(row, state);
    row.dataset.index = index;
    const top = `${index * this.#rowHeight}px`;
    if (row.style.top !== top) row.style.top = top;
    return row;
  }

  #scrollTo(index) {
    const box = this.#body.getBoundingClientRect();
    const above = box.top + index * this.#rowHeight - this.#covered();
    const below = box.top + (index + 1) * this.#rowHeight - window.innerHeight + this.#rowHeight;
    if (above < 0) window.scrollBy({ top: above, behavior: "instant" });
    else if (below > 0) window.scrollBy({ top: below, behavior: "instant" });
  }

  // What sticks to the top of the screen covers rows.
  #covered() {
    return Number.parseFloat(getComputedStyle(this.#grid).scrollMarginTop);
  }
}
