/**
 * Durable agents in the browser: one live store per thread, all of them over one websocket.
 *
 *     const client = createClient({url: "/agents/"});
 *     const thread = client.thread(id);
 *     thread.subscribe(() => render(thread.getSnapshot()));
 *     await thread.send("Hello");
 *
 * There are six layers, each of which uses only those before it: `applyChunk` (applies one chunk to one message),
 * `Transcript` (the state of one thread), the transports (websocket, server-sent events, polling), `Link` (a connection
 * that reconnects), `ThreadStore` (a transcript kept up to date over the link) and the client. `smoothText` stands alone.
 * No dependencies, no build step; works under `script-src 'self'`.
 *
 * Parts and chunks are those of the AI SDK's UI message stream. Everything in a message was written by a model, a tool
 * or a user: show it as text, never as markup.
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
 * @property {number|null} [position] its place in the thread; null while it is queued or being sent
 * @property {string|null} [client_id] the id that the sender chose
 * @property {string} [created_at]
 * @property {number} [omitted] number of steps at its beginning that are not loaded; `loadOlder` loads them
 * @property {"sending"|"failed"} [delivery] set only until the server has accepted the message
 * @property {Problem} [problem] why the delivery failed
 */

/** @typedef {{code: string, message: string}} Problem */

/** @typedef {{type: string, [field: string]: any}} Frame One JSON object on the wire, either way. */

/**
 * @typedef {object} Connection
 * @property {"idle"|"connecting"|"open"|"waiting"|"offline"|"closed"} state `waiting`: it was lost and will be
 *   retried; `offline`: the browser has no network; `closed`: it will not be retried automatically
 * @property {number|null} retryAt when the next retry is due, in milliseconds since the epoch
 * @property {"unauthorized"|"forbidden"|"outdated"|"malformed"|"too_large"|"closed"|null} reason why it is `closed`
 */

/**
 * The current state of a thread. The same object until something changes; unchanged messages stay the same objects.
 * @typedef {object} Snapshot
 * @property {string} threadId
 * @property {Message[]} messages oldest first; queued and unsent ones last
 * @property {string|null} status null until the server's first reply
 * @property {string} title
 * @property {number} rev
 * @property {Problem|null} error why the thread failed
 * @property {Record<string, any>|null} retry the retry that the run is waiting for
 * @property {boolean} hasOlder whether `loadOlder` has something to load
 * @property {boolean} isLoading
 * @property {boolean} isRunning
 * @property {boolean} isStopping a stop was requested and has no reply yet
 * @property {boolean} isComplete
 * @property {boolean} isFailed
 * @property {boolean} isStopped
 * @property {boolean} isRecovering the attempt that was writing the answer was lost or failed, and another one follows
 * @property {boolean} isReplaying connected again, and what was missed has not arrived yet
 * @property {Problem|null} refused why the server does not show this thread
 * @property {Problem|null} readOnly why this thread takes no messages: its agent has been removed, or it is refused
 * @property {Connection} connection
 */

/**
 * The network, which tests can replace. `open` starts a connection and returns at once; `on.opened` is called when
 * frames may be sent, `on.frame` for each frame received, `on.closed` once at the end. Codes are those of websockets.
 * @typedef {object} Transport
 * @property {(on: {opened: (ticket?: string) => void, frame: (frame: Frame) => void, closed: (end: Closing) => void}) => Wire} open
 */

/** @typedef {{name: string, description: string, kind: string, needs_approval: boolean}} AgentTool */
/** @typedef {{name: string, description: string, tools: AgentTool[]}} Agent */
/** @typedef {{send: (text: string) => void, close: () => void}} Wire */
/** @typedef {{code: number, reason?: string}} Closing */

/**
 * @typedef {object} ClientOptions
 * @property {string} [url] where the HTTP API is mounted; default `/agents/`
 * @property {string} [socketUrl] the websocket; default `/ws/agents/` on the host of `url`
 * @property {string | (() => string)} [csrf] the CSRF token; default the cookie `csrftoken`
 * @property {Record<string, string> | (() => Record<string, string>)} [headers] sent with each HTTP request
 * @property {"auto"|"websocket"|"sse"|"polling"} [transport] `auto`, the default, uses a websocket or, if that is blocked,
 *   server-sent events; if the server or a proxy does not stream, it polls
 * @property {() => Promise<string>} [ticket] fetches the ticket that signs in a websocket; by default one is fetched if
 *   `headers` has `Authorization`, which browsers cannot send with a websocket
 * @property {typeof WebSocket} [WebSocket]
 * @property {typeof fetch} [fetch]
 */

const PROTOCOL = "durable-agents.v1";
const VERSION = 1;

/** A request that was rejected, or that got no reply before the connection was lost. */
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
 * The id of the chunks that are writing a part. It is not in the part, because stored messages have no such ids.
 * @type {WeakMap<Part, string>}
 */
const writers = new WeakMap();

/**
 * Returns the message after one chunk. This is the only reducer.
 *
 * It is pure: `message` is never changed, and parts that the chunk does not touch stay the same objects. For a chunk of
 * an unknown type, or one that does not affect stored messages (`error`, `abort`, transient data), it returns `message`
 * itself. After a snapshot the ids of its open parts are unknown, so a delta with an unknown id continues the last of
 * them that has the same kind.
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


/** @type {Map<string, (message: Message, chunk: Chunk) => Message>} */
const RULES = new Map([
  ["start", begin],
  ["finish", mergeMetadata],
  ["message-metadata", mergeMetadata],
  ["start-step", (message) => append(message, {type: "step-start"})],
  ["tool-input-start", (message, chunk) => putTool(message, chunk, "input-streaming", {})],
  ["tool-input-delta", growToolInput],
  ["tool-input-available", (message, chunk) => putTool(message, chunk, "input-available", {input: chunk.input})],
  ["tool-input-error", (message, chunk) => putTool(message, chunk, "output-error", brokenInput(chunk))],
  ["tool-approval-request", (message, chunk) => putTool(message, chunk, "approval-requested", {approval: {id: chunk.approvalId}})],
  ["tool-approval-response", decideTool],
  ["tool-output-available", (message, chunk) => putTool(message, chunk, "output-available", {output: chunk.output, ...pick(chunk, "preliminary")})],
  ["tool-output-error", (message, chunk) => putTool(message, chunk, "output-error", {errorText: chunk.errorText})],
  ["tool-output-denied", (message, chunk) => putTool(message, chunk, "output-denied", {})],
  ["file", appendFile],
  ["source-url", appendFile],
  ["source-document", appendFile],
]);

for (const kind of ["text", "reasoning"]) {
  RULES.set(`${kind}-start`, (message, chunk) => beginText(message, kind, chunk));
  RULES.set(`${kind}-delta`, (message, chunk) => growText(message, kind, chunk));
  RULES.set(`${kind}-end`, (message, chunk) => endText(message, kind, chunk));
}

/** @type {(message: Message, part: Part) => Message} */
const append = (message, part) => ({...message, parts: [...message.parts, part]});

/** Appends a file or a source. @type {(message: Message, chunk: Chunk) => Message} */
function appendFile(message, chunk) {
  return append(message, pick(chunk, ...Object.keys(chunk)));
}

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
 * Deeply merges JSON values. Uses `fromEntries`, so that a malicious `__proto__` key stays an ordinary key.
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
 * Returns the message with one tool part in a new state. The part keeps its input unless `fields` has a new one. It
 * loses its output, error and raw input unless `fields` has new ones.
 * @type {(message: Message, chunk: Chunk, state: string, fields: Record<string, any>) => Message}
 */
function putTool(message, chunk, state, fields) {
  const index = message.parts.findLastIndex((part) => part.toolCallId === chunk.toolCallId);
  if (index < 0 && !chunk.toolName) return message;
  const kind = chunk.dynamic ? {type: "dynamic-tool", toolName: chunk.toolName} : {type: `tool-${chunk.toolName}`};
  const before = message.parts[index] ?? {...kind, toolCallId: chunk.toolCallId};
  const {output: _output, errorText: _error, preliminary: _preliminary, rawInput: _raw, ...known} = before;
  const facts = pick(chunk, "title", "toolMetadata", "providerExecuted");
  const metadata = /^output-(a|e)/.test(state) ? "resultProviderMetadata" : "callProviderMetadata";
  const part = {...known, ...facts, ...(chunk.providerMetadata == null ? {} : {[metadata]: chunk.providerMetadata}), state, ...fields};
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

/** @type {(message: Message, chunk: Chunk) => Message} */
function growToolInput(message, chunk) {
  const index = message.parts.findLastIndex((part) => part.toolCallId === chunk.toolCallId);
  const part = message.parts[index];
  // The server merged earlier deltas, so their raw text is not known: the input comes with tool-input-available.
  if (part?.state !== "input-streaming" || (part.rawInput === undefined && part.input !== undefined)) return message;
  return replaceAt(message, index, streamingInput(bases.get(part) ?? part, (part.rawInput ?? "") + chunk.inputTextDelta));
}

/** For each part made by `streamingInput`, the same part without `input`: copying `input` would parse it. @type {WeakMap<Part, Part>} */
const bases = new WeakMap();

/**
 * Returns a tool part that parses its `input` only when it is read. Parsing a long input at each delta would take
 * quadratic time.
 * @type {(base: Part, rawInput: string) => Part}
 */
function streamingInput(base, rawInput) {
  /** @type {any} */
  let input;
  let isParsed = false;
  const get = () => {
    if (!isParsed) input = parsePartialJson(rawInput);
    isParsed = true;
    return input;
  };
  const part = Object.defineProperty({...base, rawInput}, "input", {get, enumerable: true, configurable: true});
  bases.set(part, base);
  return part;
}

/** @type {(chunk: Chunk) => Record<string, any>} */
const brokenInput = (chunk) => ({
  ...(chunk.dynamic ? {input: chunk.input} : {input: undefined, rawInput: chunk.input}),
  errorText: chunk.errorText,
});

/** @type {(message: Message, chunk: Chunk) => Message} */
function putData(message, chunk) {
  const isSame = (/** @type {Part} */ part) => part.type === chunk.type && part.id === chunk.id;
  const index = chunk.id == null ? -1 : message.parts.findIndex(isSame);
  if (index < 0) return append(message, {...chunk});
  return replaceAt(message, index, {...message.parts[index], data: chunk.data});
}

/**
 * Parses the beginning of a JSON text. Returns undefined if it does not contain a value yet.
 * @param {string} text
 * @returns {any}
 */
export function parsePartialJson(text) {
  const shortest = Math.max(0, text.length - 64); // bounds the work for a long incomplete key or literal
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
  for (const [token] of text.matchAll(/\\.|["{}[\]]/gs)) {
    if (token === '"') inString = !inString;
    else if (!inString && token !== "}" && token !== "]") closers = (token === "{" ? "}" : "]") + closers;
    else if (!inString) closers = closers.slice(1);
  }
  return (inString ? '"' : "") + closers;
}

// -------------------------------------------------------------------------------------------------------- Transcript

const RUNNING = new Set(["streaming", "awaiting_tool_results"]);
const HELD_DELTAS = 64;

/** The state of a tool part by the status of its call. @type {Record<string, string>} */
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
 * Consecutive parts of one message that one stream has written. `stream` is null for other parts, such as those of a
 * user. The segment is `open` while only the stream's deltas are known, but not the committed step.
 * @typedef {{stream: string|null, parts: Part[], open: boolean}} Segment
 */

/** @typedef {{message: Message, segments: Segment[], view: Message|null}} Entry */
/** @typedef {{message: string, next: number, held: Map<number, Chunk[]>}} StreamState */

/**
 * The state of one thread, built from frames that may arrive in any order. `rev` orders the committed changes, and
 * `seq` the deltas of a stream. This class uses neither a clock nor the network.
 *
 * Each message is a list of segments. The deltas of a stream write an open segment, which the committed step replaces.
 * If an attempt is abandoned, its segment is removed. So an answer appears once, however many attempts it took.
 */
export class Transcript {
  constructor() {
    this.loaded = false;
    /** Whether an attempt was lost and the next one has not written yet. */
    this.isRecovering = false;
    this.rev = 0;
    this.snapshotRev = 0;
    /** @type {string|null} */
    this.status = null;
    this.title = "";
    /** @type {Problem|null} */
    this.error = null;
    /** @type {Record<string, any>|null} */
    this.retry = null;
    /** @type {Problem|null} */
    this.readOnly = null;
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

  /** The visible messages, oldest first. Unchanged ones are the same objects as before. */
  messages() {
    const shown = [...this.entries.values()].sort((one, other) => placeOf(one) - placeOf(other)).map(viewOf);
    return [...shown, ...this.drafts.values()];
  }

  /** The cursor to resume from after the connection was lost, or null if there is none. */
  cursor() {
    if (!this.loaded) return null;
    const [stream, state] = [...this.streams].at(-1) ?? ["", null];
    return {rev: this.rev, stream, seq: state ? state.next - 1 : -1};
  }

  /**
   * Applies a frame with a `rev`. Returns false if it was applied before or is included in the snapshot.
   * @param {Frame} frame of type step, tool, message, stream, thread or removed
   */
  commit(frame) {
    if (frame.rev < this.rev || frame.rev <= this.snapshotRev) return false;
    this.rev = frame.rev;
    COMMITS.get(frame.type)?.(this, frame);
    return true;
  }

  /**
   * Replaces everything with a snapshot. Messages that the server has not accepted yet stay.
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
    this.isRecovering = false;
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
   * Applies one delta. Deltas may arrive in any order and repeatedly; each is applied once, in order.
   * @param {{stream: string, message?: string, seq: number, chunks: Chunk[]}} delta
   * @returns {"applied"|"dropped"|"held"|"overflow"} `held`: an earlier delta is missing; `overflow`: too many are held
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
    this.isRecovering = false;
    const entry = this.entry(state.message);
    let segment = entry.segments.find((candidate) => candidate.stream === stream);
    if (!segment) entry.segments.push((segment = {stream, parts: [], open: true}));
    for (let chunks = state.held.get(state.next); chunks; chunks = state.held.get(state.next)) {
      state.held.delete(state.next++);
      for (const chunk of chunks) {
        const {parts, metadata} = applyChunk({...entry.message, parts: segment.parts}, chunk);
        segment.parts = parts;
        if (metadata) entry.message = {...entry.message, metadata};
      }
    }
    entry.view = null;
  }

  /**
   * The ranges of missing deltas between those applied and those held.
   * @returns {{stream: string, from: number, to: number}[]}
   */
  gaps() {
    const waiting = [...this.streams].filter(([, state]) => state.held.size > 0);
    return waiting.map(([stream, {next, held}]) => ({stream, from: next, to: Math.min(...held.keys()) - 1}));
  }

  /** Drops the held deltas: after a new subscription, the server sends them again. */
  dropHeld() {
    for (const state of this.streams.values()) state.held.clear();
  }

  /**
   * Adds earlier messages, and earlier steps of a visible message. Messages are ordered by position.
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
   * Inserts a message or replaces the one with its id. An answer has no parts at first; each step adds some.
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

  /** Adds the message in the reply to a send, unless a frame has added it already. @param {Message} message */
  acknowledge(message) {
    if (this.entries.has(message.id)) this.#settleDraft(message);
    else this.put(message);
  }

  /** Shows a user message that the server has not accepted yet. @param {string} id @param {Part[]} parts */
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

  /** Returns the entry of a message. If its frame has not arrived yet, makes an empty answer. @param {string} id */
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
  setThread({status, title, error, retry, read_only: readOnly}) {
    this.status = status;
    this.isRecovering &&= this.isRunning;
    this.title = title ?? this.title;
    this.error = error ?? null;
    this.retry = retry ?? null;
    this.readOnly = readOnly ?? null;
  }
}

/** Applies each kind of durable change. @type {Map<string, (transcript: Transcript, frame: Frame) => void>} */
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
  transcript.isRecovering = false;
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
  transcript.isRecovering = status !== "aborted" && transcript.isRunning;
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
  const {output: _output, errorText: _error, preliminary: _preliminary, approval: _approval, ...rest} = part;
  const state = TOOL_STATES[status] ?? part.state;
  const known = {...rest, state, ...approvalOf(state, decided ?? {id})};
  if (state === "output-available") return {...known, output: result ?? null};
  if (state === "output-error") return {...known, errorText: error || "The tool call failed."};
  if (state === "input-available" && progress !== undefined) return {...known, state: "output-available", output: progress, preliminary: true};
  return known;
}

/** @type {(state: string, approval: {id: string, approved?: boolean}) => Record<string, any>} */
function approvalOf(state, approval) {
  if (state === "approval-requested" || approval.approved !== undefined) return {approval};
  return state === "output-denied" ? {approval: {...approval, approved: false}} : {};
}

/** @type {(message: Message) => Entry} */
const entryOf = (message) => ({message, segments: [{stream: null, parts: message.parts, open: false}], view: null});

/**
 * Inserts earlier steps of a message before the visible ones, if they directly precede them or include them.
 * @type {(entry: Entry, earlier: Message) => void}
 */
function putBefore(entry, {parts, omitted = 0}) {
  const {omitted: missing = 0, ...message} = entry.message;
  const starts = parts.flatMap(({type}, index) => (index === 0 || type === "step-start" ? [index] : []));
  const steps = missing - omitted;
  if (steps <= 0 || steps > starts.length) return;
  entry.message = omitted ? {...message, omitted} : message;
  entry.segments.unshift({stream: null, parts: parts.slice(0, starts[steps]), open: false});
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
const PATIENT_TRIES = 7; // after these, a hidden page does not retry until it is visible again

/**
 * Close codes after which a retry cannot help: those of this protocol, and 1007 and 1009, which servers and proxies
 * send. @type {Map<number, Connection["reason"]>}
 */
const FINAL = new Map([
  [1000, "closed"],
  [1007, "malformed"],
  [1009, "too_large"],
  [4400, "malformed"],
  [4401, "unauthorized"],
  [4403, "forbidden"],
  [4406, "outdated"],
  [4413, "too_large"],
]);
const TOO_SLOW = 4408;
const LONGEST_WAIT_SECONDS = 3_600;

/**
 * @typedef {object} Pending
 * @property {Frame} frame
 * @property {boolean} durable
 * @property {(reply: Frame) => void} resolve
 * @property {(error: DurableAgentsError) => void} reject
 */

/** @typedef {ReturnType<typeof setTimeout>|undefined} Timer */

/**
 * @typedef {object} Listener the part of a thread store that a link calls
 * @property {string} id
 * @property {(afresh: boolean) => void} onOpen frames may be sent; `afresh`: subscribe without a cursor
 * @property {(frame: Frame) => void} onFrame
 * @property {() => void} onConnection
 */

/** Each connection uses up a ticket. @type {(url: string, Socket: typeof WebSocket, ticket: () => Promise<string>|undefined) => Transport} */
const socketTransport = (url, Socket, ticket) => ({
  open(on) {
    const socket = new Socket(url, PROTOCOL);
    const fail = (/** @type {any} */ error) => on.closed({code: closeCodeOf(error)});
    socket.onopen = () => {
      const fetched = ticket();
      if (fetched) fetched.then(on.opened, fail);
      else on.opened();
    };
    socket.onclose = ({code, reason}) => on.closed({code, reason});
    socket.onmessage = ({data}) => on.frame(JSON.parse(data));
    return {send: (text) => socket.send(text), close: () => socket.close(1000)};
  },
});

/**
 * Chooses between the websocket and HTTP. The websocket may not work, because a proxy blocks it or the server is WSGI.
 * If it has failed twice, HTTP and the websocket are tried in turn. The first one that works is used from then on.
 * @type {(socket: Transport, http: Transport) => Transport}
 */
function autoTransport(socket, http) {
  let failures = -1;
  /** @type {Transport|null} */
  let proven = null;
  return {
    open(on) {
      failures++; // until the server's welcome proves that the connection works
      const chosen = proven ?? (failures < 2 || failures % 2 ? socket : http);
      return chosen.open({
        ...on,
        frame(frame) {
          if (frame.type === "welcome") proven = chosen;
          on.frame(frame);
        },
      });
    },
  };
}

/** @typedef {{ending: AbortController, signal: AbortSignal, after: number, wake: () => void}} Followed */

const POLL_MS = 1_500;
/** A stream that is silent for so long is lost, since the server sends something every 14 seconds. */
const SILENCE_MS = 35_000;
const TAIL = 50;
const MOST_ROWS = 200;
const UNKNOWN = -2;

/**
 * Sends and receives the frames of the websocket over plain HTTP. Each command is a request, and each thread has a
 * stream of server-sent events. If the server cannot stream (WSGI) or a proxy holds the stream back, the thread is
 * polled.
 * @type {(http: Http, isPolling: boolean) => Transport}
 */
function httpTransport(http, isPolling) {
  const mode = {isPolling};
  return {open: (on) => httpWire(http, on, mode)};
}

/** @type {(...names: string[]) => string} */
const threadPath = (...names) => ["threads", ...names, ""].map(encodeURIComponent).join("/");

/** Commands that must not be sent twice, because the HTTP API has no idempotency keys. */
const ONCE = new Set(["edit", "regenerate"]);

/** @type {(http: Http, on: Parameters<Transport["open"]>[0], mode: {isPolling: boolean}) => Wire} */
function httpWire({call, request}, on, mode) {
  /** @type {Map<string, Followed>} */
  const threads = new Map();
  queueMicrotask(() => on.opened());
  const send = (/** @type {string} */ text) => {
    const frame = JSON.parse(text);
    const {type, thread} = frame;
    if (type === "ping") on.frame({type: "pong", t: frame.t});
    else if (type === "hello") greet();
    else if (type === "subscribe") follow(frame);
    else if (type === "unsubscribe") threads.get(thread)?.ending.abort();
    else if (type === "fill") on.frame({type: "reset", id: frame.id, thread});
    else if (type === "older") answer(frame, () => older(frame));
    else answer(frame, () => command(frame));
  };

  const close = () => {
    for (const {ending} of threads.values()) ending.abort();
  };

  async function greet() {
    try {
      await call("GET", "agents/");
      on.frame({type: "welcome", heartbeat: 25});
    } catch (error) {
      fail(error);
    }
  }

  /** @param {any} error */
  function fail(error) {
    close();
    on.closed({code: closeCodeOf(error)});
  }

  /** @param {Frame} frame @param {() => Promise<object>} work */
  async function answer(frame, work) {
    const {id, thread, type} = frame;
    try {
      on.frame({type: "ok", id, thread, ...(await work())});
    } catch (/** @type {any} */ error) {
      if (error.code === "disconnected" && !ONCE.has(type)) return fail(error); // the link sends it again
      on.frame({...errorFrame(error), id, thread});
    }
    threads.get(thread)?.wake();
  }

  /** @param {Frame} frame */
  async function command({id: _id, key: _key, type, thread, message, tool_call_id: toolCall, ...fields}) {
    const last = type === "send" ? "messages" : type.replace("tool_", "");
    const isEdit = type === "edit";
    const path = isEdit ? threadPath(thread, "messages", message) : threadPath(thread, ...(toolCall ? ["tool-calls", toolCall] : []), last);
    const body = {...fields, message_id: isEdit ? undefined : message};
    const answer = await call(isEdit ? "PUT" : "POST", path, body);
    return type === "send" ? {message: answer} : {};
  }

  /** @param {Frame} frame */
  async function follow(frame) {
    const {id, thread} = frame;
    threads.get(thread)?.ending.abort();
    const ending = new AbortController();
    const followed = {ending, signal: ending.signal, after: UNKNOWN, wake() {}};
    threads.set(thread, followed);
    try {
      if (!mode.isPolling) await readEvents(frame, followed);
      if (mode.isPolling) await poll(frame, followed);
    } catch (/** @type {any} */ error) {
      if (ending.signal.aborted) return;
      if (error.status === 401 || error.code === "disconnected") fail(error);
      else on.frame({...errorFrame(error), id, thread});
    }
  }

  /** Reads events until the connection is lost. Returns at once if the server does not stream. @param {Frame} frame @param {Followed} followed */
  async function readEvents({id, thread, cursor}, {ending, signal}) {
    const query = cursor ? `?cursor=${cursor.rev}.${cursor.stream}.${cursor.seq}` : "";
    let waitMs = HANDSHAKE_MS;
    /** @type {Timer} */
    let timer;
    const expect = () => {
      clearTimeout(timer);
      timer = setTimeout(() => {
        mode.isPolling ||= waitMs === HANDSHAKE_MS; // a proxy may hold the response back until it ends
        ending.abort();
        fail(disconnected());
      }, waitMs);
    };
    expect();
    try {
      const response = await request("GET", threadPath(thread, "events") + query, undefined, signal);
      mode.isPolling = response.status === 501;
      if (mode.isPolling) return;
      if (!response.ok || !response.body) return await readAnswer(response);
      let isGone = false;
      for await (const data of eventsOf(response.body)) {
        waitMs = SILENCE_MS;
        expect();
        if (data === "") continue;
        const frame = JSON.parse(data);
        isGone = frame.type === "error";
        on.frame({...frame, id});
        id = undefined;
      }
      if (!isGone) throw disconnected();
    } finally {
      clearTimeout(timer);
    }
  }

  /** @param {Frame} frame @param {Followed} followed */
  async function poll({id, thread}, followed) {
    const {signal} = followed;
    let known = "";
    while (!signal.aborted) {
      const {is_running: isRunning, rev, status, title, error, retry, read_only} = await call("GET", threadPath(thread), undefined, signal);
      const mark = [rev, status, title, followed.after].join();
      if (isRunning || mark !== known) {
        const query = followed.after === UNKNOWN ? "" : `&after=${followed.after}`;
        const {rows, stream: open} = await listMessages(thread, `streams=1${query}`, signal);
        if (followed.after === UNKNOWN) followed.after = rows.at(-TAIL - 1)?.position ?? -1;
        const messages = rows.filter(({position}) => (position ?? Infinity) > followed.after);
        const streams = open ? [{...open, stream: open.id}] : [];
        const hasOlder = followed.after > 0;
        on.frame({type: "snapshot", id, thread, rev, status, title, error, retry, read_only, messages, streams, hasOlder});
        id = null;
      }
      known = mark;
      await sleep(followed);
    }
  }

  /** Returns the messages of all pages of a query, and the open stream. @param {string} thread @param {string} query @param {AbortSignal} [signal] */
  async function listMessages(thread, query, signal) {
    /** @type {Message[]} */
    const rows = [];
    let stream = null;
    for (let path = `${threadPath(thread, "messages")}?limit=${MOST_ROWS}&${query}`; path; ) {
      const answer = await call("GET", path, undefined, signal);
      stream ??= answer.stream;
      rows.push(...answer.results);
      path = answer.next;
    }
    return {rows, stream};
  }

  /** Returns earlier messages. Loads all messages, since the HTTP API cannot list them backwards. @param {Frame} frame @returns {Promise<Frame>} */
  async function older({thread, before, limit = TAIL, steps}) {
    const {rows} = await listMessages(thread, "");
    const earlier = rows.filter(({position}) => position != null && position < before + (steps ? 1 : 0));
    const messages = earlier.slice(-limit);
    const followed = threads.get(thread);
    if (followed) followed.after = (messages[0]?.position ?? 0) - 1;
    return {type: "page", messages, hasOlder: earlier.length > limit};
  }

  return {send, close};
}

/** Resolves when the next poll is due, or when `wake` is called. @type {(followed: Followed) => Promise<void>} */
const sleep = (followed) =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, POLL_MS);
    followed.wake = () => {
      clearTimeout(timer);
      resolve();
    };
    followed.signal.addEventListener("abort", followed.wake, {once: true});
  });

/** Yields the data of each event, and an empty text for each comment. @param {ReadableStream<Uint8Array>} body @returns {AsyncGenerator<string>} */
async function* eventsOf(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let text = "";
  for (let read = await reader.read(); !read.done; read = await reader.read()) {
    const events = (text + decoder.decode(read.value, {stream: true})).split("\n\n");
    text = events.pop() ?? "";
    for (const event of events) yield event.match(/^data: (.*)$/m)?.[1] ?? "";
  }
}

/** @type {(error: any) => Frame} */
const errorFrame = ({code, message, retryable}) => ({type: "error", code, message, retryable});

/** Returns the close code that a websocket would have for this error. @type {(error: any) => number} */
const closeCodeOf = ({status}) => 4000 + (status ?? 0);

/** Whether the page is visible and online. A worker or a test without a page counts as both. */
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
 * One connection to the server that reconnects automatically, and the requests that wait for it.
 *
 * If the connection is lost, a durable request (a command) is sent again with the same key, until it has a reply. Any
 * other request fails. The delay between retries is random up to a limit that doubles, so that many clients do not
 * reconnect at the same moment.
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
  /** The server's closing frame. @type {Frame|null} */
  #closing = null;
  #tries = 0;
  /** The server asked not to connect before this time, in milliseconds since the epoch. */
  #notBefore = 0;
  #serial = 0;
  #afresh = false;
  #limits = {frame: Infinity, values: Infinity};
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
  enlist(listener) {
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
   * Sends a request and resolves with the server's reply. Rejects with DurableAgentsError.
   * @param {Frame} frame without `id`
   * @param {{durable?: boolean}} [options]
   * @returns {Promise<Frame>}
   */
  request(frame, {durable = false} = {}) {
    const {state, reason} = this.connection;
    if (state === "closed") return Promise.reject(disconnected(reason ?? "closed"));
    if (state !== "open" && !durable) return Promise.reject(disconnected());
    const id = this.#nextId();
    return new Promise((resolve, reject) => {
      this.#pending.set(id, {frame: {...frame, id}, durable, resolve, reject});
      if (state === "open") this.#transmit(id);
    });
  }

  /** Connects now, even if the state is `closed`. */
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
      opened: (ticket) => isCurrent() && this.#sendFrame({type: "hello", version: VERSION, ticket}),
      frame: (frame) => isCurrent() && this.#receive(frame),
      closed: (end) => isCurrent() && this.#lost(end),
    });
    this.#wire = wire;
    this.#closing = null;
  }

  /** @param {Frame} frame */
  #receive(frame) {
    clearTimeout(this.#timers.deadline);
    this.#timers.deadline = undefined;
    if (frame.type === "welcome") return this.#welcome(frame);
    if (frame.type === "closing") return this.#onClosing(frame);
    for (const listener of this.#listeners) if (listener.id === frame.thread) listener.onFrame(frame);
    const pending = this.#pending.get(frame.id);
    if (!pending) return;
    this.#pending.delete(frame.id);
    if (frame.type === "error") pending.reject(new DurableAgentsError(frame.code, frame.message, {retryable: frame.retryable}));
    else pending.resolve(frame);
  }

  /** @param {Frame} frame */
  #welcome({heartbeat, limits}) {
    this.#heartbeatMs = (heartbeat ?? 25) * 1000;
    this.#limits = {frame: Infinity, values: Infinity, ...limits};
    this.#timers.stable = setTimeout(() => (this.#tries = 0), STABLE_MS);
    this.#timers.beat = setInterval(() => this.#ping(this.#heartbeatMs + PROBE_MS), this.#heartbeatMs);
    this.#publish("open");
    const afresh = this.#afresh;
    this.#afresh = false;
    for (const listener of this.#listeners) listener.onOpen(afresh);
    for (const [id, {durable}] of this.#pending) if (durable) this.#transmit(id);
  }

  /** Keeps the frame, because the close code and its reason may not arrive. @param {Frame} frame */
  #onClosing(frame) {
    this.#closing = frame;
    this.#expectFrame(PROBE_MS);
  }

  /** @param {number} patienceMs */
  #ping(patienceMs) {
    this.#sendFrame({type: "ping", t: Date.now()});
    if (this.#timers.deadline === undefined || patienceMs === PROBE_MS) this.#expectFrame(patienceMs);
  }

  /** @param {number} patienceMs */
  #expectFrame(patienceMs) {
    clearTimeout(this.#timers.deadline);
    this.#timers.deadline = setTimeout(() => this.#lost({code: 1006}), patienceMs);
  }

  /** @param {Closing} end */
  #lost(end) {
    const {code = end.code, retryAfter = 0} = /** @type {Partial<Frame>} */ (this.#closing ?? {});
    this.#abandon();
    this.#failPending(({durable}) => !durable, disconnected());
    const final = FINAL.get(code);
    if (final) return this.#finish(final);
    this.#afresh ||= code === TOO_SLOW;
    this.#notBefore = Date.now() + 1000 * Math.min(retryAfter, LONGEST_WAIT_SECONDS);
    if (!page.isOnline()) return this.#publish("offline");
    this.#retryLater();
  }

  #retryLater() {
    const limit = Math.min(BACKOFF_CAP_MS, BACKOFF_MS * 2 ** this.#tries++);
    const askedMs = this.#notBefore - Date.now();
    if (askedMs <= 0 && page.isHidden() && this.#tries > PATIENT_TRIES) return this.#publish("waiting");
    this.#retryIn(askedMs > 0 ? askedMs : Math.random() * limit);
  }

  /** @param {number} waitMs */
  #retryIn(waitMs) {
    clearTimeout(this.#timers.retry);
    this.#timers.retry = setTimeout(() => this.connect(), waitMs);
    this.#publish("waiting", {retryAt: Date.now() + waitMs});
  }

  /** The page is online or visible again. */
  #wake() {
    const {state} = this.connection;
    // After a laptop has slept, its socket may only look open: send a ping with a short deadline.
    if (state === "open") return this.#ping(PROBE_MS);
    if (state !== "waiting" && state !== "offline") return;
    const askedMs = this.#notBefore - Date.now();
    if (askedMs > 0) this.#retryIn(askedMs);
    else this.connect();
  }

  #sleep() {
    if (this.connection.state === "waiting") {
      clearTimeout(this.#timers.retry);
      this.#publish("offline");
    }
  }

  /** Abandons the wire; later events from it are ignored. */
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
    // Do not send a frame that is too large: the server would close the connection, and after each retry again.
    const bytes = new TextEncoder().encode(text).length;
    // Estimate the number of JSON values as the server does: count `[`, `{` and `,` outside of strings.
    const values = text.replace(/"[^"\\]*(?:\\.[^"\\]*)*"/g, "").replace(/[^[{,]+/g, "").length;
    if (bytes <= this.#limits.frame && values <= this.#limits.values) return this.#wire?.send(text);
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

/** @type {(code?: string) => DurableAgentsError} */
const disconnected = (code = "disconnected") =>
  new DurableAgentsError(code, "There is no connection to the server.", {retryable: code === "disconnected"});

// ------------------------------------------------------------------------------------------------------------- Store

const FILL_AFTER_MS = 150;
const FRAME_MS = 16;
const RESUBSCRIBE_MS = 1_000;
const LINGER_MS = 5_000;

/**
 * Calls `run` before the next paint, or after a short time if the page is hidden and never paints.
 * @type {(run: () => void) => void}
 */
function beforePaint(run) {
  if (typeof requestAnimationFrame === "function" && !page.isHidden()) requestAnimationFrame(run);
  else setTimeout(run, FRAME_MS);
}

/** `crypto.randomUUID` is absent on plain http. @type {() => string} */
const newId = () => crypto.getRandomValues(new BigUint64Array(2)).join("-");

/**
 * One thread, kept up to date. `subscribe` and `getSnapshot` fit React's `useSyncExternalStore`. Listeners are called
 * at most once per painted frame.
 *
 * The store subscribes to the thread with its first listener or command, and unsubscribes some seconds after its last
 * listener has gone. It keeps its state. So when the next listener comes, the server sends only what was missed.
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
  /** @type {Timer} */
  #lingerTimer;
  #link;
  #onClose;
  #onChange;
  /** @type {Listener} */
  #listener;

  /** @param {string} id @param {Link} link @param {() => void} onClose @param {(snapshot: Snapshot) => void} onChange */
  constructor(id, link, onClose, onChange) {
    this.id = id;
    this.#link = link;
    this.#onClose = onClose;
    this.#onChange = onChange;
    this.#listener = {
      id,
      onOpen: (afresh) => this.#enter(afresh),
      onFrame: (frame) => this.#receive(frame),
      onConnection: () => this.#onConnection(),
    };
  }

  /**
   * Calls `listener` after each change. Returns a function that unsubscribes it.
   * @param {() => void} listener
   * @returns {() => void}
   */
  subscribe = (listener) => {
    this.#listeners.add(listener);
    this.#attach();
    return () => {
      if (!this.#listeners.delete(listener) || this.#listeners.size) return;
      clearTimeout(this.#lingerTimer); // do not unsubscribe at once: React mounts twice, and users switch back and forth
      this.#lingerTimer = setTimeout(() => this.#detach(), LINGER_MS);
    };
  };

  /** The current state: the same object until something changes. */
  getSnapshot = () => (this.#snapshot ??= this.#takeSnapshot());

  /**
   * Sends a user message. It appears at once with `delivery: "sending"`, and is sent again automatically after a lost
   * connection. Resolves with the stored message. If it rejects with DurableAgentsError, the message appears as failed;
   * to retry, send it with the same `clientId`, since the server accepts one message per id.
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

  /** Stops the current run; the text so far is kept. Idempotent. @returns {Promise<void>} */
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

  /** Continues a thread that failed or was stopped. @returns {Promise<void>} */
  resume = async () => void (await this.#command("resume", {}));

  /**
   * Replaces a message of the user and answers it again. Later messages are removed.
   * @param {string} messageId
   * @param {string | any[]} said a text, or parts
   * @returns {Promise<void>}
   */
  edit = async (messageId, said) =>
    void (await this.#command("edit", {message: messageId, ...(typeof said === "string" ? {prompt: said} : {parts: said})}));

  /**
   * Regenerates an answer.
   * @param {string} [messageId] of the answer or of the user's message; by default, the last answer
   * @returns {Promise<void>}
   */
  regenerate = async (messageId) => void (await this.#command("regenerate", messageId === undefined ? {} : {message: messageId}));

  /**
   * Adds the result of a client or deferred call. The first answer counts.
   * @param {string} toolCallId
   * @param {any} result any JSON value
   * @returns {Promise<void>}
   */
  addToolResult = async (toolCallId, result) =>
    void (await this.#command("tool_result", {tool_call_id: toolCallId, result: result ?? null}));

  /**
   * Fails a client or deferred call, with an error for the model.
   * @param {string} toolCallId
   * @param {string} error
   * @returns {Promise<void>}
   */
  addToolError = async (toolCallId, error) =>
    void (await this.#command("tool_error", {tool_call_id: toolCallId, error}));

  /**
   * Approves a call that waits for approval. `arguments`, if given, replace the model's.
   * @param {string} toolCallId
   * @param {{arguments?: Record<string, any>, reason?: string}} [decision]
   * @returns {Promise<void>}
   */
  approve = async (toolCallId, decision = {}) =>
    void (await this.#command("approve", {...decision, tool_call_id: toolCallId, approved: true}));

  /**
   * Rejects a call that waits for approval. The model gets the reason.
   * @param {string} toolCallId
   * @param {{reason?: string}} [decision]
   * @returns {Promise<void>}
   */
  reject = async (toolCallId, decision = {}) =>
    void (await this.#command("reject", {...decision, tool_call_id: toolCallId}));

  /**
   * Loads the omitted steps of the oldest visible message or, if there are none, earlier messages.
   * @param {number} [limit]
   * @returns {Promise<void>}
   */
  loadOlder = async (limit = 50) => {
    const oldest = this.#transcript.messages().find(({position}) => position != null);
    if (!oldest || !this.#transcript.hasOlder) return;
    const {position: before, omitted: steps} = oldest;
    await this.#link.request({type: "older", thread: this.id, before, limit, ...(steps ? {steps} : {})});
  };

  /** Ends the subscription. The store is not updated any more; `client.thread(id)` returns a new one. */
  close = () => {
    this.#listeners.clear();
    this.#detach();
    this.#onClose();
  };

  #attach() {
    clearTimeout(this.#lingerTimer);
    if (this.#isAttached) return;
    this.#isAttached = true;
    this.#link.enlist(this.#listener);
  }

  #detach() {
    this.#clearTimers();
    clearTimeout(this.#lingerTimer);
    this.#isAttached = this.#isSubscribing = false;
    this.#link.detach(this.#listener);
  }

  /** @param {string} type @param {Record<string, any>} fields */
  #command(type, fields) {
    this.#attach();
    return this.#link.request({type, thread: this.id, key: newId(), ...fields}, {durable: true});
  }

  /** @param {boolean} afresh whether to subscribe without a cursor, for a new snapshot */
  #enter(afresh) {
    this.#clearTimers();
    this.#isSubscribing = true;
    this.#transcript.dropHeld();
    const cursor = afresh ? null : this.#transcript.cursor();
    const request = {type: "subscribe", thread: this.id, ...(cursor ? {cursor} : {})};
    this.#link.request(request).catch((error) => this.#onRefused(error));
  }

  /** @param {DurableAgentsError} error */
  #onRefused(error) {
    this.#isSubscribing = false;
    if (error.code === "disconnected") return; // the link reconnects and calls onOpen
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
      this.#clearTimers();
      this.#isSubscribing = false;
    }
    this.#changed();
  }

  #clearTimers() {
    clearTimeout(this.#fillTimer);
    clearTimeout(this.#retryTimer);
    this.#fillTimer = undefined;
  }

  /** @param {Frame} frame */
  #receive(frame) {
    if (frame.type === "snapshot") this.#transcript.reset(frame);
    if (frame.type === "snapshot" || frame.type === "resumed") this.#onSubscribed();
    else if (frame.type === "delta") this.#onDelta(frame);
    else if (frame.type === "deltas") this.#onFill(frame);
    else if (frame.type === "reset") this.#enter(true);
    else if (frame.type === "page") this.#transcript.addOlder(frame.messages, frame.hasOlder);
    // An error without a request means that the thread is gone.
    else if (frame.type === "error" && frame.id == null) this.#refused = problemOf(frame);
    else if (frame.rev === undefined || !this.#transcript.commit(frame)) return;
    this.#isStopping &&= this.#transcript.isRunning;
    this.#changed();
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

  /** @param {Frame} frame the reply to a fill; if it does not close the gap, the store subscribes again */
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
    this.#onChange(this.getSnapshot());
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
      isRecovering: isRunning && (retry !== null || this.#transcript.isRecovering),
      isReplaying: loaded && this.#isSubscribing,
      refused: this.#refused,
      readOnly: this.#refused ?? this.#transcript.readOnly,
      connection: this.#link.connection,
    });
  }
}

/** @type {(error: any) => Problem} */
const problemOf = (error) => ({code: error.code ?? "unknown", message: error.message});

// ------------------------------------------------------------------------------------------------------- Thread list

const REFRESH_MS = 10_000;
const PAGE = 30;

/**
 * @typedef {object} ThreadListSnapshot
 * @property {Record<string, any>[]} threads the most recently changed first
 * @property {boolean} hasMore whether `loadMore` has something to load
 * @property {boolean} isLoading
 * @property {Problem|null} error why the list could not be loaded
 */

/**
 * Returns the store of the caller's threads, which are loaded with the first listener. Archived threads are left out,
 * unless the filter's `archived` is true; then there are only archived ones. Threads that this client follows
 * are updated at once. For the others the list is reloaded when the page becomes visible and, while it is visible and a
 * thread runs, every ten seconds.
 * @param {ReturnType<typeof restApi>} api
 * @param {ThreadFilter} filter
 */
function threadList(api, filter) {
  /** @type {Set<() => void>} */
  const listeners = new Set();
  /** @type {Map<string, Record<string, any>>} */
  const rows = new Map();
  /** @type {string|null} */
  let next = null;
  let isLoading = true;
  /** @type {Problem|null} */
  let error = null;
  /** Requests run one after the other, so that an old answer cannot replace a newer one. @type {Promise<void>} */
  let last = Promise.resolve();
  /** @type {ThreadListSnapshot|null} */
  let snapshot = null;
  /** @type {(() => void)|null} */
  let stop = null;

  const changed = () => {
    snapshot = null;
    for (const listener of [...listeners]) listener();
  };
  /** @type {(query: ThreadFilter & {page?: string}, isWhole: boolean) => Promise<void>} `isWhole`: other threads are removed */
  const load = (query, isWhole) =>
    (last = last.then(async () => {
      try {
        const answer = await api.listThreads(query);
        if (isWhole) rows.clear();
        for (const thread of answer.results) rows.set(thread.id, thread);
        next = answer.next;
        error = null;
      } catch (problem) {
        error = problemOf(problem);
      }
      isLoading = false;
      changed();
    }));
  /** Loads as many threads again as are listed. */
  const refresh = () => load({archived: false, ...filter, limit: Math.min(MOST_ROWS, Math.max(rows.size, filter.limit ?? PAGE))}, true);
  const start = () => {
    refresh();
    const timer = setInterval(() => {
      if (!page.isHidden() && [...rows.values()].some(({status}) => RUNNING.has(status))) refresh();
    }, REFRESH_MS);
    const unlisten = page.listen(refresh, () => {});
    return () => {
      clearInterval(timer);
      unlisten();
      stop = null;
    };
  };
  /** Lists a thread, or replaces it. @param {Record<string, any>} thread */
  const put = (thread) => {
    rows.set(thread.id, thread);
    changed();
  };
  return {
    /** @param {() => void} listener @returns {() => void} */
    subscribe(listener) {
      listeners.add(listener);
      stop ??= start();
      return () => void (listeners.delete(listener) && !listeners.size && stop?.());
    },
    /** The current state: the same object until something changes. @returns {ThreadListSnapshot} */
    getSnapshot: () =>
      (snapshot ??= {
        threads: [...rows.values()].sort((one, other) => other.updated_at.localeCompare(one.updated_at)),
        hasMore: next !== null,
        isLoading,
        error,
      }),
    refresh,
    put,
    /** Loads the next page. */
    loadMore: () => (next ? load({page: next}, false) : last),
    /** Lists the threads that contain these words; all for an empty text. @param {string} words */
    search(words) {
      filter = {...filter, search: words || undefined};
      rows.clear();
      return refresh();
    },
    /** @param {string} id @param {string} title */
    rename: (id, title) => api.updateThread(id, {title}).then(put),
    /** @param {string} id @param {boolean} [archived] */
    archive: (id, archived = true) => api.updateThread(id, {archived}).then(refresh),
    /** Deletes a thread with everything in it. @param {string} id */
    remove: (id) => api.deleteThread(id).then(refresh),
    /** Changes a thread in the list without a request. Ignores threads that are not listed. @param {string} id @param {Record<string, any>} changes */
    update(id, changes) {
      const thread = rows.get(id);
      if (!thread || Object.keys(changes).every((key) => thread[key] === changes[key])) return;
      put({...thread, ...changes, updated_at: new Date().toISOString()});
    },
  };
}

// ------------------------------------------------------------------------------------------------------- Smooth text

/** A backlog of text is shown within about this time, however long the text is. */
const CATCH_UP_SECONDS = 0.5;

/**
 * Shows a text that grows in bursts at an even pace: a number of characters per second, more when it falls behind. The
 * first text is shown at once unless `startStreaming` is set. Every text is shown at once if the reader prefers reduced
 * motion or cannot see the page.
 *
 * @param {(visible: string, state: {cursor: number, isStreaming: boolean}) => void} show
 * @param {{charsPerSec?: number, startStreaming?: boolean}} [options]
 * @returns {{update: (text: string) => void, close: () => void}} `update` takes the whole text so far
 */
export function smoothText(show, {charsPerSec = 256, startStreaming = false} = {}) {
  let text = "";
  let cursor = startStreaming ? 0 : Infinity;
  let before = 0;
  let isScheduled = false;
  let isClosed = false;
  const isCalm = globalThis.matchMedia?.("(prefers-reduced-motion: reduce)").matches;

  const step = () => {
    isScheduled = false;
    const pace = Math.max(charsPerSec, (text.length - cursor) / CATCH_UP_SECONDS);
    cursor += (pace * (Date.now() - before)) / 1000;
    tell();
  };
  const tell = () => {
    if (isClosed || isScheduled) return;
    before = Date.now();
    const isStreaming = cursor < text.length && !page.isHidden();
    cursor = isStreaming ? cursor : text.length;
    const end = Math.floor(cursor);
    const isWithinCharacter = Number(text.codePointAt(end - 1)) > 0xffff;
    show(text.slice(0, end - Number(isWithinCharacter)), {cursor: end, isStreaming});
    isScheduled = isStreaming;
    if (isStreaming) beforePaint(step);
  };
  return {
    update(after) {
      if (isCalm || !after.startsWith(text.slice(0, Math.floor(cursor)))) cursor = Infinity;
      text = after;
      tell();
    },
    close() {
      isClosed = true;
    },
  };
}

// ------------------------------------------------------------------------------------------------------------ Client

/**
 * Creates a client of one server. It connects with its first subscribed thread; `close` ends everything.
 * @param {ClientOptions} [options]
 */
export function createClient(options = {}) {
  const {url = "/agents/"} = options;
  const base = new URL(url, globalThis.location?.href ?? "http://server"); // a server creates the client but does not use it
  const http = httpOf(base, options);
  const link = new Link(transportOf(base, options, http));
  const api = restApi(http);
  /** @type {Map<string, ThreadStore>} */
  const stores = new Map();
  /** @type {Map<string, ThreadList>} */
  const lists = new Map();
  return {
    /** The store of a thread: the same one for the same id until it is closed. @param {string} id */
    thread(id) {
      const store = stores.get(id) ?? new ThreadStore(id, link, () => stores.delete(id), tellLists);
      stores.set(id, store);
      return store;
    },
    /** The store of the list of threads: the same one for the same filter. @param {ThreadFilter} [filter] */
    threads(filter = {}) {
      const key = JSON.stringify(filter);
      const list = lists.get(key) ?? threadList(api, filter);
      lists.set(key, list);
      return list;
    },
    connection: {subscribe: link.watch, getSnapshot: () => link.connection},
    connect: () => link.connect(),
    close() {
      for (const store of [...stores.values()]) store.close();
      link.close();
    },
    ...api,
  };

  /** @param {Snapshot} snapshot */
  function tellLists({threadId: id, status, title}) {
    if (status !== null) for (const list of lists.values()) list.update(id, {status, title});
  }
}

/** @type {(base: URL, options: ClientOptions, http: Http) => Transport} */
function transportOf(base, {transport, WebSocket: Socket = globalThis.WebSocket, socketUrl = "/ws/agents/", ticket}, http) {
  const overHttp = httpTransport(http, transport === "polling");
  if (transport === "sse" || transport === "polling") return overHttp;
  const url = new URL(socketUrl, base);
  url.protocol = url.protocol.replace("http", "ws");
  const socket = socketTransport(url.href, Socket, ticket ?? http.ticket);
  return transport === "websocket" ? socket : autoTransport(socket, overHttp);
}

/** @typedef {ReturnType<typeof threadList>} ThreadList */
/** @typedef {{agent?: string, status?: string, search?: string, archived?: boolean, limit?: number}} ThreadFilter */

/**
 * The HTTP API. Every method rejects with DurableAgentsError.
 * @param {Http} http
 */
function restApi({call, upload}) {
  return {
    /** The public agents, with their tools. @returns {Promise<Agent[]>} */
    listAgents: async () => (await call("GET", "agents/")).results,
    /**
     * One page of threads, the most recently changed first. For the next page, pass `next` as `page`.
     * @param {ThreadFilter & {page?: string|null}} [filter]
     * @returns {Promise<{next: string|null, previous: string|null, results: Record<string, any>[]}>}
     */
    listThreads: ({page: next, ...filter} = {}) => {
      const given = Object.entries(filter).filter(([, value]) => value !== undefined);
      return call("GET", next ?? `threads/?${new URLSearchParams(/** @type {any} */ (given))}`);
    },
    /**
     * Creates a thread. With a `client_id` it can be repeated safely and returns the same thread.
     * @param {{agent: string, prompt?: string, parts?: Part[], client_id?: string, title?: string}} thread
     * @returns {Promise<Record<string, any>>}
     */
    createThread: (thread) => call("POST", "threads/", {client_id: newId(), ...thread}),
    /**
     * @param {string} id
     * @param {{title?: string, archived?: boolean, metadata?: object}} changes
     * @returns {Promise<Record<string, any>>}
     */
    updateThread: (id, changes) => call("PATCH", threadPath(id), changes),
    /** @param {string} id @returns {Promise<void>} */
    deleteThread: (id) => call("DELETE", threadPath(id)),
    /**
     * Uploads a file and resolves with the part to send it with. `onProgress` is called with the share that is sent, 0
     * to 1.
     * @param {File} file
     * @param {UploadSettings} [settings]
     * @returns {Promise<Part>}
     */
    uploadAttachment: upload,
  };
}

/** @typedef {(method: string, path: string, body?: object, signal?: AbortSignal) => Promise<any>} Call */
/** @typedef {{onProgress?: (share: number) => void}} UploadSettings */
/** @typedef {ReturnType<typeof httpOf>} Http */

/** Sends requests to the server, with the headers and the CSRF token of the options. @param {URL} base @param {ClientOptions} options */
function httpOf(base, {headers: own, csrf, fetch: send}) {
  const ownHeaders = () => new Headers(typeof own === "function" ? own() : own);
  const headersOf = (/** @type {string} */ method) => {
    const headers = ownHeaders();
    headers.set("Accept", "application/json");
    const inCookie = globalThis.document?.cookie.match(/(?:^|;\s*)csrftoken=([^;]+)/)?.[1];
    if (method !== "GET") headers.set("X-CSRFToken", (typeof csrf === "function" ? csrf() : csrf) ?? inCookie ?? "");
    return headers;
  };
  /** @type {(method: string, path: string, body?: object, signal?: AbortSignal) => Promise<Response>} */
  const request = (method, path, body, signal) => {
    const headers = headersOf(method);
    if (body) headers.set("Content-Type", "application/json");
    const sent = {method, headers, body: body && JSON.stringify(body), signal};
    return (send ?? globalThis.fetch)(new URL(path, base), {...sent, credentials: "same-origin"}).catch(() => {
      throw disconnected();
    });
  };
  /** @type {Call} */
  const call = async (method, path, body, signal) => readAnswer(await request(method, path, body, signal));
  return {
    request,
    call,
    /** Uses XMLHttpRequest, because `fetch` does not report upload progress. @type {(file: File, settings?: UploadSettings) => Promise<Part>} */
    async upload(file, {onProgress} = {}) {
      /** @type {Response} */
      const response = await new Promise((resolve, reject) => {
        const xhr = new XMLHttpRequest();
        xhr.open("POST", new URL("attachments/", base));
        headersOf("POST").forEach((value, name) => xhr.setRequestHeader(name, value));
        xhr.upload.onprogress = ({"loaded": sent, total}) => onProgress?.(sent / total); // quoted: see .ci/build.mjs
        xhr.onloadend = () => {
          const {status, responseText} = xhr; // without an answer, the status is 0
          status ? resolve(new Response(responseText, {status})) : reject(disconnected());
        };
        const form = new FormData();
        form.append("file", file, file.name);
        xhr.send(form);
      });
      const {url, mediaType, filename} = await readAnswer(response);
      return {type: "file", mediaType, url, filename};
    },
    /** A ticket for the websocket, if the caller signs in with a header. @returns {Promise<string>|undefined} */
    ticket: () => (ownHeaders().has("Authorization") ? call("POST", "ws-ticket/").then(({ticket}) => ticket) : undefined),
  };
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
