// A server that answers as `llada serve` does, without a model: for work on the page, and for tests
// of what a real one does rarely, such as failing. `node mock.mjs [PORT]` serves it.
//
// A message may ask for trouble: `!busy`, `!cut`, `!fail`, `!full`, `!stall`.

import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";

const PAGE = new URL("../../src/page/", import.meta.url);
/** The one file of the page that the library has. */
const FILM = new URL("../../../llada/src/diffusion/trace/film.html", import.meta.url);
const TYPES = { html: "text/html", css: "text/css", js: "text/javascript", svg: "image/svg+xml" };
const POLICY =
  "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const MODELS = ["storyteller-chat", "storyteller"];
const MASK = 2044;
const ANSWER =
  "The wolf is a great beast of the forest, grey as the evening.\nIt has eaten the grandmother of a girl, and was " +
  "in no hurry: a wolf is not naïve, nor is 狼 in another tongue. So keep to the path, and do not tell it where you live.";

const number = (name, from, to, about, more = {}) => ({
  name,
  kind: "number",
  from,
  to,
  about,
  whole: true,
  above: false,
  ...more,
});
const GROUPS = ["Sampling", "Fewer and smaller passes"];
const SETTINGS = [
  {
    name: "preset",
    kind: "name",
    values: ["exact", "balanced", "fast"],
    about: "Where to start: exact, balanced (default), fast",
    frequent: true,
  },
  number("gen_length", 1, 1048576, "Length of the response", {
    default: "as fits, up to 128",
    frequent: true,
  }),
  number("steps", 1, 16777216, "Sampling steps", { default: "one for each token", frequent: true }),
  number("temperature", 0, 100, "Factor on the Gumbel noise; 0 takes the most probable token", {
    whole: false,
    default: "the model's, or 0",
    frequent: true,
  }),
  { name: "seed", kind: "seed", about: "Seed of all random draws", default: "drawn", frequent: true },
  {
    name: "blocks",
    kind: "name",
    values: ["pure", "semi-autoregressive", "block-diffusion", "autoregressive"],
    about: "Where tokens may be committed",
  },
  number(
    "top_p",
    0,
    1,
    "Draw among the fewest most probable tokens that have this probability together; with a temperature",
    { whole: false, above: true },
  ),
  {
    name: "adaptive_blocks",
    kind: "switch",
    about: "End blocks at a delimiter of the text, such as the end of a line",
  },
  {
    name: "remasking",
    kind: "name",
    values: ["low-confidence", "random", "margin", "entropy", "sequential"],
    about: "Which positions are unmasked",
  },
  {
    name: "transfer",
    kind: "name",
    values: ["schedule", "threshold=0.9", "factor=1", "entropy=0.1"],
    about: "Transfer rule, how many tokens a step unmasks",
    group: GROUPS[1],
  },
  {
    name: "cache",
    kind: "name",
    values: ["none", "prefix", "dual"],
    about: "Which keys and values are cached between passes",
    group: GROUPS[1],
  },
  number("edit_rounds", 0, 16777216, "With --edit: passes over a block that is full already, at most", {
    default: "16",
    group: GROUPS[1],
  }),
].map((setting) => ({ group: GROUPS[0], frequent: false, default: null, value: null, ...setting }));

/** Serves on a port, 0 for any; `key` is the API key that it wants, `loading` how often it is not ready. */
export async function serve({ port = 0, key = null, loading = 0, chat = true, delay = 30 } = {}) {
  const state = { key, loading, chat, delay };
  const server = createServer((request, response) => {
    route(request, response, state).catch((error) => response.destroy(error));
  });
  await new Promise((resolve) => server.listen(port, "127.0.0.1", resolve));
  const close = () => (server.closeAllConnections(), server.close());
  return { url: `http://127.0.0.1:${server.address().port}`, close, state };
}

async function route(request, response, state) {
  const { pathname, searchParams } = new URL(request.url, "http://localhost");
  if (request.method === "GET" && (pathname === "/" || pathname.startsWith("/page/")))
    return file(response, pathname);
  if (state.key && request.headers.authorization !== `Bearer ${state.key}`) {
    return refuse(response, 401, {
      message: "This server wants an API key, and this is none of its keys.",
      code: "invalid_api_key",
    });
  }
  if (pathname === "/props") return props(response, searchParams.get("model") ?? MODELS[0], state);
  if (pathname === "/v1/models")
    return json(response, 200, { object: "list", data: MODELS.map((id) => ({ id })) });
  let text = "";
  for await (const part of request) text += part;
  const body = JSON.parse(text);
  const fault = check(body);
  if (fault) return refuse(response, 400, fault);
  const said = body.template ?? body.prompt ?? body.messages.at(-1).content;
  if (said.includes("!busy"))
    return refuse(
      response,
      429,
      { message: "All slots are taken and the queue is full." },
      { "Retry-After": "2" },
    );
  if (said.includes("!full") && body.messages.length > 1)
    return refuse(response, 400, {
      message: "the prompt has 520 tokens, and this model's maximum context length is 512 tokens; shorten the prompt",
      code: "context_length_exceeded",
    });
  await stream(response, body, said, state);
}

async function file(response, pathname) {
  const name = pathname === "/" ? "index.html" : pathname.slice("/page/".length);
  const content = await readFile(name === "film.html" ? FILM : new URL(name, PAGE)).catch(() => null);
  if (!content) return refuse(response, 404, { message: "There is no such file." });
  response.writeHead(200, {
    "Content-Type": TYPES[name.split(".").at(-1)],
    "Content-Security-Policy": POLICY,
  });
  response.end(content);
}

function props(response, model, state) {
  if (state.loading-- > 0) return refuse(response, 503, { message: "The model is loading." });
  // Only the first knows conversations.
  const chat = state.chat && model === MODELS[0];
  json(response, 200, {
    model,
    chat,
    infill: true,
    mask: MASK,
    max_sequence_length: 4096,
    total_slots: 4,
    attention: "bidirectional",
    settings: SETTINGS,
    build_info: "llada 0.1.0 (mock)",
  });
}

const json = (response, status, value, headers = {}) => {
  response.writeHead(status, { "Content-Type": "application/json", ...headers });
  response.end(JSON.stringify(value));
};

const refuse = (response, status, error, headers) =>
  json(
    response,
    status,
    { error: { type: "invalid_request_error", param: null, code: null, ...error } },
    headers,
  );

/** What is wrong with the settings of a request. */
function check(body) {
  for (const { name, kind, from, to } of SETTINGS) {
    const value = body[name];
    if (value === undefined || kind !== "number") continue;
    if (typeof value !== "number" || value < from || value > to) {
      return { message: `${name} is ${value}, which is not a number from ${from} to ${to}`, param: name };
    }
  }
  if (body.regex?.includes("(?")) return { message: "regex: look-around is not supported", param: "regex" };
  return null;
}

async function stream(response, body, said, { delay }) {
  const began = Date.now();
  const made = body.template ? infill(body.template) : answer(said.includes("!short") ? "Yes." : ANSWER);
  const { canvas, steps, text, useful, fills } = made;
  const model = body.model ?? "storyteller-chat";
  const gone = { is: false };
  response.on("close", () => (gone.is = true));
  response.writeHead(200, { "Content-Type": "text/event-stream" });
  const send = (value, event) => {
    response.write(`${event ? `event: llada.${event}\n` : ""}data: ${JSON.stringify(value)}\n\n`);
  };
  response.write(": keep-alive\n\n");
  const header = {
    llada_trace: 1,
    program: "llada 0.1.0",
    model,
    mask: MASK,
    sampler: { ...SAMPLER, gen_length: canvas.tokens, seed: body.seed ?? 7 },
    prompt: canvas.prompt,
    prompt_text: canvas.promptText,
    length: canvas.length,
  };
  const { prompt, promptText, ...about } = canvas;
  send(
    { object: "llada.canvas", choices: [], model, mask: MASK, header, sampler: header.sampler, ...about },
    "canvas",
  );
  for (const [i, step] of steps.entries()) {
    await sleep(delay);
    if (gone.is) return;
    if (said.includes("!cut") && i === 5) return response.destroy();
    if (said.includes("!stall") && i === 5) await sleep(60_000);
    if (said.includes("!fail") && i === 5)
      return response.end(
        `data: ${JSON.stringify({ error: { message: "The model failed: out of memory.", type: "server_error", param: null, code: null } })}\n\n`,
      );
    send({ object: "llada.step", choices: [], ...step }, "step");
  }
  send({ object: "chat.completion.chunk", choices: [{ index: 0, delta: { content: text } }] });
  const total = Date.now() - began;
  const usage = {
    prompt_tokens: prompt.length,
    completion_tokens: useful,
    total_tokens: prompt.length + useful,
    nfe: steps.length,
    canvas_tokens: steps.flatMap(({ committed }) => committed).length,
    tokens_per_forward: useful / steps.length,
  };
  const timings = {
    queued_ms: 0,
    first_ms: delay,
    total_ms: total,
    tokens_per_second: (1000 * useful) / total,
  };
  send(
    {
      object: "llada.done",
      choices: [],
      text,
      finish_reason: "stop",
      usage,
      timings,
      ...(fills && { fills }),
    },
    "done",
  );
  response.end("data: [DONE]\n\n");
}

const SAMPLER = {
  steps: 64,
  gen_length: 64,
  block_length: 64,
  temperature: 0,
  cfg_scale: 0,
  remasking: "low-confidence",
  transfer: "schedule",
  blocks: "pure",
  cache: "none",
  cache_type: "f32",
  logits_eos_inf: false,
  confidence_eos_eot_inf: false,
  stop_at_eos: true,
  confidence: "f64",
  exact: false,
};

/** Numbers in 0..1, always the same. */
function* draws(seed = 1) {
  for (let x = seed; ; x = (x * 48271) % 2147483647) yield x / 2147483647;
}

/** Pieces of a text; the bytes of other scripts are tokens of their own. */
function pieces(text) {
  const words = text.match(/\n| ?[^\s]{1,7}| /gu);
  return words.flatMap((word) => {
    if (/^[ -~\n]*$/.test(word)) return [word];
    const bytes = [...Buffer.from(word)];
    const at = bytes.findIndex((byte) => byte > 127) + 1;
    const rest = bytes.slice(at + 1);
    const isText = !Buffer.from(rest).toString().includes("\ufffd");
    return [bytes.slice(0, at), bytes.slice(at, at + 1), isText ? Buffer.from(rest).toString() : rest].filter(
      (part) => part.length,
    );
  });
}

/** The steps that commit the pieces at some positions; one is remasked, and two masks are put in. */
function schedule(places, { troubled }) {
  const draw = draws(places.length);
  const order = places
    .map((place) => [place, draw.next().value + place.index / places.length])
    .sort((a, b) => a[1] - b[1]);
  const steps = [];
  const commit = ({ position, text }) => ({
    position,
    token: 300 + position,
    confidence: Number((0.15 + 0.85 * draw.next().value ** 0.6).toFixed(6)),
    text,
  });
  for (let at = 0; at < order.length;) {
    const count = 1 + Math.floor(draw.next().value * 4);
    const committed = order.slice(at, at + count).map(([place]) => commit(place));
    at += count;
    steps.push({ nfe: steps.length + 1, step: steps.length, block: 0, committed, stable: 0 });
  }
  if (troubled) trouble(steps, commit);
  return steps;
}

/** A token becomes a mask again for two steps. */
function trouble(steps, commit) {
  const [first] = steps[2].committed;
  steps[5].remasked = [first.position];
  steps[8].committed.push(commit(first));
  steps[2].committed[0] = { ...first, text: " bear", confidence: 0.2 };
}

function answer(text) {
  const prompt = [1, 2, 3, 4];
  const texts = [...pieces(text), ...Array(12).fill("<|endoftext|>")];
  const isLong = texts.length > 20;
  // The canvas begins two masks shorter than it ends.
  const places = texts.map((piece, index) => ({ index, position: prompt.length + index, text: piece }));
  const steps = schedule(places, { troubled: isLong });
  if (isLong) grow(steps, prompt.length + 10);
  const length = prompt.length + texts.length;
  const canvas = {
    prompt,
    promptText: ["<s>", "a", "b", "c"],
    prompt_length: prompt.length,
    length,
    tokens: length - (isLong ? 2 : 0),
    fixed: null,
  };
  return { canvas, steps, text, useful: texts.length - 12 };
}

/** Positions of the first steps are those before two masks were put in at `at`. */
function grow(steps, at) {
  const until =
    steps.findIndex(({ committed }) =>
      committed.some(({ position }) => position === at || position === at + 1),
    ) - 1;
  const before = (position) => (position > at + 1 ? position - 2 : position);
  for (const step of steps.slice(0, until + 1)) {
    for (const commit of step.committed) commit.position = before(commit.position);
    if (step.remasked) step.remasked = step.remasked.map(before);
  }
  if (until >= 0) steps[until].inserted = [at, at];
}

const FILLS = [" old grey cat", " mat by the fire", " little tailor", " house of glass"];

function infill(template) {
  const fixed = [];
  const places = [];
  const fills = [];
  let text = "";
  for (const part of template.split(/(\{\{hole(?::\d+)?\}\})/).filter(Boolean)) {
    const hole = /^\{\{hole(?::(\d+))?\}\}$/.exec(part);
    if (!hole) {
      fixed.push(...pieces(part.replaceAll("\\{{", "{{")));
      text += part;
      continue;
    }
    const words = pieces(FILLS[fills.length % FILLS.length]);
    const filled = hole[1]
      ? Array.from({ length: Number(hole[1]) }, (_, i) => words[i % words.length])
      : words;
    for (const word of filled) {
      places.push({ index: places.length, position: fixed.length, text: word });
      fixed.push(null);
    }
    fills.push({ text: filled.join(""), length: filled.length, confidence: 0.62 });
    text += filled.join("");
  }
  const length = fixed.length;
  const canvas = {
    prompt: fixed.map((given, i) => (given === null ? MASK : i)),
    promptText: fixed.map((given) => given ?? "<|mdm_mask|>"),
    prompt_length: 0,
    length,
    tokens: length,
    fixed,
  };
  return { canvas, steps: schedule(places, { troubled: false }), text, useful: places.length, fills };
}

if (process.argv[1] === new URL(import.meta.url).pathname) {
  const { url } = await serve({ port: Number(process.argv[2] ?? 8089) });
  console.log(url);
}
