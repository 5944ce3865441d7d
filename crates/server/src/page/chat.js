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

  /** `ask` sends a request and feeds its answer, `stop` ends it; `system` gives the system message. */
  constructor(root, { ask, stop, onSeed, system }) {
    Object.assign(this, { ask, stop, onSeed, system, isChat: true });
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
    const [question, messages] = [said(text), this.#messages];
    const answer = new Answer(text, {
      onSeed: this.onSeed,
      onRetry: () => {
        question.remove();
        answer.element.remove();
        if (this.input.value === text) this.#type("");
        this.#send(text);
      },
      remedy: (error) => this.#remedy(error, text),
    });
    const turn = { role: "user", content: text };
    const asked = this.ask(...this.#request(turn), answer);
    if (!asked) return;
    if (this.input.value === text) this.#type("");
    this.intro.remove();
    this.log.append(question, answer.element);
    const isKept = (await asked) !== "failed" && answer.text;
    // A conversation that was left meanwhile is over.
    if (isKept) messages.push(turn, { role: "assistant", content: answer.text });
    else if (!this.input.value && messages === this.#messages) this.#type(text);
  }

  #request(turn) {
    if (!this.isChat) return ["/v1/completions", { prompt: turn.content }];
    const system = this.system().trim();
    const opening = system ? [{ role: "system", content: system }] : [];
    return ["/v1/chat/completions", { messages: [...opening, ...this.#messages, turn] }];
  }

  /** What is to be done where there is no room: the server speaks of prompts, which nobody sees here. */
  #remedy({ code, param }, text) {
    const ofForm = param === "max_tokens";
    if (code !== "context_length_exceeded" && !ofForm) return null;
    const isLong = this.#messages.length > 0;
    const what = isLong ? "This conversation" : this.isChat ? "This message" : "This text";
    const kind = ofForm ? " of this form" : param === "gen_length" ? " of the length that is set" : "";
    const way = isLong ? "begin a new chat" : "shorten it";
    const ways = param === "gen_length" ? `Lower “gen length”, or ${way}` : way;
    return {
      message: `${what} leaves the model no room for an answer${kind}. ${ways[0].toUpperCase()}${ways.slice(1)}.`,
      label: "Ask in a new chat",
      act: isLong && (() => this.#anew(text)),
    };
  }

  /** Asks in a conversation of its own. */
  #anew(text) {
    this.#clear();
    this.#type(text);
    this.form.requestSubmit();
  }

  #type(text) {
    this.input.value = text;
    save("message", text);
  }

  #clear() {
    this.stop();
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
