// What stands around the questions: connection, balance, scoreboard, one's own predictions, and toasts. Writes into
// index.html; reads state and changes none.

import { animate, byId, make, roll, say } from "./dom.js";
import * as money from "./money.js";
import * as words from "./words.js";

const eventsShown = 4;
const resultsShown = 12;
const toastStays = 7_000; // ms
const toastsMax = 4;

// state is the socket's; back is when it tries again, in ms by performance.now.
export function connection(state, back) {
  document.body.dataset.connection = state;
  byId("retry").hidden = state !== "lost";
  const wait = Math.ceil((back - performance.now()) / 1000);
  const text = {
    idle: "Not joined",
    connecting: "Connecting…",
    live: "Live",
    lost: wait > 0 ? `Connection lost, back in ${wait} s` : "Connection lost",
    refused: "Not joined",
  };
  say(byId("connection-text"), text[state]);
}

export function purse(p) {
  byId("purse").hidden = p.account === 0;
  say(byId("name"), p.name);
  roll(byId("balance"), p.balance, money.credits);
  roll(byId("in-play"), p.inPlay(), money.credits);
}

// A change of the balance for better or worse, to be seen from the corner of the eye.
export function gained(amount) {
  const wash = amount > 0 ? "var(--up-wash)" : "var(--down-wash)";
  animate(byId("balance").parentElement, [{ backgroundColor: wash }, { backgroundColor: "transparent" }], 1600);
}

export function match({ game, events, stale }, present) {
  const [one, two] = game.teams;
  const named = Boolean(one && two);
  say(byId("match-name"), game.name);
  say(byId("team-1"), named ? one : game.name);
  say(byId("team-2"), two);
  score("score-1", game.score[0]);
  score("score-2", game.score[1]);
  byId("result").hidden = !named;
  say(byId("phase"), stale ? "The market has stopped; odds may be old" : phase(game, events));
  say(byId("minute"), game.state === "scheduled" ? "" : `${game.minute}′`);
  say(byId("present"), present > 0 ? `${money.credits(present)} here` : "");
  document.title = named ? `${one} ${game.score[0]}–${game.score[1]} ${two}` : game.name;
  timeline(game, events);
  ticker(events, game.teams);
}

function score(id, goals) {
  const element = byId(id);
  if (element.textContent === String(goals)) return;
  say(element, String(goals));
  animate(element, [{ transform: "scale(1.6)" }, { transform: "none" }], 500);
}

// The other matches that are on, each a button.
export function others(games, turnTo) {
  byId("others").hidden = games.length === 0;
  const key = games.map((g) => `${g.game} ${g.name}`).join();
  const list = byId("others-list");
  if (list.dataset.key === key) return; // a button that is about to be pressed stays
  list.dataset.key = key;
  list.replaceChildren(...games.map((g) => make("li", {}, make("button", { type: "button", class: "chip", onclick: () => turnTo(g) }, g.name))));
}

// Who is here, where they are few: each with the time that a message takes to them and back.
export function people(list, own) {
  byId("people-part").hidden = list.length === 0;
  const rows = list.map((p) => [p, p.latency > 0 ? words.latency(p.latency) : ""]);
  const key = rows.map(([p, took]) => `${p.account} ${p.name} ${took}`).join();
  const element = byId("people");
  if (element.dataset.key === key) return;
  element.dataset.key = key;
  element.replaceChildren(
    ...rows.map(([p, took]) => make("li", { class: p.account === own ? "own" : null, "data-account": p.account }, p.name, make("span", { class: "latency" }, took))),
  );
}

// A goal: the scoreboard lights up.
export function cheer() {
  animate(document.querySelector(".match"), [{ backgroundColor: "var(--pitch-cheer)" }, { backgroundColor: "var(--pitch)" }], 1800);
}

function phase(game, events) {
  if (game.state === "scheduled") return "Begins soon";
  if (game.state === "ended") return "Final result";
  const last = events.find((e) => words.phase(e.kind));
  return last ? words.phase(last.kind) : "Live";
}

function timeline(game, events) {
  const full = game.minute > 90 ? 120 : 90;
  const at = (minute) => `${Math.min(100, (minute / full) * 100)}%`;
  byId("elapsed").style.width = at(game.minute);
  const line = byId("timeline");
  const goals = events.filter((e) => e.kind === "goal");
  while (line.childElementCount - 1 > goals.length) line.lastElementChild.remove();
  while (line.childElementCount - 1 < goals.length) line.append(make("i"));
  goals.forEach((goal, i) => {
    line.children[i + 1].style.left = at(goal.minute);
    line.children[i + 1].className = goal.team === 2 ? "away" : "home";
  });
}

// The events shown, by seq: a log announces what is added, so what stays must stay the same element.
function ticker(events, teams) {
  const shown = events.filter((e) => words.event(e, teams)).slice(0, eventsShown);
  const list = byId("events");
  for (const item of [...list.children]) {
    if (!shown.some((e) => String(e.seq) === item.dataset.seq)) item.remove();
  }
  for (const e of shown.toReversed()) {
    if ([...list.children].some((item) => item.dataset.seq === String(e.seq))) continue;
    const { title, detail } = words.event(e, teams);
    list.prepend(
      make("li", { "data-seq": e.seq, "data-kind": e.kind },
        make("span", { class: "when" }, `${e.minute}′`),
        make("span", { class: "what" }, make("strong", {}, title), detail ? ` ${detail}` : "")),
    );
    animate(list.firstElementChild, [{ opacity: 0, transform: "translateY(-6px)" }, { opacity: 1, transform: "none" }], 300);
  }
}

// One's own predictions. book(pool) tells the question and the odds as far as they are known.
export function predictions(p, book) {
  const open = p.open().sort((a, b) => b.prediction - a.prediction);
  byId("none-mine").hidden = open.length > 0;
  byId("mine").replaceChildren(...open.map((one) => slip(one, book(one.pool))));
  const closed = p.closed(resultsShown);
  byId("results-part").hidden = closed.length === 0;
  byId("results").replaceChildren(...closed.map((one) => slip(one, book(one.pool))));
}

function slip(prediction, pool) {
  const { amount, outcome, state } = prediction;
  return make(
    "li",
    { class: "own", "data-state": state, "data-prediction": prediction.prediction },
    make("span", { class: "label" }, pool?.labels[outcome] ?? `Outcome ${outcome + 1}`),
    make("span", { class: "figure" }, state === "open" ? money.credits(amount) : money.signed(gain(prediction))),
    make("span", { class: "asked" }, pool?.question ?? "A question of an earlier match"),
    make("span", { class: "prospect" }, prospect(prediction, pool)),
  );
}

function gain({ amount, payout }) {
  return payout - amount;
}

function prospect({ state, amount, outcome, payout, shares }, pool) {
  switch (state) {
    case "won":
      return `paid ${money.credits(payout)}`;
    case "lost":
      return "not this time";
    case "refunded":
      return `${money.credits(payout)} returned`;
    case "sold":
      return `sold for ${money.credits(payout)}`;
  }
  return pool ? `about ${money.credits(money.worth(pool, outcome, amount, shares))} if right` : "";
}

// A short message that goes by itself; also read aloud.
export function toast(text, tone = "plain") {
  const list = byId("toasts");
  const note = make("p", { class: "toast", "data-tone": tone }, text);
  list.append(note);
  while (list.childElementCount > toastsMax) list.firstElementChild.remove();
  animate(note, [{ opacity: 0, transform: "translateY(8px)" }, { opacity: 1, transform: "none" }], 200);
  setTimeout(() => note.remove(), toastStays);
}

// Which of the three faces the page has: "welcome", "waiting" for a match, or "game".
export function face(name) {
  byId("welcome").hidden = name !== "welcome";
  byId("no-match").hidden = name !== "waiting";
  byId("game").hidden = name !== "game";
  byId("again").hidden = name === "welcome";
}

const leadersShown = 10;

// Who is ahead, and where one stands oneself.
export function leaders({ leaders, own, players }, account) {
  byId("none-leading").hidden = players > 0;
  const shown = leaders.slice(0, leadersShown);
  if (own && !shown.some((l) => l.account === account)) shown.push(own);
  byId("leaders").replaceChildren(
    ...shown.map((l) => make("li", { class: l.account === account ? "line own-line" : "line", "data-account": l.account },
      make("span", { class: "what" }, `${l.rank}. ${l.name}`),
      make("span", { class: "figure" }, money.signed(l.profit)))),
  );
}

// A statement, from the newest entry. book(pool) tells the question as far as it is known.
export function statement(entries, more, book) {
  byId("older").hidden = !more;
  byId("statement").replaceChildren(
    ...entries.map((e) => make("li", { class: "line", "data-entry": e.entry, "data-kind": e.kind },
      make("span", { class: "what" }, words.entry(e, e.prediction && book(e.prediction.pool))),
      make("span", { class: "figure" }, e.kind === "loss" ? "" : money.signed(e.change)),
      make("time", { class: "detail", datetime: new Date(e.t / 1000).toISOString() }, words.time(e.t / 1000)),
      make("span", { class: "detail" }, `balance ${money.credits(e.balance)}`))),
  );
}
