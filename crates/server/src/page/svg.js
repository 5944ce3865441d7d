// A film as an SVG that its own style sheet animates: sharp at any size, no script, loops.
//
// Every cell keeps the place of its last text, so nothing moves while masks turn into tokens. What
// comes and goes together shares one group and one `@keyframes` rule.

import { stops } from "./palette.js";
import { escape } from "./text.js";

const FONT = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace";
const COLUMN = 8.4;
const COLUMNS = 76;
const ROW = 22;
const MARGIN = 20;
const FOOTER = 34;
const REST_MS = 3000;
const COLORS = { card: "#12151c", edge: "#30363d", mask: "#3a4152", given: "#9aa4b2" };

/** The SVG of a film with `delay` milliseconds between two steps. */
export function svg(film, delay) {
  const lines = layout(film.cells.map((spans) => spans.at(-1)?.text ?? "░"));
  const groups = group(film, lines);
  const clock = { total: (film.steps + 1) * delay + REST_MS, delay };
  const widest = Math.max(40, ...lines.flat().map(({ column, width }) => column + width));
  const width = Math.round(2 * MARGIN + widest * COLUMN);
  const height = Math.round(2 * MARGIN + lines.length * ROW + FOOTER);
  const lives = [...groups.values()];
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img">`,
    `<title>${escape(film.title)}</title>`,
    `<style>${style(clock, film.steps)}${lives.map(({ life }) => rule(life, clock)).join("")}</style>`,
    `<rect x=".5" y=".5" width="${width - 1}" height="${height - 1}" rx="10" fill="${COLORS.card}" stroke="${COLORS.edge}"/>`,
    ...lives.map(
      ({ life, body }) => `<g class="${life.until === null ? "" : "past "}${life.name}">${body}</g>`,
    ),
    footer(width, height),
    "</svg>\n",
  ].join("\n");
}

/** Columns of a character: 2 for those of East Asia and emoji, 0 for those that combine. */
function columns(char) {
  if (/\p{Mn}|\p{Me}|\u200d|\ufe0f/u.test(char)) return 0;
  const isWide =
    /[\p{scx=Han}\p{scx=Hira}\p{scx=Kana}\p{scx=Hang}\u3000-\u303f\uff01-\uff60]|\p{Emoji_Presentation}/u;
  return isWide.test(char) ? 2 : 1;
}

/** Lines of runs `{ cell, column, width, text }`, broken after a space where there is one. */
function layout(texts) {
  const glyphs = texts.flatMap((text, cell) =>
    [...text].map((char) => ({ cell, char, width: columns(char) })),
  );
  const lines = [];
  for (let start = 0; start < glyphs.length;) {
    const end = lineEnd(glyphs, start);
    lines.push(runs(glyphs.slice(start, end)));
    start = end;
  }
  return lines;
}

function lineEnd(glyphs, start) {
  let used = 0;
  let afterSpace = null;
  for (let i = start; i < glyphs.length; i++) {
    const { char, width } = glyphs[i];
    used += width;
    if (char === "\n") return i + 1;
    if (used > COLUMNS && i > start) return afterSpace ?? i;
    if (char === " ") afterSpace = i + 1;
  }
  return glyphs.length;
}

function runs(glyphs) {
  const line = [];
  let column = 0;
  for (const { cell, char, width } of glyphs) {
    if (line.at(-1)?.cell !== cell) line.push({ cell, column, width: 0, text: "" });
    line.at(-1).text += char === "\n" ? "↵" : char;
    line.at(-1).width += width;
    column += width;
  }
  return line;
}

/** The drawing of every life, all cells of that life together. */
function group(film, lines) {
  const groups = new Map();
  const add = (kind, from, until, body) => {
    const life = { kind, from, until, name: `${kind}${from}${until === null ? "" : `-${until}`}` };
    if (!groups.has(life.name)) groups.set(life.name, { life, body: "" });
    groups.get(life.name).body += body;
  };
  let before = null;
  lines.forEach((line, row) => {
    const y = MARGIN + (row + 0.75) * ROW;
    for (const run of line) {
      // What stood in a cell before is squeezed into the place where its last text begins.
      const spans = run.cell === before ? film.cells[run.cell].slice(-1) : film.cells[run.cell];
      before = run.cell;
      for (const [from, until] of masks(spans)) add("m", from, until, mask(run, y));
      spans.forEach(({ from, until, text, color }, i) => {
        const own = i === spans.length - 1 ? run.text : text;
        add("t", from, until, token(run, own, y, color ?? COLORS.given));
      });
    }
  });
  return groups;
}

/** The frames between the spans of a cell, in which it is a mask. */
function masks(spans) {
  const found = [];
  let from = 0;
  for (const span of spans) {
    if (from < span.from) found.push([from, span.from]);
    from = span.until;
    if (from === null) return found;
  }
  return [...found, [from, null]];
}

/** The text of a run. Spaces at its ends are left out, because renderers drop them anyway. */
function token(run, text, y, fill) {
  const word = text.trim();
  if (!word) return "";
  const lead = text.length - text.trimStart().length;
  const own = [...word].reduce((sum, char) => sum + columns(char), 0);
  const width = Math.max(1, Math.min(own, run.width - lead)) * COLUMN;
  const x = MARGIN + (run.column + lead) * COLUMN;
  return `<text x="${tenth(x)}" y="${tenth(y)}" textLength="${tenth(width)}" lengthAdjust="spacingAndGlyphs" fill="${fill}">${escape(word)}</text>`;
}

/** A mask as wide as what it hides, its leading space left open so that words stay apart. */
function mask(run, y) {
  const spaces = run.text.length - run.text.trimStart().length;
  const lead = spaces < run.width ? spaces : 0;
  const x = MARGIN + (run.column + lead) * COLUMN + 0.6;
  return `<rect x="${tenth(x)}" y="${tenth(y - 0.62 * ROW)}" width="${tenth((run.width - lead) * COLUMN - 1.2)}" height="${tenth(0.72 * ROW)}" rx="2" fill="${COLORS.mask}"/>`;
}

const tenth = (number) => number.toFixed(1);

const percent = (frame, { total, delay }) => `${((100 * frame * delay) / total).toFixed(3)}%`;

function style(clock, steps) {
  return `text{font-family:${FONT};font-size:14px;white-space:pre}.past{visibility:hidden}.legend text{font-size:11px}
g{animation:${clock.total}ms step-end infinite}
.bar{transform-origin:${MARGIN}px 0;animation:bar ${clock.total}ms linear infinite}
@keyframes bar{0%{transform:scaleX(0)}${percent(steps, clock)},100%{transform:scaleX(1)}}
@media (prefers-reduced-motion:reduce){g,.bar{animation:none!important}}
`;
}

/** The rule of a life: when it is seen, and that new tokens are bold for a frame. */
function rule({ kind, name, from, until }, clock) {
  if (from === 0 && until === null) return "";
  const hidden = from > 0 ? "0%{visibility:hidden}" : "";
  const weight = kind === "t" ? ";font-weight:700" : "";
  const settled = kind === "t" ? `${percent(from + 1, clock)}{font-weight:400}` : "";
  const end =
    until === null ? "100%{visibility:visible}" : `${percent(until, clock)},100%{visibility:hidden}`;
  return `.${name}{animation-name:${name}}@keyframes ${name}{${hidden}${percent(from, clock)}{visibility:visible${weight}}${settled}${end}}\n`;
}

/** The progress bar above the legend: given text, mask, and the colours of confidence from 0 to 1. */
function footer(width, height) {
  const { edge, given, mask } = COLORS;
  const [y, right] = [height - MARGIN, width - MARGIN];
  const colors = stops();
  const gradient = colors.map(
    (color, i) => `<stop offset="${i / (colors.length - 1)}" stop-color="${color}"/>`,
  );
  const bar = `x="${MARGIN}" y="${y - 22}" width="${width - 2 * MARGIN}" height="2" rx="1"`;
  return `<defs><linearGradient id="ramp">${gradient.join("")}</linearGradient></defs>
<rect ${bar} fill="${edge}"/><rect class="bar" ${bar} fill="${given}"/>
<g class="legend" fill="${given}"><rect x="${MARGIN}" y="${y - 9}" width="14" height="10" rx="2" fill="${mask}"/><text x="${MARGIN + 20}" y="${y}">masked</text>
<text x="${right - 97}" y="${y}" text-anchor="end">confidence 0</text><rect x="${right - 91}" y="${y - 7}" width="80" height="6" rx="3" fill="url(#ramp)"/><text x="${right}" y="${y}" text-anchor="end">1</text></g>`;
}
