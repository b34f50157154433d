// Windows of a real browser on the page, and what must hold for every one of them: no error, no violation of the content
// security policy, nothing loaded from elsewhere, every control named, text that can be read, no sideways scrolling.

import assert from "node:assert/strict";
import { chromium } from "playwright-core";

import { at } from "./harness.mjs";

const timeout = 60_000; // ms, for a machine that has much else to do

export async function launch() {
  return chromium.launch({
    executablePath: "/usr/bin/chromium",
    headless: true,
    args: [
      "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync", ...(at.scheme === "https" ? ["--ignore-certificate-errors"] : []),
    ],
  });
}

export const desktop = { viewport: { width: 1280, height: 900 }, colorScheme: "light" };
export const phone = { viewport: { width: 360, height: 740 }, colorScheme: "dark", isMobile: true, hasTouch: true };

export class Window {
  problems = [];

  // In a context of its own a window is another visitor; in the same one, another tab of the same.
  static async open(context, name) {
    const w = new Window();
    w.name = name;
    w.page = await context.newPage();
    w.page.setDefaultTimeout(timeout);
    w.page.on("console", (m) => ["error", "warning", "assert"].includes(m.type()) && w.problems.push(`console: ${m.text()}`));
    w.page.on("pageerror", (e) => w.problems.push(`error: ${e.stack}`));
    w.page.on("request", (r) => new URL(r.url()).host !== at.listen && w.problems.push(`loads ${r.url()}`));
    await w.page.addInitScript(watch);
    await w.page.goto(`${at.scheme}://${at.listen}/`);
    return w;
  }

  async join(name) {
    await this.page.locator("#guest").fill(name);
    await this.page.keyboard.press("Enter");
    await this.live();
  }

  live() { return this.page.locator('body[data-connection="live"]').waitFor(); }
  token() { return this.page.evaluate(() => localStorage.getItem("tote.token")); }
  card(pool) { return this.page.locator(`.card[data-pool="${pool}"]`); }
  outcome(pool, outcome) { return this.card(pool).locator(`.outcome[data-outcome="${outcome}"]`); }
  text(selector) { return this.page.locator(selector).textContent(); }

  // Waits until the balance reads so; it counts up or down to it.
  balance(text) { return this.page.locator("#balance", { hasText: new RegExp(`^${text}$`) }).waitFor(); }
  notice(pool, text) { return this.card(pool).locator(".notice", { hasText: text }).waitFor(); }
  toast(text) { return this.page.waitForFunction((t) => globalThis.toasts.includes(t), text); } // shown, and perhaps gone again

  // Everything the window has shown of odds, in order: {pool, seq, from, odds, at}.
  shown() { return this.page.evaluate(() => globalThis.shown); }

  // Waits until the window has shown a pool's odds of this seq.
  async shows(pool, seq) {
    await this.page.waitForFunction(([p, s]) => globalThis.shown.some((x) => x.pool === p && x.seq === s), [pool, seq]);
  }

  async picture(name, options) {
    await this.page.screenshot({ path: `${at.shots}/${name}.png`, ...options });
  }

  // What must hold at any time, once nothing moves.
  async check(when) {
    await this.page.evaluate(() => Promise.allSettled(document.getAnimations().map((a) => a.finished)));
    const found = await this.page.evaluate(inspect);
    assert.deepEqual([...this.problems, ...found], [], `${this.name}, ${when}`);
  }
}

// Runs in the page before anything else: notes what is shown, also for a moment only, and violations of the policy.
function watch() {
  globalThis.shown = [];
  globalThis.toasts = [];
  globalThis.violations = [];
  addEventListener("securitypolicyviolation", (e) => globalThis.violations.push(`${e.violatedDirective} ${e.blockedURI}`));
  const last = new Map(); // seq by pool
  const note = (card) => {
    const { pool, seq, from } = card.dataset;
    if (seq === undefined || last.get(pool) === seq) return;
    last.set(pool, seq);
    const odds = [...card.querySelectorAll(".outcome")].map((o) => [o.querySelector(".x").textContent, Number(o.dataset.staked)]);
    globalThis.shown.push({ pool: Number(pool), seq: Number(seq), from, odds, at: performance.timeOrigin + performance.now() });
  };
  const observer = new MutationObserver((changes) => {
    for (const c of changes) {
      if (c.type === "attributes") note(c.target);
      for (const added of c.addedNodes) {
        if (added.matches?.(".card")) note(added);
        if (added.matches?.(".toast")) globalThis.toasts.push(added.textContent);
      }
    }
  });
  document.addEventListener("DOMContentLoaded", () =>
    observer.observe(document.body, { subtree: true, childList: true, attributes: true, attributeFilter: ["data-seq"] }));
}

// Runs in the page: what a visitor who hears, types or squints would trip over.
function inspect() {
  const problems = [...globalThis.violations];
  const visible = (e) => e.checkVisibility({ visibilityProperty: true, contentVisibilityAuto: true });
  const named = (e) => {
    const by = e.getAttribute("aria-labelledby")?.split(" ").map((id) => document.getElementById(id)?.textContent ?? "").join(" ");
    return (e.getAttribute("aria-label") || by || [...(e.labels ?? [])].map((l) => l.textContent).join(" ") || "").trim();
  };
  for (const e of document.querySelectorAll("input, select, textarea")) if (!named(e)) problems.push(`no label: ${e.outerHTML}`);
  for (const e of document.querySelectorAll("button, a[href], summary")) {
    if (visible(e) && !named(e) && !e.textContent.trim()) problems.push(`no name: ${e.outerHTML}`);
  }
  for (const e of document.querySelectorAll("[role=radiogroup], [role=group], [role=log], nav, section, aside")) {
    if (visible(e) && !named(e)) problems.push(`no name: ${e.cloneNode().outerHTML}`);
  }
  for (const e of document.querySelectorAll("[aria-labelledby], [for]")) {
    for (const id of (e.getAttribute("aria-labelledby") ?? e.getAttribute("for")).split(" ")) {
      if (!document.getElementById(id)) problems.push(`names ${id}, which is not there: ${e.cloneNode().outerHTML}`);
    }
  }
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) problems.push(`two elements are ${id}`);
  if (!document.documentElement.lang || !document.title) problems.push("the page has no language or title");
  if (document.querySelectorAll("main").length !== 1) problems.push("the page has no main part");
  const levels = [...document.querySelectorAll("h1, h2, h3")].filter(visible).map((h) => Number(h.tagName[1]));
  levels.forEach((level, i) => level > (levels[i - 1] ?? 0) + 1 && problems.push(`a heading of level ${level} after ${levels[i - 1]}`));
  const { scrollWidth, clientWidth } = document.documentElement;
  if (scrollWidth > clientWidth) problems.push(`scrolls sideways: ${scrollWidth} in ${clientWidth}`);
  for (const e of document.querySelectorAll("button, summary, .outcome label")) {
    const { width, height } = e.getBoundingClientRect();
    if (visible(e) && (width < 24 || height < 24)) problems.push(`small for a finger, ${width} × ${height}: ${e.outerHTML}`);
  }

  // Contrast of text, WCAG 2.1: 4.5 to 1, large text 3 to 1. Disabled controls are exempt.
  const rgba = (color) => {
    const [r, g, b, a = 1] = color.match(/[\d.]+/g).map(Number);
    return [r, g, b, a];
  };
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((c) => ((c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const color = rgba(getComputedStyle(e).backgroundColor);
      if (color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const moving = document.getAnimations().map((a) => a.effect.target); // began meanwhile
  for (const e of document.querySelectorAll("body *")) {
    const text = [...e.childNodes].filter((n) => n.nodeType === 3).map((n) => n.data.trim()).join("");
    if (!text || !visible(e) || e.closest(":disabled, noscript, .skip") || moving.some((m) => m.contains(e))) continue;
    const style = getComputedStyle(e);
    const [one, two] = [luminance(rgba(style.color)), luminance(behind(e))].sort((a, b) => b - a);
    const ratio = (one + 0.05) / (two + 0.05);
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5)) problems.push(`contrast ${ratio.toFixed(2)}: ${text.slice(0, 40)} (${e.className})`);
  }
  return problems;
}
