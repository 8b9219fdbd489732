// The live page: the alerts that the server rendered, then those from the socket.

import { AlertFilter } from "./filter.js";
import { AlertList, isScrolledDown } from "./list.js";
import { AlertSocket } from "./socket.js";

const FLUSH_AFTER = 50; // milliseconds
const NEW_FOR = 4_000; // milliseconds
const TITLE = document.title.trim();

const byId = (id) => document.getElementById(id);
const page = byId("live");
const search = byId("alert-search");
const recent = JSON.parse(byId("recent-alerts").textContent);

// "12 s ago" is by the server's clock, because the analyst's may be wrong.
const clockOffset = Number(page.dataset.now) * 1_000 - Date.now();
const now = () => Date.now() + clockOffset;

let lastId = Math.max(0, ...recent.map((alert) => alert.id));
let arrived = [];
let flushTimer = null;
let above = 0; // new rows above what the analyst is reading
let unseen = 0; // new rows since the tab was hidden
let retryAt = null;

const filter = new AlertFilter();
const list = new AlertList({
  list: byId("alerts"),
  template: byId("alert-template"),
  filter,
  showTenant: "showTenant" in page.dataset,
});
const socket = new AlertSocket(page.dataset.socket, () => lastId);

// A catch-up may bring thousands of frames: they are drawn together, and only those that fit in the list.
function receive(alert) {
  lastId = Math.max(lastId, alert.id);
  arrived.push(alert);
  if (flushTimer === null) flushTimer = setTimeout(flush, FLUSH_AFTER);
}

function flush() {
  const rows = list.add(list.choose(arrived), { fresh: true });
  arrived = [];
  flushTimer = null;
  setTimeout(() => {
    for (const row of rows) row.classList.remove("is-new");
  }, NEW_FOR);
  if (isScrolledDown()) above += rows.length;
  if (document.hidden) unseen += rows.length;
  showList();
  showNew();
}

function showList() {
  const shown = list.applyFilter();
  list.updateAges(now());
  showFilters();
  byId("alert-count").textContent = countInWords(shown, list.size);
  byId("removed").textContent = removedInWords(list.removed);
  byId("older").hidden = byId("removed").textContent === "";
  byId("show-all").hidden = shown === list.size;
  byId("no-alerts").hidden = list.size > 0;
  byId("no-matches").hidden = shown > 0 || list.size === 0;
}

function countInWords(shown, size) {
  if (size === 0) return "";
  const all = `${size} ${size === 1 ? "alert" : "alerts"}`;
  return shown === size ? `Showing ${all}` : `Showing ${shown} of ${all}`;
}

function removedInWords({ critical, other }) {
  const count = critical + other;
  if (count === 0) return "";
  const all = count === 1 ? "1 older alert is" : `${count.toLocaleString()} older alerts are`;
  const rest = critical === 0 ? "; critical alerts are kept" : `, including ${critical.toLocaleString()} critical`;
  return `${all} not shown, to make room${rest}`;
}

function showFilters() {
  const counts = list.severityCounts();
  for (const button of byId("severity-filters").children) {
    const { severity } = button.dataset;
    button.setAttribute("aria-pressed", filter.shows(severity));
    button.querySelector(".filter-count").textContent = counts[severity] ?? 0;
  }
}

function showNew() {
  const button = byId("new-alerts");
  button.textContent = `↑ ${above} new`;
  button.setAttribute("aria-label", `Go to ${above} new ${above === 1 ? "alert" : "alerts"}`);
  button.hidden = above === 0;
  document.title = unseen > 0 ? `(${unseen}) ${TITLE}` : TITLE;
}

const STATE_WORDS = { connecting: "Connecting…", checking: "Checking…", open: "Live", closed: "Disconnected" };

function showState({ state, retryAt: moment = null }) {
  retryAt = moment;
  byId("socket-state").dataset.state = state;
  byId("socket-words").textContent = STATE_WORDS[state];
  showCountdown();
}

// Separate from the words, so that a screen reader doesn't announce it every second.
function showCountdown() {
  const seconds = retryAt && Math.max(1, Math.ceil((retryAt - Date.now()) / 1_000));
  byId("socket-countdown").textContent = seconds ? `retrying in ${seconds} s` : "";
}

function showStopped(words, notice) {
  showState({ state: "closed" });
  byId("socket-words").textContent = words;
  byId(notice).hidden = false;
}

function listenToAnalyst() {
  byId("severity-filters").addEventListener("click", (event) => {
    const button = event.target.closest("[data-severity]");
    if (button) filter.toggle(button.dataset.severity);
  });
  search.addEventListener("input", () => filter.search(search.value));
  byId("show-all").addEventListener("click", () => {
    search.value = "";
    filter.clear();
    focusList();
  });
  filter.addEventListener("change", showList);

  byId("new-alerts").addEventListener("click", () => {
    window.scrollTo({ top: 0 });
    focusList();
  });
  window.addEventListener("scroll", forgetAboveAtTop, { passive: true });
  document.addEventListener("keydown", searchOnSlash);
  document.addEventListener("visibilitychange", () => {
    unseen = 0;
    showNew();
  });
}

// The button just pressed is about to disappear, and the focus must not disappear with it.
function focusList() {
  byId("alerts").focus({ preventScroll: true });
}

function forgetAboveAtTop() {
  if (above === 0 || isScrolledDown()) return;
  above = 0;
  showNew();
}

function searchOnSlash(event) {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.target.matches("input")) return;
  event.preventDefault();
  search.focus();
}

function tick() {
  showCountdown();
  if (!document.hidden) list.updateAges(now());
}

function listenToServer() {
  socket.addEventListener("alert", (event) => receive(event.detail));
  socket.addEventListener("state", (event) => showState(event.detail));
  socket.addEventListener("sessionended", () => showStopped("Session ended", "session-ended"));
  socket.addEventListener("toomany", () => showStopped("Closed", "too-many"));
  socket.addEventListener("membershipchanged", () => location.reload());
  socket.start();
}

list.add(recent.toReversed(), { fresh: false });
filter.search(search.value); // a browser may keep the text across a reload
showList();
listenToAnalyst();
listenToServer();
setInterval(tick, 1_000);
