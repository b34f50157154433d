// Two visitors, one on a desktop and one on a phone, see the same odds; they predict, and are paid or not.

import assert from "node:assert/strict";

import { credits, estimate, multiplier } from "../web/money.js";
import { Admin } from "./admin.mjs";
import { desktop, launch, phone, Window } from "./browser.mjs";
import { at } from "./harness.mjs";
import { Player } from "./player.mjs";

const rounds = 24;
const admin = new Admin(at.admin);
const browser = await launch();

// The market: a match with a question of its own, and one by hand whose words try to be more than words.
const game = await admin.openGame({
  name: "World Cup 2022, final", teams: ["Argentina", "France"], interval: 100_000, shortlist: [],
  templates: [{
    name: "next team", question: "Which team scores next?", opens: 'event.kind == "kickoff" || event.kind == "goal"',
    outcomes: [
      { label: "{team1}", wins: 'event.kind == "goal" && event.team == 1' },
      { label: "{team2}", wins: 'event.kind == "goal" && event.team == 2' },
      { label: "No more goals", wins: 'event.kind == "end"' },
    ],
  }],
});
const crowd = await Promise.all(["Bo", "Cy", "Di", "Eve"].map((guest) => Player.connect(at.listen, { guest })));
for (const p of crowd) await p.request("join", { game });
const [bo] = crowd;
const { opened: [next] } = await admin.event(game, { kind: "kickoff", minute: 1, team: 0, score: [0, 0] });
const markup = '<img src="/x" onerror="alert(1)"><b>Who</b> is "first"?';
const odd = await admin.openPool(game, { question: markup, labels: ["<b>A</b>", "B & C", "C", "D", "E", "F"], stake_max: 200 });

// The visitors
const ada = await Window.open(await browser.newContext(desktop), "desktop");
await ada.check("welcome");
await ada.join("Ada <i>Lovelace</i>");
const phoneContext = await browser.newContext(phone);
const max = await Window.open(phoneContext, "phone");
await max.picture("phone-welcome");
await max.check("welcome");
await max.join("Max");
for (const w of [ada, max]) {
  await w.card(next).waitFor();
  await w.card(odd).waitFor();
  assert.equal(await w.text("#result"), "0–0");
  await w.check("joined");
}
assert.equal(await ada.text("#name"), "Ada <i>Lovelace</i>");
assert.equal(await ada.card(odd).locator("h3").innerText(), markup);
assert.equal(await ada.card(odd).locator("b, img").count(), 0, "names are text and nothing else");

await whoIsHere();
await sameOdds();
await predictions();
await results();
await asking();
await circles();
await tabs();
await nextMatch();

for (const w of [ada, max]) await w.check("at the end");
for (const p of crowd) p.leave();
await browser.close();

// Six are here: both visitors see everybody's name, as text, and the time that a message takes to each other and back.
async function whoIsHere() {
  for (const [w, other] of [[ada, "Max"], [max, "Ada <i>Lovelace</i>"]]) {
    const people = w.page.locator("#people li");
    await w.page.waitForFunction(() => document.querySelectorAll("#people li").length === 6);
    await people.filter({ hasText: other }).filter({ hasText: / ms/ }).waitFor();
    assert.equal(await people.locator("i, b").count(), 0, "names are text and nothing else");
    assert.equal(await people.locator("xpath=self::*[contains(@class,'own')]").count(), 1, "oneself is told apart");
  }
}

// Each distribution that the crowd causes is shown by both windows, with the same odds.
async function sameOdds() {
  const begin = bo.broadcasts.length;
  const odds = () => bo.broadcasts.slice(begin).filter((m) => m.type === "odds");
  for (let i = 0; i < rounds; i++) {
    const p = crowd[i % crowd.length];
    await p.stake(i % 4 === 3 ? odd : next, i % 3, 20 + ((i * 37) % 90));
    await bo.until("odds", () => odds()[i]);
  }
  const told = odds();
  for (const w of [ada, max]) await w.shows(told.at(-1).pool, told.at(-1).seq);
  const [one, two] = await Promise.all([ada.shown(), max.shown()]);
  const late = [];
  for (const m of told) {
    const want = m.odds.map((o) => [multiplier(o.x), o.staked]);
    const [a, b] = [one, two].map((all) => all.find((x) => x.pool === m.pool && x.seq === m.seq));
    assert.deepEqual(a.odds, want, `desktop: odds of seq ${m.seq}`);
    assert.deepEqual(b.odds, want, `phone: odds of seq ${m.seq}`);
    late.push(Math.abs(a.at - b.at));
  }
  for (const all of [one, two]) {
    const seqs = all.filter((x) => x.from === "odds").map((x) => x.seq);
    assert.deepEqual(seqs, seqs.toSorted((a, b) => a - b), "distributions are shown in their order");
  }
  late.sort((a, b) => a - b);
  const ms = (x) => `${x.toFixed(1)} ms`;
  console.log(`${told.length} distributions, the same in both windows; shown ${ms(late[late.length >> 1])} apart (median), ${ms(late.at(-1))} at most`);
}

// One predicts by clicking, the other by keyboard alone.
async function predictions() {
  const before = structuredClone(bo.pools.get(next));
  await ada.outcome(next, 0).locator("label").click();
  await ada.card(next).getByRole("button", { name: "50", exact: true }).click();
  await ada.check("slip");
  assert.match(await ada.card(next).locator(".estimate").innerText(), new RegExp(`about ${credits(estimate(before, 0, 50))}\\.$`));
  await ada.picture("desktop-slip");
  await ada.card(next).getByRole("button", { name: "Predict 50 on Argentina" }).click();
  await ada.notice(next, "Your prediction stands: 50 on Argentina.");
  await ada.balance("9,950");
  await max.page.locator(`.card[data-pool="${next}"] .outcome[data-staked="${before.odds[0].staked + 50}"]`).waitFor();
  assert.equal(await ada.outcome(next, 0).locator(".mine-here").innerText(), "You: 50");

  // Tab to the outcomes, Space picks France, Tab to the amount, type it, Enter.
  await max.page.locator("#questions").focus();
  await max.page.keyboard.press("Tab");
  await max.page.keyboard.press("Space"); // the first outcome
  await max.page.keyboard.press("ArrowDown");
  await max.page.keyboard.press("Tab");
  await max.page.keyboard.press("ControlOrMeta+A");
  await max.page.keyboard.type("20,000");
  await max.card(next).locator(".estimate").getByText("You have 10,000 credits.").waitFor();
  await max.page.keyboard.press("Enter");
  assert.equal(await max.card(next).locator("input[aria-invalid=true]").count(), 1);
  await max.page.keyboard.press("ControlOrMeta+A");
  await max.page.keyboard.type("120");
  await max.check("slip");
  await max.picture("phone-slip");
  await max.page.keyboard.press("Enter");
  await max.notice(next, "Your prediction stands: 120 on France.");
  await max.balance("9,880");
  await ada.page.locator(`.card[data-pool="${next}"] .outcome[data-staked="${before.odds[1].staked + 120}"]`).waitFor();

  // What the server refuses is told in words, and nothing is taken. A slip goes with the lock of its question.
  await max.outcome(odd, 1).locator("label").click();
  await max.card(odd).getByRole("button", { name: "500", exact: true }).click();
  await max.card(odd).getByRole("button", { name: "Predict 500 on B & C" }).click();
  await max.notice(odd, "That is more than this question takes at once.");
  await max.balance("9,880");
  await admin.lock(odd);
  await max.page.locator(`.card[data-pool="${odd}"][data-state="locked"]`).waitFor();
  assert.equal(await max.card(odd).locator(".slip").isVisible(), false);
  assert.equal(await max.card(odd).locator("input:enabled[type=radio]").count(), 0);
}

// A goal for Argentina: one is paid, to the unit, and the other is not.
async function results() {
  const mirror = await Player.connect(at.listen, { token: await ada.token() }); // the same account
  await admin.event(game, { kind: "goal", minute: 23, team: 1, player: "Lionel Messi", score: [1, 0] });
  const payout = await mirror.until("payout", () => mirror.privates.find((m) => m.type === "payout"));
  const { settled, odds } = await bo.until("settled", () => bo.pools.get(next).settled && bo.pools.get(next));
  const exact = (settled.gross * 50) / odds[0].staked;
  assert(Math.abs(payout.payout - exact) < 1, `${payout.payout} is ${exact} but for its fraction`);
  await ada.toast(`Which team scores next? Argentina, as you said: 50 became ${payout.payout}.`);
  await ada.balance(credits(payout.balance));
  await max.toast("Which team scores next? It was Argentina, not France: 120 lost.");
  await max.balance("9,880");
  for (const w of [ada, max]) {
    await w.card(next).locator(".outcome.won").getByText("Argentina").waitFor({ state: "attached" }); // it folds away soon
    assert.equal(await w.page.locator("#results .own").count(), 1);
    await w.page.locator("#events").getByText("Goal for Argentina Lionel Messi").waitFor();
    await w.check("a goal");
  }
  assert.match(await max.text("#results"), /−120/);
  await whatWas(payout);
  await ada.picture("desktop-goal");
  await max.picture("phone-goal");
  await ada.page.emulateMedia({ colorScheme: "dark" });
  await max.page.emulateMedia({ colorScheme: "light" });
  for (const w of [ada, max]) {
    await w.check("the other colours");
    await w.picture(`${w.name}-other-colours`, { fullPage: true });
  }
  // Decided cards fold away by themselves.
  await ada.page.locator("#decided summary").getByText("Which team scores next?").waitFor();
  mirror.leave();
}

// The statement and the ladder are there for whoever opens them.
async function whatWas(payout) {
  await ada.page.locator("#statement-part summary").click();
  const lines = ada.page.locator("#statement .line");
  await lines.nth(2).waitFor();
  const told = await lines.evaluateAll((all) => all.map((l) => [l.dataset.kind, ...[...l.querySelectorAll(".what, .figure")].map((e) => e.textContent)]));
  assert.deepEqual(told, [["payout", "Argentina: right", `+${payout.payout}`], ["stake", "Argentina", "−50"], ["opened", "Welcome", "+10,000"]]);
  const { account } = await bo.request("account");
  await max.page.locator("#leaders-part summary").click();
  const own = max.page.locator("#leaders .own-line");
  await own.waitFor();
  assert.match(await own.innerText(), /Max\s+−120/);
  assert.match(await max.page.locator("#leaders .line").first().innerText(), /^1\. /);
  assert.equal(await max.page.locator(`#leaders [data-account="${account}"]`).count(), 1, "the others are there too");
  for (const w of [ada, max]) await w.check("what was");
  await ada.picture("desktop-statement", { fullPage: true });
}

// A visitor asks, the other predicts, and challenges what the first one says.
async function asking() {
  await ada.page.locator("#ask-part summary").click();
  await ada.page.getByLabel("The question").fill("Who takes the <i>next</i> corner?");
  await ada.page.getByLabel("The answers, one in a line").fill("Argentina\n\n France ");
  await ada.check("asking");
  await ada.page.getByRole("button", { name: "Ask", exact: true }).click();
  await ada.page.locator("#ask-form .notice", { hasText: "It is open." }).waitFor();
  const { pool } = await bo.until("the question", () => [...bo.pools.values()].find((p) => p.asked?.name.startsWith("Ada")));
  await max.card(pool).locator(".asker", { hasText: "asked by Ada <i>Lovelace</i>, who says how it ends" }).waitFor();
  await max.outcome(pool, 0).locator("label").click();
  await max.card(pool).getByRole("button", { name: "10", exact: true }).click();
  await max.card(pool).getByRole("button", { name: "Predict 10 on Argentina" }).click();
  await max.notice(pool, "Your prediction stands: 10 on Argentina.");
  await max.card(pool).getByRole("button", { name: "Report" }).click();
  await max.notice(pool, "You have reported it.");
  await admin.lock(pool);
  await ada.card(pool).getByRole("button", { name: "It was France" }).click();
  await ada.notice(pool, "You have said how it ended.");
  await max.card(pool).locator(".asker", { hasText: /says France; \d+:\d\d to challenge/ }).waitFor();
  await max.check("a claim");
  await max.picture("phone-claim");
  await max.card(pool).getByRole("button", { name: "Challenge" }).click();
  await ada.card(pool).locator(".asker", { hasText: "says France; challenged" }).waitFor();
  await admin.void(pool, "nobody knows");
  await max.balance("9,880");
  await ada.toast("Your question “Who takes the <i>next</i> corner?” was called off.");
}

// A circle's room is the match, for its members alone; and one comes back from it.
async function circles() {
  await max.page.locator("#circles-part summary").click();
  await max.page.getByLabel("A name for a new circle, or an invitation").fill("Row 12");
  await max.page.keyboard.press("Enter");
  await max.page.locator("#circle-form .notice", { hasText: "You are in Row 12." }).waitFor();
  const row = max.page.locator("#circles .line", { hasText: "Row 12" });
  await row.getByRole("button", { name: "Members" }).click();
  const shown = await row.locator(".detail", { hasText: "Invite with" }).innerText();
  await max.check("a circle");
  await row.getByRole("button", { name: "Play" }).click();
  await max.page.locator("#match-name", { hasText: "Row 12" }).waitFor();
  assert.equal(await max.page.locator(".card").count(), 0, "a room has questions of its own");

  await ada.page.locator("#circles-part summary").click();
  await ada.page.getByLabel("A name for a new circle, or an invitation").fill(shown.match(/\d+-\d+/)[0]);
  await ada.page.keyboard.press("Enter");
  await ada.page.locator("#circles .line").getByRole("button", { name: "Leave" }).click();
  await ada.page.locator("#circles .line").waitFor({ state: "detached" });

  await max.page.getByRole("navigation", { name: "Also on" }).getByRole("button", { name: "World Cup 2022, final" }).click();
  await max.page.locator("#match-name", { hasText: "World Cup 2022, final" }).waitFor();
}

// Another tab of the same visitor shares the account: both see the receipt.
async function tabs() {
  const tab = await Window.open(phoneContext, "second tab");
  await tab.live();
  await tab.balance("9,880");
  const pool = [...bo.pools.values()].findLast((p) => p.question.startsWith("Which team")).pool;
  await tab.outcome(pool, 2).locator("label").click();
  await tab.card(pool).getByRole("button", { name: "10", exact: true }).click();
  await tab.card(pool).getByRole("button", { name: "Predict 10 on No more goals" }).click();
  for (const w of [tab, max]) {
    await w.balance("9,870");
    await w.page.locator("#mine .own").getByText("No more goals").waitFor();
  }
  await tab.check("second tab");
}

// When the match is over, the page shows the result for a moment and goes on with the next match.
async function nextMatch() {
  await admin.event(game, { kind: "end", minute: 90, team: 1, score: [1, 0] });
  for (const w of [ada, max]) await w.page.locator("#phase", { hasText: "Final result" }).waitFor();
  const other = await admin.openGame({ name: "Japan v Spain", teams: ["Japan", "Spain"], interval: 100_000 });
  const later = await admin.openGame({ name: "Brazil v Croatia", teams: ["Brazil", "Croatia"], interval: 100_000 });
  const { t } = await bo.request("time", { sent: 1 });
  const pool = await admin.openPool(later, { question: "Who wins?", labels: ["Brazil", "Croatia"], locks_at: t + 3_000_000_000 });
  await max.toast("Which team scores next? No more goals, as you said: 10 became 10."); // all alone on it
  for (const w of [ada, max]) {
    await w.card(pool).waitFor();
    assert.equal(await w.text("#team-1"), "Brazil");
    await w.card(pool).locator(".badge", { hasText: /^Locks in (50:00|4\d:\d\d)$/ }).waitFor();
    assert.equal(await w.page.locator(".card").count(), 1, "the questions of the last match are gone");
    await w.check("the next match");
  }
  assert.match(await max.text("#results"), /Which team scores next\?/, "results stay");

  const third = await admin.openPool(other, { question: "Who wins?", labels: ["Japan", "Spain"] });
  await ada.page.getByRole("navigation", { name: "Also on" }).getByRole("button", { name: "Japan v Spain" }).click();
  await ada.card(third).waitFor();
  assert.equal(await ada.text("#team-1"), "Japan");
}
