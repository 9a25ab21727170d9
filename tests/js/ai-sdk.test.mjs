/** `createChat` where no server is needed; `tests/aisdk` has the rest. */

import assert from "node:assert/strict";
import {test} from "node:test";
import {isDeepStrictEqual} from "node:util";

import {DefaultChatTransport} from "ai6";
import {Chat} from "ai6-react";

import {createChat} from "../../durable_agents/static/durable_agents/ai-sdk.js";

const until = async (isDone) => {
  while (!isDone()) await new Promise(setImmediate);
};
const stored = [
  {id: "m1", role: "user", parts: [{type: "text", text: "Hello"}]},
  {id: "m2", role: "assistant", parts: [{type: "text", text: "Hi."}]},
];
const loads = {
  "/agents/threads/t1/": () => Response.json({id: "t1", is_running: false}),
  "/agents/threads/t1/messages/?streams=1&limit=200": () => Response.json({results: stored, next: null}),
};

test("a response that has been silent for three comments is given up, and the chat reads on", {timeout: 10_000}, async (t) => {
  t.mock.timers.enable({apis: ["setTimeout"]});
  const heard = [];
  let isRead = false;
  const silent = new ReadableStream({pull: () => ((isRead = true), new Promise(() => {}))}, {highWaterMark: 0});
  const fetch = async (url) => (loads[url] ?? (() => new Response(silent, {headers: {"Content-Type": "text/event-stream"}})))();
  const chat = createChat({Chat, DefaultChatTransport, id: "t1", fetch, onConnection: (isConnected) => heard.push(isConnected)});
  void chat.sendMessage({text: "Hello"});
  await until(() => isRead);
  t.mock.timers.tick(44_000);
  await new Promise(setImmediate);
  assert.deepEqual(heard, []);
  t.mock.timers.tick(1000);
  await until(() => chat.messages.length === stored.length && chat.messages[0].id === "m1");
  assert.deepEqual(heard, [false, true]);
  assert.deepEqual(chat.messages, stored);
});

test("a server that is restarting is asked again after the time that it names", {timeout: 10_000}, async (t) => {
  t.mock.timers.enable({apis: ["setTimeout"]});
  let asked = 0;
  const fetch = async (url) => (asked++ ? loads[url]() : new Response("", {status: 503, headers: {"Retry-After": "7"}}));
  const chat = createChat({Chat, DefaultChatTransport, id: "t1", fetch});
  void chat.resumeStream();
  await until(() => asked === 1);
  await new Promise(setImmediate);
  t.mock.timers.tick(6900);
  await new Promise(setImmediate);
  assert.equal(asked, 1);
  t.mock.timers.tick(100);
  await until(() => chat.thread);
  assert.deepEqual(chat.messages, stored);
});

test("all pages of a long thread are loaded", {timeout: 10_000}, async () => {
  const pages = {
    ...loads,
    "/agents/threads/t1/messages/?streams=1&limit=200": () => Response.json({results: stored.slice(0, 1), next: "http://inside:8000/agents/threads/t1/messages/?cursor=c"}),
    "/agents/threads/t1/messages/?cursor=c": () => Response.json({results: stored.slice(1), next: null}),
  };
  const chat = createChat({Chat, DefaultChatTransport, id: "t1", fetch: async (url) => pages[url]()});
  assert.equal(await chat.load(), false);
  assert.deepEqual(chat.messages, stored);
});

test("a date in Retry-After is no reason to ask without a pause", {timeout: 10_000}, async (t) => {
  t.mock.timers.enable({apis: ["setTimeout"]});
  let asked = 0;
  const fetch = async () => (asked++, new Response("", {status: 503, headers: {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}}));
  const chat = createChat({Chat, DefaultChatTransport, id: "t1", fetch});
  void chat.resumeStream();
  await until(() => asked === 1);
  t.mock.timers.tick(200);
  for (let turns = 0; turns < 20; turns++) await new Promise(setImmediate);
  assert.equal(asked, 1);
  chat.close();
});

test("a body that breaks off while it is loaded is asked for again", {timeout: 10_000}, async (t) => {
  t.mock.timers.enable({apis: ["setTimeout"]});
  const heard = [];
  let isCut = true;
  const cut = () => new Response(new ReadableStream({pull: (controller) => controller.error(new TypeError("network error"))}));
  const fetch = async (url) => (isCut ? ((isCut = false), cut()) : loads[url]());
  const chat = createChat({Chat, DefaultChatTransport, id: "t1", fetch, onConnection: (isConnected) => heard.push(isConnected)});
  void chat.resumeStream();
  await until(() => heard.length);
  await new Promise(setImmediate);
  t.mock.timers.tick(1000);
  await until(() => chat.thread);
  assert.deepEqual(chat.messages, stored);
  assert.deepEqual(heard, [false, true]);
});

test("a request to answer again is sent once, since the server would replace the answer again", {timeout: 10_000}, async () => {
  let asked = 0;
  const fetch = async (url, init) => (init?.method === "POST" ? (asked++, new Response("", {status: 502})) : loads[url]());
  const chat = createChat({Chat, DefaultChatTransport, id: "t1", fetch});
  await chat.load();
  await chat.regenerate();
  await until(() => chat.messages.length === stored.length);
  assert.equal(asked, 1);
});

test("a message whose fate is unknown is not given back", {timeout: 10_000}, async () => {
  const given = [];
  const fetch = async (url, init) => {
    if (init?.method === "POST") return new Promise((_, reject) => init.signal.addEventListener("abort", () => reject(init.signal.reason)));
    return Response.json({detail: "Something went wrong."}, {status: 500});
  };
  const chat = createChat({Chat, DefaultChatTransport, id: "t1", fetch, onRefused: (refused) => given.push(refused)});
  const sent = chat.sendMessage({text: "Hello"}).catch(() => {});
  await new Promise(setImmediate);
  chat.close();
  await sent;
  await chat.resumeStream().catch(() => {});
  assert.deepEqual(given, []);
});

const streamed = (...chunks) => new Response(chunks.map((chunk) => `data: ${JSON.stringify(chunk)}\n\n`).join(""), {headers: {"Content-Type": "text/event-stream"}});

test("the thread of a new chat is known before the end of the first response", {timeout: 10_000}, async () => {
  const threads = [];
  const running = {id: "t1", status: "streaming", is_running: true};
  const endless = () => new Response(new ReadableStream(), {headers: {"Content-Type": "text/event-stream"}});
  const fetch = async (url) => (url === "/agents/threads/t1/" ? Response.json(running) : endless());
  const chat = createChat({Chat, DefaultChatTransport, id: "t1", isNew: true, fetch, onThread: (thread) => threads.push(thread)});
  void chat.sendMessage({text: "Hello"});
  await until(() => threads.length);
  assert.deepEqual(threads, [running]);
  assert.equal(chat.thread, threads[0]);
  chat.close();
});

test("a retry takes the old error away before its answer, however late the thread is loaded", {timeout: 10_000}, async () => {
  let thread = {id: "t1", status: "failed", is_running: false, error: {code: "auth", message: "It failed."}};
  let isLate = false;
  const shown = []; // a load that brings the same state again is none of this test's concern
  const show = (state) => isDeepStrictEqual(state, shown.at(-1)) || shown.push(state);
  const fetch = async (url, init) => {
    if (init.method === "POST") return (isLate = true), streamed({type: "start", messageId: "m2"}, {type: "finish"});
    if (url !== "/agents/threads/t1/") return loads[url]();
    if (isLate) await new Promise((resolve) => setTimeout(resolve, 50));
    return Response.json(thread);
  };
  const chat = createChat({Chat, DefaultChatTransport, id: "t1", fetch, onThread: ({status, error}) => show([status, error?.code])});
  await chat.load();
  thread = {...thread, status: "completed", error: null};
  await chat.sendMessage();
  assert.deepEqual([chat.status, chat.thread.status, chat.thread.error], ["ready", "streaming", null]);
  await until(() => chat.thread.status === "completed");
  assert.deepEqual(shown, [["failed", "auth"], ["streaming", undefined], ["completed", undefined]]);
});

test("an answer to a call brings the thread up to date while a response waits", {timeout: 10_000}, async () => {
  let status = "awaiting_tool_results";
  let isWaiting = false;
  const endless = () => ((isWaiting = true), new Response(new ReadableStream(), {headers: {"Content-Type": "text/event-stream"}}));
  const fetch = async (url, init) => {
    if (init?.method === "POST") return (status = "streaming"), Response.json({});
    return url === "/agents/threads/t1/" ? Response.json({id: "t1", status, is_running: true}) : (loads[url] ?? endless)();
  };
  const chat = createChat({Chat, DefaultChatTransport, id: "t1", fetch});
  void chat.resumeStream();
  await until(() => isWaiting);
  assert.equal(chat.thread.status, "awaiting_tool_results");
  await chat.addToolApprovalResponse({id: "call-1", approved: true});
  await until(() => chat.thread.status === "streaming");
  chat.close();
});

test("a load that began before the answer to a call, and ends after it, shows the newer thread", {timeout: 10_000}, async () => {
  let asked = 0;
  let release;
  const held = new Promise((resolve) => (release = resolve));
  const fetch = async (url, init) => {
    if (init?.method === "POST") return Response.json({});
    if (url !== "/agents/threads/t1/") return loads[url]();
    if (asked++) return Response.json({id: "t1", status: "streaming", is_running: true});
    await held;
    return Response.json({id: "t1", status: "completed", is_running: false});
  };
  const chat = createChat({Chat, DefaultChatTransport, id: "t1", fetch});
  const followed = chat.resumeStream();
  await chat.addToolOutput({toolCallId: "call-1", output: "Yes."});
  await until(() => chat.thread?.status === "streaming");
  release();
  await followed;
  assert.equal(chat.thread.status, "completed");
});
