/**
 * Durable agents in the browser: one live store per thread, all of them over one websocket.
 *
 *     const client = createClient({url: "/agents/"});
 *     const thread = client.thread(id);
 *     thread.subscribe(() => render(thread.getSnapshot()));
 *     await thread.send("Hello");
 *
 * Five layers, each built only on those above it: `applyChunk` (one chunk into one message), `Transcript` (what the
 * server said about one thread, in order), `Link` (a connection that comes back), `ThreadStore` (a transcript kept live
 * over the link) and the client. No dependency, no build step; works under `script-src 'self'`.
 *
 * Parts and chunks are those of the AI SDK's UI message stream. Everything a message carries was written by a model, a
 * tool or a user: show it as text, never as markup.
 */

// ------------------------------------------------------------------------------------------------------------- Types

/**
 * One typed piece of a message: `text`, `reasoning`, `tool-<name>`, `step-start`, `file`, ...
 * @typedef {{type: string, [field: string]: any}} Part
 */

/**
 * One event from which parts are built: `text-delta`, `tool-input-available`, ...
 * @typedef {{type: string, [field: string]: any}} Chunk
 */

/**
 * @typedef {object} Message
 * @property {string} id
 * @property {string} role `user`, `assistant` or `system`
 * @property {Part[]} parts
 * @property {Record<string, any>} [metadata]
 * @property {number|null} [position] its place in the thread; null while it is queued or on its way
 * @property {string|null} [client_id] the id its sender gave it
 * @property {string} [created_at]
 * @property {number} [omitted] how many steps at its beginning are not loaded: `loadOlder` loads them
 * @property {"sending"|"failed"} [delivery] set only while the server has not taken the message
 * @property {Problem} [problem] why the delivery failed
 */

/** @typedef {{code: string, message: string}} Problem */

/** @typedef {{type: string, [field: string]: any}} Frame One JSON object on the wire, either way. */

/**
 * @typedef {object} Connection
 * @property {"idle"|"connecting"|"open"|"waiting"|"offline"|"closed"} state `waiting`: it broke and will be tried
 *   again; `offline`: the browser has no network; `closed`: it will not be tried again by itself
 * @property {number|null} retryAt when the next try is due, in milliseconds since the epoch
 * @property {"unauthorized"|"forbidden"|"outdated"|"malformed"|"too_large"|"closed"|null} reason why it is `closed`
 */

/**
 * What is known about a thread now. The same object until something changes; unchanged messages stay the same objects.
 * @typedef {object} Snapshot
 * @property {string} threadId
 * @property {Message[]} messages oldest first; queued and unsent ones last
 * @property {string|null} status null until the first answer of the server
 * @property {string} title
 * @property {number} rev
 * @property {Problem|null} error why the thread failed
 * @property {Record<string, any>|null} retry what is about to be tried again
 * @property {boolean} hasOlder whether `loadOlder` has something to load
 * @property {boolean} isLoading
 * @property {boolean} isRunning
 * @property {boolean} isStopping a stop was asked for and has not been answered
 * @property {boolean} isComplete
 * @property {boolean} isFailed
 * @property {boolean} isStopped
 * @property {Problem|null} refused why the server will not show this thread
 * @property {Connection} connection
 */

/**
 * The seam to the network. `open` starts a connection and returns at once; `on.opened` is called when frames may be
 * sent, `on.frame` for each frame received, `on.closed` once at the end. Codes are those of websockets.
 * @typedef {object} Transport
 * @property {(on: {opened: () => void, frame: (frame: Frame) => void, closed: (end: Closing) => void}) => Wire} open
 */

/** @typedef {{name: string, description: string, kind: string, needs_approval: boolean}} AgentTool */
/** @typedef {{name: string, description: string, tools: AgentTool[]}} Agent */
/** @typedef {{send: (text: string) => void, close: () => void}} Wire */
/** @typedef {{code: number, reason: string}} Closing */

/**
 * @typedef {object} ClientOptions
 * @property {string} [url] where the HTTP API is mounted; default `/agents/`
 * @property {string} [socketUrl] the websocket; default `/ws/agents/` on the host of `url`
 * @property {string | (() => string)} [csrf] the CSRF token; default the cookie `csrftoken`
 * @property {Record<string, string> | (() => Record<string, string>)} [headers] sent with each HTTP request
 * @property {typeof WebSocket} [WebSocket]
 * @property {typeof fetch} [fetch]
 */

const PROTOCOL = "durable-agents.v1";
const VERSION = 1;

/** A request that was refused, or that the connection did not live to see answered. */
export class DurableAgentsError extends Error {
  /**
   * @param {string} code stable, as in the API
   * @param {string} message
   * @param {{retryable?: boolean, status?: number|null}} [facts]
   */
  constructor(code, message, {retryable = false, status = null} = {}) {
    super(message);
    this.name = "DurableAgentsError";
    this.code = code;
    this.retryable = retryable;
    this.status = status;
  }
}

// ----------------------------------------------------------------------------------------------------------- Reducer

/**
 * Which chunk id is writing a part. Kept beside the parts because ids are no part of a stored message.
 * @type {WeakMap<Part, string>}
 */
const writers = new WeakMap();

/**
 * The message after one chunk: the one reducer that everything here uses.
 *
 * Pure: `message` is never changed and parts that the chunk does not touch stay the same objects. A chunk of an unknown
 * type, or one that means nothing to a stored message (`error`, `abort`, transient data), gives `message` itself. A
 * delta whose id is unknown continues the last open part of its kind that nobody writes, as after a snapshot.
 *
 * @param {Message} message
 * @param {Chunk} chunk
 * @returns {Message}
 */
export function applyChunk(message, chunk) {
  const rule = RULES.get(chunk.type);
  if (rule) return rule(message, chunk);
  return chunk.type.startsWith("data-") && !chunk.transient ? putData(message, chunk) : message;
}

const SOURCE_FIELDS = ["type", "sourceId", "url", "title", "providerMetadata"];
const DOCUMENT_FIELDS = ["type", "sourceId", "mediaType", "title", "filename", "providerMetadata"];

/** @type {Map<string, (message: Message, chunk: Chunk) => Message>} */
const RULES = new Map([
  ["start", begin],
  ["finish", mergeMetadata],
  ["message-metadata", mergeMetadata],
  ["start-step", (message) => append(message, {type: "step-start"})],
  ["text-start", (message, chunk) => beginText(message, "text", chunk)],
  ["text-delta", (message, chunk) => growText(message, "text", chunk)],
  ["text-end", (message, chunk) => endText(message, "text", chunk)],
  ["reasoning-start", (message, chunk) => beginText(message, "reasoning", chunk)],
  ["reasoning-delta", (message, chunk) => growText(message, "reasoning", chunk)],
  ["reasoning-end", (message, chunk) => endText(message, "reasoning", chunk)],
  ["tool-input-start", (message, chunk) => putTool(message, chunk, "input-streaming", {})],
  ["tool-input-delta", growToolInput],
  ["tool-input-available", (message, chunk) => putTool(message, chunk, "input-available", {input: chunk.input})],
  ["tool-input-error", (message, chunk) => putTool(message, chunk, "output-error", brokenInput(chunk))],
  ["tool-approval-request", (message, chunk) => putTool(message, chunk, "approval-requested", approval(chunk))],
  ["tool-approval-response", decideTool],
  ["tool-output-available", (message, chunk) => putTool(message, chunk, "output-available", output(chunk))],
  ["tool-output-error", (message, chunk) => putTool(message, chunk, "output-error", {errorText: chunk.errorText})],
  ["tool-output-denied", (message, chunk) => putTool(message, chunk, "output-denied", {})],
  ["file", (message, chunk) => append(message, pick(chunk, "type", "mediaType", "url", "providerMetadata"))],
  ["source-url", (message, chunk) => append(message, pick(chunk, ...SOURCE_FIELDS))],
  ["source-document", (message, chunk) => append(message, pick(chunk, ...DOCUMENT_FIELDS))],
]);

/** @type {(message: Message, part: Part) => Message} */
const append = (message, part) => ({...message, parts: [...message.parts, part]});

/** @type {(message: Message, index: number, part: Part) => Message} */
const replaceAt = (message, index, part) => ({...message, parts: message.parts.with(index, part)});

/** @type {(chunk: Chunk, ...names: string[]) => any} */
const pick = (chunk, ...names) =>
  Object.fromEntries(names.filter((name) => chunk[name] != null).map((name) => [name, chunk[name]]));

/** @type {(message: Message, chunk: Chunk) => Message} */
function begin(message, chunk) {
  return mergeMetadata(chunk.messageId ? {...message, id: chunk.messageId} : message, chunk);
}

/** @type {(message: Message, chunk: Chunk) => Message} */
function mergeMetadata(message, chunk) {
  if (chunk.messageMetadata == null) return message;
  return {...message, metadata: merged(message.metadata ?? {}, chunk.messageMetadata)};
}

/**
 * Deep merge of JSON values. Builds with `fromEntries`, so a hostile `__proto__` key stays a plain key.
 * @param {any} before
 * @param {any} after
 * @returns {any}
 */
function merged(before, after) {
  if (!isRecord(before) || !isRecord(after)) return after;
  const known = new Map(Object.entries(before));
  const changed = Object.entries(after).map(([key, value]) => [key, merged(known.get(key), value)]);
  return Object.fromEntries([...known, ...changed]);
}

/** @type {(value: any) => boolean} */
const isRecord = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

/** @type {(message: Message, kind: string, chunk: Chunk) => Message} */
function beginText(message, kind, chunk) {
  const part = {type: kind, text: "", ...pick(chunk, "providerMetadata"), state: "streaming"};
  writers.set(part, chunk.id);
  return append(message, part);
}

/** @type {(message: Message, kind: string, chunk: Chunk) => Message} */
function growText(message, kind, chunk) {
  const index = openText(message, kind, chunk.id);
  if (index < 0) return growText(beginText(message, kind, chunk), kind, chunk);
  const part = message.parts[index];
  const grown = {...part, text: part.text + chunk.delta, ...pick(chunk, "providerMetadata")};
  writers.set(grown, chunk.id);
  return replaceAt(message, index, grown);
}

/** @type {(message: Message, kind: string, chunk: Chunk) => Message} */
function endText(message, kind, chunk) {
  const index = openText(message, kind, chunk.id);
  if (index < 0) return message;
  return replaceAt(message, index, {...message.parts[index], ...pick(chunk, "providerMetadata"), state: "done"});
}

/** @type {(message: Message, kind: string, id: string) => number} */
function openText(message, kind, id) {
  const isOpen = (/** @type {Part} */ part) => part.type === kind && part.state === "streaming";
  const mine = message.parts.findLastIndex((part) => isOpen(part) && writers.get(part) === id);
  return mine >= 0 ? mine : message.parts.findLastIndex((part) => isOpen(part) && !writers.has(part));
}

/**
 * The message with one tool part moved on: `fields` replace what the part held, except its input where they name none.
 * @type {(message: Message, chunk: Chunk, state: string, fields: Record<string, any>) => Message}
 */
function putTool(message, chunk, state, fields) {
  const index = message.parts.findLastIndex((part) => part.toolCallId === chunk.toolCallId);
  if (index < 0 && !chunk.toolName) return message;
  const before = message.parts[index] ?? newTool(chunk);
  const {output: _output, errorText: _error, preliminary: _preliminary, rawInput: _raw, ...known} = before;
  const facts = pick(chunk, "title", "toolMetadata", "providerExecuted");
  const part = {...known, ...facts, ...toolMetadata(chunk, state), state, ...fields};
  return index < 0 ? append(message, part) : replaceAt(message, index, part);
}

/** @type {(message: Message, chunk: Chunk) => Message} */
function decideTool(message, chunk) {
  const index = message.parts.findLastIndex((part) => part.approval?.id === chunk.approvalId);
  if (index < 0) return message;
  const part = message.parts[index];
  const decided = {...part.approval, ...pick(chunk, "approved", "reason")};
  return replaceAt(message, index, {...part, state: "approval-responded", approval: decided});
}

/** @type {(chunk: Chunk, state: string) => Record<string, any>} */
function toolMetadata({providerMetadata}, state) {
  if (providerMetadata == null) return {};
  const isOutcome = state === "output-available" || state === "output-error";
  return {[isOutcome ? "resultProviderMetadata" : "callProviderMetadata"]: providerMetadata};
}

/** @type {(chunk: Chunk) => Part} */
function newTool(chunk) {
  const kind = chunk.dynamic ? {type: "dynamic-tool", toolName: chunk.toolName} : {type: `tool-${chunk.toolName}`};
  return {...kind, toolCallId: chunk.toolCallId};
}

/** @type {(message: Message, chunk: Chunk) => Message} */
function growToolInput(message, chunk) {
  const index = message.parts.findLastIndex((part) => part.toolCallId === chunk.toolCallId);
  const part = message.parts[index];
  // Folded by the server, the raw text so far is not known: the input comes whole with tool-input-available.
  if (part?.state !== "input-streaming" || (part.rawInput === undefined && part.input !== undefined)) return message;
  const rawInput = (part.rawInput ?? "") + chunk.inputTextDelta;
  const input = parsePartialJson(rawInput) ?? part.input;
  return replaceAt(message, index, {...part, rawInput, ...(input === undefined ? {} : {input})});
}

/** @type {(chunk: Chunk) => Record<string, any>} */
const brokenInput = (chunk) => ({
  ...(chunk.dynamic ? {input: chunk.input} : {input: undefined, rawInput: chunk.input}),
  errorText: chunk.errorText,
});

/** @type {(chunk: Chunk) => Record<string, any>} */
const approval = (chunk) => ({approval: {id: chunk.approvalId}});

/** @type {(chunk: Chunk) => Record<string, any>} */
const output = (chunk) => ({output: chunk.output, ...pick(chunk, "preliminary")});

/** @type {(message: Message, chunk: Chunk) => Message} */
function putData(message, chunk) {
  const isSame = (/** @type {Part} */ part) => part.type === chunk.type && part.id === chunk.id;
  const index = chunk.id == null ? -1 : message.parts.findIndex(isSame);
  if (index < 0) return append(message, {...chunk});
  return replaceAt(message, index, {...message.parts[index], data: chunk.data});
}

/**
 * What the beginning of a JSON text says so far, or undefined while it says nothing.
 * @param {string} text
 * @returns {any}
 */
export function parsePartialJson(text) {
  const shortest = Math.max(0, text.length - 64); // bounds the work where a long key or literal is being written
  for (let end = text.length; end > shortest; end--) {
    const head = text.slice(0, end);
    try {
      return JSON.parse(head + closersOf(head));
    } catch {
      continue;
    }
  }
  return undefined;
}

/** @type {(text: string) => string} */
function closersOf(text) {
  let closers = "";
  let inString = false;
  for (let index = 0; index < text.length; index++) {
    const character = text[index];
    if (inString && character === "\\") index++;
    else if (character === '"') inString = !inString;
    else if (!inString && character === "{") closers = "}" + closers;
    else if (!inString && character === "[") closers = "]" + closers;
    else if (!inString && (character === "}" || character === "]")) closers = closers.slice(1);
  }
  return (inString ? '"' : "") + closers;
}

// -------------------------------------------------------------------------------------------------------- Transcript

const RUNNING = new Set(["streaming", "awaiting_tool_results"]);
const HELD_DELTAS = 64;

/** How the status of a tool call shows in its part. @type {Record<string, string>} */
const TOOL_STATES = {
  approval_requested: "approval-requested",
  pending: "input-available",
  running: "input-available",
  completed: "output-available",
  failed: "output-error",
  expired: "output-error",
  cancelled: "output-error",
  unknown: "output-error",
  denied: "output-denied",
};

/**
 * A run of parts of one message: what one stream wrote (`open` while only its deltas are known), or with `stream` null
 * what came whole.
 * @typedef {{stream: string|null, parts: Part[], open: boolean}} Segment
 */

/** @typedef {{message: Message, segments: Segment[], view: Message|null}} Entry */
/** @typedef {{message: string, next: number, held: Map<number, Chunk[]>}} StreamState */

/**
 * What the server said about one thread, put in order: rows by `rev`, deltas by (stream, seq). No clock, no network.
 *
 * Each message is a list of segments. The deltas of a stream write an open segment; the committed step replaces it; an
 * attempt that is given up takes its segment with it. So an answer stands once, however often it was tried.
 */
export class Transcript {
  constructor() {
    this.loaded = false;
    this.rev = 0;
    this.snapshotRev = 0;
    /** @type {string|null} */
    this.status = null;
    this.title = "";
    /** @type {Problem|null} */
    this.error = null;
    /** @type {Record<string, any>|null} */
    this.retry = null;
    this.hasOlder = false;
    /** @type {Map<string, Entry>} */
    this.entries = new Map();
    /** @type {Map<string, StreamState>} */
    this.streams = new Map();
    /** @type {Set<string>} */
    this.ended = new Set();
    /** @type {Map<string, Message>} */
    this.drafts = new Map();
  }

  get isRunning() {
    return this.status !== null && RUNNING.has(this.status);
  }

  /** The messages as they are shown, oldest first. Unchanged ones are the same objects as before. */
  messages() {
    const shown = [...this.entries.values()].sort((one, other) => placeOf(one) - placeOf(other)).map(viewOf);
    return [...shown, ...this.drafts.values()];
  }

  /** Where to go on from after the connection broke, or null when there is nothing to go on from. */
  cursor() {
    if (!this.loaded) return null;
    const [stream, state] = [...this.streams].at(-1) ?? ["", null];
    return {rev: this.rev, stream, seq: state ? state.next - 1 : -1};
  }

  /**
   * Takes a frame that carries a `rev`. Returns false for one that was seen before, or that the snapshot contains.
   * @param {Frame} frame of type step, tool, message, stream, thread or removed
   */
  commit(frame) {
    if (frame.rev < this.rev || frame.rev <= this.snapshotRev) return false;
    this.rev = frame.rev;
    COMMITS.get(frame.type)?.(this, frame);
    return true;
  }

  /**
   * Replaces everything by a snapshot. Messages that the server has not taken yet stay.
   * @param {Frame} frame
   */
  reset(frame) {
    const before = this.entries;
    this.entries = new Map();
    this.streams = new Map();
    for (const message of frame.messages) {
      this.entries.set(message.id, keepUnchanged(before.get(message.id), entryOf(message)));
      this.#settleDraft(message);
    }
    for (const open of frame.streams ?? []) this.#reopen(open);
    this.hasOlder = Boolean(frame.hasOlder);
    this.loaded = true;
    this.rev = this.snapshotRev = frame.rev;
    this.setThread(frame);
  }

  /** @param {{stream: string, message: string, seq: number}} open */
  #reopen({stream, message, seq}) {
    const entry = this.entry(message);
    const parts = entry.segments.flatMap((segment) => segment.parts);
    const start = seq >= 0 ? parts.findLastIndex((part) => part.type === "step-start") : -1;
    const [committed, open] = start < 0 ? [parts, []] : [parts.slice(0, start), parts.slice(start)];
    entry.segments = [
      {stream: null, parts: committed, open: false},
      {stream, parts: open, open: true},
    ];
    entry.view = null;
    this.ended.delete(stream);
    this.streams.set(stream, {message, next: seq + 1, held: new Map()});
  }

  /**
   * Takes one delta: each once and in order, whatever the order they come in.
   * @param {{stream: string, message?: string, seq: number, chunks: Chunk[]}} delta
   * @returns {"applied"|"dropped"|"held"|"overflow"} `held`: one before it is missing; `overflow`: too many are held
   */
  delta({stream, message, seq, chunks}) {
    if (this.ended.has(stream)) return "dropped";
    const state = this.#stream(stream, message);
    if (!state || seq < state.next) return "dropped";
    state.held.set(seq, chunks);
    if (seq > state.next) return state.held.size > HELD_DELTAS ? "overflow" : "held";
    this.#release(stream, state);
    return "applied";
  }

  /** @param {string} stream @param {string} [message] */
  #stream(stream, message) {
    const known = this.streams.get(stream);
    if (known || !message) return known;
    const state = {message, next: 0, held: new Map()};
    this.streams.set(stream, state);
    return state;
  }

  /** @param {string} stream @param {StreamState} state */
  #release(stream, state) {
    const entry = this.entry(state.message);
    let segment = entry.segments.find((candidate) => candidate.stream === stream);
    if (!segment) entry.segments.push((segment = {stream, parts: [], open: true}));
    for (let chunks = state.held.get(state.next); chunks; chunks = state.held.get(state.next)) {
      state.held.delete(state.next++);
      for (const chunk of chunks) writeChunk(entry, segment, chunk);
    }
    entry.view = null;
  }

  /**
   * The deltas that are missing between what is shown and what is held.
   * @returns {{stream: string, from: number, to: number}[]}
   */
  gaps() {
    const waiting = [...this.streams].filter(([, state]) => state.held.size > 0);
    return waiting.map(([stream, {next, held}]) => ({stream, from: next, to: Math.min(...held.keys()) - 1}));
  }

  /** Forgets the deltas that came too early: after a new subscription the server sends them again. */
  dropHeld() {
    for (const state of this.streams.values()) state.held.clear();
  }

  /**
   * Takes a page of earlier messages, and of earlier steps of one that is shown; positions put messages in place.
   * @param {Message[]} messages
   * @param {boolean} hasOlder
   */
  addOlder(messages, hasOlder) {
    for (const message of messages) {
      const known = this.entries.get(message.id);
      if (known) putBefore(known, message);
      else this.entries.set(message.id, entryOf(message));
    }
    this.hasOlder = hasOlder;
  }

  /**
   * Inserts a message or replaces the one with its id. An answer comes without parts: its steps bring them.
   * @param {Message} message
   */
  put(message) {
    const known = this.entries.get(message.id);
    const isWhole = message.parts.length > 0;
    const omitted = isWhole ? undefined : known?.message.omitted;
    const entry = entryOf(omitted ? {...message, omitted} : message);
    entry.segments.push(...(known?.segments ?? []).filter((segment) => segment.open || !isWhole));
    this.entries.set(message.id, entry);
    this.#settleDraft(message);
  }

  /** Takes the message a send was answered with, unless a frame has brought it already. @param {Message} message */
  acknowledge(message) {
    if (this.entries.has(message.id)) this.#settleDraft(message);
    else this.put(message);
  }

  /** Shows a user message that the server has not taken yet. @param {string} id @param {Part[]} parts */
  draft(id, parts) {
    if (this.entries.has(id)) return;
    this.drafts.set(id, {id, client_id: id, role: "user", parts, position: null, delivery: "sending"});
  }

  /** @param {string} id @param {Problem} problem */
  failDraft(id, problem) {
    const draft = this.drafts.get(id);
    if (draft) this.drafts.set(id, {...draft, delivery: "failed", problem});
  }

  /** @param {Message} message */
  #settleDraft(message) {
    this.drafts.delete(message.id);
    if (message.client_id) this.drafts.delete(message.client_id);
  }

  /** The entry of a message; an empty answer where its own frame has not come yet. @param {string} id */
  entry(id) {
    const known = this.entries.get(id);
    if (known) return known;
    const entry = entryOf({id, role: "assistant", parts: [], position: null});
    this.entries.set(id, entry);
    return entry;
  }

  /** @param {string} stream */
  end(stream) {
    this.ended.add(stream);
    this.streams.delete(stream);
  }

  /** @param {Frame} frame of a snapshot or of type thread */
  setThread({status, title, error, retry}) {
    this.status = status;
    this.title = title ?? this.title;
    this.error = error ?? null;
    this.retry = retry ?? null;
  }
}

/** What each durable change does. @type {Map<string, (transcript: Transcript, frame: Frame) => void>} */
const COMMITS = new Map([
  ["step", commitStep],
  ["tool", patchTool],
  ["message", (transcript, frame) => transcript.put(frame.message)],
  ["stream", endStream],
  ["thread", (transcript, frame) => transcript.setThread(frame)],
  ["removed", (transcript, frame) => frame.ids.forEach((/** @type {string} */ id) => transcript.entries.delete(id))],
]);

/** @type {(transcript: Transcript, frame: Frame) => void} */
function commitStep(transcript, {message, stream, parts}) {
  transcript.end(stream);
  const entry = transcript.entry(message);
  const committed = {stream, parts, open: false};
  const written = entry.segments.findIndex((segment) => segment.stream === stream);
  const open = entry.segments.findIndex((segment) => segment.open);
  if (written >= 0) entry.segments[written] = committed;
  else entry.segments.splice(open < 0 ? entry.segments.length : open, 0, committed);
  entry.view = null;
}

/** @type {(transcript: Transcript, frame: Frame) => void} */
function endStream(transcript, {stream, status}) {
  transcript.end(stream);
  if (status === "finished") return;
  for (const entry of transcript.entries.values()) {
    const kept = entry.segments.filter((segment) => segment.stream !== stream || !segment.open);
    if (kept.length === entry.segments.length) continue;
    entry.segments = kept;
    entry.view = null;
  }
}

/** @type {(transcript: Transcript, frame: Frame) => void} */
function patchTool(transcript, frame) {
  const isMine = (/** @type {Part} */ part) => part.toolCallId === frame.tool_call_id;
  for (const entry of transcript.entries.values()) {
    for (const segment of entry.segments.filter(({parts}) => parts.some(isMine))) {
      segment.parts = segment.parts.map((part) => (isMine(part) ? patchedTool(part, frame) : part));
      entry.view = null;
    }
  }
}

/** @type {(part: Part, frame: Frame) => Part} */
function patchedTool(part, {status, tool_call_id: id, output: result, error, progress, approval: decided}) {
  const {output: _output, errorText: _error, progress: _progress, approval: _approval, ...rest} = part;
  const state = TOOL_STATES[status] ?? part.state;
  const known = {...rest, state, ...approvalOf(state, decided ?? {id})};
  if (state === "output-available") return {...known, output: result ?? null};
  if (state === "output-error") return {...known, errorText: error || "The tool call failed."};
  if (state === "input-available" && progress !== undefined) return {...known, progress};
  return known;
}

/** @type {(state: string, approval: {id: string, approved?: boolean}) => Record<string, any>} */
function approvalOf(state, approval) {
  if (state === "approval-requested" || approval.approved !== undefined) return {approval};
  return state === "output-denied" ? {approval: {...approval, approved: false}} : {};
}

/** @type {(entry: Entry, segment: Segment, chunk: Chunk) => void} */
function writeChunk(entry, segment, chunk) {
  const after = applyChunk({...entry.message, parts: segment.parts}, chunk);
  segment.parts = after.parts;
  if (after.metadata) entry.message = {...entry.message, metadata: after.metadata};
}

/** @type {(message: Message) => Entry} */
const entryOf = (message) => ({message, segments: [{stream: null, parts: message.parts, open: false}], view: null});

/**
 * Puts earlier steps of a message in front of those that are shown, if they are the ones right before them.
 * @type {(entry: Entry, earlier: Message) => void}
 */
function putBefore(entry, {parts, omitted = 0}) {
  const {omitted: missing, ...message} = entry.message;
  const steps = parts.filter(({type}, index) => index === 0 || type === "step-start").length;
  if (omitted + steps !== missing) return;
  entry.message = omitted ? {...message, omitted} : message;
  entry.segments.unshift({stream: null, parts, open: false});
  entry.view = null;
}

/** @type {(entry: Entry) => number} */
const placeOf = (entry) => entry.message.position ?? Number.MAX_SAFE_INTEGER;

/** @type {(entry: Entry) => Message} */
function viewOf(entry) {
  entry.view ??= {...entry.message, parts: entry.segments.flatMap((segment) => segment.parts)};
  return entry.view;
}

/** @type {(before: Entry|undefined, after: Entry) => Entry} */
function keepUnchanged(before, after) {
  if (before && JSON.stringify(viewOf(before)) === JSON.stringify(viewOf(after))) after.view = viewOf(before);
  return after;
}

// -------------------------------------------------------------------------------------------------------------- Link

const BACKOFF_MS = 500;
const BACKOFF_CAP_MS = 30_000;
const STABLE_MS = 10_000;
const HANDSHAKE_MS = 10_000;
const PROBE_MS = 5_000;
const PATIENT_TRIES = 7; // a hidden page gives up after these until somebody looks at it

/** Close codes after which trying again cannot help. @type {Map<number, Connection["reason"]>} */
const FINAL = new Map([
  [1000, "closed"],
  [1009, "too_large"],
  [4400, "malformed"],
  [4401, "unauthorized"],
  [4403, "forbidden"],
  [4406, "outdated"],
]);
const TOO_SLOW = 4408;
const TOO_MANY = 4429;

/**
 * @typedef {object} Pending
 * @property {Frame} frame
 * @property {boolean} durable
 * @property {(reply: Frame) => void} resolve
 * @property {(error: DurableAgentsError) => void} reject
 */

/** @typedef {ReturnType<typeof setTimeout>|undefined} Timer */

/**
 * @typedef {object} Listener a store on a link
 * @property {string} id
 * @property {(afresh: boolean) => void} onOpen frames may be sent; `afresh`: the server wants no cursor
 * @property {(frame: Frame) => void} onFrame
 * @property {() => void} onConnection
 */

/** @type {(url: string, Socket: typeof WebSocket) => Transport} */
const socketTransport = (url, Socket) => ({
  open(on) {
    const socket = new Socket(url, PROTOCOL);
    socket.onopen = on.opened;
    socket.onclose = ({code, reason}) => on.closed({code, reason});
    socket.onmessage = ({data}) => on.frame(JSON.parse(data));
    return {send: (text) => socket.send(text), close: () => socket.close(1000)};
  },
});

/** What the page knows about itself; a worker or a test without a page counts as visible and online. */
const page = {
  isHidden: () => globalThis.document?.visibilityState === "hidden",
  isOnline: () => globalThis.navigator?.onLine !== false,
  /** @param {() => void} wake @param {() => void} sleep */
  listen(wake, sleep) {
    const ending = new AbortController();
    const {signal} = ending;
    const onVisible = () => void (page.isHidden() || wake());
    globalThis.addEventListener?.("online", wake, {signal});
    globalThis.addEventListener?.("offline", sleep, {signal});
    globalThis.document?.addEventListener("visibilitychange", onVisible, {signal});
    return () => ending.abort();
  },
};

/**
 * One connection to the server that comes back by itself, and the requests that wait for it.
 *
 * A durable request (a command) is sent again, with the same key, until it is answered; any other fails when the
 * connection breaks. The wait between tries is random up to a limit that doubles: a crowd does not return at once.
 */
class Link {
  /** @type {Connection} */
  connection = Object.freeze({state: "idle", retryAt: null, reason: null});
  /** @type {Set<Listener>} */
  #listeners = new Set();
  /** @type {Set<() => void>} */
  #watchers = new Set();
  /** @type {Map<string, Pending>} */
  #pending = new Map();
  /** @type {Wire|null} */
  #wire = null;
  #tries = 0;
  #serial = 0;
  #afresh = false;
  #frameLimit = Infinity;
  #heartbeatMs = 25_000;
  /** @type {Record<"retry"|"beat"|"stable"|"deadline", Timer>} */
  #timers = {retry: undefined, beat: undefined, stable: undefined, deadline: undefined};
  /** @type {(() => void)|null} */
  #unlisten = null;
  #transport;

  /** @param {Transport} transport */
  constructor(transport) {
    this.#transport = transport;
  }

  /** @param {Listener} listener */
  attach(listener) {
    this.#listeners.add(listener);
    if (this.connection.state === "idle") this.connect();
    else if (this.connection.state === "open") listener.onOpen(false);
  }

  /** @param {Listener} listener */
  detach(listener) {
    if (!this.#listeners.delete(listener) || this.connection.state !== "open") return;
    this.#sendFrame({type: "unsubscribe", id: this.#nextId(), thread: listener.id});
  }

  /** @param {() => void} watcher @returns {() => void} */
  watch = (watcher) => {
    this.#watchers.add(watcher);
    return () => void this.#watchers.delete(watcher);
  };

  /**
   * Sends a request and gives the server's answer. Rejects with DurableAgentsError.
   * @param {Frame} frame without `id`
   * @param {{durable?: boolean}} [options]
   * @returns {Promise<Frame>}
   */
  request(frame, {durable = false} = {}) {
    const {state, reason} = this.connection;
    if (state === "closed") return Promise.reject(disconnected(reason ?? "closed"));
    if (state !== "open" && !durable) return Promise.reject(disconnected("disconnected"));
    const id = this.#nextId();
    return new Promise((resolve, reject) => {
      this.#pending.set(id, {frame: {...frame, id}, durable, resolve, reject});
      if (state === "open") this.#transmit(id);
    });
  }

  /** Connects now, also after the connection was closed for good. */
  connect() {
    clearTimeout(this.#timers.retry);
    this.#unlisten ??= page.listen(() => this.#wake(), () => this.#sleep());
    if (!page.isOnline()) return this.#publish("offline");
    this.#abandon();
    this.#publish("connecting");
    this.#expectFrame(HANDSHAKE_MS);
    this.#open();
  }

  close() {
    this.#unlisten?.();
    this.#unlisten = null;
    this.#finish("closed");
  }

  #open() {
    const isCurrent = () => this.#wire === wire;
    const wire = this.#transport.open({
      opened: () => isCurrent() && this.#sendFrame({type: "hello", version: VERSION}),
      frame: (frame) => isCurrent() && this.#receive(frame),
      closed: (end) => isCurrent() && this.#lost(end),
    });
    this.#wire = wire;
  }

  /** @param {Frame} frame */
  #receive(frame) {
    clearTimeout(this.#timers.deadline);
    this.#timers.deadline = undefined;
    if (frame.type === "welcome") return this.#welcome(frame);
    for (const listener of this.#listeners) if (listener.id === frame.thread) listener.onFrame(frame);
    const pending = this.#pending.get(frame.id);
    if (!pending) return;
    this.#pending.delete(frame.id);
    if (frame.type === "error") pending.reject(refusal(frame));
    else pending.resolve(frame);
  }

  /** @param {Frame} frame */
  #welcome({heartbeat, limits}) {
    this.#heartbeatMs = (heartbeat ?? 25) * 1000;
    this.#frameLimit = limits?.frame ?? Infinity;
    this.#timers.stable = setTimeout(() => (this.#tries = 0), STABLE_MS);
    this.#timers.beat = setInterval(() => this.#ping(this.#heartbeatMs + PROBE_MS), this.#heartbeatMs);
    this.#publish("open");
    const afresh = this.#afresh;
    this.#afresh = false;
    for (const listener of this.#listeners) listener.onOpen(afresh);
    for (const [id, {durable}] of this.#pending) if (durable) this.#transmit(id);
  }

  /** @param {number} patienceMs */
  #ping(patienceMs) {
    this.#sendFrame({type: "ping", t: Date.now()});
    if (this.#timers.deadline === undefined) this.#expectFrame(patienceMs);
  }

  /** @param {number} patienceMs */
  #expectFrame(patienceMs) {
    clearTimeout(this.#timers.deadline);
    this.#timers.deadline = setTimeout(() => this.#lost({code: 1006, reason: "no answer"}), patienceMs);
  }

  /** @param {Closing} end */
  #lost({code, reason}) {
    this.#abandon();
    this.#failPending(({durable}) => !durable, disconnected("disconnected"));
    const final = FINAL.get(code);
    if (final) return this.#finish(final);
    this.#afresh ||= code === TOO_SLOW;
    if (!page.isOnline()) return this.#publish("offline");
    this.#retryLater(code === TOO_MANY && reason ? Number(reason) * 1000 : NaN);
  }

  /** @param {number} toldMs how long the server asked to wait, or NaN */
  #retryLater(toldMs) {
    const limit = Math.min(BACKOFF_CAP_MS, BACKOFF_MS * 2 ** this.#tries++);
    const waitMs = Number.isFinite(toldMs) ? toldMs : Math.random() * limit;
    if (page.isHidden() && this.#tries > PATIENT_TRIES) return this.#publish("waiting");
    this.#timers.retry = setTimeout(() => this.connect(), waitMs);
    this.#publish("waiting", {retryAt: Date.now() + waitMs});
  }

  /** The network or the reader is back. */
  #wake() {
    const {state} = this.connection;
    if (state === "open") this.#probe();
    else if (state === "waiting" || state === "offline") this.connect();
  }

  /** A laptop that slept holds a socket that only looks open: ask, and do not wait long for the answer. */
  #probe() {
    this.#sendFrame({type: "ping", t: Date.now()});
    this.#expectFrame(PROBE_MS);
  }

  #sleep() {
    if (this.connection.state === "waiting") {
      clearTimeout(this.#timers.retry);
      this.#publish("offline");
    }
  }

  /** Lets go of the wire; what still comes from it is ignored. */
  #abandon() {
    const wire = this.#wire;
    this.#wire = null;
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
    this.#timers.deadline = undefined;
    wire?.close();
  }

  /** @param {NonNullable<Connection["reason"]>} reason */
  #finish(reason) {
    this.#abandon();
    this.#publish("closed", {reason});
    this.#failPending(() => true, disconnected(reason));
  }

  /** @param {(pending: Pending) => boolean} isMeant @param {DurableAgentsError} error */
  #failPending(isMeant, error) {
    for (const [id, pending] of this.#pending) {
      if (!isMeant(pending)) continue;
      this.#pending.delete(id);
      pending.reject(error);
    }
  }

  /** @param {string} id */
  #transmit(id) {
    const pending = this.#pending.get(id);
    if (!pending) return;
    const text = JSON.stringify(pending.frame);
    // The server would close the connection over it, and sending it again would do so for ever.
    if (new TextEncoder().encode(text).length <= this.#frameLimit) return this.#wire?.send(text);
    this.#pending.delete(id);
    pending.reject(new DurableAgentsError("too_large", "This message is too large to send."));
  }

  /** @param {Frame} frame */
  #sendFrame(frame) {
    this.#wire?.send(JSON.stringify(frame));
  }

  #nextId() {
    return String(++this.#serial);
  }

  /** @param {Connection["state"]} state @param {Partial<Connection>} [facts] */
  #publish(state, {retryAt = null, reason = null} = {}) {
    this.connection = Object.freeze({state, retryAt, reason});
    for (const listener of this.#listeners) listener.onConnection();
    for (const watcher of this.#watchers) watcher();
  }
}

/** @type {(code: string) => DurableAgentsError} */
const disconnected = (code) =>
  new DurableAgentsError(code, "There is no connection to the server.", {retryable: code === "disconnected"});

/** @type {(frame: Frame) => DurableAgentsError} */
const refusal = ({code, message, retryable}) => new DurableAgentsError(code, message, {retryable});

// ------------------------------------------------------------------------------------------------------------- Store

const FILL_AFTER_MS = 150;
const FRAME_MS = 16;
const RESUBSCRIBE_MS = 1_000;

/**
 * Runs before the next paint. A hidden page never paints, so there a timer does.
 * @type {(run: () => void) => void}
 */
function beforePaint(run) {
  if (typeof requestAnimationFrame === "function" && !page.isHidden()) requestAnimationFrame(run);
  else setTimeout(run, FRAME_MS);
}

/** @type {() => string} */
function newId() {
  if (crypto.randomUUID) return crypto.randomUUID(); // absent on plain http except on localhost
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * One thread, kept live. `subscribe` and `getSnapshot` fit React's `useSyncExternalStore`; listeners are called at most
 * once per painted frame. It goes live with its first listener or command and stays so until `close`.
 */
class ThreadStore {
  /** @type {Set<() => void>} */
  #listeners = new Set();
  #transcript = new Transcript();
  /** @type {Snapshot|null} */
  #snapshot = null;
  /** @type {Problem|null} */
  #refused = null;
  #isStopping = false;
  #isAttached = false;
  #isSubscribing = false;
  #isScheduled = false;
  #refusals = 0;
  /** @type {Timer} */
  #fillTimer;
  /** @type {Timer} */
  #retryTimer;
  #link;
  #onClose;
  /** @type {Listener} */
  #listener;

  /** @param {string} id @param {Link} link @param {() => void} onClose */
  constructor(id, link, onClose) {
    this.id = id;
    this.#link = link;
    this.#onClose = onClose;
    this.#listener = {
      id,
      onOpen: (afresh) => this.#enter(afresh),
      onFrame: (frame) => this.#receive(frame),
      onConnection: () => this.#onConnection(),
    };
  }

  /**
   * Calls `listener` after each change. Returns the function that ends it.
   * @param {() => void} listener
   * @returns {() => void}
   */
  subscribe = (listener) => {
    this.#listeners.add(listener);
    this.#attach();
    return () => void this.#listeners.delete(listener);
  };

  /** What is known now: the same object until something changes. */
  getSnapshot = () => (this.#snapshot ??= this.#takeSnapshot());

  /**
   * Sends a user message. It shows at once with `delivery: "sending"`, and is sent again by itself after a lost
   * connection. Resolves with the stored message; rejects with DurableAgentsError, the message then shows as failed.
   * Send it again with its `clientId` to try once more: the server takes one message per id.
   *
   * @param {string} prompt
   * @param {{parts?: Part[], clientId?: string}} [options]
   * @returns {Promise<Message>}
   */
  send = async (prompt, {parts, clientId = newId()} = {}) => {
    const shown = parts ?? [{type: "text", text: prompt}];
    this.#transcript.draft(clientId, shown);
    this.#changed();
    try {
      const {message} = await this.#command("send", {client_id: clientId, ...(parts ? {parts} : {prompt})});
      this.#transcript.acknowledge(message);
      return message;
    } catch (error) {
      this.#transcript.failDraft(clientId, problemOf(error));
      throw error;
    } finally {
      this.#changed();
    }
  };

  /** Ends the run that is going on; what was said so far stays. Twice is once. @returns {Promise<void>} */
  stop = async () => {
    this.#isStopping = this.#transcript.isRunning;
    this.#changed();
    try {
      await this.#command("stop", {});
    } catch (error) {
      this.#isStopping = false;
      this.#changed();
      throw error;
    }
  };

  /** Goes on with a thread that failed or was stopped. @returns {Promise<void>} */
  resume = async () => void (await this.#command("resume", {}));

  /**
   * Says a message of the user's anew and has it answered; what came after it goes.
   * @param {string} messageId
   * @param {string | any[]} said a text, or parts
   * @returns {Promise<void>}
   */
  edit = async (messageId, said) =>
    void (await this.#command("edit", {message: messageId, ...(typeof said === "string" ? {prompt: said} : {parts: said})}));

  /**
   * Has the last answer made anew, or the one of this id, or of this question.
   * @param {string} [messageId]
   * @returns {Promise<void>}
   */
  regenerate = async (messageId) => void (await this.#command("regenerate", messageId === undefined ? {} : {message: messageId}));

  /**
   * Gives the result of a call that runs in the browser, or that somebody else answers. The first answer counts.
   * @param {string} toolCallId
   * @param {any} result any JSON value
   * @returns {Promise<void>}
   */
  addToolOutput = async (toolCallId, result) =>
    void (await this.#command("tool_output", {tool_call_id: toolCallId, output: result ?? null}));

  /**
   * Says that such a call failed, in words for the model.
   * @param {string} toolCallId
   * @param {string} error
   * @returns {Promise<void>}
   */
  addToolError = async (toolCallId, error) =>
    void (await this.#command("tool_output", {tool_call_id: toolCallId, error}));

  /**
   * Lets a call run that waits for approval, with other arguments than the model's where they are given.
   * @param {string} toolCallId
   * @param {{arguments?: Record<string, any>, reason?: string}} [decision]
   * @returns {Promise<void>}
   */
  approve = async (toolCallId, decision = {}) =>
    void (await this.#command("approve", {...decision, tool_call_id: toolCallId, approved: true}));

  /**
   * Does not let it run; the model is told why.
   * @param {string} toolCallId
   * @param {{reason?: string}} [decision]
   * @returns {Promise<void>}
   */
  reject = async (toolCallId, decision = {}) =>
    void (await this.#command("reject", {...decision, tool_call_id: toolCallId}));

  /**
   * Loads the messages before the oldest one shown, and first the steps that it lacks.
   * @param {number} [limit]
   * @returns {Promise<void>}
   */
  loadOlder = async (limit = 50) => {
    const oldest = this.#transcript.messages().find(({position}) => position != null);
    if (!oldest || !this.#transcript.hasOlder) return;
    const {position: before, omitted: steps} = oldest;
    await this.#link.request({type: "older", thread: this.id, before, limit, ...(steps ? {steps} : {})});
  };

  /** Ends the subscription. The store stays as it is and hears nothing more; `client.thread(id)` gives a new one. */
  close = () => {
    clearTimeout(this.#fillTimer);
    clearTimeout(this.#retryTimer);
    this.#listeners.clear();
    this.#link.detach(this.#listener);
    this.#onClose();
  };

  #attach() {
    if (this.#isAttached) return;
    this.#isAttached = true;
    this.#link.attach(this.#listener);
  }

  /** @param {string} type @param {Record<string, any>} fields */
  #command(type, fields) {
    this.#attach();
    return this.#link.request({type, thread: this.id, key: newId(), ...fields}, {durable: true});
  }

  /** @param {boolean} afresh without a cursor: ask for everything */
  #enter(afresh) {
    clearTimeout(this.#fillTimer);
    clearTimeout(this.#retryTimer);
    this.#fillTimer = undefined;
    this.#isSubscribing = true;
    this.#transcript.dropHeld();
    const cursor = afresh ? null : this.#transcript.cursor();
    const request = {type: "subscribe", thread: this.id, ...(cursor ? {cursor} : {})};
    this.#link.request(request).catch((error) => this.#onRefused(error));
  }

  /** @param {DurableAgentsError} error */
  #onRefused(error) {
    this.#isSubscribing = false;
    if (error.code === "disconnected") return; // the link comes back and calls onOpen
    if (error.retryable) {
      const waitMs = Math.min(BACKOFF_CAP_MS, RESUBSCRIBE_MS * 2 ** this.#refusals++);
      this.#retryTimer = setTimeout(() => this.#enter(false), waitMs);
      return;
    }
    this.#refused = problemOf(error);
    this.#changed();
  }

  #onConnection() {
    if (this.#link.connection.state !== "open") {
      clearTimeout(this.#fillTimer);
      clearTimeout(this.#retryTimer);
      this.#fillTimer = undefined;
      this.#isSubscribing = false;
    }
    this.#changed();
  }

  /** @param {Frame} frame */
  #receive(frame) {
    if (frame.type === "snapshot") this.#onSnapshot(frame);
    else if (frame.type === "resumed") this.#onSubscribed();
    else if (frame.type === "delta") this.#onDelta(frame);
    else if (frame.type === "deltas") this.#onFill(frame);
    else if (frame.type === "reset") this.#enter(true);
    else if (frame.type === "page") this.#transcript.addOlder(frame.messages, frame.hasOlder);
    else if (isUnasked(frame)) this.#refused = problemOf(frame);
    else if (frame.rev === undefined || !this.#transcript.commit(frame)) return;
    this.#isStopping &&= this.#transcript.isRunning;
    this.#changed();
  }

  /** @param {Frame} frame */
  #onSnapshot(frame) {
    this.#transcript.reset(frame);
    this.#onSubscribed();
  }

  #onSubscribed() {
    this.#isSubscribing = false;
    this.#refused = null;
    this.#refusals = 0;
  }

  /** @param {Frame} frame */
  #onDelta(frame) {
    const outcome = this.#transcript.delta(/** @type {any} */ (frame));
    if (outcome === "overflow") this.#startOver();
    else if (outcome === "held") this.#fillTimer ??= setTimeout(() => this.#fill(), FILL_AFTER_MS);
  }

  #fill() {
    this.#fillTimer = undefined;
    for (const gap of this.#transcript.gaps()) {
      const request = this.#link.request({type: "fill", thread: this.id, ...gap});
      request.catch((error) => error.code === "disconnected" || this.#startOver());
    }
  }

  /** @param {Frame} frame the answer to a fill; one that does not help is answered by starting over */
  #onFill({stream, deltas}) {
    const outcomes = deltas.map((/** @type {any} */ delta) => this.#transcript.delta({stream, ...delta}));
    const isStuck = this.#transcript.gaps().some((gap) => gap.stream === stream);
    if (isStuck && outcomes.includes("applied")) this.#fill();
    else if (isStuck) this.#startOver();
  }

  #startOver() {
    if (!this.#isSubscribing) this.#enter(true);
  }

  #changed() {
    this.#snapshot = null;
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    beforePaint(() => this.#notify());
  }

  #notify() {
    this.#isScheduled = false;
    for (const listener of [...this.#listeners]) listener();
  }

  /** @returns {Snapshot} */
  #takeSnapshot() {
    const {loaded, rev, status, title, error, retry, hasOlder, isRunning} = this.#transcript;
    return Object.freeze({
      threadId: this.id,
      messages: this.#transcript.messages(),
      status,
      title,
      rev,
      error,
      retry,
      hasOlder,
      isLoading: !loaded && !this.#refused,
      isRunning,
      isStopping: this.#isStopping,
      isComplete: status === "completed",
      isFailed: status === "failed",
      isStopped: status === "stopped",
      refused: this.#refused,
      connection: this.#link.connection,
    });
  }
}

/** An error that answers no request says that the thread is gone. @type {(frame: Frame) => boolean} */
const isUnasked = ({type, id}) => type === "error" && id == null;

/** @type {(error: any) => Problem} */
const problemOf = (error) => ({code: error.code ?? "unknown", message: error.message});

// ------------------------------------------------------------------------------------------------------------ Client

/**
 * A client of one server. It connects with its first live thread; `close` ends everything.
 * @param {ClientOptions} [options]
 */
export function createClient(options = {}) {
  const {url = "/agents/", WebSocket: Socket = globalThis.WebSocket} = options;
  const base = new URL(url, globalThis.location?.href);
  const socketUrl = new URL(options.socketUrl ?? "/ws/agents/", base);
  socketUrl.protocol = socketUrl.protocol.replace("http", "ws");
  const link = new Link(socketTransport(socketUrl.href, Socket));
  /** @type {Map<string, ThreadStore>} */
  const stores = new Map();
  return {
    /** The store of a thread: the same one for the same id until it is closed. @param {string} id */
    thread(id) {
      const store = stores.get(id) ?? new ThreadStore(id, link, () => stores.delete(id));
      stores.set(id, store);
      return store;
    },
    connection: {subscribe: link.watch, getSnapshot: () => link.connection},
    connect: () => link.connect(),
    close() {
      for (const store of [...stores.values()]) store.close();
      link.close();
    },
    ...restApi(base, options),
  };
}

/**
 * The HTTP API. Every method rejects with DurableAgentsError.
 * @param {URL} base
 * @param {ClientOptions} options
 */
function restApi(base, options) {
  /** @type {(method: string, path: string, body?: object) => Promise<any>} */
  const call = (method, path, body) => callApi(options, method, new URL(path, base), body);
  return {
    /** The agents one may talk to, with their tools. @returns {Promise<Agent[]>} */
    listAgents: async () => (await call("GET", "agents/")).results,
    /**
     * One page of threads, the last changed first. Give `next` of a page as `page` for the one after it.
     * @param {{page?: string|null, limit?: number, agent?: string, status?: string, search?: string}} [filter]
     * @returns {Promise<{next: string|null, previous: string|null, results: Record<string, any>[]}>}
     */
    listThreads: ({page: next, ...filter} = {}) => call("GET", next ?? `threads/?${queryOf(filter)}`),
    /**
     * Creates a thread. With a `client_id` of yours it may be repeated: the same thread comes back.
     * @param {{agent: string, prompt?: string, parts?: Part[], client_id?: string, title?: string}} thread
     * @returns {Promise<Record<string, any>>}
     */
    createThread: (thread) => call("POST", "threads/", {client_id: newId(), ...thread}),
    /**
     * @param {string} id
     * @param {{title?: string, archived?: boolean, metadata?: object}} changes
     * @returns {Promise<Record<string, any>>}
     */
    updateThread: (id, changes) => call("PATCH", `threads/${encodeURIComponent(id)}/`, changes),
    /** @param {string} id @returns {Promise<void>} */
    deleteThread: (id) => call("DELETE", `threads/${encodeURIComponent(id)}/`),
  };
}

/** @type {(filter: Record<string, any>) => string} */
function queryOf(filter) {
  const given = Object.entries(filter).filter(([, value]) => value !== undefined);
  return new URLSearchParams(given.map(([key, value]) => [key, String(value)])).toString();
}

/** @type {(options: ClientOptions, method: string, url: URL, body?: object) => Promise<any>} */
async function callApi(options, method, url, body) {
  const send = options.fetch ?? globalThis.fetch;
  const own = typeof options.headers === "function" ? options.headers() : options.headers;
  const headers = new Headers({Accept: "application/json", ...own});
  if (method !== "GET") headers.set("X-CSRFToken", csrfToken(options.csrf));
  if (body) headers.set("Content-Type", "application/json");
  const request = {method, headers, body: body && JSON.stringify(body)};
  const response = await send(url, {...request, credentials: "same-origin"}).catch(() => {
    throw disconnected("disconnected");
  });
  return readAnswer(response);
}

/** @type {(response: Response) => Promise<any>} */
async function readAnswer(response) {
  const {status, ok} = response;
  if (status === 204) return undefined;
  const answer = await response.json().catch(() => null);
  if (ok && answer !== null) return answer;
  const {code = "unexpected_answer", detail = `The server answered ${status}, not as expected.`} = answer ?? {};
  throw new DurableAgentsError(code, detail, {status, retryable: status >= 500 || status === 429});
}

/** @type {(csrf: ClientOptions["csrf"]) => string} */
function csrfToken(csrf) {
  if (csrf !== undefined) return typeof csrf === "function" ? csrf() : csrf;
  return globalThis.document?.cookie.match(/(?:^|;\s*)csrftoken=([^;]+)/)?.[1] ?? "";
}
