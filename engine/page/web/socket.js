// The connection: hello, requests as promises, and coming back after a loss.
//
//	start ─▶ connecting ─▶ live ─▶ lost ─▶ (a random wait) ─▶ connecting
//	             └─ hello refused ─▶ refused: nothing goes on by itself
//
// Every message goes to heard, in the order in which it came, before the promise of its request is settled.

const waitFirst = 500; // ms before the first attempt to come back, halved to whole at random
const waitMax = 15_000; // ms; the wait doubles up to it
const waitPolite = 10_000; // ms: the random delay after TRY_LATER is up to this, and after RESTART where it names none
const pingEvery = 15_000; // ms between time requests, which also show that the connection is alive

// Close codes that ask for a longer wait.
const RESTART = 1012;
const TRY_LATER = 1013;
const comeBackIn = /come back in (\d{1,8}) ms$/; // the reason of RESTART; everybody is given a time of his own

// A request that the server refused. code is stable, reason is the server's sentence.
export class Refused extends Error {
  constructor({ code, reason }) {
    super(reason);
    this.code = code;
    this.reason = reason;
  }
}

// A request whose answer can no longer come. It may have been carried out or not.
export class Lost extends Error {
  constructor() {
    super("the connection was lost");
  }
}

export class Socket {
  #url;
  #hello;
  #heard;
  #changed;
  #clock;
  #ws = null;
  #state = "idle";
  #attempts = 0; // since the connection was live
  #waiting = 0; // timer of the next attempt
  #pinging = 0; // timer of time requests
  #unheard = false; // nothing came since the last ping
  #pending = new Map(); // by request id: {resolve, reject}
  // An account that plays from two windows must not count both from 1. 50 random bits leave room to count.
  #id = Math.floor(Math.random() * 2 ** 50) + 1;

  // hello() gives the members of the hello request, heard(message) gets every message, changed(state, detail) hears of
  // "connecting", "live", "lost" (detail: ms until the next attempt) and "refused" (detail: a Refused).
  constructor({ url, hello, heard, changed, clock }) {
    this.#url = url;
    this.#hello = hello;
    this.#heard = heard;
    this.#changed = changed;
    this.#clock = clock;
  }

  get state() {
    return this.#state;
  }

  // Connects, at once; also instead of waiting any longer.
  start() {
    if (this.#state === "connecting" || this.#state === "live") return;
    clearTimeout(this.#waiting);
    this.#become("connecting");
    const ws = new WebSocket(this.#url, "tote.json");
    this.#ws = ws;
    ws.onopen = () => ws === this.#ws && this.#greet(ws);
    ws.onmessage = (e) => ws === this.#ws && this.#read(e.data);
    ws.onclose = (e) => ws === this.#ws && this.#lose(e.code, e.reason);
  }

  // Ends the connection for good.
  stop() {
    clearTimeout(this.#waiting);
    this.#drop();
    this.#become("idle");
  }

  newID() {
    return this.#id++;
  }

  // Sends a request; the promise is that of its reply. It fails with Refused or Lost. id is given where the request is a
  // repetition, or must be known before it is sent.
  request(type, members = {}, id = this.newID()) {
    if (this.#state !== "live") return Promise.reject(new Lost());
    return this.#send(type, members, id);
  }

  #send(type, members, id) {
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject });
      this.#ws.send(JSON.stringify({ type, id, ...members }));
    });
  }

  #greet(ws) {
    this.#send("hello", this.#hello(), this.newID()).then(
      () => {
        this.#attempts = 0;
        this.#ping();
        this.#become("live");
      },
      (err) => {
        if (!(err instanceof Refused) || ws !== this.#ws) return; // lost: #lose has seen to it
        this.#drop();
        if (err.code === "busy") return this.#comeBack();
        this.#become("refused", err);
      },
    );
  }

  #read(text) {
    this.#unheard = false;
    const m = JSON.parse(text);
    if (m.type === "time") this.#clock.answered(m.t, m.sent);
    else if (m.t) this.#clock.heard(m.t);
    this.#heard(m);
    const waiting = m.id && this.#pending.get(m.id);
    if (!waiting) return; // a broadcast, or the answer to another window of the account
    this.#pending.delete(m.id);
    if (m.type === "refused") waiting.reject(new Refused(m));
    else waiting.resolve(m);
  }

  // Asks for the time. A connection that has said nothing since the last time it was asked is dead, whatever the
  // operating system believes.
  #ping() {
    clearTimeout(this.#pinging);
    this.#unheard = true;
    this.#send("time", { sent: this.#clock.stamp() }, this.newID()).catch(() => {});
    this.#pinging = setTimeout(() => (this.#unheard ? this.#lose(0) : this.#ping()), pingEvery);
  }

  #lose(code, reason = "") {
    this.#drop();
    this.#comeBack(code, reason);
  }

  // Lets go of the socket; whoever waits for an answer learns that none will come.
  #drop() {
    clearTimeout(this.#pinging);
    const ws = this.#ws;
    this.#ws = null;
    ws?.close();
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    for (const { reject } of pending) reject(new Lost());
  }

  #comeBack(code, reason = "") {
    const polite = code === RESTART || code === TRY_LATER;
    const longest = polite ? waitPolite : Math.min(waitFirst * 2 ** this.#attempts, waitMax);
    const told = code === RESTART && comeBackIn.exec(reason);
    const wait = told ? Number(told[1]) : polite ? Math.random() * longest : (longest / 2) * (1 + Math.random());
    this.#attempts++;
    this.#waiting = setTimeout(() => this.start(), wait);
    this.#become("lost", wait);
  }

  #become(state, detail) {
    this.#state = state;
    this.#changed(state, detail);
  }
}
