/** The JavaScript examples of the reference run as they are written. */

import assert from "node:assert/strict";
import {mkdtempSync, readFileSync, rmSync, writeFileSync} from "node:fs";
import {tmpdir} from "node:os";
import {join} from "node:path";
import {test} from "node:test";
import {fileURLToPath, pathToFileURL} from "node:url";

import {fakeDocument} from "./fakedom.mjs";
import {fakeNetwork, fakePage} from "./fakes.mjs";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const FOLDER = join(ROOT, "durable_agents/static/durable_agents");
const FILES = {"django-durable-agents": "durable-agents.js", "django-durable-agents/markdown": "markdown.js", "django-durable-agents/ai-sdk": "ai-sdk.js"};

/** Imports the only JavaScript block of a page of the reference. */
async function example(t, page) {
  const [, block] = readFileSync(join(ROOT, "docs/reference", page), "utf8").match(/^```js\n(.*?)^```$/ms);
  const folder = mkdtempSync(join(tmpdir(), "example-"));
  t.after(() => rmSync(folder, {recursive: true}));
  const path = join(folder, "example.mjs");
  writeFileSync(path, block.replace(/from "([^"]+)"/g, (_, name) => `from "${pathToFileURL(join(FOLDER, FILES[name])).href}"`));
  return import(pathToFileURL(path).href);
}

/** Replaces globals until the end of the test. */
function replaced(t, values) {
  for (const [name, value] of Object.entries(values)) {
    const before = Object.getOwnPropertyDescriptor(globalThis, name);
    Object.defineProperty(globalThis, name, {value, configurable: true, writable: true});
    t.after(() => (before ? Object.defineProperty(globalThis, name, before) : delete globalThis[name]));
  }
}

const until = async (isDone) => {
  while (!isDone()) await new Promise(setImmediate);
};

test("the example of the client creates a thread, shows it and sends", {timeout: 10_000}, async (t) => {
  fakePage(t);
  const network = fakeNetwork();
  const fetch = t.mock.fn(async () => new Response(JSON.stringify({id: "t1"}), {status: 201}));
  replaced(t, {fetch, WebSocket: network.WebSocket, location: new URL("http://site.test/")});
  const {ask} = await example(t, "javascript.md");
  const shown = [];
  const asked = ask("Hello", (snapshot) => shown.push(snapshot));
  await until(() => network.socket);
  network.socket.accept();
  await until(() => network.socket.last("send"));
  const {client_id: id, prompt} = network.socket.last("send");
  network.socket.answer("send", {type: "ok", message: {id, client_id: id, role: "user", parts: [{type: "text", text: prompt}], metadata: {}, sender: null, position: 1, created_at: "2026-11-30T12:00:00Z"}});
  const thread = await asked;
  await until(() => shown.length);
  assert.deepEqual(JSON.parse(fetch.mock.calls[0].arguments[1].body).agent, "support");
  assert.deepEqual(thread.getSnapshot().messages.map(({parts}) => parts[0].text), ["Hello"]);
  thread.close();
});

test("the example of Markdown renders the last message at each change", async (t) => {
  const element = fakeDocument(t).createElement("div");
  const {showAnswer} = await example(t, "markdown.md");
  let changed;
  const messages = [{parts: [{type: "step-start"}, {type: "text", text: "**Yes**"}]}];
  const thread = {subscribe: (listener) => ((changed = listener), () => "ended"), getSnapshot: () => ({messages})};
  const end = showAnswer(element, thread);
  changed();
  assert.equal(element.innerHTML, "<p><strong>Yes</strong></p>");
  assert.equal(end(), "ended");
});

test("the example of a chat of the AI SDK sends a message and loads what is stored", {timeout: 10_000}, async (t) => {
  const stored = [
    {id: "m1", role: "user", parts: [{type: "text", text: "Hello"}]},
    {id: "m2", role: "assistant", parts: [{type: "text", text: "Hi."}]},
  ];
  const answers = {
    "/agents/chat?wait=1": () => new Response('data: {"type":"start","messageId":"m2"}\n\ndata: {"type":"finish","finishReason":"stop"}\n\n', {headers: {"Content-Type": "text/event-stream"}}),
    "/agents/threads/t1/": () => Response.json({id: "t1", is_running: false}),
    "/agents/threads/t1/messages/?streams=1&limit=200": () => Response.json({results: stored, next: null}),
  };
  const fetch = t.mock.fn(async (url) => answers[url]());
  replaced(t, {fetch});
  const {ask} = await example(t, "ai-sdk-chat.md");
  const [{DefaultChatTransport}, {Chat}] = await Promise.all([import("ai6"), import("ai6-react")]);
  assert.deepEqual(await ask({Chat, DefaultChatTransport}, "t1", "Hello"), stored);
  assert.equal(JSON.parse(fetch.mock.calls[0].arguments[1].body).message.parts[0].text, "Hello");
});
