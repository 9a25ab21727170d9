/** Runs that wait: for the browser, for an approval, for somebody else. */

import assert from "node:assert/strict";
import {readFileSync} from "node:fs";

import {follower} from "./follower.mjs";
import {until} from "./site.mjs";
import {textOf, toolParts, typesOf} from "./scene.mjs";

const PICK = {name: "pick_date", arguments: {label: "Launch"}};
const TABLE = {name: "book_table", arguments: {restaurant: "Luigi's", people: 4, time: "19:30"}};
const COLLEAGUE = {name: "ask_colleague", arguments: {question: "Friday?"}};

/** The function of the docs that says whether to show buttons. */
const DOCS = readFileSync(new URL("../../../docs/howto/shared-threads.md", import.meta.url), "utf8");
const [, code] = DOCS.match(/```js\n(export const mayDecide[^`]*)```/);
const {mayDecide} = await import(`data:text/javascript,${encodeURIComponent(code)}`);

/** What the model was told of the tools' results, in the last request. */
const told = async (scene) => (await scene.requests()).at(-1).messages.filter(({role}) => role === "tool").map(({content}) => content);

/** A chat whose run waits for a table to be approved. */
async function awaitingApproval(scene, options) {
  await scene.model({text: "I book.", calls: [TABLE]}, {text: "So be it."});
  const chat = scene.chat({sendAutomaticallyWhen: scene.sdk.lastAssistantMessageIsCompleteWithApprovalResponses, ...options});
  await chat.sendMessage(scene.prompt("A table."));
  assert.equal(toolParts(chat.messages[1])[0].state, "approval-requested");
  assert.equal(chat.wire.finished.at(-1).finishReason, "tool-calls");
  // Some versions of the AI SDK refuse chunks with further keys.
  const request = chat.wire.chunks().find(({type}) => type === "tool-approval-request");
  assert.deepEqual(Object.keys(request).sort(), ["approvalId", "toolCallId", "type"]);
  assert.deepEqual(chat.lastMessage.metadata.canDecide, {[request.toolCallId]: true});
  assert.equal(mayDecide(chat.lastMessage, toolParts(chat.lastMessage)[0]), true);
  return chat;
}

/** The approval that a chat's last message asks for. */
const asked = (chat) => toolParts(chat.lastMessage)[0].approval.id;

/** Everything after an answer to an approval: one message, two posts, and what is stored. */
async function assertWentOn(scene, chat, state) {
  await until(() => chat.status === "ready" && typesOf(chat.lastMessage).at(-1) === "text" && chat.lastMessage.parts.length > 3, "the rest");
  assert.deepEqual(chat.messages.map(({role}) => role), ["user", "assistant"]);
  assert.deepEqual(typesOf(chat.messages[1]), ["step-start", "text", "tool-book_table", "step-start", "text"]);
  assert.equal(toolParts(chat.messages[1])[0].state, state);
  assert.deepEqual(chat.wire.errors, []);
  assert.equal((await scene.requests()).length, 2);
  assert.equal((await scene.thread()).status, "completed");
}

/** A chat that stays connected while its run waits for what a model calls. */
async function waitingFor(scene, call) {
  await scene.model({text: "One moment.", calls: [call]}, {text: "Here is the answer."});
  const chat = follower(scene);
  await chat.sendMessage(scene.prompt("Ask."));
  await until(() => chat.wire.responses.length === 2 && toolParts(chat.lastMessage).length === 1 && chat.status === "streaming", "the waiting response");
  assert.equal(chat.wire.responses[1].status, 200);
  return chat;
}

/** Everything after the run went on: one response, and what is stored. */
async function assertHeard(scene, chat, state) {
  await until(() => chat.status === "ready" && textOf(chat.lastMessage).endsWith("Here is the answer."), "the rest");
  assert.deepEqual(chat.messages.map(({role}) => role), ["user", "assistant"]);
  assert.equal(toolParts(chat.lastMessage)[0].state, state);
  assert.deepEqual(typesOf(chat.lastMessage).slice(-2), ["step-start", "text"]);
}

export const cases = {
  async "an approval in another place reaches a chat that waits"(scene) {
    const chat = await waitingFor(scene, TABLE);
    const {toolCallId} = toolParts(chat.lastMessage)[0];
    const {status} = await scene.rest(`threads/${scene.id}/tool-calls/${toolCallId}/approve/`, {method: "POST", body: {}});
    assert.equal(status, 200);
    await assertHeard(scene, chat, "output-available");
    assert.equal(chat.wire.responses.length, 2, "the response that waited went on");
  },

  async "a late result reaches a chat that waits"(scene) {
    const chat = await waitingFor(scene, COLLEAGUE);
    const {toolCallId} = toolParts(chat.lastMessage)[0];
    const page = follower(scene);
    const opened = page.resumeStream();
    await until(() => page.status === "streaming", "the response of a page that is opened now");
    const {status} = await scene.rest(`threads/${scene.id}/tool-calls/${toolCallId}/result/`, {method: "POST", body: {result: "Yes."}});
    assert.equal(status, 200);
    await assertHeard(scene, chat, "output-available");
    await opened;
    await assertHeard(scene, page, "output-available");
    await scene.assertStored(page);
  },

  async "a new message ends the waiting"(scene) {
    const chat = await waitingFor(scene, TABLE);
    await scene.model({text: "Forgotten."});
    await chat.sendMessage(scene.prompt("Forget the table."));
    assert.equal(textOf(chat.lastMessage), "Forgotten.");
  },

  async "a page that comes too late to wait loads the messages"(scene) {
    const chat = await waitingFor(scene, TABLE);
    chat.close();
    const {toolCallId} = toolParts(chat.lastMessage)[0];
    await scene.rest(`threads/${scene.id}/tool-calls/${toolCallId}/approve/`, {method: "POST", body: {}});
    await scene.reachStatus("completed");
    const page = follower(scene);
    await page.resumeStream();
    assert.equal(page.wire.responses.length, 0, "nothing is in progress");
    await assertHeard(scene, page, "output-available");
  },

  async "a tool of the client"(scene) {
    await scene.model({text: "Please pick.", calls: [PICK]}, {text: "Thank you."});
    const chat = scene.chat({
      sendAutomaticallyWhen: scene.sdk.lastAssistantMessageIsCompleteWithToolCalls,
      onToolCall: ({toolCall}) => {
        chat.addToolOutput({tool: toolCall.toolName, toolCallId: toolCall.toolCallId, output: "2031-05-04"});
      },
    });
    await chat.sendMessage(scene.prompt("A date."));
    await until(() => chat.status === "ready" && textOf(chat.lastMessage).includes("Thank you."), "the rest");
    assert.deepEqual(typesOf(chat.messages[1]), ["step-start", "text", "tool-pick_date", "step-start", "text"]);
    assert.equal(chat.messages.length, 2, "one message, continued");
    assert.equal(chat.wire.posts.length, 2);
    assert.match((await told(scene))[0], /2031-05-04/);
    await scene.assertStored(chat);
  },

  async "a tool of the client that fails there"(scene) {
    await scene.model({calls: [PICK]}, {text: "Never mind."});
    const chat = scene.chat({sendAutomaticallyWhen: scene.sdk.lastAssistantMessageIsCompleteWithToolCalls});
    await chat.sendMessage(scene.prompt("A date."));
    assert.equal(chat.wire.finished[0].finishReason, "tool-calls");
    assert.equal((await scene.thread()).status, "awaiting_tool_results");
    await chat.resumeStream();
    assert.equal(chat.wire.responses.at(-1).status, 204, "nothing is written while it waits");
    const [{toolCallId}] = toolParts(chat.lastMessage);
    await chat.addToolOutput({tool: "pick_date", toolCallId, state: "output-error", errorText: "The calendar is stuck."});
    await until(() => chat.status === "ready" && textOf(chat.lastMessage).includes("Never mind."), "the rest");
    assert.equal(toolParts(chat.lastMessage)[0].state, "output-error");
    assert.match((await told(scene))[0], /The calendar is stuck\./);
    await scene.assertStored(chat);
  },

  async "the same output twice"(scene) {
    await scene.model({calls: [PICK]}, {text: "Thank you."});
    const chat = scene.chat({sendAutomaticallyWhen: scene.sdk.lastAssistantMessageIsCompleteWithToolCalls});
    await chat.sendMessage(scene.prompt("A date."));
    const [{toolCallId}] = toolParts(chat.lastMessage);
    await chat.addToolOutput({tool: "pick_date", toolCallId, output: "2031-05-04"});
    await until(() => chat.status === "ready" && textOf(chat.lastMessage).includes("Thank you."), "the rest");
    const again = await scene.post(chat.wire.posts[1]);
    assert.ok(again.status === 200 || again.status === 409, `${again.status} ${again.text}`);
    const other = structuredClone(chat.wire.posts[1]);
    toolParts(other.messages[1])[0].output = "1999-01-01";
    const different = await scene.post(other);
    assert.ok(different.status === 200 || different.status === 409, `${different.status} ${different.text}`);
    assert.equal((await scene.requests()).length, 2, "the model is not asked again");
    await scene.assertStored(chat);
  },

  async "approval granted"(scene) {
    const chat = await awaitingApproval(scene);
    await chat.addToolApprovalResponse({id: asked(chat), approved: true});
    await assertWentOn(scene, chat, "output-available");
    assert.equal(toolParts(chat.lastMessage)[0].output.restaurant, "Luigi's");
    await scene.assertStored(chat);
  },

  async "approval denied"(scene) {
    const chat = await awaitingApproval(scene);
    await chat.addToolApprovalResponse({id: asked(chat), approved: false, reason: "Too dear."});
    await assertWentOn(scene, chat, "output-denied");
    assert.equal(toolParts((await scene.history())[1])[0].approval.approved, false);
    assert.match((await told(scene))[0], /Too dear\./);
    await scene.assertStored(chat);
  },

  async "approval after a reload"(scene) {
    const before = await awaitingApproval(scene);
    await scene.assertStored(before);
    const messages = await scene.history();
    assert.deepEqual(toolParts(messages[1])[0].approval, {id: asked(before), canDecide: true});
    assert.equal(mayDecide(messages[1], toolParts(messages[1])[0]), true);
    const chat = scene.chat({
      messages,
      sendAutomaticallyWhen: scene.sdk.lastAssistantMessageIsCompleteWithApprovalResponses,
    });
    await chat.resumeStream();
    assert.equal(chat.wire.responses[0].status, 204);
    await chat.addToolApprovalResponse({id: asked(chat), approved: true});
    await assertWentOn(scene, chat, "output-available");
    await scene.assertStored(chat);
  },

  async "two people answer one approval: the first counts"(scene) {
    const chat = await awaitingApproval(scene);
    const late = scene.chat({messages: await scene.history()});
    await chat.addToolApprovalResponse({id: asked(chat), approved: false});
    await assertWentOn(scene, chat, "output-denied");
    await late.addToolApprovalResponse({id: asked(late), approved: true});
    await late.sendMessage();
    const [{status}] = late.wire.responses;
    assert.ok(status === 200 || status === 409, `${status}`);
    assert.equal(toolParts((await scene.history())[1])[0].state, "output-denied");
    assert.equal((await scene.requests()).length, 2);
  },

  async "a new message while an approval waits"(scene) {
    const chat = await awaitingApproval(scene);
    await scene.model({text: "Forgotten."});
    await chat.sendMessage(scene.prompt("Forget the table."));
    assert.equal(textOf(chat.lastMessage), "Forgotten.");
    const stored = await scene.history();
    assert.equal(toolParts(stored[1])[0].state, "output-error");
    assert.equal(textOf(stored.at(-1)), "Forgotten.");
  },

  async "a colleague who answers later"(scene) {
    await scene.model({calls: [COLLEAGUE]}, {text: "Here is the answer."});
    const chat = scene.chat({sendAutomaticallyWhen: scene.sdk.lastAssistantMessageIsCompleteWithToolCalls});
    await chat.sendMessage(scene.prompt("Ask."));
    assert.equal(chat.wire.finished[0].finishReason, "tool-calls");
    await chat.resumeStream();
    assert.equal(chat.wire.responses.at(-1).status, 204);
    const [{toolCallId}] = toolParts(chat.lastMessage);
    await scene.model({text: "Here is the answer.", hold: 1});
    const {status} = await scene.rest(`threads/${scene.id}/tool-calls/${toolCallId}/result/`, {method: "POST", body: {result: "Yes."}});
    assert.equal(status, 200);
    const resumed = chat.resumeStream();
    await until(() => chat.wire.responses.length === 3, "the resumed response");
    await scene.goOn();
    await resumed;
    assert.equal(chat.wire.responses[2].status, 200);
    assert.equal(chat.messages.length, 2);
    assert.equal(textOf(chat.lastMessage), "Here is the answer.");
    await scene.assertStored(chat);
  },
};
