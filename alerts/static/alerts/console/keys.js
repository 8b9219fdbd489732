// The keys that do something, wherever the focus is except in a field. `?` shows them all.
//
// new Keys(dialog)
//   .add({key, also, words, section, run})   `key` as in KeyboardEvent.key, or several of them; `also`, those that the
//                                     help does not show; `words` is what it says; `run(event)` is called, unless it
//                                     returns false, in place of the browser's action
//   .toggle()                          shows the help, or hides it
//   .enabled                           false if the reader has switched single keys off (remembered in this browser)
// Modules add their own keys. A key that is added twice is a mistake and raises.

const STORED_AS = "ingestcloud.keys";

export class Keys {
  #actions = new Map(); // key → action
  #help;

  constructor(help) {
    this.#help = help;
    this.enabled = recall();
    document.addEventListener("keydown", (event) => this.#press(event));
    const choice = help.querySelector("[name=keys]");
    choice.checked = this.enabled;
    choice.addEventListener("change", () => {
      this.enabled = choice.checked;
      remember(this.enabled);
    });
    help.querySelector("[data-close]").addEventListener("click", () => help.close());
  }

  add(action) {
    for (const key of [action.key, action.also ?? []].flat()) {
      if (this.#actions.has(key)) throw new Error(`The key ${key} does something already`);
      this.#actions.set(key, action);
    }
  }

  /** Shows the help, or hides it. */
  toggle() {
    if (this.#help.open) return this.#help.close();
    this.#help.querySelector(".keys").replaceChildren(...this.#sections());
    this.#help.showModal();
  }

  #press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const action = this.#actions.get(event.key);
    if (!action || isTyping(event.target) || this.#isForDialog(event)) return;
    if (!this.enabled && event.key.length === 1) return;
    if (action.run(event) !== false) event.preventDefault();
  }

  // What is open above the page has the keyboard for itself.
  #isForDialog(event) {
    const dialog = document.querySelector("dialog[open], :popover-open");
    return Boolean(dialog) && !(dialog === this.#help && event.key === "?");
  }

  #sections() {
    const sections = Map.groupBy(new Set(this.#actions.values()), (action) => action.section);
    return [...sections].map(([name, actions]) => section(name, actions));
  }
}

function section(name, actions) {
  const element = document.createElement("section");
  const heading = document.createElement("h3");
  const list = document.createElement("dl");
  heading.textContent = name;
  list.append(...actions.flatMap(({ key, words }) => [term([key].flat()), definition(words)]));
  element.append(heading, list);
  return element;
}

function term(keys) {
  const element = document.createElement("dt");
  for (const key of keys) {
    const cap = document.createElement("kbd");
    cap.textContent = NAMES[key] ?? key;
    element.append(cap, " ");
  }
  return element;
}

function definition(words) {
  const element = document.createElement("dd");
  element.textContent = words;
  return element;
}

const NAMES = { ArrowDown: "↓", ArrowUp: "↑", Escape: "Esc", " ": "Space" };

function isTyping(element) {
  return element.matches("textarea, select, [contenteditable], input:not([type=checkbox], [type=radio])");
}

// A browser may deny storage.
function recall() {
  try {
    return localStorage.getItem(STORED_AS) !== "off";
  } catch {
    return true;
  }
}

function remember(enabled) {
  try {
    localStorage.setItem(STORED_AS, enabled ? "on" : "off");
  } catch {
    // The choice lasts until the page is closed.
  }
}
