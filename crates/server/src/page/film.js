// One answer as it comes to be: what every cell of the canvas shows after every step.
//
// Events name positions of the whole sequence. The cells are those of the response or, of a text with
// holes, all. Frame 0 is the canvas before the first step, frame n the canvas after n steps.

import { read } from "./text.js";

/** The fields of a step in a trace. */
const STEP = ["nfe", "step", "block", "committed", "remasked", "inserted", "stable"];

export class Film {
  /** The canvas that a `llada.canvas` event describes. */
  constructor({ header, prompt_length: first = 0, tokens, fixed = null }) {
    this.header = header;
    this.seed = header.sampler.seed;
    this.first = first;
    this.steps = [];
    this.cells = fixed ? fixed.map((given) => cell(0, given)) : [];
    while (this.cells.length < tokens - first) this.cells.push(cell(0));
  }

  /** The number of the last frame. */
  get last() {
    return this.steps.length;
  }

  /** Goes one step on. */
  apply(event) {
    const step = Object.fromEntries(STEP.filter((key) => key in event).map((key) => [key, event[key]]));
    this.steps.push(step);
    const frame = this.last;
    for (const position of step.remasked ?? []) end(this.#at(position), frame);
    for (const { position, token, confidence, text } of step.committed) {
      const cell = this.#at(position);
      end(cell, frame);
      cell?.spans.push({
        from: frame,
        until: Infinity,
        position,
        token,
        confidence,
        text: text ?? `#${token}`,
      });
    }
    // They ascend, and each is a position of the sequence that those before it have made.
    for (const position of step.inserted ?? []) this.cells.splice(position - this.first, 0, cell(frame));
  }

  /** How many tokens there are to find, and how many are known. */
  progress() {
    const asked = this.cells.filter(({ given }) => given === null);
    return {
      known: asked.filter(({ spans }) => spans.at(-1)?.until === Infinity).length,
      cells: asked.length,
    };
  }

  /** Takes the cells away that a layout which stopped early never opened. */
  close() {
    const isOpened = ({ given, spans }) => given !== null || spans.length > 0;
    this.cells.length = this.cells.findLastIndex(isOpened) + 1;
  }

  /** What there is to see in a frame, one entry for each cell that is there by then. */
  frame(frame) {
    const cells = this.cells.filter(({ born }) => born <= frame);
    const views = cells.map((cell) => look(cell, frame));
    const texts = read(views.map(({ span, given }) => span?.text ?? given));
    return views.map((view, i) => ({ ...view, text: texts[i] }));
  }

  /** The texts that the masks of a frame become in the end, in the order of its cells. */
  finalTexts() {
    const texts = read(this.cells.map(({ given, spans }) => given ?? spans.at(-1)?.text ?? null));
    return new Map(this.cells.map((cell, i) => [cell, texts[i]]));
  }

  /** How many tokens each frame added, how sure the model was of them, and how many became masks. */
  summary(frame) {
    const { committed, remasked = [] } = this.steps[frame - 1];
    const sum = committed.reduce((total, { confidence }) => total + confidence, 0);
    return { count: committed.length, confidence: sum / (committed.length || 1), remasked: remasked.length };
  }

  /** The trace as `llada replay` reads it. */
  trace() {
    const lines = [this.header, ...this.steps].map((line) => JSON.stringify(line) + "\n");
    // A seed has 64 bits, more than a number of this language, and is kept as text.
    lines[0] = lines[0].replace(/"seed":"(\d+)"/, '"seed":$1');
    return lines.join("");
  }

  /** The cell of a position. Layouts that grow open positions beyond the first canvas. */
  #at(position) {
    const index = position - this.first;
    if (index < 0 || index >= 1 << 20) return undefined;
    while (this.cells.length <= index) this.cells.push(cell(0));
    return this.cells[index];
  }
}

const cell = (born, given = null) => ({ born, given, spans: [] });

/** Ends what a cell shows; what ended as soon as it began was never seen. */
function end(cell, frame) {
  const span = cell?.spans.at(-1);
  if (span?.until !== Infinity) return;
  if (span.from === frame) cell.spans.pop();
  else span.until = frame;
}

function look(cell, frame) {
  const { born, given, spans } = cell;
  const span = spans.findLast(({ from }) => from <= frame);
  if (given !== null && !span) return { cell, kind: "given", given };
  if (span && frame < span.until)
    return { cell, kind: "token", span, isFresh: span.from === frame && frame > 0 };
  const isAgain = span?.until === frame;
  return { cell, kind: "mask", given: null, isAgain, isNew: born === frame && frame > 0 };
}
