// What the page says in words.

import { credits } from "./money.js";

const refusals = {
  pool_locked: "Too late: the question was locked before your prediction arrived. Nothing was taken.",
  pool_settled: "Too late: the question is decided. Nothing was taken.",
  pool_voided: "The question was called off. Nothing was taken.",
  pool_unknown: "The question is gone. Nothing was taken.",
  pool_full: "This question cannot take that much more. Nothing was taken.",
  stake_small: "That is less than this question takes. Choose a larger amount.",
  stake_large: "That is more than this question takes at once. Choose a smaller amount.",
  stakes_fast: "That was too fast. Nothing was taken; wait a second.",
  account_full: "You would have more on this question than one player may. Choose a smaller amount.",
  late_full: "So shortly before the question locks, nobody may have that much on it. Choose a smaller amount.",
  outcome_withdrawn: "This answer was withdrawn. Nothing was taken; choose another one.",
  limit_missed: "The price has moved too far meanwhile. Nothing was sold or taken; try again.",
  shares_short: "You do not have so many shares any more. Nothing was sold.",
  trade_small: "That is too little to be traded. Choose a larger amount.",
  predictions_many: "You have too many open predictions. Wait until some are decided.",
  busy: "The server is busy. Nothing was taken; try again in a moment.",
  not_placed: "The connection was lost before your prediction arrived. Nothing was taken.",
};

// A refusal; the server's own sentence where there is no better one.
export function refused(m, balance) {
  if (m.code === "funds_short") return `You have ${credits(balance)} credits. Choose a smaller amount.`;
  return refusals[m.code] ?? `Not accepted: ${m.reason}.`;
}

// What was done to a question that a player asked.
export const done = {
  resolve: "You have said how it ended. The others may challenge it for a while.",
  challenge: "You have challenged it: an operator will decide.",
  report: "You have reported it.",
};

const standings = {
  open: "is open",
  locked: "has locked: say how it ended",
  suspended: "was reported and waits for an operator",
  claimed: "waits for challenges, or for an operator",
  settled: "is settled",
  voided: "was called off",
};

// How a question of one's own stands; pool may be unknown.
export function stands({ state }, pool) {
  return `Your question${pool ? ` “${pool.question}”` : ""} ${standings[state] ?? state}.`;
}

// What the asker of a question says, and for how long it may be challenged.
export function claim({ asked, labels }, now) {
  const said = `${asked.name} says ${asked.claim.map((w) => labels[w]).join(", ")}`;
  return asked.until ? `${said}; ${countdown(asked.until / 1000 - now)} to challenge` : `${said}; challenged`;
}

// How a prediction ended. pool may be unknown: of a match of long ago.
export function won({ outcome, amount, payout }, pool) {
  const said = pool ? `${pool.question} ${pool.labels[outcome]}, as you said` : "You were right";
  return `${said}: ${credits(amount)} became ${credits(payout)}.`;
}

export function lost({ outcome, amount }, pool) {
  const winners = pool.winners.map((w) => pool.labels[w]).join(", ");
  return `${pool.question} It was ${winners}, not ${pool.labels[outcome]}: ${credits(amount)} lost.`;
}

export function returned({ outcome, amount }, pool) {
  return pool ? `${pool.question} Your ${credits(amount)} on ${pool.labels[outcome]} came back.` : `Your ${credits(amount)} came back.`;
}

// Why a decided question returned all credits.
export function refunded(reason) {
  return reason === "one_sided" ? "Nobody had predicted anything else: all credits were returned." : "Nobody had predicted it: all credits were returned.";
}

const returns = {
  late: "it came too late",
  withdrawn: "it was withdrawn",
  no_winner: "nobody was right",
  one_sided: "nobody was against it",
};

// A line of a statement. pool may be unknown.
export function entry({ kind, prediction, reason }, pool) {
  const what = prediction ? (pool?.labels[prediction.outcome] ?? `Prediction no. ${prediction.prediction}`) : "";
  switch (kind) {
    case "opened":
      return "Welcome";
    case "deposit":
      return "Paid in";
    case "withdrawal":
      return "Paid out";
    case "stake":
      return what;
    case "payout":
      return `${what}: right`;
    case "loss":
      return `${what}: not this time`;
    case "refund":
      return `${what}: returned${returns[reason] ? `, ${returns[reason]}` : ""}`;
    case "sale":
      return `${what}: sold`;
  }
  return kind;
}

const happened = {
  kickoff: "Kick-off",
  halftime: "Half-time",
  secondhalf: "Second half",
  fulltime: "Full time",
  extratime: "Extra time",
  extrahalf: "Second half of extra time",
  extraend: "End of extra time",
  shootout: "Penalty shoot-out",
  end: "The match is over",
};

// What an event is called in the ticker; null for those that only move the clock.
export function event(m, teams) {
  if (m.kind === "minute") return null;
  if (m.kind === "goal") return { title: `Goal for ${teams[m.team - 1] || "a team"}`, detail: m.player };
  if (m.kind === "end" && teams[m.team - 1]) return { title: `${teams[m.team - 1]} win`, detail: "" };
  return { title: happened[m.kind] ?? plain(m.kind), detail: m.player };
}

// Which part of the match an event begins, for the scoreboard; undefined if none.
export function phase(kind) {
  return {
    kickoff: "First half",
    halftime: "Half-time",
    secondhalf: "Second half",
    fulltime: "Full time",
    extratime: "Extra time",
    extrahalf: "Extra time",
    extraend: "After extra time",
    shootout: "Penalties",
    end: "Final result",
  }[kind];
}

// "first_blood" → "First blood"
function plain(kind) {
  const words = kind.replaceAll(/[_-]+/g, " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

// "1 player", "2 players"
export function count(n, one) {
  return `${credits(n)} ${n === 1 ? one : one + "s"}`;
}

// 31400 µs → "31 ms"
export function latency(us) {
  return us < 1_000_000 ? `${Math.max(1, Math.round(us / 1000))} ms` : `${(us / 1_000_000).toFixed(1)} s`;
}

// Time of day of the reader, for milliseconds of Unix time.
export function time(ms) {
  return new Date(ms).toLocaleTimeString("en-GB");
}

// 83 s → "1:23"
export function countdown(ms) {
  const s = Math.max(0, Math.ceil(ms / 1000));
  const [h, m] = [Math.floor(s / 3600), Math.floor(s / 60) % 60];
  const two = (n) => String(n).padStart(2, "0");
  return h > 0 ? `${h}:${two(m)}:${two(s % 60)}` : `${m}:${two(s % 60)}`;
}

const firsts = ["Quiet", "Bright", "Early", "Lucky", "Steady", "Merry", "Clever", "Brave", "Gentle", "Swift"];
const seconds = ["Otter", "Heron", "Badger", "Finch", "Marten", "Robin", "Hare", "Magpie", "Lynx", "Plover"];

// A name for a visitor who has not said theirs.
export function friendlyName(random = Math.random) {
  const pick = (list) => list[Math.floor(random() * list.length)];
  return `${pick(firsts)} ${pick(seconds)}`;
}
