// What was: the visitor's statement, and who is ahead in the match. Nothing of it is pushed; it is asked for while its part of the
// page is open, and again when it has changed.

import { byId } from "./dom.js";
import * as view from "./view.js";

const pageOf = 20; // entries
const settles = 400; // ms after a change before it is asked for again: changes come together

export class Past {
  #request;
  #question;
  #purse;
  #game; // of which the leaders are shown
  #entries = [];
  #next = 0; // where older ones begin; 0: there are none
  #again = 0; // timer

  // request(type, members) is the socket's, question(pool) tells what is known of a pool, game() which match is on.
  constructor({ request, question, purse, game, failed }) {
    this.#request = request;
    this.#question = question;
    this.#purse = purse;
    this.#game = game;
    const guard = (ask) => () => void ask.call(this).catch(failed);
    byId("statement-part").addEventListener("toggle", guard(this.#newest));
    byId("leaders-part").addEventListener("toggle", guard(this.#leaders));
    byId("older").addEventListener("click", guard(this.#older));
    this.#refresh = guard(async () => {
      await this.#newest();
      await this.#leaders();
    });
  }

  #refresh;

  // Something of one's own, or of the match, has changed.
  changed() {
    clearTimeout(this.#again);
    this.#again = setTimeout(this.#refresh, settles);
  }

  // A question has become known.
  show() {
    if (byId("statement-part").open) view.statement(this.#entries, this.#next !== 0, this.#question);
  }

  async #newest() {
    if (!byId("statement-part").open) return;
    this.#take(await this.#request("statement", { limit: pageOf }), []);
  }

  async #older() {
    this.#take(await this.#request("statement", { limit: pageOf, before: this.#next }), this.#entries);
  }

  #take({ entries, more, next }, before) {
    this.#entries = [...before, ...entries];
    this.#next = more ? next : 0;
    this.show();
  }

  async #leaders() {
    const game = this.#game();
    if (byId("leaders-part").open && game) view.leaders(await this.#request("leaders", { game }), this.#purse.account);
  }
}
