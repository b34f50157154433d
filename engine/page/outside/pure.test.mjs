// The page's pure parts, row by row: money.js, state.js, purse.js, clock.js, words.js.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Clock } from "../web/clock.js";
import * as money from "../web/money.js";
import { Purse } from "../web/purse.js";
import { APPLIED, choose, FOREIGN, GAP, gameOf, OLD, Picture } from "../web/state.js";
import * as words from "../web/words.js";

test("multipliers are rounded down and never promise more", () => {
  for (const [x, want] of [
    [0, "–"], [1, "1.00×"], [1.933, "1.93×"], [1.999, "1.99×"], [2.3, "2.30×"], [9.999, "9.99×"],
    [10, "10.0×"], [23.45, "23.4×"], [99.999, "99.9×"], [100, "100×"], [1234.567, "1,234×"],
  ]) assert.equal(money.multiplier(x), want);
});

test("amounts are whole credits, grouped", () => {
  assert.equal(money.credits(100000), "100,000");
  assert.equal(money.signed(1233), "+1,233");
  assert.equal(money.signed(-100), "−100");
  assert.equal(money.signed(0), "0");
});

test("typed amounts", () => {
  for (const [text, want] of [
    ["100", 100], [" 1,000 ", 1000], ["1 000", 1000], ["1.000", 1000], ["1.5", NaN], ["12,34", NaN], ["", NaN], ["0", NaN], ["-5", NaN], ["ten", NaN],
    ["1e3", NaN], ["9007199254740991", Number.MAX_SAFE_INTEGER], ["9007199254740992", NaN],
  ]) assert.equal(money.parseAmount(text), want, text);
});

test("a dynamic pool is worth its shares", () => {
  const pool = { kind: "dpm", odds: [{ staked: 50, x: 1.47, price: 1166190 }, { staked: 0, x: 3.125, price: 800000 }] };
  assert.equal(money.estimate(pool, 0, 100), 147);
  assert.equal(money.worth(pool, 0, 50, 45_773_797), 77); // 45.77 shares at 1.166 are 53, times 1.47
  assert.equal(money.millionths(45_773_797), "45.77");
  assert.equal(money.millionths(1_234_560_000), "1,234.56");
  assert.equal(money.millionths(9_999), "0.00");
});

test("shares are sold the oldest first", () => {
  const purse = new Purse();
  purse.hear({ type: "receipt", n: 1, id: 7, prediction: 2, pool: 6, outcome: 0, amount: 100, shares: 90_000_000, balance: 900 });
  purse.hear({ type: "receipt", n: 2, id: 8, prediction: 3, pool: 6, outcome: 1, amount: 100, shares: 95_000_000, balance: 800 });
  purse.hear({ type: "receipt", n: 3, id: 9, prediction: 4, pool: 6, outcome: 0, amount: 100, shares: 80_000_000, balance: 700 });
  assert.equal(purse.shares(6, 0), 170_000_000);
  purse.hear({ type: "sold", n: 4, id: 10, sale: 5, pool: 6, outcome: 0, shares: 120_000_000, amount: 132, balance: 832 });
  assert.equal(purse.shares(6, 0), 50_000_000);
  assert.equal(purse.balance, 832);
  const [old, other, young] = [2, 3, 4].map((p) => purse.predictions.get(p));
  assert.deepEqual([old.state, old.shares, old.payout], ["sold", 0, 99]);
  assert.deepEqual([young.state, young.shares, young.payout], ["open", 50_000_000, 33]);
  assert.deepEqual([other.state, other.shares, other.payout], ["open", 95_000_000, 0]);
  purse.hear({ type: "payout", n: 5, prediction: 4, pool: 6, outcome: 0, amount: 63, payout: 70, balance: 902 });
  assert.deepEqual([young.state, young.payout], ["won", 103]);
});

test("an estimate includes one's own stake", () => {
  const pool = { odds: [{ staked: 500 }, { staked: 450 }, { staked: 0 }] };
  assert.equal(money.estimate(pool, 0, 250), 400); // 1200 × 250 ÷ 750
  assert.equal(money.estimate(pool, 2, 100), 1050); // alone on it: everything
  assert.equal(money.worth({ odds: [{ staked: 750 }, { staked: 450 }] }, 0, 250), 400); // the same once it is in the odds
  // shared/spec/market.md: takeout 15 % of 2001 is 300; A has 1000 of it, and 333 of those return 566 and a fraction
  assert.equal(money.worth({ takeout: 1500, odds: [{ staked: 1000 }, { staked: 1001 }] }, 0, 333), 566);
});

test("an estimate is exact where floats are not", () => {
  const big = 2 ** 52;
  const pool = { odds: [{ staked: big - 1 }, { staked: big - 2 }] };
  assert.equal(money.estimate(pool, 0, 3), Number((BigInt(2 * big) * 3n) / BigInt(big + 2)));
  assert.equal(money.share(1, 3), 33.3);
  assert.equal(money.share(0, 0), 0);
});

const odds = (...staked) => staked.map((s) => ({ staked: s, backers: s ? 1 : 0, x: s ? 2 : 0 }));
const open = (pool) => ({ pool, question: "Who?", labels: ["A", "B"], state: "open", odds: odds(0, 0) });

function joined(seq, ...pools) {
  const game = { game: 3, name: "A v B", state: "live", teams: ["A", "B"], score: [0, 0], minute: 1, interval: 1, present: 1 };
  return { type: "joined", id: 1, t: 5, game, seq, pools };
}

function pictured(seq, ...pools) {
  const picture = new Picture();
  picture.image(joined(seq, ...pools));
  return picture;
}

test("broadcasts move the picture, one by one", () => {
  const picture = pictured(41, open(196609));
  for (const m of [
    { type: "odds", seq: 42, pool: 196609, odds: odds(10, 20), t: 9 },
    { type: "event", seq: 43, kind: "goal", minute: 23, team: 1, player: "M", score: [1, 0] },
    { type: "opened", seq: 44, pool: open(196610) },
    { type: "locked", seq: 45, pool: 196609, odds: odds(30, 20) },
    { type: "settled", seq: 46, pool: 196609, winners: [0], paid: 50, x: 1.666, refunded: false },
    { type: "voided", seq: 47, pool: 196610, reason: "rain" },
  ]) assert.equal(picture.hear({ game: 3, ...m }), APPLIED, m.type);
  assert.equal(picture.hear({ type: "game", seq: 48, game: { ...picture.game, state: "ended" } }), APPLIED);
  const [first, second] = picture.pools.values();
  assert.deepEqual([first.state, first.odds[0].staked, first.winners, first.seq, first.from], ["settled", 30, [0], 45, "locked"]);
  assert.deepEqual([second.state, second.reason], ["voided", "rain"]);
  assert.deepEqual([picture.game.state, picture.game.score, picture.game.minute, picture.seq], ["ended", [1, 0], 23, 48]);
  assert.equal(picture.events[0].player, "M");
});

test("a gap is seen, and the picture stays as it was until another image", () => {
  const picture = pictured(41, open(196609));
  const late = { type: "odds", game: 3, seq: 44, pool: 196609, odds: odds(1, 1) };
  assert.equal(picture.hear(late), GAP);
  assert.equal(picture.pools.get(196609).odds[0].staked, 0);
  picture.image(joined(44, open(196609)));
  assert.equal(picture.hear(late), OLD);
  assert.equal(picture.hear({ ...late, seq: 45 }), APPLIED);
});

test("a heartbeat shows that something is missing, and whether the market stands", () => {
  const picture = pictured(41, open(196609));
  const beat = (seq, stale) => picture.hear({ type: "heartbeat", game: 3, seq, stale });
  assert.deepEqual([beat(41, true), picture.stale, picture.seq], [APPLIED, true, 41]);
  assert.equal(beat(42, false), GAP);
  assert.deepEqual([picture.seq, picture.stale], [41, false]);
});

test("a slow reader's spared broadcasts are no gap", () => {
  const picture = pictured(41, open(196609));
  assert.equal(picture.hear({ type: "conflated", game: 3, conflated: 5 }), APPLIED);
  assert.equal(picture.hear({ type: "odds", game: 3, seq: 47, pool: 196609, odds: odds(1, 1) }), APPLIED);
});

test("unknown broadcasts count, unknown messages do not, other games are nobody's business", () => {
  const picture = pictured(41);
  assert.equal(picture.hear({ type: "weather", game: 3, seq: 42, sun: true }), APPLIED);
  assert.equal(picture.hear({ type: "odds", game: 3, seq: 43, pool: 7, odds: [] }), APPLIED); // of a pool that is unknown
  assert.equal(picture.hear({ type: "weather" }), FOREIGN);
  assert.equal(picture.hear({ type: "odds", game: 4, seq: 44, pool: 1, odds: [] }), FOREIGN);
  assert.equal(picture.hear({ type: "presence", id: 4, game: 3, present: 2 }), FOREIGN);
  assert.equal(picture.seq, 43);
  assert.equal(new Picture().hear({ type: "odds", game: 3, seq: 1 }), FOREIGN);
});

test("an image says which settled pools were refunded", () => {
  const settled = (pool, more) => ({ ...open(pool), state: "settled", winners: [0], ...more });
  const picture = pictured(1, settled(1, {}), settled(2, { refunded: true }), settled(3, { carried_to: 4 }), open(4));
  assert.deepEqual([...picture.pools.values()].map((p) => p.refunded), [false, true, false, false]);
  assert.deepEqual(picture.in("settled").map((p) => p.pool), [1, 2, 3]);
});

test("a pool that is shown anew keeps what it was", () => {
  const picture = pictured(1, open(1));
  picture.hear({ type: "pool", game: 3, seq: 2, t: 5, pool: { ...open(1), withdrawn: [1] } });
  const [pool] = picture.pools.values();
  assert.deepEqual([pool.withdrawn, pool.seq, pool.from], [[1], 2, "pool"]);
});

test("carried money is in what one would get", () => {
  const pool = { takeout: 1000, carried: 90, odds: odds(0, 0) };
  assert.equal(money.estimate(pool, 0, 50), 135);
});

test("events outlive a new image of the same game, not one of another", () => {
  const picture = pictured(1);
  picture.hear({ type: "event", game: 3, seq: 2, kind: "kickoff", minute: 0, score: [0, 0] });
  picture.image(joined(9));
  assert.equal(picture.events.length, 1);
  picture.image({ ...joined(9), game: { ...joined(9).game, game: 4 } });
  assert.equal(picture.events.length, 0);
});

test("which game to show", () => {
  const g = (game, state) => ({ game, state });
  for (const [games, shown, want] of [
    [[], undefined, undefined],
    [[g(1, "live"), g(2, "live")], undefined, 2],
    [[g(1, "live"), g(2, "live")], 1, 1],
    [[g(1, "scheduled"), g(2, "live")], 1, 1], // a choice of the visitor's stands
    [[g(1, "live"), g(2, "scheduled")], undefined, 1],
    [[g(1, "ended"), g(2, "scheduled"), g(3, "scheduled")], 1, 3],
    [[g(1, "ended"), g(2, "ended")], 1, 1],
    [[g(1, "ended"), g(2, "ended")], undefined, 2],
  ]) assert.equal(choose(games, shown)?.game, want);
  assert.equal(gameOf(196609), 3);
  assert.equal(gameOf(2 ** 53 - 1), 2 ** 37 - 1);
});

test("a purse follows its private lane", () => {
  const purse = new Purse();
  purse.welcome({ account: 12, name: "Ada", balance: 1000 });
  purse.list({ predictions: [{ prediction: 1, id: 9, pool: 5, outcome: 0, amount: 10, state: "lost", payout: 0 }] });
  const receipt = { type: "receipt", n: 1, id: 7, prediction: 2, pool: 6, outcome: 0, amount: 100, balance: 900 };
  purse.hear(receipt);
  purse.hear({ ...receipt, n: 2 }); // the same stake again
  purse.hear({ type: "receipt", n: 3, id: 8, prediction: 3, pool: 6, outcome: 1, amount: 50, balance: 850 });
  assert.deepEqual([purse.balance, purse.inPlay(), purse.on(6, 0), purse.on(6, 1)], [850, 150, 100, 50]);
  purse.hear({ type: "payout", n: 4, prediction: 2, pool: 6, outcome: 0, amount: 100, payout: 150, balance: 1000 });
  const lost = purse.settled({ pool: 6, state: "settled", winners: [0], refunded: false });
  assert.deepEqual(lost.map((p) => p.prediction), [3]);
  assert.deepEqual(purse.closed(2).map((p) => [p.prediction, p.state]), [[3, "lost"], [2, "won"]]);
  assert.deepEqual([purse.balance, purse.inPlay()], [1000, 0]);
});

test("a refunded pool has no losers", () => {
  const purse = new Purse();
  purse.welcome({ account: 12, name: "Ada", balance: 1000 });
  purse.hear({ type: "receipt", n: 1, id: 7, prediction: 2, pool: 6, outcome: 0, amount: 100, balance: 900 });
  assert.deepEqual(purse.settled({ pool: 6, state: "settled", winners: [1], refunded: true }), []);
  assert.equal(purse.hear({ type: "refund", n: 2, prediction: 2, pool: 6, outcome: 0, amount: 100, balance: 1000 }).state, "refunded");
  assert.equal(purse.balance, 1000);
});

test("what was missed is told once, and since stands still until all of it is here", () => {
  const purse = new Purse();
  purse.welcome({ account: 1, name: "Ada", balance: 100, since: 10, missed: false });
  purse.hear({ type: "receipt", n: 1, id: 5, prediction: 12, pool: 65537, outcome: 0, amount: 10, balance: 90, since: 11 });
  assert.equal(purse.since, 11);
  const awaited = new Set([12]);
  purse.welcome({ account: 1, name: "Ada", balance: 130, missed: true });
  purse.hear({ type: "balance", n: 2, change: 10, balance: 140, since: 30 });
  assert.equal(purse.since, 11, "what was missed is not here yet");
  const entries = [
    { kind: "stake", seq: 12, change: -10, prediction: { prediction: 12 } },
    { kind: "payout", seq: 20, change: 40, prediction: { prediction: 12 } },
    { kind: "deposit", seq: 21, change: 10 },
    { kind: "payout", seq: 22, change: 5, prediction: { prediction: 7 } },
  ];
  assert.deepEqual(purse.missed({ entries, last: false }, awaited), [entries[1]]);
  assert.equal(purse.since, 11);
  assert.deepEqual(purse.missed({ entries, last: true, since: 25 }, awaited), [], "it was told");
  assert.equal(purse.since, 25);
  purse.welcome({ account: 2, name: "Bo", balance: 5, since: 3, missed: false });
  assert.equal(purse.since, 3);
});

test("another account begins with nothing of the last one's", () => {
  const purse = new Purse();
  purse.welcome({ account: 12, name: "Ada", balance: 1000 });
  purse.hear({ type: "receipt", n: 1, id: 7, prediction: 2, pool: 6, outcome: 0, amount: 100, balance: 900 });
  purse.welcome({ account: 13, name: "Bo", balance: 5 });
  assert.deepEqual([purse.balance, purse.inPlay()], [5, 0]);
});

test("the clock believes the answer that was quickest", () => {
  let local = 1_000_000; // ms
  const clock = new Clock(() => local);
  clock.heard(1_000_500_000); // µs: at least 500 ms ahead
  assert.equal(clock.offset, 500);
  const answer = (there, back, ahead) => {
    const sent = clock.stamp();
    local += there;
    const t = (local + ahead) * 1000;
    local += back;
    clock.answered(t, sent);
  };
  answer(200, 0, 600); // lopsided: 100 ms off
  assert.equal(clock.offset, 700);
  answer(10, 10, 600);
  assert.equal(clock.offset, 600);
  answer(0, 300, 600); // slower: not believed
  assert.equal(clock.now(), local + 600);
});

test("words", () => {
  assert.equal(words.countdown(83_000), "1:23");
  assert.equal(words.countdown(82_001), "1:23");
  assert.equal(words.countdown(-5), "0:00");
  assert.equal(words.countdown(3_600_000), "1:00:00");
  assert.deepEqual([1, 499, 31_400, 999_400, 1_240_000].map(words.latency), ["1 ms", "1 ms", "31 ms", "999 ms", "1.2 s"]);
  assert.equal(words.refused({ code: "funds_short", reason: "…" }, 1230), "You have 1,230 credits. Choose a smaller amount.");
  assert.equal(words.refused({ code: "brand_new", reason: "the moon is full" }), "Not accepted: the moon is full.");
  assert.equal(words.event({ kind: "minute" }, ["A", "B"]), null);
  assert.deepEqual(words.event({ kind: "goal", team: 2, player: "M" }, ["A", "B"]), { title: "Goal for B", detail: "M" });
  assert.deepEqual(words.event({ kind: "first_blood", player: "M" }, ["", ""]), { title: "First blood", detail: "M" });
  assert.equal(words.count(1, "player") + words.count(1200, "player"), "1 player1,200 players");
  assert.match(words.friendlyName(), /^\w+ \w+$/);
});

// To a user we say prediction.
test("no word of the trade reaches the visitor", async () => {
  const { readdir, readFile } = await import("node:fs/promises");
  const web = new URL("../web/", import.meta.url);
  for (const name of await readdir(web)) {
    const text = await readFile(new URL(name, web), "utf8");
    for (const [quoted] of text.matchAll(/>[^<>{}]+<|"[A-Z][^"\n]* [^"\n]*"|`[^`\n]* [^`\n]*`/g)) {
      assert.doesNotMatch(quoted.replace(/\$\{[^}]*\}/g, ""), /\b(bets?|wagers?|punters?|stakes?|staked|gambl\w+)\b/i, `${name}: ${quoted}`);
    }
  }
});
