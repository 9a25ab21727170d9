/** The mirror of the schema that our client is held against: it sees what is wrong. */

import assert from "node:assert/strict";
import {test} from "node:test";

import {checkFrame, typesOf} from "./protocol.mjs";

for (const frame of [
  {type: "dance"},
  {type: "subscribe"},
  {type: "subscribe", thread: 7},
  {type: "subscribe", thread: "t", cursor: {seq: 1}},
  {type: "subscribe", thread: "t", colour: "red"},
  {type: "tool_result", thread: "t", tool_call_id: "c"},
  {type: "approve", thread: "t", tool_call_id: "c", approved: "yes"},
]) {
  test(`${JSON.stringify(frame)} is no frame of a client`, () => {
    assert.throws(() => checkFrame("client", frame), {code: "ERR_ASSERTION"});
  });
}

test("a frame that fits is let through", () => {
  checkFrame("client", {type: "tool_result", thread: "t", tool_call_id: "c", key: "k", result: null});
  checkFrame("server", {type: "pong", t: 1});
  assert.ok(typesOf("server").includes("tool"));
});
