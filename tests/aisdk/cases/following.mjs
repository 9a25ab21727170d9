/** The chat of the package's module `ai-sdk`: it loses no text and does not stop listening, whatever happens. */

import assert from "node:assert/strict";
import {createServer, request} from "node:http";

import {follower, isWaiting} from "./follower.mjs";
import {SITE, until} from "./site.mjs";
import {textOf, toolParts, words} from "./scene.mjs";

const STORY = words(40);
const COLLEAGUE = {name: "ask_colleague", arguments: {question: "Friday?"}};

const ready = (chat, text) => until(() => chat.status === "ready" && textOf(chat.lastMessage).endsWith(text), text, 40);
const reads = (chat, word = "word-5") => until(() => textOf(chat.lastMessage).includes(word), word);

/** Everything after the run is over: what the page shows is what is stored. */
async function assertCaughtUp(scene, chat, text) {
  await scene.reachStatus("completed");
  await ready(chat, text);
  await until(() => chat.thread?.status === "completed", "the thread");
  await scene.assertStored(chat);
  assert.deepEqual(chat.wire.errors, []);
  chat.close();
}

/** A proxy in front of the site that can lose its connections and refuse new ones. */
async function proxied(play) {
  const sockets = new Set();
  let isDown = false;
  const server = createServer((asked, answer) => {
    const forward = request(SITE + asked.url, {method: asked.method, headers: {...asked.headers, host: new URL(SITE).host}}, (reply) => {
      answer.writeHead(reply.statusCode, reply.headers);
      reply.pipe(answer);
    });
    forward.on("error", () => answer.destroy());
    answer.on("close", () => forward.destroy());
    asked.pipe(forward);
  });
  server.on("connection", (socket) => {
    if (isDown) return socket.destroy();
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
  });
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  const down = () => {
    isDown = true;
    for (const socket of sockets) socket.destroy();
  };
  try {
    await play({site: `http://127.0.0.1:${server.address().port}`, down, up: () => (isDown = false)});
  } finally {
    down();
    server.close();
  }
}

export const cases = {
  async "following: a result that comes after another message"(scene) {
    await scene.model({text: "One moment.", calls: [COLLEAGUE]}, {text: "In the meantime."}, {text: "Here is the answer."});
    const chat = follower(scene);
    await chat.sendMessage(scene.prompt("Ask."));
    await until(() => chat.messages.some(isWaiting), "the call");
    const {toolCallId} = toolParts(chat.lastMessage)[0];
    await chat.sendMessage(scene.prompt("Something else."));
    await reads(chat, "In the meantime.");
    await new Promise((resolve) => setTimeout(resolve, 1000));
    const {status, body} = await scene.rest(`threads/${scene.id}/tool-calls/${toolCallId}/result/`, {method: "POST", body: {result: "Yes."}});
    assert.equal(status, 200, JSON.stringify(body));
    await assertCaughtUp(scene, chat, "Here is the answer.");
  },

  async "following: a message during an answer"(scene) {
    await scene.model({text: STORY, hold: 20}, {text: "Shorter."});
    const chat = follower(scene);
    void chat.sendMessage(scene.prompt("A story."));
    await reads(chat);
    void chat.sendMessage(scene.prompt("Make it short."));
    await until(async () => (await scene.history()).length > 1, "the second message");
    await scene.goOn();
    await assertCaughtUp(scene, chat, "Shorter.");
    assert.ok(chat.messages.some((message) => textOf(message) === STORY), "the first answer is whole");
  },

  async "following: a worker is killed"(scene) {
    await scene.model({text: STORY, hold: 20}, {text: "Told once more."});
    const chat = follower(scene);
    void chat.sendMessage(scene.prompt("A story."));
    await reads(chat);
    await scene.killWorker();
    await assertCaughtUp(scene, chat, "Told once more.");
    assert.equal(chat.messages.length, 2);
  },

  async "following: the connection is lost during an answer"(scene) {
    await proxied(async ({site, down, up}) => {
      await scene.model({text: STORY, hold: 20});
      const chat = follower(scene, {site});
      void chat.sendMessage(scene.prompt("A story."));
      await reads(chat);
      down();
      await until(() => chat.heard.connection.length === 1, "the loss");
      await scene.goOn();
      await scene.reachStatus("completed");
      up();
      await assertCaughtUp(scene, chat, STORY);
      assert.deepEqual(chat.heard.connection, [false, true]);
    });
  },

  async "following: the connection is lost while the run waits"(scene) {
    await proxied(async ({site, down, up}) => {
      await scene.model({text: "One moment.", calls: [COLLEAGUE]}, {text: "Here is the answer."});
      const chat = follower(scene, {site});
      void chat.sendMessage(scene.prompt("Ask."));
      await until(() => chat.messages.some(isWaiting) && chat.wire.responses.length === 2, "the response that waits");
      down();
      await until(() => chat.heard.connection.length === 1, "the loss");
      up();
      const {toolCallId} = toolParts(chat.lastMessage)[0];
      await chat.addToolOutput({toolCallId, output: "Yes."});
      await assertCaughtUp(scene, chat, "Here is the answer.");
    });
  },

  async "following: a message that is sent without a connection arrives once"(scene) {
    await proxied(async ({site, down, up}) => {
      await scene.model({text: "Hello."});
      const chat = follower(scene, {site});
      down();
      void chat.sendMessage(scene.prompt("Anyone?"));
      await until(() => chat.heard.connection.length === 1, "the loss");
      assert.equal(chat.status, "submitted");
      up();
      await assertCaughtUp(scene, chat, "Hello.");
      assert.equal((await scene.requests()).length, 1);
    });
  },

  async "following: the text of a refused message comes back"(scene) {
    await scene.model({text: "Hello."});
    const chat = follower(scene);
    await chat.sendMessage(scene.prompt("Hello."));
    await ready(chat, "Hello.");
    const text = "x".repeat(40_000);
    await chat.sendMessage({text});
    await until(() => chat.heard.refused.length === 1, "the refusal");
    const [{text: back, problem}] = chat.heard.refused;
    assert.equal(back, text);
    assert.equal(problem.code, "too_large");
    assert.match(problem.text, /\w/);
    assert.equal(chat.messages.length, 2);
    await scene.assertStored(chat);
    await chat.sendMessage(scene.prompt("Shorter."));
    await until(() => chat.messages.length === 4 && chat.status === "ready", "the next answer");
    assert.equal(chat.heard.refused.length, 1);
    chat.close();
  },

  async "following: stop stops the run"(scene) {
    await scene.model({text: STORY, hold: 20});
    const chat = follower(scene);
    void chat.sendMessage(scene.prompt("A story."));
    await reads(chat);
    await chat.stop();
    await scene.reachStatus("stopped");
    await until(() => chat.thread?.status === "stopped" && chat.status === "ready", "the thread");
    await scene.assertStored(chat);
  },

  async "following: a failed run is known after a reload, and goes on"(scene) {
    await scene.model({status: 400}, {text: "Now it works."});
    const chat = follower(scene);
    await chat.sendMessage(scene.prompt("One."));
    await until(() => chat.thread?.status === "failed", "the failure");
    assert.equal(chat.status, "error", "the error of the run stays");
    chat.close();
    const page = follower(scene);
    await page.resumeStream();
    assert.equal(page.thread.status, "failed");
    assert.match(page.thread.error.message, /\w/);
    await page.sendMessage();
    await assertCaughtUp(scene, page, "Now it works.");
  },

  async "following: a new chat asks for nothing that does not exist"(scene) {
    const asked = [];
    const chat = follower(scene, {isNew: true, fetch: (url, init) => (asked.push(url), fetch(url, {...init, headers: scene.users.demo}))});
    await chat.resumeStream();
    assert.deepEqual(asked, []);
    assert.equal(chat.status, "ready");
    await chat.sendMessage({text: "x".repeat(40_000)});
    assert.deepEqual(asked, [`${SITE}/agents/chat?wait=1`], "a refused message has created no thread");
    assert.equal(chat.heard.refused.length, 1);
    assert.deepEqual(chat.messages, []);
  },

  async "following: a closed chat asks for nothing, and can be opened again"(scene) {
    await scene.model({text: STORY, hold: 20});
    const chat = follower(scene);
    void chat.sendMessage(scene.prompt("A story."));
    await reads(chat);
    chat.close();
    await until(() => chat.status === "ready", "the end of the response");
    assert.equal((await scene.thread()).is_running, true);
    const {length} = chat.wire.responses;
    await scene.goOn();
    await scene.reachStatus("completed");
    assert.equal(chat.wire.responses.length, length);
    assert.deepEqual(chat.heard.connection, []);
    await chat.resumeStream();
    await assertCaughtUp(scene, chat, STORY);
  },

  async "following: a chat that is closed and opened at once reads on"(scene) {
    await scene.model({text: STORY, hold: 20});
    const chat = follower(scene);
    void chat.sendMessage(scene.prompt("A story."));
    await reads(chat);
    chat.close();
    const page = follower(scene);
    void page.resumeStream();
    page.close();
    void page.resumeStream();
    await reads(page);
    await scene.goOn();
    await assertCaughtUp(scene, page, STORY);
  },

  async "following: a tool of the client is called once, and its output reaches the run"(scene) {
    await scene.model({calls: [{name: "pick_date", arguments: {label: "Launch"}}]}, {text: "Thank you."});
    const calls = [];
    const chat = follower(scene, {onToolCall: ({toolCall}) => calls.push(toolCall.toolCallId)});
    void chat.sendMessage(scene.prompt("A date."));
    await until(() => chat.messages.some(isWaiting) && chat.wire.responses.length === 2, "the response that waits");
    await chat.addToolOutput({tool: "pick_date", toolCallId: calls[0], output: "2031-05-04"});
    await assertCaughtUp(scene, chat, "Thank you.");
    assert.equal(calls.length, 1);
  },

  async "following: an approval in the page"(scene) {
    await scene.model({calls: [{name: "book_table", arguments: {restaurant: "Luigi's", people: 4, time: "19:30"}}]}, {text: "Booked."});
    const chat = follower(scene);
    void chat.sendMessage(scene.prompt("A table."));
    await until(() => toolParts(chat.lastMessage ?? {parts: []}).some(({state}) => state === "approval-requested"), "the request");
    await chat.addToolApprovalResponse({id: toolParts(chat.lastMessage)[0].approval.id, approved: true});
    await assertCaughtUp(scene, chat, "Booked.");
  },
};
