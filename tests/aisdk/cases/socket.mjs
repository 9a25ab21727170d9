/** The SDK's own websocket transport, which only version 7 has. */

import assert from "node:assert/strict";

import {SITE, until} from "./site.mjs";
import {textOf, toolParts, typesOf, words} from "./scene.mjs";

const TABLE = {name: "book_table", arguments: {restaurant: "Luigi's", people: 4, time: "19:30"}};

/** A client over a websocket that is signed in by `headers` or `params`. */
function chatOf(scene, {headers = scene.users.demo, params, path = "", body, ...options} = {}) {
  const wire = scene.recorder();
  const sockets = [];
  class Socket extends WebSocket {
    constructor(url, protocols) {
      super(url, {protocols, headers});
      sockets.push(this);
    }
  }
  const transport = new scene.sdk.WebSocketChatTransport({
    url: `${SITE}/ws/agents/chat/${path}`,
    webSocket: Socket,
    params,
    prepareReconnectToStreamRequest: () => ({body: body ?? {}}),
  });
  const chat = new scene.sdk.Chat({
    id: scene.id,
    transport,
    onError: (error) => wire.errors.push(error),
    onFinish: (facts) => wire.finished.push(facts),
    ...options,
  });
  return Object.assign(chat, {wire, sockets});
}

/** A case that is played with the majors that have the transport. */
const ofVersion7 = (play) => async (scene) => {
  if (!scene.sdk.WebSocketChatTransport) return;
  await play(scene);
  for (const wire of scene.recorders) assert.deepEqual(wire.errors, []);
};

export const cases = {
  "over a websocket: two messages on one connection": ofVersion7(async (scene) => {
    await scene.model({text: words(30)}, {text: "Second."});
    const chat = chatOf(scene);
    await chat.sendMessage(scene.prompt("One."));
    assert.equal(textOf(chat.lastMessage), words(30));
    await chat.sendMessage(scene.prompt("Two."));
    assert.equal(textOf(chat.lastMessage), "Second.");
    assert.equal(chat.sockets.length, 1);
    assert.equal(chat.wire.finished.at(-1).finishReason, "stop");
    await scene.assertStored(chat);
  }),

  "over a websocket: a ticket in the query signs in": ofVersion7(async (scene) => {
    await scene.model({text: "Hello."});
    const params = async () => ({ticket: (await scene.rest("ws-ticket/", {method: "POST", body: {}})).body.ticket});
    const chat = chatOf(scene, {headers: {}, params, path: "assistant/"});
    await chat.sendMessage(scene.prompt("One."));
    assert.equal(textOf(chat.lastMessage), "Hello.");
    await scene.assertStored(chat);
  }),

  "over a websocket: stop leaves the run, and resume replays it": ofVersion7(async (scene) => {
    await scene.model({text: words(40), hold: 20});
    const chat = chatOf(scene);
    const sent = chat.sendMessage(scene.prompt("A story."));
    await until(() => textOf(chat.lastMessage).includes("word-5"), "the beginning");
    await chat.stop();
    await sent;
    const resumed = chat.resumeStream();
    const page = chatOf(scene, {messages: await scene.history()});
    const opened = page.resumeStream();
    await until(() => [chat, page].every(({status}) => status === "streaming"), "both follow");
    await scene.goOn();
    await Promise.all([resumed, opened]);
    await scene.assertStored(chat);
    await scene.assertStored(page);
    assert.equal(textOf(page.lastMessage), words(40));
    await page.resumeStream();
    assert.equal(page.status, "ready", "nothing is open");
    assert.equal(chat.sockets.length, 1);
  }),

  "over a websocket: approvals, and a response that waits": ofVersion7(async (scene) => {
    await scene.model({text: "I book.", calls: [TABLE]}, {text: "Done.", calls: [TABLE]}, {text: "Both."});
    const chat = chatOf(scene, {
      sendAutomaticallyWhen: scene.sdk.lastAssistantMessageIsCompleteWithApprovalResponses,
      body: {wait: true},
    });
    await chat.sendMessage(scene.prompt("Two tables."));
    assert.equal(chat.wire.finished.at(-1).finishReason, "tool-calls");
    await chat.addToolApprovalResponse({id: toolParts(chat.lastMessage)[0].approval.id, approved: true});
    await until(() => chat.status === "ready" && toolParts(chat.lastMessage).length === 2, "the second question");
    const resumed = chat.resumeStream();
    await until(() => chat.status === "streaming", "the response that waits");
    const {toolCallId} = toolParts(chat.lastMessage)[1];
    await scene.rest(`threads/${scene.id}/tool-calls/${toolCallId}/reject/`, {method: "POST", body: {}});
    await resumed;
    assert.deepEqual(toolParts(chat.lastMessage).map(({state}) => state), ["output-available", "output-denied"]);
    assert.equal(textOf(chat.lastMessage), "I book.Done.Both.");
    assert.equal(typesOf(chat.lastMessage).filter((type) => type === "step-start").length, 3);
  }),

  "over a websocket: a refused request leaves the connection": ofVersion7(async (scene) => {
    await scene.model({text: "Hello."});
    const chat = chatOf(scene);
    await chat.sendMessage({text: "x".repeat(32_001)});
    const error = JSON.parse(chat.wire.errors.pop().message);
    assert.equal(error.code, "too_large");
    chat.messages = [];
    await chat.sendMessage(scene.prompt("One."));
    assert.equal(textOf(chat.lastMessage), "Hello.");
    assert.equal(chat.sockets.length, 1);
  }),
};
