// A conversation; or, of a model that knows none, texts that are continued.

import { Answer } from "./answer.js";
import { load, save } from "./drafts.js";
import { follow } from "./log.js";

const EXAMPLES = {
  chat: ["What is the wolf?", "Who are you?", "Tell me about a king."],
  text: ["Once upon a time", "The king said", "There was once a"],
};

export class Chat {
  /** The turns so far, as a request has them. */
  #messages = [];

  /** `ask` sends a request and feeds its answer; `system` gives the system message. */
  constructor(root, { ask, onSeed, system }) {
    Object.assign(this, { ask, onSeed, system, isChat: true });
    const find = (selector) => root.querySelector(selector);
    [this.log, this.intro, this.form, this.input] = [".log", ".intro", "form", "textarea"].map(find);
    follow(this.log);
    this.input.value = load("message", "");
    this.input.addEventListener("input", () => save("message", this.input.value));
    this.input.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.form.requestSubmit();
    });
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.input.value.trim()) this.#send(this.input.value);
    });
    find(".new").addEventListener("click", () => this.#clear());
  }

  /** Fits the page to the model. */
  build({ chat }) {
    this.isChat = chat;
    this.input.placeholder = chat ? "Write a message" : "Begin a text, and it goes on";
    const examples = EXAMPLES[chat ? "chat" : "text"].map((text) => {
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: text });
      button.addEventListener("click", () => this.#send(text));
      return button;
    });
    this.intro.querySelector(".examples").replaceChildren(...examples);
  }

  async #send(text) {
    const question = said(text);
    const answer = new Answer(text, {
      onSeed: this.onSeed,
      onRetry: () => {
        question.remove();
        answer.element.remove();
        if (this.input.value === text) this.#type("");
        this.#send(text);
      },
    });
    const turn = { role: "user", content: text };
    const asked = this.ask(...this.#request(turn), answer);
    if (!asked) return;
    if (this.input.value === text) this.#type("");
    this.intro.remove();
    this.log.append(question, answer.element);
    const isKept = (await asked) !== "failed" && answer.text;
    if (isKept) this.#messages.push(turn, { role: "assistant", content: answer.text });
    else if (!this.input.value) this.#type(text);
  }

  #request(turn) {
    if (!this.isChat) return ["/v1/completions", { prompt: turn.content }];
    const system = this.system().trim();
    const opening = system ? [{ role: "system", content: system }] : [];
    return ["/v1/chat/completions", { messages: [...opening, ...this.#messages, turn] }];
  }

  #type(text) {
    this.input.value = text;
    save("message", text);
  }

  #clear() {
    this.#messages = [];
    this.log.replaceChildren(this.intro);
    this.input.focus();
  }
}

function said(text) {
  const question = Object.assign(document.createElement("p"), { className: "question", textContent: text });
  question.setAttribute("aria-label", `You: ${text}`);
  return question;
}
