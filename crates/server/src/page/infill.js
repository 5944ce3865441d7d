// Texts with holes, and how they were filled.

import { Answer } from "./answer.js";
import { announce } from "./announce.js";
import { load, save } from "./drafts.js";
import { Holes } from "./holes.js";
import { follow } from "./log.js";

const EXAMPLES = [
  "The {{hole:3}} sat on the {{hole}}.",
  "Once there was a {{hole:4}} who lived in {{hole:6}}.",
];

export class Infill {
  constructor(root, { ask, onSeed }) {
    Object.assign(this, { ask, onSeed });
    const find = (selector) => root.querySelector(selector);
    [this.log, this.intro, this.form, this.most] = [".log", ".intro", "form", ".most"].map(find);
    follow(this.log);
    this.holes = new Holes(find(".editor"), find(".tools"), () => this.#changed());
    this.holes.template = load("template", "");
    this.form.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.form.requestSubmit();
    });
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.holes.count) this.#fill(this.holes.template);
      else announce("Put a hole in first.");
    });
    find(".examples").append(...EXAMPLES.map((source) => this.#example(source)));
  }

  #example(source) {
    const text = source.replace(/\{\{hole(?::(\d+))?\}\}/g, (_, length) => `[${length ?? "auto"}]`);
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: text });
    button.addEventListener("click", () => {
      this.holes.template = source;
      this.form.requestSubmit();
    });
    return button;
  }

  #fill(template) {
    const answer = new Answer(template, {
      onSeed: this.onSeed,
      onRetry: () => {
        answer.element.remove();
        this.#fill(template);
      },
    });
    const most = Number(this.most.value);
    if (!this.ask("/v1/infill", most ? { template, max_hole: most } : { template }, answer)) return;
    this.intro.remove();
    this.log.append(answer.element);
  }

  #changed() {
    save("template", this.holes.template);
    this.form.querySelector(".send").disabled = this.holes.count === 0;
  }
}
