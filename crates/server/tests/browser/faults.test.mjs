// What the page does when the server does not: on the mock, which fails when it is asked to.

import assert from "node:assert/strict";
import { test } from "node:test";

import { answered, ask, seek, shoot, suite, write } from "./harness.mjs";

const message = `[...document.querySelectorAll(".message")].at(-1).innerText`;
const typed = `document.querySelector("#message").value`;

suite("faults", { isMocked: true }, ({ context, open }) => {
  test("a server that is full says when to ask again", async () => {
    const page = await open();
    await ask(page, "!busy", "failed");
    assert.match(await page.value(message), /queue is full/);
    assert.equal(await page.value(typed), "!busy");
    assert.match(await page.value(`document.querySelector(".retry").innerText`), /^Try again in \d s$/);
    assert.ok(await page.value(`document.querySelector(".retry").disabled`));
    await shoot(page, "busy");
    await page.until(`!document.querySelector(".retry").disabled`);
  });

  test("an answer that breaks off keeps its canvas", async () => {
    const page = await open();
    for (const [text, found] of [
      ["!cut", /broke off|ended before/],
      ["!fail", /out of memory/],
    ]) {
      await ask(page, text, "failed");
      assert.match(await page.value(message), found);
      assert.ok(
        await page.value(
          `[...document.querySelectorAll(".answer")].at(-1).querySelectorAll(".token").length > 3`,
        ),
      );
      assert.equal(await page.value(typed), text);
      await page.value(`document.querySelector("#message").value = ""`);
    }
  });

  test("a server that stalls can be left with Escape", async () => {
    const page = await open();
    await write(page, "!stall");
    await page.press("Enter");
    await page.until(`document.querySelectorAll(".token").length > 3`);
    await page.press("Escape");
    await answered(page, "stopped");
  });

  test("a server that is gone is missed, and found again", async () => {
    const page = await open();
    await page.send("Network.emulateNetworkConditions", {
      offline: true,
      latency: 0,
      downloadThroughput: -1,
      uploadThroughput: -1,
    });
    await ask(page, "hello", "failed");
    assert.match(await page.value(message), /cannot be reached/);
    assert.equal(await page.value(typed), "hello");
    await page.send("Network.emulateNetworkConditions", {
      offline: false,
      latency: 0,
      downloadThroughput: -1,
      uploadThroughput: -1,
    });
    await page.value(`document.querySelector(".retry").click()`);
    await answered(page);
    assert.equal(await page.value(typed), "");
  });

  test("a server that wants a key is given one", async () => {
    const page = await open();
    context.mock.state.key = "secret";
    await ask(page, "hello", "failed");
    assert.match(await page.value(message), /API key/);
    assert.equal(await page.value(`document.activeElement.id`), "key");
    await page.type("secret");
    await page.press("Enter");
    await page.until(`sessionStorage.getItem("llada.key") === "secret"`);
    await page.value(`document.querySelector(".retry").click()`);
    await answered(page);
    context.mock.state.key = null;
  });

  test("a model that is loading is waited for", async () => {
    context.mock.state.loading = 2;
    const page = await context.browser.page();
    await page.goto(context.url);
    await page.until(`document.querySelector("#banner").innerText.includes("loading")`);
    await page.until(`document.querySelector("#banner").hidden && document.querySelector("#setting-steps")`);
  });

  test("a conversation that has grown too long goes on in a new one", async () => {
    const page = await open();
    await ask(page, "!full hello");
    await ask(page, "!full again", "failed");
    assert.match(await page.value(message), /^This conversation .* Begin a new chat\.$/);
    await page.value(`document.querySelector(".remedy:not([hidden])").click()`);
    await answered(page);
    assert.equal(await page.value(`document.querySelectorAll(".answer").length`), 1);
    assert.equal(await page.value(`document.querySelector(".question").innerText`), "!full again");
    assert.equal(await page.value(typed), "");
  });

  test("a new chat leaves the answer that runs, and forgets it", async () => {
    const page = await open();
    await write(page, "!stall");
    await page.press("Enter");
    await page.until(`document.querySelectorAll(".token").length > 3`);
    await page.value(`document.querySelector("#chat button.new").click()`);
    await page.until(`document.body.dataset.busy === undefined`);
    assert.equal(await page.value(typed), "");
    // It would be too long if it went on.
    await ask(page, "!full hello");
  });

  test("another model is shown as it is", async () => {
    const page = await open();
    await page.value(`{
      const model = document.querySelector("#model");
      model.value = "storyteller";
      model.dispatchEvent(new Event("change"));
    }`);
    await page.until(`document.querySelector("#chat-name").innerText === "Continue"`);
    assert.equal(await page.value(`document.querySelector("#model").value`), "storyteller");
    assert.equal(await page.value(`document.querySelector("#system").checkVisibility()`), false);
  });

  test("a model without chat continues texts", async () => {
    context.mock.state.chat = false;
    const page = await open();
    assert.equal(await page.value(`document.querySelector("#chat-name").innerText`), "Continue");
    await ask(page, "Once upon a time");
    context.mock.state.chat = true;
  });

  test("a form that the server refuses is told of where it is typed", async () => {
    const page = await open();
    const choose = (form, text) =>
      page.value(`{
      const [kind, field] = ["#form", "#form-text"].map((selector) => document.querySelector(selector));
      kind.value = "${form}";
      kind.dispatchEvent(new Event("change"));
      field.value = ${JSON.stringify(text)};
      field.dispatchEvent(new Event("input"));
    }`);
    const problem = `document.querySelector("#form-problem").innerText`;
    await choose("regex", "(?=a)");
    await ask(page, "hello", "failed");
    assert.match(await page.value(problem), /look-around/);
    await choose("schema", "{");
    await page.press("Enter");
    await page.value(`document.querySelector("#chat form").requestSubmit()`);
    assert.match(await page.value(problem), /no JSON/);
    assert.equal(await page.value(typed), "hello");
    await choose("choices", "yes\nno\n");
    await page.value(`document.querySelector("#chat form").requestSubmit()`);
    await answered(page);
  });

  test("tokens that become masks again and masks that are put in are seen", async () => {
    const page = await open({ dark: true });
    await ask(page, "hello");
    const last = await page.value(`Number(document.querySelector(".at").max)`);
    const seen = { again: 0, new: 0 };
    const lengths = new Set();
    for (let frame = 0; frame <= last; frame++) {
      await seek(page, frame);
      for (const name of Object.keys(seen))
        seen[name] += await page.value(`document.querySelectorAll(".canvas .cell.${name}").length`);
      lengths.add(await page.value(`document.querySelectorAll(".canvas .cell").length`));
    }
    assert.deepEqual(seen, { again: 1, new: 2 });
    const [short, long] = [...lengths];
    assert.equal(long - short, 2);
    const text = await page.value(
      `[...document.querySelectorAll(".canvas .token:not(.special)")].map((cell) => cell.textContent).join("")`,
    );
    assert.equal(text.replaceAll("↵", ""), await page.value(`document.querySelector(".plain").textContent`));
  });
});
