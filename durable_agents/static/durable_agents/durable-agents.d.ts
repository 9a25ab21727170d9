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
export function applyChunk(message: Message, chunk: Chunk): Message;
/**
 * Parses the beginning of a JSON text. Returns undefined if it does not contain a value yet.
 * @param {string} text
 * @returns {any}
 */
export function parsePartialJson(text: string): any;
/**
 * Shows a text that grows in bursts at an even pace: a number of characters per second, more when it falls behind. The
 * first text is shown at once unless `startStreaming` is set. Every text is shown at once if the reader prefers reduced
 * motion or cannot see the page.
 *
 * @param {(visible: string, state: {cursor: number, isStreaming: boolean}) => void} show
 * @param {{charsPerSec?: number, startStreaming?: boolean}} [options]
 * @returns {{update: (text: string) => void, close: () => void}} `update` takes the whole text so far
 */
export function smoothText(show: (visible: string, state: {
    cursor: number;
    isStreaming: boolean;
}) => void, { charsPerSec, startStreaming }?: {
    charsPerSec?: number;
    startStreaming?: boolean;
}): {
    update: (text: string) => void;
    close: () => void;
};
/**
 * Creates a client of one server. It connects with its first subscribed thread; `close` ends everything.
 * @param {ClientOptions} [options]
 */
export function createClient(options?: ClientOptions): {
    /** The public agents, with their tools. @returns {Promise<Agent[]>} */
    listAgents: () => Promise<Agent[]>;
    /**
     * One page of threads, the most recently changed first. For the next page, pass `next` as `page`.
     * @param {ThreadFilter & {page?: string|null}} [filter]
     * @returns {Promise<{next: string|null, previous: string|null, results: Record<string, any>[]}>}
     */
    listThreads: ({ page: next, ...filter }?: ThreadFilter & {
        page?: string | null;
    }) => Promise<{
        next: string | null;
        previous: string | null;
        results: Record<string, any>[];
    }>;
    /**
     * Creates a thread. With a `client_id` it can be repeated safely and returns the same thread.
     * @param {{agent: string, prompt?: string, parts?: Part[], client_id?: string, title?: string}} thread
     * @returns {Promise<Record<string, any>>}
     */
    createThread: (thread: {
        agent: string;
        prompt?: string;
        parts?: Part[];
        client_id?: string;
        title?: string;
    }) => Promise<Record<string, any>>;
    /**
     * @param {string} id
     * @param {{title?: string, archived?: boolean, metadata?: object}} changes
     * @returns {Promise<Record<string, any>>}
     */
    updateThread: (id: string, changes: {
        title?: string;
        archived?: boolean;
        metadata?: object;
    }) => Promise<Record<string, any>>;
    /** @param {string} id @returns {Promise<void>} */
    deleteThread: (id: string) => Promise<void>;
    /**
     * Uploads a file and resolves with the part to send it with. `onProgress` is called with the share that is sent, 0
     * to 1.
     * @param {File} file
     * @param {UploadSettings} [settings]
     * @returns {Promise<Part>}
     */
    uploadAttachment: (file: File, settings?: UploadSettings) => Promise<Part>;
    /** The store of a thread: the same one for the same id until it is closed. @param {string} id */
    thread(id: string): ThreadStore;
    /** The store of the list of threads: the same one for the same filter. @param {ThreadFilter} [filter] */
    threads(filter?: ThreadFilter): {
        /** @param {() => void} listener @returns {() => void} */
        subscribe(listener: () => void): () => void;
        /** The current state: the same object until something changes. @returns {ThreadListSnapshot} */
        getSnapshot: () => ThreadListSnapshot;
        refresh: () => Promise<void>;
        put: (thread: Record<string, any>) => void;
        /** Loads the next page. */
        loadMore: () => Promise<void>;
        /** Lists the threads that contain these words; all for an empty text. @param {string} words */
        search(words: string): Promise<void>;
        /** @param {string} id @param {string} title */
        rename: (id: string, title: string) => Promise<void>;
        /** @param {string} id @param {boolean} [archived] */
        archive: (id: string, archived?: boolean) => Promise<void>;
        /** Deletes a thread with everything in it. @param {string} id */
        remove: (id: string) => Promise<void>;
        /** Changes a thread in the list without a request. Ignores threads that are not listed. @param {string} id @param {Record<string, any>} changes */
        update(id: string, changes: Record<string, any>): void;
    };
    connection: {
        subscribe: (watcher: () => void) => () => void;
        getSnapshot: () => Connection;
    };
    connect: () => void;
    close(): void;
};
/** A request that was rejected, or that got no reply before the connection was lost. */
export class DurableAgentsError extends Error {
    /**
     * @param {string} code stable, as in the API
     * @param {string} message
     * @param {{retryable?: boolean, status?: number|null}} [facts]
     */
    constructor(code: string, message: string, { retryable, status }?: {
        retryable?: boolean;
        status?: number | null;
    });
    code: string;
    retryable: boolean;
    status: number | null;
}
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
    loaded: boolean;
    /** Whether an attempt was lost and the next one has not written yet. */
    isRecovering: boolean;
    rev: number;
    snapshotRev: number;
    /** @type {string|null} */
    status: string | null;
    title: string;
    /** @type {Problem|null} */
    error: Problem | null;
    /** @type {Record<string, any>|null} */
    retry: Record<string, any> | null;
    /** @type {Problem|null} */
    readOnly: Problem | null;
    hasOlder: boolean;
    /** @type {Map<string, Entry>} */
    entries: Map<string, Entry>;
    /** @type {Map<string, StreamState>} */
    streams: Map<string, StreamState>;
    /** @type {Set<string>} */
    ended: Set<string>;
    /** @type {Map<string, Message>} */
    drafts: Map<string, Message>;
    get isRunning(): boolean;
    /** The visible messages, oldest first. Unchanged ones are the same objects as before. */
    messages(): Message[];
    /** The cursor to resume from after the connection was lost, or null if there is none. */
    cursor(): {
        rev: number;
        stream: string;
        seq: number;
    } | null;
    /**
     * Applies a frame with a `rev`. Returns false if it was applied before or is included in the snapshot.
     * @param {Frame} frame of type step, tool, message, stream, thread or removed
     */
    commit(frame: Frame): boolean;
    /**
     * Replaces everything with a snapshot. Messages that the server has not accepted yet stay.
     * @param {Frame} frame
     */
    reset(frame: Frame): void;
    /**
     * Applies one delta. Deltas may arrive in any order and repeatedly; each is applied once, in order.
     * @param {{stream: string, message?: string, seq: number, chunks: Chunk[]}} delta
     * @returns {"applied"|"dropped"|"held"|"overflow"} `held`: an earlier delta is missing; `overflow`: too many are held
     */
    delta({ stream, message, seq, chunks }: {
        stream: string;
        message?: string;
        seq: number;
        chunks: Chunk[];
    }): "applied" | "dropped" | "held" | "overflow";
    /**
     * The ranges of missing deltas between those applied and those held.
     * @returns {{stream: string, from: number, to: number}[]}
     */
    gaps(): {
        stream: string;
        from: number;
        to: number;
    }[];
    /** Drops the held deltas: after a new subscription, the server sends them again. */
    dropHeld(): void;
    /**
     * Adds earlier messages, and earlier steps of a visible message. Messages are ordered by position.
     * @param {Message[]} messages
     * @param {boolean} hasOlder
     */
    addOlder(messages: Message[], hasOlder: boolean): void;
    /**
     * Inserts a message or replaces the one with its id. An answer has no parts at first; each step adds some.
     * @param {Message} message
     */
    put(message: Message): void;
    /** Adds the message in the reply to a send, unless a frame has added it already. @param {Message} message */
    acknowledge(message: Message): void;
    /** Shows a user message that the server has not accepted yet. @param {string} id @param {Part[]} parts */
    draft(id: string, parts: Part[]): void;
    /** @param {string} id @param {Problem} problem */
    failDraft(id: string, problem: Problem): void;
    /** Returns the entry of a message. If its frame has not arrived yet, makes an empty answer. @param {string} id */
    entry(id: string): Entry;
    /** @param {string} stream */
    end(stream: string): void;
    /** @param {Frame} frame of a snapshot or of type thread */
    setThread({ status, title, error, retry, read_only: readOnly }: Frame): void;
    #private;
}
export type ThreadListSnapshot = {
    /**
     * the most recently changed first
     */
    threads: Record<string, any>[];
    /**
     * whether `loadMore` has something to load
     */
    hasMore: boolean;
    isLoading: boolean;
    /**
     * why the list could not be loaded
     */
    error: Problem | null;
};
export type ThreadList = ReturnType<typeof threadList>;
export type ThreadFilter = {
    agent?: string;
    status?: string;
    search?: string;
    archived?: boolean;
    limit?: number;
};
export type Call = (method: string, path: string, body?: object, signal?: AbortSignal) => Promise<any>;
export type UploadSettings = {
    onProgress?: (share: number) => void;
};
export type Http = ReturnType<typeof httpOf>;
/**
 * One typed piece of a message: `text`, `reasoning`, `tool-<name>`, `step-start`, `file`, ...
 */
export type Part = {
    type: string;
    [field: string]: any;
};
/**
 * One event from which parts are built: `text-delta`, `tool-input-available`, ...
 */
export type Chunk = {
    type: string;
    [field: string]: any;
};
export type Message = {
    id: string;
    /**
     * `user`, `assistant` or `system`
     */
    role: string;
    parts: Part[];
    metadata?: Record<string, any> | undefined;
    /**
     * its place in the thread; null while it is queued or being sent
     */
    position?: number | null | undefined;
    /**
     * the id that the sender chose
     */
    client_id?: string | null | undefined;
    created_at?: string | undefined;
    /**
     * number of steps at its beginning that are not loaded; `loadOlder` loads them
     */
    omitted?: number | undefined;
    /**
     * set only until the server has accepted the message
     */
    delivery?: "sending" | "failed" | undefined;
    /**
     * why the delivery failed
     */
    problem?: Problem | undefined;
};
export type Problem = {
    code: string;
    message: string;
};
/**
 * One JSON object on the wire, either way.
 */
export type Frame = {
    type: string;
    [field: string]: any;
};
export type Connection = {
    /**
     * `waiting`: it was lost and will be
     * retried; `offline`: the browser has no network; `closed`: it will not be retried automatically
     */
    state: "idle" | "connecting" | "open" | "waiting" | "offline" | "closed";
    /**
     * when the next retry is due, in milliseconds since the epoch
     */
    retryAt: number | null;
    /**
     * why it is `closed`
     */
    reason: "unauthorized" | "forbidden" | "outdated" | "malformed" | "too_large" | "closed" | null;
};
/**
 * The current state of a thread. The same object until something changes; unchanged messages stay the same objects.
 */
export type Snapshot = {
    threadId: string;
    /**
     * oldest first; queued and unsent ones last
     */
    messages: Message[];
    /**
     * null until the server's first reply
     */
    status: string | null;
    title: string;
    rev: number;
    /**
     * why the thread failed
     */
    error: Problem | null;
    /**
     * the retry that the run is waiting for
     */
    retry: Record<string, any> | null;
    /**
     * whether `loadOlder` has something to load
     */
    hasOlder: boolean;
    isLoading: boolean;
    isRunning: boolean;
    /**
     * a stop was requested and has no reply yet
     */
    isStopping: boolean;
    isComplete: boolean;
    isFailed: boolean;
    isStopped: boolean;
    /**
     * the attempt that was writing the answer was lost or failed, and another one follows
     */
    isRecovering: boolean;
    /**
     * connected again, and what was missed has not arrived yet
     */
    isReplaying: boolean;
    /**
     * why the server does not show this thread
     */
    refused: Problem | null;
    /**
     * why this thread takes no messages: its agent has been removed, or it is refused
     */
    readOnly: Problem | null;
    connection: Connection;
};
/**
 * The network, which tests can replace. `open` starts a connection and returns at once; `on.opened` is called when
 * frames may be sent, `on.frame` for each frame received, `on.closed` once at the end. Codes are those of websockets.
 */
export type Transport = {
    open: (on: {
        opened: (ticket?: string) => void;
        frame: (frame: Frame) => void;
        closed: (end: Closing) => void;
    }) => Wire;
};
export type AgentTool = {
    name: string;
    description: string;
    kind: string;
    needs_approval: boolean;
};
export type Agent = {
    name: string;
    description: string;
    tools: AgentTool[];
};
export type Wire = {
    send: (text: string) => void;
    close: () => void;
};
export type Closing = {
    code: number;
    reason?: string;
};
export type ClientOptions = {
    /**
     * where the HTTP API is mounted; default `/agents/`
     */
    url?: string | undefined;
    /**
     * the websocket; default `/ws/agents/` on the host of `url`
     */
    socketUrl?: string | undefined;
    /**
     * the CSRF token; default the cookie `csrftoken`
     */
    csrf?: string | (() => string) | undefined;
    /**
     * sent with each HTTP request
     */
    headers?: Record<string, string> | (() => Record<string, string>) | undefined;
    /**
     * `auto`, the default, uses a websocket or, if that is blocked,
     * server-sent events; if the server or a proxy does not stream, it polls
     */
    transport?: "auto" | "websocket" | "sse" | "polling" | undefined;
    /**
     * fetches the ticket that signs in a websocket; by default one is fetched if
     * `headers` has `Authorization`, which browsers cannot send with a websocket
     */
    ticket?: (() => Promise<string>) | undefined;
    WebSocket?: {
        new (url: string | URL, protocols?: string | string[]): WebSocket;
        prototype: WebSocket;
        readonly CONNECTING: 0;
        readonly OPEN: 1;
        readonly CLOSING: 2;
        readonly CLOSED: 3;
    } | undefined;
    fetch?: typeof fetch | undefined;
};
/**
 * Consecutive parts of one message that one stream has written. `stream` is null for other parts, such as those of a
 * user. The segment is `open` while only the stream's deltas are known, but not the committed step.
 */
export type Segment = {
    stream: string | null;
    parts: Part[];
    open: boolean;
};
export type Entry = {
    message: Message;
    segments: Segment[];
    view: Message | null;
};
export type StreamState = {
    message: string;
    next: number;
    held: Map<number, Chunk[]>;
};
export type Pending = {
    frame: Frame;
    durable: boolean;
    resolve: (reply: Frame) => void;
    reject: (error: DurableAgentsError) => void;
};
export type Timer = ReturnType<typeof setTimeout> | undefined;
/**
 * the part of a thread store that a link calls
 */
export type Listener = {
    id: string;
    /**
     * frames may be sent; `afresh`: subscribe without a cursor
     */
    onOpen: (afresh: boolean) => void;
    onFrame: (frame: Frame) => void;
    onConnection: () => void;
};
export type Followed = {
    ending: AbortController;
    signal: AbortSignal;
    after: number;
    wake: () => void;
};
/**
 * One thread, kept up to date. `subscribe` and `getSnapshot` fit React's `useSyncExternalStore`. Listeners are called
 * at most once per painted frame.
 *
 * The store subscribes to the thread with its first listener or command, and unsubscribes some seconds after its last
 * listener has gone. It keeps its state. So when the next listener comes, the server sends only what was missed.
 */
declare class ThreadStore {
    /** @param {string} id @param {Link} link @param {() => void} onClose @param {(snapshot: Snapshot) => void} onChange */
    constructor(id: string, link: Link, onClose: () => void, onChange: (snapshot: Snapshot) => void);
    id: string;
    /**
     * Calls `listener` after each change. Returns a function that unsubscribes it.
     * @param {() => void} listener
     * @returns {() => void}
     */
    subscribe: (listener: () => void) => () => void;
    /** The current state: the same object until something changes. */
    getSnapshot: () => Snapshot;
    /**
     * Sends a user message. It appears at once with `delivery: "sending"`, and is sent again automatically after a lost
     * connection. Resolves with the stored message. If it rejects with DurableAgentsError, the message appears as failed;
     * to retry, send it with the same `clientId`, since the server accepts one message per id.
     *
     * @param {string} prompt
     * @param {{parts?: Part[], clientId?: string}} [options]
     * @returns {Promise<Message>}
     */
    send: (prompt: string, { parts, clientId }?: {
        parts?: Part[];
        clientId?: string;
    }) => Promise<Message>;
    /** Stops the current run; the text so far is kept. Idempotent. @returns {Promise<void>} */
    stop: () => Promise<void>;
    /** Continues a thread that failed or was stopped. @returns {Promise<void>} */
    resume: () => Promise<void>;
    /**
     * Replaces a message of the user and answers it again. Later messages are removed.
     * @param {string} messageId
     * @param {string | any[]} said a text, or parts
     * @returns {Promise<void>}
     */
    edit: (messageId: string, said: string | any[]) => Promise<void>;
    /**
     * Regenerates an answer.
     * @param {string} [messageId] of the answer or of the user's message; by default, the last answer
     * @returns {Promise<void>}
     */
    regenerate: (messageId?: string) => Promise<void>;
    /**
     * Adds the result of a client or deferred call. The first answer counts.
     * @param {string} toolCallId
     * @param {any} result any JSON value
     * @returns {Promise<void>}
     */
    addToolResult: (toolCallId: string, result: any) => Promise<void>;
    /**
     * Fails a client or deferred call, with an error for the model.
     * @param {string} toolCallId
     * @param {string} error
     * @returns {Promise<void>}
     */
    addToolError: (toolCallId: string, error: string) => Promise<void>;
    /**
     * Approves a call that waits for approval. `arguments`, if given, replace the model's.
     * @param {string} toolCallId
     * @param {{arguments?: Record<string, any>, reason?: string}} [decision]
     * @returns {Promise<void>}
     */
    approve: (toolCallId: string, decision?: {
        arguments?: Record<string, any>;
        reason?: string;
    }) => Promise<void>;
    /**
     * Rejects a call that waits for approval. The model gets the reason.
     * @param {string} toolCallId
     * @param {{reason?: string}} [decision]
     * @returns {Promise<void>}
     */
    reject: (toolCallId: string, decision?: {
        reason?: string;
    }) => Promise<void>;
    /**
     * Loads the omitted steps of the oldest visible message or, if there are none, earlier messages.
     * @param {number} [limit]
     * @returns {Promise<void>}
     */
    loadOlder: (limit?: number) => Promise<void>;
    /** Ends the subscription. The store is not updated any more; `client.thread(id)` returns a new one. */
    close: () => void;
    #private;
}
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
declare function threadList(api: ReturnType<typeof restApi>, filter: ThreadFilter): {
    /** @param {() => void} listener @returns {() => void} */
    subscribe(listener: () => void): () => void;
    /** The current state: the same object until something changes. @returns {ThreadListSnapshot} */
    getSnapshot: () => ThreadListSnapshot;
    refresh: () => Promise<void>;
    put: (thread: Record<string, any>) => void;
    /** Loads the next page. */
    loadMore: () => Promise<void>;
    /** Lists the threads that contain these words; all for an empty text. @param {string} words */
    search(words: string): Promise<void>;
    /** @param {string} id @param {string} title */
    rename: (id: string, title: string) => Promise<void>;
    /** @param {string} id @param {boolean} [archived] */
    archive: (id: string, archived?: boolean) => Promise<void>;
    /** Deletes a thread with everything in it. @param {string} id */
    remove: (id: string) => Promise<void>;
    /** Changes a thread in the list without a request. Ignores threads that are not listed. @param {string} id @param {Record<string, any>} changes */
    update(id: string, changes: Record<string, any>): void;
};
/** @typedef {(method: string, path: string, body?: object, signal?: AbortSignal) => Promise<any>} Call */
/** @typedef {{onProgress?: (share: number) => void}} UploadSettings */
/** @typedef {ReturnType<typeof httpOf>} Http */
/** Sends requests to the server, with the headers and the CSRF token of the options. @param {URL} base @param {ClientOptions} options */
declare function httpOf(base: URL, { headers: own, csrf, fetch: send }: ClientOptions): {
    request: (method: string, path: string, body?: object, signal?: AbortSignal) => Promise<Response>;
    call: Call;
    upload(file: File, settings?: UploadSettings): Promise<Part>;
    /** A ticket for the websocket, if the caller signs in with a header. @returns {Promise<string>|undefined} */
    ticket: () => Promise<string> | undefined;
};
/**
 * One connection to the server that reconnects automatically, and the requests that wait for it.
 *
 * If the connection is lost, a durable request (a command) is sent again with the same key, until it has a reply. Any
 * other request fails. The delay between retries is random up to a limit that doubles, so that many clients do not
 * reconnect at the same moment.
 */
declare class Link {
    /** @param {Transport} transport */
    constructor(transport: Transport);
    /** @type {Connection} */
    connection: Connection;
    /** @param {Listener} listener */
    enlist(listener: Listener): void;
    /** @param {Listener} listener */
    detach(listener: Listener): void;
    /** @param {() => void} watcher @returns {() => void} */
    watch: (watcher: () => void) => () => void;
    /**
     * Sends a request and resolves with the server's reply. Rejects with DurableAgentsError.
     * @param {Frame} frame without `id`
     * @param {{durable?: boolean}} [options]
     * @returns {Promise<Frame>}
     */
    request(frame: Frame, { durable }?: {
        durable?: boolean;
    }): Promise<Frame>;
    /** Connects now, even if the state is `closed`. */
    connect(): void;
    close(): void;
    #private;
}
/** @typedef {ReturnType<typeof threadList>} ThreadList */
/** @typedef {{agent?: string, status?: string, search?: string, archived?: boolean, limit?: number}} ThreadFilter */
/**
 * The HTTP API. Every method rejects with DurableAgentsError.
 * @param {Http} http
 */
declare function restApi({ call, upload }: Http): {
    /** The public agents, with their tools. @returns {Promise<Agent[]>} */
    listAgents: () => Promise<Agent[]>;
    /**
     * One page of threads, the most recently changed first. For the next page, pass `next` as `page`.
     * @param {ThreadFilter & {page?: string|null}} [filter]
     * @returns {Promise<{next: string|null, previous: string|null, results: Record<string, any>[]}>}
     */
    listThreads: ({ page: next, ...filter }?: ThreadFilter & {
        page?: string | null;
    }) => Promise<{
        next: string | null;
        previous: string | null;
        results: Record<string, any>[];
    }>;
    /**
     * Creates a thread. With a `client_id` it can be repeated safely and returns the same thread.
     * @param {{agent: string, prompt?: string, parts?: Part[], client_id?: string, title?: string}} thread
     * @returns {Promise<Record<string, any>>}
     */
    createThread: (thread: {
        agent: string;
        prompt?: string;
        parts?: Part[];
        client_id?: string;
        title?: string;
    }) => Promise<Record<string, any>>;
    /**
     * @param {string} id
     * @param {{title?: string, archived?: boolean, metadata?: object}} changes
     * @returns {Promise<Record<string, any>>}
     */
    updateThread: (id: string, changes: {
        title?: string;
        archived?: boolean;
        metadata?: object;
    }) => Promise<Record<string, any>>;
    /** @param {string} id @returns {Promise<void>} */
    deleteThread: (id: string) => Promise<void>;
    /**
     * Uploads a file and resolves with the part to send it with. `onProgress` is called with the share that is sent, 0
     * to 1.
     * @param {File} file
     * @param {UploadSettings} [settings]
     * @returns {Promise<Part>}
     */
    uploadAttachment: (file: File, settings?: UploadSettings) => Promise<Part>;
};
export {};
