/** One chunk into one message. */

import assert from "node:assert/strict";
import {test} from "node:test";

import {applyChunk, parsePartialJson} from "../../durable_agents/static/durable_agents/durable-agents.js";

const EMPTY = {id: "m", role: "assistant", parts: []};
const fold = (...chunks) => chunks.reduce(applyChunk, EMPTY);

test("text grows between its start and its end", () => {
  const open = fold({type: "start-step"}, {type: "text-start", id: "t"}, {type: "text-delta", id: "t", delta: "He"}, {type: "text-delta", id: "t", delta: "llo"});
  assert.deepEqual(open.parts, [{type: "step-start"}, {type: "text", text: "Hello", state: "streaming"}]);
  assert.deepEqual(applyChunk(open, {type: "text-end", id: "t"}).parts[1], {type: "text", text: "Hello", state: "done"});
});

test("two texts written in turns do not mix", () => {
  const message = fold(
    {type: "text-start", id: "a"},
    {type: "reasoning-start", id: "b"},
    {type: "text-delta", id: "a", delta: "said"},
    {type: "reasoning-delta", id: "b", delta: "thought"},
  );
  assert.deepEqual(message.parts.map((part) => part.text), ["said", "thought"]);
});

test("a delta of an unknown id continues the open text of a snapshot", () => {
  const folded = {...EMPTY, parts: [{type: "text", text: "Once upon", state: "streaming"}]};
  const message = [{type: "text-delta", id: "x", delta: " a"}, {type: "text-delta", id: "x", delta: " time"}, {type: "text-end", id: "x"}].reduce(applyChunk, folded);
  assert.deepEqual(message.parts, [{type: "text", text: "Once upon a time", state: "done"}]);
});

test("a delta of an unknown id with nothing open is shown all the same", () => {
  assert.deepEqual(fold({type: "text-delta", id: "x", delta: "Hi"}).parts, [{type: "text", text: "Hi", state: "streaming"}]);
});

test("a tool goes from its input to its output", () => {
  const input = {type: "tool-input-start", toolCallId: "c", toolName: "add"};
  const called = fold(input, {type: "tool-input-available", toolCallId: "c", toolName: "add", input: {a: 1}});
  assert.deepEqual(called.parts, [{type: "tool-add", toolCallId: "c", state: "input-available", input: {a: 1}}]);
  const done = applyChunk(called, {type: "tool-output-available", toolCallId: "c", output: null});
  assert.deepEqual(done.parts, [{type: "tool-add", toolCallId: "c", state: "output-available", input: {a: 1}, output: null}]);
});

test("the input of a tool shows while it is written", () => {
  const begun = fold({type: "tool-input-start", toolCallId: "c", toolName: "add"}, {type: "tool-input-delta", toolCallId: "c", inputTextDelta: '{"city": "Par'});
  assert.deepEqual(begun.parts[0].input, {city: "Par"});
  const after = applyChunk(begun, {type: "tool-input-available", toolCallId: "c", toolName: "add", input: {city: "Paris"}});
  assert.deepEqual(after.parts[0], {type: "tool-add", toolCallId: "c", state: "input-available", input: {city: "Paris"}});
});

test("an outcome of a tool that nobody called changes nothing", () => {
  assert.equal(applyChunk(EMPTY, {type: "tool-output-available", toolCallId: "ghost", output: 1}), EMPTY);
});

test("data with an id replaces itself and transient data leaves no trace", () => {
  const message = fold({type: "data-progress", id: "p", data: 1}, {type: "data-progress", id: "p", data: 2}, {type: "data-note", data: 3, transient: true});
  assert.deepEqual(message.parts, [{type: "data-progress", id: "p", data: 2}]);
});

test("what is not about the message leaves the message itself", () => {
  for (const type of ["finish-step", "error", "abort", "from-the-future", "constructor", "__proto__"]) {
    assert.equal(applyChunk(EMPTY, {type}), EMPTY);
  }
});

test("the message before a chunk is never changed and untouched parts stay the same objects", () => {
  const before = Object.freeze({...EMPTY, parts: Object.freeze([Object.freeze({type: "step-start"}), Object.freeze({type: "text", text: "a", state: "streaming"})])});
  const after = applyChunk(before, {type: "text-delta", id: "t", delta: "b"});
  assert.equal(after.parts[0], before.parts[0]);
  assert.equal(before.parts[1].text, "a");
});

test("metadata is merged in depth and a hostile key pollutes nothing", () => {
  const hostile = JSON.parse('{"usage": {"output": 2}, "__proto__": {"polluted": true}}');
  const message = fold({type: "start", messageId: "n", messageMetadata: {usage: {input: 1}}}, {type: "finish", messageMetadata: hostile});
  assert.equal(message.id, "n");
  assert.deepEqual(message.metadata.usage, {input: 1, output: 2});
  assert.equal({}.polluted, undefined);
});

for (const [head, value] of [
  ["", undefined],
  ["{", {}],
  ['{"a', {}],
  ['{"a": ', {}],
  ['{"a": "b\\', {a: "b"}],
  ['{"a": "b\\u00', {a: "b"}],
  ['{"a": {"b": [1, 2', {a: {b: [1, 2]}}],
  ['{"a": [1, ', {a: [1]}],
  ['{"a": "} ] \\" {"', {a: '} ] " {'}],
]) {
  test(`the beginning ${head || "(nothing)"} of a JSON text says ${JSON.stringify(value)}`, () => {
    assert.deepEqual(parsePartialJson(head), value);
  });
}
