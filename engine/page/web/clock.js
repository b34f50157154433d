// The server's clock, as well as it can be told from here, so that a countdown is right on a wrong clock.

const samplesMax = 8; // of which the one with the shortest way there and back counts

const here = () => performance.timeOrigin + performance.now(); // ms; unlike Date.now, nobody sets it back

export class Clock {
  #local;
  #samples = []; // {trip, offset} in ms
  #heard; // offset by a message alone: late by its way here

  constructor(local = here) {
    this.#local = local;
  }

  // Local time in µs, to be sent with a time request.
  stamp() {
    return Math.round(this.#local() * 1000);
  }

  // A message said t (µs).
  heard(t) {
    const offset = t / 1000 - this.#local();
    if (this.#heard === undefined || offset > this.#heard) this.#heard = offset; // the least delayed one so far
  }

  // The answer to a time request.
  answered(t, sent) {
    const now = this.#local();
    const trip = now - sent / 1000;
    this.#samples.push({ trip, offset: t / 1000 + trip / 2 - now });
    if (this.#samples.length > samplesMax) this.#samples.shift();
  }

  // Forgets everything: another server may have another clock.
  reset() {
    this.#samples = [];
    this.#heard = undefined;
  }

  // Milliseconds by the server's clock minus those by ours.
  get offset() {
    if (this.#samples.length === 0) return this.#heard ?? 0;
    return this.#samples.reduce((best, s) => (s.trip < best.trip ? s : best)).offset;
  }

  // Milliseconds of Unix time by the server's clock.
  now() {
    return this.#local() + this.offset;
  }
}
