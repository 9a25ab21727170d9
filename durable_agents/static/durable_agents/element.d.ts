/**
 * A conversation.
 *
 * Attributes: `thread-id`; `agent`, the agent of a new thread if there is no `thread-id`; `api-url`, `ws-url`,
 * `transport`, `csrf-token`; `texts` (JSON); `prompts` (JSON list of messages to begin with); `readonly`; `denied`, the
 * actions that the reader may not perform on the thread (`send stop resume edit`); `no-attachments`, `feedback`. Events: `ready`, `error`, `response-start`, `response-end`, `thread-change`,
 * `tool-call`, `feedback`. Slots: `header`, `welcome`, `composer-start`.
 */
export class DurableChat extends DurableElement {
    static observedAttributes: string[];
    /** How answers are shown: `updateMarkdown` of `django-durable-agents/markdown`, or null for plain text. @type {((element: HTMLElement, text: string) => void)|null} */
    static renderText: ((element: HTMLElement, text: string) => void) | null;
    /** The tools that this page answers, by name. @type {Record<string, ClientTool>} */
    clientTools: Record<string, ClientTool>;
    /** @type {Store|null} */
    store: Store | null;
    get isReadOnly(): boolean;
    /** Whether the reader may not perform an action of the policy here. Runs of removed agents can be stopped. @param {string} action */
    denies(action: string): boolean | import("django-durable-agents").Problem;
    /** The id of the thread that is shown, or null. */
    get threadId(): string | null;
    connectedCallback(): void;
    /** @param {string} _name @param {string|null} before @param {string|null} id */
    attributeChangedCallback(_name: string, before: string | null, id: string | null): void;
    /** Sets the focus to the message field, or to the conversation if the reader may not send. */
    focusComposer(): void;
    /** Writes a text into the message field. @param {string} text */
    setDraft(text: string): void;
    /** Shows a thread; with null, begins a new one. @param {string|null} id */
    openThread(id: string | null): void;
    /** Sends a message; without a thread, it begins one. @param {string} text @param {Part[]} [files] */
    sendMessage(text: string, files?: Part[]): Promise<import("django-durable-agents").Message | undefined>;
    /**
     * Changes the conversation. If it is scrolled to its end, it stays there. A change within another one is not measured:
     * each measure is a layout of all messages.
     * @param {() => void} [change]
     */
    follow(change?: () => void): void;
    /** @param {(store: Store) => Promise<any>} command */
    act(command: (store: Store) => Promise<any>): Promise<void>;
    /** @param {Message} message */
    resend({ id, parts }: Message): void;
    /** @param {string} text */
    copy(text: string): Promise<void>;
    /** Starts a client tool, and returns what its card shows. @param {ClientTool} tool @param {Part} part */
    callTool(tool: ClientTool, part: Part): HTMLDivElement;
    #private;
}
/**
 * The caller's threads.
 *
 * Attributes: `for`, the id of a `<durable-chat>` that shows the chosen thread; `agent`, `api-url` and `texts`, as for
 * `<durable-chat>`; `href`, a link address that contains `{id}`. Event: `thread-select`.
 */
export class DurableThreadList extends DurableElement {
    /** @returns {DurableChat|null} */
    get chat(): DurableChat | null;
    connectedCallback(): void;
    /** Marks a thread as the one that is shown. @param {string|null} id */
    select(id: string | null): void;
    #private;
}
export type Client = ReturnType<typeof createClient>;
export type Store = ReturnType<Client["thread"]>;
export type Snapshot = import("django-durable-agents").Snapshot;
export type Message = import("django-durable-agents").Message;
export type Part = import("django-durable-agents").Part;
export type PartView = {
    element: HTMLElement;
    update: (part: Part, isLive: boolean) => void;
    close?: () => void;
};
/**
 * A call that waits for the page. `result` and `error` answer it; the first answer counts.
 */
export type WaitingCall = {
    toolCallId: string;
    part: Part;
    result: (value: any) => Promise<void>;
    error: (text: string) => Promise<void>;
};
/**
 * Answers the calls of one client tool. It may return a value, or a promise of one. A DOM node is shown in the call's
 * card. Undefined means that the function will answer later, with `call`. Any other value is the result.
 */
export type ClientTool = (input: any, call: WaitingCall) => any;
export type Texts = typeof TEXTS;
/** What both elements have: a client, texts, styles, events. */
declare class DurableElement extends HTMLElement {
    /** @type {Texts} */
    texts: Texts;
    /** @type {(() => void)[]} */
    leaving: (() => void)[];
    set client(client: Client);
    /** The client. To use another one, set it before the element is in the page. @returns {Client} */
    get client(): Client;
    draw(): void;
    get focused(): Element | null;
    /** Dispatches an event that leaves shadow roots. Returns false if a listener prevented the default. @param {string} name @param {any} [detail] */
    tell(name: string, detail?: any): boolean;
    disconnectedCallback(): void;
    #private;
}
import { createClient } from "django-durable-agents";
declare namespace TEXTS {
    export let answering: string;
    export let approve: string;
    export let archive: string;
    export let input: string;
    export let assistant: string;
    export let attach: string;
    export let cancel: string;
    export let chats: string;
    export let complete: string;
    export let conversation: string;
    export let copied: string;
    export let copy: string;
    let _delete: string;
    export { _delete as delete };
    export let denied: string;
    export let done: string;
    export let edit: string;
    export let failed: string;
    export let forbidden: string;
    export let good: string;
    export let bad: string;
    export let invalid: string;
    export let jump: string;
    export let loadMore: string;
    export let message: string;
    export let more: string;
    export let noChats: string;
    export let note: string;
    export let offline: string;
    export let older: string;
    export let output: string;
    export let outdated: string;
    export let preparing: string;
    export let queued: string;
    export let reconnecting: string;
    export let recovering: string;
    export let regenerate: string;
    export let reject: string;
    export let remove: string;
    export let rename: string;
    export let resume: string;
    export let retry: string;
    export let running: string;
    export let save: string;
    export let search: string;
    export let send: string;
    export let sending: string;
    export let stop: string;
    export let stopped: string;
    export let thinking: string;
    export let thought: string;
    export let unauthorized: string;
    export let unsent: string;
    export let untitled: string;
    export let waits: string;
    export let waitsForOthers: string;
    export let welcome: string;
    export let you: string;
}
export {};
