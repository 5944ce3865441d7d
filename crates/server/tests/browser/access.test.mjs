// Who can use the page: with a keyboard alone, with a screen reader, on a narrow screen.

import assert from "node:assert/strict";
import { test } from "node:test";

import { ask, infill, make, seek, shoot, suite, write } from "./harness.mjs";

const QUESTION = "What is the wolf?";
/** Of text, by WCAG 2.2, 1.4.3. */
const CONTRAST = 4.5;

suite("access", {}, ({ open }) => {
  test("everything can be done with a keyboard", async () => {
    const page = await open();
    await tab(page, "#message");
    await page.type(QUESTION);
    await page.press("Enter");
    await page.until(`document.querySelector(".answer")?.dataset.state === "finished"`);
    await page.value(`document.querySelector("#theme").focus()`);
    await tab(page, ".canvas");
    await page.press("ArrowRight");
    await page.press("ArrowRight");
    assert.match(
      await page.value(`document.querySelector(".detail").textContent`),
      /step \d+ · confidence [01]\.\d+ · position/,
    );
    await tab(page, ".play");
    await tab(page, ".at");
    const last = await page.value(`document.activeElement.value`);
    await page.press("ArrowLeft");
    assert.equal(await page.value(`document.activeElement.value`), String(last - 1));
    await page.press("Home");
    assert.equal(await page.value(`document.querySelectorAll(".canvas .token").length`), 0);
    await tab(page, ".views input");
    await page.press("ArrowRight");
    assert.equal(await page.value(`document.querySelector(".canvas").dataset.view`), "order");
    for (const selector of [".copy", ".menu summary"]) await tab(page, selector);
    await page.press("Enter");
    await tab(page, "[data-file=html]");
    await tab(page, "#setting-temperature");
    await tab(page, "#key");
  });

  test("every control has a name, and every field its label", async () => {
    const page = await open();
    await ask(page, QUESTION);
    await page.value(`document.querySelectorAll("details").forEach((fold) => (fold.open = true))`);
    for (const mode of ["chat", "infill"]) {
      if (mode === "infill") await infill(page);
      assert.deepEqual(await nameless(page), []);
    }
    const ids = await page.value(`[...document.querySelectorAll("[id]")].map(({ id }) => id)`);
    assert.equal(new Set(ids).size, ids.length, "no id stands for two elements");
    const dangling = await page.value(`[...document.querySelectorAll("[aria-describedby], [aria-controls]")]
      .flatMap((e) => [e.getAttribute("aria-describedby"), e.getAttribute("aria-controls")].filter(Boolean).join(" ").split(" "))
      .filter((id) => !document.getElementById(id))`);
    assert.deepEqual(dangling, []);
  });

  for (const dark of [false, true]) {
    test(`text stands out from its ground in the ${dark ? "dark" : "light"} theme`, async () => {
      const page = await open({ dark });
      const rest = () =>
        page.until(`document.getAnimations().every(({ playState }) => playState === "finished")`);
      await rest();
      assert.deepEqual(await faint(page), []);
      await ask(page, QUESTION);
      const last = await page.value(`Number(document.querySelector(".at").max)`);
      await page.value(`document.querySelectorAll("details").forEach((fold) => (fold.open = true))`);
      for (const view of ["confidence", "order", "text"]) {
        await page.value(`document.querySelector(".views [value=${view}]").click()`);
        for (const frame of [1, Math.ceil(last / 2), last]) {
          await seek(page, frame);
          assert.deepEqual(await faint(page), [], `${view}, frame ${frame}`);
        }
      }
      await make(page, "temperature", "500");
      await ask(page, QUESTION, "failed");
      assert.deepEqual(await faint(page), []);
      await infill(page);
      await page.value(`document.querySelector("#template").focus()`);
      await page.type("The {{hole:3}} sat.");
      // What is typed on a hole follows it.
      await page.value(`document.querySelector("#template .hole").focus()`);
      await page.press("x");
      assert.equal(await page.value(`document.querySelector("#template").textContent.includes("x sat.")`), true);
      await rest();
      assert.deepEqual(await faint(page), []);
    });
  }

  test("nothing is wider than a narrow screen", async () => {
    const page = await open({ width: 360, height: 740, dark: true });
    const fits = async (what) =>
      assert.equal(await page.value(`document.documentElement.scrollWidth`), 360, what);
    await fits("the beginning");
    const name = await page.value(`document.querySelector("#model").getBoundingClientRect().width`);
    assert.ok(name > 300, `the model's name has ${name} px`);
    await shoot(page, "narrow-intro");
    await ask(page, QUESTION);
    await fits("an answer");
    await page.value(`document.querySelector(".menu").open = true`);
    const wide = `[...document.querySelectorAll(".answer :not(.unseen, .unseen *)")].filter((e) => e.getBoundingClientRect().right > 360)`;
    assert.deepEqual(await page.value(`${wide}.map((e) => e.className || e.localName)`), []);
    await shoot(page, "narrow-answer");
    await infill(page);
    await page.value(`document.querySelector("#template").focus()`);
    await page.type("The {{hole:3}} sat on the {{hole}} until it was evening.");
    await fits("an infill");
    await shoot(page, "narrow-infill");
    await page.value(`document.querySelector("#toggle").click()`);
    await page.value(`document.querySelectorAll("#panel details").forEach((fold) => (fold.open = true))`);
    await fits("the panel");
    await page.press("Escape");
    assert.ok(!(await page.value(`document.querySelector("#panel").checkVisibility()`)));
  });

  test("a screen reader hears of an answer rarely", async () => {
    const page = await open();
    await page.value(`{
      globalThis.heard = [];
      const region = document.querySelector("#announcer");
      new MutationObserver(() => heard.push(region.textContent)).observe(region, { childList: true, characterData: true, subtree: true });
    }`);
    await ask(page, QUESTION);
    const heard = await page.value("heard");
    assert.equal(heard[0], "Generating.");
    assert.match(heard.at(-1), /^Answer: /);
    assert.ok(heard.length <= 3, heard.join(" | "));
    assert.equal(
      await page.value(`document.querySelector(".canvas").getAttribute("aria-label").includes("step")`),
      true,
    );
  });

  test("nothing moves for who wants it so", async () => {
    const page = await open();
    await page.media({ "prefers-reduced-motion": "reduce" });
    await write(page, QUESTION);
    await page.press("Enter");
    await page.until(`document.querySelector(".token")`);
    assert.equal(await page.value(`document.getAnimations().length`), 0);
  });
});

/** Presses Tab until an element has the focus. */
async function tab(page, selector) {
  for (let i = 0; i < 80; i++) {
    await page.press("Tab");
    if (await page.value(`document.activeElement.matches(${JSON.stringify(selector)})`)) return;
  }
  assert.fail(`Tab does not come to ${selector}`);
}

/** The controls that a screen reader has no name for. */
async function nameless(page) {
  const CONTROLS =
    /^(button|textbox|combobox|radio|slider|spinbutton|checkbox|link|listbox|searchbox|DisclosureTriangle)$/;
  const { nodes } = await page.send("Accessibility.getFullAXTree");
  const controls = nodes.filter(({ ignored, role }) => !ignored && CONTROLS.test(role?.value));
  assert.ok(controls.length > 10);
  return controls
    .filter(({ name }) => !name?.value?.trim())
    .map(({ role, backendDOMNodeId }) => `${role.value} ${backendDOMNodeId}`);
}

/** The texts that have too little contrast, computed from colours all the way down. */
const faint = (page) => page.value(`(${inPage})(${CONTRAST})`);

function inPage(least) {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return { rgb: [r, g, b], alpha: a / 255 };
  };
  const over = (top, alpha, under) => top.map((channel, i) => channel * alpha + under[i] * (1 - alpha));
  const ground = (element) => {
    if (!element) return [255, 255, 255];
    const { rgb, alpha } = rgba(getComputedStyle(element).backgroundColor);
    return alpha === 1 ? rgb : over(rgb, alpha, ground(element.parentElement));
  };
  const opacity = (element) =>
    element ? Number(getComputedStyle(element).opacity) * opacity(element.parentElement) : 1;
  const light = (rgb) => {
    const [r, g, b] = rgb.map((c) =>
      c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4,
    );
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const seen = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walker.nextNode());) {
    const element = node.parentElement;
    const isGone =
      !node.data.trim() || !element.checkVisibility() || element.closest(".mask, .unseen, option, :disabled");
    if (isGone) continue;
    const under = ground(element);
    const { rgb, alpha } = rgba(getComputedStyle(element).color);
    const text = over(rgb, alpha * opacity(element), under);
    const [a, b] = [light(text), light(under)].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    if (contrast < least)
      seen.push(
        `${contrast.toFixed(2)} ${element.tagName}.${element.className} ${node.data.trim().slice(0, 30)}`,
      );
  }
  return seen;
}
