/** The reducer against the AI SDK's own reader, in both of its majors: the same chunks give the same message. */

import assert from "node:assert/strict";
import {test} from "node:test";

import {applyChunk} from "../../durable_agents/static/durable_agents/durable-agents.js";
import {randomSource} from "./random.mjs";

const MAJORS = {"AI SDK 6": "ai6", "AI SDK 7": "ai"};
const ROUNDS = 200;

/** One step as a model call writes it: text, reasoning and tools in turns, each opened, grown and closed. */
function randomStep(random, step) {
  const writers = Array.from({length: 1 + random.below(4)}, (_, index) => randomWriter(random, `${step}-${index}`));
  const chunks = [{type: "start-step"}];
  while (writers.some((writer) => writer.length > 0)) {
    const writer = random.pick(writers.filter(({length}) => length > 0));
    chunks.push(writer.shift());
  }
  return [...chunks, ...random.pick([[], [{type: "data-note", id: "n", data: step}]]), {type: "finish-step"}];
}

function randomWriter(random, id) {
  const deltas = Array.from({length: random.below(5)}, () => random.pick(["a", " ", "é", "\n", "🙂", "{"]));
  const kind = random.pick(["text", "reasoning", "tool", "source"]);
  if (kind === "tool") return randomTool(random, id);
  if (kind === "source") return [{type: "source-url", sourceId: id, url: "https://example.org/", title: "t"}];
  return [{type: `${kind}-start`, id}, ...deltas.map((delta) => ({type: `${kind}-delta`, id, delta})), {type: `${kind}-end`, id}];
}

function randomTool(random, toolCallId) {
  const call = {toolCallId, toolName: "add", ...(random.below(3) ? {} : {dynamic: true})};
  const input = {city: "Paris", count: [random.below(9), {deep: "x"}]};
  const pieces = JSON.stringify(input).match(/.{1,7}/g);
  const outcomes = [
    [],
    [{type: "tool-output-available", toolCallId, output: random.pick([null, 1, {a: [1]}])}],
    [{type: "tool-output-available", toolCallId, output: 1, preliminary: true}, {type: "tool-output-available", toolCallId, output: 2}],
    [{type: "tool-output-error", toolCallId, errorText: "no"}],
    [{type: "tool-approval-request", toolCallId, approvalId: toolCallId}, {type: "tool-output-denied", toolCallId}],
    decided(toolCallId, {approved: false, reason: "No."}, {type: "tool-output-denied", toolCallId}),
    decided(toolCallId, {approved: true}, {type: "tool-output-available", toolCallId, output: 3}),
  ];
  return [
    {type: "tool-input-start", ...call},
    ...random.pick([[], pieces.map((inputTextDelta) => ({type: "tool-input-delta", toolCallId, inputTextDelta}))]),
    {type: "tool-input-available", ...call, input, ...random.pick([{}, {providerMetadata: {p: {k: 1}}}])},
    ...random.pick(outcomes),
  ];
}

function decided(toolCallId, decision, outcome) {
  const approvalId = toolCallId;
  return [{type: "tool-approval-request", toolCallId, approvalId}, {type: "tool-approval-response", approvalId, ...decision}, outcome];
}

/** Absent and undefined are one; the ids of reasoning parts are a detail of one version of the SDK. */
function normalised(message) {
  const {id, role, metadata, parts} = JSON.parse(JSON.stringify(message));
  return {id, role, metadata, parts: parts.map(({id: partId, ...part}) => (part.type === "reasoning" ? part : {...part, partId}))};
}

async function readBySdk(sdk, chunks) {
  let last = null;
  const stream = ReadableStream.from(chunks);
  for await (const message of sdk.readUIMessageStream({stream, onError: (error) => assert.fail(error)})) last = message;
  return last;
}

for (const [name, specifier] of Object.entries(MAJORS)) {
  const sdk = await import(specifier).catch(() => null);
  const skip = sdk ? false : `the package '${specifier}' is not installed: npm ci`;

  test(`random messages are the same as the ${name} reads them`, {skip}, async () => {
    for (let round = 0; round < ROUNDS; round++) {
      const random = randomSource(round);
      const steps = Array.from({length: 1 + random.below(3)}, (_, index) => randomStep(random, index));
      const start = {type: "start", messageId: "m", messageMetadata: {a: {b: 1}}};
      const said = [start, ...steps.flat(), {type: "finish", messageMetadata: {a: {c: 2}}}];
      const chunks = name.endsWith("7") ? said : said.filter(({type}) => type !== "tool-approval-response");
      const ours = chunks.reduce(applyChunk, {id: "", role: "assistant", parts: []});
      assert.deepEqual(normalised(ours), normalised(await readBySdk(sdk, chunks)), `round ${round}`);
    }
  });
}
