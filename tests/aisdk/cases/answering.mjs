/** Answers: text, reasoning, tools that the server runs. */

import assert from "node:assert/strict";

import {SITE, until} from "./site.mjs";
import {textOf, toolParts, typesOf, words} from "./scene.mjs";

const WEATHER = {name: "get_weather", arguments: {city: "Paris"}};
/** A PNG of one pixel. */
const DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
const SUM = {name: "add", arguments: {a: 2, b: 3}};

export const cases = {
  async "text"(scene) {
    await scene.model({text: words(20)});
    const chat = scene.chat();
    assert.equal(chat.status, "ready");
    const states = new Set();
    chat["~registerStatusCallback"](() => states.add(chat.status));
    await chat.sendMessage(scene.prompt("Hello."));
    assert.deepEqual(chat.messages.map(({role}) => role), ["user", "assistant"]);
    assert.equal(textOf(chat.messages[1]), words(20));
    assert.deepEqual(typesOf(chat.messages[1]), ["step-start", "text"]);
    assert.deepEqual([...states], ["submitted", "streaming", "ready"]);
    assert.deepEqual(chat.wire.errors, []);
    assert.equal(chat.wire.finished.length, 1);
    assert.equal(chat.wire.finished[0].finishReason, "stop");
    await scene.assertStored(chat);
    assert.equal((await scene.thread()).client_id, scene.id);
  },

  async "headers and framing"(scene) {
    await scene.model({text: words(20)});
    const chat = scene.chat();
    await chat.sendMessage(scene.prompt("Hello."));
    const [{status, headers, text}] = chat.wire.responses;
    assert.equal(status, 200);
    assert.match(headers.get("content-type"), /^text\/event-stream/);
    assert.match(headers.get("cache-control"), /no-cache/);
    assert.equal(headers.get("x-vercel-ai-ui-message-stream"), "v1");
    assert.equal(headers.get("x-accel-buffering"), "no");
    assert.match(text, /data: \[DONE\]\n\n$/);
    const types = chat.wire.types();
    assert.equal(types[0], "start");
    assert.equal(types.at(-1), "finish");
    const {threadId} = chat.messages[1].metadata;
    assert.equal(threadId, (await scene.thread()).id);
  },

  async "the answer arrives while it is written"(scene) {
    await scene.model({text: words(20), hold: 10});
    const chat = scene.chat();
    const sent = chat.sendMessage(scene.prompt("Hello."));
    await until(() => chat.lastMessage?.role === "assistant" && textOf(chat.lastMessage).includes("word-5"), "the beginning");
    assert.equal(chat.status, "streaming");
    await scene.goOn();
    await sent;
    await scene.assertStored(chat);
  },

  async "reasoning"(scene) {
    await scene.model({reasoning: words(10, "thought"), text: words(10)});
    const chat = scene.chat();
    await chat.sendMessage(scene.prompt("Think."));
    assert.deepEqual(typesOf(chat.messages[1]), ["step-start", "reasoning", "text"]);
    assert.equal(chat.messages[1].parts[1].text, words(10, "thought"));
    await scene.assertStored(chat);
  },

  async "a tool of the server"(scene) {
    await scene.model({text: "Let me look.", calls: [WEATHER]}, {text: "There it is."});
    const chat = scene.chat({sendAutomaticallyWhen: scene.sdk.lastAssistantMessageIsCompleteWithToolCalls});
    await chat.sendMessage(scene.prompt("Weather?"));
    assert.deepEqual(typesOf(chat.messages[1]), ["step-start", "text", "tool-get_weather", "step-start", "text"]);
    const [part] = toolParts(chat.messages[1]);
    assert.equal(part.state, "output-available");
    assert.deepEqual(part.input, WEATHER.arguments);
    assert.equal(part.output.city, "Paris");
    assert.equal(chat.wire.posts.length, 1, "it is not sent again and again");
    const types = chat.wire.types();
    assert.equal(types.filter((type) => type === "start-step").length, 2);
    assert.equal(types.filter((type) => type === "finish-step").length, 2);
    await scene.assertStored(chat);
  },

  async "two tools in parallel"(scene) {
    await scene.model({calls: [WEATHER, SUM]}, {text: "Both are here."});
    const chat = scene.chat();
    await chat.sendMessage(scene.prompt("Weather, and 2 + 3?"));
    const parts = toolParts(chat.messages[1]);
    assert.deepEqual(parts.map(({type, state}) => [type, state]), [
      ["tool-get_weather", "output-available"],
      ["tool-add", "output-available"],
    ]);
    assert.notEqual(parts[0].toolCallId, parts[1].toolCallId);
    assert.equal(parts[1].output, 5);
    await scene.assertStored(chat);
  },

  async "a tool that fails"(scene) {
    await scene.model({calls: [{name: "get_time", arguments: {tz: "Nowhere/None"}}]}, {text: "No such zone."});
    const chat = scene.chat();
    await chat.sendMessage(scene.prompt("Time?"));
    const [part] = toolParts(chat.messages[1]);
    assert.equal(part.state, "output-error");
    assert.match(part.errorText, /no time zone/);
    await scene.assertStored(chat);
  },

  async "a tool that says how far it is"(scene) {
    await scene.model({calls: [{name: "count_to", arguments: {number: 2}}]}, {text: "Counted."});
    const chat = scene.chat();
    await chat.sendMessage(scene.prompt("Count."));
    assert.equal(toolParts(chat.messages[1])[0].output, 2);
    assert.notEqual(toolParts(chat.messages[1])[0].preliminary, true);
    await scene.assertStored(chat);
  },

  async "a second message in the same chat"(scene) {
    await scene.model({text: "First."}, {text: "Second."});
    const chat = scene.chat();
    await chat.sendMessage(scene.prompt("One."));
    await chat.sendMessage(scene.prompt("Two."));
    assert.deepEqual(chat.messages.map(textOf).map((text) => text.replace(/^\[.*\] /, "")), ["One.", "First.", "Two.", "Second."]);
    const said = (await scene.requests())[1].messages.filter(({role}) => role !== "system");
    assert.deepEqual(said.map(({role}) => role), ["user", "assistant", "user"]);
    await scene.assertStored(chat);
  },

  async "signed in by session, with the agent in the path"(scene) {
    await scene.model({text: "Hello."});
    const chat = scene.chat({user: scene.users.session, api: `${SITE}/agents/chat/assistant`});
    await chat.sendMessage(scene.prompt("Hello."));
    assert.equal(textOf(chat.messages[1]), "Hello.");
    await chat.resumeStream();
    assert.equal(chat.status, "ready");
    assert.equal(chat.wire.responses.at(-1).status, 204);
    await scene.assertStored(chat);
  },

  async "only the last message is sent"(scene) {
    await scene.model({text: "First."}, {text: "Second."});
    const prepareSendMessagesRequest = ({id, messages, trigger, messageId}) => ({body: {id, message: messages.at(-1), trigger, messageId}});
    const chat = scene.chat({transport: {prepareSendMessagesRequest}});
    await chat.sendMessage(scene.prompt("One."));
    await chat.sendMessage(scene.prompt("Two."));
    assert.equal(chat.messages.length, 4);
    await scene.assertStored(chat);
  },

  async "a file in the message"(scene) {
    await scene.model({text: "A dot."}, {text: "Still a dot."});
    const chat = scene.chat();
    const file = {type: "file", mediaType: "image/png", filename: "dot.png", url: `data:image/png;base64,${DOT}`};
    await chat.sendMessage({...scene.prompt("What is it?"), files: [file]});
    assert.equal(textOf(chat.lastMessage), "A dot.", String(chat.error));
    const [stored] = await scene.history();
    const {url, ...rest} = stored.parts.find(({type}) => type === "file");
    assert.deepEqual(rest, {type: "file", mediaType: "image/png", filename: "dot.png"});
    assert.doesNotMatch(url, /^data:/);
    const response = await fetch(new URL(url, SITE), {headers: scene.users.demo});
    assert.equal(Buffer.from(await response.arrayBuffer()).toString("base64"), DOT);
    assert.match(JSON.stringify((await scene.requests())[0]), /image_url/);
    const later = scene.chat({messages: await scene.history()});
    await later.sendMessage(scene.prompt("And now?"));
    assert.equal(textOf(later.lastMessage), "Still a dot.", String(later.error));
    await scene.assertStored(later);
  },

  async "a thread made by the API, by its own id"(scene) {
    await scene.model({text: "First."}, {text: "Second."});
    const {text: prompt} = scene.prompt("One.");
    const {body: thread} = await scene.rest("threads/", {method: "POST", body: {agent: "assistant", prompt}});
    scene.id = thread.id;
    await scene.reachStatus("completed");
    const chat = scene.chat({messages: await scene.history()});
    await chat.sendMessage(scene.prompt("Two."));
    assert.equal(textOf(chat.messages[3]), "Second.");
    await scene.assertStored(chat);
    assert.equal((await scene.thread()).client_id, null);
  },
};
