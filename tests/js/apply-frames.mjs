/** Applies the frames and the chunks on standard input as a page does, and prints the messages that it then shows. */

import {readFileSync} from "node:fs";

import {applyChunk, Transcript} from "../../durable_agents/static/durable_agents/durable-agents.js";

/** @type {Record<string, (transcript: Transcript, frame: any) => unknown>} */
const HANDLERS = {
  snapshot: (transcript, frame) => transcript.reset(frame),
  delta: (transcript, frame) => transcript.delta(frame),
};

const shown = JSON.parse(readFileSync(0, "utf8")).map(({frames, chunks}) => {
  if (chunks) return chunks.reduce(applyChunk, {id: "", role: "assistant", parts: []}).parts;
  const transcript = new Transcript();
  for (const frame of frames) (HANDLERS[frame.type] ?? ((it, one) => it.commit(one)))(transcript, frame);
  return transcript.messages();
});
process.stdout.write(JSON.stringify(shown));
