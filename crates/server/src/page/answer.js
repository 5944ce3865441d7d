// One answer on the page: its canvas, the way through its steps, its numbers, its files, its failure.

import { announce } from "./announce.js";
import { Canvas } from "./canvas.js";
import { files } from "./export.js";
import { Film } from "./film.js";
import { Player } from "./player.js";
import { decimal, plural, seconds } from "./text.js";

const template = document.getElementById("answer");
let count = 0;

export class Answer {
  #film = null;
  #isDrawn = true;
  #isHalfSaid = false;
  #began = performance.now();
  #find;

  /** `question` names its files; `onRetry` asks again; `remedy` says what else can be done about an error. */
  constructor(question, { onRetry, onSeed, remedy = () => null }) {
    Object.assign(this, { question, remedy });
    this.text = "";
    this.element = template.content.firstElementChild.cloneNode(true);
    this.#find = (selector) => this.element.querySelector(selector);
    this.element.setAttribute("aria-label", `Answer ${++count}`);
    this.canvas = new Canvas(this.#find(".canvas"), this.#find(".detail"));
    this.player = new Player(this.element, (frame) => this.#show(frame));
    this.#find(".retry").addEventListener("click", onRetry);
    this.#find(".reuse").addEventListener("click", () => onSeed(this.#film.seed));
    this.#find(".copy").addEventListener("click", () => this.#copy());
    for (const radio of this.element.querySelectorAll(".views input")) {
      radio.name = `view-${count}`;
      radio.addEventListener("change", () => this.#view(radio.value));
    }
    const menu = this.#find(".menu");
    menu.addEventListener("focusout", ({ relatedTarget }) => (menu.open &&= menu.contains(relatedTarget)));
    for (const button of this.element.querySelectorAll("[data-file]")) {
      button.addEventListener("click", () => files[button.dataset.file](this.#film, this.question));
    }
    this.#status("Waiting for the server…");
  }

  /** Takes up an event of the stream. */
  take(event, data) {
    const takers = { "llada.canvas": this.#open, "llada.step": this.#step, "llada.done": this.#done };
    const content = data.choices?.[0]?.delta?.content ?? data.choices?.[0]?.text;
    if (event in takers) takers[event].call(this, data);
    else if (content) this.#append(content);
  }

  /** The user stopped it. What it has stays. */
  stop() {
    this.#end("stopped");
    this.#status(`Stopped after ${plural(this.#film?.last ?? 0, "step")}.`);
  }

  /** It failed: says why, and when it may be asked for again. */
  fail(error) {
    this.#end("failed");
    const remedy = this.remedy(error);
    const message = remedy?.message ?? error.message;
    this.#find(".error").hidden = false;
    this.#find(".message").textContent = message;
    if (remedy?.act) this.#offer(remedy);
    if (error.retryAfter) this.#countDown(Math.ceil(error.retryAfter));
    this.#status("");
    announce(`Error: ${message}`);
  }

  #open(data) {
    this.#film = new Film(data);
    this.#find(".film").hidden = false;
    this.player.refresh();
    this.#status("Computing the first step…");
  }

  #step(data) {
    this.#film.apply(data);
    if (data.remasked?.length) this.#find(".of-again").hidden = false;
    if (data.inserted?.length) this.#find(".of-new").hidden = false;
    if (!this.#isDrawn) return;
    // Steps may be quicker than the screen, which then shows the latest.
    this.#isDrawn = false;
    requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    // The end of an answer does not wait for the screen.
    if (this.#isDrawn) return;
    this.#isDrawn = true;
    this.player.extend(this.#film);
    const { known, cells } = this.#film.progress();
    const { nfe } = this.#film.steps.at(-1);
    const time = seconds(performance.now() - this.#began);
    if (this.element.dataset.state === "running") {
      this.#status(`${known} of ${plural(cells, "token")} · ${nfe} NFE · ${time}`);
    }
    if (!this.#isHalfSaid && known * 2 >= cells) {
      this.#isHalfSaid = true;
      announce("Half of the tokens are known.");
    }
  }

  #append(content) {
    this.text += content;
    this.#find(".plain").textContent = this.text;
  }

  #done({ text, usage, timings, finish_reason: reason, fills }) {
    this.text = text;
    this.fills = fills;
    this.#find(".plain").textContent = text;
    this.#end("finished");
    this.#status("");
    this.#numbers(usage, timings, reason);
    this.#fills(fills ?? []);
    announce(`Answer: ${text}`);
  }

  #end(state) {
    this.element.dataset.state = state;
    if (!this.#film) return;
    this.#draw();
    this.#film.close();
    this.canvas.settle(this.#film);
    this.player.refresh();
    this.#find(".actions").hidden = false;
    this.#find(".reuse").hidden = this.#film.seed === undefined;
    this.#find(".reuse").textContent = `Reuse seed ${this.#film.seed}`;
  }

  #numbers(usage = {}, timings = {}, reason) {
    const { nfe, canvas_tokens: canvas, tokens_per_forward: perForward, completion_tokens: useful } = usage;
    const { queued_ms: queued, total_ms: total, first_ms: first, tokens_per_second: speed } = timings;
    const rows = {
      NFE: nfe,
      "tokens per forward": perForward && decimal(perForward, 2),
      "useful tokens/s": speed && decimal(speed),
      "useful / canvas": canvas && `${useful} / ${canvas}`,
      time: total !== undefined && seconds(total),
      "first token": first && seconds(first),
      "in the queue": queued >= 1 && seconds(queued),
      "ended by": reason && { stop: "end of text", length: "length" }[reason],
    };
    const shown = Object.entries(rows).filter(([, value]) => value || value === 0);
    const list = this.#find(".numbers");
    for (const [name, value] of shown) list.append(pair(name, value));
    list.hidden = shown.length === 0;
  }

  #fills(fills) {
    const list = this.#find(".fills");
    list.hidden = fills.length === 0;
    for (const { text, length, confidence } of fills) {
      const item = list.appendChild(document.createElement("li"));
      const fill = item.appendChild(document.createElement("q"));
      fill.textContent = text.trim();
      item.append(` ${plural(length, "token")}, confidence ${decimal(confidence, 2)}`);
    }
  }

  #show(frame) {
    if (!this.#film) return;
    this.canvas.show(this.#film, frame, this.#find(".canvas").dataset.view);
    const masks = this.canvas.root.querySelectorAll(".mask").length;
    const label = `Canvas at step ${frame} of ${this.#film.last}, ${plural(masks, "mask")} left; arrow keys go through its tokens`;
    this.canvas.root.setAttribute("aria-label", label);
  }

  #view(view) {
    this.#find(".canvas").dataset.view = view;
    this.#find(".legend").dataset.view = view;
    this.player.refresh();
  }

  async #copy() {
    await navigator.clipboard.writeText(this.text);
    announce("Copied.");
    this.#find(".copy").textContent = "Copied";
    setTimeout(() => (this.#find(".copy").textContent = "Copy"), 1500);
  }

  #offer({ label, act }) {
    const button = this.#find(".remedy");
    Object.assign(button, { hidden: false, textContent: label });
    button.addEventListener("click", act);
  }

  #countDown(left) {
    const retry = this.#find(".retry");
    retry.disabled = left > 0;
    retry.textContent = left > 0 ? `Try again in ${left} s` : "Try again";
    if (left > 0) setTimeout(() => this.#countDown(left - 1), 1000);
  }

  #status(text) {
    this.#find(".status").textContent = text;
  }
}

function pair(name, value) {
  const row = document.createElement("div");
  const parts = [
    ["dt", name],
    ["dd", value],
  ];
  for (const [tag, text] of parts) row.appendChild(document.createElement(tag)).textContent = text;
  return row;
}
