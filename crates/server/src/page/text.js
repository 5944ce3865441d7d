// Texts of tokens. A token may hold a part of a character; its text is then a list of bytes.

/** One character has at most four bytes, but a token may end one and begin the next. */
const LONGEST_GROUP = 16;

const utf8 = {
  encoder: new TextEncoder(),
  decoder: new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }),
};

const bytes = (part) => (typeof part === "string" ? utf8.encoder.encode(part) : part);

/** The text of bytes, or `null` where they are no whole characters. */
function decode(list) {
  try {
    return utf8.decoder.decode(Uint8Array.from(list));
  } catch {
    return null;
  }
}

/** Bytes that are no whole character: those of ASCII as they are, others as numbers. */
const shown = (list) =>
  list
    .map((byte) => (byte < 0x80 ? String.fromCharCode(byte) : `⟨${byte.toString(16)}⟩`))
    .join("")
    .replaceAll("⟩⟨", " ");

/**
 * The text of each part, where `null` is a mask. Neighbours that share a character are read together:
 * the first of them has the text of all, the others have none. Bytes that wait for others are shown
 * as numbers.
 */
export function read(parts) {
  const texts = [];
  while (texts.length < parts.length) {
    const at = texts.length;
    const part = parts[at];
    if (part === null || typeof part === "string") {
      texts.push(part);
      continue;
    }
    const [text, taken] = joined(parts, at) ?? [shown(part), 1];
    texts.push(text, ...Array(taken - 1).fill(""));
  }
  return texts;
}

function joined(parts, at) {
  const group = [];
  for (let end = at; end < Math.min(parts.length, at + LONGEST_GROUP) && parts[end] !== null; end++) {
    group.push(...bytes(parts[end]));
    const text = decode(group);
    if (text !== null) return [text, end + 1 - at];
  }
  return null;
}

/** Whether a token's text is a name in the form that these models give to special tokens. */
export const isSpecial = (text) => /^<\|.+\|>$/s.test(text);

/** Text for the inside of an element or a quoted attribute. */
export function escape(text) {
  const entities = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
  return text.replace(/[&<>"']/g, (c) => entities[c]).replace(/[\ufffe\uffff]/g, "\ufffd");
}

/** A number of things, in words. */
export const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;
/** A time in the unit that suits it. */
export const seconds = (ms) =>
  ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;

/** A number with so many digits after its point. */
export const decimal = (number, digits = 1) => Number(number).toFixed(digits);
