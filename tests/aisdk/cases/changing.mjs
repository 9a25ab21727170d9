/** Answers that are asked for again, messages that are changed, sent twice or sent in between, runs that fail. */

import assert from "node:assert/strict";

import {SITE, until} from "./site.mjs";
import {shape, textOf, typesOf, words} from "./scene.mjs";

/** The texts of a conversation, without the tags. */
const said = (messages) => messages.map(textOf).map((text) => text.replace(/^\[.*?\] /, ""));
const roles = async (scene) => (await scene.requests()).at(-1).messages.map(({role}) => role).filter((role) => role !== "system");

/** A chat of two questions with their answers. */
async function twoTurns(scene, ...more) {
  await scene.model({text: "First."}, {text: "Second."}, ...more);
  const chat = scene.chat();
  await chat.sendMessage(scene.prompt("One."));
  await chat.sendMessage(scene.prompt("Two."));
  return chat;
}

export const cases = {
  async "regenerate"(scene) {
    const chat = await twoTurns(scene, {text: "Second, better."});
    await chat.regenerate();
    assert.deepEqual(said(chat.messages), ["One.", "First.", "Two.", "Second, better."]);
    assert.deepEqual(await roles(scene), ["user", "assistant", "user"]);
    await scene.assertStored(chat);
  },

  async "regenerate an earlier answer"(scene) {
    const chat = await twoTurns(scene, {text: "First, better."});
    await chat.regenerate({messageId: chat.messages[1].id});
    assert.deepEqual(said(chat.messages), ["One.", "First, better."]);
    assert.deepEqual(await roles(scene), ["user"]);
    await scene.assertStored(chat);
  },

  async "regenerate after an error"(scene) {
    await scene.model({status: 400}, {text: "Now it works."});
    const chat = scene.chat();
    await chat.sendMessage(scene.prompt("One."));
    assert.equal(chat.status, "error");
    await chat.regenerate();
    assert.equal(chat.status, "ready");
    assert.deepEqual(said(chat.messages), ["One.", "Now it works."]);
    await scene.assertStored(chat);
  },

  async "regenerate an answer that is not there"(scene) {
    const chat = await twoTurns(scene);
    const {status, text} = await scene.post({...chat.wire.posts[1], trigger: "regenerate-message", messageId: "gone"});
    assert.equal(status, 404, text);
    assert.equal(JSON.parse(text).code, "message_not_found");
    assert.equal((await scene.requests()).length, 2);
    await scene.assertStored(chat);
  },

  async "edit"(scene) {
    const chat = await twoTurns(scene, {text: "Uno."});
    const {id} = chat.messages[0];
    await chat.sendMessage({...scene.prompt("Uno?"), messageId: id});
    assert.deepEqual(said(chat.messages), ["Uno?", "Uno."]);
    assert.equal(chat.messages[0].id, id);
    assert.deepEqual(await roles(scene), ["user"]);
    await scene.assertStored(chat);
  },

  async "edit the last message, after a reload"(scene) {
    await twoTurns(scene, {text: "Due."}, {text: "Tre."});
    const chat = scene.chat({messages: await scene.history()});
    await chat.sendMessage({...scene.prompt("Due?"), messageId: chat.messages[2].id});
    assert.deepEqual(said(chat.messages), ["One.", "First.", "Due?", "Due."]);
    await chat.sendMessage({...scene.prompt("Tre?"), messageId: chat.messages[2].id});
    assert.deepEqual(said(chat.messages), ["One.", "First.", "Tre?", "Tre."]);
    await scene.assertStored(chat);
  },

  async "edit a message that is not there"(scene) {
    const chat = await twoTurns(scene);
    const lost = {id: "lost", role: "user", parts: [{type: "text", ...scene.prompt("Lost.")}]};
    const {status, text} = await scene.post({id: scene.id, trigger: "submit-message", messageId: "lost", messages: [lost]});
    assert.equal(status, 404, text);
    assert.equal(JSON.parse(text).code, "message_not_found");
    assert.equal((await scene.requests()).length, 2);
    await scene.assertStored(chat);
  },

  async "edit and regenerate while the run is on are refused"(scene) {
    await scene.model({text: "First."}, {text: words(40), hold: 20});
    const chat = scene.chat();
    await chat.sendMessage(scene.prompt("One."));
    const sent = chat.sendMessage(scene.prompt("Two."));
    await until(() => textOf(chat.lastMessage).includes("word-5"), "the beginning");
    const messages = await scene.history();
    for (const change of [
      {trigger: "regenerate-message", messages: messages.slice(0, 3)},
      {trigger: "submit-message", messageId: messages[0].id, messages: [{...messages[0], parts: [{type: "text", text: "Uno?"}]}]},
    ]) {
      const {status, text} = await scene.post({id: scene.id, ...change});
      assert.equal(status, 409, text);
      assert.equal(JSON.parse(text).code, "thread_busy");
    }
    await scene.goOn();
    await sent;
    await scene.assertStored(chat);
  },

  async "an error"(scene) {
    await scene.model({status: 400, message: "The secret reason."}, {text: "Now it works."});
    const chat = scene.chat();
    await chat.sendMessage(scene.prompt("One."));
    assert.equal(chat.status, "error");
    assert.equal(chat.wire.responses[0].status, 200);
    assert.equal(chat.wire.types().at(-1), "error");
    assert.match(chat.wire.responses[0].text, /data: \[DONE\]\n\n$/);
    assert.doesNotMatch(chat.wire.responses[0].text, /secret/);
    assert.equal(chat.wire.errors.length, 1);
    assert.equal((await scene.thread()).status, "failed");
    await chat.resumeStream();
    assert.equal(chat.wire.responses[1].status, 204);
    chat.clearError();
    await chat.sendMessage(scene.prompt("Two."));
    assert.equal(textOf(chat.lastMessage), "Now it works.");
    await scene.assertStored(chat);
  },

  async "a model that fails once and then answers"(scene) {
    await scene.model({status: 503}, {text: "Now it works."});
    const chat = scene.chat();
    await chat.sendMessage(scene.prompt("One."));
    assert.equal(chat.status, "ready", String(chat.error));
    assert.equal(textOf(chat.lastMessage), "Now it works.");
    assert.equal(chat.wire.responses.length, 1, "the response stays open meanwhile");
    await scene.assertStored(chat);
  },

  async "a model that breaks off mid-answer"(scene) {
    await scene.model({text: words(40), cut: 20}, {text: "Now it works."});
    const chat = scene.chat();
    await chat.sendMessage(scene.prompt("One."));
    if (chat.status === "error" || !chat.wire.types().includes("finish")) await chat.resumeStream();
    await scene.reachStatus("completed");
    assert.equal(textOf(chat.lastMessage), "Now it works.");
    await scene.assertStored(chat);
  },

  async "double submit"(scene) {
    await scene.model({text: words(40), hold: 20});
    const chat = scene.chat();
    const message = {id: "the-same", role: "user", parts: [{type: "text", ...scene.prompt("One.")}]};
    const twin = scene.chat();
    const sent = [chat.sendMessage(structuredClone(message)), twin.sendMessage(structuredClone(message))];
    await until(() => [chat, twin].every(({lastMessage}) => textOf(lastMessage).includes("word-5")), "the beginning in both");
    const third = scene.chat();
    sent.push(third.sendMessage(structuredClone(message)));
    await until(() => textOf(third.lastMessage).includes("word-5"), "the beginning in the third");
    await scene.goOn();
    await Promise.all(sent);
    for (const one of [chat, twin, third]) {
      assert.deepEqual(one.wire.responses.map(({status}) => status), [200]);
      await scene.assertStored(one);
    }
    const after = await scene.post(chat.wire.posts[0]);
    assert.equal(after.status, 200, after.text);
    assert.equal((await scene.requests()).length, 1, "one run");
    await scene.assertStored(chat);
  },

  async "nothing new is sent"(scene) {
    const chat = await twoTurns(scene);
    const before = chat.messages.map(shape);
    await chat.sendMessage();
    assert.equal(chat.status, "ready", String(chat.error));
    assert.equal((await scene.requests()).length, 2, "the model is not asked");
    assert.deepEqual(chat.messages.map(shape), before);
    await scene.assertStored(chat);
  },

  async "a second message while the first is answered steers the run"(scene) {
    await scene.model({text: words(40), hold: 20}, {text: "Shorter."});
    const chat = scene.chat();
    const sent = chat.sendMessage(scene.prompt("A story."));
    await until(() => textOf(chat.lastMessage).includes("word-5"), "the beginning");
    const other = scene.chat({messages: await scene.history()});
    const steered = other.sendMessage(scene.prompt("Make it short."));
    await until(() => other.wire.responses.length === 1, "the second response");
    await scene.goOn();
    await Promise.all([sent, steered]);
    await scene.reachStatus("completed");
    assert.deepEqual([chat.wire.errors, other.wire.errors], [[], []]);
    assert.equal(chat.wire.types().at(-1), "finish");
    assert.equal(chat.wire.finished[0].finishReason, "tool-calls");
    assert.equal(textOf(chat.messages[1]), words(40));
    assert.equal(textOf(other.lastMessage), "Shorter.");
    assert.deepEqual(said(await scene.history()), ["A story.", words(40), "Make it short.", "Shorter."]);
    assert.deepEqual(typesOf(other.lastMessage), ["step-start", "text"]);
  },

  async "a client of version 7 sees the message that steered the run"(scene) {
    if (scene.major !== "7") return;
    await scene.model({text: words(40), hold: 20}, {text: "Shorter."});
    const chat = scene.chat({
      headers: {"X-AI-SDK-Version": "7"},
      sendAutomaticallyWhen: () => true,
    });
    const sent = chat.sendMessage(scene.prompt("A story."));
    await until(() => textOf(chat.lastMessage).includes("word-5"), "the beginning");
    const prompt = scene.prompt("Make it short.");
    const {status} = await scene.rest(`threads/${scene.id}/messages/`, {method: "POST", body: {prompt: prompt.text, client_id: "s"}});
    assert.equal(status, 202);
    await scene.goOn();
    await sent;
    assert.equal(chat.wire.finished[0].finishReason, "interrupted");
    assert.deepEqual(typesOf(chat.lastMessage), ["step-start", "text", "steering-message"]);
    assert.deepEqual(chat.lastMessage.parts.at(-1), {type: "steering-message", id: "s", parts: [{type: "text", text: prompt.text}]});
    assert.equal(chat.wire.posts.length, 1, "nothing is sent automatically");
    await scene.reachStatus("completed");
    await scene.sdk.validateUIMessages({messages: chat.messages});
  },

  // A user may have 20 streams open (MAX_STREAMS_PER_USER), and a client may have left one of an earlier case behind.
  async "fifteen chats at once"(scene) {
    await scene.model({text: words(20)});
    const chats = Array.from({length: 15}, () => scene.chat({id: `${scene.id}-${Math.random()}`, api: `${SITE}/agents/chat`}));
    await Promise.all(chats.map((chat) => chat.sendMessage(scene.prompt("Hello."))));
    for (const chat of chats) {
      assert.deepEqual(chat.wire.errors, []);
      assert.equal(textOf(chat.messages[1]), words(20));
    }
  },
};
