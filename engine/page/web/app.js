// The page of the tote: joins the live match as a guest, shows its odds, makes predictions. Here the parts are wired:
//
//	socket ─▶ heard ─▶ picture (the game), purse (the account) ─▶ view, board
//	board ─▶ stake ─▶ socket

import { Board } from "./board.js";
import { Clock } from "./clock.js";
import { byId, say } from "./dom.js";
import { credits } from "./money.js";
import { Past } from "./past.js";
import { Purse } from "./purse.js";
import { Lost, Refused, Socket } from "./socket.js";
import { APPLIED, choose, GAP, gameOf, Picture } from "./state.js";
import { Social } from "./social.js";
import * as view from "./view.js";
import * as words from "./words.js";

const lookEvery = 2_000; // ms between looks for a match, while none is on
const countEvery = 10_000; // ms between looks at how many are here and what else is on, while one is
const resultStays = 6_000; // ms that an ended match stays before the next one
const peopleMax = 100; // connections beyond which a list of who is here cannot be whole
const tickEvery = 250; // ms; of countdowns
const repeatWithin = 10_000; // ms after which an unanswered prediction is not sent again: its odds were others

const clock = new Clock();
const picture = new Picture();
const purse = new Purse();
const board = new Board(purse, { stake, sell, act });
const questions = new Map(); // pools of other matches that the visitor predicted, by id; null: being asked for, or gone
const unanswered = new Map(); // predictions that were on their way when the connection was lost, by request id

const awaited = new Set(); // predictions that were open when the connection was lost

let back = 0; // when the socket tries again, by performance.now
let joining = 0; // game whose image was asked for
let ended = 0; // when the match on show ended, by performance.now
let looked = 0; // when the games were listed, by performance.now
let present = 0; // connections in the match on show
let people = []; // who they are, where they are few: proto.Person

const socket = new Socket({
  url: location.origin.replace(/^http/, "ws") + "/ws",
  hello: () => (token() ? { token: token(), since: purse.since } : { guest: localStorage.getItem("tote.name") }),
  heard,
  changed,
  clock,
});

const past = new Past({
  request: (type, members) => socket.request(type, members),
  question, purse, game: () => picture.game?.game, failed: unlessLostOrRefused,
});

const social = new Social({
  request: (type, members) => socket.request(type, members),
  game: () => picture.game, clock, turnTo, failed: unlessLostOrRefused,
});

// The visitor

function token() {
  return localStorage.getItem("tote.token");
}

function welcome(note = "") {
  view.face("welcome");
  const input = byId("guest");
  input.value ||= localStorage.getItem("tote.name") ?? words.friendlyName();
  say(byId("welcome-note"), note);
}

function forget(note) {
  localStorage.removeItem("tote.token");
  socket.stop();
  purse.account = 0;
  view.purse(purse);
  welcome(note);
}

byId("welcome-form").addEventListener("submit", (e) => {
  e.preventDefault();
  const name = byId("guest").value.trim();
  if (!name) return;
  localStorage.setItem("tote.name", name);
  socket.start();
});

byId("again").addEventListener("click", () => {
  if (confirm(`Leave ${purse.name} and their ${credits(purse.balance)} credits for good?`)) forget("");
});

byId("retry").addEventListener("click", () => socket.start());
addEventListener("online", () => socket.state === "lost" && socket.start());
// Another window of this browser became a guest, or forgot to be one: this one is the same visitor.
addEventListener("storage", (e) => {
  if (e.key === "tote.token" && e.newValue !== e.oldValue) location.reload();
});

// The connection

function changed(state, detail) {
  if (state === "lost") {
    back = performance.now() + detail;
    for (const p of purse.open()) awaited.add(p.prediction);
  }
  view.connection(state, back);
  board.connected(state === "live");
  if (state === "live") arrive();
  if (state === "refused") forget(dismissal(detail));
}

function dismissal({ code, reason }) {
  if (code === "token_invalid" || code === "account_unknown") return "The server does not know you any more. Join again as a new guest.";
  if (code === "guests_refused") return "This server takes no guests.";
  return `You could not join: ${reason}.`;
}

// After hello: the state of one's own, then the match.
async function arrive() {
  try {
    purse.list(await socket.request("predictions"));
    settleUp();
    answerLost();
    owned();
    await follow(true);
  } catch (err) {
    if (!(err instanceof Lost)) throw err; // lost again: the next arrival does it all again
  }
}

// Joins the match to be shown; the one that is on only if its image is needed again.
async function follow(again = false) {
  looked = performance.now();
  const { games } = await socket.request("games");
  const shown = picture.game?.game;
  const next = choose(picture.game?.circle ? [...games, picture.game] : games, shown); // a circle's room is on no list
  if (!next) return picture.game ? undefined : view.face("waiting");
  view.others(games.filter((g) => g !== next && g.state !== "ended"), (g) => void turnTo(g).catch(unlessLost));
  if (next.game !== shown) return stays() ? undefined : turnTo(next);
  present = next.present;
  if (present > peopleMax) people = [];
  showMatch();
  return again ? join(shown) : undefined;
}

// Turns to another match.
async function turnTo(game) {
  const shown = picture.game?.game;
  if (shown) {
    await socket.request("leave", { game: shown }).catch(lenient);
    view.toast(`Now on: ${game.name}`);
  }
  await join(game.game);
}

// An ended match stays for a moment, so that its result is seen.
function stays() {
  return picture.game?.state === "ended" && performance.now() - ended < resultStays;
}

async function join(game) {
  if (joining === game) return; // its image is on the way
  joining = game;
  try {
    await socket.request("join", { game }).catch((err) => {
      lenient(err);
      if (err.code === "circle_foreign") return outOf(picture.game); // removed while the connection was lost
    });
  } finally {
    joining = 0;
  }
}

// A refusal of what is only tidying up, or is tried again anyway, is no news to anybody.
function lenient(err) {
  if (!(err instanceof Refused)) throw err;
}

// A lost connection is mended elsewhere; everything else is an error of ours and shall be seen.
function unlessLost(err) {
  if (!(err instanceof Lost)) throw err;
}

function unlessLostOrRefused(err) {
  if (!(err instanceof Refused)) unlessLost(err);
}

// What comes

function heard(m) {
  switch (m.type) {
    case "welcome":
      return welcomed(m);
    case "joined":
      return imaged(m);
    case "receipt":
    case "sold":
    case "payout":
    case "refund":
    case "balance":
    case "refused":
      return told(m);
    case "missed":
      return missed(m);
    case "question":
      return m.n ? view.toast(words.stands(m, picture.pools.get(m.pool))) : undefined;
    case "circle_left":
      return outOf(m);
    case "presence_changed":
      return here(m);
  }
  switch (picture.hear(m)) {
    case APPLIED:
      return moved(m);
    case GAP:
      return void join(picture.game.game).catch(unlessLost);
  }
}

function welcomed(m) {
  if (m.token) localStorage.setItem("tote.token", m.token);
  clock.reset();
  clock.heard(m.t);
  purse.welcome(m);
  view.purse(purse);
  view.face(picture.game ? "game" : "waiting");
}

// Who is in a small room, now and then; without people it is no longer small.
function here(m) {
  if (m.game !== picture.game?.game) return;
  present = m.present;
  people = m.people ?? [];
  showMatch();
}

// The image of a game, asked for or not.
function imaged(m) {
  if (picture.game?.game !== m.game.game) {
    ended = 0;
    people = [];
  }
  picture.image(m);
  present = m.game.present;
  noteEnd();
  settleUp();
  view.face("game");
  showMatch();
  board.show(picture);
  owned();
}

// Out of a circle: its room is not ours any more.
function outOf({ circle } = {}) {
  void social.circles().catch(unlessLostOrRefused);
  const { game } = picture;
  if (circle && game?.circle === circle) void join(game.parent).catch(unlessLost);
}

// A broadcast is in the picture.
function moved(m) {
  switch (m.type) {
    case "heartbeat":
    case "event":
    case "game":
      noteEnd();
      showMatch();
      if (m.kind === "goal") view.cheer();
      return undefined;
    case "odds":
    case "locked":
      board.update(picture.pools.get(m.pool));
      return view.predictions(purse, question);
    case "opened":
    case "pool":
      return board.update(picture.pools.get(m.pool.pool));
    case "settled":
    case "voided":
      settleUp();
      board.update(picture.pools.get(m.pool));
      return owned();
  }
}

function showMatch() {
  if (!picture.game) return;
  view.match(picture, present);
  view.people(people, purse.account);
}

function noteEnd() {
  if (picture.game.state === "ended" && ended === 0) ended = performance.now();
}

// A private message. A refusal concerns only the window that asked; but it releases what was held for the stake, and does not
// say how much is free now.
function told(m) {
  const before = purse.balance;
  const prediction = purse.hear(m);
  const pool = prediction && question(prediction.pool);
  if (m.type === "payout") view.toast(words.won(m, pool), "good");
  if (m.type === "refund") view.toast(words.returned(m, pool));
  if (m.type === "refused" && m.n) recount().catch(unlessLost);
  if (m.type === "balance") view.toast(`Your balance changed by ${credits(m.change)}.`);
  if (purse.balance !== before) view.gained(purse.balance - before);
  owned();
}

// What happened while the connection was lost. The list of predictions has it too; here it is told.
function missed(m) {
  for (const e of purse.missed(m, awaited)) {
    const pool = question(e.prediction.pool);
    if (e.kind === "payout") view.toast(words.won(e.prediction, pool), "good");
    if (e.kind === "refund") view.toast(words.returned(e.prediction, pool));
  }
}

async function recount() {
  purse.balance = (await socket.request("account")).balance;
  owned();
}

// Predictions that a settlement ended without a message of their own.
function settleUp() {
  for (const pool of picture.in("settled")) {
    for (const p of purse.settled(pool)) view.toast(words.lost(p, pool), "bad");
  }
}

// Something of one's own changed.
function owned() {
  board.owned();
  past.changed();
  view.purse(purse);
  view.predictions(purse, question);
}

// What is known of a pool. Those of other matches are asked for once.
function question(pool) {
  const known = picture.pools.get(pool) ?? questions.get(pool);
  if (known === undefined && socket.state === "live") {
    questions.set(pool, null);
    askFor(gameOf(pool)).catch(unlessLost);
  }
  return known ?? undefined;
}

async function askFor(game) {
  const m = await socket.request("pools", { game }).catch(lenient);
  if (!m) return; // too long ago
  for (const pool of m.pools) if (questions.get(pool.pool) === null) questions.set(pool.pool, pool);
  view.predictions(purse, question);
  past.show();
}

// Does something to a question that a player asked, for its card: what became of it in words.
async function act(type, pool, members) {
  try {
    await socket.request(type, { pool: pool.pool, ...members });
    return { ok: true, text: words.done[type] };
  } catch (err) {
    if (err instanceof Refused) return { ok: false, text: words.refused(err, purse.balance) };
    if (!(err instanceof Lost)) throw err;
    return { ok: false, text: "The connection was lost; try again." };
  }
}

// Predictions

// Makes a prediction, for a card: what became of it in words.
async function stake(pool, outcome, amount) {
  const members = { pool: pool.pool, outcome, amount };
  const id = socket.newID();
  const sent = performance.now();
  try {
    return stands(await socket.request("stake", members, id), pool);
  } catch (err) {
    if (err instanceof Refused) return { ok: false, text: words.refused(err, purse.balance) };
    if (!(err instanceof Lost)) throw err;
    unanswered.set(id, { members, sent, pool });
    return { ok: false, text: "The connection was lost. Whether it stands is told once it is back." };
  }
}

// Sells shares, for a card. Less than nearly what they are worth this moment is not agreed to.
async function sell({ pool, labels }, outcome, shares) {
  try {
    const { amount: limit } = await socket.request("quote", { pool, outcome, shares });
    const { amount, sale } = await socket.request("sell", { pool, outcome, shares, limit: Math.ceil(limit * 0.95) });
    return { ok: true, text: `Your shares of ${labels[outcome]} are sold for ${credits(amount)}. Receipt no. ${sale}` };
  } catch (err) {
    if (err instanceof Refused) return { ok: false, text: words.refused(err, purse.balance) };
    if (!(err instanceof Lost)) throw err;
    return { ok: false, text: "The connection was lost. Your predictions show whether they were sold once it is back." };
  }
}

function stands({ prediction, amount, outcome }, pool) {
  return { ok: true, text: `Your prediction stands: ${credits(amount)} on ${pool.labels[outcome]}. Receipt no. ${prediction}` };
}

// Predictions that were on their way: what the server knows, stands. The same request again costs nothing where it was
// carried out after all; but what was meant for the odds of long ago is not.
function answerLost() {
  for (const [id, { members, sent, pool }] of unanswered) {
    unanswered.delete(id);
    const known = [...purse.predictions.values()].find((p) => p.id === id);
    if (known) board.tell(pool.pool, stands(known, pool));
    else if (performance.now() - sent > repeatWithin) board.tell(pool.pool, { ok: false, text: words.refused({ code: "not_placed" }) });
    else void stakeAgain(id, members, sent, pool);
  }
}

async function stakeAgain(id, members, sent, pool) {
  try {
    board.tell(pool.pool, stands(await socket.request("stake", members, id), pool));
  } catch (err) {
    if (err instanceof Refused) board.tell(pool.pool, { ok: false, text: words.refused(err, purse.balance) });
    else if (err instanceof Lost) unanswered.set(id, { members, sent, pool });
    else throw err;
  }
}

// By the clock

setInterval(() => {
  board.tick(clock.now());
  if (socket.state === "lost") view.connection("lost", back);
}, tickEvery);

setInterval(() => {
  const on = picture.game && picture.game.state !== "ended";
  if (socket.state === "live" && (!on || performance.now() - looked > countEvery)) follow().catch(unlessLost);
}, lookEvery);

// Begin

view.connection("idle", 0);
if (token()) socket.start();
else welcome();
