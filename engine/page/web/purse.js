// The visitor's account as this client knows it: balance and predictions. Pure: no socket, no DOM.
//
// The private lane reaches every window of the account, complete and in order, so whoever hears it has the picture; a
// window that comes later asks for predictions first.

export class Purse {
  account = 0;
  name = "";
  balance = 0;
  predictions = new Map(); // by number: proto.Prediction
  since = 0; // of the server's records up to here, everything about the account was heard
  #missing = false; // what was missed is on its way; until it is here, since stands still

  welcome(m) {
    if (m.account !== this.account) {
      this.predictions.clear();
      this.since = 0;
    }
    this.#missing = m.missed;
    this.#heard(m);
    Object.assign(this, { account: m.account, name: m.name, balance: m.balance });
  }

  // The list is all that the server still knows; later private messages change it.
  list(m) {
    this.predictions = new Map(m.predictions.map((p) => [p.prediction, { ...p }]));
  }

  // A private message. Returns the prediction that it is about, if any.
  hear(m) {
    this.#heard(m);
    if (m.balance !== undefined && m.n !== undefined) this.balance = m.balance;
    switch (m.type) {
      case "receipt":
        return this.#note(m, m.id, {});
      case "payout":
        return this.#end(m, "won", m.payout);
      case "refund":
        return this.#end(m, "refunded", m.amount);
      case "sold":
        this.#sold(m);
    }
    return undefined;
  }

  // What was sold of it before has been paid already.
  #end(m, state, payout) {
    const { state: before, payout: sold = 0 } = this.predictions.get(m.prediction) ?? {};
    return this.#note(m, 0, before === "open" ? { state, payout: sold + payout } : { state, payout });
  }

  // Shares are sold the oldest first; each prediction gets its part of the money.
  #sold({ pool, outcome, shares, amount }) {
    for (const p of this.open(pool).sort((a, b) => a.prediction - b.prediction)) {
      const taken = p.outcome === outcome ? Math.min(p.shares ?? 0, shares) : 0;
      if (taken === 0) continue;
      const part = Math.floor((amount * taken) / shares);
      shares -= taken;
      amount -= part;
      p.shares -= taken;
      p.payout += part;
      if (p.shares === 0) p.state = "sold";
    }
  }

  // One's shares of an outcome of a dynamic pool.
  shares(pool, outcome) {
    return this.open(pool).reduce((sum, p) => (p.outcome === outcome ? sum + (p.shares ?? 0) : sum), 0);
  }

  // What was missed while the connection was lost: entries of the statement. Returns those of predictions that were open.
  missed(m, awaited) {
    if (m.last) this.#missing = false;
    this.#heard(m);
    return m.entries.filter((e) => e.kind !== "stake" && e.prediction && awaited.delete(e.prediction.prediction));
  }

  #heard(m) {
    if (!this.#missing) this.since = Math.max(this.since, m.since ?? 0);
  }

  // A repeated receipt, or news of a prediction that is not known here, must not make two of one.
  #note(m, id, change) {
    const { prediction, pool, outcome, amount, shares } = m;
    const known = this.predictions.get(prediction) ?? { prediction, id, pool, outcome, amount, shares, state: "open", payout: 0 };
    Object.assign(known, change);
    this.predictions.set(prediction, known);
    return known;
  }

  // Lost predictions are not told on the private lane: the settlement tells them. Returns those that this settlement ended.
  settled(pool) {
    if (pool.state !== "settled" || pool.refunded) return [];
    const lost = this.open(pool.pool).filter((p) => !pool.winners.includes(p.outcome));
    for (const p of lost) p.state = "lost";
    return lost;
  }

  open(pool) {
    return [...this.predictions.values()].filter((p) => p.state === "open" && (pool === undefined || p.pool === pool));
  }

  // The last closed ones, newest first.
  closed(max) {
    return [...this.predictions.values()]
      .filter((p) => p.state !== "open")
      .sort((a, b) => b.prediction - a.prediction)
      .slice(0, max);
  }

  // What is staked on an outcome of a pool and still open.
  on(pool, outcome) {
    return this.open(pool).reduce((sum, p) => (p.outcome === outcome ? sum + p.amount : sum), 0);
  }

  // What is staked and still open.
  inPlay() {
    return this.open().reduce((sum, p) => sum + p.amount, 0);
  }
}
