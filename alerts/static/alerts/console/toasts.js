// Short messages at the bottom of the screen, which a screen reader reads out. One at a time: the last one counts.
//
// new Toasts(place)
//   .show(words, {action, run, error, stays})   `action` is a button's text, `run` what it does
//   .hide()

import { button, element } from "./dom.js";

const SHOWN_FOR = 10_000; // milliseconds

export class Toasts {
  #place;
  #timer;

  constructor(place) {
    this.#place = place;
  }

  show(words, { action, run, error = false, stays = false } = {}) {
    clearTimeout(this.#timer);
    const toast = element(
      "div",
      { class: error ? "toast toast-error" : "toast" },
      element("p", { dir: "auto" }, words),
    );
    if (action) {
      const press = () => {
        this.hide();
        run();
      };
      toast.append(button(action, press, { class: "toast-action" }));
    }
    toast.append(button("×", () => this.hide(), { class: "toast-close", "aria-label": "Dismiss" }));
    this.#place.replaceChildren(toast);
    if (!stays) this.#timer = setTimeout(() => this.hide(), SHOWN_FOR);
  }

  hide() {
    this.#place.replaceChildren();
  }
}
