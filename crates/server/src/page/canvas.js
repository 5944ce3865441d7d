// Draws a frame of a film: one element for each cell, of which only those are touched that changed.

import { hex } from "./palette.js";
import { decimal, isSpecial } from "./text.js";

/** What stands for a special token of the response, of which there may be many. */
const SPECIAL = "∎";

export class Canvas {
  #film;
  #elements = new Map();
  #looks = new WeakMap();
  #views = [];
  #finalTexts = null;
  #chosen = null;

  /** Draws into `root`; `detail` tells of the cell under the pointer or the cursor. */
  constructor(root, detail) {
    this.root = root;
    this.detail = detail;
    root.addEventListener("pointerover", ({ target }) => this.#tell(this.#index(target)));
    root.addEventListener("click", ({ target }) => this.#choose(this.#index(target)));
    root.addEventListener("keydown", (event) => this.#walk(event));
  }

  /** Shows a frame; `by` says what colours mean: `confidence` or `order`. */
  show(film, frame, by) {
    this.by = by;
    this.#film = film;
    this.#views = film.frame(frame);
    this.#views.forEach((view, i) => this.#draw(view, i));
    while (this.root.children.length > this.#views.length) this.root.lastChild.remove();
    if (this.#chosen !== null) this.#choose(Math.min(this.#chosen, this.#views.length - 1));
  }

  /** From now on a mask is as wide as the text that it becomes, so that nothing moves. */
  settle(film) {
    this.#finalTexts = film.finalTexts();
    this.#elements.clear();
    this.root.replaceChildren();
  }

  #draw(view, i) {
    const element = this.#element(view.cell);
    if (this.root.children[i] !== element) this.root.insertBefore(element, this.root.children[i] ?? null);
    const { kind, span, isFresh, isAgain, isNew } = view;
    const share = this.by === "order" ? span?.from / this.#film.last : span?.confidence;
    const look = [kind, view.text, isFresh, isAgain, isNew, share];
    if (this.#looks.get(element)?.every((part, at) => Object.is(part, look[at]))) return;
    this.#looks.set(element, look);
    const text = kind === "mask" ? (this.#finalTexts?.get(view.cell) ?? "") : view.text;
    const [lead, word] = split(pictured(text, kind));
    element.className = classes(view, text);
    element.firstChild.data = lead;
    element.lastChild.textContent = word;
    const color = kind === "token" ? hex(share) : "";
    element.dataset.color = color;
    element.style.setProperty("--c", color);
  }

  #element(cell) {
    let element = this.#elements.get(cell);
    if (!element) {
      element = document.createElement("span");
      element.append("", document.createElement("b"));
      this.#elements.set(cell, element);
    }
    return element;
  }

  #index(target) {
    const index = [...this.root.children].indexOf(target.closest(".cell"));
    return index < 0 ? null : index;
  }

  #walk(event) {
    const at = this.#chosen ?? -1;
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: this.#views.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.#choose(Math.min(Math.max(to, 0), this.#views.length - 1));
  }

  #choose(index) {
    this.root.querySelector(".chosen")?.classList.remove("chosen");
    this.#chosen = index;
    if (index === null || index < 0) return;
    this.root.children[index].classList.add("chosen");
    this.#tell(index);
  }

  #tell(index) {
    const view = this.#views[index];
    if (view) this.detail.textContent = this.#about(view);
  }

  #about({ kind, span, text, isAgain, isNew }) {
    if (kind === "given") return `${quoted(text)} · given`;
    if (kind === "mask") {
      return "masked" + (isAgain ? ", again since this step" : "") + (isNew ? ", put in at this step" : "");
    }
    const { from, confidence, position, token } = span;
    const name = text ? quoted(text) : "part of the character before";
    return `${name} · step ${from} · confidence ${decimal(confidence, 3)} · position ${position} · token ${token}`;
  }
}

function classes({ kind, isFresh, isAgain, isNew }, text) {
  const marks = {
    fresh: isFresh,
    again: isAgain,
    new: isNew,
    special: kind !== "given" && isSpecial(text),
    open: kind === "mask" && !text,
    joint: kind === "token" && !text,
  };
  return ["cell", kind, ...Object.keys(marks).filter((mark) => marks[mark])].join(" ");
}

/** The spaces before a word, which its cell leaves open so that words stay apart, and the word. */
const split = (text) => (text.trim() ? /^( *)(.*)$/s.exec(text).slice(1) : ["", text]);

const quoted = (text) => `“${text.replace(/\n/g, "↵")}”`;

/** A text as its cell has it: ends of lines are seen, special tokens are short. */
function pictured(text, kind) {
  if (kind !== "given" && isSpecial(text)) return SPECIAL;
  return text.replace(/\n/g, "↵\n");
}
