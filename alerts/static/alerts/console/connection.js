// Says whether the page is live, and why not.
//
// new Connection({api, socket, place, notices})
//   `place` has the words; `notices` = {ended, toomany, away}, elements

import { counted } from "./words.js";

const WORDS = {
  connecting: "Connecting…",
  checking: "Checking…",
  open: "Live",
  closed: "Disconnected",
  offline: "Offline",
  stopped: "Closed",
};

export class Connection {
  #parts;
  #retryAt = null;

  constructor(parts) {
    this.#parts = parts;
    const { api, socket, notices } = parts;
    socket.addEventListener("state", ({ detail }) => this.#show(detail));
    socket.addEventListener("caughtup", ({ detail }) => this.#tellWhatCame(detail));
    socket.addEventListener("reset", () =>
      this.#tell("This page missed too much to count it, or the database was restored. Everything was loaded again."),
    );
    socket.addEventListener("refused", () => this.#findReason());
    socket.addEventListener("sessionended", () => this.#stop(notices.ended));
    socket.addEventListener("toomany", () => this.#stop(notices.toomany));
    socket.addEventListener("membershipchanged", () => location.reload());
    api.addEventListener("sessionended", () => this.#stop(notices.ended));
    notices.away.querySelector("[data-close]").addEventListener("click", () => {
      notices.away.hidden = true;
    });
    setInterval(() => this.#showCountdown(), 1_000);
  }

  #show({ state, retryAt = null }) {
    this.#retryAt = retryAt;
    const { place } = this.#parts;
    place.dataset.state = state;
    place.querySelector(".words").textContent = WORDS[state];
    this.#showCountdown();
  }

  // Separate from the words, so that a screen reader doesn't announce it every second.
  #showCountdown() {
    const seconds = this.#retryAt && Math.max(1, Math.ceil((this.#retryAt - Date.now()) / 1_000));
    this.#parts.place.querySelector(".countdown").textContent = seconds ? `retrying in ${seconds} s` : "";
  }

  #tellWhatCame({ groups, alerts, worst }) {
    if (groups === 0) return;
    const came = alerts ? `${counted(alerts, "alert")} came in, and ` : "";
    this.#tell(`While this page was away, ${came}${counted(groups, "group")} changed; the worst is ${worst}.`);
  }

  #tell(words) {
    const { away } = this.#parts.notices;
    away.querySelector(".words").textContent = words;
    away.hidden = false;
  }

  // A script can't see why a handshake was refused; any request shows whether the session has ended.
  async #findReason() {
    try {
      const { tenants } = await this.#parts.api.get("me");
      if (tenants.length === 0) location.reload();
    } catch {
      // The server is unreachable, or the session has ended, which the API has announced.
    }
  }

  #stop(notice) {
    this.#parts.socket.stop();
    this.#show({ state: "stopped" });
    notice.hidden = false;
  }
}
