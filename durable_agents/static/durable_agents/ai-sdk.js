/**
 * A chat of the AI SDK, for `useChat` and its relatives in Vue, Svelte and Angular, that keeps up with its thread.
 *
 *     const chat = createChat({Chat, DefaultChatTransport, id});
 *     const {messages, sendMessage, stop} = useChat({chat});
 *
 * It works with versions 6 and 7 of the AI SDK. The page passes the classes, so this module has no dependency. After
 * each response, the chat loads what the server has stored, and reads on while the run goes on or waits for people,
 * browsers or services. It sends a request again until the server responds. `stop` stops the run.
 */

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 30_000;
/** A response that ends sooner is followed by a pause. */
const SHORT_MS = 5000;
/** The server sends something at least every 15 seconds. */
const SILENCE_MS = 45_000;
/** What a proxy answers while the server restarts, and the server while its database does. */
const UNREACHABLE = [502, 503, 504];
const WAITING = ["approval-requested", "input-available"];

/** @typedef {{id: string, role: string, parts: {type: string, [field: string]: any}[], [field: string]: any}} StoredMessage */
/** @typedef {{id: string, client_id: string|null, title: string, status: string, is_running: boolean, error: {code: string, message: string}|null, [field: string]: any}} StoredThread */
/** @typedef {{code: string, text: string}} Problem what went wrong: a code of the API, empty for other errors, and a text for the user */
/** @typedef {{message: StoredMessage, text: string, problem: Problem}} Refused a message that the server has not stored, its text, and why */

/**
 * @typedef {object} ChatAdditions what the chat has beside the members of the AI SDK's `Chat`
 * @property {StoredThread|null} thread the thread as of the last load; null before that. It is also loaded, without the messages, when the server has accepted a message or the answer to a tool call. As soon as a request for an answer is accepted, the status is `streaming` and there is no error
 * @property {() => Promise<boolean>} load loads the thread and its messages; returns whether a run is in progress
 * @property {() => Promise<void>} resumeStream reads on until no run is in progress; opens a closed chat again
 * @property {() => Promise<void>} stop stops the run, for all clients
 * @property {() => void} close ends all requests; the run goes on
 */

/**
 * @typedef {object} ChatOptions other options are those of the AI SDK's `Chat`
 * @property {new (init: any) => any} Chat the class `Chat` of `@ai-sdk/react`, `@ai-sdk/vue`, `@ai-sdk/svelte` or `@ai-sdk/angular`
 * @property {new (init: any) => any} DefaultChatTransport the class of `ai`
 * @property {string} id the thread's id, or the `client_id` of a thread that the first message creates
 * @property {boolean} [isNew] whether no thread has this id yet, so that there is nothing to load
 * @property {string} [url] where the app's URLs are; `/agents/` by default
 * @property {string} [agent] the agent of a new thread
 * @property {Record<string, string> | (() => Record<string, string>)} [headers] more headers; the CSRF token of the cookie `csrftoken` is sent anyway
 * @property {typeof globalThis.fetch} [fetch]
 * @property {(thread: StoredThread) => void} [onThread] called whenever `thread` changes: for the first time when the server has accepted the first message, or stored messages are loaded
 * @property {(isConnected: boolean) => void} [onConnection] called when the server cannot be reached, and when it can again
 * @property {(refused: Refused) => void} [onRefused] called when the server has not stored a message; the chat does not show it any more
 * @property {(call: any) => void} [onToolCall] called once for each tool call, as by the AI SDK
 */

/**
 * Returns a chat of the class `Chat`.
 *
 * Call `resumeStream` when the page shows the chat, which loads the messages, and `close` when it no longer does.
 * `sendMessage` may be called at any time, also during an answer. `addToolOutput` and `addToolApprovalResponse` reach
 * the server at once; they reject if it refuses.
 *
 * @template {new (init: any) => any} C
 * @param {ChatOptions & {Chat: C} & Record<string, any>} options
 * @returns {InstanceType<C> & ChatAdditions}
 */
export function createChat({
  Chat,
  DefaultChatTransport,
  id,
  url = "/agents/",
  agent = "",
  isNew = false,
  headers,
  fetch: ask = (...request) => fetch(...request),
  onThread,
  onConnection,
  onRefused,
  onToolCall,
  ...options
}) {
  const root = url.replace(/\/*$/, "/");
  const path = encodeURIComponent(id);
  const allHeaders = () => ({...csrfHeader(), ...(typeof headers === "function" ? headers() : headers)});
  /** @type {Set<string>} */
  const called = new Set();
  /** Messages that the server has not accepted, by id. @type {Map<string, {message: StoredMessage, problem: Problem}>} */
  const refused = new Map();
  /** The ids of messages that are stored. @type {Set<string>} */
  const known = new Set();
  let closing = new AbortController();
  /** Whose `follow` is at work. @type {AbortController|null} */
  let following = null;
  let isConnected = true;
  /** How many requests of `sendMessage` and `regenerate` are open. */
  let sending = 0;
  /** Counts what brings a newer thread: a refresh that is outdated by a load or by the next refresh shows nothing. */
  let latest = 0;

  const open = () => {
    if (closing.signal.aborted) closing = new AbortController();
  };

  /** @param {boolean} now */
  const connected = (now) => {
    if (now === isConnected) return;
    isConnected = now;
    onConnection?.(now);
  };

  /**
   * Asks until the server responds.
   * @param {any} address
   * @param {RequestInit} [init]
   * @param {boolean} [isWhole] whether the body is needed before the response counts
   */
  async function reach(address, init = {}, isWhole = false) {
    const signal = AbortSignal.any([closing.signal, ...(init.signal ? [init.signal] : [])]);
    for (let tries = 1; ; tries++) {
      let waitMs = 0;
      try {
        const response = await ask(address, {...init, signal});
        if (!UNREACHABLE.includes(response.status)) {
          const whole = isWhole && response.ok ? new Response(await response.text(), response) : response;
          connected(true);
          return whole;
        }
        // NaN for a date
        waitMs = Math.min(1000 * Number(response.headers.get("Retry-After")) || 0, LONGEST_PAUSE_MS);
      } catch (error) {
        if (signal.aborted) throw error;
      }
      connected(false);
      await pause(tries, signal, waitMs);
    }
  }

  /** @type {typeof globalThis.fetch} */
  const transportFetch = async (address, init = {}) => {
    const {trigger, message} = init.method === "POST" ? JSON.parse(String(init.body)) : {};
    const isSent = trigger === "submit-message" && message.role === "user";
    if (isSent) refused.set(message.id, {message, problem: {code: "", text: ""}});
    const {signal} = closing;
    // A repeated request to answer again would replace the new answer.
    const asking = trigger === "regenerate-message" ? ask(address, init) : reach(address, init);
    const response = await asking.catch((error) => {
      isNew = false; // perhaps: the request may have arrived
      throw error;
    });
    isNew &&= !response.ok;
    if (isSent && response.ok) {
      refused.delete(message.id);
      known.add(message.id);
    } else if (isSent) refused.set(message.id, {message, problem: problemOf({message: await response.clone().text()})});
    if (!response.ok || !response.body) return response;
    if (init.method === "POST") {
      if (chat.thread) show({...chat.thread, status: "streaming", is_running: true, error: null});
      void refresh();
    }
    return new Response(unbroken(response.body, () => signal.aborted || init.signal?.aborted || connected(false)), response);
  };

  const chat = /** @type {any} */ (
    new Chat({
      ...options,
      id,
      transport: new DefaultChatTransport({
        api: `${root}chat${agent && `/${encodeURIComponent(agent)}`}?wait=1`,
        headers: allHeaders,
        fetch: transportFetch,
        prepareSendMessagesRequest: lastMessageOnly,
      }),
      onToolCall(/** @type {any} */ call) {
        const {toolCallId} = call.toolCall;
        // Each response that reads on repeats the calls of the answer.
        if (!called.has(toolCallId)) onToolCall?.(call);
        called.add(toolCallId);
      },
    })
  );
  const {sendMessage, regenerate, resumeStream, stop} = chat;

  /**
   * @param {string} place
   * @param {object} [body]
   */
  const request = (place, body) =>
    reach(
      `${root}${place}`,
      {
        ...(body && {method: "POST", body: JSON.stringify(body)}),
        headers: {...(body && {"Content-Type": "application/json"}), ...allHeaders()},
      },
      true,
    );

  /** @param {StoredThread} thread */
  const show = (thread) => {
    chat.thread = thread;
    onThread?.(thread);
  };

  /** Loads the thread without its messages. */
  async function refresh() {
    const mine = ++latest;
    const {signal} = closing;
    try {
      const response = await request(`threads/${path}/`);
      if (response.ok && mine === latest) show(await response.json());
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }

  /** Returns all stored messages, or null if the caller has no such thread. @returns {Promise<StoredMessage[]|null>} */
  async function stored() {
    const messages = [];
    for (let query = "?streams=1&limit=200"; query; ) {
      const response = await request(`threads/${path}/messages/${query}`);
      if (!response.ok) return null;
      const {results, next} = await response.json();
      messages.push(...results);
      query = next ? new URL(next, "http://page").search : "";
    }
    return messages;
  }

  /** Returns a text that is not stored to the page. @param {{message: StoredMessage, problem: Problem}} entry */
  function takeBack({message, problem}) {
    const {id} = message;
    refused.delete(id);
    if (!known.has(id)) chat.messages = chat.messages.filter((/** @type {StoredMessage} */ other) => other.id !== id);
    onRefused?.({message, text: textOf(message), problem});
  }

  async function load() {
    // In this order: the messages of a run that is over are complete.
    const response = await request(`threads/${path}/`);
    const thread = response.ok ? await response.json() : null;
    const messages = thread && (await stored());
    if (sending) return false; // what was loaded may lack the message that is being sent
    if (messages) {
      chat.messages = messages;
      for (const {id} of messages) known.add(id);
      latest++;
      show(thread);
    }
    // After any other error, nobody knows what is stored.
    if (!messages && response.status !== 404) return Boolean(chat.thread?.is_running);
    for (const entry of refused.values()) {
      const same = messages?.find((/** @type {StoredMessage} */ {id}) => id === entry.message.id);
      if (!same || textOf(same) !== textOf(entry.message)) takeBack(entry); // an edit can be refused, too
    }
    refused.clear();
    return Boolean(thread?.is_running);
  }

  /** Loads and reads on in turn until no run is in progress, or until a request of its own brings the next answer. */
  async function follow() {
    if (following === closing || isNew) return;
    const mine = (following = closing);
    const {signal} = mine;
    try {
      for (let tries = 0; !sending && !signal.aborted && (await load()); ) {
        await pause(tries, signal);
        if (sending) return;
        const beganAt = Date.now();
        await resumeStream();
        tries = Date.now() - beganAt < SHORT_MS ? tries + 1 : 0;
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      if (following === mine) following = null;
    }
  }

  /** @param {(...given: any[]) => Promise<void>} send */
  const followed =
    (send) =>
    async (/** @type {any[]} */ ...given) => {
      open();
      sending++;
      try {
        await send(...given);
      } finally {
        sending--;
        for (const [id, entry] of refused) if (entry.problem.text && !known.has(id)) takeBack(entry);
        void follow();
      }
    };

  /**
   * @param {string} toolCallId
   * @param {string} action
   * @param {object} body
   */
  async function answer(toolCallId, action, body) {
    const response = await request(`threads/${path}/tool-calls/${encodeURIComponent(toolCallId)}/${action}/`, body);
    if (!response.ok) throw new Error(await response.text());
    if (following === closing) void refresh();
    else void follow();
  }

  return Object.assign(chat, {
    thread: null,
    load,
    sendMessage: followed(sendMessage),
    regenerate: followed(regenerate),
    resumeStream() {
      open();
      return follow();
    },
    async stop() {
      if (!isConnected) await stop(); // a message that is still being sent is not sent any more
      const response = await request(`chat/${path}/stop`, {});
      if (!response.ok) await stop();
    },
    close: () => closing.abort(),
    addToolOutput: (/** @type {any} */ {toolCallId, state, output, errorText}) =>
      state === "output-error" ? answer(toolCallId, "error", {error: errorText}) : answer(toolCallId, "result", {result: output}),
    addToolApprovalResponse: (/** @type {any} */ {id, approved, reason}) => answer(id, approved ? "approve" : "reject", reason ? {reason} : {}),
  });
}

/**
 * Returns whether a message has a tool call that waits: for a person, a browser or a service, or for a tool that runs
 * and has not reported progress. The parts of these calls are alike.
 * @param {{parts: {type: string}[]}} message
 */
export const isWaiting = ({parts}) => parts.some((part) => "state" in part && WAITING.includes(String(part.state)));

/**
 * Returns what went wrong. The message of the AI SDK's error is the body of a response that refused a request, or a text.
 * @param {{message: string}} error
 * @returns {Problem}
 */
export function problemOf({message}) {
  try {
    const {code, detail} = JSON.parse(message);
    return {code, text: detail};
  } catch {
    return {code: "", text: message};
  }
}

/** The server has the other messages. @param {any} request */
const lastMessageOnly = ({id, messages, body, trigger, messageId}) => ({body: {...body, id, message: messages.at(-1), trigger, messageId}});

/** @param {StoredMessage} message */
const textOf = ({parts}) => parts.map(({type, text}) => (type === "text" ? text : "")).join("");

/** @returns {Record<string, string>} */
function csrfHeader() {
  const token = globalThis.document?.cookie.match(/(?:^|; )csrftoken=(\w+)/)?.[1];
  return token ? {"X-CSRFToken": token} : {};
}

/**
 * Returns the bytes of a body. It ends where the connection is lost, as if the server had ended it there: the AI SDK
 * would otherwise show an error, and `follow` reads on.
 * @param {ReadableStream<Uint8Array>} body
 * @param {() => unknown} onLost
 */
function unbroken(body, onLost) {
  const reader = body.getReader();
  let isCancelled = false;
  return new ReadableStream({
    async pull(controller) {
      /** @type {ReturnType<typeof setTimeout>|undefined} */
      let silence;
      const silent = new Promise((_, reject) => (silence = setTimeout(reject, SILENCE_MS)));
      try {
        const {done, value} = /** @type {any} */ (await Promise.race([reader.read(), silent]));
        if (isCancelled) return;
        if (done) controller.close();
        else controller.enqueue(value);
      } catch {
        if (isCancelled) return;
        onLost();
        controller.close();
        reader.cancel().catch(() => {});
      } finally {
        clearTimeout(silence);
      }
    },
    cancel(reason) {
      isCancelled = true;
      return reader.cancel(reason);
    },
  });
}

/**
 * Waits before the try with this number, counted from zero: longer each time, but at most until the page is online or
 * visible again. Rejects when `signal` is aborted.
 * @param {number} tries
 * @param {AbortSignal} signal
 * @param {number} [atLeastMs]
 */
async function pause(tries, signal, atLeastMs = 0) {
  if (tries > 0) {
    const limit = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** (tries - 1));
    const done = new AbortController();
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, Math.max(atLeastMs, limit * (0.5 + Math.random() / 2)));
      const wake = () => (clearTimeout(timer), resolve(undefined));
      const once = {signal: done.signal};
      globalThis.addEventListener?.("online", wake, once);
      globalThis.document?.addEventListener("visibilitychange", wake, once);
      signal.addEventListener("abort", wake, once);
    });
    done.abort();
  }
  signal.throwIfAborted();
}
