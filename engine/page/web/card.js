// A question as a card: its outcomes with odds, and the slip on which a prediction is made.
//
//	open ─▶ locked ─▶ settled | voided
//	 slip    no slip    winners shown
//
// A question that a player asked may be suspended while it is open, and is claimed before it is settled; it has buttons for what the
// visitor can do about it.
//
// For those who look from outside, the element tells what it shows: data-pool, data-state, data-seq (the broadcast that its
// odds are from) and data-from (what kind of message that was).

import { animate, make, say } from "./dom.js";
import * as money from "./money.js";
import * as words from "./words.js";

const chips = [10, 50, 100, 500, 1000];
const wideFrom = 5; // with more outcomes than these, a card takes a whole row where there is room

// The amount on a fresh slip is the last one that was chosen on any card.
let lastAmount = 100;

export class Card {
  element;
  #pool;
  #purse;
  #stake;
  #sell;
  #act;
  #rows = [];
  #chosen = -1; // outcome
  #busy = false; // a prediction is on its way
  #live = true; // the connection is

  // stake(pool, outcome, amount) makes a prediction, sell(pool, outcome, shares) gives shares of a dynamic pool back, act(type, pool,
  // members) does something to a question that a player asked; their promises give {ok, text} and never fail.
  constructor(pool, purse, { stake, sell, act }) {
    this.#pool = pool;
    this.#purse = purse;
    this.#stake = stake;
    this.#sell = sell;
    this.#act = act;
    this.element = this.#build();
    this.update(pool);
  }

  get pool() {
    return this.#pool;
  }

  #build() {
    const id = `q${this.#pool.pool}`;
    this.question = make("h3", { id, tabindex: "-1" }, this.#pool.question);
    this.badge = make("p", { class: "badge" });
    this.outcomes = make("div", { role: "radiogroup", "aria-labelledby": id, class: "outcomes" });
    this.#rows = this.#pool.labels.map((label, outcome) => this.#buildRow(id, label, outcome));
    this.outcomes.append(...this.#rows.map((r) => r.element));
    this.notice = make("p", { class: "notice", role: "status" });
    this.asker = make("p", { class: "asker", hidden: true });
    this.deeds = make("div", { class: "row", role: "group", "aria-label": "About this question", hidden: true });
    this.pot = make("span", { class: "pot" });
    this.asOf = make("span", { class: "as-of" });
    this.form = make(
      "form",
      { novalidate: true, onsubmit: (e) => this.#submit(e) },
      make("header", {}, this.question, this.badge),
      this.outcomes,
      this.#buildSlip(id),
      this.notice,
      this.asker,
      this.deeds,
      make("footer", {}, this.pot, this.asOf),
    );
    const wide = this.#pool.labels.length > wideFrom ? " wide" : "";
    return make("li", { class: "card" + wide, "data-pool": this.#pool.pool }, this.form);
  }

  #buildRow(id, label, outcome) {
    const row = {
      radio: make("input", { type: "radio", name: id, id: `${id}o${outcome}`, value: outcome, onchange: () => this.#choose(outcome) }),
      x: make("span", { class: "x" }),
      part: make("span", { class: "part" }),
      mine: make("span", { class: "mine-here" }),
      bar: make("span", { class: "bar", "aria-hidden": "true" }),
      sell: make("button", { type: "button", class: "plain sell", hidden: true, onclick: () => this.#sellAll(outcome) }),
    };
    row.element = make(
      "div",
      { class: "outcome", "data-outcome": outcome },
      row.radio,
      make("label", { for: row.radio.id }, row.bar, make("span", { class: "label" }, label), row.x, row.part, row.mine),
      row.sell,
    );
    return row;
  }

  #buildSlip(id) {
    this.amount = make("input", {
      id: `${id}a`, type: "text", inputmode: "numeric", autocomplete: "off", value: String(lastAmount), oninput: () => this.#reckon(),
    });
    this.chips = chips.map((amount) =>
      make("button", { type: "button", class: "chip", value: amount, onclick: () => this.#setAmount(amount) }, money.credits(amount)),
    );
    this.estimate = make("output", { class: "estimate", for: this.amount.id });
    this.button = make("button", { type: "submit", class: "primary" });
    this.cancel = make("button", { type: "button", class: "plain", onclick: () => this.#fold() }, "Cancel");
    this.slip = make(
      "div",
      { class: "slip", hidden: true },
      make("div", { class: "row" }, make("label", { for: this.amount.id }, "Credits"), this.amount, this.cancel),
      make("div", { class: "chips", role: "group", "aria-label": "Amounts" }, ...this.chips),
      this.estimate,
      this.button,
    );
    return this.slip;
  }

  // Shows the pool as it is now; called after every message that concerns it, and when predictions of one's own change.
  update(pool) {
    const before = this.element.dataset.state;
    this.#pool = pool;
    this.#showOdds();
    this.#showMine();
    const { dataset } = this.element;
    Object.assign(dataset, { state: pool.state, seq: pool.seq, from: pool.from });
    if (before !== pool.state) this.#become(pool.state);
    this.#showAsked();
    this.#reckon();
  }

  // The connection came or went.
  connected(live) {
    this.#live = live;
    this.#showMine();
    this.#reckon();
  }

  #showOdds() {
    const { odds, t, labels, carried, withdrawn } = this.#pool;
    const gross = money.gross(odds);
    odds.forEach((odd, outcome) => {
      const row = this.#rows[outcome];
      const share = money.share(odd.staked, gross);
      const before = Number(row.element.dataset.x ?? odd.x);
      row.element.dataset.x = odd.x;
      row.element.dataset.staked = odd.staked;
      row.bar.style.width = `${share}%`;
      say(row.x, money.multiplier(odd.x));
      if (withdrawn?.includes(outcome)) this.#withdraw(row);
      else if (money.dynamic(this.#pool)) say(row.part, this.#dynamicPart(odd));
      else say(row.part, odd.staked === 0 ? "nobody yet" : `${Math.round(share)}% · ${money.credits(odd.staked)} by ${words.count(odd.backers, "player")}`);
      if (odd.x !== before) this.#flash(row.x, odd.x > before ? "up" : "down");
    });
    say(this.pot, `${money.credits(gross)} in the pool` + (carried ? `, ${money.credits(carried)} carried over to it` : ""));
    this.asOf.replaceChildren(...this.#time(t / 1000));
    console.assert(odds.length === labels.length, "a pool has odds for each outcome");
  }

  #dynamicPart({ probability = 0, price = 0, backers }) {
    return `${Math.round(probability / 10_000)}% · ${money.millionths(price)} a share · ${words.count(backers, "player")}`;
  }

  // An outcome that can be chosen no more.
  #withdraw(row) {
    if (row.radio.checked) this.#fold();
    row.radio.disabled = true;
    row.element.classList.add("lost");
    say(row.part, "withdrawn, credits returned");
  }

  #time(ms) {
    const final = this.#pool.state !== "open";
    const at = make("time", { datetime: new Date(ms).toISOString() }, words.time(ms));
    return [final ? "final odds, " : "odds as of ", at];
  }

  #flash(element, direction) {
    element.dataset.moved = direction;
    animate(element, [{ backgroundColor: `var(--${direction}-wash)` }, { backgroundColor: "transparent" }], 1400);
  }

  #showMine() {
    const own = [...this.#purse.predictions.values()].filter((p) => p.pool === this.#pool.pool);
    for (const [outcome, row] of this.#rows.entries()) {
      const label = this.#pool.labels[outcome];
      const amount = own.reduce((sum, p) => (p.outcome === outcome && p.state !== "sold" ? sum + p.amount : sum), 0);
      say(row.mine, amount > 0 ? `You: ${money.credits(amount)}` : "");
      this.#showSell(row, label, this.#purse.shares(this.#pool.pool, outcome));
    }
    if (this.#pool.state !== "settled" || this.#pool.refunded || own.length === 0 || own.some((p) => p.state === "open")) return;
    const gain = own.reduce((sum, p) => sum + p.payout - p.amount, 0);
    this.notice.dataset.tone = gain >= 0 ? "good" : "bad";
    say(this.notice, `Your result: ${money.signed(gain)} credits.`);
  }

  // Only the share ratio buys back.
  #showSell(row, label, shares) {
    row.sell.hidden = shares === 0 || this.#pool.variant !== "share_ratio" || this.#pool.state !== "open";
    row.sell.disabled = this.#busy || !this.#live;
    say(row.sell, row.sell.hidden ? "" : `Sell ${money.millionths(shares)} shares of ${label}`);
  }

  async #sellAll(outcome) {
    if (this.#busy) return;
    this.#busy = true;
    this.#showMine();
    this.#reckon();
    const answer = await this.#sell(this.#pool, outcome, this.#purse.shares(this.#pool.pool, outcome));
    this.#busy = false;
    this.tell(answer);
    this.#showMine();
    this.#reckon();
  }

  // Who asked the question, and what the visitor can do about it.
  #showAsked() {
    const { asked, state, labels, pool } = this.#pool;
    if (!asked) return;
    this.asker.hidden = false;
    if (state !== "claimed") say(this.asker, `asked by ${asked.name}` + (asked.settle === "asker" ? ", who says how it ends" : ""));
    else say(this.badge, asked.until ? "May be challenged" : "Challenged");
    const own = asked.account === this.#purse.account;
    const backs = this.#purse.open().some((p) => p.pool === pool);
    const can = [];
    if (own && state === "locked" && asked.settle === "asker") labels.forEach((l, i) => can.push([`It was ${l}`, "resolve", { winners: [i] }]));
    if (!own && backs && state === "claimed" && asked.until) can.push(["Challenge", "challenge", {}]);
    if (!own && state === "open") can.push(["Report", "report", {}]);
    this.deeds.hidden = can.length === 0;
    const key = can.map(([text]) => text).join();
    if (this.deeds.dataset.key === key) return; // a button that is about to be pressed stays
    this.deeds.dataset.key = key;
    this.deeds.replaceChildren(...can.map(([text, type, members]) =>
      make("button", { type: "button", class: "plain", onclick: async () => this.tell(await this.#act(type, this.#pool, members)) }, text)));
  }

  // Says when the question locks; called again and again. now is in ms, by the server's clock.
  tick(now) {
    if (this.#pool.state === "claimed") say(this.asker, words.claim(this.#pool, now));
    if (this.#pool.state === "open") {
      say(this.badge, this.#pool.locks_at ? `Locks in ${words.countdown(this.#pool.locks_at / 1000 - now)}` : "Open");
    }
  }

  #become(state) {
    const over = state !== "open";
    for (const row of this.#rows) row.radio.disabled = over;
    if (over) this.#fold();
    if (state === "open") say(this.badge, "Open");
    if (state === "suspended") say(this.badge, "Held back");
    if (state === "locked") {
      say(this.badge, "Locked");
      if (this.notice.dataset.tone === "bad") say(this.notice, ""); // advice that came too late
    }
    if (state === "settled") this.#showWinners();
    if (state === "voided") {
      say(this.badge, "Called off");
      say(this.notice, "All credits were returned" + (this.#pool.reason ? `: ${this.#pool.reason}.` : "."));
    }
  }

  #showWinners() {
    const { winners, refunded, reason, carried_to } = this.#pool;
    for (const [outcome, row] of this.#rows.entries()) {
      const won = winners.includes(outcome);
      row.element.classList.toggle("won", won);
      row.element.classList.toggle("lost", !won);
    }
    say(this.badge, winners.length > 1 ? "Decided: dead heat" : "Decided");
    if (refunded) say(this.notice, words.refunded(reason));
    if (carried_to) say(this.notice, "Nobody had predicted it: the pool is carried over to a later question.");
  }

  // The winners in words, for the folded card.
  get verdict() {
    const { state, winners, labels, refunded, odds, x, dividends, carried_to } = this.#pool;
    if (state === "voided") return { winner: "Called off", detail: "credits returned" };
    const winner = winners.map((w) => labels[w]).join(", ");
    if (refunded) return { winner, detail: "credits returned" };
    if (carried_to) return { winner, detail: "carried over" };
    if (dividends?.length > 1) return { winner, detail: `paid ${dividends.map((d) => money.multiplier(d.x)).join(" and ")}` };
    if (money.gross(odds) === 0) return { winner, detail: "nobody took part" };
    return { winner, detail: `paid ${money.multiplier(x ?? odds[winners[0]].x)}` };
  }

  #choose(outcome) {
    const first = this.#chosen < 0;
    this.#chosen = outcome;
    if (first) this.amount.value = String(lastAmount);
    this.slip.hidden = false;
    say(this.notice, "");
    delete this.notice.dataset.tone;
    this.#reckon();
    if (first) animate(this.slip, [{ opacity: 0, transform: "translateY(-4px)" }, { opacity: 1, transform: "none" }], 180);
    this.form.scrollIntoView({ block: "nearest" });
  }

  #setAmount(amount) {
    this.amount.value = String(amount);
    this.#reckon();
  }

  // What the slip says, from what is chosen and the odds of this moment.
  #reckon() {
    if (this.#chosen < 0) return;
    const label = this.#pool.labels[this.#chosen];
    const amount = money.parseAmount(this.amount.value);
    for (const chip of this.chips) chip.setAttribute("aria-pressed", String(Number(chip.value) === amount));
    const short = amount > this.#purse.balance;
    const { unit } = this.#pool;
    const odd = unit > 0 && amount % unit !== 0;
    this.amount.setAttribute("aria-invalid", String(Number.isNaN(amount) || short || odd));
    if (Number.isNaN(amount)) say(this.estimate, "Type a whole number of credits.");
    else if (odd) say(this.estimate, `Here predictions are multiples of ${money.credits(unit)}.`);
    else if (short) say(this.estimate, `You have ${money.credits(this.#purse.balance)} credits.`);
    else say(this.estimate, `If it is right, you would get ${money.dynamic(this.#pool) ? "at most" : "about"} ${money.credits(money.estimate(this.#pool, this.#chosen, amount))}.`);
    say(this.button, this.#buttonText(amount, label));
    this.button.disabled = this.#busy || !this.#live || this.#pool.state !== "open";
  }

  #buttonText(amount, label) {
    if (this.#busy) return "Sending…";
    if (!this.#live) return "Waiting for the connection";
    return Number.isNaN(amount) ? `Predict ${label}` : `Predict ${money.credits(amount)} on ${label}`;
  }

  async #submit(e) {
    e.preventDefault();
    const amount = money.parseAmount(this.amount.value);
    if (this.#busy || this.#chosen < 0 || this.button.disabled) return;
    if (Number.isNaN(amount) || amount > this.#purse.balance) {
      this.amount.focus();
      return;
    }
    lastAmount = amount;
    this.#busy = true;
    this.#reckon();
    const answer = await this.#stake(this.#pool, this.#chosen, amount);
    this.#busy = false;
    this.tell(answer);
    this.#reckon();
  }

  // Tells what became of a prediction. The slip of one that stands has done its work.
  tell({ ok, text }) {
    this.notice.dataset.tone = ok ? "good" : "bad";
    say(this.notice, text);
    if (ok) this.#fold();
  }

  #fold() {
    const inside = this.slip.contains(document.activeElement);
    const radio = this.#rows[this.#chosen]?.radio;
    for (const row of this.#rows) row.radio.checked = false;
    this.#chosen = -1;
    this.slip.hidden = true;
    if (inside && radio && !radio.disabled) radio.focus({ preventScroll: true });
  }
}
