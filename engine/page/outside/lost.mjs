// The server is killed while somebody watches: the page says so, keeps its picture, and comes back by itself.

import assert from "node:assert/strict";

import { Admin } from "./admin.mjs";
import { desktop, launch, Window } from "./browser.mjs";
import { ask, at } from "./harness.mjs";

const admin = new Admin(at.admin);
const browser = await launch();
const game = await admin.openGame({ name: "Argentina v France", teams: ["Argentina", "France"], interval: 100_000 });
await admin.event(game, { kind: "kickoff", minute: 1, team: 0, score: [0, 0] });
const pool = await admin.openPool(game, { question: "Who wins?", labels: ["Argentina", "Draw", "France"] });

const ada = await Window.open(await browser.newContext(desktop), "desktop");
await ada.join("Ada");
await predict("100");
await ada.notice(pool, "Your prediction stands: 100 on Argentina.");
await ada.balance("9,900");
await ada.check("before");

// A prediction is on its way when the server dies: it was never read, so it was never made.
await ask("freeze");
await predict("500");
await ada.card(pool).getByRole("button", { name: "Sending…" }).waitFor();
await ask("kill");
await ada.page.locator('body[data-connection="lost"]').waitFor();
await ada.page.locator("#connection-text", { hasText: "Connection lost" }).waitFor();
await ada.notice(pool, "The connection was lost.");
assert.equal(await ada.text("#balance"), "9,900");
assert.equal(await ada.card(pool).locator(".outcome").count(), 3, "the picture stays");
await ada.picture("desktop-lost");

await ask("restart");
await ada.live();
// Its fate is told: sent again under the same id it stands once; or too much time had passed, and nothing was taken.
const fate = ada.card(pool).locator(".notice", { hasText: /Your prediction stands: 500|Nothing was taken/ });
await fate.waitFor();
const stands = (await fate.innerText()).startsWith("Your");
console.log(`the prediction that was on its way ${stands ? "stands" : "was not placed"}`);
await ada.balance(stands ? "9,400" : "9,900");
await ada.page.locator(`.card[data-pool="${pool}"] .outcome[data-staked="${stands ? 600 : 100}"]`).waitFor();
assert.equal(await ada.page.locator("#mine .own").count(), stands ? 2 : 1);

if (!stands) await ada.card(pool).getByRole("button", { name: "Cancel" }).click();
await predict("50");
await ada.notice(pool, "Your prediction stands: 50 on Argentina.");
await ada.balance(stands ? "9,350" : "9,850");
const { problems } = ada;
ada.problems = problems.filter((p) => !/WebSocket connection to .* failed/.test(p)); // the browser's own word on a server that is away
await ada.check("after");
await browser.close();

async function predict(chip) {
  await ada.outcome(pool, 0).locator("label").click();
  await ada.card(pool).getByRole("button", { name: chip, exact: true }).click();
  await ada.card(pool).getByRole("button", { name: `Predict ${chip} on Argentina` }).click();
}
