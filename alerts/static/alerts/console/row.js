// One group as a row of the grid. A device can send any text: it goes into text nodes, never into markup.

import { ago, exact, now } from "./time.js";
import { brief, counted, DISPOSITIONS, route, SEVERITIES, STATUSES } from "./words.js";

/** Creates a row from the page's template. */
export function createRow(template) {
  return template.content.firstElementChild.cloneNode(true);
}

/**
 * Shows `group` in `row`. `state` is `{index, selected, open, focused, busy, stray, fresh}`; `index` counts from 0.
 * Text that did not change is not written again, so that a screen reader stays where it is.
 */
export function fillRow(row, group, state) {
  row.dataset.id = group.id;
  row.dataset.severity = group.severity;
  row.dataset.status = group.status;
  write(row, ".chip", group.severity);
  write(row, ".row-name", group.title);
  write(row, ".row-previous", previous(group));
  write(row, ".row-route", route(group) || group.device?.name);
  write(row, ".row-tenant", group.tenant.name);
  write(row, ".count", group.count === 1 ? "" : `×${brief(group.count)}`);
  write(row, ".since", group.since_acknowledged ? `+${brief(group.since_acknowledged)} since` : "");
  write(row, ".status", STATUSES[group.status]);
  write(row, ".verdict", verdict(group));
  write(row, ".row-assignee", group.assignee?.name);
  fillState(row, state);
  fillAge(row, group);
}

/** Shows the heading of folded groups in `row`: their worst severity, how many they are, the last one's age. */
export function fillHeading(row, id, { words, groups, isOpen }, state) {
  row.dataset.id = id;
  row.dataset.severity = SEVERITIES.find((severity) => groups.some((group) => group.severity === severity));
  row.classList.add("heading");
  row.classList.toggle("is-folded", !isOpen);
  const last = groups.reduce((one, other) => (other.last_alert_id > one.last_alert_id ? other : one));
  const fresh = groups.filter(({ status }) => status === "new").length;
  write(row, ".chip", row.dataset.severity);
  write(row, ".row-name", words);
  write(row, ".row-previous", isOpen ? "" : "folded");
  write(row, ".row-route", counted(groups.length, "group"));
  write(row, ".row-tenant", "");
  write(row, ".count", `×${brief(groups.reduce((sum, { count }) => sum + count, 0))}`);
  write(row, ".since", "");
  write(row, ".status", fresh > 0 ? `${brief(fresh)} new` : "");
  write(row, ".verdict", "");
  write(row, ".row-assignee", "");
  fillState(row, state);
  fillAge(row, last);
}

/** The id of a group, a number; or of a heading, a string. */
export function idOf(row) {
  return row.classList.contains("heading") ? row.dataset.id : Number(row.dataset.id);
}

export function fillState(row, { index, selected, open, focused, busy, stray, fresh }) {
  row.setAttribute("aria-rowindex", index + 2); // the first row is that of the headings
  row.setAttribute("aria-selected", selected);
  row.setAttribute("aria-busy", busy);
  row.tabIndex = focused ? 0 : -1;
  row.classList.toggle("is-open", open);
  row.classList.toggle("is-stray", stray);
  row.classList.toggle("is-fresh", fresh);
}

export function fillAge(row, group) {
  const age = row.querySelector(".row-age time");
  const moment = new Date(group.last_seen_at);
  const words = ago(moment);
  if (age.textContent === words) return;
  age.textContent = words;
  age.dateTime = group.last_seen_at;
  age.title = `Last seen ${exact(moment)}`;
}

/** "closed as false positive by ana, 2 d ago": what the last group with this fingerprint turned out to be. */
function previous({ previous: group }) {
  if (!group) return "";
  const as = group.disposition ? ` as ${DISPOSITIONS[group.disposition].toLowerCase()}` : "";
  const by = group.status_changed_by ? ` by ${group.status_changed_by}` : "";
  const when = group.status_changed_at ? `, ${ago(new Date(group.status_changed_at))}` : "";
  return `before: closed${as}${by}${when}`;
}

/** Who gave the group its status, and as what it was closed. */
function verdict({ status, disposition, status_changed_by: by, status_changed_at: at }) {
  if (status === "new" || !by) return "";
  const words = [disposition && DISPOSITIONS[disposition].toLowerCase(), `by ${by}`].filter(Boolean).join(" ");
  return now() - Date.parse(at) < 60_000 ? `${words}, ${ago(new Date(at))}` : words;
}

function write(row, selector, text) {
  const element = row.querySelector(selector);
  if (!element) return; // the page has only the columns that its reader needs
  const words = text ?? "";
  if (element.textContent !== words) element.textContent = words;
  element.hidden = words === "";
}
