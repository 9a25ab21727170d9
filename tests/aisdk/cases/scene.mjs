/** What a case works with: the real client of one major of the AI SDK, its model's script, and what is stored. */

import assert from "node:assert/strict";
import {randomUUID} from "node:crypto";

import {SITE, control, until} from "./site.mjs";

/** Import the classes of a major: `Chat` is the one of React's package, which `useChat` is made of. */
export async function importSdk(major) {
  const [core, react] = major === "7" ? ["ai", "@ai-sdk/react"] : ["ai6", "ai6-react"];
  return {...(await import(core)), Chat: (await import(react)).Chat};
}

export class Scene {
  constructor({major, sdk, users, name}) {
    this.major = major;
    this.sdk = sdk;
    this.users = users;
    this.tag = `case-${name.replaceAll(/\W+/g, "-")}-${major}`;
    this.id = randomUUID();
    this.recorders = [];
  }

  /** Say what the model answers in this case, from now on. */
  model = (...answers) => control("script", {tag: this.tag, answers});
  goOn = () => control("go_on", {tag: this.tag});
  killWorker = () => control("kill_worker", {tag: this.tag});
  requests = () => control("requests", {tag: this.tag});

  /** A prompt of this case. */
  prompt = (words) => ({text: `[${this.tag}] ${words}`});

  /** A client; its `wire` has what it asked for and heard. `user` is whose headers it sends. */
  chat({user = this.users.demo, headers = {}, id = this.id, api = `${SITE}/agents/chat`, transport = {}, ...options} = {}) {
    const wire = this.recorder();
    const chat = new this.sdk.Chat({
      id,
      transport: new this.sdk.DefaultChatTransport({api, headers: () => ({...user, ...headers}), fetch: wire.fetch, ...transport}),
      onError: (error) => wire.errors.push(error),
      onFinish: (facts) => wire.finished.push(facts),
      ...options,
    });
    return Object.assign(chat, {wire});
  }

  recorder() {
    const wire = new Recorder();
    this.recorders.push(wire);
    return wire;
  }

  /** A request to the API as a user; returns its status and JSON. */
  async rest(path, {user = this.users.demo, method = "GET", body} = {}) {
    const headers = {...user, ...(body === undefined ? {} : {"Content-Type": "application/json"})};
    const response = await fetch(`${SITE}/agents/${path}`, {method, headers, body: body && JSON.stringify(body)});
    const text = await response.text();
    return {status: response.status, body: text ? JSON.parse(text) : null};
  }

  /** A request to the endpoint without the client; `body` may be text. */
  async post(body, {user = this.users.demo, path = "chat", headers = {}} = {}) {
    const response = await fetch(`${SITE}/agents/${path}`, {
      method: "POST",
      headers: {...user, "Content-Type": "application/json", ...headers},
      body: typeof body === "string" ? body : JSON.stringify(body),
    });
    return {status: response.status, type: response.headers.get("content-type"), text: await response.text()};
  }

  /** The thread, null where the user has none of this id. */
  async thread(id = this.id, options = {}) {
    const {status, body} = await this.rest(`threads/${id}/`, options);
    return status === 200 ? body : null;
  }

  history = async () => (await this.rest(`threads/${this.id}/messages/`)).body.results;
  stop = (id = this.id, options = {}) => this.rest(`chat/${id}/stop`, {method: "POST", body: {}, ...options});
  reachStatus = (status) => until(async () => (await this.thread())?.status === status, `status ${status}`, 40);

  /** Fail where the client does not have exactly the messages that are stored, or they are none for the AI SDK. */
  async assertStored(chat) {
    const stored = await this.history();
    assert.deepEqual(chat.messages.filter(({parts}) => parts.length > 0).map(shape), stored.map(shape));
    await this.sdk.validateUIMessages({messages: stored});
  }
}

/** A `fetch` that keeps what went over the wire. */
class Recorder {
  posts = [];
  responses = [];
  errors = [];
  finished = [];

  fetch = async (url, init) => {
    if (init.method === "POST") this.posts.push(JSON.parse(init.body));
    const response = await fetch(url, init);
    const entry = {status: response.status, headers: response.headers, text: "", ended: false};
    this.responses.push(entry);
    if (!response.body) return response;
    const decoder = new TextDecoder();
    const body = response.body.pipeThrough(
      new TransformStream({
        transform(bytes, controller) {
          entry.text += decoder.decode(bytes, {stream: true});
          controller.enqueue(bytes);
        },
        flush() {
          entry.ended = true;
        },
      }),
    );
    return new Response(body, response);
  };

  /** The chunks of a response, the last one by default. */
  chunks(index = -1) {
    return chunksIn(this.responses.at(index).text);
  }

  types = (index) => this.chunks(index).map(({type}) => type);
}

/** The chunks of a body in the format of the UI message stream. */
export function chunksIn(text) {
  const lines = text.split("\n").filter((line) => line.startsWith("data: ") && line !== "data: [DONE]");
  return lines.map((line) => JSON.parse(line.slice(6)));
}

/** What of a message must be alike in client and database. The ids of reasoning parts are a detail of one version. */
export function shape({id, role, parts}) {
  return {id, role, parts: JSON.parse(JSON.stringify(parts)).map(shapeOfPart)};
}

// The client keeps `canDecide` of a loaded message even after the decision. No chunk of the AI SDK can change it.
const shapeOfPart = ({id, approval: {canDecide, ...approval} = {}, ...part}) => ({
  ...part,
  ...(id && part.type !== "reasoning" && {id}),
  ...(approval.id && {approval}),
});

export const textOf = (message) => (message?.parts ?? []).flatMap(({type, text}) => (type === "text" ? [text] : [])).join("");
export const toolParts = (message) => message.parts.filter(({type}) => type.startsWith("tool-"));
export const typesOf = (message) => message.parts.map(({type}) => type);
/** So many words, no two alike. */
export const words = (count, name = "word") => Array.from({length: count}, (_, index) => `${name}-${index}`).join(" ");
