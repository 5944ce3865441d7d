// Goes through the frames of a film: a button to play, a slider, and above it what each step did.

import { hex } from "./palette.js";

const SVG = "http://www.w3.org/2000/svg";
/** The whole film takes about this long, unless its steps would then be too slow or too fast. */
const LENGTH_MS = 6000;
const DELAY_MS = { least: 33, most: 250 };

export class Player {
  #last = 0;
  #most = 1;
  #timer = null;

  /** Calls `onFrame` with the number of the frame to show. */
  constructor(root, onFrame) {
    const find = (selector) => root.querySelector(selector);
    [this.button, this.range, this.output, this.chart] = [".play", ".at", ".frame", ".chart"].map(find);
    this.onFrame = onFrame;
    this.button.addEventListener("click", () => (this.#timer ? this.pause() : this.play()));
    this.range.addEventListener("input", () => {
      this.pause();
      this.#go(this.frame);
    });
  }

  /** The frame that is shown. */
  get frame() {
    return Number(this.range.value);
  }

  /** Takes up the steps that the film has more, and shows the last unless an earlier one is looked at. */
  extend(film) {
    const isAtEnd = this.frame === this.#last;
    while (this.#last < film.last) this.#bar(film.summary(++this.#last));
    this.range.max = this.#last;
    this.#go(isAtEnd ? this.#last : this.frame);
  }

  play() {
    if (this.frame >= this.#last) this.#go(0);
    const delay = Math.min(Math.max(LENGTH_MS / this.#last, DELAY_MS.least), DELAY_MS.most);
    this.#timer = setInterval(() => {
      if (this.frame < this.#last) this.#go(this.frame + 1);
      else this.pause();
    }, delay);
    this.#label("Pause");
  }

  pause() {
    clearInterval(this.#timer);
    this.#timer = null;
    this.#label("Play");
  }

  /** Shows a frame again, because what is to be seen of it has changed. */
  refresh() {
    this.#go(this.frame);
  }

  #go(frame) {
    this.range.value = frame;
    this.range.setAttribute("aria-valuetext", `step ${frame} of ${this.#last}`);
    this.output.textContent = `${frame} / ${this.#last}`;
    this.onFrame(frame);
  }

  #label(text) {
    this.button.setAttribute("aria-label", text);
    this.button.classList.toggle("playing", text === "Pause");
  }

  /** A bar as high as tokens were committed, coloured by their confidence; below, what was masked again. */
  #bar({ count, confidence, remasked }) {
    this.#most = Math.max(this.#most, count);
    this.#rect(count, hex(confidence), "committed");
    if (remasked) this.#rect(remasked, "currentColor", "remasked");
    // Tokens grow upwards from the line at 0.
    this.chart.setAttribute("viewBox", `0 ${-this.#most} ${this.#last} ${this.#most * 1.25}`);
  }

  #rect(count, fill, name) {
    const rect = document.createElementNS(SVG, "rect");
    const y = name === "committed" ? -count : 0;
    const places = { x: this.#last - 0.95, y, width: 0.9, height: count, fill, class: name };
    for (const [key, value] of Object.entries(places)) rect.setAttribute(key, value);
    this.chart.append(rect);
  }
}
