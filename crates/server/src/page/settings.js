// The settings of the sampler: a form made of what the server says that it knows.

import { load, save } from "./drafts.js";

const template = document.getElementById("setting");

/** What holes have no use for: their lengths and the ends of their texts are given, and no preset is for them. */
const OF_ANSWERS = [
  "preset",
  "reference",
  "gen_length",
  "blocks",
  "sub_block_length",
  "adaptive_blocks",
  "variable_length",
  "logits_eos_inf",
  "confidence_eos_eot_inf",
];

export class Settings {
  #fields = new Map();
  #mode = "chat";

  /** Fills `root`, whose rarely used groups are folded. */
  constructor(root) {
    this.root = root;
    root.addEventListener("input", () => this.#changed());
    root.querySelector(".reset").addEventListener("click", () => this.#reset());
  }

  /** Makes the fields of settings, and gives them the values that they had. */
  build(settings) {
    const values = this.#fields.size ? this.#texts() : load("settings", {});
    this.#fields.clear();
    this.root
      .querySelector(".frequent")
      .replaceChildren(...settings.filter(({ frequent }) => frequent).map((s) => this.#field(s)));
    const groups = Map.groupBy(
      settings.filter(({ frequent }) => !frequent),
      ({ group }) => group,
    );
    this.root
      .querySelector(".rest")
      .replaceChildren(...[...groups].map(([group, rows]) => this.#fold(group, rows)));
    this.set(values);
  }

  /** Has the settings that a mode has a use for. */
  open(mode) {
    this.#mode = mode;
    this.#show();
  }

  /** The settings that are made, as a request has them. */
  values() {
    this.root.querySelectorAll(".problem").forEach((problem) => this.#clear(problem));
    const made = this.#made();
    return Object.fromEntries(made.map(([name, { input, kind }]) => [name, value(text(input), kind)]));
  }

  /** Makes some settings, and leaves the others open. */
  set(texts) {
    for (const [name, { input }] of this.#fields) input.value = texts[name] ?? "";
    this.#changed();
  }

  /** Makes one setting more. */
  make(name, value) {
    this.set({ ...this.#texts(), [name]: value });
  }

  /** Tells beside a field what the server has against it; the field, if there is such a one. */
  blame(name, message) {
    const field = this.#fields.get(name);
    if (!field) return null;
    for (let fold = field.row.closest("details"); fold; fold = fold.parentElement.closest("details"))
      fold.open = true;
    field.problem.textContent = message;
    field.problem.hidden = false;
    field.input.setAttribute("aria-invalid", "true");
    return field.input;
  }

  #texts() {
    return Object.fromEntries([...this.#fields].map(([name, { input }]) => [name, text(input)]));
  }

  /** The fields with something in them, of those that are there. */
  #made() {
    return [...this.#fields].filter(([, { row, input }]) => !row.hidden && text(input) !== "");
  }

  /** Leaves open what is there; what the mode does not show stays. */
  #reset() {
    for (const [, { input }] of this.#made()) input.value = "";
    this.#changed();
  }

  #changed() {
    save("settings", this.#texts());
    this.#show();
  }

  #show() {
    for (const [name, { row }] of this.#fields)
      row.hidden = this.#mode === "infill" && OF_ANSWERS.includes(name);
    const made = this.#made().length;
    this.root.querySelector(".made").textContent = made ? `${made} made` : "all by default";
    this.root.querySelector(".reset").disabled = made === 0;
  }

  #clear(problem) {
    problem.hidden = true;
    problem.closest(".setting").querySelector("[aria-invalid]")?.removeAttribute("aria-invalid");
  }

  #fold(group, rows) {
    const fold = document.createElement("details");
    fold.append(document.createElement("summary"), ...rows.map((row) => this.#field(row)));
    fold.firstChild.textContent = group;
    return fold;
  }

  #field(setting) {
    const row = template.content.firstElementChild.cloneNode(true);
    const [label, place, about, problem] = ["label", ".input", ".about", ".problem"].map((s) =>
      row.querySelector(s),
    );
    const input = control(setting);
    const id = `setting-${setting.name}`;
    Object.assign(input, { id, name: setting.name });
    Object.assign(about, { id: `${id}-about`, textContent: sentence(setting) });
    problem.id = `${id}-problem`;
    input.setAttribute("aria-describedby", `${about.id} ${problem.id}`);
    label.htmlFor = id;
    label.textContent = words(setting.name);
    place.append(input, ...suggestions(setting, input));
    input.addEventListener("input", () => this.#clear(problem));
    this.#fields.set(setting.name, { row, input, problem, kind: setting.kind });
    return row;
  }
}

const words = (name) => name.replaceAll("_", " ");

/** What a setting is and may be. Its text names others as flags, the page as labels. */
function sentence({ about, kind, from, to, above, whole }) {
  const text = about.replace(/`?--([a-z-]+)`?/g, (_, flag) => `“${flag.replaceAll("-", " ")}”`);
  const number = whole ? "whole number" : "number";
  const most = to?.toLocaleString("en");
  if (kind === "number")
    return `${text}. A ${number} ${above ? "above" : "from"} ${from} ${above ? "up " : ""}to ${most}.`;
  return kind === "seed" ? `${text}. A whole number of 64 bits.` : `${text}.`;
}

/** The value of an open setting: what the server was started with, or its default in words. */
const open = ({ value, default: words }) => String(value ?? words ?? "by default");

/** The field of a setting. Names that numbers may follow are typed, others chosen. */
function control(setting) {
  const { kind, values = [], from, to, above, whole } = setting;
  if (kind === "switch")
    return choice(setting, [
      ["true", "on"],
      ["false", "off"],
    ]);
  if (kind === "name" && !isTyped(setting))
    return choice(
      setting,
      values.map((name) => [name, name]),
    );
  const input = document.createElement("input");
  Object.assign(input, { autocomplete: "off", spellcheck: false, placeholder: open(setting) });
  if (kind === "number") {
    const step = whole ? 1 : "any";
    Object.assign(input, { type: "number", step, min: above && whole ? from + 1 : from, max: to });
  }
  if (kind === "seed") Object.assign(input, { inputMode: "numeric" });
  return input;
}

const isTyped = ({ name, values = [] }) => name === "cache" || values.some((value) => value.includes("="));

function choice(setting, options) {
  const select = document.createElement("select");
  for (const [value, label] of [["", `default (${open(setting)})`.replace("(by default)", "")], ...options]) {
    select.append(new Option(label, value));
  }
  return select;
}

function suggestions({ kind, name, values = [] }, input) {
  if (kind !== "name" || !isTyped({ name, values })) return [];
  const list = document.createElement("datalist");
  list.id = `values-${name}`;
  list.append(...values.map((value) => new Option(value, value)));
  input.setAttribute("list", list.id);
  return [list];
}

/** What is in a field; a number that cannot be read is told to the server as it is. */
const text = (input) => (input.validity?.badInput ? "not a number" : input.value.trim());

/** A value as JSON. A seed that is no exact number of this language stays text. */
function value(text, kind) {
  const isNumber = kind === "number" || kind === "seed";
  const number = Number(text);
  if (kind === "switch") return text === "true";
  return isNumber && Number.isFinite(number) && Math.abs(number) <= Number.MAX_SAFE_INTEGER ? number : text;
}
