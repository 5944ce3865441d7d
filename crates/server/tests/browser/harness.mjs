// What the tests of the page share: a browser, a server, and how one works with the page.
//
//     node --test crates/server/tests/browser/*.test.mjs
//
// `LLADA_URL` names a running `llada serve`; without it the server is the mock. `CHROMIUM` names the
// browser, if it is not found by itself. Without a browser the tests are skipped. `SHOTS` names a
// folder for pictures.

import { mkdirSync, writeFileSync } from "node:fs";
import { after, before, describe } from "node:test";

import { Browser, find } from "./chromium.mjs";
import { serve } from "./mock.mjs";

const program = find();
const skip = program ? false : "there is no Chromium; install one, or name it in CHROMIUM";

/** Tests of one subject, which are given a function that opens a page. */
export function suite(name, { isMocked = false, ...options } = {}, tests) {
  describe(name, { skip, timeout: 120_000 }, () => {
    const context = {};
    before(async () => {
      context.browser = new Browser(program);
      context.mock = isMocked || !process.env.LLADA_URL ? await serve(options) : null;
      context.url = context.mock?.url ?? process.env.LLADA_URL;
    });
    after(async () => {
      await context.browser.close();
      context.mock?.close();
    });
    tests({ context, open: (options) => open(context, options) });
  });
}

/** A page that knows the settings of the server. */
async function open({ browser, url }, options) {
  const page = await browser.page(options);
  await page.goto(url);
  await page.until(`document.querySelectorAll("#panel .frequent .setting").length > 2`);
  return page;
}

/** The state that the newest answer must reach. */
export const answered = (page, state = "finished") =>
  page.until(
    `[...document.querySelectorAll("[data-mode=chat] #chat .answer, [data-mode=infill] #infill .answer")].at(-1)?.dataset.state === "${state}"`,
  );

/** Sends a message, and waits until it is answered. */
export async function ask(page, text, state = "finished") {
  await write(page, text);
  await page.press("Enter");
  await answered(page, state);
}

/** Writes a message. */
export async function write(page, text) {
  await page.value(`document.querySelector("#message").focus()`);
  await page.type(text);
}

/** Makes a setting. */
export const make = (page, name, value) =>
  page.value(`{
    const field = document.querySelector("#setting-${name}");
    field.value = ${JSON.stringify(value)};
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }`);

/** Goes to a frame of the newest answer. */
export const seek = (page, frame) =>
  page.value(`{
    const range = [...document.querySelectorAll(".at")].at(-1);
    range.value = ${frame};
    range.dispatchEvent(new Event("input", { bubbles: true }));
  }`);

/** Opens the mode of texts with holes. */
export const infill = (page) => page.value(`document.querySelector("[name=mode][value=infill]").click()`);

/** Keeps a picture of the page, where `SHOTS` names a folder for them. */
export async function shoot(page, name) {
  const folder = process.env.SHOTS;
  if (!folder) return;
  mkdirSync(folder, { recursive: true });
  writeFileSync(`${folder}/${name}.png`, await page.screenshot());
}
