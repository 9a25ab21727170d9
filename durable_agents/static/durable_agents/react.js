/**
 * React hooks for durable agents, for React 18 and 19.
 *
 *     const client = createClient();
 *     const {messages, sendMessage, isRunning} = useAgentChat({client, threadId});
 *
 * Every hook reads the stores of the client. So components that show the same thread share one subscription, also when
 * StrictMode mounts them twice. A thread that is shown again within seconds need not be loaded again. In server
 * rendering nothing is read, and each thread is shown as still loading.
 */

import {smoothText} from "django-durable-agents";
import {useCallback, useEffect, useMemo, useRef, useState, useSyncExternalStore} from "react";

/** @typedef {ReturnType<typeof import("django-durable-agents").createClient>} Client */
/** @typedef {import("django-durable-agents").Snapshot} Snapshot */
/** @typedef {import("django-durable-agents").Message} Message */
/** @typedef {import("django-durable-agents").Part} Part */
/** @typedef {import("django-durable-agents").Connection} Connection */
/** @typedef {import("django-durable-agents").ThreadFilter} ThreadFilter */
/** @typedef {import("django-durable-agents").ThreadListSnapshot} ThreadListSnapshot */
/** @typedef {{client: Client, threadId: string|null|undefined}} ThreadOptions `threadId` is null until there is a thread */
/** @typedef {Message & {metadata: Record<string, any> & {key: string}}} KeyedMessage */
/** @typedef {string | {text?: string, parts?: Part[], clientId?: string}} Outgoing */

/** @type {Connection} */
const IDLE = {state: "idle", retryAt: null, reason: null};

/** @type {Snapshot} */
const NOTHING = {
  threadId: "",
  messages: [],
  status: null,
  title: "",
  rev: 0,
  error: null,
  retry: null,
  hasOlder: false,
  isLoading: true,
  isRunning: false,
  isStopping: false,
  isComplete: false,
  isFailed: false,
  isStopped: false,
  isRecovering: false,
  isReplaying: false,
  refused: null,
  readOnly: null,
  connection: IDLE,
};
const NO_THREAD = {...NOTHING, isLoading: false};
/** @type {ThreadListSnapshot} */
const NO_LIST = {threads: [], hasMore: false, isLoading: true, error: null};
const nothing = () => () => undefined;

/**
 * Reads a thread's state with `select`. The component renders again only when what is selected has changed.
 * @template T
 * @param {ThreadOptions} options
 * @param {(snapshot: Snapshot) => T} select a function that is the same at each call
 * @returns {T}
 */
function useSelected({client, threadId}, select) {
  const [subscribe, read, readOnServer] = useMemo(() => {
    /** @type {T} */
    let last;
    const selected = (/** @type {Snapshot} */ snapshot) => {
      const now = select(snapshot);
      return (last = last !== undefined && isSame(last, now) ? last : now);
    };
    return threadId
      ? [client.thread(threadId).subscribe, () => selected(client.thread(threadId).getSnapshot()), () => selected(NOTHING)]
      : [nothing, () => selected(NO_THREAD), () => selected(NO_THREAD)];
  }, [client, threadId, select]);
  return useSyncExternalStore(subscribe, read, readOnServer);
}

/** @type {(one: any, other: any) => boolean} */
const isSame = (one, other) =>
  Array.isArray(one) && one.length === other.length ? one.every((value, index) => Object.is(value, other[index])) : one === other;

/** @type {(snapshot: Snapshot) => Snapshot} */
const whole = (snapshot) => snapshot;

/**
 * A key for React that stays the same while an optimistic message becomes a stored one.
 * @param {Message} message
 * @param {string} [threadId]
 * @returns {string}
 */
export const getMessageKey = ({id, metadata}, threadId) => metadata?.key ?? (threadId ? `${threadId}-${id}` : id);

/** Messages with their keys: the same object for the same message. @type {WeakMap<Message, KeyedMessage>} */
const keyed = new WeakMap();

/** @type {(snapshot: Snapshot) => KeyedMessage[]} */
const keyedMessages = ({messages, threadId}) =>
  messages.map((message) => {
    const known = keyed.get(message) ?? {...message, metadata: {...message.metadata, key: `${threadId}-${message.id}`}};
    keyed.set(message, known);
    return known;
  });

/** Returns the message without the parts that are not finished. @type {(message: KeyedMessage) => KeyedMessage} */
function settled(message) {
  const parts = message.parts.filter(({state}) => state !== "streaming" && state !== "input-streaming");
  return parts.length === message.parts.length ? message : {...message, parts};
}

const threadFacts = (/** @type {Snapshot} */ {status, title, rev, error, retry, hasOlder, refused, readOnly}) =>
  /** @type {const} */ ([status, title, rev, error, retry, hasOlder, refused, readOnly]);

const statusFacts = (/** @type {Snapshot} */ it) =>
  /** @type {const} */ ([it.status, it.isLoading, it.isRunning, it.isStopping, it.isComplete, it.isFailed, it.isStopped, it.isRecovering, it.isReplaying]);

/**
 * A thread without its messages, or null while it is loading.
 * @param {ThreadOptions} options
 */
export function useThread(options) {
  const facts = useSelected(options, threadFacts);
  const {threadId} = options;
  return useMemo(() => {
    const [status, title, rev, error, retry, hasOlder, refused, readOnly] = facts;
    return status === null && !refused ? null : {id: threadId, status, title, rev, error, retry, hasOlder, refused, readOnly};
  }, [facts, threadId]);
}

/**
 * What a thread is doing.
 * @param {ThreadOptions} options
 */
export function useThreadStatus(options) {
  const facts = useSelected(options, statusFacts);
  return useMemo(() => {
    const [status, isLoading, isRunning, isStopping, isComplete, isFailed, isStopped, isRecovering, isReplaying] = facts;
    return {status, isLoading, isRunning, isStopping, isComplete, isFailed, isStopped, isRecovering, isReplaying};
  }, [facts]);
}

/**
 * The messages of a thread, oldest first, each with `metadata.key`.
 * @param {ThreadOptions} options
 * @returns {KeyedMessage[]}
 */
export const useMessages = (options) => useSelected(options, keyedMessages);
export const useThreadMessages = useMessages;

/**
 * A conversation and everything that can be done with it.
 * @param {ThreadOptions & {stream?: boolean}} options with `stream` false, messages show only what is finished
 */
export function useAgentChat({client, threadId, stream = true}) {
  const options = {client, threadId};
  const snapshot = useSelected(options, whole);
  const thread = useThread(options);
  const messages = useMemo(() => {
    const all = keyedMessages(snapshot);
    return stream ? all : all.map(settled);
  }, [snapshot, stream]);
  const actions = useMemo(() => {
    const store = () => {
      if (!threadId) throw new Error("There is no thread yet: pass its id as `threadId`.");
      return client.thread(threadId);
    };
    return {
      /** @param {Outgoing} message @param {{parts?: Part[], clientId?: string}} [more] */
      sendMessage: (message, more = {}) => {
        const {text = "", ...rest} = typeof message === "string" ? {text: message} : message;
        return store().send(text, {...rest, ...more});
      },
      stop: () => store().stop(),
      resume: () => store().resume(),
      /** @param {string} [messageId] */
      regenerate: (messageId) => store().regenerate(messageId),
      /** @param {string} messageId @param {string | Part[]} said */
      edit: (messageId, said) => store().edit(messageId, said),
      /** @param {string} toolCallId @param {any} result */
      addToolResult: (toolCallId, result) => store().addToolResult(toolCallId, result),
      /** @param {string} toolCallId @param {string} error */
      addToolError: (toolCallId, error) => store().addToolError(toolCallId, error),
      /** @param {string} toolCallId @param {{arguments?: Record<string, any>, reason?: string}} [decision] */
      approve: (toolCallId, decision) => store().approve(toolCallId, decision),
      /** @param {string} toolCallId @param {{reason?: string}} [decision] */
      reject: (toolCallId, decision) => store().reject(toolCallId, decision),
      /** @param {number} [limit] */
      loadOlder: (limit) => store().loadOlder(limit),
    };
  }, [client, threadId]);
  const {status, error, connection, hasOlder, isLoading, isRunning, isStopping, isComplete, isFailed, isStopped, isRecovering, isReplaying} = snapshot;
  const state = {status, error, connection, hasOlder, isLoading, isRunning, isStopping, isComplete, isFailed, isStopped, isRecovering, isReplaying};
  return {messages, thread, ...state, ...actions};
}

/**
 * The caller's threads, with search, rename, archive and delete.
 * @param {{client: Client} & ThreadFilter} options
 */
export function useThreadList({client, ...filter}) {
  const key = JSON.stringify(filter);
  const list = useCallback(() => client.threads(JSON.parse(key)), [client, key]);
  const subscribe = useCallback((/** @type {() => void} */ listener) => list().subscribe(listener), [list]);
  const snapshot = useSyncExternalStore(subscribe, () => list().getSnapshot(), () => NO_LIST);
  const {refresh, loadMore, search, rename, archive, remove} = list();
  return {...snapshot, refresh, loadMore, search, rename, archive, remove};
}

/**
 * The state of the connection, with the time of the next retry.
 * @param {{client: Client}} options
 * @returns {Connection}
 */
export function useConnection({client: {connection}}) {
  return useSyncExternalStore(connection.subscribe, connection.getSnapshot, () => IDLE);
}

/**
 * Returns the visible beginning of a text. It grows at an even pace, even if the text grows in bursts.
 * @param {string} text
 * @param {{charsPerSec?: number, startStreaming?: boolean}} [options] by default, the first text is shown at once
 * @returns {[visibleText: string, state: {cursor: number, isStreaming: boolean}]}
 */
export function useSmoothText(text, {charsPerSec, startStreaming = false} = {}) {
  const first = startStreaming ? "" : text;
  /** @type {[string, {cursor: number, isStreaming: boolean}]} */
  const beginning = [first, {cursor: first.length, isStreaming: first !== text}];
  const [state, setState] = useState(beginning);
  /** @type {{current: ReturnType<typeof smoothText>|null}} */
  const smooth = useRef(null);
  useEffect(() => {
    smooth.current = smoothText((visible, now) => setState([visible, now]), {charsPerSec, startStreaming});
    return () => smooth.current?.close();
  }, [charsPerSec, startStreaming]);
  useEffect(() => smooth.current?.update(text), [text, charsPerSec, startStreaming]);
  return state;
}
