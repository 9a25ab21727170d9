/** Applies lists of chunks on standard input as a page does and as the AI SDK does, and prints the parts of each. */

import {readFileSync} from "node:fs";

import {readUIMessageStream} from "ai";

import {applyChunk} from "../../durable_agents/static/durable_agents/durable-agents.js";

const shown = [];
for (const chunks of JSON.parse(readFileSync(0, "utf8"))) {
  const ours = chunks.reduce(applyChunk, {id: "", role: "assistant", parts: []});
  let theirs = {parts: []};
  const onError = (error) => {
    throw error;
  };
  for await (const message of readUIMessageStream({stream: ReadableStream.from(chunks), onError})) theirs = structuredClone(message);
  shown.push([ours.parts, theirs.parts]);
}
process.stdout.write(JSON.stringify(shown));
