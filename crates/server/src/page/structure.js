// The form that an answer must have: any, JSON, a schema's, a regular expression's, one of a list.

import { load, save } from "./drafts.js";

/** For each form: what is typed, an example of it, and the part of a request that it makes. */
const FORMS = {
  text: { body: () => ({}) },
  json: { body: () => ({ response_format: { type: "json_object" } }) },
  schema: {
    label: "JSON schema",
    example:
      '{"type": "object", "properties": {"animal": {"enum": ["wolf", "fox"]}}, "required": ["animal"]}',
    body: (text) => ({
      response_format: {
        type: "json_schema",
        json_schema: { name: "answer", strict: true, schema: JSON.parse(text) },
      },
    }),
  },
  regex: {
    label: "Regular expression",
    example: "(yes|no), because [a-z ]+\\.",
    body: (regex) => ({ regex }),
  },
  choices: {
    label: "Choices, one a line",
    example: "yes\nno\nI do not know",
    body: (text) => ({ choices: text.split("\n").filter((line) => line.trim()) }),
  },
};

/** The parameters by which a server blames it. */
const PARAMS = /^(response_format|regex|choices|json_schema)/;

export class Structure {
  /** Works on the fields of `root`. */
  constructor(root) {
    const find = (selector) => root.querySelector(selector);
    [this.kind, this.typed, this.label, this.text, this.problem] = [
      "select",
      ".typed",
      ".typed label",
      "textarea",
      ".problem",
    ].map(find);
    this.texts = load("structure", {});
    this.kind.addEventListener("change", () => this.#open());
    this.text.addEventListener("input", () => {
      this.texts[this.kind.value] = this.text.value;
      save("structure", this.texts);
      this.#tell("");
    });
  }

  /** What it adds to a request; `null` where what was typed is none, which is told. */
  body() {
    this.#tell("");
    try {
      return FORMS[this.kind.value].body(this.text.value);
    } catch (error) {
      this.#tell(`This is no JSON: ${error.message}`);
      this.text.focus();
      return null;
    }
  }

  /** Tells what the server has against it; the field, if it was meant. */
  blame(param, message) {
    if (!PARAMS.test(param ?? "")) return null;
    this.#tell(message);
    return this.typed.hidden ? this.kind : this.text;
  }

  #open() {
    const { label, example } = FORMS[this.kind.value];
    this.typed.hidden = !label;
    this.label.textContent = label ?? "";
    this.text.placeholder = example ?? "";
    this.text.value = this.texts[this.kind.value] ?? "";
    this.#tell("");
  }

  #tell(message) {
    this.problem.textContent = message;
    this.problem.hidden = !message;
    this.text.toggleAttribute("aria-invalid", Boolean(message));
  }
}
