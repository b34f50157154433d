// What visitors ask each other: questions of their own, and circles with a room in the match for their friends alone.

import { byId, make, say } from "./dom.js";
import { Refused } from "./socket.js";
import * as words from "./words.js";

const minute = 60_000_000; // µs

export class Social {
  #request;
  #game;
  #clock;
  #turnTo;
  #failed;

  // request(type, members) is the socket's, game() the match on show, turnTo(game) shows another one.
  constructor({ request, game, clock, turnTo, failed }) {
    this.#request = request;
    this.#game = game;
    this.#clock = clock;
    this.#turnTo = turnTo;
    this.#failed = failed;
    this.#form("ask-form", (f) => this.#ask(f));
    this.#form("circle-form", (f) => this.#join(f));
    byId("circles-part").addEventListener("toggle", () => void this.circles().catch(failed));
  }

  // A form says what became of it, and is emptied when it was done.
  #form(id, send) {
    const form = byId(id);
    const note = form.querySelector(".notice");
    form.addEventListener("submit", async (e) => {
      e.preventDefault();
      try {
        say(note, await send(new FormData(form)));
        form.reset();
      } catch (err) {
        if (err instanceof Refused) say(note, words.refused(err));
        else this.#failed(err);
      }
    });
  }

  async #ask(form) {
    const labels = String(form.get("answers")).split("\n").map((l) => l.trim()).filter(Boolean);
    const locks_at = Math.round(this.#clock.now() * 1000 + Number(form.get("minutes")) * minute);
    const members = { game: this.#game().game, question: String(form.get("question")).trim(), labels, locks_at, settle: "asker" };
    const { state } = await this.#request("ask", members);
    return state === "proposed" ? "It waits for approval; you are told." : "It is open. When it has locked, say on its card how it ended.";
  }

  // One field for both: an invitation has the form 5-4503599627370497, anything else is the name of a new circle.
  async #join(form) {
    const text = String(form.get("circle")).trim();
    const [, circle, code] = text.match(/^(\d+)-(\d+)$/) ?? [];
    const shown = circle
      ? await this.#request("circle_join", { circle: Number(circle), code: Number(code) })
      : await this.#request("circle_create", { name: text });
    await this.circles();
    return `You are in ${shown.name}.`;
  }

  // Lists one's circles, while their part of the page is open.
  async circles() {
    if (!byId("circles-part").open) return;
    const { circles } = await this.#request("circles");
    byId("circles").replaceChildren(...circles.map((c) => this.#line(c)));
  }

  #line({ circle, name }) {
    const note = make("span", { class: "detail", role: "status" });
    const press = (text, deed) => make("button", { type: "button", class: "plain", onclick: async () => {
      try {
        say(note, (await deed()) ?? "");
      } catch (err) {
        if (err instanceof Refused) say(note, words.refused(err));
        else this.#failed(err);
      }
    } }, text);
    return make("li", { class: "line", "data-circle": circle },
      make("span", { class: "what" }, name),
      press("Play", () => this.#play(circle, name)),
      press("Members", () => this.#members(circle)),
      press("Leave", () => this.#leave(circle)),
      note);
  }

  async #play(circle, name) {
    const { game, parent } = this.#game();
    const room = await this.#request("circle_game", { circle, game: parent ?? game });
    await this.#turnTo({ game: room.game, name });
  }

  async #members(circle) {
    const { members, code } = await this.#request("circle", { circle });
    const who = members.map((m) => m.name).join(", ");
    return code ? `${who}. Invite with ${circle}-${code}` : who;
  }

  async #leave(circle) {
    await this.#request("circle_leave", { circle });
    await this.circles();
  }
}
