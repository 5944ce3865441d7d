// An answer as a file: its trace, a page that plays it, a picture that moves.

import { hex, stops } from "./palette.js";
import { svg } from "./svg.js";
import { escape, isSpecial } from "./text.js";

const DELAY_MS = 120;

/** The formats by name; each saves a film under a name made of its question. */
export const files = {
  jsonl: (film) => save(film.trace(), name(film, "jsonl"), "application/jsonl"),
  svg: (film, question) => save(svg(record(film, question), DELAY_MS), name(film, "svg"), "image/svg+xml"),
  html: async (film, question) =>
    save(html(record(film, question), await page()), name(film, "html"), "text/html"),
};

const name = (film, ending) => `${film.header.model}-${film.seed}.${ending}`.replace(/[^\w.-]+/g, "-");

const page = async () => (await fetch(new URL("film.html", import.meta.url))).text();

function save(text, name, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  Object.assign(document.createElement("a"), { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** The film for viewers: for each cell the spans of what it shows, `{ from, until, text, color, … }`. */
function record(film, question) {
  const finalTexts = film.finalTexts();
  const cells = film.cells.map((cell) => {
    if (cell.given !== null)
      return [{ from: 0, until: null, text: shown(finalTexts.get(cell)), confidence: null }];
    return cell.spans.map(({ from, until, text, confidence }) => {
      const isLast = until === Infinity;
      const own = typeof text === "string" ? text : "\ufffd";
      const final = isLast ? finalTexts.get(cell) : own;
      return {
        from,
        until: isLast ? null : until,
        text: shown(isSpecial(final) ? "∎" : final),
        confidence,
        color: hex(confidence),
      };
    });
  });
  const title = `${film.header.model}: ${question.replace(/\s+/g, " ").trim().slice(0, 80)}`;
  return { title, steps: film.last, cells };
}

/** The sign for a control character: a file keeps none but the ends of lines. */
const shown = (text) =>
  text.replace(/[\0-\x09\x0b-\x1f\x7f]/g, (c) =>
    c === "\x7f" ? "␡" : String.fromCodePoint(0x2400 + c.codePointAt(0)),
  );

/** The template of the page with what its marks stand for, in one pass. */
function html(film, template) {
  const cells = film.cells.map((spans) =>
    spans.map(({ from, until, text, confidence, color = null }) => [from, until, text, confidence, color]),
  );
  const data = JSON.stringify({ steps: film.steps, delay: DELAY_MS, cells });
  const marks = {
    TITLE: escape(film.title),
    TEXT: escape(film.cells.map((spans) => spans.at(-1)?.text ?? "░").join("")),
    RAMP: stops().join(","),
    DATA: data.replace(/[<>&]/g, (c) => `\\u00${c.charCodeAt(0).toString(16)}`),
  };
  return template
    .split("@@")
    .map((part) => marks[part] ?? part)
    .join("");
}
