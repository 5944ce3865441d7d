// Chromium without a window, driven over its pipe: no package, no port, no driver beside it.

import { spawn } from "node:child_process";
import { accessSync, constants, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";

const NAMES = [
  "chromium",
  "chromium-browser",
  "google-chrome",
  "google-chrome-stable",
  "chrome",
  "microsoft-edge",
];
const APPS = [
  "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
  "C:\\Program Files\\Google\\Chrome\\Application\\chrome.exe",
];
const PATIENCE_MS = 20_000;

/** The program, by `CHROMIUM` or where it usually is; `null` if there is none. */
export function find() {
  const folders = (process.env.PATH ?? "").split(delimiter);
  const places = [
    process.env.CHROMIUM,
    ...NAMES.flatMap((name) => folders.map((folder) => join(folder, name))),
    ...APPS,
  ];
  return places.find((place) => place && isProgram(place)) ?? null;
}

function isProgram(path) {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** A browser that is running. */
export class Browser {
  #next = 0;
  #waiting = new Map();
  #listeners = [];
  #rest = "";

  constructor(program) {
    this.folder = mkdtempSync(join(tmpdir(), "llada-page-"));
    const flags = [
      "--headless=new",
      "--no-sandbox",
      "--remote-debugging-pipe",
      "--no-first-run",
      "--disable-gpu",
      "--hide-scrollbars",
    ];
    this.process = spawn(program, [...flags, `--user-data-dir=${this.folder}`, "about:blank"], {
      stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"],
    });
    this.process.stdio[4].setEncoding("utf8").on("data", (text) => this.#read(text));
    this.process.stdio[3].on("error", () => {});
  }

  /** Calls a method of the protocol. */
  send(method, params = {}, sessionId = undefined) {
    const id = ++this.#next;
    this.process.stdio[3].write(JSON.stringify({ id, method, params, sessionId }) + "\0");
    return new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject, method }));
  }

  /** Hears the events of the protocol. */
  listen(listener) {
    this.#listeners.push(listener);
  }

  /** A fresh page, which shares nothing with others. */
  async page({ width = 1280, height = 860, dark = false } = {}) {
    const { browserContextId } = await this.send("Target.createBrowserContext");
    const { targetId } = await this.send("Target.createTarget", { url: "about:blank", browserContextId });
    const { sessionId } = await this.send("Target.attachToTarget", { targetId, flatten: true });
    const page = new Page(this, sessionId, browserContextId);
    await page.open({ width, height, dark });
    return page;
  }

  async close() {
    const isOver = new Promise((resolve) => this.process.once("exit", resolve));
    this.send("Browser.close").catch(() => {});
    await isOver;
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 5 });
  }

  #read(text) {
    const messages = (this.#rest + text).split("\0");
    this.#rest = messages.pop();
    for (const { id, result, error, ...event } of messages.map((message) => JSON.parse(message))) {
      if (id === undefined) this.#listeners.forEach((listener) => listener(event));
      else this.#settle(id, result, error);
    }
  }

  #settle(id, result, error) {
    const { resolve, reject, method } = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (error) reject(new Error(`${method}: ${error.message}`));
    else resolve(result);
  }
}

/** One page of a browser, and all that it complained of and asked for. */
class Page {
  problems = [];
  requests = [];
  /** What it posted. */
  bodies = [];

  constructor(browser, sessionId, contextId) {
    Object.assign(this, { browser, sessionId, contextId });
    browser.listen((event) => event.sessionId === sessionId && this.#hear(event));
  }

  send(method, params) {
    return this.browser.send(method, params, this.sessionId);
  }

  async open({ width, height, dark }) {
    for (const domain of ["Page", "Runtime", "Log", "Network", "Accessibility"])
      await this.send(`${domain}.enable`);
    await this.resize(width, height);
    await this.media({ "prefers-color-scheme": dark ? "dark" : "light" });
  }

  resize(width, height) {
    return this.send("Emulation.setDeviceMetricsOverride", {
      width,
      height,
      deviceScaleFactor: 1,
      mobile: width < 600,
    });
  }

  /** Sets features of the medium, by name. */
  media(features) {
    const list = Object.entries(features).map(([name, value]) => ({ name, value }));
    return this.send("Emulation.setEmulatedMedia", { features: list });
  }

  async goto(url) {
    await this.send("Page.navigate", { url });
    await this.until(`document.readyState === "complete" && location.href !== "about:blank"`);
  }

  /** The value of an expression. */
  async value(expression) {
    const { result, exceptionDetails } = await this.send("Runtime.evaluate", {
      expression,
      awaitPromise: true,
      returnByValue: true,
      userGesture: true,
    });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  }

  /** Waits until an expression is true, and has its value. */
  async until(expression, patience = PATIENCE_MS) {
    const end = Date.now() + patience;
    for (;;) {
      const value = await this.value(expression).catch(() => false);
      if (value) return value;
      if (Date.now() > end) throw new Error(`in ${patience} ms never: ${expression}`);
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
  }

  type(text) {
    return this.send("Input.insertText", { text });
  }

  /** Presses a key by its name, such as `Enter`, with modifiers (1 Alt, 2 Ctrl, 8 Shift). */
  async press(key, modifiers = 0) {
    const text = { Enter: "\r", " ": " " }[key] ?? (key.length === 1 && !modifiers ? key : undefined);
    const code = {
      Enter: 13,
      Tab: 9,
      Escape: 27,
      " ": 32,
      ArrowLeft: 37,
      ArrowUp: 38,
      ArrowRight: 39,
      ArrowDown: 40,
      Home: 36,
      End: 35,
      Delete: 46,
      Backspace: 8,
    }[key];
    const common = { key, modifiers, windowsVirtualKeyCode: code ?? key.toUpperCase().charCodeAt(0) };
    await this.send("Input.dispatchKeyEvent", { type: text ? "keyDown" : "rawKeyDown", text, ...common });
    await this.send("Input.dispatchKeyEvent", { type: "keyUp", ...common });
  }

  /** The screen as a PNG. */
  async screenshot() {
    const { data } = await this.send("Page.captureScreenshot", { format: "png" });
    return Buffer.from(data, "base64");
  }

  /** Where downloads go from now on. */
  downloads(folder) {
    const { contextId: browserContextId } = this;
    return this.browser.send("Browser.setDownloadBehavior", {
      behavior: "allow",
      downloadPath: folder,
      browserContextId,
    });
  }

  close() {
    return this.browser.send("Target.disposeBrowserContext", { browserContextId: this.contextId });
  }

  #hear({ method, params }) {
    if (method === "Network.requestWillBeSent") {
      this.requests.push(params.request.url);
      if (params.request.postData) this.bodies.push(params.request.postData);
    }
    if (method === "Runtime.exceptionThrown")
      this.problems.push(params.exceptionDetails.exception?.description);
    if (method === "Runtime.consoleAPICalled" && params.type === "error")
      this.problems.push(JSON.stringify(params.args));
    if (method === "Log.entryAdded" && params.entry.level === "error")
      this.problems.push(`${params.entry.text} ${params.entry.url ?? ""}`);
  }
}
