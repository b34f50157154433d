// A game as this client knows it: the image that joining gave, and every broadcast since. Pure: no socket, no DOM.
//
//	joined (seq 41) ─▶ 42 ─▶ 43 ─▶ conflated 3 ─▶ 47 ─▶ …
//	                               └ a slow reader was spared 44…46
//
// A broadcast that is not the next one, or a heartbeat that is ahead, shows that something was lost: then only another image
// helps.

// What hear found out about a broadcast.
export const APPLIED = "applied";
export const OLD = "old"; // in the image already
export const GAP = "gap"; // something before it is missing: join again
export const FOREIGN = "foreign"; // of another game, or no broadcast

const eventsMax = 40;

export class Picture {
  game = null; // as proto.Game
  seq = 0; // of the last broadcast that is in the picture
  pools = new Map(); // by id, in the order of opening: proto.Pool, who told its odds (see told), and how it ended
  events = []; // newest first; an image has none
  stale = false; // a heartbeat said that the market behind the odds has stopped

  // A joined message, asked for or not: the server sends one to a reader who missed more than odds.
  image(joined) {
    if (joined.game.game !== this.game?.game) this.events = [];
    this.game = joined.game;
    this.stale = false;
    this.seq = joined.seq;
    this.pools = new Map(joined.pools.map((p) => [p.pool, { ...p, ...told(joined), from: "image", refunded: p.refunded ?? false }]));
  }

  // Any message. Types that are not known are ignored, but their numbers count.
  hear(m) {
    const game = m.type === "game" ? m.game?.game : m.game;
    if (!this.game || game !== this.game.game) return FOREIGN;
    if (m.type === "conflated") {
      this.seq += m.conflated;
      return APPLIED;
    }
    if (m.type === "heartbeat") {
      this.stale = m.stale;
      return m.seq > this.seq ? GAP : APPLIED;
    }
    if (m.seq === undefined || m.type === "joined" || m.type === "pools") return FOREIGN;
    if (m.seq <= this.seq) return OLD;
    if (m.seq !== this.seq + 1) return GAP;
    this.seq = m.seq;
    this.stale = false;
    this.#apply(m);
    return APPLIED;
  }

  #apply(m) {
    const pool = this.pools.get(m.pool);
    switch (m.type) {
      case "odds":
        if (pool) Object.assign(pool, { odds: m.odds, carried: m.carried, ...told(m) });
        break;
      case "opened":
        this.pools.set(m.pool.pool, { ...m.pool, ...told(m) });
        break;
      case "pool": // anew, without how it ended
        this.pools.set(m.pool.pool, { ...this.pools.get(m.pool.pool), ...m.pool, ...told(m) });
        break;
      case "locked":
        if (pool) Object.assign(pool, { state: "locked", odds: m.odds, ...told(m) });
        break;
      case "settled":
        if (pool) {
          const { winners, paid, x, refunded, reason, dividends, carried_to } = m;
          Object.assign(pool, { state: "settled", winners, paid, x, refunded, reason, dividends, carried_to });
        }
        break;
      case "voided":
        if (pool) Object.assign(pool, { state: "voided", reason: m.reason });
        break;
      case "game":
        this.game = m.game;
        break;
      case "event":
        Object.assign(this.game, { score: m.score, minute: m.minute });
        this.events = [m, ...this.events].slice(0, eventsMax);
        break;
    }
  }

  // Pools in a state, in the order of opening.
  in(...states) {
    return [...this.pools.values()].filter((p) => states.includes(p.state));
  }
}

// What told a pool's odds: the broadcast's number, kind and time.
function told({ seq, type, t }) {
  return { seq, from: type, t };
}

// The game that a pool belongs to is in the upper bits of its id.
export function gameOf(pool) {
  return Math.floor(pool / 65536);
}

// Which game to show: the one on show until it ends; else the newest live one, else the newest to come, else the one on
// show, else the newest that has ended. Returns undefined where there is none.
export function choose(games, shown) {
  const newest = (state) => games.filter((g) => g.state === state).sort((a, b) => b.game - a.game)[0];
  const current = games.find((g) => g.game === shown);
  if (current && current.state !== "ended") return current;
  return newest("live") ?? newest("scheduled") ?? current ?? newest("ended");
}
