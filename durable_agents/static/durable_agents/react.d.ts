/**
 * A thread without its messages, or null while it is loading.
 * @param {ThreadOptions} options
 */
export function useThread(options: ThreadOptions): {
    id: string | null | undefined;
    status: string | null;
    title: string;
    rev: number;
    error: import("django-durable-agents").Problem | null;
    retry: Record<string, any> | null;
    hasOlder: boolean;
    refused: import("django-durable-agents").Problem | null;
    readOnly: import("django-durable-agents").Problem | null;
} | null;
/**
 * What a thread is doing.
 * @param {ThreadOptions} options
 */
export function useThreadStatus(options: ThreadOptions): {
    status: string | null;
    isLoading: boolean;
    isRunning: boolean;
    isStopping: boolean;
    isComplete: boolean;
    isFailed: boolean;
    isStopped: boolean;
    isRecovering: boolean;
    isReplaying: boolean;
};
/**
 * A conversation and everything that can be done with it.
 * @param {ThreadOptions & {stream?: boolean}} options with `stream` false, messages show only what is finished
 */
export function useAgentChat({ client, threadId, stream }: ThreadOptions & {
    stream?: boolean;
}): {
    /** @param {Outgoing} message @param {{parts?: Part[], clientId?: string}} [more] */
    sendMessage: (message: Outgoing, more?: {
        parts?: Part[];
        clientId?: string;
    }) => Promise<import("django-durable-agents").Message>;
    stop: () => Promise<void>;
    resume: () => Promise<void>;
    /** @param {string} [messageId] */
    regenerate: (messageId?: string) => Promise<void>;
    /** @param {string} messageId @param {string | Part[]} said */
    edit: (messageId: string, said: string | Part[]) => Promise<void>;
    /** @param {string} toolCallId @param {any} result */
    addToolResult: (toolCallId: string, result: any) => Promise<void>;
    /** @param {string} toolCallId @param {string} error */
    addToolError: (toolCallId: string, error: string) => Promise<void>;
    /** @param {string} toolCallId @param {{arguments?: Record<string, any>, reason?: string}} [decision] */
    approve: (toolCallId: string, decision?: {
        arguments?: Record<string, any>;
        reason?: string;
    }) => Promise<void>;
    /** @param {string} toolCallId @param {{reason?: string}} [decision] */
    reject: (toolCallId: string, decision?: {
        reason?: string;
    }) => Promise<void>;
    /** @param {number} [limit] */
    loadOlder: (limit?: number) => Promise<void>;
    status: string | null;
    error: import("django-durable-agents").Problem | null;
    connection: import("django-durable-agents").Connection;
    hasOlder: boolean;
    isLoading: boolean;
    isRunning: boolean;
    isStopping: boolean;
    isComplete: boolean;
    isFailed: boolean;
    isStopped: boolean;
    isRecovering: boolean;
    isReplaying: boolean;
    messages: KeyedMessage[];
    thread: {
        id: string | null | undefined;
        status: string | null;
        title: string;
        rev: number;
        error: import("django-durable-agents").Problem | null;
        retry: Record<string, any> | null;
        hasOlder: boolean;
        refused: import("django-durable-agents").Problem | null;
        readOnly: import("django-durable-agents").Problem | null;
    } | null;
};
/**
 * The caller's threads, with search, rename, archive and delete.
 * @param {{client: Client} & ThreadFilter} options
 */
export function useThreadList({ client, ...filter }: {
    client: Client;
} & ThreadFilter): {
    refresh: () => Promise<void>;
    loadMore: () => Promise<void>;
    search: (words: string) => Promise<void>;
    rename: (id: string, title: string) => Promise<void>;
    archive: (id: string, archived?: boolean) => Promise<void>;
    remove: (id: string) => Promise<void>;
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
    error: import("django-durable-agents").Problem | null;
};
/**
 * The state of the connection, with the time of the next retry.
 * @param {{client: Client}} options
 * @returns {Connection}
 */
export function useConnection({ client: { connection } }: {
    client: Client;
}): Connection;
/**
 * Returns the visible beginning of a text. It grows at an even pace, even if the text grows in bursts.
 * @param {string} text
 * @param {{charsPerSec?: number, startStreaming?: boolean}} [options] by default, the first text is shown at once
 * @returns {[visibleText: string, state: {cursor: number, isStreaming: boolean}]}
 */
export function useSmoothText(text: string, { charsPerSec, startStreaming }?: {
    charsPerSec?: number;
    startStreaming?: boolean;
}): [visibleText: string, state: {
    cursor: number;
    isStreaming: boolean;
}];
export function getMessageKey({ id, metadata }: Message, threadId?: string): string;
export function useMessages(options: ThreadOptions): KeyedMessage[];
export function useThreadMessages(options: ThreadOptions): KeyedMessage[];
export type Client = ReturnType<typeof import("django-durable-agents").createClient>;
export type Snapshot = import("django-durable-agents").Snapshot;
export type Message = import("django-durable-agents").Message;
export type Part = import("django-durable-agents").Part;
export type Connection = import("django-durable-agents").Connection;
export type ThreadFilter = import("django-durable-agents").ThreadFilter;
export type ThreadListSnapshot = import("django-durable-agents").ThreadListSnapshot;
/**
 * `threadId` is null until there is a thread
 */
export type ThreadOptions = {
    client: Client;
    threadId: string | null | undefined;
};
export type KeyedMessage = Message & {
    metadata: Record<string, any> & {
        key: string;
    };
};
export type Outgoing = string | {
    text?: string;
    parts?: Part[];
    clientId?: string;
};
