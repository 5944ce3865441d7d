// The parts of the page that compute, each alone, in the browser that they are for.

import assert from "node:assert/strict";
import { test } from "node:test";

import { suite } from "./harness.mjs";

suite("modules", { isMocked: true }, ({ open }) => {
  let page;
  const run = async (module, body) => {
    page ??= await open();
    return page.value(`import("/page/${module}.js").then((module) => (${body})(module))`);
  };

  test("a film goes as the program's own viewer", async () => {
    const frames = await run("film", ({ Film }) => {
      const commit = (position, token) => ({ position, token, confidence: 0.5, text: `<${token}>` });
      const film = new Film({ header: { sampler: { seed: 1 } }, prompt_length: 1, tokens: 4 });
      const step = (more) =>
        film.apply({ nfe: 1, step: 0, block: 0, committed: [], stable: 0, object: "llada.step", ...more });
      step({ committed: [commit(2, 5), commit(3, 6)] });
      step({ committed: [commit(1, 7)], remasked: [2] });
      step({ inserted: [1, 2] });
      step({ committed: [commit(1, 8), commit(2, 9), commit(7, 4)] });
      film.close();
      const shown = (frame) =>
        film
          .frame(frame)
          .map(({ text, isAgain, isNew }) => (text ?? "░") + (isAgain ? "!" : "") + (isNew ? "+" : ""))
          .join(" ");
      return [0, 1, 2, 3, 4].map(shown);
    });
    // The last step opens position 7, and so 6, which the first canvas did not have.
    assert.deepEqual(frames, [
      "░ ░ ░ ░ ░",
      "░ <5> <6> ░ ░",
      "<7> ░! <6> ░ ░",
      "░+ ░+ <7> ░ <6> ░ ░",
      "<8> <9> <7> ░ <6> ░ <4>",
    ]);
  });

  test("characters of several tokens appear once complete", async () => {
    const read = (parts) => run("text", `({ read }) => read(${JSON.stringify(parts)})`);
    const day = [...Buffer.from("日")].map((byte) => [byte]);
    assert.deepEqual(await read([day[0], null, day[2], "a"]), ["⟨e6⟩", null, "⟨a5⟩", "a"]);
    assert.deepEqual(await read([...day, "a"]), ["日", "", "", "a"]);
    const bytes = [...Buffer.from(" Größe 王")];
    const cut = [
      bytes.slice(0, 4),
      bytes.slice(4, 6),
      bytes.slice(6, 9),
      bytes.slice(9, 10),
      bytes.slice(10),
    ];
    assert.equal((await read(cut)).join(""), " Größe 王");
  });

  test("a seed of 64 bits keeps its digits", async () => {
    const seed = await run("film", ({ Film }) => {
      const film = new Film({
        header: { model: '"seed":"1"', sampler: { seed: "18446744073709551615" } },
        tokens: 0,
      });
      return film.trace();
    });
    assert.ok(seed.includes('"seed":18446744073709551615'), seed);
    assert.equal(JSON.parse(seed).model, '"seed":"1"');
  });

  test("templates come back as they were", async () => {
    const templates = [
      "",
      "a{{hole}}",
      "{{hole:3}}{{hole}}b\nc",
      "a {{{hole:2}}",
      "\\{{hole}} {{hole}}",
      "x\\\\{{hole}}",
      "\\\\\\{{{{hole}}",
      "a\\b {{hole:9}} }}",
    ];
    const found = await run(
      "holes",
      `({ Holes }) => {
      const [root, bar] = [document.querySelector("#template"), document.querySelector("#infill .tools")];
      const holes = new Holes(root, bar, () => {});
      return ${JSON.stringify(templates)}.map((template) => ((holes.template = template), holes.template));
    }`,
    );
    assert.deepEqual(found, templates);
  });

  test("the ramp is that of the program", async () => {
    const colors = await run("palette", ({ hex }) => [0, 0.5, 1, 7, NaN, -1].map(hex));
    assert.deepEqual(colors, ["#7a68be", "#2daca2", "#fde725", "#fde725", "#7a68be", "#7a68be"]);
  });
});
