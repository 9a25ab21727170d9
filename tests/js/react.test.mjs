/** The hooks, in React 19 and 18: StrictMode, server rendering, hydration, and as few renderings as possible. */

import assert from "node:assert/strict";
import {mkdtempSync, rmSync} from "node:fs";
import {after, test} from "node:test";
import {join} from "node:path";
import {fileURLToPath, pathToFileURL} from "node:url";

import {build} from "esbuild";
import {Window} from "happy-dom";

import {assistant, fakeNetwork, SNAPSHOT, text, user} from "./fakes.mjs";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const folder = mkdtempSync(join(ROOT, "node_modules/.react-"));
after(() => rmSync(folder, {recursive: true}));

const window = new Window({url: "http://site.test/"});
for (const name of ["window", "document", "HTMLElement", "Node", "location", "navigator", "MutationObserver"]) {
  Object.defineProperty(globalThis, name, {value: name === "window" ? window : window[name], configurable: true, writable: true});
}
after(() => window.happyDOM.close());
/** React leaves its channels open, which would keep the process alive. */
const channels = [];
globalThis.MessageChannel = class extends MessageChannel {
  constructor() {
    super();
    channels.push(this.port1);
  }
};
after(() => channels.forEach((port) => port.close()));
globalThis.IS_REACT_ACT_ENVIRONMENT = true;

/** One bundle of React, the hooks and the core, so that all of them share one React. */
async function bundle(major) {
  const alias = major === "18" ? {react: "react18", "react-dom": "react-dom18"} : {};
  const contents = `
    export * as React from "react";
    export {createRoot, hydrateRoot} from "react-dom/client";
    export {renderToString} from "react-dom/server.browser";
    export * from "django-durable-agents/react";
    export {createClient} from "django-durable-agents";`;
  const outfile = join(folder, `react-${major}.mjs`);
  const define = {"process.env.NODE_ENV": '"development"'};
  const paths = {"django-durable-agents": join(ROOT, "durable_agents/static/durable_agents/durable-agents.js"), "django-durable-agents/react": join(ROOT, "durable_agents/static/durable_agents/react.js")};
  await build({stdin: {contents, resolveDir: ROOT}, outfile, bundle: true, format: "esm", platform: "browser", define, alias: {...alias, ...paths}, logLevel: "error", external: ["util", "crypto", "async_hooks", "stream"]});
  return import(pathToFileURL(outfile));
}

const settle = () => new Promise((resolve) => setTimeout(resolve, 40));

for (const major of ["19", "18"]) {
  const it = await bundle(major);
  const {React, createClient, createRoot, hydrateRoot, renderToString} = it;
  const h = React.createElement;
  const act = React.act;

  const newClient = (t) => {
    const network = fakeNetwork();
    const client = createClient({url: "http://site.test/agents/", WebSocket: network.WebSocket, transport: "websocket"});
    t.after(() => client.close());
    return {client, network};
  };
  const mount = async (t, element, node = document.createElement("div"), start = (inner) => createRoot(node).render(inner)) => {
    let root;
    await act(async () => void (root = start(element)));
    t.after(() => act(async () => root?.unmount?.()));
    return node;
  };
  const open = async (network, snapshot = {}) => {
    await act(async () => {
      network.socket.accept();
      network.socket.answer("subscribe", {...SNAPSHOT, ...snapshot});
      await settle();
    });
  };
  const say = (network, frame) => act(async () => {
    network.socket.say({thread: "t1", ...frame});
    await settle();
  });
  const ANSWERING = {status: "streaming", title: "Trip", messages: [user("u", "Hi", 1), assistant("a", [], 2)]};
  const delta = (seq, ...chunks) => ({type: "delta", stream: "s", message: "a", seq, chunks});
  const named = (name, run) => test(`React ${React.version.split(".")[0]}: ${name}`, run);

  named("a chat shows what comes and sends, and StrictMode opens one socket and one subscription", async (t) => {
    const {client, network} = newClient(t);
    let chat;
    const Chat = () => {
      chat = it.useAgentChat({client, threadId: "t1"});
      return h("ol", null, chat.messages.map((message) => h("li", {key: message.metadata.key}, message.parts.map((part) => part.text))));
    };
    const node = await mount(t, h(React.StrictMode, null, h(Chat)));
    assert.equal(chat.isLoading, true);
    await open(network, ANSWERING);
    await say(network, delta(0, {type: "text-start", id: "x"}, {type: "text-delta", id: "x", delta: "Hello"}));
    assert.equal(node.textContent, "HiHello");
    assert.equal(network.sockets.length, 1);
    assert.equal(network.socket.all("subscribe").length, 1);
    const item = node.querySelector("li");
    await act(async () => {
      chat.sendMessage("More", {clientId: "mine"});
      await settle();
    });
    assert.equal(node.textContent, "HiHelloMore");
    assert.equal(chat.messages.at(-1).metadata.key, "t1-mine");
    const optimistic = node.querySelectorAll("li")[2];
    await act(async () => {
      network.socket.answer("send", {type: "ok", message: user("mine", "More", 3)});
      await settle();
    });
    assert.equal(node.querySelectorAll("li")[2], optimistic);
    assert.equal(node.querySelector("li"), item);
    assert.deepEqual([chat.status, chat.isRunning, chat.isComplete, chat.thread.title], ["streaming", true, false, "Trip"]);
    for (const name of ["stop", "resume", "regenerate", "edit", "addToolResult", "addToolError", "approve", "reject", "sendMessage", "loadOlder"]) {
      assert.equal(typeof chat[name], "function", name);
    }
    for (const name of ["isFailed", "isStopped", "isRecovering", "isReplaying", "isLoading"]) assert.equal(chat[name], false, name);
  });

  named("a status renders again only when it changes, and without streams only what is finished is shown", async (t) => {
    const {client, network} = newClient(t);
    let rendered = 0;
    let shown;
    const Status = () => {
      rendered++;
      return h("i", null, it.useThreadStatus({client, threadId: "t1"}).status);
    };
    const Still = () => {
      shown = it.useAgentChat({client, threadId: "t1", stream: false}).messages;
      return null;
    };
    const node = await mount(t, h("div", null, h(Status), h(Still)));
    await open(network, ANSWERING);
    const before = rendered;
    await say(network, delta(0, {type: "text-start", id: "x"}, {type: "text-delta", id: "x", delta: "Hello"}));
    assert.equal(rendered, before);
    assert.deepEqual(shown.at(-1).parts, []);
    await say(network, {type: "step", rev: 2, message: "a", stream: "s", parts: [text("Hello")]});
    assert.equal(shown.at(-1).parts.length, 1);
    await say(network, {type: "thread", rev: 3, status: "completed", title: "Trip", error: null, retry: null});
    assert.equal(node.textContent, "completed");
  });

  named("unchanged messages are the same objects, by both names of the hook", async (t) => {
    const {client, network} = newClient(t);
    const seen = [];
    const List = () => void seen.push(it.useThreadMessages({client, threadId: "t1"})) ?? null;
    await mount(t, h(List));
    await open(network, ANSWERING);
    const [first] = seen.at(-1);
    await say(network, delta(0, {type: "text-start", id: "x"}));
    assert.equal(seen.at(-1)[0], first);
    assert.equal(it.useMessages, it.useThreadMessages);
    assert.equal(it.getMessageKey(first), "t1-u");
    assert.equal(it.getMessageKey({id: "u", role: "user", parts: []}, "t2"), "t2-u");
  });

  named("switching threads shows each one's own, and no thread is nothing", async (t) => {
    const {client, network} = newClient(t);
    let set;
    const Chat = () => {
      const [threadId, setThread] = React.useState("t1");
      set = setThread;
      const {messages, thread, isLoading} = it.useAgentChat({client, threadId});
      return h("p", null, JSON.stringify([messages.map(({id}) => id), thread?.id ?? null, isLoading]));
    };
    const node = await mount(t, h(Chat));
    await open(network, ANSWERING);
    assert.equal(node.textContent, '[["u","a"],"t1",false]');
    await act(async () => set("t2"));
    assert.equal(node.textContent, "[[],null,true]");
    await act(async () => set("t1"));
    assert.equal(node.textContent, '[["u","a"],"t1",false]');
    await act(async () => set(null));
    assert.equal(node.textContent, "[[],null,false]");
    assert.equal(network.socket.all("subscribe").filter(({thread}) => thread === "t1").length, 1);
  });

  named("a server renders a thread that is loading, and the page takes it over without a complaint", async (t) => {
    const {client, network} = newClient(t);
    const errors = t.mock.method(console, "error", () => {});
    const Chat = () => {
      const {messages, isLoading} = it.useAgentChat({client, threadId: "t1"});
      const {threads} = it.useThreadList({client});
      const {state} = it.useConnection({client});
      const [visible] = it.useSmoothText("Hello");
      return h("p", null, `${isLoading} ${messages.length} ${threads.length} ${state} ${visible}`);
    };
    const html = renderToString(h(Chat));
    assert.equal(html, "<p>true 0 0 idle Hello</p>");
    assert.equal(network.sockets.length, 0);
    client.thread("t1").subscribe(() => {});
    network.socket.accept();
    network.socket.answer("subscribe", {...SNAPSHOT, ...ANSWERING});
    const node = document.createElement("div");
    node.innerHTML = html;
    t.mock.method(globalThis, "fetch", async () => new Response(JSON.stringify({results: [], next: null})));
    await mount(t, h(Chat), node, (element) => hydrateRoot(node, element));
    await act(settle);
    assert.equal(node.textContent, "false 2 0 open Hello");
    assert.deepEqual(errors.mock.calls.map((call) => call.arguments), []);
  });

  named("smooth text begins empty where it shall stream, and ends whole", async (t) => {
    const seen = [];
    const Text = ({value}) => {
      const [visible, {isStreaming}] = it.useSmoothText(value, {charsPerSec: 1000, startStreaming: true});
      seen.push([visible, isStreaming]);
      return h("p", null, visible);
    };
    const node = await mount(t, h(React.StrictMode, null, h(Text, {value: "Hello, world"})));
    assert.deepEqual(seen[0], ["", true]);
    await act(() => new Promise((resolve) => setTimeout(resolve, 500)));
    assert.equal(node.textContent, "Hello, world");
    assert.deepEqual(seen.at(-1), ["Hello, world", false]);
  });

  named("the list of threads can be searched and changed", async (t) => {
    const {client} = newClient(t);
    const asked = [];
    t.mock.method(globalThis, "fetch", async (url, {method}) => {
      asked.push(`${method} ${url.pathname}${url.search}`);
      return new Response(JSON.stringify({results: [{id: "a", title: "A", status: "completed", updated_at: "2026-11-01"}], next: null}));
    });
    let list;
    const List = () => {
      list = it.useThreadList({client, agent: "x"});
      return h("p", null, list.threads.map(({title}) => title));
    };
    const node = await mount(t, h(List));
    await act(settle);
    assert.equal(node.textContent, "A");
    await act(() => list.search("b"));
    assert.match(asked.at(-1), /search=b/);
  });
}
