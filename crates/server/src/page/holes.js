// An editor of text with holes in it. A hole is a button between the letters: the arrow keys up and
// down change its length, figures set it, Delete takes it away.

const HOLE = /(?<!\\)\{\{hole(?::(\d+))?\}\}/;
/** What an editing browser may leave where there is nothing. */
const FILLER = "\u200b";

export class Holes {
  #digits = "";
  #range = null;

  /** Edits in `root`; `bar` has the buttons that put a hole in, change its length, take it away. */
  constructor(root, bar, onChange) {
    this.root = root;
    this.length = bar.querySelector(".length");
    this.onChange = onChange;
    bar.querySelector(".add").addEventListener("click", () => this.add());
    this.length.addEventListener("input", () => this.chosen && this.#resize(this.chosen, this.length.value));
    root.addEventListener("input", () => this.#typed());
    root.addEventListener("keydown", (event) => this.#key(event));
    root.addEventListener("focusin", ({ target }) => this.#choose(target.closest(".hole")));
    root.addEventListener("click", ({ target }) => target.closest(".hole")?.focus());
    document.addEventListener("selectionchange", () => this.#remember());
  }

  /** The hole that the field of the length belongs to. */
  get chosen() {
    return this.root.querySelector(".hole.chosen");
  }

  get count() {
    return this.root.querySelectorAll(".hole").length;
  }

  /** The text in the notation of templates. */
  get template() {
    return notation(this.root);
  }

  set template(source) {
    this.root.replaceChildren(...parts(source));
    this.onChange();
  }

  /** Puts a hole in the place of what is selected. */
  add() {
    // The event of the last change may be still to come.
    this.#remember();
    const range = this.#range ?? this.#end();
    range.deleteContents();
    const added = hole(this.chosen ? "" : this.length.value);
    range.insertNode(added);
    added.focus();
    this.onChange();
  }

  /** The holes that someone typed, or pasted, become holes. */
  #typed() {
    const walker = document.createTreeWalker(this.root, NodeFilter.SHOW_TEXT, (node) =>
      node.parentElement.closest(".hole") ? NodeFilter.FILTER_REJECT : NodeFilter.FILTER_ACCEPT,
    );
    const found = [];
    while (walker.nextNode()) if (HOLE.test(walker.currentNode.data)) found.push(walker.currentNode);
    const { focusNode, focusOffset } = getSelection();
    for (const node of found) {
      const rest = node === focusNode ? node.length - focusOffset : 0;
      const made = parts(node.data);
      node.replaceWith(...made);
      const last = made.at(-1);
      if (isHole(last)) this.#leave(last, "setStartAfter");
      else getSelection().collapse(last, Math.max(last.length - rest, 0));
    }
    this.onChange();
  }

  #key(event) {
    const target = event.target.closest?.(".hole");
    if (!target) {
      if (event.altKey && event.key.toLowerCase() === "h") this.#handle(event, () => this.add());
      return;
    }
    const length = Number(target.dataset.length) || 0;
    const actions = {
      ArrowUp: () => this.#resize(target, length + 1),
      ArrowDown: () => this.#resize(target, Math.max(length - 1, 0)),
      ArrowLeft: () => this.#leave(target, "setStartBefore"),
      ArrowRight: () => this.#leave(target, "setStartAfter"),
      Escape: () => this.#leave(target, "setStartAfter"),
      Delete: () => this.#remove(target),
      Backspace: () => this.#remove(target),
    };
    if (/^\d$/.test(event.key)) {
      this.#digits = (this.#digits + event.key).slice(-5);
      this.#handle(event, () => this.#resize(target, this.#digits));
    } else if (event.key in actions) this.#handle(event, actions[event.key]);
    else if (event.key.length === 1 && !event.ctrlKey && !event.metaKey) {
      // What is typed follows the hole.
      if (event.altKey) event.preventDefault();
      else this.#leave(target, "setStartAfter");
    }
  }

  #handle(event, action) {
    event.preventDefault();
    action();
  }

  #choose(target) {
    this.chosen?.classList.remove("chosen");
    this.#digits = "";
    target?.classList.add("chosen");
    this.length.value = target?.dataset.length ?? "";
  }

  #resize(target, length) {
    label(target, length);
    if (document.activeElement !== this.length) this.length.value = target.dataset.length;
    this.onChange();
  }

  #remove(target) {
    this.#leave(target, "setStartBefore");
    target.remove();
    this.root.normalize();
    this.onChange();
  }

  /** Sets the cursor beside a hole. */
  #leave(target, where) {
    const range = document.createRange();
    range[where](target);
    this.root.focus();
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    this.#choose(null);
  }

  /** Where the cursor was last: a press on a button takes it away. */
  #remember() {
    const selection = getSelection();
    if (!selection.rangeCount) return;
    const range = selection.getRangeAt(0);
    const isInside = this.root.contains(range.commonAncestorContainer);
    if (!isInside || range.startContainer.parentElement?.closest(".hole")) return;
    this.#range = range.cloneRange();
    if (document.activeElement === this.root && this.chosen) this.#choose(null);
  }

  #end() {
    const range = document.createRange();
    range.selectNodeContents(this.root);
    range.collapse(false);
    return range;
  }
}

const isHole = (node) => node.classList?.contains("hole");

function hole(length) {
  const button = document.createElement("button");
  Object.assign(button, { type: "button", className: "hole", contentEditable: "false" });
  label(button, length);
  return button;
}

function label(button, length) {
  const tokens = Math.min(Math.floor(Number(length)) || 0, 1 << 20);
  button.dataset.length = tokens || "";
  button.textContent = tokens || "auto";
  const name = tokens ? `Hole of ${tokens} tokens` : "Hole of as many tokens as fit best";
  button.setAttribute("aria-label", `${name}; up and down change the length`);
}

/** Texts and holes of a template's notation: of an even number of backslashes before two braces each
 * pair is one, an odd one makes the braces text. */
function parts(source) {
  const nodes = [document.createTextNode("")];
  const mark = /(\\+)\{\{|\{\{hole(?::(\d+))?\}\}/g;
  let end = 0;
  for (let found; (found = mark.exec(source)); end = mark.lastIndex) {
    const [all, slashes, length] = found;
    nodes.at(-1).data += source.slice(end, found.index);
    if (!slashes) nodes.push(hole(length), document.createTextNode(""));
    else if (slashes.length % 2) nodes.at(-1).data += all.slice((slashes.length + 1) / 2);
    else {
      nodes.at(-1).data += slashes.slice(slashes.length / 2);
      mark.lastIndex -= 2;
    }
  }
  nodes.at(-1).data += source.slice(end);
  return nodes.filter((node) => isHole(node) || node.data);
}

/** What is in an element, in the notation: two braces that are text are escaped. */
function notation(root) {
  const texts = [];
  for (const node of root.childNodes) {
    if (isHole(node)) texts.push(`{{hole${node.dataset.length && `:${node.dataset.length}`}}}`);
    else if (node.nodeName === "BR") texts.push(node === root.lastChild ? "" : "\n");
    else if (node.nodeType === Node.TEXT_NODE) texts.push(escaped(node, node.data.replaceAll(FILLER, "")));
    else texts.push(texts.length ? "\n" : "", notation(node));
  }
  return texts.join("");
}

/** Backslashes count before two braces only, those of a hole that follows among them. */
function escaped(node, text) {
  const literal = text.replace(/(\\*)\{\{/g, "$1$1\\{{");
  return isHole(node.nextSibling ?? {}) ? literal.replace(/\\+(?=\{?$)/, "$&$&") : literal;
}
