// OpenAI's client for Node: `npm install --no-save openai zod`, then
// `LLADA_URL=http://127.0.0.1:8080 node --test openai_sdk.test.mjs`.

import assert from "node:assert/strict";
import { test } from "node:test";

import OpenAI from "openai";
import { zodFunction, zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const url = process.env.LLADA_URL ?? "http://127.0.0.1:8080";
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: process.env.LLADA_API_KEY ?? "none", maxRetries: 0 });
const [first] = (await client.models.list()).data;
const ask = {
  model: first.id,
  messages: [{ role: "user", content: "Hello" }],
  max_tokens: 16,
  temperature: 0,
};
const chat = (options) => client.chat.completions.create({ ...ask, ...options });

test("chat", async () => {
  const answer = await chat();
  assert.ok(answer.choices[0].message.content);
  assert.ok(answer.usage.completion_tokens > 0);
});

test("stream", async () => {
  const whole = (await chat()).choices[0].message.content;
  let text = "";
  let usage = null;
  for await (const chunk of await chat({ stream: true, stream_options: { include_usage: true } })) {
    text += chunk.choices[0]?.delta.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, whole);
  assert.ok(usage.completion_tokens > 0);
});

test("events of the canvas", async () => {
  const kinds = new Set();
  for await (const chunk of await chat({ stream: true, stream_events: true })) kinds.add(chunk.object);
  for (const kind of ["llada.canvas", "llada.step", "llada.done"]) assert.ok(kinds.has(kind), kind);
});

test("structure from zod", async () => {
  const Animal = z.object({ kind: z.enum(["wolf", "fox"]), legs: z.int(), is_tame: z.boolean() });
  const answer = await client.chat.completions.parse({
    ...ask,
    max_tokens: 48,
    response_format: zodResponseFormat(Animal, "animal"),
  });
  assert.ok(Animal.safeParse(answer.choices[0].message.parsed).success);
});

test("tools", { skip: first.max_model_len < 512 && "the model reads too few tokens" }, async () => {
  const City = z.object({ city: z.enum(["Rome", "Paris"]) });
  const tools = [zodFunction({ name: "weather", parameters: City })];
  const options = { ...ask, tools, tool_choice: "required", max_tokens: 64 };
  const answer = await client.chat.completions.parse(options);
  const [call] = answer.choices[0].message.tool_calls;
  assert.ok(City.safeParse(call.function.parsed_arguments).success);
  const streamed = await client.chat.completions.stream(options).finalChatCompletion();
  assert.equal(streamed.choices[0].message.tool_calls[0].function.name, "weather");
});

test("a function that runs by itself", { skip: first.max_model_len < 512 && "the model reads too few tokens" }, async () => {
  let city = null;
  const parse = JSON.parse;
  const weather = { name: "weather", parse, parameters: z.toJSONSchema(z.object({ city: z.enum(["Rome", "Paris"]) })) };
  weather.function = (asked) => ((city = asked.city), "sunny");
  const tools = [{ type: "function", function: weather }];
  const tool_choice = { type: "function", function: { name: "weather" } };
  await client.chat.completions.runTools({ ...ask, tools, tool_choice, max_tokens: 64 }).done();
  assert.ok(["Rome", "Paris"].includes(city));
});

test("a request that goes away is cancelled", async () => {
  const stream = await chat({ stream: true, max_tokens: 96 });
  for await (const _ of stream) break;
  await assert.rejects(chat({ temperature: -1 }), OpenAI.BadRequestError);
});
