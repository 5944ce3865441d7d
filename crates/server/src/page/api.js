// Requests to the server, and why they fail.

const KEY = "llada.key";

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (text) => (text ? sessionStorage.setItem(KEY, text) : sessionStorage.removeItem(KEY)),
};

/** A request that failed: the server's message, its code, the parameter that it blames, when to try again. */
export class ApiError extends Error {
  constructor(message, { status = 0, code = null, param = null, retryAfter = null } = {}) {
    super(message);
    Object.assign(this, { status, code, param, retryAfter });
  }
}

/** An object by GET. */
export async function get(path) {
  return parse(await (await request(path)).text());
}

/** The events of a streamed answer to POST: `{ event, data }`, up to the end that the server marks. */
export async function* post(path, body, signal) {
  const response = await request(path, {
    method: "POST",
    body: JSON.stringify({ ...body, stream: true, stream_events: true }),
    signal,
  });
  for await (const { event, data } of messages(response.body)) {
    if (data === "[DONE]") return;
    const value = parse(data);
    if (value.error) throw failure(value.error);
    yield { event, data: value };
  }
  throw new ApiError("The connection ended before the answer did.");
}

async function request(path, options = {}) {
  const headers = { "Content-Type": "application/json" };
  if (key.get()) headers.Authorization = `Bearer ${key.get()}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server cannot be reached. Is it running?");
  }
  if (response.ok) return response;
  const retryAfter = Number(response.headers.get("Retry-After")) || null;
  const { error } = await response.json().catch(() => ({}));
  const fallback = `The server answered ${response.status} ${response.statusText}.`;
  throw failure(error ?? { message: fallback }, { status: response.status, retryAfter });
}

const failure = ({ message, code, param }, about = {}) => new ApiError(message, { code, param, ...about });

/** JSON whose seeds, of up to 64 bits, keep all their digits as text. */
const parse = (text) => JSON.parse(text.replace(/"seed":\s*(\d{16,})/g, '"seed":"$1"'));

/** Server-sent events of a body. */
async function* messages(body) {
  let event = "message";
  let data = [];
  for await (const line of lines(body)) {
    if (line === "") {
      if (data.length) yield { event, data: data.join("\n") };
      [event, data] = ["message", []];
    } else if (line.startsWith("event:")) event = line.slice(6).trim();
    else if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
  }
}

async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const parts = (rest + value).split(/\r?\n/);
      rest = parts.pop();
      yield* parts;
    }
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The connection broke off.");
  } finally {
    reader.cancel().catch(() => {});
  }
}
