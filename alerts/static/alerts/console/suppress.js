// Asks which alerts nobody needs to see, shows what that would have hidden, and makes a rule of it.
//
// new Suppress({api, people, toasts, triage, dialog})
//   .group(group)   asks, and begins with what `group` is
//   .renew(rule)    asks, and begins with the conditions of `rule`
//   dispatches "made" once there is a new rule

import { inWords } from "./api.js";
import { element } from "./dom.js";
import { now } from "./time.js";
import { counted, route } from "./words.js";

const PAUSE = 400; // milliseconds without a change, after which what it would have hidden is asked for
const HOUR = 3_600_000; // milliseconds
const CONDITIONS = ["title", "title_match", "source", "destination", "device", "worst_severity"];

export class Suppress extends EventTarget {
  #parts;
  #dialog;
  #form;
  #subject = null; // {tenant, group or null}
  #timer = null;
  #asked = 0; // so that a slow answer does not hide a newer one

  constructor(parts) {
    super();
    this.#parts = parts;
    this.#dialog = parts.dialog;
    this.#form = parts.dialog.querySelector("form");
    this.#form.addEventListener("input", () => this.#previewSoon());
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#save();
    });
    this.#dialog.querySelector("[data-cancel]").addEventListener("click", () => this.#dialog.close());
    this.#dialog.addEventListener("close", () => this.#forget());
  }

  group(group) {
    if (!this.#parts.people.mayTriage(group)) {
      return this.#parts.toasts.show("You may look at this group, but not suppress its alerts.");
    }
    const { title, source_ip, destination_ip, device, severity } = group;
    this.#open(group.tenant, group, {
      title,
      title_match: "equals",
      source: source_ip,
      destination: destination_ip,
      device,
      worst_severity: severity,
    });
  }

  renew(rule) {
    this.#open(rule.tenant, null, rule);
    this.#form.elements.reason.value = rule.reason;
  }

  #open(tenant, group, { title, title_match, source, destination, device, worst_severity }) {
    const { elements } = this.#form;
    this.#form.reset();
    this.#subject = { tenant, group };
    elements.title.value = title;
    elements.title_match.value = title ? title_match : "any";
    elements.source.value = source ?? "";
    elements.destination.value = destination ?? "";
    elements.worst_severity.value = worst_severity;
    elements.device.checked = Boolean(device);
    elements.device.value = device?.id ?? "";
    this.#show(".only-device", Boolean(device));
    this.#dialog.querySelector(".device-name").textContent = device?.name ?? "";
    elements.close.checked = group !== null && group.status !== "closed";
    this.#show(".also-close", elements.close.checked);
    this.#complain("");
    this.#dialog.showModal();
    this.#preview();
  }

  #forget() {
    clearTimeout(this.#timer);
    this.#asked += 1;
    this.#subject = null;
  }

  #show(selector, isShown) {
    this.#dialog.querySelector(selector).hidden = !isShown;
  }

  /** What the form says, as the API wants it: what is empty is left out. */
  #given() {
    const data = new FormData(this.#form);
    if (data.get("title_match") === "any") data.set("title", "");
    const filled = CONDITIONS.filter((name) => data.get(name) && data.get(name) !== "any");
    return { tenant: this.#subject.tenant.slug, ...Object.fromEntries(filled.map((name) => [name, data.get(name)])) };
  }

  #previewSoon() {
    const { elements } = this.#form;
    this.#show(".title-text", elements.title_match.value !== "any");
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#preview(), PAUSE);
  }

  async #preview() {
    this.#show(".title-text", this.#form.elements.title_match.value !== "any");
    this.#asked += 1;
    const asked = this.#asked;
    let shown;
    try {
      shown = hidden(await this.#parts.api.post("suppressions/preview", this.#given(), { repeatable: true }));
    } catch (error) {
      shown = [element("p", { class: "field-error" }, inWords(error))];
    }
    if (asked === this.#asked) this.#dialog.querySelector(".preview").replaceChildren(...shown);
  }

  // The dialog stays open until the server has taken the rule, so that nothing typed is lost.
  async #save() {
    const { api, toasts, triage } = this.#parts;
    const { elements } = this.#form;
    const { group } = this.#subject;
    const closes = group && elements.close.checked;
    const reason = elements.reason.value;
    const ends_at = new Date(now() + Number(elements.hours.value) * HOUR).toISOString();
    const button = this.#form.querySelector("[type=submit]");
    button.disabled = true;
    try {
      const rule = await api.post("suppressions", { ...this.#given(), reason, ends_at });
      this.#dialog.close();
      this.dispatchEvent(new CustomEvent("made", { detail: rule }));
      toasts.show(`Suppressed for ${elements.hours.selectedOptions[0].text}: ${reason}`);
      if (closes) triage.closeAs([group], "benign", `Suppressed: ${reason}`);
    } catch (error) {
      this.#complain(inWords(error));
    } finally {
      button.disabled = false;
    }
  }

  #complain(words) {
    const place = this.#dialog.querySelector(".problem");
    place.textContent = words;
    place.hidden = words === "";
  }
}

/** What a rule would have hidden, in words. */
function hidden({ alerts, groups, is_exact: isExact, examples }) {
  const which = isExact ? "the last 24 hours’ alerts" : "the newest 100,000 alerts";
  if (alerts === 0) return [element("p", {}, `It would have hidden none of ${which}.`)];
  const words = `Of ${which}, it would have hidden ${alerts.toLocaleString()} in ${counted(groups, "group")}:`;
  const rest = groups - examples.length;
  return [
    element("p", {}, words),
    element("ul", { class: "records" }, ...examples.map(example)),
    rest > 0 ? element("p", { class: "muted" }, `and ${counted(rest, "more group")}`) : "",
  ];
}

function example({ group, alerts }) {
  const words = [route(group) || group.device?.name, counted(alerts, "alert")].filter(Boolean).join(" · ");
  return element(
    "li",
    { "data-severity": group.severity },
    element("span", { class: "chip" }, group.severity),
    element("span", { dir: "auto" }, ` ${group.title} `),
    element("span", { class: "muted", dir: "auto" }, words),
  );
}
