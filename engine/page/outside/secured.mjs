// The page over https, which speaks wss: a visitor predicts and sees the odds, and nothing is loaded without TLS.

import assert from "node:assert/strict";

import { Admin } from "./admin.mjs";
import { desktop, launch, Window } from "./browser.mjs";
import { at } from "./harness.mjs";

const admin = new Admin(at.admin);
const browser = await launch();
const game = await admin.openGame({ name: "Argentina v France", teams: ["Argentina", "France"], interval: 100_000 });
await admin.event(game, { kind: "kickoff", minute: 1, team: 0, score: [0, 0] });
const pool = await admin.openPool(game, { question: "Who wins?", labels: ["Argentina", "Draw", "France"] });

const ada = await Window.open(await browser.newContext(desktop), "desktop");
const sockets = [];
ada.page.on("websocket", (s) => sockets.push(s.url()));
await ada.join("Ada");
await ada.outcome(pool, 0).locator("label").click();
await ada.card(pool).getByRole("button", { name: "100", exact: true }).click();
await ada.card(pool).getByRole("button", { name: "Predict 100 on Argentina" }).click();
await ada.notice(pool, "Your prediction stands: 100 on Argentina.");
await ada.balance("9,900");
await ada.page.locator(`.card[data-pool="${pool}"] .outcome[data-staked="100"]`).first().waitFor();
assert.equal(await ada.page.evaluate(() => isSecureContext && location.protocol), "https:");
assert.ok(sockets.every((url) => url === `wss://${at.listen}/ws`), `${sockets}`);
await ada.check("over TLS");
await browser.close();
