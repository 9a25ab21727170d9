/** A thread kept live: gaps are filled, sends are never doubled, views are told once per frame. */

import assert from "node:assert/strict";
import {test} from "node:test";

import {assistant, settle, SNAPSHOT, startThread, text, textOf, user} from "./fakes.mjs";

const begin = [{type: "start-step"}, {type: "text-start", id: "t"}];
const say = (words) => [{type: "text-delta", id: "t", delta: words}];
const delta = (seq, chunks) => ({type: "delta", thread: "t1", stream: "s1", message: "a", seq, chunks});
const ANSWERING = {status: "streaming", messages: [user("u", "Hi", 1), assistant("a", [], 2)]};

/** Sends and leaves it to the end of the test to refuse it. */
const sendUnanswered = (store, ...message) => void store.send(...message).catch(() => {});

const answer = (store) => textOf(store.getSnapshot().messages.find((message) => message.id === "a"));

test("a store knows nothing until the first snapshot", (t) => {
  const {client, network, store} = startThread(t, {...ANSWERING, title: "Greetings", hasOlder: true});
  const fresh = client.thread("t2");
  assert.equal(fresh.getSnapshot().isLoading, true);
  assert.equal(fresh.getSnapshot().status, null);
  assert.equal(network.sockets.length, 1);
  const {title, isLoading, isRunning, hasOlder, status} = store.getSnapshot();
  assert.deepEqual({title, isLoading, isRunning, hasOlder, status}, {title: "Greetings", isLoading: false, isRunning: true, hasOlder: true, status: "streaming"});
});

test("a snapshot is the same object until something changes", (t) => {
  const {network, store} = startThread(t, ANSWERING);
  const before = store.getSnapshot();
  assert.equal(store.getSnapshot(), before);
  network.socket.say({type: "pong", t: 1});
  network.socket.say({type: "from-the-future", thread: "t1"});
  assert.equal(store.getSnapshot(), before);
  network.socket.say(delta(0, begin));
  assert.notEqual(store.getSnapshot(), before);
  assert.equal(store.getSnapshot().messages[0], before.messages[0]);
});

test("a hundred deltas in one frame tell the view once", (t) => {
  const {network, store, tick} = startThread(t, ANSWERING);
  tick(16);
  const listener = t.mock.fn();
  store.subscribe(listener);
  network.socket.say(delta(0, begin));
  for (let seq = 1; seq <= 100; seq++) network.socket.say(delta(seq, say("x")));
  assert.equal(listener.mock.callCount(), 0);
  tick(16);
  assert.equal(listener.mock.callCount(), 1);
  assert.equal(answer(store).length, 100);
});

test("a listener that has gone is not told", (t) => {
  const {network, store, tick} = startThread(t, ANSWERING);
  tick(16);
  const listener = t.mock.fn();
  store.subscribe(listener)();
  network.socket.say(delta(0, begin));
  tick(16);
  assert.equal(listener.mock.callCount(), 0);
});

test("a gap that closes by itself is not asked for", (t) => {
  const {network, store, tick} = startThread(t, ANSWERING);
  network.socket.say(delta(1, say("b")));
  tick(149);
  network.socket.say(delta(0, [...begin, ...say("a")]));
  tick(1000);
  assert.equal(network.socket.all("fill").length, 0);
  assert.equal(answer(store), "ab");
});

test("a gap that stays is filled", (t) => {
  const {network, store, tick} = startThread(t, ANSWERING);
  network.socket.say(delta(0, begin));
  network.socket.say(delta(3, say("c")));
  tick(150);
  const fill = network.socket.last("fill");
  assert.deepEqual([fill.thread, fill.stream, fill.from, fill.to], ["t1", "s1", 1, 2]);
  network.socket.answer("fill", {type: "deltas", stream: "s1", deltas: [{seq: 1, chunks: say("a")}, {seq: 2, chunks: say("b")}]});
  assert.equal(answer(store), "abc");
});

test("a fill that brings only some is asked on", (t) => {
  const {network, store, tick} = startThread(t, ANSWERING);
  network.socket.say(delta(3, say("c")));
  tick(150);
  network.socket.answer("fill", {type: "deltas", stream: "s1", deltas: [{seq: 0, chunks: begin}, {seq: 1, chunks: say("a")}]});
  const fill = network.socket.last("fill");
  assert.deepEqual([fill.from, fill.to], [2, 2]);
  network.socket.answer("fill", {type: "deltas", stream: "s1", deltas: [{seq: 2, chunks: say("b")}]});
  assert.equal(answer(store), "abc");
});

for (const [what, reply] of [
  ["a reset", {type: "reset"}],
  ["an empty fill", {type: "deltas", stream: "s1", deltas: []}],
  ["a refused fill", {type: "error", code: "invalid", message: "no", retryable: false}],
]) {
  test(`${what} is answered by a subscription without a cursor`, async (t) => {
    const {network, store, tick} = startThread(t, ANSWERING);
    network.socket.say(delta(1, say("lost")));
    tick(150);
    network.socket.answer("fill", reply);
    await settle();
    assert.equal(network.socket.all("subscribe").length, 2);
    assert.equal("cursor" in network.socket.last("subscribe"), false);
    const messages = [user("u", "Hi", 1), assistant("a", [{type: "step-start"}, {type: "text", text: "ab", state: "streaming"}], 2)];
    network.socket.answer("subscribe", {...SNAPSHOT, rev: 2, status: "streaming", messages, streams: [{stream: "s1", message: "a", seq: 2}]});
    network.socket.say(delta(3, say("c")));
    assert.equal(answer(store), "abc");
  });
}

test("a broken connection goes on from the cursor, and nothing is shown twice", (t) => {
  const {network, store, tick} = startThread(t, {...ANSWERING, rev: 3});
  network.socket.say(delta(0, [...begin, ...say("a")]));
  network.socket.say(delta(2, say("c")));
  network.socket.drop();
  tick(500);
  network.socket.accept();
  assert.deepEqual(network.socket.last("subscribe").cursor, {rev: 3, stream: "s1", seq: 0});
  network.socket.answer("subscribe", {type: "resumed", rev: 4});
  network.socket.say(delta(1, say("b")));
  network.socket.say(delta(2, say("c")));
  network.socket.say({type: "thread", thread: "t1", rev: 4, status: "completed"});
  assert.equal(answer(store), "abc");
  assert.equal(store.getSnapshot().isComplete, true);
});

test("a sent message shows at once and becomes the stored one without changing its id", async (t) => {
  const {network, store} = startThread(t);
  const sending = store.send("Hello");
  const [draft] = store.getSnapshot().messages;
  assert.equal(draft.delivery, "sending");
  assert.equal(textOf(draft), "Hello");
  const {prompt, client_id: clientId, key} = network.socket.last("send");
  assert.deepEqual([prompt, clientId], ["Hello", draft.id]);
  assert.ok(key);
  network.socket.answer("send", {type: "ok", message: user(clientId, "Hello", 1)});
  assert.equal((await sending).position, 1);
  const [stored, ...others] = store.getSnapshot().messages;
  assert.equal(stored.id, draft.id);
  assert.equal(stored.delivery, undefined);
  assert.deepEqual(others, []);
});

test("the message frame may come before the answer to the send", async (t) => {
  const {network, store} = startThread(t);
  const sending = store.send("Hello", {clientId: "mine"});
  network.socket.say({type: "message", thread: "t1", rev: 2, message: user("mine", "Hello", 1)});
  assert.deepEqual(store.getSnapshot().messages.map(({id, delivery}) => [id, delivery]), [["mine", undefined]]);
  network.socket.answer("send", {type: "ok", message: user("mine", "Hello", 1)});
  await sending;
  assert.equal(store.getSnapshot().messages.length, 1);
});

test("a command without an answer is sent again with the same key", async (t) => {
  const {network, store, tick} = startThread(t);
  const sending = store.send("Hello");
  const first = network.socket.last("send");
  network.socket.drop();
  tick(500);
  network.socket.accept();
  const again = network.socket.last("send");
  assert.deepEqual(again, first);
  network.socket.answer("send", {type: "ok", message: user(first.client_id, "Hello", 1)});
  await sending;
  network.socket.drop();
  tick(1000);
  network.socket.accept();
  assert.equal(network.sockets.length, 3);
  assert.equal(network.socket.all("send").length, 0);
});

test("a message that the snapshot after a break brings is shown once", (t) => {
  const {network, store, tick} = startThread(t);
  sendUnanswered(store, "Hello", {clientId: "mine"});
  network.socket.drop();
  tick(500);
  network.socket.accept();
  network.socket.answer("subscribe", {...SNAPSHOT, rev: 2, messages: [user("mine", "Hello", 1)]});
  assert.deepEqual(store.getSnapshot().messages.map(({id, delivery}) => [id, delivery]), [["mine", undefined]]);
});

test("a message written while the connection is away goes out when it is back", (t) => {
  const {network, store, tick} = startThread(t);
  network.socket.drop();
  sendUnanswered(store, "Hello");
  assert.equal(store.getSnapshot().messages[0].delivery, "sending");
  tick(500);
  network.socket.accept();
  assert.equal(network.socket.last("send").prompt, "Hello");
});

test("a refused message shows why and may be sent again under its id", async (t) => {
  const {network, store} = startThread(t);
  const sending = store.send("Hello", {clientId: "mine"});
  network.socket.answer("send", {type: "error", code: "thread_busy", message: "Wait.", retryable: true});
  await assert.rejects(sending, {code: "thread_busy", retryable: true});
  const [failed] = store.getSnapshot().messages;
  assert.deepEqual([failed.delivery, failed.problem], ["failed", {code: "thread_busy", message: "Wait."}]);
  sendUnanswered(store, "Hello", {clientId: "mine"});
  const [first, second] = network.socket.all("send");
  assert.equal(second.client_id, first.client_id);
  assert.notEqual(second.key, first.key);
  assert.deepEqual(store.getSnapshot().messages.map(({delivery}) => delivery), ["sending"]);
});

test("a message too large for the server is refused here and not sent for ever", async (t) => {
  const {network, store, tick} = startThread(t);
  network.socket.drop();
  tick(500);
  network.socket.accept({limits: {frame: 1000}});
  await assert.rejects(store.send("é".repeat(600)), {code: "too_large"});
  assert.equal(network.socket.all("send").length, 0);
});

test("an output with too many values for the server is refused here, and a text full of brackets is sent", async (t) => {
  const {network, store, tick} = startThread(t);
  network.socket.drop();
  tick(500);
  network.socket.accept({limits: {frame: 100_000, values: 100}});
  await assert.rejects(store.addToolResult("c", Array(101).fill(0)), {code: "too_large"});
  assert.equal(network.socket.all("tool_result").length, 0);
  sendUnanswered(store, '"[]{},'.repeat(200));
  assert.equal(network.socket.all("send").length, 1);
});

test("a stop shows until the thread is at rest", async (t) => {
  const {network, store} = startThread(t, ANSWERING);
  const stopping = store.stop();
  assert.equal(store.getSnapshot().isStopping, true);
  network.socket.answer("stop", {type: "ok"});
  await stopping;
  assert.equal(store.getSnapshot().isStopping, true);
  network.socket.say({type: "thread", thread: "t1", rev: 2, status: "stopped"});
  assert.deepEqual([store.getSnapshot().isStopping, store.getSnapshot().isStopped], [false, true]);
});

test("a refused stop is over", async (t) => {
  const {network, store} = startThread(t, ANSWERING);
  const stopping = store.stop();
  network.socket.answer("stop", {type: "error", code: "throttled", message: "Slowly.", retryable: true});
  await assert.rejects(stopping, {code: "throttled"});
  assert.equal(store.getSnapshot().isStopping, false);
});

test("a failed thread says why, and resume asks to go on", async (t) => {
  const {network, store} = startThread(t, {status: "failed", error: {code: "network", message: "The model could not be reached."}});
  assert.equal(store.getSnapshot().error.code, "network");
  const resuming = store.resume();
  network.socket.answer("resume", {type: "ok"});
  await resuming;
  network.socket.say({type: "thread", thread: "t1", rev: 2, status: "streaming"});
  assert.deepEqual([store.getSnapshot().error, store.getSnapshot().isRunning], [null, true]);
});

test("a thread that may not be seen says so", async (t) => {
  const {network, store, tick} = startThread(t);
  network.socket.drop();
  tick(500);
  network.socket.accept();
  network.socket.answer("subscribe", {type: "error", code: "thread_not_found", message: "No such thread.", retryable: false});
  await settle();
  assert.deepEqual(store.getSnapshot().refused, {code: "thread_not_found", message: "No such thread."});
  assert.equal(store.getSnapshot().isLoading, false);
});

test("a thread that goes away while it is shown says so", (t) => {
  const {network, store} = startThread(t, ANSWERING);
  network.socket.say({type: "error", thread: "t1", code: "thread_not_found", message: "The thread is gone.", retryable: false});
  assert.equal(store.getSnapshot().refused.code, "thread_not_found");
});

test("a thread whose agent was removed is shown, says so, and goes on when the agent is back", (t) => {
  const reason = {code: "agent_removed", message: "This assistant no longer exists."};
  const {network, store} = startThread(t, {...ANSWERING, status: "completed", read_only: reason});
  assert.deepEqual([store.getSnapshot().readOnly, store.getSnapshot().refused], [reason, null]);
  assert.equal(store.getSnapshot().messages.length, 2);
  network.socket.say({type: "thread", thread: "t1", rev: 2, status: "completed", title: "", error: null, retry: null, read_only: null});
  assert.equal(store.getSnapshot().readOnly, null);
  network.socket.say({type: "error", thread: "t1", code: "thread_not_found", message: "The thread is gone.", retryable: false});
  assert.equal(store.getSnapshot().readOnly.code, "thread_not_found");
});

test("a subscription refused for now is asked for again", async (t) => {
  const {network, store, tick} = startThread(t);
  network.socket.drop();
  tick(500);
  network.socket.accept();
  network.socket.answer("subscribe", {type: "error", code: "busy", message: "Later.", retryable: true});
  await settle();
  tick(1000);
  assert.equal(network.socket.all("subscribe").length, 2);
  assert.equal(store.getSnapshot().refused, null);
});

test("older messages are put before the others", async (t) => {
  const {network, store} = startThread(t, {hasOlder: true, messages: [user("u3", "three", 3)]});
  const loading = store.loadOlder(2);
  const {before, limit} = network.socket.last("older");
  assert.deepEqual([before, limit], [3, 2]);
  network.socket.answer("older", {type: "page", messages: [user("u1", "one", 1), user("u2", "two", 2)], hasOlder: false});
  await loading;
  assert.deepEqual(store.getSnapshot().messages.map(({id}) => id), ["u1", "u2", "u3"]);
  assert.equal(store.getSnapshot().hasOlder, false);
});

const LONG = [{type: "step-start"}, text("one "), {type: "step-start"}, text("two "), {type: "step-start"}, text("three")];

test("the steps that an answer lacks are put before those that are shown", async (t) => {
  const shown = {...assistant("a", LONG.slice(4), 2), omitted: 2};
  const {network, store} = startThread(t, {hasOlder: true, messages: [shown, user("u3", "Next", 3)]});
  const [before, next] = store.getSnapshot().messages;
  const loading = [store.loadOlder(), store.loadOlder()];
  for (const {id, before: position, steps} of network.socket.all("older")) {
    assert.deepEqual([position, steps], [2, 2]);
    const messages = [{...assistant("a", LONG.slice(2, 4), 2), omitted: 1}];
    network.socket.say({type: "page", id, thread: "t1", messages, hasOlder: true});
  }
  await Promise.all(loading);
  const [cut] = store.getSnapshot().messages;
  assert.deepEqual([textOf(cut), cut.omitted], ["two three", 1]);
  assert.equal(cut.parts.at(-1), before.parts.at(-1));
  assert.equal(store.getSnapshot().messages[1], next);
  const last = store.loadOlder();
  assert.equal(network.socket.last("older").steps, 1);
  const page = [user("u", "Hi", 1), assistant("a", LONG.slice(0, 2), 2)];
  network.socket.answer("older", {type: "page", messages: page, hasOlder: false});
  await last;
  const {messages, hasOlder} = store.getSnapshot();
  assert.deepEqual(messages.map(({id, omitted}) => [id, omitted]), [["u", undefined], ["a", undefined], ["u3", undefined]]);
  assert.deepEqual([textOf(messages[1]), hasOlder], ["one two three", false]);
});

test("older ones are asked for from the oldest message that has a place", async (t) => {
  const queued = {...user("u9", "Later"), position: null};
  const {network, store} = startThread(t, {hasOlder: true, messages: [queued]});
  await store.loadOlder();
  assert.equal(network.socket.all("older").length, 0);
  network.socket.say({type: "message", thread: "t1", rev: 2, message: assistant("a", [], 6)});
  const loading = store.loadOlder();
  assert.equal(network.socket.last("older").before, 6);
  network.socket.answer("older", {type: "page", messages: [], hasOlder: false});
  await loading;
});

const ASKED = {type: "tool-pay", toolCallId: "c", state: "approval-requested", input: {amount: 5}, approval: {id: "c"}};
const ANSWERS = [
  ["addToolResult", ["c", {found: [1]}], "tool_result", {result: {found: [1]}}],
  ["addToolResult", ["c", undefined], "tool_result", {result: null}],
  ["addToolError", ["c", "Closed."], "tool_error", {error: "Closed."}],
  ["approve", ["c"], "approve", {approved: true}],
  ["approve", ["c", {arguments: {amount: 3}, reason: "Less."}], "approve", {approved: true, arguments: {amount: 3}, reason: "Less."}],
  ["reject", ["c", {reason: "No."}], "reject", {reason: "No."}],
];

for (const [method, given, type, fields] of ANSWERS) {
  test(`${method}(${JSON.stringify(given.slice(1))}) is sent once per key, over a break too`, async (t) => {
    const {network, store, tick} = startThread(t);
    const answering = store[method](...given);
    const {key, id, ...sent} = network.socket.last(type);
    assert.deepEqual(sent, {type, thread: "t1", tool_call_id: "c", ...fields});
    assert.ok(key && id);
    network.socket.drop();
    tick(500);
    network.socket.accept();
    assert.equal(network.socket.last(type).key, key);
    network.socket.answer(type, {type: "ok", tool_call_id: "c", status: "pending"});
    assert.equal(await answering, undefined);
  });
}

const REVISIONS = [
  ["edit", ["u1", "Two?"], "edit", {message: "u1", prompt: "Two?"}],
  ["edit", ["u1", [{type: "text", text: "Two?"}]], "edit", {message: "u1", parts: [{type: "text", text: "Two?"}]}],
  ["regenerate", [], "regenerate", {}],
  ["regenerate", ["a1"], "regenerate", {message: "a1"}],
];

for (const [method, given, type, fields] of REVISIONS) {
  test(`${method}(${JSON.stringify(given)}) replaces what was said`, async (t) => {
    const messages = [user("u1", "One?", 1), assistant("a1", [{type: "text", text: "1."}], 2)];
    const {network, store} = startThread(t, {messages});
    const revising = store[method](...given);
    const {key, id, ...sent} = network.socket.last(type);
    assert.deepEqual(sent, {type, thread: "t1", ...fields});
    assert.ok(key && id);
    network.socket.answer(type, {type: "ok", thread: "t1", message: user("u1", "Two?", 3)});
    assert.equal(await revising, undefined);
    network.socket.say({type: "removed", thread: "t1", rev: 5, ids: ["u1", "a1"]});
    network.socket.say({type: "message", thread: "t1", rev: 6, message: user("u1", "Two?", 3)});
    const shown = store.getSnapshot().messages.map((message) => [message.id, message.parts[0].text]);
    assert.deepEqual(shown, [["u1", "Two?"]]);
  });
}

test("an answer that is refused says why, and the question stays", async (t) => {
  const {network, store} = startThread(t, {status: "awaiting_tool_results", messages: [assistant("a", [ASKED], 1)]});
  const answering = store.approve("c");
  network.socket.answer("approve", {type: "error", code: "approval_expired", message: "Too late.", retryable: false});
  await assert.rejects(answering, {code: "approval_expired", message: "Too late."});
  assert.equal(store.getSnapshot().messages[0].parts[0].state, "approval-requested");
});

test("a decision of another tab takes the question away", (t) => {
  const {network, store} = startThread(t, {status: "awaiting_tool_results", messages: [assistant("a", [ASKED], 1)]});
  network.socket.say({type: "tool", thread: "t1", rev: 2, tool_call_id: "c", status: "denied"});
  assert.equal(store.getSnapshot().messages[0].parts[0].state, "output-denied");
});
