// The rules that suppress alerts: who made each and why, what it hides, and when it ends.
//
// new Rules({api, people, toasts, suppress, place, number, notice})   `place` is the popover, `number` counts the rules
//   .refresh()      asks for them again, as it does by itself now and then

import { isAborted } from "./api.js";
import { age, button, element } from "./dom.js";
import { alertItem } from "./evidence.js";
import { Paged } from "./paged.js";
import { exact, now, span } from "./time.js";
import { counted } from "./words.js";

const REFRESH_EVERY = 300_000; // milliseconds
const SOON = 86_400_000; // milliseconds before the end

export class Rules {
  #parts;
  #dismissed = new Set(); // ids of the rules whose end was announced and read
  #opened = new AbortController();

  constructor(parts) {
    this.#parts = parts;
    const { place, suppress, notice } = parts;
    place.addEventListener("beforetoggle", ({ newState }) => (newState === "open" ? this.#open() : this.#close()));
    suppress.addEventListener("made", () => this.refresh());
    notice.querySelector("[data-close]").addEventListener("click", () => this.#dismiss());
    notice.querySelector("[data-show]").addEventListener("click", () => place.showPopover());
    setInterval(() => document.hidden || this.refresh(), REFRESH_EVERY);
    this.refresh();
  }

  /** The number of rules, and those that end soon. Nothing depends on it, so a lost answer is not announced. */
  async refresh() {
    try {
      const { results, next } = await this.#parts.api.get("suppressions", { limit: 200 });
      this.#parts.number.textContent = results.length === 0 ? "" : `${results.length}${next ? "+" : ""}`;
      this.#announce(results.filter(endsSoon).filter(({ id }) => !this.#dismissed.has(id)));
    } catch {
      this.#parts.number.textContent = "";
    }
  }

  #announce(ending) {
    const { notice } = this.#parts;
    this.ending = ending;
    notice.hidden = ending.length === 0;
    if (ending.length === 0) return;
    const [first] = ending;
    notice.querySelector(".words").textContent =
      ending.length === 1
        ? `A suppression ends in ${span(Date.parse(first.ends_at) - now())}: ${first.reason} (${first.created_by})`
        : `${ending.length} suppressions end within a day.`;
  }

  #dismiss() {
    for (const { id } of this.ending) this.#dismissed.add(id);
    this.#announce([]);
  }

  #open() {
    const { api, place } = this.#parts;
    this.#opened = new AbortController();
    const { signal } = this.#opened;
    const item = (rule) => this.#item(rule, signal);
    const inForce = new Paged("In force", api, "suppressions", signal, item, {
      empty: "None. To suppress alerts, open a group that has such alerts, and choose Suppress.",
    });
    const ended = new Paged("", api, "suppressions", signal, item, { query: { state: "ended" }, empty: "None yet." });
    const before = element(
      "details",
      { class: "section", ontoggle: () => before.open && ended.first === null && ended.load() },
      element("summary", {}, "Ended"),
      ended.element,
    );
    place.querySelector(".rules").replaceChildren(inForce.element, before);
    inForce.load();
    this.refresh();
  }

  #close() {
    this.#opened.abort();
  }

  #item(rule, signal) {
    const item = element(
      "li",
      { class: "rule" },
      element("p", { class: "rule-what", dir: "auto" }, conditions(rule)),
      element("p", { dir: "auto" }, rule.reason),
      element("p", { class: "muted" }, ...this.#origin(rule)),
      this.#hides(rule, signal),
    );
    const isInForce = Date.parse(rule.ends_at) > now();
    if (isInForce && this.#parts.people.mayTriage(rule)) item.append(this.#buttons(rule));
    return item;
  }

  #origin(rule) {
    const tenant = this.#parts.people.tenants.length > 1 ? `${rule.tenant.name} · ` : "";
    return [`${tenant}by ${rule.created_by} `, age(rule.created_at), " · ", ending(rule)];
  }

  #hides(rule, signal) {
    const { alerts, is_exact: isExact, last_at: last } = rule.suppressed;
    if (alerts === 0) return element("p", { class: "muted" }, "Nothing suppressed yet");
    const words = `${counted(alerts, "alert")}${isExact ? "" : " or more"} suppressed, the last `;
    const suppressed = new Paged("", this.#parts.api, `suppressions/${rule.id}/alerts`, signal, (alert) =>
      alertItem(alert, { titled: true }),
    );
    const details = element(
      "details",
      { class: "muted", ontoggle: () => details.open && suppressed.first === null && suppressed.load() },
      element("summary", {}, words, age(last)),
      suppressed.element,
    );
    return details;
  }

  #buttons(rule) {
    const renew = () => {
      this.#parts.place.hidePopover();
      this.#parts.suppress.renew(rule);
    };
    return element(
      "p",
      { class: "rule-buttons" },
      button("End now", (event) => this.#end(rule, event.currentTarget)),
      button("Renew…", renew),
    );
  }

  async #end(rule, pressed) {
    pressed.disabled = true;
    try {
      await this.#parts.api.post(`suppressions/${rule.id}/end`, {}, { repeatable: true });
      this.#parts.toasts.show(`Ended: ${rule.reason}`);
      this.#open();
    } catch (error) {
      pressed.disabled = false;
      if (!isAborted(error)) this.#parts.toasts.show(error.message, { error: true });
    }
  }
}

// One that was made for less than a day has always been about to end.
function endsSoon({ created_at: made, ends_at: end }) {
  return Date.parse(end) - now() < SOON && Date.parse(end) - Date.parse(made) > SOON;
}

/** "“Port scan” from 10.0.0.0/8, up to medium". */
function conditions({ title, title_match: match, source, destination, device, worst_severity: worst }) {
  const words = [
    title ? `${match === "contains" ? "contains " : ""}“${title}”` : "any title",
    source && `from ${source}`,
    destination && `to ${destination}`,
    device && `by the device ${device.name || device.id}`,
  ];
  return `${words.filter(Boolean).join(" ")}, up to ${worst}`;
}

function ending({ ends_at: end, ended_by: by }) {
  const left = Date.parse(end) - now();
  const title = exact(new Date(end));
  if (left <= 0) return element("span", { title }, by ? `ended by ${by} ` : "ended ", age(end));
  return element("span", { title, class: left < SOON ? "ends-soon" : "" }, `ends in ${span(left)}`);
}
