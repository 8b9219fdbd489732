// What is known about an opened group: its alerts as they were sent, what the device sent around that moment, groups
// with the same addresses, the groups before it, and what people did about it.
//
// new Evidence({api, full, signal, openGroup})   `full` is the answer of GET /api/v1/groups/{id}
//   .element
//   .update(before, group)   the group has changed: newer alerts and changes are loaded

import { isAborted } from "./api.js";
import { age, button, element } from "./dom.js";
import { Paged, section } from "./paged.js";
import { exact, span } from "./time.js";
import { counted, DISPOSITIONS, route, STATUSES, state } from "./words.js";

const CLOCK_TOLERANCE = 2 * 60_000; // milliseconds

export class Evidence {
  constructor({ api, full, signal, openGroup }) {
    const path = `groups/${full.id}`;
    this.alerts = new Paged("Alerts as they were sent", api, `${path}/alerts`, signal, (alert) => alertItem(alert));
    this.history = new Paged("History", api, `${path}/changes`, signal, changeItem);
    this.around = new Around(api, this.alerts, signal);
    this.element = element(
      "div",
      {},
      this.history.element,
      this.alerts.element,
      this.around.element,
      groupList("Same addresses", full.related, openGroup),
      groupList("Before this group", full.earlier, openGroup),
    );
    this.history.load();
    this.alerts.load();
  }

  update(before, group) {
    if (group.version !== before.version) this.history.load();
    if (group.last_alert_id !== before.last_alert_id) this.alerts.offerNewer(group.count - before.count);
  }
}

/** What the device sent in the minutes around the last alert. Few readers need it, so it is loaded when asked for. */
class Around {
  #parts;
  #body = element("div");

  constructor(api, alerts, signal) {
    this.#parts = { api, alerts, signal };
    const summary = element("summary", {}, "What the device sent around the last alert");
    this.element = element("details", { class: "section", ontoggle: () => this.#load() }, summary, this.#body);
    alerts.onload = () => {
      this.element.hidden = alerts.first === null;
    };
  }

  async #load() {
    const { api, alerts, signal } = this.#parts;
    if (!this.element.open || this.#body.hasChildNodes()) return;
    const { device, timestamp } = alerts.first;
    try {
      const answer = await api.get(`devices/${device.id}/events`, { around: timestamp }, { signal });
      const items = answer.results.map(eventItem);
      this.#body.replaceChildren(
        items.length > 0 ? element("ol", { class: "records" }, ...items) : element("p", { class: "muted" }, "Nothing."),
      );
    } catch (error) {
      if (!isAborted(error)) this.#body.replaceChildren(element("p", { class: "field-error" }, error.message));
    }
  }
}

function groupList(title, groups, openGroup) {
  const list = element("ul", { class: "records" }, ...groups.map((group) => groupItem(group, openGroup)));
  const made = section(title, list);
  made.hidden = groups.length === 0;
  return made;
}

function groupItem(group, openGroup) {
  const open = button(group.title, () => openGroup(group.id), { class: "button-link", dir: "auto" });
  const words = [state(group), route(group), counted(group.count, "alert")].filter(Boolean).join(" · ");
  return element(
    "li",
    { "data-severity": group.severity },
    element("p", {}, element("span", { class: "chip" }, group.severity), " ", open),
    element("p", { class: "muted" }, `${words} · `, age(group.last_seen_at)),
  );
}

/** An alert as it was sent; `titled` with its title, where it is not among others of the same. */
export function alertItem(alert, { titled = false } = {}) {
  const words = [alert.device.name, route(alert), alert.suppressed_by ? "suppressed" : "", skew(alert)];
  return element(
    "li",
    { "data-severity": alert.severity },
    element(
      "p",
      {},
      element("span", { class: "chip" }, alert.severity),
      ` ${exact(new Date(alert.received_at))} · `,
      age(alert.received_at),
    ),
    titled ? element("p", { dir: "auto" }, alert.title) : null,
    element("p", { class: "muted", dir: "auto" }, words.filter(Boolean).join(" · ")),
    alert.description ? element("p", { class: "as-sent", dir: "auto" }, alert.description) : null,
  );
}

/** The device's own time, if it is far enough from ours to mislead anyone comparing logs. */
function skew(alert) {
  const timestamp = new Date(alert.timestamp);
  const difference = timestamp - new Date(alert.received_at);
  if (Math.abs(difference) <= CLOCK_TOLERANCE) return "";
  return `device clock: ${exact(timestamp)} (${span(difference)} ${difference < 0 ? "earlier" : "later"})`;
}

function eventItem(event) {
  return element(
    "li",
    {},
    element("p", {}, element("strong", {}, event.kind), " ", exact(new Date(event.timestamp))),
    element("pre", { class: "as-sent", dir: "auto", tabindex: 0 }, JSON.stringify(event.data, null, 1)),
  );
}

function changeItem(change) {
  const { user, at, field, after, undoes } = change;
  const what = undoes ? `undid: ${changeInWords(change)}` : changeInWords(change);
  const item = element("li", {}, element("p", {}, element("strong", {}, user.name), ` ${what} · `, age(at)));
  if (field === "note" && after) item.append(element("p", { class: "as-sent", dir: "auto" }, after));
  return item;
}

function changeInWords({ field, before, after }) {
  const name = (value) => STATUSES[value] ?? DISPOSITIONS[value] ?? (value || "none");
  if (field === "note") return "noted";
  return `${field}: ${name(before)} → ${name(after)}`.toLowerCase();
}
