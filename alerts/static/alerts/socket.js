// The connection to the server: a WebSocket that reconnects by itself, from the last alert that the page has.

// Milliseconds
const PING_EVERY = 15_000;
const ANSWER_WITHIN = 10_000;
const LOOK_EVERY = 5_000;
const RETRY_FIRST = 1_000;
const RETRY_MAX = 15_000;

// Close codes of alerts/consumers.py and alerts/logins.py
const SESSION_ENDED = 4401;
const MEMBERSHIP_CHANGED = 4403;
const TOO_MANY = 4429; // this login has too many sockets, and this was the oldest

/**
 * Dispatches
 * - "alert" (detail: the alert),
 * - "state" (detail: `{state: "connecting" | "checking" | "open"}` or `{state: "closed", retryAt}`),
 * - "sessionended", after which it stays closed,
 * - "membershipchanged", after which it stays closed,
 * - "toomany", after which it stays closed.
 */
export class AlertSocket extends EventTarget {
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

  /** `lastId()` is the newest alert the page has. */
  constructor(path, lastId) {
    super();
    this.path = path;
    this.lastId = lastId;
  }

  start() {
    window.addEventListener("online", () => this.#wake());
    window.addEventListener("offline", () => this.#check());
    setInterval(() => this.#noticeSleep(), LOOK_EVERY);
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.#wake();
    });
    this.#connect();
  }

  // A sleeping laptop or a new network: don't wait for a timer to find out.
  #wake() {
    if (this.#stopped) return;
    if (!this.#socket) this.#connect();
    else this.#check();
  }

  // Only the answer to a ping shows whether the socket survived; until then the page is not live.
  #check() {
    if (this.#stopped || !this.#opened) return;
    this.#checking = true;
    this.#announce({ state: "checking" });
    this.#ping();
  }

  // Timers stop while a machine sleeps.
  #noticeSleep() {
    const now = Date.now();
    if (now - this.#lookedAt > 3 * LOOK_EVERY) this.#wake();
    this.#lookedAt = now;
  }

  #connect() {
    clearTimeout(this.#retryTimer);
    this.#announce({ state: "connecting" });
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
    address.searchParams.set("since", this.lastId());
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
    if (frame.type === "alert") {
      // A long catch-up may come before the pong; it also shows that the connection is alive.
      if (this.#answerTimer) this.#expectAnswer();
      this.dispatchEvent(new CustomEvent("alert", { detail: frame.data }));
    } else if (frame.type === "pong") {
      this.#stopWaiting();
      if (this.#checking) this.#announce({ state: "open" });
      this.#checking = false;
    }
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
    this.#letGo();
    if (code === SESSION_ENDED) return this.#stop("sessionended");
    if (code === MEMBERSHIP_CHANGED) return this.#stop("membershipchanged");
    if (code === TOO_MANY) return this.#stop("toomany");
    this.#retryLater();
    if (refused) this.#findReason();
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

  // A script can't see why a handshake was refused; requesting the page again shows the reason.
  async #findReason() {
    let page;
    try {
      const signal = AbortSignal.timeout(ANSWER_WITHIN);
      const response = await fetch(location.href, { redirect: "manual", cache: "no-store", signal });
      if (response.type === "opaqueredirect") return this.#stop("sessionended");
      if (!response.ok) return;
      page = new DOMParser().parseFromString(await response.text(), "text/html");
    } catch {
      return; // the server is unreachable: all we can do is retry
    }
    const stillAllowed = page.querySelector("[data-socket]");
    if (!stillAllowed) this.#stop("membershipchanged");
  }

  #stop(reason) {
    if (this.#stopped) return;
    this.#stopped = true;
    clearTimeout(this.#retryTimer);
    if (this.#socket) this.#letGo();
    this.dispatchEvent(new Event(reason));
  }

  #announce(detail) {
    this.dispatchEvent(new CustomEvent("state", { detail }));
  }
}
