// What the scripts share: where the server is, and a word with the Go test that runs them.

import { once } from "node:events";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";

// --listen and --admin are addresses of the server, --scheme is how pages are had from the first, --shots a directory for pictures.
export const { values: at } = parseArgs({
  options: { listen: { type: "string" }, scheme: { type: "string", default: "http" }, admin: { type: "string" }, shots: { type: "string", default: "." } },
});

// Asks the Go test to do something, and waits until it is done.
export async function ask(what) {
  const lines = createInterface({ input: process.stdin });
  console.log(`@${what}`);
  await once(lines, "line");
  lines.close();
  process.stdin.pause();
}
