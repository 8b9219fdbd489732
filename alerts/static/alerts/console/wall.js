// A screen on the wall that nobody works at: large numbers and the list, without controls. `wall=1` in the page's
// address, so that a machine can start with it.
//
// new Wall({counts, keys, place, toggle})   `place` shows the numbers, `toggle` is the button that enters
// It is left with the button that it shows or with Escape. While it is on, the machine's screen stays on if it can.

import { element } from "./dom.js";
import { SEVERITIES } from "./words.js";

const CLOCK_EVERY = 1_000; // milliseconds

export class Wall {
  #parts;
  #lock = null;

  constructor(parts) {
    this.#parts = parts;
    const { counts, keys, place, toggle } = parts;
    toggle.addEventListener("click", () => this.#enter());
    place.querySelector("[data-close]").addEventListener("click", () => this.#leave());
    keys.add({ key: "w", words: "Wall screen; Escape leaves it", section: "Page", run: () => this.#enter() });
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.isOn && !document.querySelector("dialog[open]")) this.#leave();
    });
    document.addEventListener("fullscreenchange", () => document.fullscreenElement || this.#leave());
    document.addEventListener("visibilitychange", () => this.#keepScreenOn());
    window.addEventListener("popstate", () => this.#show());
    counts.addEventListener("change", () => this.#count());
    setInterval(() => this.#tick(), CLOCK_EVERY);
    this.#show();
  }

  get isOn() {
    return new URLSearchParams(location.search).has("wall");
  }

  async #enter() {
    this.#remember("1");
    // It may be refused; then the page fills the window.
    await document.documentElement.requestFullscreen?.().catch(() => {});
  }

  async #leave() {
    this.#remember(null);
    if (document.fullscreenElement) await document.exitFullscreen();
  }

  #remember(value) {
    const address = new URL(location.href);
    if (value === null) address.searchParams.delete("wall");
    else address.searchParams.set("wall", value);
    history.replaceState(history.state, "", address);
    this.#show();
  }

  #show() {
    document.body.classList.toggle("is-wall", this.isOn);
    this.#parts.place.hidden = !this.isOn;
    this.#count();
    this.#tick();
    this.#keepScreenOn();
  }

  #count() {
    const { counts, place } = this.#parts;
    if (!this.isOn) return;
    const { by_severity: numbers = {}, is_exact: isExact = true } = counts.summary ?? {};
    const tiles = SEVERITIES.map((severity) => {
      const number = `${(numbers[severity] ?? 0).toLocaleString()}${isExact ? "" : "+"}`;
      return element(
        "li",
        { "data-severity": severity },
        element("span", { class: "wall-number" }, counts.summary ? number : "–"),
        element("span", {}, severity),
      );
    });
    place.querySelector("ul").replaceChildren(...tiles);
  }

  // A clock that stands still shows that the screen is frozen.
  #tick() {
    if (this.isOn) this.#parts.place.querySelector("time").textContent = new Date().toLocaleTimeString();
  }

  async #keepScreenOn() {
    if (!this.isOn) {
      await this.#lock?.release();
      this.#lock = null;
    } else if (!document.hidden && "wakeLock" in navigator) {
      this.#lock = await navigator.wakeLock.request("screen").catch(() => null);
    }
  }
}
