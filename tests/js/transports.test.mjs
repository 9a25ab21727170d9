/** Where websockets are blocked: server-sent events, polling, and how a client finds out. */

import assert from "node:assert/strict";
import {test} from "node:test";

import {assistant, settle, SNAPSHOT, start, text, textOf, user} from "./fakes.mjs";

const json = (body, status = 200) => new Response(JSON.stringify(body), {status});
const agents = () => json({results: [], next: null, previous: null});

/** A server over HTTP: `routes` answers by method and path; what it does not know is a lost connection. */
function fakeServer(routes) {
  const requests = [];
  const fetch = async (url, {method, body, headers, signal}) => {
    const path = url.pathname.replace("/agents/", "") + url.search;
    requests.push({method, path, body: body && JSON.parse(body), headers, signal});
    const route = Object.keys(routes).find((key) => `${method} ${path}`.startsWith(key));
    if (!route) throw new TypeError("failed to fetch");
    return routes[route]({path, body: body && JSON.parse(body), signal});
  };
  return {fetch, requests, all: (start) => requests.filter(({method, path}) => `${method} ${path}`.startsWith(start))};
}

/** A response that streams what the test says. */
function eventStream() {
  let controller;
  const write = (words) => controller.enqueue(typeof words === "string" ? new TextEncoder().encode(words) : words);
  return {
    /** The answer to the next request; what is said afterwards comes there. */
    answer: ({signal}) => {
      const body = new ReadableStream({start: (it) => void (controller = it)});
      signal?.addEventListener("abort", () => controller.error(new DOMException("aborted", "AbortError")));
      return new Response(body, {headers: {"Content-Type": "text/event-stream"}});
    },
    write,
    say: (frame, id = "1..-1") => write(`id: ${id}\ndata: ${JSON.stringify({thread: "t1", ...frame})}\n\n`),
    end: () => controller.close(),
  };
}

async function startEvents(t, more = {}, options = {}) {
  const events = eventStream();
  const server = fakeServer({"GET agents/": agents, "GET threads/t1/events/": events.answer, ...more});
  const started = start(t, {fetch: server.fetch, transport: "sse", ...options});
  const store = started.client.thread("t1");
  store.subscribe(() => {});
  await settle();
  return {...started, store, events, server};
}

test("a thread is followed by its events", async (t) => {
  const {client, store, events, network} = await startEvents(t);
  assert.equal(client.connection.getSnapshot().state, "open");
  events.write(": stream-open\n\n");
  events.say({...SNAPSHOT, id: null, status: "streaming", messages: [user("u", "Hi", 1), assistant("a", [], 2)]});
  events.say({type: "delta", stream: "s", message: "a", seq: 0, chunks: [{type: "text-start", id: "x"}, {type: "text-delta", id: "x", delta: "Hello"}]});
  await settle();
  assert.equal(store.getSnapshot().isLoading, false);
  assert.equal(textOf(store.getSnapshot().messages[1]), "Hello");
  assert.equal(network.sockets.length, 0);
});

test("an event may come in pieces, and two at once", async (t) => {
  const {store, events} = await startEvents(t);
  const whole = `data: ${JSON.stringify({thread: "t1", ...SNAPSHOT, messages: [user("u", "Grüße", 1)]})}\n\n`;
  events.write(whole.slice(0, 30));
  const rest = new TextEncoder().encode(whole.slice(30));
  const cut = rest.indexOf(0xc3) + 1; // within a character
  events.write(rest.slice(0, cut));
  events.write(rest.slice(cut));
  events.write(`data: ${JSON.stringify({thread: "t1", type: "thread", rev: 2, status: "completed", title: "New", error: null, retry: null})}\n\n`);
  await settle();
  assert.equal(textOf(store.getSnapshot().messages[0]), "Grüße");
  assert.equal(store.getSnapshot().title, "New");
});

test("commands are requests, and what the server refuses is refused", async (t) => {
  const {store, events, server} = await startEvents(t, {
    "POST threads/t1/messages/": ({body}) => json(user(body.client_id, body.prompt, 3), 202),
    "POST threads/t1/stop/": () => json({id: "t1"}),
    "PUT threads/t1/messages/u%2F1/": () => json({code: "thread_busy", detail: "A run is in progress."}, 409),
    "POST threads/t1/tool-calls/c1/": () => json({}),
    "POST threads/t1/regenerate/": () => json({}, 202),
  });
  events.say({...SNAPSHOT, id: null});
  await settle();
  const sent = await store.send("Hi", {clientId: "c"});
  assert.equal(sent.position, 3);
  assert.deepEqual(server.all("POST threads/t1/messages/")[0].body, {client_id: "c", prompt: "Hi"});
  await store.stop();
  await assert.rejects(store.edit("u/1", "Bye"), {code: "thread_busy", message: "A run is in progress."});
  await store.regenerate("a");
  assert.deepEqual(server.all("POST threads/t1/regenerate/")[0].body, {message_id: "a"});
  await store.addToolResult("c1", {ok: true});
  await store.addToolError("c1", "no");
  await store.approve("c1", {arguments: {n: 1}});
  await store.reject("c1", {reason: "no"});
  const answers = server.all("POST threads/t1/tool-calls/c1/");
  assert.deepEqual(answers.map(({path}) => path.split("/").at(-2)), ["result", "error", "approve", "reject"]);
  assert.deepEqual(answers[0].body, {result: {ok: true}});
  assert.deepEqual(answers[2].body, {arguments: {n: 1}, approved: true});
});

test("a send without an answer is sent again with the same id, an edit is not", async (t) => {
  let isUp = false;
  const {store, events, server, tick} = await startEvents(t, {
    "POST threads/t1/messages/": ({body}) => (isUp ? json(user(body.client_id, body.prompt, 3), 202) : Promise.reject(new TypeError("lost"))),
    "PUT threads/t1/messages/": () => Promise.reject(new TypeError("lost")),
  });
  events.say({...SNAPSHOT, id: null});
  await settle();
  await assert.rejects(store.edit("u", "Bye"), {code: "disconnected"});
  const sending = store.send("Hi", {clientId: "c"});
  await settle();
  isUp = true;
  tick(1000);
  for (let turn = 0; turn < 4; turn++) await settle();
  assert.equal((await sending).id, "c");
  assert.deepEqual(server.all("POST threads/t1/messages/").map(({body}) => body.client_id), ["c", "c"]);
  assert.equal(server.all("PUT threads/t1/messages/").length, 1);
});

test("a stream that ends is opened again from its cursor", async (t) => {
  const {events, server, tick} = await startEvents(t);
  events.say({...SNAPSHOT, rev: 7, id: null});
  await settle();
  events.end();
  await settle();
  tick(600);
  await settle();
  assert.equal(server.all("GET threads/t1/events/")[1].path, "threads/t1/events/?cursor=7..-1");
});

test("a stream that is silent for too long is given up", async (t) => {
  const {client, events, tick} = await startEvents(t);
  events.write(": stream-open\n\n");
  await settle();
  tick(34_000);
  assert.equal(client.connection.getSnapshot().state, "open");
  tick(1_000);
  assert.equal(client.connection.getSnapshot().state, "waiting");
});

test("who is not signed in is told so, and a foreign thread is refused", async (t) => {
  const nobody = start(t, {fetch: async () => json({code: "not_authenticated", detail: "Sign in."}, 401), transport: "sse"});
  nobody.client.connect();
  await settle();
  assert.equal(nobody.client.connection.getSnapshot().reason, "unauthorized");
  const {store} = await startEvents({after: t.after.bind(t), mock: {timers: {enable() {}, tick() {}}, method() {}}}, {
    "GET threads/t1/events/": () => json({code: "thread_not_found", detail: "No."}, 404),
  });
  await settle();
  assert.equal(store.getSnapshot().refused.code, "thread_not_found");
});

test("a thread that is deleted meanwhile is gone, and nothing is retried", async (t) => {
  const {store, events, server, tick} = await startEvents(t);
  events.say({...SNAPSHOT, id: null});
  events.say({type: "error", code: "thread_not_found", message: "The thread is gone.", retryable: false});
  await settle();
  events.end();
  await settle();
  tick(5_000);
  await settle();
  assert.equal(store.getSnapshot().refused.code, "thread_not_found");
  assert.equal(server.all("GET threads/t1/events/").length, 1);
});

const row = (more) => ({id: "t1", rev: 1, status: "completed", title: "", error: null, retry: null, is_running: false, ...more});
const many = (count) => Array.from({length: count}, (_, index) => user(`m${index + 1}`, `${index + 1}`, index + 1));

/** Messages as the API pages them. */
function pagesOf(messages, stream = null) {
  return ({path}) => {
    const query = new URLSearchParams(path.split("?")[1]);
    const after = Number(query.get("after") ?? -1);
    const left = messages.filter(({position}) => position > after);
    const next = left.length > 200 ? `/agents/threads/t1/messages/?limit=200&streams=1&after=${left[199].position}` : null;
    return json({results: left.slice(0, 200), next, previous: null, stream});
  };
}

test("under WSGI the thread is polled, the last messages first", async (t) => {
  let thread = row({is_running: true, status: "streaming"});
  const messages = [...many(450), assistant("a", [text("Hel", "streaming")], 451)];
  const stream = {id: "s", number: 1, seq: 3, message: "a"};
  const {store, server, tick} = await startEvents(t, {
    "GET threads/t1/events/": () => json({code: "asgi_required", detail: "No."}, 501),
    "GET threads/t1/messages/": pagesOf(messages, stream),
    "GET threads/t1/": () => json(thread),
  });
  for (let turn = 0; turn < 8; turn++) await settle();
  assert.equal(store.getSnapshot().messages.length, 50);
  assert.equal(textOf(store.getSnapshot().messages.at(-1)), "Hel");
  assert.equal(store.getSnapshot().hasOlder, true);
  messages[450] = assistant("a", [text("Hello")], 451);
  thread = row({rev: 2});
  const before = store.getSnapshot().messages[0];
  tick(1_500);
  for (let turn = 0; turn < 8; turn++) await settle();
  assert.equal(textOf(store.getSnapshot().messages.at(-1)), "Hello");
  assert.equal(store.getSnapshot().isRunning, false);
  assert.equal(store.getSnapshot().messages[0], before);
  assert.match(server.all("GET threads/t1/messages/").at(-1).path, /after=401/);
  const older = store.loadOlder();
  for (let turn = 0; turn < 8; turn++) await settle();
  await older;
  assert.equal(store.getSnapshot().messages.length, 100);
  tick(1_500);
  for (let turn = 0; turn < 8; turn++) await settle();
  assert.equal(store.getSnapshot().messages.length, 100);
});

test("a proxy that holds the stream back is noticed, and polled through", async (t) => {
  const {store, tick} = await startEvents(t, {"GET threads/t1/messages/": pagesOf(many(2)), "GET threads/t1/": () => json(row())});
  tick(10_000);
  await settle();
  tick(1_000);
  for (let turn = 0; turn < 8; turn++) await settle();
  assert.equal(store.getSnapshot().messages.length, 2);
});

test("steps that a snapshot omits are taken from the whole message", async (t) => {
  const steps = ["one", "two", "three"].flatMap((word) => [{type: "step-start"}, text(word)]);
  const {store, events} = await startEvents(t, {"GET threads/t1/messages/": pagesOf([user("u", "Hi", 1), assistant("a", steps, 2)])});
  events.say({...SNAPSHOT, id: null, messages: [{...assistant("a", steps.slice(4), 2), omitted: 2}], hasOlder: true});
  await settle();
  await store.loadOlder();
  assert.deepEqual(store.getSnapshot().messages.map(textOf), ["Hi", "onetwothree"]);
});

test("a websocket that never works gives way to HTTP, and that is kept", async (t) => {
  const events = eventStream();
  const server = fakeServer({"GET agents/": agents, "GET threads/t1/events/": events.answer});
  const {client, network, tick} = start(t, {fetch: server.fetch});
  client.thread("t1").subscribe(() => {});
  network.socket.drop();
  tick(500);
  network.socket.drop();
  tick(1000);
  await settle();
  assert.equal(client.connection.getSnapshot().state, "open");
  events.say({...SNAPSHOT, id: null});
  events.end();
  await settle();
  tick(5_000);
  await settle();
  assert.equal(network.sockets.length, 2);
  assert.equal(server.all("GET threads/t1/events/").length, 2);
});

test("a websocket that has worked once is not given up", async (t) => {
  const server = fakeServer({"GET agents/": agents});
  const {client, network, tick} = start(t, {fetch: server.fetch});
  client.connect();
  network.socket.accept();
  for (let lost = 0; lost < 5; lost++) {
    network.socket.drop();
    tick(30_000);
  }
  assert.ok(network.sockets.length >= 6);
  assert.equal(server.requests.length, 0);
});

test("while everything is down, websocket and HTTP are tried in turn", async (t) => {
  const server = fakeServer({});
  const {client, network, tick} = start(t, {fetch: server.fetch});
  client.connect();
  for (let turn = 0; turn < 60; turn++) {
    if (network.socket.closedWith === null) network.socket.drop();
    await settle();
    tick(1_000);
  }
  const [sockets, requests] = [network.sockets.length, server.requests.length];
  assert.ok(requests >= 2 && Math.abs(sockets - requests) <= 2, `${sockets}, ${requests}`);
});

test("a client with a token fetches a ticket for each connection", async (t) => {
  let issued = 0;
  const server = fakeServer({"POST ws-ticket/": () => json({ticket: `k${++issued}`, expires_in: 60})});
  const {client, network, tick} = start(t, {fetch: server.fetch, headers: {Authorization: "Token x"}});
  client.connect();
  for (const ticket of ["k1", "k2"]) {
    network.socket.onopen();
    for (let turn = 0; turn < 4; turn++) await settle();
    assert.deepEqual(network.socket.sent, [{type: "hello", version: 1, ticket}]);
    network.socket.say({type: "welcome", version: 1, session: "s", heartbeat: 25, limits: {frame: 1, subscriptions: 1, inflight: 1}, user: "u"});
    network.socket.drop();
    tick(500);
  }
  assert.equal(server.all("POST ws-ticket/")[0].headers.get("Authorization"), "Token x");
});
