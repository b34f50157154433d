// The operator, as far as these tests need one: the paths are in proto/control.

import assert from "node:assert/strict";

export class Admin {
  constructor(address) {
    this.base = `http://${address}/v1`;
  }

  openAccount(name, deposit) { return this.#post("/accounts", { name, deposit }); }
  account(id) { return this.#do("GET", `/accounts/${id}`); }
  deposit(account, amount) { return this.#post(`/accounts/${account}/deposits`, { amount }); }
  withdraw(account, amount) { return this.#post(`/accounts/${account}/withdrawals`, { amount }); }
  async openGame(opening) { return (await this.#post("/games", opening)).game; }
  async openPool(game, opening) { return (await this.#post(`/games/${game}/pools`, opening)).pool; }
  event(game, event) { return this.#post(`/games/${game}/events`, event); }
  lock(pool) { return this.#post(`/pools/${pool}/lock`, {}); }
  settle(pool, ...winners) { return this.#post(`/pools/${pool}/settle`, { winners }); }
  void(pool, reason) { return this.#post(`/pools/${pool}/void`, { reason }); }

  #post(path, body) { return this.#do("POST", path, JSON.stringify(body)); }

  async #do(method, path, body) {
    const answer = await fetch(this.base + path, { method, body });
    const text = await answer.text();
    assert(answer.ok, `${method} ${path} ${body ?? ""}: ${answer.status} ${text}`);
    return JSON.parse(text);
  }
}
