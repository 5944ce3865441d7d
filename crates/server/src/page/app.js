// The page: what the server can do, which mode is open, and the one request that runs at a time.

import { announce } from "./announce.js";
import { get, key, post } from "./api.js";
import { Chat } from "./chat.js";
import { load, save } from "./drafts.js";
import { Infill } from "./infill.js";
import { Settings } from "./settings.js";
import { Structure } from "./structure.js";

const byId = (id) => document.getElementById(id);
const [banner, panel, toggle, model, system] = ["banner", "panel", "toggle", "model", "system"].map(byId);
const WAIT_MS = 1500;

let running = null;

const settings = new Settings(panel.querySelector(".settings"));
const structure = new Structure(panel.querySelector(".structure"));
const common = { ask, onSeed: (seed) => settings.make("seed", seed) };
const chat = new Chat(byId("chat"), { ...common, stop, system: () => system.value });
new Infill(byId("infill"), common);

/**
 * Sends a request and feeds its answer; how that ended: `finished`, `stopped` or `failed`. Without
 * waiting it is `null` where another request runs or what was typed cannot be sent.
 */
function ask(path, body, answer) {
  const form = path === "/v1/infill" ? {} : structure.body();
  if (running || form === null) return null;
  running = new AbortController();
  document.body.dataset.busy = "";
  announce("Generating.");
  const request = { ...settings.values(), ...form, model: model.value || undefined, ...body };
  return feed(path, request, answer).finally(() => {
    running = null;
    delete document.body.dataset.busy;
  });
}

async function feed(path, request, answer) {
  try {
    for await (const { event, data } of post(path, request, running.signal)) answer.take(event, data);
    return "finished";
  } catch (error) {
    if (error.name === "AbortError") {
      answer.stop();
      announce("Stopped.");
      return "stopped";
    }
    answer.fail(error);
    if (error.status === 401) askForKey();
    else focus(settings.blame(error.param, error.message) ?? structure.blame(error.param, error.message));
    return "failed";
  }
}

function stop() {
  running?.abort();
}

/** Learns what the server can do; as often as it takes. */
async function connect() {
  try {
    const which = model.value && `?model=${encodeURIComponent(model.value)}`;
    const [props, models] = await Promise.all([get(`/props${which}`), get("/v1/models")]);
    build(props, models.data);
    tell("");
  } catch (error) {
    tell(error.message);
    if (error.status === 401) askForKey();
    else setTimeout(connect, error.retryAfter ? error.retryAfter * 1000 : WAIT_MS);
  }
}

function build(props, models) {
  settings.build(props.settings);
  chat.build(props);
  byId("chat-name").textContent = props.chat ? "Chat" : "Continue";
  byId("conversation").hidden = !props.chat;
  model.replaceChildren(...models.map(({ id }) => new Option(id, id, false, id === props.model)));
  model.title = props.model;
  const infill = document.querySelector("[name=mode][value=infill]");
  infill.disabled = !props.infill;
  infill.parentElement.title = props.infill ? "" : `${props.model} does not see what follows a hole`;
  if (!props.infill) open("chat");
  document.title = `${props.model} · llada`;
  byId("build").textContent =
    `${props.build_info} · ${props.attention} attention · up to ${props.max_sequence_length} tokens`;
}

function tell(message) {
  banner.hidden = !message;
  if (banner.textContent !== message) banner.textContent = message;
}

const askForKey = () => focus(byId("key"));

/** Brings a field of the panel to the user, if there is one. */
function focus(field) {
  if (!field) return;
  show(true);
  field.focus();
}

function open(mode) {
  document.querySelector(`[name=mode][value=${mode}]`).checked = true;
  document.body.dataset.mode = mode;
  settings.open(mode);
  save("mode", mode);
}

/** Shows the panel or hides it. */
function show(isShown) {
  document.body.classList.toggle("with-panel", isShown);
  toggle.setAttribute("aria-expanded", isShown);
}

document
  .querySelectorAll("[name=mode]")
  .forEach((radio) => radio.addEventListener("change", () => open(radio.value)));
model.addEventListener("change", connect);
document.querySelectorAll(".halt").forEach((button) => button.addEventListener("click", stop));
panel
  .querySelectorAll("form")
  .forEach((form) => form.addEventListener("submit", (event) => event.preventDefault()));
toggle.addEventListener("click", () => show(toggle.getAttribute("aria-expanded") !== "true"));
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.defaultPrevented) return;
  if (running) stop();
  else if (isNarrow.matches) show(false);
});

const isNarrow = matchMedia("(max-width: 60rem)");
isNarrow.addEventListener("change", () => show(!isNarrow.matches));
show(!isNarrow.matches);

byId("key").value = key.get();
byId("key").addEventListener("change", ({ target }) => {
  key.set(target.value);
  connect();
});
system.value = load("system", "");
system.addEventListener("input", () => save("system", system.value));
open(load("mode", "chat"));
connect();
