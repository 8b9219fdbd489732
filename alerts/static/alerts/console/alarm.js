// Sound and desktop notifications for groups that become new or worse, from a severity up, whatever the filters are.
// Off until the reader switches them on; remembered in this browser.
//
// new Alarm({socket, feed, store, panel, badge, open})   `panel` is the popover with the choices, `badge` says in short
//                                                        that they are on; `open(id)` opens a group

import { now } from "./time.js";
import { counted, route, SEVERITIES } from "./words.js";

const STORED_AS = "ingestcloud.alarm";
const GATHER_FOR = 300; // milliseconds: what comes together is one alarm
const MAX_SEEN = 20_000; // groups
const TONES = { critical: [880, 660, 880], high: [660, 880], medium: [660], low: [520], info: [440] }; // hertz
const TONE_SECONDS = 0.16;

export class Alarm {
  #parts;
  #seen = new Map(); // id → {status, severity, version}
  #since = null; // the server's time at the start: groups that began before are no news
  #news = [];
  #timer = null;
  #audio = null;
  #chosen = recall(); // {sound, notification}: a severity, or ""

  constructor(parts) {
    this.#parts = parts;
    const { socket, feed, store, panel } = parts;
    socket.addEventListener("groups", ({ detail: groups }) => this.#consider(groups));
    feed.addEventListener("loaded", () => this.#consider([...store.values()]));
    for (const name of ["sound", "notification"]) {
      const select = panel.querySelector(`[name=${name}]`);
      select.value = this.#chosen[name];
      select.addEventListener("change", () => this.#choose(name, select.value));
    }
    panel.querySelector("[data-try]").addEventListener("click", () => this.#play("critical"));
    // Browsers play nothing before the reader has done something on the page.
    for (const type of ["pointerdown", "keydown"]) document.addEventListener(type, () => this.#allowSound());
    this.#show();
  }

  async #choose(name, severity) {
    this.#chosen[name] = severity;
    remember(this.#chosen);
    if (name === "notification" && severity && canNotify()) await Notification.requestPermission();
    this.#allowSound();
    this.#show();
  }

  async #allowSound() {
    if (!this.#chosen.sound || this.#audio?.state === "running") return;
    this.#audio ??= new AudioContext();
    await this.#audio.resume();
    this.#show();
  }

  #show() {
    const { panel, badge } = this.#parts;
    const problems = [];
    if (this.#chosen.sound && this.#audio?.state !== "running") {
      problems.push("The browser plays no sound before you click or press a key on this page.");
    }
    if (this.#chosen.notification && !canNotify()) problems.push("Notifications need HTTPS.");
    else if (this.#chosen.notification && Notification.permission !== "granted") {
      problems.push("The browser does not allow notifications from this site; its settings can change that.");
    }
    panel.querySelector(".problem").textContent = problems.join(" ");
    const isOn = this.#chosen.sound || this.#chosen.notification;
    badge.textContent = problems.length > 0 ? "!" : isOn ? "on" : "";
  }

  #consider(groups) {
    const isStart = this.#since === null;
    this.#since ??= now();
    for (const group of groups) {
      if (!isStart && this.#isNews(group)) this.#news.push(group);
      this.#seen.delete(group.id); // so that the oldest are first
      this.#seen.set(group.id, { status: group.status, severity: group.severity, version: group.version });
    }
    for (const id of this.#seen.keys()) {
      if (this.#seen.size <= MAX_SEEN) break;
      this.#seen.delete(id);
    }
    if (this.#news.length > 0 && this.#timer === null) this.#timer = setTimeout(() => this.#tell(), GATHER_FOR);
  }

  // Repeats are no news, and neither is what a person did.
  #isNews(group) {
    if (group.status !== "new") return false;
    const before = this.#seen.get(group.id);
    if (!before) return Date.parse(group.first_seen_at) > this.#since;
    if (before.version !== group.version) return false;
    return before.status !== "new" || rank(group) < SEVERITIES.indexOf(before.severity);
  }

  #tell() {
    this.#timer = null;
    const news = this.#news.sort((one, other) => rank(one) - rank(other));
    this.#news = [];
    const [worst] = news;
    if (isAtLeast(worst, this.#chosen.sound)) this.#play(worst.severity);
    const told = news.filter((group) => isAtLeast(group, this.#chosen.notification));
    if (told.length > 0 && !document.hasFocus()) this.#notify(told);
  }

  #notify([worst, ...others]) {
    if (!canNotify() || Notification.permission !== "granted") return;
    const where = [route(worst) || worst.device?.name, worst.tenant.name].filter(Boolean).join(" · ");
    const more = others.length > 0 ? `\nand ${counted(others.length, "more group")}` : "";
    const notification = new Notification(`${worst.severity}: ${worst.title}`, {
      body: where + more,
      tag: `ingestcloud-${worst.id}`,
    });
    notification.addEventListener("click", () => {
      window.focus();
      this.#parts.open(worst.id);
      notification.close();
    });
  }

  #play(severity) {
    this.#audio ??= new AudioContext();
    this.#audio.resume();
    TONES[severity].forEach((tone, index) => {
      const start = this.#audio.currentTime + index * TONE_SECONDS;
      const [oscillator, volume] = [this.#audio.createOscillator(), this.#audio.createGain()];
      oscillator.frequency.value = tone;
      volume.gain.setValueAtTime(0.25, start);
      volume.gain.exponentialRampToValueAtTime(0.001, start + TONE_SECONDS);
      oscillator.connect(volume).connect(this.#audio.destination);
      oscillator.start(start);
      oscillator.stop(start + TONE_SECONDS);
    });
  }
}

const rank = ({ severity }) => SEVERITIES.indexOf(severity);

function isAtLeast(group, severity) {
  return severity !== "" && rank(group) <= SEVERITIES.indexOf(severity);
}

// Not on plain HTTP, except on this machine.
function canNotify() {
  return window.isSecureContext && "Notification" in window;
}

// A browser may deny storage, and somebody else may have written there.
function recall() {
  const chosen = { sound: "", notification: "" };
  try {
    const stored = JSON.parse(localStorage.getItem(STORED_AS)) ?? {};
    for (const name of Object.keys(chosen)) if (SEVERITIES.includes(stored[name])) chosen[name] = stored[name];
  } catch {
    // As if nothing had been chosen.
  }
  return chosen;
}

function remember(chosen) {
  try {
    localStorage.setItem(STORED_AS, JSON.stringify(chosen));
  } catch {
    // The choice lasts until the page is closed.
  }
}
