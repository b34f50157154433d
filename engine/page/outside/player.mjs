// A player's program, written from proto's package comment alone. It keeps whatever the server tells it, and fails at once
// where a promise of the protocol is broken:
//
//   - each request has exactly one answer, with its id;
//   - private messages are numbered without gaps, and each balance follows from the one before;
//   - broadcasts of a game are numbered without gaps from its image on, and everybody hears the same.

import assert from "node:assert/strict";
import { EventEmitter, on } from "node:events";
import WebSocket from "ws";

const PRIVATE = new Set(["receipt", "refused", "payout", "refund", "balance"]);

// What anybody heard, by game and seq: everybody else must hear the same bytes.
const heardByAll = new Map();

// The windows of each account.
const windows = new Map();

// A request that was refused.
export class Refused extends Error {
  constructor(m) {
    super(`${m.code}: ${m.reason}`);
    Object.assign(this, m);
  }
}

export class Player extends EventEmitter {
  privates = []; // private messages
  broadcasts = []; // with the images between them
  pools = new Map(); // by id, as the last messages tell
  games = new Map(); // by id
  #seqs = new Map(); // of the last broadcast, by game
  #pending = new Map();
  #id = Math.floor(Math.random() * 2 ** 50) + 1;
  #n = 0;
  #deciding = new Map(); // amounts of the account's stakes that were sent and not answered, by request id

  // hello is {guest} or {token}.
  static async connect(address, hello) {
    const player = new Player();
    player.setMaxListeners(0);
    await player.#open(address);
    player.welcome = await player.request("hello", hello);
    player.token = player.welcome.token ?? hello.token;
    return player;
  }

  #open(address) {
    this.ws = new WebSocket(`ws://${address}/ws`, "tote.json");
    this.ws.on("message", (data, binary) => this.#guarded(() => this.#read(data, binary)));
    this.ws.on("close", (code, reason) => this.#guarded(() => assert(this.left, `the server closed the connection: ${code} ${reason}`)));
    return new Promise((resolve, reject) => this.ws.once("open", resolve).once("error", reject));
  }

  // A broken promise ends the script: it must not be lost in an event handler.
  #guarded(check) {
    try {
      check();
    } catch (err) {
      console.error(`${this.name}: ${err.stack}`);
      process.exit(1);
    }
  }

  get name() {
    return this.welcome?.name ?? "newcomer";
  }

  leave() {
    this.left = true;
    this.ws.close(1000);
  }

  newID() {
    return this.#id++;
  }

  // The promise of the reply; a refusal rejects it.
  request(type, members = {}, id = this.newID()) {
    assert(!this.#pending.has(id), "a request is asked again after its answer");
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject });
      this.ws.send(JSON.stringify({ type, id, ...members }));
    });
  }

  stake(pool, outcome, amount, id = this.newID()) {
    for (const w of windows.get(this.account)) w.#deciding.set(id, amount);
    return this.request("stake", { pool, outcome, amount }, id);
  }

  // The refusal of a request, which must be refused.
  async refusal(request) {
    try {
      const m = await request;
      throw new assert.AssertionError({ message: `${this.name}: accepted, not refused: ${JSON.stringify(m)}` });
    } catch (err) {
      if (err instanceof Refused) return err;
      throw err;
    }
  }

  // Resolves with the first truthy value of test, which is asked now and after every message.
  async until(what, test) {
    const messages = on(this, "message");
    for (let value = await test(); ; value = await test()) {
      if (value) {
        await messages.return();
        return value;
      }
      this.waiting = what; // for whoever looks at a script that hangs
      await messages.next();
    }
  }

  #read(data, binary) {
    assert(!binary, "tote.json is text");
    const m = JSON.parse(data);
    assert(m.type && m.t > 0, `a message has type and t: ${data}`);
    if (m.type === "welcome") this.#welcomed(m);
    if (PRIVATE.has(m.type) && m.n) this.#private(m);
    this.#broadcast(m, String(data));
    const waiting = this.#pending.get(m.id);
    this.#pending.delete(m.id);
    if (m.type === "refused") {
      assert(m.code && m.reason, "a refusal has code and reason");
      waiting?.reject(new Refused(m));
    } else waiting?.resolve(m);
    assert(waiting || !m.id || PRIVATE.has(m.type), `an answer without a question: ${data}`);
    this.emit("message", m);
  }

  #welcomed(m) {
    Object.assign(this, { account: m.account, balance: m.balance });
    this.#n = m.n;
    windows.set(m.account, [...(windows.get(m.account) ?? []), this]);
  }

  // "complete and in order of n"
  #private(m) {
    assert.equal(m.n, this.#n + 1, `${m.type}: private messages have no gap`);
    this.#n = m.n;
    const repeated = m.type === "receipt" && this.privates.some((p) => p.type === "receipt" && p.prediction === m.prediction);
    const change = { receipt: repeated ? 0 : -m.amount, payout: m.payout, refund: m.amount, balance: m.change, refused: 0 }[m.type];
    this.balance += change;
    if (m.type === "receipt" || m.type === "refused") this.#deciding.delete(m.id);
    if (m.type !== "refused") this.#balanced(m);
    this.privates.push(m);
  }

  // The balance follows from the one before; but what is told is free to stake, without stakes that are being decided.
  #balanced(m) {
    const held = this.balance - m.balance;
    const amounts = [...this.#deciding.values()].filter((a) => a > 0);
    assert(held === 0 || isSumOfSome(amounts, held), `${m.type}: the balance is ${m.balance}, not ${this.balance}; being decided: ${amounts}`);
  }

  #broadcast(m, text) {
    const game = m.type === "game" ? m.game.game : m.type === "joined" ? m.game.game : m.game;
    switch (m.type) {
      case "joined":
        this.#seqs.set(game, m.seq);
        this.games.set(game, m.game);
        for (const p of m.pools) this.pools.set(p.pool, p);
        break;
      case "conflated":
        this.#seqs.set(game, this.#seqs.get(game) + m.conflated);
        break;
      case "heartbeat":
        if (!m.id) assert(m.seq <= this.#seqs.get(game), "a heartbeat is behind what it follows, or something is missing");
        return;
      case "odds": case "event": case "opened": case "locked": case "settled": case "voided": case "sealed": case "pool": case "game": {
        assert.equal(m.seq, this.#seqs.get(game) + 1, `${m.type}: broadcasts have no gap`);
        this.#seqs.set(game, m.seq);
        const key = `${game} ${m.seq}`;
        assert.equal(text, heardByAll.get(key) ?? text, "everybody hears the same");
        heardByAll.set(key, text);
        break;
      }
      default:
        return;
    }
    this.broadcasts.push(m);
    const pool = this.pools.get(m.pool);
    switch (m.type) {
      case "opened": this.pools.set(m.pool.pool, { ...m.pool }); break;
      case "odds": pool.odds = m.odds; break;
      case "locked": Object.assign(pool, { state: "locked", odds: m.odds, locked: m }); break;
      case "settled": Object.assign(pool, { state: "settled", winners: m.winners, settled: m }); break;
      case "voided": Object.assign(pool, { state: "voided", voided: m }); break;
      case "sealed": pool.sealed = m; break;
      case "pool": this.pools.set(m.pool.pool, { ...this.pools.get(m.pool.pool), ...m.pool }); break;
      case "game": this.games.set(game, m.game); break;
      case "event": Object.assign(this.games.get(game), { score: m.score, minute: m.minute }); break;
    }
  }
}

function isSumOfSome(amounts, sum) {
  if (sum <= 0 || amounts.length === 0) return sum === 0;
  const [first, ...rest] = amounts;
  return isSumOfSome(rest, sum - first) || isSumOfSome(rest, sum);
}
