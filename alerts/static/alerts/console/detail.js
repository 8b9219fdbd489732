// One group opened: beside the list where there is room, over it where there is not. `open=ID` in the page's address.
//
// new Detail({api, store, filters, people, actions, place, behind})   `behind`: elements that it covers on small screens
//   .id                        the group that is open, or null
//   .group                     as the page has it, or null
//   .open(id, {takeFocus}), .close()
//   .actions                   the element with the buttons, for modules that add some at "shown"
//   dispatches "change" when another group (or none) is open, and "shown" (detail: {group}) after each drawing

import { isAborted } from "./api.js";
import { button, element } from "./dom.js";
import { Evidence } from "./evidence.js";
import { ago, exact } from "./time.js";
import { counted, route, state } from "./words.js";

const NARROW = window.matchMedia("(width < 75rem)");

export class Detail extends EventTarget {
  #parts;
  #full = null; // the answer of GET /api/v1/groups/{id}
  #newest = null; // the group as it came last from elsewhere: an answer that was slow may be older
  #request = new AbortController();
  #evidence = null;
  id = null;

  constructor(parts) {
    super();
    this.#parts = parts;
    this.place = parts.place;
    this.heading = this.place.querySelector("h2");
    this.actions = this.place.querySelector(".detail-actions");
    this.place.querySelector("[data-close]").addEventListener("click", () => this.close());
    NARROW.addEventListener("change", () => this.#cover());
    window.addEventListener("popstate", () => this.followAddress());
  }

  get group() {
    return this.#parts.store.get(this.id) ?? this.#full;
  }

  /** Opens what the page's address says, at the start and after a step through the history. */
  followAddress() {
    const id = Number(new URLSearchParams(location.search).get("open")) || null;
    if (id !== this.id) this.#show(id);
  }

  open(id, { takeFocus = false } = {}) {
    if (id !== this.id) {
      this.#remember(id, this.id === null ? "pushState" : "replaceState");
      this.#show(id);
    }
    if (takeFocus || NARROW.matches) this.heading.focus({ preventScroll: true });
  }

  close() {
    if (this.id === null) return;
    this.#remember(null, "replaceState");
    this.#show(null);
  }

  /** Takes groups that changed, from the socket or from an answer. */
  receive(groups) {
    const group = groups.find(({ id }) => id === this.id);
    if (!group) return;
    if (!this.#newest || group.revision > this.#newest.revision) this.#newest = group;
    if (!this.#full || group.revision <= this.#full.revision) return;
    const before = this.#full;
    this.#full = { ...before, ...group };
    this.#draw();
    this.#evidence.update(before, group);
  }

  async reload({ anew }) {
    if (anew) this.#newest = null;
    if (this.id !== null) await this.#load();
  }

  updateAges() {
    for (const age of this.place.querySelectorAll("time")) age.textContent = ago(new Date(age.dateTime));
  }

  #remember(id, how) {
    const address = new URL(location.href);
    if (id === null) address.searchParams.delete("open");
    else address.searchParams.set("open", id);
    history[how](history.state, "", address);
  }

  #show(id) {
    this.#request.abort();
    this.id = id;
    this.#full = null;
    this.#newest = null;
    this.place.hidden = id === null;
    this.#cover();
    this.dispatchEvent(new Event("change"));
    if (id === null) return;
    this.place.querySelector(".detail-body").replaceChildren();
    this.#draw();
    this.#load();
  }

  // On a small screen nothing behind it can be reached.
  #cover() {
    for (const each of this.#parts.behind) each.inert = this.id !== null && NARROW.matches;
  }

  async #load() {
    this.#request.abort();
    this.#request = new AbortController();
    const { signal } = this.#request;
    try {
      const full = await this.#parts.api.get(`groups/${this.id}`, {}, { signal });
      const isFirst = this.#full === null;
      this.#full = this.#newest?.revision > full.revision ? { ...full, ...this.#newest } : full;
      if (isFirst) this.#evidence = new Evidence({ api: this.#parts.api, full, signal, openGroup: this.#openOther });
      this.#draw();
      this.place.querySelector(".detail-body").replaceChildren(this.#evidence.element);
    } catch (error) {
      if (!isAborted(error)) this.#fail(error);
    }
  }

  #fail(error) {
    const isGone = error.status === 404;
    const words = isGone ? "This group is not stored, or you may not see it." : error.message;
    this.heading.textContent = isGone ? "Not found" : "Not loaded";
    const parts = [element("p", { class: "notice notice-error" }, words)];
    if (!isGone) parts.push(button("Try again", () => this.#load()));
    this.place.querySelector(".detail-body").replaceChildren(...parts);
  }

  #draw() {
    const group = this.#full ?? this.#parts.store.get(this.id);
    this.place.dataset.severity = group?.severity ?? "info";
    this.heading.textContent = group?.title ?? "Loading…";
    this.place.querySelector(".chip").textContent = group?.severity ?? "";
    this.place.querySelector(".detail-state").textContent = group ? stateInWords(group) : "";
    this.place.classList.toggle("is-empty", !group);
    if (!group) return;
    this.#drawActions(group);
    this.place.querySelector(".facts").replaceChildren(...this.#facts(group));
    const description = this.place.querySelector(".detail-description");
    description.textContent = this.#full?.description ?? "";
    description.hidden = description.textContent === "";
    this.dispatchEvent(new CustomEvent("shown", { detail: { group } }));
  }

  // The buttons stay the same elements, so that none loses the focus.
  #drawActions(group) {
    const mayTriage = this.#parts.people.mayTriage(group);
    for (const each of this.actions.querySelectorAll("[data-action]")) {
      const { action } = each.dataset;
      each.hidden = !mayTriage || action === group.status || (action === "new" && group.status !== "closed");
    }
  }

  #facts(group) {
    const filterBy = (name, value, words = value) =>
      button(words, () => this.#parts.filters.set(name, value), {
        class: "button-link",
        title: `Show only groups with this ${name}`,
      });
    const { source_ip: source, destination_ip: destination, device, tenant, previous } = group;
    return [
      fact("Source", source && filterBy("address", source)),
      fact("Destination", destination && filterBy("address", destination)),
      fact("Device", device && filterBy("device", String(device.id), device.name)),
      fact("Tenant", this.#parts.people.tenants.length > 1 && filterBy("tenant", tenant.slug, tenant.name)),
      fact("Alerts", counts(group)),
      fact("First seen", moment(group.first_seen_at)),
      fact("Last seen", moment(group.last_seen_at)),
      fact("Assignee", group.assignee?.name ?? "nobody"),
      fact("Before", previous && this.#earlier(previous)),
    ].filter(Boolean);
  }

  #openOther = (id) => this.open(id, { takeFocus: true });

  #earlier(previous) {
    const words = state({ status: "closed", disposition: previous.disposition });
    const by = previous.status_changed_by ? ` by ${previous.status_changed_by}` : "";
    return button(`${words}${by}`, () => this.#openOther(previous.id), { class: "button-link" });
  }
}

function stateInWords(group) {
  const by = group.status_changed_by && group.status !== "new" ? ` by ${group.status_changed_by}` : "";
  const at = by && group.status_changed_at ? `, ${ago(new Date(group.status_changed_at))}` : "";
  return [`${state(group)}${by}${at}`, route(group)].filter(Boolean).join(" · ");
}

function counts({ count, since_acknowledged: since, suppressed_count: suppressed }) {
  const parts = [counted(count, "alert")];
  if (since) parts.push(`${since.toLocaleString()} since it was acknowledged`);
  if (suppressed > 0) parts.push(`${suppressed.toLocaleString()} suppressed`);
  return parts.join(", ");
}

function fact(name, value) {
  if (!value) return null;
  return element("div", {}, element("dt", {}, name), element("dd", { dir: "auto" }, value));
}

function moment(iso) {
  const date = new Date(iso);
  return element("span", {}, exact(date), " ", element("time", { datetime: iso }, ago(date)));
}
