/** Clients that leave and come back, runs that are stopped, workers that die. */

import assert from "node:assert/strict";

import {until} from "./site.mjs";
import {textOf, toolParts, words} from "./scene.mjs";

const STORY = words(40);
const LONG = {text: STORY, hold: 20};
const SUM = {name: "add", arguments: {a: 2, b: 3}};

/** Wait until a client shows some of an answer. */
const reads = (chat, word = "word-5") => until(() => chat.lastMessage?.role === "assistant" && textOf(chat.lastMessage).includes(word), word);

/** Start an answer that is held in its middle; returns the chat that reads it, and the promise of its end. */
async function midStream(scene, options, ...more) {
  await scene.model(LONG, ...more);
  const chat = scene.chat(options);
  const sent = chat.sendMessage(scene.prompt("A story."));
  await reads(chat);
  return [chat, sent];
}

/** A client that has nothing but the id, and what is stored by now. */
const reloaded = async (scene, options) => scene.chat({messages: await scene.history(), ...options});

export const cases = {
  async "stop"(scene) {
    const [chat, sent] = await midStream(scene);
    const {status, body} = await scene.stop();
    assert.equal(status, 200);
    assert.equal(body.status, "stopped");
    await sent;
    assert.equal(chat.status, "ready");
    assert.deepEqual(chat.wire.errors, []);
    assert.ok(chat.wire.types().includes("abort"), chat.wire.types().join());
    assert.equal(chat.wire.responses[0].ended, true);
    assert.match(textOf(chat.lastMessage), /word-5/);
    assert.doesNotMatch(textOf(chat.lastMessage), /word-39/);
    await scene.assertStored(chat);
    assert.equal((await scene.stop()).status, 200, "once more changes nothing");
    await chat.resumeStream();
    assert.equal(chat.wire.responses.at(-1).status, 204);
    await scene.model({text: "Another one."});
    await chat.sendMessage(scene.prompt("Something shorter."));
    assert.equal(textOf(chat.lastMessage), "Another one.");
    await scene.assertStored(chat);
  },

  async "a client that leaves does not stop the run"(scene) {
    const [chat, sent] = await midStream(scene);
    await chat.stop();
    await sent;
    assert.equal((await scene.thread()).is_running, true);
    await scene.goOn();
    await scene.reachStatus("completed");
    assert.equal(textOf((await scene.history()).at(-1)), STORY);
    const later = await reloaded(scene);
    await later.resumeStream();
    assert.equal(later.wire.responses[0].status, 204);
    assert.equal(later.status, "ready");
    await scene.assertStored(later);
  },

  async "resume after a reload"(scene) {
    const [first, sent] = await midStream(scene);
    await first.stop();
    await sent;
    const chat = await reloaded(scene);
    const resumed = chat.resumeStream();
    await reads(chat);
    await scene.goOn();
    await resumed;
    assert.equal(textOf(chat.lastMessage), STORY);
    assert.equal(chat.lastMessage.id, first.lastMessage.id);
    assert.equal(chat.wire.types()[0], "start");
    assert.deepEqual(chat.wire.errors, []);
    await scene.assertStored(chat);
  },

  async "resume with the beginning of the answer in hand"(scene) {
    const [first, sent] = await midStream(scene);
    await first.stop();
    await sent;
    const page = await scene.rest(`threads/${scene.id}/messages/?streams=1`);
    assert.match(textOf(page.body.results.at(-1)), /word-5/);
    const chat = scene.chat({messages: page.body.results});
    const resumed = chat.resumeStream();
    await until(() => chat.wire.responses.length > 0, "the response");
    await scene.goOn();
    await resumed;
    assert.equal(textOf(chat.lastMessage), STORY);
    await scene.assertStored(chat);
  },

  async "the same client resumes"(scene) {
    const [chat, sent] = await midStream(scene);
    await chat.stop();
    await sent;
    const resumed = chat.resumeStream();
    await until(() => chat.status === "streaming", "the resumed stream");
    await scene.goOn();
    await resumed;
    assert.equal(textOf(chat.lastMessage), STORY);
    await scene.assertStored(chat);
  },

  async "two readers come mid-stream"(scene) {
    const [chat, sent] = await midStream(scene);
    const readers = [await reloaded(scene), await reloaded(scene)];
    const resumed = readers.map((reader) => reader.resumeStream());
    await Promise.all(readers.map((reader) => reads(reader)));
    await scene.goOn();
    await Promise.all([sent, ...resumed]);
    for (const reader of [chat, ...readers]) {
      assert.deepEqual(reader.wire.errors, []);
      await scene.assertStored(reader);
    }
    assert.equal((await scene.requests()).length, 1);
  },

  async "resume in the second step"(scene) {
    await scene.model({text: "I add.", calls: [SUM]}, LONG);
    const first = scene.chat();
    const sent = first.sendMessage(scene.prompt("2 + 3, and a story."));
    await reads(first);
    const chat = await reloaded(scene);
    const resumed = chat.resumeStream();
    await reads(chat);
    await scene.goOn();
    await Promise.all([sent, resumed]);
    assert.equal(toolParts(chat.lastMessage)[0].output, 5);
    await scene.assertStored(chat);
    await scene.assertStored(first);
  },

  async "the worker is killed: the answer is begun again, and nothing of it is doubled"(scene) {
    const again = {text: "Told once more, from the beginning."};
    const announced = scene.major === "7" ? {headers: {"X-AI-SDK-Version": "7"}} : {};
    const [chat, sent] = await midStream(scene, announced, again);
    await scene.killWorker();
    await sent;
    assert.equal(chat.wire.types(0).includes("reset-step"), scene.major === "7");
    assert.equal(chat.wire.types(0).includes("finish"), scene.major === "7", "a response that is given up has no finish");
    await chat.resumeStream();
    assert.equal(chat.status, "ready", String(chat.error));
    await scene.reachStatus("completed");
    assert.equal(textOf(chat.lastMessage), again.text);
    assert.equal(chat.messages.length, 2);
    assert.equal((await scene.requests()).length, 2);
    await scene.assertStored(chat);
  },

  async "the worker is killed: a client that announces nothing resumes"(scene) {
    const again = {text: STORY.replaceAll("word", "again"), hold: 20};
    const [chat, sent] = await midStream(scene, {}, again);
    const early = await reloaded(scene);
    const early_resumed = early.resumeStream();
    await reads(early);
    await scene.killWorker();
    await Promise.all([sent, early_resumed]);
    for (const reader of [chat, early]) assert.ok(!reader.wire.types().includes("reset-step"), "7 only");
    const late = await reloaded(scene);
    const resumed = [chat, early, late].map((reader) => reader.resumeStream());
    await Promise.all([chat, early, late].map((reader) => reads(reader, "again-5")));
    await scene.goOn();
    await Promise.all(resumed);
    for (const reader of [chat, early, late]) {
      assert.equal(textOf(reader.lastMessage), again.text);
      await scene.assertStored(reader);
    }
  },

  async "the worker is killed before it has said anything"(scene) {
    await scene.model({text: STORY, hold: 0}, {text: "Here I am."});
    const chat = scene.chat();
    const sent = chat.sendMessage(scene.prompt("Anyone?"));
    await until(async () => (await scene.requests()).length === 1, "a request");
    await scene.killWorker();
    await sent;
    if (!chat.wire.types().includes("finish")) await chat.resumeStream();
    await scene.reachStatus("completed");
    assert.equal(textOf(chat.lastMessage), "Here I am.");
    assert.deepEqual(chat.wire.errors, []);
    await scene.assertStored(chat);
  },

  async "the worker is killed while a tool of the server is over"(scene) {
    await scene.model({text: "I add.", calls: [SUM]}, LONG, {text: "That is all."});
    const chat = scene.chat();
    const sent = chat.sendMessage(scene.prompt("2 + 3, and a story."));
    await reads(chat);
    await scene.killWorker();
    await sent;
    await chat.resumeStream();
    await scene.reachStatus("completed");
    assert.equal(toolParts(chat.lastMessage)[0].output, 5);
    assert.equal(textOf(chat.lastMessage), "I add.That is all.");
    await scene.assertStored(chat);
  },

  async "an id that nobody knows has nothing to resume"(scene) {
    const chat = scene.chat();
    await chat.resumeStream();
    assert.equal(chat.status, "ready");
    assert.equal(chat.wire.responses[0].status, 204);
    assert.equal((await scene.stop()).status, 404);
  },
};
