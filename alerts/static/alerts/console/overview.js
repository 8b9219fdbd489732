// When the alerts of the groups that pass the filters came, and the addresses and devices that they name most often:
// each is a filter when it is chosen. Hidden until it is asked for.
//
// new Overview({counts, filters, place, toggle})   `place` has a canvas and lists, `place.dataset.chart` is the address
//                                                  of Chart.js, which is loaded once it is shown

import { button, element } from "./dom.js";
import { brief, counted, SEVERITIES } from "./words.js";

const TOP = { sources: "source", destinations: "destination", devices: "device" };

export class Overview {
  #parts;
  #chart = null;

  constructor(parts) {
    this.#parts = parts;
    const { counts, place, toggle } = parts;
    toggle.addEventListener("click", () => this.#toggle());
    counts.addEventListener("change", () => this.#show());
    place.querySelector("canvas").addEventListener("click", (event) => this.#choose(event));
  }

  async #toggle() {
    const { place, toggle } = this.#parts;
    place.hidden = !place.hidden;
    toggle.setAttribute("aria-expanded", !place.hidden);
    if (!place.hidden) {
      await import(place.dataset.chart); // defines Chart for the page
      this.#show();
    }
  }

  #show() {
    const { counts, place } = this.#parts;
    if (place.hidden || !counts.summary || !globalThis.Chart) return;
    this.#draw(counts.summary.timeline);
    for (const [name, filter] of Object.entries(TOP)) this.#list(name, filter, counts.summary.top[name]);
  }

  #draw({ buckets }) {
    const { place } = this.#parts;
    const style = getComputedStyle(place);
    const labels = buckets.map(({ start }) => moment(start));
    const datasets = SEVERITIES.map((severity) => ({
      label: severity,
      data: buckets.map((bucket) => bucket[severity]),
      backgroundColor: style.getPropertyValue(`--${severity}`),
    }));
    const total = buckets
      .flatMap((bucket) => SEVERITIES.map((severity) => bucket[severity]))
      .reduce((a, b) => a + b, 0);
    place.querySelector("canvas").setAttribute("aria-label", `Timeline: ${counted(total, "alert")}`);
    this.#chart ??= this.#bars(style);
    this.#chart.data = { labels, datasets };
    this.#chart.update("none");
  }

  #bars(style) {
    const [text, line] = ["--text-muted", "--border"].map((name) => style.getPropertyValue(name));
    const ticks = { color: text, maxRotation: 0, autoSkipPadding: 24, precision: 0 };
    return new globalThis.Chart(this.#parts.place.querySelector("canvas"), {
      type: "bar",
      options: {
        animation: false,
        maintainAspectRatio: false,
        plugins: { legend: { display: false } },
        scales: {
          x: { stacked: true, grid: { display: false }, ticks },
          y: { stacked: true, beginAtZero: true, grid: { color: line }, ticks },
        },
      },
    });
  }

  // A bar stands for a part of the time: groups that were seen since it began.
  #choose(event) {
    const [bar] = this.#chart?.getElementsAtEventForMode(event, "index", { intersect: false }, true) ?? [];
    if (bar) this.#parts.filters.set("since", this.#parts.counts.summary.timeline.buckets[bar.index].start);
  }

  #list(name, filter, entries) {
    const items = entries.map(({ id, name: words, value, count }) =>
      element(
        "li",
        {},
        button(words ?? value, () => this.#parts.filters.set(filter, String(id ?? value)), {
          class: "button-link",
          dir: "auto",
        }),
        element("span", { class: "muted" }, brief(count)),
      ),
    );
    const none = element("li", { class: "muted" }, "None");
    this.#parts.place.querySelector(`[data-top=${name}]`).replaceChildren(...(items.length > 0 ? items : [none]));
  }
}

/** "14:30", with the day if it is not today. */
function moment(text) {
  const date = new Date(text);
  const time = date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  if (date.toDateString() === new Date().toDateString()) return time;
  return `${date.toLocaleDateString([], { month: "short", day: "numeric" })} ${time}`;
}
