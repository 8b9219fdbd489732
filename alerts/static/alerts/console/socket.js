// The connection to the server: a WebSocket that reconnects by itself, from the last revision that the page has.
//
// new GroupSocket(path)
//   .start(revision, alertId)   connects, or connects again, to get what changed after `revision`; `alertId` is the last
//                               alert that the page knows of, or null
//   .stop()
//   dispatches
//   - "groups" (detail: groups that changed, in the order of their revisions),
//   - "caughtup" (detail: `{groups, alerts, worst}`, what came while the connection was lost; `alerts` may be null),
//   - "reset" (the page missed too much: load everything again, then `start`),
//   - "state" (detail: `{state: "connecting" | "checking" | "open" | "offline"}` or `{state: "closed", retryAt}`),
//   - "refused" when the server does not accept the socket; the reason is not visible to a script,
//   - "sessionended", "membershipchanged" or "toomany", after which it stays closed.

// Milliseconds
const PING_EVERY = 15_000;
const ANSWER_WITHIN = 10_000;
const LOOK_EVERY = 5_000;
const RETRY_FIRST = 1_000;
const RETRY_MAX = 15_000;

const FINAL = { 4401: "sessionended", 4403: "membershipchanged", 4429: "toomany" }; // close codes of the server

export class GroupSocket extends EventTarget {
  #revision = null;
  #alertId = null;
  #wasLost = false;
  #socket = null;
  #connection = null; // aborted when we give up on a socket, so that its late events are ignored
  #opened = false;
  #failures = 0;
  #stopped = false;
  #retryTimer;
  #pingTimer;
  #answerTimer = null;
  #lookedAt = Date.now();
  #checking = false;

  constructor(path) {
    super();
    this.path = path;
    window.addEventListener("online", () => this.#wake());
    window.addEventListener("offline", () => this.#noticeOffline());
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.#wake();
    });
    setInterval(() => this.#noticeSleep(), LOOK_EVERY);
  }

  start(revision, alertId) {
    this.#revision = revision;
    this.#alertId = alertId;
    this.#wasLost = false;
    if (this.#socket) this.#letGo();
    if (!this.#stopped) this.#connect();
  }

  stop() {
    this.#stopped = true;
    clearTimeout(this.#retryTimer);
    if (this.#socket) this.#letGo();
  }

  get #isIdle() {
    return this.#stopped || this.#revision === null;
  }

  // A sleeping laptop or a new network: don't wait for a timer to find out.
  #wake() {
    if (this.#isIdle) return;
    if (!this.#socket) this.#connect();
    else this.#check();
  }

  // Only the answer to a ping shows whether the socket survived; until then the page is not live.
  #check() {
    if (this.#isIdle || !this.#opened) return;
    this.#checking = true;
    this.#announce({ state: navigator.onLine ? "checking" : "offline" });
    this.#ping();
  }

  #noticeOffline() {
    if (this.#opened) this.#check();
    else if (!this.#stopped) this.#announce({ state: "offline" });
  }

  // Timers stop while a machine sleeps.
  #noticeSleep() {
    const now = Date.now();
    if (now - this.#lookedAt > 3 * LOOK_EVERY) this.#wake();
    this.#lookedAt = now;
  }

  #connect() {
    clearTimeout(this.#retryTimer);
    this.#announce({ state: navigator.onLine ? "connecting" : "offline" });
    this.#opened = false;
    this.#checking = false;
    this.#connection = new AbortController();
    this.#socket = new WebSocket(this.#address());
    this.#listen("open", () => this.#onOpen());
    this.#listen("message", (event) => this.#onMessage(JSON.parse(event.data)));
    this.#listen("close", (event) => this.#onLost(event.code));
    this.#expectAnswer();
  }

  #address() {
    const address = new URL(this.path, location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    address.searchParams.set("since", this.#revision);
    if (this.#alertId !== null) address.searchParams.set("alert", this.#alertId);
    return address;
  }

  #listen(type, handler) {
    this.#socket.addEventListener(type, handler, { signal: this.#connection.signal });
  }

  #onOpen() {
    this.#stopWaiting();
    this.#opened = true;
    this.#pingTimer = setInterval(() => this.#ping(), PING_EVERY);
    this.#announce({ state: "open" });
  }

  #onMessage(frame) {
    this.#failures = 0;
    if (frame.type === "pong") return this.#onPong();
    // A long catch-up may come before the pong; it also shows that the connection is alive.
    if (this.#answerTimer) this.#expectAnswer();
    if (frame.revision !== undefined) this.#revision = frame.revision;
    if (frame.type === "groups") this.#onGroups(frame.groups);
    else if (frame.type === "caught_up" && this.#wasLost) this.#dispatch("caughtup", frame);
    else if (frame.type === "reset") this.#dispatch("reset");
  }

  #onGroups(groups) {
    this.#alertId = Math.max(this.#alertId, ...groups.map((group) => group.last_alert_id));
    this.#dispatch("groups", groups);
  }

  #onPong() {
    this.#stopWaiting();
    if (this.#checking) this.#announce({ state: "open" });
    this.#checking = false;
  }

  #ping() {
    this.#socket.send('{"type":"ping"}');
    if (!this.#answerTimer) this.#expectAnswer();
  }

  #expectAnswer() {
    clearTimeout(this.#answerTimer);
    this.#answerTimer = setTimeout(() => this.#onLost(), ANSWER_WITHIN);
  }

  #stopWaiting() {
    clearTimeout(this.#answerTimer);
    this.#answerTimer = null;
  }

  #onLost(code) {
    const refused = !this.#opened;
    this.#wasLost = true;
    this.#letGo();
    if (FINAL[code]) {
      this.stop();
      return this.#dispatch(FINAL[code]);
    }
    this.#retryLater();
    if (refused) this.#dispatch("refused");
  }

  // On a half-open connection close() waits for an answer that never comes, so nothing here waits for it.
  #letGo() {
    this.#connection.abort();
    clearInterval(this.#pingTimer);
    this.#stopWaiting();
    this.#socket.close();
    this.#socket = null;
  }

  #retryLater() {
    const longest = Math.min(RETRY_FIRST * 2 ** this.#failures, RETRY_MAX);
    // Pages that lost the same server must not all reconnect at the same moment.
    const delay = Math.max(RETRY_FIRST, longest * (0.5 + Math.random() / 2));
    this.#failures += 1;
    this.#retryTimer = setTimeout(() => this.#connect(), delay);
    this.#announce({ state: "closed", retryAt: Date.now() + delay });
  }

  #announce(detail) {
    this.#dispatch("state", detail);
  }

  #dispatch(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
