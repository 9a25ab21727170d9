/** The list of threads, smooth text, and what stores keep for readers who come and go. */

import assert from "node:assert/strict";
import {test} from "node:test";

import {applyChunk, smoothText} from "../../durable_agents/static/durable_agents/durable-agents.js";
import {assistant, fakePage, settle, SNAPSHOT, start, startThread, user} from "./fakes.mjs";

const json = (body, status = 200) => new Response(JSON.stringify(body), {status});
const thread = (id, at, more) => ({id, title: id, status: "completed", updated_at: `2026-11-0${at}T00:00:00Z`, ...more});

function startList(t, answers, filter) {
  const asked = [];
  const fetch = async (url, {method, body}) => {
    asked.push([method, url.pathname.replace("/agents/", "") + url.search, body && JSON.parse(body)]);
    return answers.length > 1 ? answers.shift()() : answers[0]();
  };
  const started = start(t, {fetch});
  const list = started.client.threads(filter);
  const listener = t.mock.fn();
  t.after(list.subscribe(listener));
  return {...started, list, asked, listener};
}

const pageOf = (...results) => () => json({results, next: null, previous: null});
const ids = (list) => list.getSnapshot().threads.map(({id}) => id);

test("threads are listed by their last change and page by page", async (t) => {
  const first = () => json({results: [thread("a", 1), thread("b", 3)], next: "http://site.test/agents/threads/?cursor=c"});
  const {list, asked, client} = startList(t, [first, pageOf(thread("c", 2))], {agent: "x"});
  assert.equal(list.getSnapshot().isLoading, true);
  await settle();
  assert.deepEqual(ids(list), ["b", "a"]);
  assert.equal(list.getSnapshot(), list.getSnapshot());
  await list.loadMore();
  assert.deepEqual(ids(list), ["b", "c", "a"]);
  assert.equal(list.getSnapshot().hasMore, false);
  assert.equal(asked[0][1], "threads/?archived=false&agent=x&limit=30");
  assert.equal(client.threads({agent: "x"}), list);
});

test("a thread is searched, renamed, archived and deleted", async (t) => {
  const {list, asked} = startList(t, [pageOf(thread("a", 1)), pageOf(thread("b", 1)), () => json(thread("b", 2, {title: "New"})), () => json(thread("b", 2)), pageOf(), () => new Response(null, {status: 204}), pageOf()]);
  await settle();
  await list.search("needle");
  assert.deepEqual(ids(list), ["b"]);
  await list.rename("b", "New");
  assert.equal(list.getSnapshot().threads[0].title, "New");
  await list.archive("b");
  assert.deepEqual(ids(list), []);
  await list.remove("b");
  assert.deepEqual(asked.slice(1).map(([method, path, body]) => [method, path, body]), [
    ["GET", "threads/?archived=false&search=needle&limit=30", undefined],
    ["PATCH", "threads/b/", {title: "New"}],
    ["PATCH", "threads/b/", {archived: true}],
    ["GET", "threads/?archived=false&search=needle&limit=30", undefined],
    ["DELETE", "threads/b/", undefined],
    ["GET", "threads/?archived=false&search=needle&limit=30", undefined],
  ]);
});

test("a followed thread changes in the list at once", async (t) => {
  const {list, client, network, tick} = startList(t, [pageOf(thread("t1", 1), thread("t2", 2))]);
  await settle();
  t.mock.timers.setTime(Date.parse("2026-12-01"));
  client.thread("t1").subscribe(() => {});
  network.socket.accept();
  network.socket.answer("subscribe", {...SNAPSHOT, status: "streaming", title: "t1"});
  tick(250);
  assert.deepEqual(ids(list), ["t1", "t2"]);
  assert.equal(list.getSnapshot().threads[0].status, "streaming");
});

test("the list is looked up again while one runs, and not when nobody listens", async (t) => {
  const {list, asked, tick, page} = startList(t, [pageOf(thread("a", 1, {status: "streaming"}))]);
  const leave = list.subscribe(() => {});
  await settle();
  tick(10_000);
  await settle();
  assert.equal(asked.length, 2);
  page.setHidden(true);
  tick(20_000);
  await settle();
  assert.equal(asked.length, 2);
  page.setHidden(false);
  await settle();
  assert.equal(asked.length, 3);
  leave();
});

test("a list that cannot be loaded says why and keeps what it has", async (t) => {
  const {list} = startList(t, [pageOf(thread("a", 1)), () => json({code: "throttled", detail: "Wait."}, 429)]);
  await settle();
  await list.refresh();
  assert.deepEqual(ids(list), ["a"]);
  assert.deepEqual(list.getSnapshot().error, {code: "throttled", message: "Wait."});
});

function startSmooth(t, options) {
  t.mock.timers.enable({apis: ["setTimeout", "Date"]});
  const page = fakePage(t);
  const shown = [];
  const smooth = smoothText((visible, state) => shown.push([visible, state]), options);
  t.after(() => smooth.close());
  const tick = (ms) => {
    for (let left = ms; left > 0; left -= 16) t.mock.timers.tick(16);
  };
  return {smooth, shown, tick, page, last: () => shown.at(-1)[0]};
}

test("text that is there at first is shown at once, and what follows at an even pace", (t) => {
  const {smooth, shown, tick, last} = startSmooth(t, {charsPerSec: 100});
  smooth.update("Hello");
  assert.deepEqual(shown, [["Hello", {cursor: 5, isStreaming: false}]]);
  smooth.update(`Hello${"x".repeat(20)}`);
  tick(96);
  const {length} = last();
  assert.ok(length > 10 && length < 20, String(length));
  tick(400);
  assert.equal(last().length, 25);
  assert.equal(shown.at(-1)[1].isStreaming, false);
});

test("a long backlog is caught up, and another text replaces what is shown", (t) => {
  const {smooth, tick, last} = startSmooth(t, {charsPerSec: 100, startStreaming: true});
  smooth.update("y".repeat(100_000));
  assert.equal(last(), "");
  tick(5_000);
  assert.equal(last().length, 100_000);
  smooth.update("Something else");
  assert.equal(last(), "Something else");
});

test("a page that paints rarely shows no less of the text", (t) => {
  const {smooth, shown, tick} = startSmooth(t, {charsPerSec: 100, startStreaming: true});
  globalThis.requestAnimationFrame = (run) => setTimeout(run, 800);
  t.after(() => delete globalThis.requestAnimationFrame);
  smooth.update("z".repeat(200));
  tick(1600);
  assert.deepEqual(shown.map(([visible]) => visible.length), [0, 200]);
});

test("no character is cut in half, and a hidden page does not wait", (t) => {
  const {smooth, shown, tick, page, last} = startSmooth(t, {charsPerSec: 60, startStreaming: true});
  smooth.update("😀".repeat(8));
  tick(800);
  assert.ok(shown.every(([visible]) => visible.isWellFormed()));
  smooth.update("😀".repeat(80));
  page.setHidden(true);
  smooth.update("😀".repeat(90));
  tick(64);
  assert.equal(last().length, 180);
});

test("a closed one shows nothing more", (t) => {
  const {smooth, shown, tick} = startSmooth(t, {startStreaming: true});
  smooth.update("Hello");
  smooth.close();
  const {length} = shown;
  tick(1000);
  assert.equal(shown.length, length);
});

test("a store whose last listener has gone unsubscribes after a while and resumes", (t) => {
  const {network, store, tick} = startThread(t, {rev: 4}); // has a listener of its own, which stays
  const leave = store.subscribe(() => {});
  leave();
  tick(10_000);
  assert.equal(network.socket.all("unsubscribe").length, 0);
});

test("two mounts and a quick return cost nothing", (t) => {
  const {client, network, tick} = start(t);
  const store = client.thread("t1");
  store.subscribe(() => {})();
  const leave = store.subscribe(() => {});
  network.socket.accept();
  network.socket.answer("subscribe", {...SNAPSHOT, rev: 4});
  leave();
  tick(4_000);
  const again = store.subscribe(() => {});
  tick(10_000);
  assert.equal(network.socket.all("subscribe").length, 1);
  assert.equal(network.socket.all("unsubscribe").length, 0);
  again();
  tick(5_000);
  assert.equal(network.socket.last("unsubscribe").thread, "t1");
  assert.equal(client.thread("t1"), store);
  store.subscribe(() => {});
  assert.deepEqual(network.socket.last("subscribe").cursor, {rev: 4, stream: "", seq: -1});
});

test("a lost attempt is told until the next one writes", (t) => {
  const {network, store} = startThread(t, {status: "streaming", messages: [user("u", "Hi", 1), assistant("a", [], 2)]});
  const delta = (stream, seq) => ({type: "delta", thread: "t1", stream, message: "a", seq, chunks: [{type: "start-step"}]});
  network.socket.say(delta("s1", 0));
  assert.equal(store.getSnapshot().isRecovering, false);
  network.socket.say({type: "stream", thread: "t1", rev: 2, message: "a", stream: "s1", status: "superseded"});
  assert.equal(store.getSnapshot().isRecovering, true);
  network.socket.say(delta("s2", 0));
  assert.equal(store.getSnapshot().isRecovering, false);
  network.socket.say({type: "stream", thread: "t1", rev: 3, message: "a", stream: "s2", status: "failed"});
  network.socket.say({type: "thread", thread: "t1", rev: 4, status: "failed", title: "", error: {code: "auth", message: "no"}, retry: null});
  assert.equal(store.getSnapshot().isRecovering, false);
});

test("until what was missed has come the thread is replaying", (t) => {
  const {network, store, tick} = startThread(t);
  assert.equal(store.getSnapshot().isReplaying, false);
  network.socket.drop();
  tick(500);
  network.socket.accept();
  assert.equal(store.getSnapshot().isReplaying, true);
  network.socket.answer("subscribe", {type: "resumed", rev: 1});
  assert.equal(store.getSnapshot().isReplaying, false);
});

test("a long tool input is parsed when it is read, not at each delta", (t) => {
  const parse = t.mock.method(JSON, "parse");
  let message = applyChunk({id: "a", role: "assistant", parts: []}, {type: "tool-input-start", toolCallId: "c", toolName: "write"});
  for (const piece of ['{"text": "', ..."x".repeat(5_000), '"']) message = applyChunk(message, {type: "tool-input-delta", toolCallId: "c", inputTextDelta: piece});
  assert.equal(parse.mock.callCount(), 0);
  assert.equal(message.parts[0].input.text.length, 5_000);
  assert.equal(message.parts[0].input, message.parts[0].input);
  assert.equal(parse.mock.callCount(), 1);
});
