/** The connection: it comes back by itself, waits politely, and says what is the matter. */

import assert from "node:assert/strict";
import {test} from "node:test";

import {settle, SNAPSHOT, start, startThread} from "./fakes.mjs";

const stateOf = (client) => client.connection.getSnapshot().state;

test("a client connects with its first thread and greets the server", (t) => {
  const {client, network} = start(t);
  assert.equal(stateOf(client), "idle");
  client.thread("t1").subscribe(() => {});
  assert.equal(stateOf(client), "connecting");
  assert.equal(network.socket.url, "ws://site.test/ws/agents/");
  assert.equal(network.socket.protocol, "durable-agents.v1");
  network.socket.accept();
  assert.deepEqual(network.socket.sent[0], {type: "hello", version: 1});
  assert.equal(network.socket.last("subscribe").thread, "t1");
  assert.equal(stateOf(client), "open");
});

test("https leads to wss, and the socket may be elsewhere", (t) => {
  const {client, network} = start(t, {url: "https://site.test/api/agents/", socketUrl: "/live/"});
  client.connect();
  assert.equal(network.socket.url, "wss://site.test/live/");
});

test("a lost connection comes back after waits that double up to half a minute", (t) => {
  const {client, network, tick} = startThread(t);
  const waits = [];
  for (let lost = 0; lost < 9; lost++) {
    network.socket.drop();
    assert.equal(stateOf(client), "waiting");
    waits.push(client.connection.getSnapshot().retryAt - Date.now());
    tick(waits.at(-1) - 1);
    assert.equal(network.sockets.length, lost + 1);
    tick(1);
    assert.equal(network.sockets.length, lost + 2);
  }
  assert.deepEqual(waits, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
});

test("the wait is anything up to its limit", (t) => {
  const {client, network} = startThread(t);
  Math.random.mock.mockImplementation(() => 0.25);
  network.socket.drop();
  assert.equal(client.connection.getSnapshot().retryAt - Date.now(), 125);
});

test("ten good seconds make the waits short again", (t) => {
  const {client, network, tick} = startThread(t);
  for (let lost = 0; lost < 4; lost++) {
    network.socket.drop();
    tick(client.connection.getSnapshot().retryAt - Date.now());
  }
  network.socket.accept();
  tick(10_000);
  network.socket.drop();
  assert.equal(client.connection.getSnapshot().retryAt - Date.now(), 500);
});

test("the network coming back ends the wait", (t) => {
  const {client, network, page} = startThread(t);
  page.setOnline(false);
  network.socket.drop();
  assert.equal(stateOf(client), "offline");
  page.setOnline(true);
  assert.equal(network.sockets.length, 2);
});

test("losing the network while waiting is shown and stops the tries", (t) => {
  const {client, network, page, tick} = startThread(t);
  network.socket.drop();
  page.setOnline(false);
  assert.equal(stateOf(client), "offline");
  tick(600_000);
  assert.equal(network.sockets.length, 1);
});

test("becoming visible ends the wait", (t) => {
  const {network, page} = startThread(t);
  network.socket.drop();
  page.setHidden(true);
  page.setHidden(false);
  assert.equal(network.sockets.length, 2);
});

test("a hidden page stops trying after a while and goes on when somebody looks", (t) => {
  const {client, network, page, tick} = startThread(t);
  page.setHidden(true);
  for (let lost = 0; lost < 20 && stateOf(client) !== "idle"; lost++) {
    network.socket.drop();
    tick(60_000);
  }
  const tries = network.sockets.length;
  assert.ok(tries < 12, `${tries} tries`);
  assert.equal(client.connection.getSnapshot().retryAt, null);
  page.setHidden(false);
  assert.equal(network.sockets.length, tries + 1);
});

test("a ping goes out each heartbeat and its answer keeps the connection", (t) => {
  const {client, network, tick} = startThread(t);
  for (let beat = 1; beat <= 4; beat++) {
    tick(25_000);
    assert.equal(network.socket.all("ping").length, beat);
    network.socket.say({type: "pong", t: Date.now()});
  }
  assert.equal(stateOf(client), "open");
  assert.equal(network.sockets.length, 1);
});

test("a connection that is silent for two heartbeats and five seconds is dead", (t) => {
  const {client, network, tick} = startThread(t);
  tick(54_999);
  assert.equal(stateOf(client), "open");
  tick(1);
  assert.equal(stateOf(client), "waiting");
  assert.equal(network.socket.closedWith, 1000);
});

test("a page that wakes asks at once and does not wait long", (t) => {
  const {client, network, page, tick} = startThread(t);
  page.setHidden(true);
  page.setHidden(false);
  assert.equal(network.socket.all("ping").length, 1);
  tick(5_000);
  assert.equal(stateOf(client), "waiting");
});

test("a server that never says welcome is given up after ten seconds", (t) => {
  const {client, network, tick} = start(t);
  client.connect();
  network.socket.onopen();
  tick(10_000);
  assert.equal(stateOf(client), "waiting");
});

test("what an abandoned connection still says is ignored", (t) => {
  const {client, network, store, tick} = startThread(t);
  const [old] = network.sockets;
  old.drop();
  tick(500);
  network.socket.accept();
  old.say({type: "thread", thread: "t1", rev: 9, status: "failed"});
  old.drop();
  assert.equal(store.getSnapshot().status, "completed");
  assert.equal(stateOf(client), "open");
});

for (const [code, reason] of [
  [1000, "closed"],
  [1007, "malformed"],
  [1009, "too_large"],
  [4413, "too_large"],
  [4400, "malformed"],
  [4401, "unauthorized"],
  [4403, "forbidden"],
  [4406, "outdated"],
]) {
  test(`close code ${code} is final: ${reason}`, async (t) => {
    const {client, network, store, tick} = startThread(t);
    const sent = assert.rejects(store.send("Hello"), {code: reason});
    network.socket.drop(code);
    await sent;
    tick(600_000);
    assert.equal(network.sockets.length, 1);
    assert.deepEqual(client.connection.getSnapshot(), {state: "closed", retryAt: null, reason});
    assert.equal(store.getSnapshot().connection.reason, reason);
  });
}

for (const code of [1001, 1006, 1011, 1012, 1013, 4410]) {
  test(`close code ${code} is tried again with the cursor`, (t) => {
    const {network, tick} = startThread(t, {rev: 4});
    network.socket.drop(code);
    tick(500);
    network.socket.accept();
    assert.deepEqual(network.socket.last("subscribe").cursor, {rev: 4, stream: "", seq: -1});
  });
}

test("a client that was too slow comes back without a cursor", (t) => {
  const {network, tick} = startThread(t);
  network.socket.drop(4408);
  tick(500);
  network.socket.accept();
  assert.equal("cursor" in network.socket.last("subscribe"), false);
});

test("a client told to wait some seconds waits them", (t) => {
  const {network, tick} = startThread(t);
  network.socket.say({type: "closing", code: 4429, message: "Too many frames.", retryAfter: 7});
  network.socket.drop(4429);
  tick(6_999);
  assert.equal(network.sockets.length, 1);
  tick(1);
  assert.equal(network.sockets.length, 2);
});

test("a client told to wait some seconds does not come earlier because somebody looks or the network is back", (t) => {
  const {network, page, tick} = startThread(t);
  network.socket.say({type: "closing", code: 4429, message: "Too many frames.", retryAfter: 7});
  network.socket.drop(4429);
  tick(1_000);
  for (const setTo of [page.setHidden, (isOff) => page.setOnline(!isOff)]) {
    setTo(true);
    setTo(false);
  }
  assert.equal(network.sockets.length, 1);
  tick(6_000);
  assert.equal(network.sockets.length, 2);
});

test("what the server said before it closed counts where the code itself is lost", async (t) => {
  const {client, network} = startThread(t);
  network.socket.say({type: "closing", code: 4403, message: "No."});
  network.socket.drop(1006);
  assert.deepEqual(client.connection.getSnapshot(), {state: "closed", retryAt: null, reason: "forbidden"});
});

test("a server that says that it closes and does not is left soon", (t) => {
  const {client, network, tick} = startThread(t);
  network.socket.say({type: "closing", code: 4410, message: "Silent."});
  tick(5_000);
  assert.equal(client.connection.getSnapshot().state, "waiting");
});

test("what a connection said of its end does not count for the next", (t) => {
  const {client, network, tick} = startThread(t);
  network.socket.say({type: "closing", code: 4429, message: "Too many frames.", retryAfter: 7});
  network.socket.drop(4429);
  tick(7_000);
  network.socket.accept();
  network.socket.drop(1006);
  const {retryAt} = client.connection.getSnapshot();
  assert.ok(retryAt - Date.now() <= 1_000);
});

test("a client that is not told for how long waits as after any other end", (t) => {
  const {client, network} = startThread(t);
  network.socket.drop(4429);
  assert.equal(client.connection.getSnapshot().retryAt - Date.now(), 500);
});

test("closing the client ends it for good", async (t) => {
  const {client, network, tick} = startThread(t);
  client.close();
  assert.equal(network.socket.closedWith, 1000);
  assert.equal(stateOf(client), "closed");
  tick(600_000);
  await settle();
  assert.equal(network.sockets.length, 1);
});

test("two threads share one connection and hear only their own frames", (t) => {
  const {client, network, store} = startThread(t);
  const other = client.thread("t2");
  other.subscribe(() => {});
  assert.equal(network.sockets.length, 1);
  network.socket.answer("subscribe", {...SNAPSHOT, title: "Other"});
  assert.equal(other.getSnapshot().title, "Other");
  assert.equal(store.getSnapshot().title, "");
  assert.equal(client.thread("t2"), other);
  other.close();
  assert.equal(network.socket.last("unsubscribe").thread, "t2");
  assert.notEqual(client.thread("t2"), other);
});
