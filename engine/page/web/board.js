// The questions of the match: open ones, those that wait for their result, and those that are decided.
//
// A card stays where it is while its result is read, then folds away. Its place among the open ones never changes, so that
// nobody picks what has just moved under the finger.

import { Card } from "./card.js";
import { byId, make } from "./dom.js";

const resultStays = 9_000; // ms that a decided card stays open
const lockedStays = 2_000; // ms that a locked one stays in its place: many are decided by the event that locks them

export class Board {
  #cards = new Map(); // by pool
  #purse;
  #deeds;
  #game = 0;
  #live = false;

  // deeds are what cards do: stake, sell and act.
  constructor(purse, deeds) {
    this.#purse = purse;
    this.#deeds = deeds;
  }

  // Shows all pools of a picture.
  show(picture) {
    const others = [...this.#cards.keys()].some((pool) => !picture.pools.has(pool));
    if (picture.game.game !== this.#game || others) this.#clear(picture.game.game);
    for (const pool of picture.pools.values()) this.update(pool);
    this.#headings();
  }

  // Shows one pool.
  update(pool) {
    const card = this.#cards.get(pool.pool);
    if (card) this.#change(card, pool);
    else this.#add(pool);
    this.#headings();
  }

  #add(pool) {
    const card = new Card(pool, this.#purse, this.#deeds);
    card.connected(this.#live);
    this.#cards.set(pool.pool, card);
    if (over(pool)) this.#fold(card);
    else byId(unlocked(pool) ? "open" : "waiting").append(card.element);
  }

  #change(card, pool) {
    const before = card.element.dataset.state;
    const focused = card.element.contains(document.activeElement);
    card.update(pool);
    if (before === pool.state) return;
    if (focused) card.question.focus({ preventScroll: true }); // what had the focus is gone
    if (unlocked(pool)) return;
    if (!over(pool)) setTimeout(() => this.#wait(card), lockedStays);
    else setTimeout(() => this.#fold(card), resultStays);
  }

  // Puts a locked card among those that wait, if it still does.
  #wait(card) {
    if (this.#cards.get(card.pool.pool) !== card || over(card.pool) || byId("waiting").contains(card.element)) return;
    const focused = card.element.contains(document.activeElement);
    byId("waiting").append(card.element);
    if (focused) card.question.focus({ preventScroll: true }); // moving takes it away
    this.#headings();
  }

  // Puts a decided card among the others of its kind, newest first.
  #fold(card) {
    if (this.#cards.get(card.pool.pool) !== card) return; // another match is on
    const focused = card.element.contains(document.activeElement);
    const { winner, detail } = card.verdict;
    const summary = make("summary", {},
      make("span", { class: "asked" }, card.pool.question), " ", make("strong", {}, winner), " ", make("span", { class: "paid" }, detail));
    byId("decided").prepend(make("li", {}, make("details", {}, summary, make("ul", { class: "cards" }, card.element))));
    if (focused) summary.focus({ preventScroll: true });
    this.#headings();
  }

  #clear(game) {
    this.#game = game;
    this.#cards.clear();
    for (const id of ["open", "waiting", "decided"]) byId(id).replaceChildren();
  }

  #headings() {
    byId("none-open").hidden = byId("open").childElementCount > 0;
    byId("waiting-part").hidden = byId("waiting").childElementCount === 0;
    byId("decided-part").hidden = byId("decided").childElementCount === 0;
  }

  // Shows what became of a prediction on its card.
  tell(pool, answer) {
    this.#cards.get(pool)?.tell(answer);
  }

  connected(live) {
    this.#live = live;
    for (const card of this.#cards.values()) card.connected(live);
  }

  tick(now) {
    for (const card of this.#cards.values()) card.tick(now);
  }

  // Predictions or balance of one's own changed.
  owned() {
    for (const card of this.#cards.values()) card.update(card.pool);
  }
}

function unlocked(pool) {
  return pool.state === "open" || pool.state === "suspended";
}

function over(pool) {
  return pool.state === "settled" || pool.state === "voided";
}
