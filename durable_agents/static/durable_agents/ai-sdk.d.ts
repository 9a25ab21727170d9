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
export function createChat<C extends new (init: any) => any>({ Chat, DefaultChatTransport, id, url, agent, isNew, headers, fetch: ask, onThread, onConnection, onRefused, onToolCall, ...options }: ChatOptions & {
    Chat: C;
} & Record<string, any>): InstanceType<C> & ChatAdditions;
/**
 * Returns what went wrong. The message of the AI SDK's error is the body of a response that refused a request, or a text.
 * @param {{message: string}} error
 * @returns {Problem}
 */
export function problemOf({ message }: {
    message: string;
}): Problem;
export function isWaiting({ parts }: {
    parts: {
        type: string;
    }[];
}): boolean;
export type StoredMessage = {
    id: string;
    role: string;
    parts: {
        type: string;
        [field: string]: any;
    }[];
    [field: string]: any;
};
export type StoredThread = {
    id: string;
    client_id: string | null;
    title: string;
    status: string;
    is_running: boolean;
    error: {
        code: string;
        message: string;
    } | null;
    [field: string]: any;
};
/**
 * what went wrong: a code of the API, empty for other errors, and a text for the user
 */
export type Problem = {
    code: string;
    text: string;
};
/**
 * a message that the server has not stored, its text, and why
 */
export type Refused = {
    message: StoredMessage;
    text: string;
    problem: Problem;
};
/**
 * what the chat has beside the members of the AI SDK's `Chat`
 */
export type ChatAdditions = {
    /**
     * the thread as of the last load; null before that. It is also loaded, without the messages, when the server has accepted a message or the answer to a tool call. As soon as a request for an answer is accepted, the status is `streaming` and there is no error
     */
    thread: StoredThread | null;
    /**
     * loads the thread and its messages; returns whether a run is in progress
     */
    load: () => Promise<boolean>;
    /**
     * reads on until no run is in progress; opens a closed chat again
     */
    resumeStream: () => Promise<void>;
    /**
     * stops the run, for all clients
     */
    stop: () => Promise<void>;
    /**
     * ends all requests; the run goes on
     */
    close: () => void;
};
/**
 * other options are those of the AI SDK's `Chat`
 */
export type ChatOptions = {
    /**
     * the class `Chat` of `@ai-sdk/react`, `@ai-sdk/vue`, `@ai-sdk/svelte` or `@ai-sdk/angular`
     */
    Chat: new (init: any) => any;
    /**
     * the class of `ai`
     */
    DefaultChatTransport: new (init: any) => any;
    /**
     * the thread's id, or the `client_id` of a thread that the first message creates
     */
    id: string;
    /**
     * whether no thread has this id yet, so that there is nothing to load
     */
    isNew?: boolean | undefined;
    /**
     * where the app's URLs are; `/agents/` by default
     */
    url?: string | undefined;
    /**
     * the agent of a new thread
     */
    agent?: string | undefined;
    /**
     * more headers; the CSRF token of the cookie `csrftoken` is sent anyway
     */
    headers?: Record<string, string> | (() => Record<string, string>) | undefined;
    fetch?: typeof fetch | undefined;
    /**
     * called whenever `thread` changes: for the first time when the server has accepted the first message, or stored messages are loaded
     */
    onThread?: ((thread: StoredThread) => void) | undefined;
    /**
     * called when the server cannot be reached, and when it can again
     */
    onConnection?: ((isConnected: boolean) => void) | undefined;
    /**
     * called when the server has not stored a message; the chat does not show it any more
     */
    onRefused?: ((refused: Refused) => void) | undefined;
    /**
     * called once for each tool call, as by the AI SDK
     */
    onToolCall?: ((call: any) => void) | undefined;
};
