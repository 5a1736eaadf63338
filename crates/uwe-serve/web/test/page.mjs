// Drives the page in a real browser, with a real service: types, hovers, walks by keyboard, pastes a vacancy, compares, and looks for faults
// of accessibility.
//
// usage: npm test -- PROGRAM [FOLDER FOR SCREENSHOTS]
//   PROGRAM is the `uwe` command; CHROMIUM names the browser (/usr/bin/chromium). With DIST=dist the page's files come from there and not
//   from the program, which need not be built again.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const [program, pictures] = process.argv.slice(2);
if (!program) {
  console.error("usage: npm test -- PROGRAM [FOLDER]");
  process.exit(2);
}
if (pictures) mkdirSync(pictures, { recursive: true });
const axe = readFileSync(new URL("../node_modules/axe-core/axe.min.js", import.meta.url), "utf8");
const folder = mkdtempSync(join(tmpdir(), "uwe-page-"));

const VACANCY = `Bakery assistant (m/f/d), early shift

We are a family bakery with twelve branches. Our company car park is free.
- You knead dough and shape rolls by hand.
- You look after the ovens and clean the machines at the end of the shift.
- You have worked in a kitchen and know the rules of food hygiene.
Employees get a discount of 20 percent.`;

/** Starts the service and waits for its address. */
function serve() {
  const child = spawn(program, ["serve", "--listen", "127.0.0.1:0", "--data", folder], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  return new Promise((resolve, reject) => {
    child.on("exit", (code) => reject(new Error(`the service ended with ${code}`)));
    createInterface({ input: child.stderr }).on("line", (line) => {
      const address = /serving on (http:\/\/[^;]+)/.exec(line)?.[1];
      if (address) resolve({ child, address });
    });
  });
}

const { child, address } = await serve();
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox"],
});

/** A page with nothing in its console, and nothing asked of anybody else. */
async function open(options) {
  const context = await browser.newContext({ ...options, permissions: ["clipboard-read", "clipboard-write"] });
  const page = await context.newPage();
  const faults = [];
  page.on("console", (message) => message.type() === "error" && faults.push(message.text()));
  page.on("pageerror", (error) => faults.push(String(error)));
  page.on("request", (request) => request.url().startsWith(address) || faults.push(`asked ${request.url()}`));
  for (const file of process.env.DIST ? ["index.html", "app.js", "app.css"] : []) {
    const at = file === "index.html" ? address + "/" : `${address}/${file}`;
    await page.route(at, (route) => route.fulfill({ path: join(process.env.DIST, file) }));
  }
  await page.goto(address);
  await page.waitForSelector("select option", { state: "attached" });
  return { page, faults };
}

async function picture(page, name) {
  if (pictures) await page.screenshot({ path: join(pictures, `page-${name}.png`), fullPage: true });
}

/** No fault of accessibility that is serious or worse. */
async function accessible(page, where) {
  // The page's policy lets no script in; the browser's own evaluation is not bound by it.
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  const serious = violations.filter(({ impact }) => impact === "serious" || impact === "critical");
  const told = serious.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`);
  assert.deepEqual(told, [], `accessibility, ${where}`);
}

const hits = (page) => page.locator(".hit");

try {
  const { page, faults } = await open({ viewport: { width: 1200, height: 900 } });
  assert.equal(await page.evaluate(() => document.activeElement?.id), "text", "one can type at once");
  await page.keyboard.type("night nurse on a geriatric ward");
  await hits(page).first().waitFor();
  assert.equal(await hits(page).count(), 12);
  assert.match(await page.locator(".status").innerText(), /12 hits, [\d.]+ ms/);
  // Hover lights words up in both texts.
  await hits(page).first().hover();
  assert.ok((await page.locator(".query mark").count()) > 0, "words of the query");
  assert.ok((await page.locator(".hit.chosen .name mark").count()) > 0, "words of the hit");
  assert.match(await page.locator(".hit.chosen .why").innerText(), /\d+ %/);
  await picture(page, "evidence");
  await accessible(page, "evidence");
  // The same by keyboard.
  await page.locator("h1").hover();
  await page.locator("#text").focus();
  for (let step = 0; step < 12 && !(await page.evaluate(() => document.activeElement?.matches(".hit .row"))); step++) {
    await page.keyboard.press("Tab");
  }
  await page.keyboard.press("Tab");
  assert.equal(await page.locator(".hit.chosen .place").innerText(), "2", "the second hit has the focus");
  // Copies.
  for (const [name, form] of [
    ["CSV", /^query,rank,target,id,score\n.*night nurse/],
    ["JSON", /^\[\n.*"query"/s],
    ["curl", /^curl http.*\/v1\/rank/],
  ]) {
    await page.getByRole("button", { name, exact: true }).click();
    assert.match(await page.evaluate(() => navigator.clipboard.readText()), form);
  }
  await page.getByRole("button", { name: "CSV", exact: true }).waitFor();
  // Two scorers side by side.
  await page.getByLabel("Compare with").selectOption("cosine");
  await page.locator(".columns > div:nth-child(2) .hit").first().waitFor();
  await picture(page, "compare");
  await accessible(page, "compare");
  await page.getByLabel("Compare with").selectOption("none");
  // A vacancy, sentence by sentence, with a threshold.
  await page.locator("#text").fill(VACANCY);
  await page.locator('input[type="range"]').waitFor();
  await page.locator(".result").first().waitFor();
  const slide = async (value) => {
    await page.locator('input[type="range"]').fill(String(value));
    await page.waitForTimeout(600);
    return hits(page).count();
  };
  const [many, few] = [await slide(0.1), await slide(0.7)];
  assert.ok(many > few, `a higher threshold leaves fewer: ${many}, ${few}`);
  await slide(0.55);
  await picture(page, "vacancy");
  await accessible(page, "vacancy");
  assert.deepEqual(faults, []);

  const phone = await open({ viewport: { width: 360, height: 740 }, colorScheme: "dark", hasTouch: true });
  await phone.page.locator("#text").fill("pastry chef");
  await hits(phone.page).first().waitFor();
  await hits(phone.page).first().tap();
  const width = await phone.page.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(width <= 360, `nothing is wider than the phone: ${width}`);
  await picture(phone.page, "phone-dark");
  await accessible(phone.page, "phone, dark");
  assert.deepEqual(phone.faults, []);
  console.log("the page works");
} finally {
  await browser.close();
  child.removeAllListeners("exit");
  child.kill("SIGTERM");
  rmSync(folder, { recursive: true, force: true });
}
