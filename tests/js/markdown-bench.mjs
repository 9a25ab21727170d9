/**
 * Not a test: how long hostile Markdown takes to show, whole and as it grows. Run: node tests/js/markdown-bench.mjs
 *
 * Prints, for each kind of text of a hundred thousand characters: the time to show it at once; and while it comes in
 * deltas of a hundred characters, the time of all, of the slowest, and the nodes made for each character.
 */

import {updateMarkdown} from "../../durable_agents/static/durable_agents/markdown.js";
import {fakeDocument} from "./fakedom.mjs";
import {HOSTILE} from "./hostile.mjs";

const LENGTH = 100_000;
const DELTA = 100;

const document = fakeDocument({after: () => {}});
let made = 0;
for (const name of ["createElement", "createTextNode"]) {
  const make = globalThis.document[name];
  globalThis.document[name] = (argument) => (made++, make(argument));
}

/** @type {(run: () => void) => number} */
function timed(run) {
  const start = performance.now();
  run();
  return performance.now() - start;
}

function grown(text) {
  const element = document.createElement("div");
  let [all, slowest] = [0, 0];
  for (let length = DELTA; length <= text.length; length += DELTA) {
    const took = timed(() => updateMarkdown(element, text.slice(0, length)));
    all += took;
    slowest = Math.max(slowest, took);
  }
  return {all, slowest};
}

console.log("at once ms | growing: all ms, slowest ms, nodes per character | text");
for (const [name, unit] of Object.entries(HOSTILE)) {
  const text = unit.repeat(LENGTH / unit.length + 1).slice(0, LENGTH);
  const once = timed(() => updateMarkdown(document.createElement("div"), text));
  made = 0;
  const {all, slowest} = grown(text);
  const numbers = [once, all, slowest, made / LENGTH].map((number) => number.toFixed(1).padStart(9));
  console.log(`${numbers.join(" ")}  ${name}`);
}
