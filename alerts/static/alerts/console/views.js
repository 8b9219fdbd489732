// The filters that the user has saved under names, and the groups that pass the present ones as a file.
//
// new Views({api, filters, toasts, place})   `place` is the popover with the list, the form and the links

import { button, element } from "./dom.js";

export class Views {
  #parts;
  #list;
  #form;

  constructor(parts) {
    this.#parts = parts;
    const { filters, place } = parts;
    this.#list = place.querySelector("ul");
    this.#form = place.querySelector("form");
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#save();
    });
    place.addEventListener("beforetoggle", (event) => {
      if (event.newState === "open") this.#ask((api) => api.get("filters"), this.#show);
    });
    filters.addEventListener("change", () => this.#link());
    this.#link();
  }

  #show = ({ results }) => {
    const rows = results.map((saved) => this.#row(saved));
    this.#list.replaceChildren(...(rows.length > 0 ? rows : [element("li", { class: "muted" }, "Nothing saved yet.")]));
  };

  #row(saved) {
    const adopt = () => {
      this.#parts.place.hidePopover();
      this.#parts.filters.adopt(saved.query);
    };
    const remove = () => this.#change((api) => api.delete(`filters/${saved.id}`));
    return element(
      "li",
      {},
      button(saved.name, adopt, { class: "button-link", dir: "auto" }),
      button("×", remove, { class: "button-close", "aria-label": `Delete ${saved.name}` }),
    );
  }

  async #save() {
    const name = this.#form.elements.name.value.trim();
    const query = this.#parts.filters.query.toString();
    if (name && (await this.#change((api) => api.post("filters", { name, query })))) this.#form.reset();
  }

  async #change(change) {
    return (await this.#ask(change)) && this.#ask((api) => api.get("filters"), this.#show);
  }

  // Resolves to whether the server did what it was asked.
  async #ask(question, take = () => {}) {
    try {
      take(await question(this.#parts.api));
      return true;
    } catch (error) {
      this.#parts.toasts.show(error.message, { error: true });
      return false;
    }
  }

  #link() {
    for (const link of this.#parts.place.querySelectorAll("a[data-format]")) {
      const query = this.#parts.filters.query;
      query.set("format", link.dataset.format);
      link.search = query;
    }
  }
}
