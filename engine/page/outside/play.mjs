// Plays a whole match as twelve players, and recomputes every payout. Everybody in the game is one of ours, so whatever
// the server says about money can be said here too, from the receipts alone.
//
// Asks for the feed when the match may begin, and ends with the match.

import assert from "node:assert/strict";
import { setTimeout as pause } from "node:timers/promises";

import { Admin } from "./admin.mjs";
import { ask, at } from "./harness.mjs";
import { Player } from "./player.mjs";
import { split, takeout } from "./tote.mjs";

const admin = new Admin(at.admin);

let deposits = 0; // less withdrawals
let house = 0; // takeout of settled pools
const placed = []; // stakes of the match, each a promise that it has an answer
const players = await everybody();
const [ada, bo, cy, di] = players;
const twin = await Player.connect(at.listen, { token: ada.token }); // Ada's second window
assert.equal(twin.account, ada.account);

await byHand();
const known = new Set((await ada.request("games")).games.map((g) => g.game));
await ask("feed");
await match();
await audit();
for (const p of [...players, twin]) p.leave();

// Eight guests, and four whom the operator knows.
async function everybody() {
  const names = ["Ada", "Bo", "Cy", "Di", "Eve", "Flo", "Gus", "Hal", "Ida", "Jo", "Kim", "Lu"];
  return Promise.all(names.map(async (name, i) => {
    const known = i < 4 ? await admin.openAccount(name, 20_000 + i) : undefined;
    const player = await Player.connect(at.listen, known ? { token: known.token } : { guest: name });
    assert.equal(player.welcome.name, name);
    assert(known ? known.account === player.account : player.welcome.token, "a guest gets a token, others have one");
    deposits += player.welcome.balance;
    return player;
  }));
}

// What an operator can do to a pool, in a game of its own: the worked row of the specification, a winner nobody backed, a
// void, and a lock in time. Then money that comes and goes.
async function byHand() {
  const game = await admin.openGame({ name: "By hand", teams: ["", ""], interval: 100_000 });
  for (const p of [...players, twin]) await p.request("join", { game });
  await admin.event(game, { kind: "kickoff", minute: 0, team: 0, score: [0, 0] });
  const ask = (more) => admin.openPool(game, { question: "Who?", labels: ["A", "B", "C"], ...more });
  const state = (pool, state) => Promise.all([...players, twin].map((p) => p.until(state, () => p.pools.get(pool)?.state === state)));

  const row = await ask({ takeout: 1500 });
  await state(row, "open");
  const stakes = [[ada, 0, 333], [bo, 0, 333], [cy, 0, 334], [di, 1, 1001]];
  for (const [p, outcome, amount] of stakes) await p.stake(row, outcome, amount);
  await admin.lock(row);
  await state(row, "locked");
  assert.equal((await ada.refusal(ada.stake(row, 0, 10))).code, "pool_locked");
  await admin.settle(row, 0);
  await state(row, "settled");
  for (const [p, want] of [[ada, 567], [bo, 566], [cy, 568]]) {
    const payout = await p.until("payout", () => p.privates.find((m) => m.type === "payout" && m.pool === row));
    assert.equal(payout.payout, want, "a worked row of the specification: 1701 among 333, 333 and 334");
  }
  assert.equal((await ada.refusal(ada.stake(row, 0, 10))).code, "pool_settled");

  const unbacked = await ask({ takeout: 1500 });
  await state(unbacked, "open");
  await ada.stake(unbacked, 0, 77);
  await bo.stake(unbacked, 1, 33);
  await admin.lock(unbacked);
  await admin.settle(unbacked, 2);
  await state(unbacked, "settled");
  for (const p of [ada, bo]) await p.until("refund", () => p.privates.some((m) => m.type === "refund" && m.pool === unbacked));

  const called = await ask({});
  await state(called, "open");
  await twin.stake(called, 2, 5);
  await admin.void(called, "rain");
  await state(called, "voided");
  await ada.until("refund", () => ada.privates.some((m) => m.type === "refund" && m.pool === called));
  assert.equal(ada.pools.get(called).voided.reason, "rain");
  const sealed = await ada.until("sealed", () => ada.pools.get(called).sealed);
  assert.match(sealed.head, /^[0-9a-f]{64}$/, "the end of a pool is sealed");
  assert.equal((await cy.refusal(cy.stake(called, 0, 10))).code, "pool_voided");

  const clock = await ada.request("time", { sent: 1 });
  assert.equal(clock.sent, 1);
  const timed = await ask({ locks_at: clock.t + 2_000_000 });
  await state(timed, "locked");
  assert.equal(ada.pools.get(timed).locked.at, ada.pools.get(timed).locks_at, "locked at the time that was said");
  assert.equal((await ada.refusal(ada.stake(timed, 0, 10))).code, "pool_locked");
  await admin.settle(timed, 0);
  await state(timed, "settled");

  await refusals(game, row);
  await admin.deposit(di.account, 500);
  await admin.withdraw(di.account, 123);
  deposits += 500 - 123;
  await di.until("withdrawal", () => di.privates.some((m) => m.type === "balance" && m.change === -123));
  await admin.event(game, { kind: "end", minute: 1, team: 0, score: [0, 0] });
  await Promise.all(players.map((p) => p.until("end", () => p.games.get(game).state === "ended")));
  for (const p of [...players, twin]) await p.request("leave", { game });
}

// What is refused, and that a repeated request gets the first answer.
async function refusals(game, settled) {
  const pool = await admin.openPool(game, { question: "Who else?", labels: ["A", "B"], stake_min: 5, stake_max: 5000 });
  await cy.until("open", () => cy.pools.has(pool));
  for (const [code, outcome, amount] of [
    ["amount_invalid", 0, 0], ["amount_invalid", 0, -1], ["amount_invalid", 0, 2 ** 53], ["stake_small", 0, 4],
    ["stake_large", 0, 5001], ["outcome_unknown", 2, 10], ["outcome_unknown", -1, 10], ["funds_short", 0, cy.balance + 1],
  ]) assert.equal((await cy.refusal(cy.stake(pool, outcome, amount))).code, code, `${amount} on ${outcome}`);
  assert.equal((await cy.refusal(cy.stake(pool + 1000, 0, 10))).code, "pool_unknown");
  assert.equal((await cy.refusal(cy.request("dance"))).code, "request_unknown");
  assert.equal((await cy.refusal(cy.request("join", { game: game + 1000 }))).code, "game_unknown");
  assert.equal((await cy.refusal(cy.request("hello", { guest: "Cy" }))).code, "hello_again");

  const id = cy.newID();
  const first = await cy.stake(pool, 1, 10, id);
  const again = await cy.stake(pool, 1, 10, id);
  assert.deepEqual([again.prediction, again.balance], [first.prediction, first.balance], "a repeated stake costs nothing");
  assert.equal((await cy.refusal(cy.stake(pool, 1, 11, id))).code, "request_reused");
  const refused = cy.newID();
  assert.equal((await cy.refusal(cy.stake(settled, 0, 9, refused))).code, "pool_settled");
  assert.equal((await cy.refusal(cy.stake(settled, 0, 9, refused))).code, "pool_settled");
  await admin.void(pool, "only a trial");
  await cy.until("refund", () => cy.privates.some((m) => m.type === "refund" && m.pool === pool));
}

// The match that somebody plays with ctl feed.
async function match() {
  const game = await appears();
  const late = []; // stakes that came too late, each a promise that it was refused
  for (const [i, p] of [...players, twin].entries()) {
    p.on("message", (m) => {
      if (m.game !== game) return;
      if (m.type === "opened") predict(p, i, m.pool);
      if (m.type === "locked" && i % 4 === 1) late.push(tooLate(p, m.pool, ["pool_locked", "pool_settled", "pool_voided"]));
      if (m.type === "settled" && i % 4 === 2) late.push(tooLate(p, m.pool, ["pool_settled"]));
    });
    const image = await p.request("join", { game });
    for (const pool of image.pools) if (pool.state === "open") predict(p, i, pool);
  }
  await Promise.all([...players, twin].map((p) => p.until("the end of the match", () => p.games.get(game).state === "ended")));
  await Promise.all(placed);
  known.add(game);

  const pools = [...ada.pools.values()].filter((p) => Math.floor(p.pool / 65536) === game);
  assert(pools.every((p) => p.state === "settled" || p.state === "voided"), "an ended match leaves no question open");
  assert.deepEqual(ada.games.get(game).score, [3, 3]);
  const winners = (question) => pools.filter((p) => p.question.startsWith(question)).flatMap((p) => p.winners.map((w) => p.labels[w]));
  // It was a wild one: 23′ and 36′, then 80′ and 81′, 108′, 118′, and penalties.
  assert.deepEqual(winners("Which team scores next?"),
    ["Argentina", "Argentina", "France", "France", "Argentina", "France", "No more goals"]);
  assert.deepEqual(winners("Who wins the match"), ["Argentina"]);
  assert.deepEqual(winners("Who leads at half-time?"), ["Argentina"]);
  const codes = (await Promise.all(late)).sort();
  assert(codes.includes("pool_settled") && codes.length >= pools.length, "some came too late for each question");
  const count = [...new Set(codes)].map((c) => `${codes.filter((x) => x === c).length} ${c}`).join(", ");
  console.log(`match: ${pools.length} questions, ${stands().length} predictions stand, too late: ${count}`);
}

// The game that was not there before.
async function appears() {
  for (;;) {
    const { games } = await ada.request("games");
    const fresh = games.find((g) => !known.has(g.game));
    if (fresh) return fresh.game;
    await pause(50); // before asking again
  }
}

// Some stake at once, some twice, some on nothing; odd amounts, so that splits have fractions. A stake may lose the race
// against the next goal: then it is refused and nothing else happens.
function predict(p, i, pool) {
  if ((i + pool.pool) % 5 === 4) return;
  const n = pool.labels.length;
  const amount = 1 + ((i * 7919 + pool.pool * 104_729) % 197);
  const place = async (outcome) => {
    try {
      const receipt = await p.stake(pool.pool, outcome, amount);
      assert.deepEqual([receipt.pool, receipt.outcome, receipt.amount], [pool.pool, outcome, amount]);
    } catch (err) {
      assert(["pool_locked", "pool_settled", "pool_voided"].includes(err.code), err.message);
    }
  };
  placed.push(place((i * 5 + pool.pool) % n));
  if (i % 3 === 0) placed.push(place((i + 1) % n));
}

async function tooLate(p, pool, codes) {
  const { code } = await p.refusal(p.stake(pool, 0, 10));
  assert(codes.includes(code), `${code} is none of ${codes}`);
  return code;
}

// All predictions that stand, by the receipts that everybody has.
function stands() {
  const receipts = players.flatMap((p) => p.privates.filter((m) => m.type === "receipt").map((m) => ({ ...m, account: p.account })));
  return [...new Map(receipts.map((r) => [r.prediction, r])).values()].sort((a, b) => a.prediction - b.prediction);
}

// Money, to the unit.
async function audit() {
  const stakes = stands();
  const pools = [...ada.pools.values()];
  for (const p of players) await p.until("open predictions to end", async () => (await listed(p)).every((x) => x.state !== "open"));

  const ends = new Map(); // of every prediction
  for (const pool of pools) {
    const on = stakes.filter((s) => s.pool === pool.pool);
    if (pool.voided) for (const s of on) ends.set(s.prediction, { state: "refunded", payout: s.amount });
    if (pool.settled) settledRight(pool, on, ends);
    if (pool.locked) assert.deepEqual(pool.locked.odds, oddsOf(pool, on), "the last odds count every stake");
  }

  let balances = 0;
  for (const p of players) {
    const own = stakes.filter((s) => s.account === p.account);
    const list = new Map((await listed(p)).map((x) => [x.prediction, x]));
    assert(list.size > 0 && [...list.keys()].every((x) => own.some((s) => s.prediction === x)), `${p.name}: the list has own predictions`);
    for (const s of own) paidRight(p, s, ends.get(s.prediction), list.get(s.prediction));
    const account = await p.request("account");
    assert.deepEqual([account.balance, account.held, account.staked, account.n], [p.balance, 0, 0, p.privates.at(-1)?.n ?? 0]);
    assert.equal((await admin.account(p.account)).balance, p.balance, "the operator sees the same");
    balances += p.balance;
  }
  // Nothing is staked any more: the open term of the equation is 0.
  assert.equal(balances + house, deposits, "Σ balances + house = Σ deposits");
  assert.equal(house, takeout(2001, 1500));
  // Both of Ada's windows were told the same, but for what came before the second was there.
  assert.deepEqual(twin.privates, ada.privates.slice(ada.privates.length - twin.privates.length));
  console.log(`money: ${stakes.length} predictions, ${balances} in balances + ${house} of the house = ${deposits} deposited`);
}

async function listed(p) {
  return (await p.request("predictions")).predictions;
}

function settledRight(pool, on, ends) {
  const { settled, takeout: bp = 0 } = pool;
  const gross = on.reduce((sum, s) => sum + s.amount, 0);
  const parts = split(on, settled.winners, bp);
  for (const [prediction, end] of parts) ends.set(prediction, end);
  const refunded = gross > 0 && [...parts.values()].every((e) => e.state === "refunded");
  const taken = refunded ? 0 : takeout(gross, bp);
  const paid = refunded ? 0 : gross - taken;
  assert.deepEqual([settled.gross, settled.takeout, settled.paid, settled.refunded], [gross, taken, paid, refunded], pool.question);
  house += taken;
}

function oddsOf(pool, on) {
  const gross = on.reduce((sum, s) => sum + s.amount, 0);
  const net = gross - takeout(gross, pool.takeout ?? 0);
  return pool.labels.map((_, outcome) => {
    const here = on.filter((s) => s.outcome === outcome);
    const staked = here.reduce((sum, s) => sum + s.amount, 0);
    const x = staked === 0 ? 0 : Math.floor((net * 1000) / staked) / 1000;
    return { staked, backers: new Set(here.map((s) => s.account)).size, x };
  });
}

function paidRight(p, stake, end, row) {
  const told = p.privates.filter((m) => m.prediction === stake.prediction && m.type !== "receipt");
  const want = { won: ["payout"], refunded: ["refund"], lost: [] }[end.state];
  assert.deepEqual(told.map((m) => m.type), want, `${p.name}: prediction ${stake.prediction} ${end.state}`);
  if (end.state === "won") assert.equal(told[0].payout, end.payout, `${p.name}: paid to the unit`);
  if (!row) return; // closed too long ago to be listed
  assert.deepEqual([row.state, row.payout, row.amount], [end.state, end.payout, stake.amount], `${p.name}: prediction ${stake.prediction}`);
}
