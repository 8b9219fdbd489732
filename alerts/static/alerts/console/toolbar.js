// The controls of the filters: buttons for severities and statuses with their counts, the search box, the panel with the
// rest, and a chip for each filter that is set.
//
// new Toolbar({filters, counts, people, store, place})   `place` is the element with all of them
//   .focusSearch()

import { button, element } from "./dom.js";
import { length, span } from "./time.js";
import { DISPOSITIONS } from "./words.js";

const TYPED_FOR = 300; // milliseconds without a key
const LABELS = {
  disposition: "closed as",
  assignee: "assigned to",
  device: "device",
  source: "source",
  destination: "destination",
  address: "address",
  tenant: "tenant",
  q: "title",
  since: "since",
  within: "last seen within",
  until: "until",
  suppressed: "suppressed",
};
const BUTTONS = ["severity", "status"]; // filters that have buttons, so no chips

export class Toolbar {
  #parts;
  #search;
  #panel;
  #typing;

  constructor(parts) {
    this.#parts = parts;
    const { filters, counts, place } = parts;
    this.#search = place.querySelector("[type=search]");
    this.#panel = place.querySelector("#filter-panel");
    this.#listen(place);
    new ResizeObserver(() => this.#measure()).observe(place);
    filters.addEventListener("change", () => this.#show());
    counts.addEventListener("change", () => this.#showCounts());
    this.#show();
  }

  focusSearch() {
    this.#search.focus();
    this.#search.select();
  }

  #listen(place) {
    const { filters } = this.#parts;
    for (const each of place.querySelectorAll("button[data-filter]")) {
      each.addEventListener("click", () => filters.toggle(each.dataset.filter, each.dataset.value));
    }
    this.#search.addEventListener("input", () => {
      clearTimeout(this.#typing);
      this.#typing = setTimeout(() => filters.set("q", this.#search.value.trim(), { typing: true }), TYPED_FOR);
    });
    this.#panel.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#adoptPanel();
    });
    this.#panel.addEventListener("change", () => this.#panel.requestSubmit());
  }

  // What sticks below it has to know how many lines it takes.
  #measure() {
    document.documentElement.style.setProperty("--toolbar-measured", `${this.#parts.place.offsetHeight}px`);
  }

  #adoptPanel() {
    const query = this.#parts.filters.query;
    for (const field of this.#panel.elements) {
      if (!field.name) continue;
      const value = field.type === "checkbox" ? (field.checked ? field.value : "") : field.value.trim();
      query.delete(field.name);
      if (value) query.set(field.name, field.type === "datetime-local" ? new Date(value).toISOString() : value);
    }
    this.#parts.filters.adopt(query);
  }

  #show() {
    const { filters, place } = this.#parts;
    for (const group of place.querySelectorAll("[role=group][data-filters]")) {
      const chosen = filters.all(group.dataset.filters);
      group.classList.toggle("has-choice", chosen.length > 0);
      for (const each of group.children) each.setAttribute("aria-pressed", chosen.includes(each.dataset.value));
    }
    if (document.activeElement !== this.#search) this.#search.value = filters.get("q") ?? "";
    this.#showPanel();
    this.#showChips();
    this.#showCounts();
  }

  #showPanel() {
    const { filters } = this.#parts;
    this.#fillChoices();
    for (const field of this.#panel.elements) {
      if (!field.name || field === document.activeElement) continue;
      const value = filters.get(field.name) ?? "";
      if (field.type === "checkbox") field.checked = value !== "";
      else field.value = field.type === "datetime-local" ? localTime(value) : value;
    }
  }

  // People and devices cannot all be listed; these are those that the loaded groups name, and the one that is chosen.
  #fillChoices() {
    const { filters, people } = this.#parts;
    const assignees = new Map([
      ["", "Anybody"],
      ["me", `Me (${people.name})`],
      ["none", "Nobody"],
    ]);
    for (const { assignee } of this.#parts.store.values()) {
      if (assignee && assignee.id !== people.id) assignees.set(String(assignee.id), assignee.name);
    }
    const chosen = filters.get("assignee") ?? "";
    if (!assignees.has(chosen)) assignees.set(chosen, `User ${chosen}`);
    fillOptions(this.#panel.elements.assignee, assignees);
  }

  #showChips() {
    const { filters, place } = this.#parts;
    const chips = [...filters.query]
      .filter(([name]) => !BUTTONS.includes(name))
      .map(([name, value]) => this.#chip(name, value));
    if (filters.size > 0) {
      chips.push(button("Clear all", () => filters.clear(), { class: "button-link clear-filters" }));
    }
    place.querySelector(".filter-chips").replaceChildren(...chips);
    const others =
      chips.length > 0 ? new Set([...filters.query.keys()].filter((name) => !BUTTONS.includes(name))).size : 0;
    place.querySelector(".more-filters .number").textContent = others > 0 ? others : "";
  }

  #chip(name, value) {
    const words = `${LABELS[name]}: ${this.#inWords(name, value)}`;
    const remove = () => this.#parts.filters.toggle(name, value);
    return button(words, remove, { class: "filter-chip", dir: "auto", "aria-label": `Remove the filter ${words}` });
  }

  #inWords(name, value) {
    if (name === "disposition") return DISPOSITIONS[value] ?? value;
    if (name === "since" || name === "until") return isTime(value) ? new Date(value).toLocaleString() : value;
    if (name === "within") return length(value) === null ? value : span(length(value));
    if (name === "assignee")
      return this.#panel.elements.assignee.querySelector(`[value="${CSS.escape(value)}"]`)?.text ?? value;
    if (name === "tenant") return this.#parts.people.tenants.find(({ slug }) => slug === value)?.name ?? value;
    if (name === "device") return this.#deviceName(Number(value)) ?? value;
    return value;
  }

  #deviceName(id) {
    for (const { device } of this.#parts.store.values()) if (device?.id === id) return device.name;
    return this.#parts.counts.summary?.top.devices.find((device) => device.id === id)?.name;
  }

  // The summary counts what passes the filters. Of what they leave out it says nothing.
  #isCounted(filter, value) {
    const chosen = this.#parts.filters.all(filter);
    if (filter === "status" && chosen.length === 0) return value !== "closed";
    return chosen.length === 0 || chosen.includes(value) || chosen.includes("any");
  }

  #showCounts() {
    const { counts, place } = this.#parts;
    const { by_severity: severity = {}, by_status: status = {}, is_exact: isExact = true } = counts.summary ?? {};
    const numbers = { severity, status };
    for (const each of place.querySelectorAll("button[data-filter]")) {
      const { filter, value } = each.dataset;
      const number = numbers[filter][value] ?? 0;
      const words =
        counts.summary && this.#isCounted(filter, value) ? `${number.toLocaleString()}${isExact ? "" : "+"}` : "";
      each.querySelector(".filter-count").textContent = words;
    }
  }
}

function fillOptions(select, options) {
  const wanted = [...options].map(([value, words]) => element("option", { value }, words));
  select.replaceChildren(...wanted);
}

// An address may have anything in it.
function isTime(text) {
  return !Number.isNaN(Date.parse(text));
}

/** As a field for a local time wants it: 2026-05-01T08:30. Empty if `text` is no time. */
function localTime(text) {
  if (!isTime(text)) return "";
  const date = new Date(text);
  return new Date(date - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}
