// Requests to the API under /api/v1/, with the session's cookie.
//
// new Api(csrfToken)
//   .get(path, query?, {signal}?)          → the answer's JSON; `query` is a URLSearchParams or an object
//   .post(path, body, {repeatable}?)       → the same
//   .put(path, body), .delete(path)
//   dispatches "sessionended" at a 401
// All raise Problem if the server refuses, and Unanswered if there was no answer, or only 503s. What may be repeated
// without harm (every GET; a POST that says so, because its body names an operation) is repeated first.

const BASE = "/api/v1/";
const ANSWER_WITHIN = 15_000; // milliseconds
const REPEAT_AFTER = [1_000, 2_000, 4_000, 8_000]; // milliseconds

/** The server refused. `code` and `message` are those of its problem document; `errors` names bad fields. */
export class Problem extends Error {
  constructor(status, problem) {
    super(problem.detail ?? problem.title ?? `The server answered ${status}.`);
    this.status = status;
    this.code = problem.code ?? "";
    this.errors = problem.errors ?? [];
  }
}

/** "source: This is not an address or a network." */
export function inWords(error) {
  if (!(error instanceof Problem) || error.errors.length === 0) return error.message;
  return error.errors.map(({ field, detail }) => (field ? `${field.replace("_", " ")}: ${detail}` : detail)).join(" ");
}

/** The server did not answer, or was too busy to. What was asked for may have been done all the same. */
export class Unanswered extends Error {}

export class Api extends EventTarget {
  constructor(csrfToken) {
    super();
    this.csrfToken = csrfToken;
  }

  get(path, query = {}, { signal } = {}) {
    const parameters = new URLSearchParams(query).toString();
    return this.#request("GET", parameters ? `${path}?${parameters}` : path, { signal, repeatable: true });
  }

  post(path, body, { repeatable = false } = {}) {
    return this.#request("POST", path, { body, repeatable });
  }

  put(path, body) {
    return this.#request("PUT", path, { body, repeatable: true });
  }

  delete(path) {
    return this.#request("DELETE", path, {});
  }

  async #request(method, path, { body, signal, repeatable = false }) {
    const delays = repeatable ? [...REPEAT_AFTER] : [];
    for (;;) {
      try {
        return await this.#ask(method, path, body, signal);
      } catch (error) {
        if (!(error instanceof Unanswered) || delays.length === 0) throw error;
      }
      await pause(delays.shift(), signal);
    }
  }

  async #ask(method, path, body, signal) {
    const deadline = AbortSignal.timeout(ANSWER_WITHIN);
    let response;
    let text;
    try {
      response = await fetch(new URL(path, new URL(BASE, location.href)), {
        method,
        headers: this.#headers(body),
        body: body === undefined ? undefined : JSON.stringify(body),
        cache: "no-store",
        signal: signal ? AbortSignal.any([signal, deadline]) : deadline,
      });
      text = await response.text();
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new Unanswered("The server did not answer.", { cause: error });
    }
    if (response.status >= 500) throw new Unanswered("The server is too busy to answer.");
    const answer = parse(text);
    if (response.ok) return answer;
    if (response.status === 401) this.dispatchEvent(new Event("sessionended"));
    throw new Problem(response.status, answer ?? {});
  }

  #headers(body) {
    const headers = { Accept: "application/json", "X-CSRFToken": this.csrfToken };
    return body === undefined ? headers : { ...headers, "Content-Type": "application/json" };
  }
}

/** Whether `error` only says that a newer request took the place of this one. */
export function isAborted(error) {
  return error.name === "AbortError";
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
