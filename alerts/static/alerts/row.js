// One alert as a list item. A device can send any text: it goes into text nodes, never into markup.

import { ago, exact, span } from "./time.js";

const CLOCK_TOLERANCE = 2 * 60_000; // milliseconds

/** An `<li>` for `alert`, from the page's template. */
export function createRow(template, alert, { showTenant }) {
  const row = template.content.firstElementChild.cloneNode(true);
  const received = new Date(alert.received_at);
  row.dataset.alertId = alert.id;
  row.dataset.severity = alert.severity;

  fill(row, ".chip", alert.severity);
  fill(row, ".alert-title", alert.title);
  fill(row, ".status", alert.status === "open" ? "" : alert.status);
  fill(row, ".alert-device", alert.device.name);
  fill(row, ".alert-tenant", showTenant ? alert.tenant.name : "");
  fill(row, ".alert-route", route(alert));
  fill(row, ".alert-skew", skew(alert, received));
  fill(row, ".alert-description", alert.description);

  const age = row.querySelector(".alert-age");
  age.dateTime = alert.received_at;
  age.title = `Received ${exact(received)}`;

  const button = row.querySelector(".alert-more");
  button.setAttribute("aria-label", `Details: ${alert.title}`);
  button.addEventListener("click", () => toggleDetails(row, button, alert));
  return row;
}

/** Updates "12 s ago". */
export function updateAge(row, received, now) {
  const age = row.querySelector(".alert-age");
  const words = ago(received, now);
  if (age.textContent !== words) age.textContent = words;
}

/** The text that the search matches against. */
export function searchText(alert) {
  const { title, description, device, tenant, source_ip, destination_ip } = alert;
  return [title, description, device.name, tenant.name, source_ip, destination_ip].join("\n").toLowerCase();
}

function fill(row, selector, text) {
  const element = row.querySelector(selector);
  element.textContent = text;
  element.hidden = !text;
}

function route({ source_ip: source, destination_ip: destination }) {
  if (source && destination) return `${source} → ${destination}`;
  if (source) return `from ${source}`;
  return destination ? `to ${destination}` : "";
}

/** The device's own time, if it is far enough from ours to mislead anyone comparing logs. */
function skew(alert, received) {
  const timestamp = new Date(alert.timestamp);
  const difference = timestamp - received;
  if (Math.abs(difference) <= CLOCK_TOLERANCE) return "";
  return `device clock: ${exact(timestamp)} (${span(difference)} ${difference < 0 ? "earlier" : "later"})`;
}

// Few rows are ever expanded, so their details are created on demand.
function toggleDetails(row, button, alert) {
  const open = row.classList.toggle("is-open");
  button.setAttribute("aria-expanded", open);
  if (open) row.append(createDetails(alert));
  else row.querySelector(".alert-record").remove();
}

/** Everything known about the alert, with exact times. */
function createDetails(alert) {
  const details = [
    ["Alert", alert.id],
    ["Status", alert.status],
    ["Received", exact(new Date(alert.received_at))],
    ["Device clock", exact(new Date(alert.timestamp))],
    ["Tenant", alert.tenant.name],
    ["Device", alert.device.name],
    ["Source", alert.source_ip],
    ["Destination", alert.destination_ip],
  ];
  const list = document.createElement("dl");
  list.className = "alert-record";
  for (const [term, value] of details) {
    if (value) list.append(pair(term, value));
  }
  return list;
}

function pair(term, value) {
  const group = document.createElement("div");
  const name = document.createElement("dt");
  const definition = document.createElement("dd");
  name.textContent = term;
  definition.textContent = value;
  definition.dir = "auto";
  group.append(name, definition);
  return group;
}
