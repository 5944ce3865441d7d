// What one does with the page, on any server.

import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readFileSync, readdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";

import { answered, ask, infill, make, seek, shoot, suite, write } from "./harness.mjs";

const QUESTION = "What is the wolf?";

suite("the page", {}, ({ context, open }) => {
  test("loads without complaint, and from its own server only", async () => {
    const page = await open();
    await shoot(page, "intro");
    assert.deepEqual(page.problems, []);
    const foreign = page.requests.filter((url) => !url.startsWith(context.url) && !url.startsWith("data:"));
    assert.deepEqual(foreign, []);
    const { headers } = await fetch(context.url);
    assert.match(headers.get("content-security-policy"), /default-src 'self'/);
    assert.doesNotMatch(headers.get("content-security-policy"), /unsafe/);
  });

  test("shows an answer while it is made, and then its numbers", async () => {
    const page = await open({ dark: true });
    await page.value(`{
      globalThis.halves = 0;
      const look = () => (halves += Boolean(document.querySelector("[data-state=running] .token") && document.querySelector("[data-state=running] .mask")));
      new MutationObserver(look).observe(document.querySelector("#chat"), { subtree: true, childList: true, attributes: true });
    }`);
    await ask(page, QUESTION);
    assert.ok((await page.value("halves")) > 0, "masks beside tokens were seen");
    const numbers = await page.value(`document.querySelector(".numbers").innerText`);
    for (const name of ["NFE", "tokens per forward", "useful tokens/s", "useful / canvas", "time"])
      assert.ok(numbers.includes(name), name);
    const [plain, cells] = await page.value(`[
      document.querySelector(".plain").textContent,
      [...document.querySelectorAll(".canvas .token:not(.special)")].map((cell) => cell.textContent).join(""),
    ]`);
    assert.ok(plain.trim().length > 0);
    assert.ok(cells.replaceAll("↵", "").includes(plain.trim().slice(0, 20)), `${cells} has ${plain}`);
    await shoot(page, "answer-dark");
    assert.deepEqual(page.problems, []);
  });

  test("goes through the steps from the first to the last", async () => {
    const page = await open();
    await ask(page, QUESTION);
    const count = (selector) => page.value(`document.querySelectorAll(".canvas ${selector}").length`);
    const last = await page.value(`Number(document.querySelector(".at").max)`);
    const tokens = await count(".token");
    await seek(page, 0);
    assert.equal(await count(".token"), 0);
    assert.ok((await count(".mask")) > 0);
    await seek(page, Math.ceil(last / 2));
    const half = await count(".token");
    assert.ok(half > 0 && half < tokens, `${half} of ${tokens}`);
    await page.value(`document.querySelector(".play").click()`);
    await page.until(`document.querySelector(".at").value == ${last} && !document.querySelector(".playing")`);
    assert.equal(await count(".token"), tokens);
    assert.equal(
      await page.value(`document.querySelector(".at").getAttribute("aria-valuetext")`),
      `step ${last} of ${last}`,
    );
  });

  test("colours tokens by the step that committed them", async () => {
    const page = await open();
    await ask(page, QUESTION);
    const colors = () =>
      page.value(`[...document.querySelectorAll(".canvas .token")].map((cell) => cell.dataset.color)`);
    const byConfidence = await colors();
    await page.value(`document.querySelector(".views [value=order]").click()`);
    const byOrder = await colors();
    assert.notDeepEqual(byOrder, byConfidence);
    assert.ok(byOrder.includes("#fde725"), "the last step has the last colour");
    await shoot(page, "order");
    await page.value(`document.querySelector(".views [value=text]").click()`);
    assert.equal(
      await page.value(`getComputedStyle(document.querySelector(".token b")).backgroundColor`),
      "rgba(0, 0, 0, 0)",
    );
  });

  test("fills the holes of a text, and keeps the rest", async () => {
    const page = await open();
    await infill(page);
    await page.value(`document.querySelector("#template").focus()`);
    await page.type("The ");
    await page.press("h", 1);
    await page.press("4");
    await page.press("ArrowUp");
    await page.press("ArrowRight");
    await page.type(" sat on the {{hole:3}}.");
    await shoot(page, "holes");
    const draft = `JSON.parse(sessionStorage.getItem("llada.draft.template"))`;
    assert.equal(await page.value(draft), "The {{hole:5}} sat on the {{hole:3}}.");
    await page.press("Enter", 2);
    await answered(page);
    assert.equal(await page.value(`document.querySelectorAll("#infill .fills li").length`), 2);
    const given = await page.value(
      `[...document.querySelectorAll("#infill .given")].map((cell) => cell.textContent).join("")`,
    );
    assert.equal(given.replace(/\s+/g, ""), "Thesatonthe.");
    await seek(page, 0);
    assert.equal(await page.value(`document.querySelectorAll("#infill .canvas .mask").length`), 8);
    await shoot(page, "infill");
    assert.deepEqual(page.problems, []);
  });

  test("tells beside a field what the server has against it", async () => {
    const page = await open();
    await make(page, "temperature", "500");
    await ask(page, QUESTION, "failed");
    const field = `document.querySelector("#setting-temperature")`;
    assert.match(
      await page.value(`document.querySelector("#setting-temperature-problem").innerText`),
      /temperature/,
    );
    assert.equal(await page.value(`${field}.getAttribute("aria-invalid")`), "true");
    assert.ok(await page.value(`document.activeElement === ${field}`));
    assert.equal(
      await page.value(`document.querySelector("#message").value`),
      QUESTION,
      "nothing typed is lost",
    );
    await shoot(page, "error");
    await make(page, "temperature", "");
    await page.value(`document.querySelector(".retry").click()`);
    await answered(page);
    assert.equal(await page.value(`document.querySelectorAll(".answer").length`), 1);
  });

  test("makes its settings of what the server says", async () => {
    const page = await open();
    const { settings } = await (await fetch(`${context.url}/props`)).json();
    const names = await page.value(
      `[...document.querySelectorAll("#panel .settings [name]")].map((field) => field.name)`,
    );
    assert.deepEqual(names.toSorted(), settings.map(({ name }) => name).toSorted());
    const folded = await page.value(
      `[...document.querySelectorAll("#panel details [name]")].map((field) => field.name)`,
    );
    assert.deepEqual(
      folded.toSorted(),
      settings
        .filter(({ frequent }) => !frequent)
        .map(({ name }) => name)
        .toSorted(),
    );
    await make(page, "seed", "11");
    await ask(page, QUESTION);
    assert.equal(await page.value(`document.querySelector(".reuse").textContent`), "Reuse seed 11");
  });

  test("shows and sends what a mode has a use for, and no more", async () => {
    const page = await open();
    const shown = (id) => page.value(`document.querySelector("#${id}").checkVisibility()`);
    await make(page, "gen_length", "24");
    await make(page, "seed", "5");
    const made = `document.querySelector("#panel .made").textContent`;
    assert.equal(await page.value(made), "2 made");
    await infill(page);
    for (const id of ["setting-gen_length", "setting-preset", "form", "system"])
      assert.equal(await shown(id), false, id);
    assert.ok(await shown("setting-steps"));
    assert.equal(await page.value(made), "1 made");
    await page.value(`document.querySelector("#infill .examples button").click()`);
    await answered(page);
    const { gen_length, seed } = JSON.parse(page.bodies.at(-1));
    assert.deepEqual([gen_length, seed], [undefined, 5]);
    await page.value(`document.querySelector("#panel .reset").click()`);
    await page.value(`document.querySelector("[name=mode][value=chat]").click()`);
    assert.equal(await page.value(made), "1 made", "what was not shown is not reset");
    for (const id of ["setting-gen_length", "form", "system"]) assert.ok(await shown(id), id);
  });

  test("stops when it is told to", async () => {
    const page = await open();
    await make(page, "gen_length", "96");
    await page.value(`new MutationObserver((_, observer) => {
      if (!document.querySelector(".token")) return;
      observer.disconnect();
      document.querySelector("#chat .halt").click();
    }).observe(document.querySelector("#chat"), { subtree: true, childList: true, attributes: true })`);
    await write(page, QUESTION);
    await page.press("Enter");
    await answered(page, "stopped");
    assert.ok(await page.value(`document.querySelector("#chat .send").checkVisibility()`));
    assert.match(await page.value(`document.querySelector(".status").textContent`), /^Stopped after/);
  });

  test("saves an answer in three formats", async () => {
    const page = await open();
    const folder = mkdtempSync(join(tmpdir(), "llada-export-"));
    await page.downloads(folder);
    await ask(page, QUESTION);
    const steps = await page.value(`Number(document.querySelector(".at").max)`);
    const files = {};
    for (const format of ["jsonl", "svg", "html"]) {
      await page.value(
        `document.querySelector(".menu").open = true; document.querySelector("[data-file=${format}]").click()`,
      );
      files[format] = await downloaded(folder, format);
    }
    const [header, ...lines] = readFileSync(files.jsonl, "utf8")
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line));
    assert.equal(header.llada_trace, 1);
    assert.equal(lines.length, steps);
    assert.deepEqual(Object.keys(lines[0]).slice(0, 4), ["nfe", "step", "block", "committed"]);
    for (const format of ["svg", "html"]) {
      const shown = await context.browser.page();
      await shown.goto(pathToFileURL(files[format]).href);
      const found = {
        svg: `document.querySelectorAll("g text").length > 3`,
        html: `document.querySelector("#at").max == ${steps}`,
      };
      await shown.until(found[format]);
      assert.deepEqual(shown.problems, []);
      await shoot(shown, `export-${format}`);
    }
    assert.deepEqual(page.problems, []);
  });

  test("keeps drafts, settings and theme over a reload", async () => {
    const page = await open();
    await write(page, "half a thought");
    await make(page, "steps", "12");
    await page.value(`document.querySelector("#theme").click()`);
    await page.goto(context.url);
    await page.until(`document.querySelector("#setting-steps")?.value === "12"`);
    assert.equal(await page.value(`document.querySelector("#message").value`), "half a thought");
    assert.equal(await page.value(`document.documentElement.dataset.theme`), "dark");
  });
});

async function downloaded(folder, ending) {
  const found = () => readdirSync(folder).find((name) => name.endsWith(`.${ending}`));
  for (let i = 0; i < 400 && !found(); i++) await new Promise((resolve) => setTimeout(resolve, 25));
  const path = join(folder, found() ?? `nothing.${ending}`);
  assert.ok(existsSync(path), path);
  return path;
}
