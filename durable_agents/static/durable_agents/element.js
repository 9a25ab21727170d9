/**
 * `<durable-chat>` and `<durable-thread-list>`: a chat from one tag, on the stores of `django-durable-agents`.
 *
 *     <durable-chat thread-id="..." api-url="/agents/"></durable-chat>
 *
 * All nodes are made with `createElement` or as text nodes, and the styles are a constructed style sheet. So it works
 * under `script-src 'self'; style-src 'self'; require-trusted-types-for 'script'`, and nothing that a model, a tool or
 * a user wrote becomes markup. The content of the tag is shown until the element is defined, or if scripts do not run.
 */

import {createClient, smoothText} from "django-durable-agents";

/** @typedef {ReturnType<typeof createClient>} Client */
/** @typedef {ReturnType<Client["thread"]>} Store */
/** @typedef {import("django-durable-agents").Snapshot} Snapshot */
/** @typedef {import("django-durable-agents").Message} Message */
/** @typedef {import("django-durable-agents").Part} Part */
/** @typedef {{element: HTMLElement, update: (part: Part, isLive: boolean) => void, close?: () => void}} PartView */

/**
 * A call that waits for the page. `result` and `error` answer it; the first answer counts.
 * @typedef {{toolCallId: string, part: Part, result: (value: any) => Promise<void>, error: (text: string) => Promise<void>}} WaitingCall
 */

/**
 * Answers the calls of one client tool. It may return a value, or a promise of one. A DOM node is shown in the call's
 * card. Undefined means that the function will answer later, with `call`. Any other value is the result.
 * @typedef {(input: any, call: WaitingCall) => any} ClientTool
 */

/** The texts, in English; the attribute `texts` replaces some or all of them. */
const TEXTS = {
  answering: "The assistant is answering.",
  approve: "Approve",
  archive: "Archive",
  input: "Arguments",
  assistant: "Assistant",
  attach: "Attach files",
  cancel: "Cancel",
  chats: "Chats",
  complete: "The answer is complete.",
  conversation: "Conversation",
  copied: "Copied",
  copy: "Copy",
  delete: "Delete",
  denied: "Rejected",
  done: "Done",
  edit: "Edit",
  failed: "Failed",
  forbidden: "You may not see this chat.",
  good: "Good answer",
  bad: "Bad answer",
  invalid: "The arguments are not valid JSON.",
  jump: "Jump to the latest message",
  loadMore: "Show more",
  message: "Message",
  more: "More actions",
  noChats: "No chats yet.",
  note: "Note to the assistant",
  offline: "You are offline.",
  older: "Show earlier messages",
  output: "Output",
  outdated: "Reload this page.",
  preparing: "Preparing",
  queued: "Queued",
  reconnecting: "Reconnecting…",
  recovering: "The answer was interrupted and will go on.",
  regenerate: "Answer again",
  reject: "Reject",
  remove: "Remove",
  rename: "Rename",
  resume: "Continue",
  retry: "Try again",
  running: "Running",
  save: "Save and send",
  search: "Search chats",
  send: "Send",
  sending: "Sending…",
  stop: "Stop",
  stopped: "You stopped this answer.",
  thinking: "Thinking…",
  thought: "Thoughts",
  unauthorized: "You are signed out.",
  unsent: "Not sent.",
  untitled: "Untitled chat",
  waits: "Waits for you",
  waitsForOthers: "Waits for somebody else",
  welcome: "How can I help?",
  you: "You",
};
/** @typedef {typeof TEXTS} Texts */

/** Returns the text for an error: the page's own for its code, such as a translation, or the server's. @type {(texts: Texts, error?: any) => string} */
const worded = (texts, error) => /** @type {any} */ (texts)[`error:${error?.code}`] ?? error?.message ?? "";

const ICONS = {
  attach: "M12 5v14M5 12h14",
  send: "M12 19V5M6 11l6-6 6 6",
  stop: "M8 8h8v8H8z",
  down: "M12 5v14M6 13l6 6 6-6",
  copy: "M9 9h11v11H9zM15 9V4H4v11h5",
  edit: "M4 20h4L19 9l-4-4L4 16z",
  again: "M20 11a8 8 0 1 0-2 6M20 5v6h-6",
  cross: "M7 7l10 10M17 7 7 17",
  check: "M5 12.5 9.5 17 19 7.5",
  pause: "M9 7v10M15 7v10",
  fold: "M9 6l6 6-6 6",
  more: "M4 12h2M11 12h2M18 12h2",
};

// ------------------------------------------------------------------------------------------------------------- Nodes

/**
 * Makes an element. Properties that begin with `on` are listeners; undefined ones are left out.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, any>} [attributes]
 * @param {...(Node|string|null)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children) if (child !== null) element.append(child);
  return element;
}

/** @param {keyof typeof ICONS} name */
function icon(name) {
  const make = (/** @type {string} */ tag) => document.createElementNS("http://www.w3.org/2000/svg", tag);
  const [svg, path] = [make("svg"), make("path")];
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.ariaHidden = "true";
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/** @type {(name: keyof typeof ICONS, label: string, onclick: (event: Event) => void, more?: Record<string, any>) => HTMLButtonElement} */
const iconButton = (name, label, onclick, more) =>
  h("button", {type: "button", class: "icon", "aria-label": label, title: label, onclick, ...more}, icon(name));

/** @type {(label: string, onclick: ((event: Event) => void)|undefined, more?: Record<string, any>) => HTMLButtonElement} */
const button = (label, onclick, more) => h("button", {type: "button", ...(onclick && {onclick}), ...more}, label);

/** Shows a text. If the text has only grown, the rest is appended, so that a selection survives. @type {(element: Element, text: string) => void} */
function showText(element, text) {
  const node = element.firstChild;
  if (!(node instanceof Text)) element.replaceChildren(text);
  else if (text.startsWith(node.data)) node.data === text || node.appendData(text.slice(node.data.length));
  else node.data = text;
}

/** @type {<T>(element: HTMLElement, value: T) => T} */
function show(element, value) {
  element.hidden = !value;
  return value;
}

/** Shows a text. An element without a text is hidden. @type {(element: HTMLElement, text: string) => void} */
const showIfAny = (element, text) => showText(element, show(element, text));

/** @type {(parent: Element, child: Element, index: number) => void} */
function place(parent, child, index) {
  const there = parent.children[index] ?? null;
  if (there !== child) parent.insertBefore(child, there);
}

/** @type {(value: any) => string} */
const pretty = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 2));

/** Arguments in one line. @type {(input: any) => string} */
const gist = (input) =>
  typeof input === "object" && input ? Object.values(input).map((value) => pretty(value)).join(", ").slice(0, 120) : String(input ?? "");

/** @type {(part: Part) => string} */
const nameOf = (part) => String(part.toolName ?? part.type.slice(5));

/** @type {(message: Message) => string} */
const textOf = ({parts}) => parts.filter(({type, text}) => type === "text" && text.trim()).map(({text}) => text).join("\n\n");

/** Names a call and the state in which it waits. @type {(part: Part) => string} */
const waitOf = ({toolCallId, state}) => `${toolCallId} ${state}`;

/** The parts of a message with files; without files, the text is enough. @type {(text: string, files: Part[]) => Part[]|undefined} */
const partsOf = (text, files) => (files.length ? [...(text ? [{type: "text", text}] : []), ...files] : undefined);

/** @type {(name: string) => string} */
const plainName = (name) => name.replace(/[_-]+/g, " ").trim();

// ------------------------------------------------------------------------------------------------------------- Parts

/** @type {(chat: DurableChat, isMarkdown: boolean, className: string) => {element: HTMLElement, update: (text: string, isLive: boolean) => void, close: () => void}} */
function textView(chat, isMarkdown, className) {
  const element = h("div", {class: className, dir: "auto", part: "text"});
  const {renderText} = /** @type {typeof DurableChat} */ (chat.constructor);
  let isOpen = false;
  const smooth = smoothText((visible, {isStreaming}) => {
    chat.follow(() => (isMarkdown && renderText ? renderText(element, visible) : showText(element, visible)));
    element.classList.toggle("live", isStreaming || isOpen);
  });
  return {
    element,
    update(text, isLive) {
      isOpen = isLive;
      smooth.update(text);
    },
    close: smooth.close,
  };
}

/** @type {(chat: DurableChat) => PartView} */
function reasoningView(chat) {
  const label = h("span");
  const {element: body, update, close} = textView(chat, false, "text");
  const element = h("details", {class: "card reasoning", part: "reasoning"}, h("summary", {}, icon("fold"), label), body);
  return {
    element,
    close,
    update(part, isLive) {
      const isThinking = isLive && part.state === "streaming";
      showText(label, isThinking ? chat.texts.thinking : chat.texts.thought);
      update(part.text, isThinking);
    },
  };
}

/** Shows a source or a file. @type {(chat: DurableChat) => PartView} */
function fileView(chat) {
  const element = h("p", {class: "file", part: "file"});
  return {
    element,
    update({url = "", title, filename, mediaType = ""}) {
      if (element.firstChild) return;
      const name = title ?? filename ?? url;
      const link = h("a", {href: url, target: "_blank", rel: "noopener noreferrer nofollow"});
      const isSafe = url && /^https?:$/.test(link.protocol); // it leads to a page or a file, and not to a script
      const isImage = mediaType.startsWith("image/") && link.origin === location.origin;
      link.append(isImage ? h("img", {src: url, alt: name, onload: () => chat.follow()}) : name);
      element.append(isSafe ? link : name);
    },
  };
}

/** The look and the text of the states of a call; in other states, it runs. @type {Record<string, [look: string, text: keyof Texts]>} */
const STATES = {
  "input-streaming": ["busy", "preparing"],
  "approval-requested": ["waits", "waits"],
  "output-available": ["done", "done"],
  "output-error": ["failed", "failed"],
  "output-denied": ["failed", "denied"],
};
/** @type {Record<string, keyof typeof ICONS>} */
const LOOKS = {done: "check", failed: "cross", waits: "pause"};

/** @type {(chat: DurableChat) => PartView} */
function toolView(chat) {
  const {texts} = chat;
  const [sign, name, brief, state] = ["sign", "name", "gist", "state"].map((className) => h("span", {class: className}));
  const [bar, progress] = [h("progress", {"aria-label": texts.running}), h("span")];
  const [input, output, error] = [h("pre", {tabindex: 0, part: "tool-input"}), h("pre", {tabindex: 0, part: "tool-output"}), h("p", {class: "error", dir: "auto"})];
  const [inputHead, outputHead] = [h("p", {}, texts.input), h("p", {}, texts.output)];
  const far = h("span", {class: "progress"}, bar, progress);
  const slot = h("div", {class: "ask-place"});
  const summary = h("summary", {}, sign, name, brief, state, far);
  const element = h("details", {class: "card tool", part: "tool"}, summary, h("div", {class: "body"}, slot, inputHead, input, outputHead, output, error));
  let asked = "";
  return {
    element,
    update(part) {
      const {errorText, approval, preliminary} = part;
      const isMine = part.state !== "approval-requested" || approval?.canDecide !== false;
      const form = isMine && !chat.isReadOnly ? askOf(chat, part) : null;
      const [look, text] = STATES[form ? "approval-requested" : preliminary ? "" : part.state] ?? ["busy", "running"];
      const wait = form ? waitOf(part) : "";
      if (element.dataset.look !== look) sign.replaceChildren(...(LOOKS[look] ? [icon(LOOKS[look])] : []));
      element.dataset.look = look;
      if (asked !== wait) {
        const hadFocus = slot.contains(chat.focused);
        asked = wait;
        slot.replaceChildren(...(form ? [form()] : []));
        element.open = form !== null;
        if (hadFocus && !form) summary.focus();
      }
      showText(name, nameOf(part));
      showText(brief, form || part.state === "input-streaming" ? "" : gist(part.input));
      showText(state, isMine ? texts[/** @type {keyof Texts} */ (text)] : texts.waitsForOthers);
      show(inputHead, show(input, !form));
      // Show the raw input while it grows: reading `part.input` would parse it at each change.
      if (!form) showText(input, part.state === "input-streaming" ? (part.rawInput ?? "") : pretty(part.input ?? {}));
      show(outputHead, show(output, part.output !== undefined && !preliminary));
      if (part.output !== undefined) showText(output, pretty(part.output));
      showIfAny(error, errorText ?? "");
      if (show(far, preliminary === true)) showProgress(bar, progress, part.output);
    },
  };
}

/** Shows a number from 0 to 1, or `{done, total}`, as a share, and anything else as a text. @type {(bar: HTMLProgressElement, label: HTMLElement, value: any) => void} */
function showProgress(bar, label, value) {
  const {done, total, text} = Object(value);
  const share = typeof value === "number" ? value : done / total;
  const isShare = share >= 0 && share <= 1;
  if (show(bar, isShare)) bar.value = share;
  showText(label, text ?? (isShare ? (total ? `${done} / ${total}` : `${Math.round(share * 100)} %`) : gist(value)));
}

/** Returns a function that makes the form of a call, or null if the reader need not answer the call. @type {(chat: DurableChat, part: Part) => (() => HTMLElement)|null} */
function askOf(chat, part) {
  if (part.state === "approval-requested") return () => approvalForm(chat, part);
  const tool = part.state === "input-available" && chat.clientTools[nameOf(part)];
  return tool ? () => chat.callTool(tool, part) : null;
}

/** @type {(chat: DurableChat, part: Part) => HTMLElement} */
function approvalForm({texts, store}, {toolCallId, input, ...part}) {
  const before = pretty(input ?? {});
  const field = h("textarea", {class: "code", rows: Math.min(12, before.split("\n").length), "aria-label": texts.input, spellcheck: "false"});
  const onkeydown = (/** @type {KeyboardEvent} */ event) => event.key === "Enter" && event.preventDefault(); // Enter must not approve
  const note = h("input", {type: "text", maxlength: 500, placeholder: texts.note, "aria-label": texts.note, dir: "auto", onkeydown});
  const problem = h("p", {class: "error", role: "alert", hidden: true});
  field.value = before;
  const decide = async (/** @type {boolean} */ isApproved) => {
    showIfAny(problem, "");
    const reason = note.value.trim() || undefined;
    try {
      if (!isApproved) return await store?.reject(toolCallId, {reason});
      await store?.approve(toolCallId, {reason, ...(field.value === before ? {} : {arguments: JSON.parse(field.value)})});
    } catch (/** @type {any} */ failure) {
      showIfAny(problem, failure instanceof SyntaxError ? texts.invalid : worded(texts, failure));
    }
  };
  const title = `${texts.approve}: ${plainName(nameOf(/** @type {Part} */ (part)))}`;
  const buttons = [button(texts.approve, () => decide(true), {class: "primary"}), button(texts.reject, () => decide(false))];
  return h("div", {class: "ask", role: "group", tabindex: -1, "aria-label": title, part: "approval"}, h("b", {}, title), field, note, problem, h("div", {class: "buttons"}, ...buttons));
}

// ---------------------------------------------------------------------------------------------------------- Messages

const SHOWN = /^(text|reasoning|source-url|source-document|file|dynamic-tool|tool-.+)$/;

class MessageView {
  /** @type {Map<string, PartView>} */
  #parts = new Map();
  /** @type {Message|null} */
  #message = null;
  #key = "";
  #chat;
  #list = h("div", {class: "parts"});
  #foot = h("div", {class: "foot"});
  #author = h("span", {class: "unseen"});
  element = h("li", {part: "message"}, this.#author, this.#list, this.#foot);

  /** @param {DurableChat} chat */
  constructor(chat) {
    this.#chat = chat;
  }

  /** @param {Message} message @param {boolean} isLive more is written to it @param {boolean} isLastAtRest @param {string} rights changes with what the reader may do */
  update(message, isLive, isLastAtRest, rights) {
    const key = [isLive, isLastAtRest, rights].join();
    if (message === this.#message && key === this.#key) return;
    const {role, delivery} = message;
    this.#message = message;
    this.#key = key;
    this.element.dataset.role = role;
    this.element.dataset.delivery = delivery ?? "";
    this.element.ariaBusy = String(isLive);
    showText(this.#author, `${role === "user" ? this.#chat.texts.you : this.#chat.texts.assistant}: `);
    this.#renderParts(message, isLive);
    this.#renderFoot(message, isLive, isLastAtRest);
  }

  close() {
    for (const {close} of this.#parts.values()) close?.();
    this.element.remove();
  }

  /** @param {Message} message @param {boolean} isLive */
  #renderParts({role, parts}, isLive) {
    const shown = new Map();
    parts.forEach((part, index) => SHOWN.test(part.type) && shown.set(part.toolCallId ?? `${part.type} ${index}`, part));
    for (const [key, view] of this.#parts) {
      if (shown.has(key)) continue;
      view.close?.();
      view.element.remove();
      this.#parts.delete(key);
    }
    [...shown].forEach(([key, part], index) => {
      const view = this.#parts.get(key) ?? this.#viewOf(part.type, role);
      this.#parts.set(key, view);
      view.update(part, isLive);
      place(this.#list, view.element, index);
    });
  }

  /** @param {string} type @param {string} role @returns {PartView} */
  #viewOf(type, role) {
    if (type === "reasoning") return reasoningView(this.#chat);
    if (type.includes("tool")) return toolView(this.#chat);
    if (type !== "text") return fileView(this.#chat);
    const {update, ...view} = textView(this.#chat, role === "assistant", "text");
    return {...view, update: (part, isLive) => update(part.text, isLive && part.state === "streaming")};
  }

  /** @param {Message} message @param {boolean} isLive @param {boolean} isLastAtRest */
  #renderFoot(message, isLive, isLastAtRest) {
    const chat = this.#chat;
    const {texts} = chat;
    const {id, role, delivery, problem, position} = message;
    const isMine = role === "user";
    const note = delivery === "failed" ? `${texts.unsent} ${worded(texts, problem)}` : delivery ? texts.sending : isMine && position === null ? texts.queued : "";
    const isTouchable = !delivery && !isLive && textOf(message) !== "";
    const isEditable = isTouchable && !chat.denies("edit"); // during a run, the styles hide the button
    const buttons = [
      delivery === "failed" && !chat.denies("send") && button(texts.retry, () => chat.resend(message)),
      isTouchable && iconButton("copy", texts.copy, () => chat.copy(textOf(message))),
      isEditable && isMine && iconButton("edit", texts.edit, () => this.#edit(message), {"data-edit": true}),
      isEditable && !isMine && isLastAtRest && iconButton("again", texts.regenerate, () => chat.act((store) => store.regenerate(id))),
    ];
    if (isTouchable && !isMine && chat.hasAttribute("feedback")) {
      for (const value of /** @type {const} */ (["good", "bad"])) buttons.push(button(texts[value], () => chat.tell("feedback", {messageId: id, value}), {class: "quiet"}));
    }
    const focus = [...this.#foot.children].indexOf(/** @type {Element} */ (chat.focused));
    this.#foot.replaceChildren(note, .../** @type {Node[]} */ (buttons.filter(Boolean)));
    /** @type {HTMLElement|undefined} */ (this.#foot.children[focus])?.focus();
    show(this.#foot, this.#foot.textContent || this.#foot.children.length);
  }

  /** @param {Message} message */
  #edit(message) {
    const {texts} = this.#chat;
    const field = h("textarea", {"aria-label": texts.edit, dir: "auto"});
    const close = () => {
      form.replaceWith(this.#list);
      show(this.#foot, true);
      this.#chat.focusComposer();
    };
    const onsubmit = (/** @type {Event} */ event) => {
      event.preventDefault();
      const files = message.parts.filter(({type}) => type === "file");
      const said = field.value.trim();
      if (said) this.#chat.act((store) => store.edit(message.id, partsOf(said, files) ?? said));
      close();
    };
    const buttons = h("div", {class: "buttons"}, h("button", {class: "primary"}, texts.save), button(texts.cancel, close));
    const form = h("form", {class: "ask edit", onsubmit}, field, buttons);
    field.value = textOf(message);
    this.#list.replaceWith(form);
    show(this.#foot, false);
    field.focus();
  }
}

// ----------------------------------------------------------------------------------------------------------- Elements

/** One client for all elements of the page that reach the same server in the same way. @type {Map<string, Client>} */
const clients = new Map();

/** A plain class in server rendering, where elements do not exist. @type {typeof HTMLElement} */
const Base = globalThis.HTMLElement ?? class {};

/** What both elements have: a client, texts, styles, events. */
class DurableElement extends Base {
  /** @type {Texts} */
  texts = TEXTS;
  /** @type {Client|undefined} */
  #client;
  /** @type {(() => void)[]} */
  leaving = [];

  /** The client. To use another one, set it before the element is in the page. @returns {Client} */
  get client() {
    const get = (/** @type {string} */ name) => this.getAttribute(name) ?? undefined;
    const key = ["api-url", "ws-url", "transport"].map(get).join();
    if (!this.#client) {
      const options = {url: get("api-url"), socketUrl: get("ws-url"), transport: /** @type {any} */ (get("transport")), csrf: get("csrf-token")};
      this.#client = clients.get(key) ?? createClient(options);
      clients.set(key, this.#client);
    }
    return this.#client;
  }

  set client(client) {
    this.#client = client;
  }

  draw() {
    this.texts = {...TEXTS, ...JSON.parse(this.getAttribute("texts") || "{}")};
    const root = this.shadowRoot ?? this.attachShadow({mode: "open"});
    root.adoptedStyleSheets = [sheet()];
    root.replaceChildren();
  }

  get focused() {
    return this.shadowRoot?.activeElement ?? null;
  }

  /** Dispatches an event that leaves shadow roots. Returns false if a listener prevented the default. @param {string} name @param {any} [detail] */
  tell(name, detail = {}) {
    return this.dispatchEvent(new CustomEvent(name, {detail, bubbles: true, composed: true, cancelable: true}));
  }

  disconnectedCallback() {
    for (const leave of this.leaving.splice(0)) leave();
  }
}

const NEAR_PX = 80;
const SPOKEN_CHARACTERS = 2_000;
const TITLE_CHARACTERS = 60;

/**
 * A conversation.
 *
 * Attributes: `thread-id`; `agent`, the agent of a new thread if there is no `thread-id`; `api-url`, `ws-url`,
 * `transport`, `csrf-token`; `texts` (JSON); `prompts` (JSON list of messages to begin with); `readonly`; `denied`, the
 * actions that the reader may not perform on the thread (`send stop resume edit`); `no-attachments`, `feedback`. Events: `ready`, `error`, `response-start`, `response-end`, `thread-change`,
 * `tool-call`, `feedback`. Slots: `header`, `welcome`, `composer-start`.
 */
export class DurableChat extends DurableElement {
  static observedAttributes = ["thread-id"];

  /** How answers are shown: `updateMarkdown` of `django-durable-agents/markdown`, or null for plain text. @type {((element: HTMLElement, text: string) => void)|null} */
  static renderText = null;

  /** The tools that this page answers, by name. @type {Record<string, ClientTool>} */
  clientTools = /** @type {any} */ (this).clientTools ?? {};

  /** @type {Store|null} */
  store = null;
  /** @type {Map<string, MessageView>} */
  #views = new Map();
  /** @type {(() => void)|null} */
  #leave = null;
  #isFollowing = true;
  #isChanging = false;
  #top = 0;
  #wasRunning = false;
  #isReady = false;
  #isCreating = false;
  /** The waiting calls at the last check; later ones cause an event. Null before the first check. @type {Set<string>|null} */
  #told = null;
  /** The chosen files; those that are being uploaded have no part yet. @type {{part: Part|null}[]} */
  #files = [];
  #at = /** @type {Record<string, any>} */ ({});

  constructor() {
    super();
    for (const type of ["dragover", "drop"]) this.addEventListener(type, (event) => this.#onDrop(/** @type {DragEvent} */ (event)));
    this.addEventListener("keydown", (event) => this.#onEscape(event));
  }

  get isReadOnly() {
    return this.hasAttribute("readonly") || !!this.store?.getSnapshot().readOnly;
  }

  /** Whether the reader may not perform an action of the policy here. Runs of removed agents can be stopped. @param {string} action */
  denies(action) {
    const isReadOnly = action === "stop" ? this.matches("[readonly]") || this.store?.getSnapshot().refused : this.isReadOnly;
    return isReadOnly || this.matches(`[denied~=${action}]`);
  }

  /** The id of the thread that is shown, or null. */
  get threadId() {
    return this.getAttribute("thread-id");
  }

  connectedCallback() {
    this.#draw();
    const observer = new ResizeObserver(() => this.follow());
    observer.observe(this.#at.log);
    this.leaving.push(this.client.connection.subscribe(() => this.#render()), () => observer.disconnect(), () => this.#close());
    this.#open();
  }

  /** @param {string} _name @param {string|null} before @param {string|null} id */
  attributeChangedCallback(_name, before, id) {
    const isFirst = before === null && !this.shadowRoot;
    if (id === before || isFirst) return;
    this.removeAttribute("denied"); // it is about another thread
    if (this.isConnected) this.#open();
  }

  // Public methods.

  /** Sets the focus to the message field, or to the conversation if the reader may not send. */
  focusComposer() {
    const {field, log} = this.#at;
    (field.hidden ? log : field).focus();
  }

  /** Writes a text into the message field. @param {string} text */
  setDraft(text) {
    this.#at.field.value = text;
    this.#onInput();
  }

  /** Shows a thread; with null, begins a new one. @param {string|null} id */
  openThread(id) {
    if (id === this.threadId) return;
    if (id === null) this.removeAttribute("thread-id");
    else this.setAttribute("thread-id", id);
    this.tell("thread-change", {threadId: id});
  }

  /** Sends a message; without a thread, it begins one. @param {string} text @param {Part[]} [files] */
  async sendMessage(text, files = []) {
    this.#isFollowing = true;
    if (!this.store) await this.#create(text);
    return this.store?.send(text, {parts: partsOf(text, files)});
  }

  // Methods that the views of messages and parts call.

  /**
   * Changes the conversation. If it is scrolled to its end, it stays there. A change within another one is not measured:
   * each measure is a layout of all messages.
   * @param {() => void} [change]
   */
  follow(change) {
    if (this.#isChanging) return change?.();
    const {log} = this.#at;
    this.#onScroll();
    this.#isChanging = true;
    try {
      change?.();
    } finally {
      this.#isChanging = false;
    }
    if (this.#isFollowing) log.scrollTop = log.scrollHeight;
    this.#onScroll();
  }

  /** @param {(store: Store) => Promise<any>} command */
  async act(command) {
    this.#problem("");
    if (this.store) await command(this.store).catch((error) => this.#fail(error));
  }

  /** @param {Message} message */
  resend({id, parts}) {
    this.store?.send("", {parts, clientId: id}).catch(() => {});
  }

  /** @param {string} text */
  async copy(text) {
    await navigator.clipboard?.writeText(text);
    this.#say(this.texts.copied);
  }

  /** Starts a client tool, and returns what its card shows. @param {ClientTool} tool @param {Part} part */
  callTool(tool, part) {
    const {toolCallId} = part;
    const box = h("div", {class: "ask", role: "group", tabindex: -1, part: "client-tool"});
    const store = /** @type {Store} */ (this.store);
    const call = {
      toolCallId,
      part,
      result: (/** @type {any} */ value) => store.addToolResult(toolCallId, value),
      error: (/** @type {string} */ text) => store.addToolError(toolCallId, text),
    };
    const run = async () => {
      const value = tool(part.input, call);
      if (value instanceof Node) box.append(value);
      else if ((await value) !== undefined) await call.result(await value);
    };
    run().catch((error) => call.error(String(error?.message ?? error)).catch(() => {}));
    return box;
  }

  // The thread.

  #open() {
    const id = this.threadId;
    if (this.store?.id === id && this.#leave) return;
    this.#close();
    this.store = id ? this.client.thread(id) : null;
    this.#leave = this.store?.subscribe(() => this.#render()) ?? (() => {});
    this.#isFollowing = true;
    this.setDraft(sessionStorage.getItem(this.#draftKey) ?? "");
    this.#render();
  }

  #close() {
    this.#leave?.();
    this.#leave = this.#told = null;
    this.#wasRunning = this.#isReady = false;
    for (const view of this.#views.values()) view.close();
    this.#views.clear();
    this.#files = [];
    this.#at.fileList?.replaceChildren();
  }

  /** @param {string} text */
  async #create(text) {
    this.#isCreating = true;
    this.#render();
    try {
      const agent = this.getAttribute("agent") ?? (await this.client.listAgents())[0]?.name;
      const thread = await this.client.createThread({agent, title: text.slice(0, TITLE_CHARACTERS)});
      sessionStorage.removeItem(this.#draftKey);
      this.client.threads().put(thread);
      const draft = this.#at.field.value; // the reader may have typed more since
      this.openThread(thread.id);
      this.#told = new Set(); // no call of a new thread is an old one
      this.setDraft(draft);
    } finally {
      this.#isCreating = false;
      this.#render();
    }
  }

  get #draftKey() {
    return `durable-chat ${this.getAttribute("api-url")} ${this.threadId ?? "new"}`;
  }

  // The page.

  #draw() {
    const at = this.#at;
    this.draw(); // reads the texts
    const {texts} = this;
    at.welcomeBox = h("div", {class: "welcome", hidden: true, part: "welcome"}, h("slot", {name: "welcome"}, h("h2", {}, texts.welcome)));
    /** @type {string[]} */
    const prompts = JSON.parse(this.getAttribute("prompts") || "[]");
    at.prompts = h("div", {class: "prompts"}, ...prompts.map((text) => button(text, () => this.#send(text), {part: "prompt", dir: "auto"})));
    at.welcomeBox.append(at.prompts);
    at.olderButton = button(texts.older, () => this.#loadOlder(), {class: "older", hidden: true});
    at.messageList = h("ol", {class: "messages", role: "list", part: "messages"});
    at.typing = h("div", {class: "typing", hidden: true, "aria-hidden": "true"}, h("i"), h("i"), h("i"));
    at.resumeButton = button(texts.resume, () => this.act((store) => store.resume()));
    at.noticeText = h("p", {dir: "auto"});
    at.noticeBox = h("div", {class: "notice", hidden: true, part: "notice"}, at.noticeText, at.resumeButton);
    const column = h("div", {class: "column"}, at.welcomeBox, at.olderButton, at.messageList, at.typing, at.noticeBox);
    at.log = h("section", {class: "log", role: "log", "aria-live": "off", "aria-label": texts.conversation, tabindex: 0, part: "log", onscroll: () => this.#onScroll()}, column);
    at.jumpButton = iconButton("down", texts.jump, () => this.#jump(), {class: "icon jump", hidden: true, part: "jump"});
    at.banner = h("p", {class: "banner", role: "status", hidden: true, part: "banner"});
    at.problemText = h("p", {class: "banner error", role: "alert", hidden: true});
    at.statusText = h("p", {class: "unseen", role: "status"});
    at.spoken = h("div", {class: "unseen", "aria-live": "polite"});
    this.shadowRoot?.append(h("slot", {name: "header"}), h("div", {class: "stage"}, at.log, at.jumpButton), at.banner, at.problemText, this.#composer(), at.statusText, at.spoken);
  }

  #composer() {
    const at = this.#at;
    const {texts} = this;
    at.start = h("slot", {name: "composer-start"});
    at.fileList = h("ul", {class: "files", role: "list"});
    const picker = h("input", {type: "file", multiple: true, hidden: true, onchange: () => this.#attach([...(picker.files ?? [])])});
    at.attachButton = iconButton("attach", texts.attach, () => picker.click());
    at.field = h("textarea", {rows: 1, placeholder: texts.message, "aria-label": texts.message, dir: "auto", enterkeyhint: "send", part: "field", oninput: () => this.#onInput(), onkeydown: (/** @type {KeyboardEvent} */ event) => this.#onKey(event), onpaste: (/** @type {ClipboardEvent} */ event) => this.#onPaste(event)});
    at.stopButton = iconButton("stop", texts.stop, () => this.#stop(), {class: "icon round", hidden: true, part: "stop"});
    at.sendButton = h("button", {class: "icon round send", "aria-label": texts.send, title: texts.send, part: "send"}, icon("send"));
    const bar = h("div", {class: "bar"}, at.start, at.attachButton, picker, at.field, at.stopButton, at.sendButton);
    const onsubmit = (/** @type {Event} */ event) => {
      event.preventDefault();
      this.#submit();
    };
    at.composerForm = h("form", {class: "composer", part: "composer", onsubmit}, at.fileList, bar);
    return at.composerForm;
  }

  #render() {
    if (!this.shadowRoot || !this.isConnected) return;
    const at = this.#at;
    const {focused} = this;
    const snapshot = this.store?.getSnapshot();
    const {isLoading = false, isRunning = false, isStopping = false, readOnly, hasOlder = false} = snapshot ?? {};
    const all = (snapshot?.messages ?? []).filter(({role, parts}) => role !== "system" && parts.length > 0);
    this.follow(() => {
      this.#renderMessages(all, isRunning);
      show(at.welcomeBox, !isLoading && !readOnly && !all.length && !this.#isCreating);
      show(at.olderButton, hasOlder);
      show(at.typing, isRunning && !snapshot?.retry && !isWriting(all.at(-1)));
      this.#renderNotice(snapshot);
    });
    this.#renderBanner(snapshot);
    at.log.ariaBusy = String(isLoading);
    const maySend = !this.denies("send");
    for (const each of [at.prompts, at.fileList, at.start, at.field, at.sendButton]) show(each, maySend);
    show(at.attachButton, maySend && !this.hasAttribute("no-attachments"));
    show(at.composerForm, show(at.stopButton, isRunning && !this.denies("stop")) || maySend);
    at.stopButton.ariaDisabled = String(isStopping);
    this.#onInput(false);
    if (focused && !this.focused?.checkVisibility()) at.log.focus(); // a button that has gone
    if (snapshot && !isLoading) this.#announce(snapshot, all);
  }

  /** @param {Message[]} messages @param {boolean} isRunning */
  #renderMessages(messages, isRunning) {
    const ids = new Set(messages.map(({id}) => id));
    for (const [id, view] of this.#views) {
      if (ids.has(id)) continue;
      view.close();
      this.#views.delete(id);
    }
    const rights = this.isReadOnly + (this.getAttribute("denied") ?? "");
    const lastAnswer = messages.findLastIndex(({role}) => role === "assistant");
    this.#at.messageList.classList.toggle("busy", isRunning);
    messages.forEach((message, index) => {
      const view = this.#views.get(message.id) ?? new MessageView(this);
      this.#views.set(message.id, view);
      view.update(message, isRunning && index === lastAnswer, !isRunning && index === lastAnswer, rights);
      place(this.#at.messageList, view.element, index);
    });
  }

  /** @param {Snapshot} [snapshot] */
  #renderNotice(snapshot) {
    const {texts} = this;
    const at = this.#at;
    const {isFailed, isStopped, readOnly, error, retry, isRunning} = snapshot ?? {};
    const retried = isRunning && retry ? `${worded(texts, {code: retry.kind, message: retry.error}) || texts.recovering} ${texts.recovering}` : "";
    const text = readOnly ? worded(texts, readOnly) : isFailed ? worded(texts, error) || texts.failed : isStopped ? texts.stopped : retried;
    at.noticeBox.dataset.look = isFailed || readOnly ? "failed" : "";
    show(at.noticeBox, text);
    showText(at.noticeText, text ?? "");
    showText(at.resumeButton, isFailed ? texts.retry : texts.resume);
    show(at.resumeButton, (isFailed || isStopped) && !this.denies("resume"));
  }

  /** @param {Snapshot} [snapshot] */
  #renderBanner(snapshot) {
    const {texts} = this;
    const {state, reason} = this.client.connection.getSnapshot();
    /** @type {Record<string, string>} */
    const by = {...texts, waiting: texts.reconnecting};
    const lost = by[state === "closed" ? (reason ?? "") : state] ?? "";
    const text = lost || (snapshot?.isRecovering && !snapshot.retry ? texts.recovering : "");
    showIfAny(this.#at.banner, text);
  }

  /** Announces changes of state at once, and an answer when it is complete. @param {Snapshot} snapshot @param {Message[]} messages */
  #announce(snapshot, messages) {
    const {isRunning, threadId, status} = snapshot;
    const {texts} = this;
    const last = messages.findLast(({role}) => role === "assistant");
    if (!this.#isReady) {
      this.#isReady = true;
      this.tell("ready", {threadId});
    } else if (isRunning !== this.#wasRunning) {
      const text = isRunning ? texts.answering : snapshot.isFailed ? texts.failed : snapshot.isStopped ? texts.stopped : texts.complete;
      this.#say(text);
      if (!isRunning && last) this.#at.spoken.textContent = textOf(last).slice(0, SPOKEN_CHARACTERS);
      this.tell(isRunning ? "response-start" : "response-end", {threadId, status, message: last});
    }
    this.#wasRunning = isRunning;
    this.#tellCalls(messages);
  }

  /** @param {Message[]} messages */
  #tellCalls(messages) {
    const told = this.#told;
    const waiting = messages.flatMap(({parts}) => parts.filter(({toolCallId, state}) => toolCallId && /^(approval-requested|input-available)$/.test(state)));
    this.#told = new Set(waiting.map(waitOf));
    for (const part of waiting) {
      if (!told || told.has(waitOf(part))) continue;
      this.tell("tool-call", {toolCallId: part.toolCallId, toolName: nameOf(part), input: part.input, state: part.state});
      const form = this.shadowRoot?.querySelector(".tool .ask");
      if (!form || !askOf(this, part)) continue;
      this.#say(`${this.texts.waits}: ${plainName(nameOf(part))}`);
      const isWriting = this.focused === this.#at.field && this.#at.field.value !== "";
      if (this.focused && !isWriting) /** @type {HTMLElement} */ (form).focus({preventScroll: true});
    }
  }

  /** @param {string} text */
  #say(text) {
    this.#at.statusText.textContent = text;
  }

  /** @param {string} text */
  #problem(text) {
    showIfAny(this.#at.problemText, text);
  }

  /** @param {any} error */
  #fail(error) {
    this.#problem(worded(this.texts, error));
    this.tell("error", {error});
  }

  // Events of the reader.

  /** @param {boolean} [isTyped] */
  #onInput(isTyped = true) {
    const {field, sendButton} = this.#at;
    if (isTyped) {
      field.style.height = "auto";
      field.style.height = `${field.scrollHeight}px`;
      if (field.value) sessionStorage.setItem(this.#draftKey, field.value);
      else sessionStorage.removeItem(this.#draftKey);
    }
    const isUploading = this.#files.some(({part}) => !part);
    sendButton.disabled = this.#isCreating || isUploading || (field.value.trim() === "" && !this.#files.length);
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    const isComposing = event.isComposing || event.keyCode === 229; // Enter belongs to the input method
    if (event.key === "ArrowUp" && this.#at.field.value === "") [...this.#at.messageList.querySelectorAll("[data-edit]")].findLast((each) => each.checkVisibility())?.click();
    if (event.key !== "Enter" || event.shiftKey || isComposing) return;
    event.preventDefault();
    this.#submit();
  }

  /** @param {KeyboardEvent} event */
  #onEscape(event) {
    const isInForm = this.focused?.closest(".ask");
    if (event.key === "Escape" && !isInForm && !event.isComposing) this.#stop();
  }

  #stop() {
    const {isStopping} = this.store?.getSnapshot() ?? {};
    if (!this.#at.stopButton.hidden && !isStopping) this.act((store) => store.stop());
  }

  #submit() {
    if (this.#at.sendButton.disabled) return;
    const files = this.#files.flatMap(({part}) => part ?? []);
    const text = this.#at.field.value.trim();
    this.#files = [];
    this.#at.fileList.replaceChildren();
    this.setDraft("");
    this.#send(text, files);
  }

  /** @param {string} text @param {Part[]} [files] */
  async #send(text, files) {
    this.#problem("");
    const hadThread = this.store !== null;
    await this.sendMessage(text, files).catch((error) => {
      if (hadThread || this.store) return; // the message shows the error itself
      this.setDraft(text);
      this.#fail(error);
    });
  }

  /** @param {File[]} files */
  #attach(files) {
    for (const file of files) {
      const bar = h("progress", {max: 1, value: 0, "aria-label": file.name});
      const chip = h("li", {part: "attachment"});
      const entry = {part: /** @type {Part|null} */ (null)};
      const drop = () => {
        this.#files = this.#files.filter((other) => other !== entry);
        chip.remove();
        this.#onInput();
      };
      const onremove = () => {
        drop();
        this.focusComposer();
      };
      chip.append(h("span", {dir: "auto"}, file.name), bar, iconButton("cross", `${this.texts.remove}: ${file.name}`, onremove));
      this.#files.push(entry);
      this.#at.fileList.append(chip);
      const uploading = this.client.uploadAttachment(file, {onProgress: (share) => void (bar.value = share)});
      uploading.then(
        (part) => {
          entry.part = part;
          bar.remove();
          this.#onInput();
        },
        (error) => {
          drop();
          this.#fail(error);
        },
      );
    }
    this.#onInput();
  }

  /** @param {ClipboardEvent} event */
  #onPaste(event) {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length || this.#at.attachButton.hidden) return;
    event.preventDefault();
    this.#attach(files);
  }

  /** @param {DragEvent} event */
  #onDrop(event) {
    if (!event.dataTransfer?.types.includes("Files") || !this.#at.attachButton.checkVisibility()) return;
    event.preventDefault();
    if (event.type === "drop") this.#attach([...event.dataTransfer.files]);
  }

  async #loadOlder() {
    const {log, olderButton} = this.#at;
    const fromEnd = log.scrollHeight - log.scrollTop;
    this.#isFollowing = false;
    olderButton.disabled = true;
    await this.act((store) => store.loadOlder());
    await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
    olderButton.disabled = false;
    log.scrollTop = log.scrollHeight - fromEnd;
  }

  /** Follows the end while the reader is near it. A key or a wheel moves by a few pixels at first: these count, too. */
  #onScroll() {
    const {log, jumpButton} = this.#at;
    const {scrollTop} = log;
    const fromEnd = log.scrollHeight - scrollTop - log.clientHeight;
    if (scrollTop !== this.#top) this.#isFollowing = fromEnd <= (scrollTop < this.#top ? 1 : NEAR_PX);
    this.#top = scrollTop;
    jumpButton.hidden = this.#isFollowing;
  }

  #jump() {
    this.#isFollowing = true;
    this.follow();
    this.#at.log.focus({preventScroll: true});
  }
}

/** Whether this message itself shows that a run is in progress. @param {Message|undefined} message */
function isWriting(message) {
  return message?.role === "assistant" && /^(streaming|input-|approval-requested)/.test(message.parts.at(-1)?.state);
}

/**
 * The caller's threads.
 *
 * Attributes: `for`, the id of a `<durable-chat>` that shows the chosen thread; `agent`, `api-url` and `texts`, as for
 * `<durable-chat>`; `href`, a link address that contains `{id}`. Event: `thread-select`.
 */
export class DurableThreadList extends DurableElement {
  #list = /** @type {ReturnType<Client["threads"]>|null} */ (null);
  #current = /** @type {string|null} */ (null);
  /** The thread whose menu is open. @type {string|null} */
  #opened = null;
  #at = /** @type {Record<string, any>} */ ({});

  /** @returns {DurableChat|null} */
  get chat() {
    return /** @type {DurableChat|null} */ (document.getElementById(this.getAttribute("for") ?? ""));
  }

  connectedCallback() {
    this.draw();
    const {texts} = this;
    const filter = this.hasAttribute("agent") ? {agent: this.getAttribute("agent") ?? ""} : {};
    const list = (this.#list = this.client.threads(filter));
    /** @type {ReturnType<typeof setTimeout>|undefined} */
    let timer;
    const oninput = () => {
      clearTimeout(timer);
      timer = setTimeout(() => list.search(field.value.trim()), 250);
    };
    const at = this.#at;
    const field = (at.field = h("input", {type: "search", placeholder: texts.search, "aria-label": texts.search, oninput, part: "search"}));
    at.threadRows = h("ul", {class: "threads", role: "list", part: "threads"});
    at.noteText = h("p", {class: "hint", role: "status"});
    at.moreButton = button(texts.loadMore, () => list.loadMore(), {hidden: true});
    this.shadowRoot?.append(field, h("nav", {class: "thread-nav", "aria-label": texts.chats}, at.threadRows, at.noteText, at.moreButton));
    const onChange = () => this.select(this.chat?.threadId ?? null);
    document.addEventListener("thread-change", onChange);
    this.leaving.push(list.subscribe(() => this.#render()), () => document.removeEventListener("thread-change", onChange));
    onChange();
  }

  /** Marks a thread as the one that is shown. @param {string|null} id */
  select(id) {
    this.#current = id;
    this.#render();
  }

  /** @param {string|null} [focused] the key of what has the focus afterwards */
  #render(focused = this.focused?.getAttribute("data-key")) {
    const {threadRows, noteText, moreButton, field} = this.#at;
    if (!this.#list || threadRows.querySelector("input")) return; // a title is being edited
    const {threads, hasMore, isLoading, error} = this.#list.getSnapshot();
    const index = [...threadRows.children].findIndex((row) => row.contains(this.focused));
    threadRows.replaceChildren(...threads.map((thread) => this.#row(thread)));
    // A row that has gone leaves the focus to the next one.
    if (focused) (threadRows.querySelector(`[data-key="${CSS.escape(focused)}"]`) ?? threadRows.children[index]?.firstChild ?? field).focus();
    showText(noteText, error ? error.message : isLoading || threads.length ? "" : this.texts.noChats);
    show(moreButton, hasMore);
  }

  /** @param {Record<string, any>} thread */
  #row({id, title, status, updated_at: at}) {
    const {texts} = this;
    const list = /** @type {ReturnType<Client["threads"]>} */ (this.#list);
    const href = (this.getAttribute("href") ?? "?thread={id}").replace("{id}", encodeURIComponent(id));
    const onclick = (/** @type {MouseEvent} */ event) => {
      if (event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
      if (!this.tell("thread-select", {threadId: id}) || this.chat) event.preventDefault();
      this.chat?.openThread(id);
    };
    const shown = title || texts.untitled;
    const [name, age] = [h("span", {class: "name", dir: "auto"}, shown), h("time", {datetime: at}, new Date(at).toLocaleDateString(document.documentElement.lang || [], {day: "numeric", month: "short"}))];
    const link = h("a", {href, onclick, "data-key": id, "data-status": status, "aria-current": id === this.#current && "page", part: "thread"}, h("span", {class: "dot"}), name, age);
    const fail = (/** @type {unknown} */ error) => this.tell("error", {error});
    const remove = async () => {
      if (!confirm(`${texts.delete}: ${shown}?`)) return;
      await list.remove(id).catch(fail);
      if (id === this.#current) this.chat?.openThread(null);
    };
    const rename = () => {
      let focused = "";
      const onblur = () => {
        field.remove();
        this.#opened = null;
        this.#render(focused);
      };
      const onkeydown = (/** @type {KeyboardEvent} */ {key, isComposing}) => {
        if (isComposing || !/^E(nter|scape)$/.test(key)) return;
        if (key === "Enter") list.rename(id, field.value.trim()).catch(fail);
        focused = id;
        field.blur();
      };
      const field = h("input", {type: "text", maxlength: 200, value: title, "aria-label": texts.rename, dir: "auto", onkeydown, onblur});
      row.replaceChildren(field);
      field.focus();
    };
    /** @type {Record<string, () => void>} */
    const actions = {rename, archive: () => list.archive(id).catch(fail), delete: remove};
    const isOpen = this.#opened === id;
    const toggle = () => {
      this.#opened = isOpen ? null : id;
      this.#render();
    };
    const more = iconButton("more", `${texts.more}: ${shown}`, toggle, {class: "icon more", "aria-expanded": String(isOpen), "data-key": `more ${id}`});
    const buttons = Object.entries(actions).map(([name, act]) => button(texts[/** @type {"rename"} */ (name)], act, {"data-key": `${name} ${id}`}));
    const row = h("li", {}, link, more, isOpen ? h("div", {class: "buttons"}, ...buttons) : null);
    return row;
  }
}

// ------------------------------------------------------------------------------------------------------------- Styles

/** @type {CSSStyleSheet|undefined} */
let shared;

/** One sheet for all elements: `adoptedStyleSheets` need no exception in a Content-Security-Policy. */
function sheet() {
  if (!shared) {
    shared = new CSSStyleSheet();
    shared.replaceSync(STYLES);
  }
  return shared;
}

const STYLES = `
:host {
  --paper: var(--da-paper, light-dark(#faf9f6, #161615));
  --sheet: var(--da-sheet, light-dark(#fff, #1e1e1c));
  --well: var(--da-well, light-dark(#f2f0ea, #111110));
  --hover: var(--da-hover, light-dark(#e9e6de, #2a2a27));
  --line: var(--da-line, light-dark(#e2ded5, #32312d));
  --line-strong: var(--da-line-strong, light-dark(#8d887c, #77736a));
  --ink: var(--da-ink, light-dark(#1d1c19, #ecebe6));
  --ink-soft: var(--da-ink-soft, light-dark(#5f5b52, #aaa69b));
  --accent: var(--da-accent, light-dark(#17635a, #6cc5b4));
  --accent-ink: var(--da-accent-ink, light-dark(#fff, #0c1f1c));
  --accent-wash: var(--da-accent-wash, light-dark(#e3efec, #1c322e));
  --amber: var(--da-amber, light-dark(#8a5a00, #e6b45c));
  --red: var(--da-red, light-dark(#ad2f26, #f0837a));
  --red-wash: var(--da-red-wash, light-dark(#fbeae8, #37201e));
  --radius: var(--da-radius, .75rem);
  --code: var(--da-code-font, ui-monospace, Menlo, Consolas, monospace);
  display: flex;
  flex-direction: column;
  min-height: 0;
  color: var(--ink);
  background: var(--paper);
  font: var(--da-font, 100%/1.6 system-ui);
}
:host([hidden]), [hidden] { display: none !important; }
*, ::before, ::after { box-sizing: border-box; }
h2, h3, h4, h5, h6, p, ul, ol, pre, blockquote { margin: 0; }
h2 { font-size: 1.625rem; }
h3, h4, h5, h6 { font-size: 1rem; }
[role=list] { padding: 0; list-style: none; }
a { color: var(--accent); }
button, input, textarea { font: inherit; color: inherit; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.log:focus-visible, summary:focus-visible, .threads :focus-visible { outline-offset: -2px; }
svg { width: 1.25rem; height: 1.25rem; flex: none; fill: none; stroke: currentColor; stroke-width: 1.75; stroke-linecap: round; stroke-linejoin: round; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
button { min-height: 2.75rem; padding: .5rem 1rem; border: 1px solid var(--line); border-radius: var(--radius); background: var(--sheet); font-weight: 550; cursor: pointer; }
button:hover { background: var(--hover); }
button:disabled, [aria-disabled=true] { cursor: default; opacity: .55; }
.primary, .primary:hover, .send, .send:hover { border-color: transparent; background: var(--accent); color: var(--accent-ink); }
.icon { display: inline-grid; place-items: center; flex: none; width: 2.75rem; padding: 0; border-color: transparent; background: none; color: var(--ink-soft); }
.banner { padding: .5rem 1.25rem; background: var(--accent-wash); color: var(--ink); font-size: .9375rem; text-align: center; }
.error { padding: .5rem .75rem; border-radius: .5rem; background: var(--red-wash); color: var(--red); font-size: .9375rem; overflow-wrap: anywhere; }
.stage { position: relative; flex: 1; min-height: 0; }
.log { height: 100%; overflow-y: auto; overscroll-behavior: contain; }
.column { display: flex; flex-direction: column; max-width: var(--da-column, 46rem); min-height: 100%; margin-inline: auto; padding: 0 1.25rem 1.5rem; }
.messages > li, .parts, .text, .body, .ask { display: grid; grid-template-columns: minmax(0, 1fr); }
.messages > li { contain: layout style; gap: .25rem; margin-block-start: 1.5rem; }
.parts { gap: .625rem; }
pre { max-height: 24rem; padding: .75rem 1rem; overflow: auto; border-radius: .5rem; background: var(--well); font: .8125rem/1.55 var(--code); white-space: pre-wrap; overflow-wrap: anywhere; }
.text {
  gap: .75rem; overflow-wrap: anywhere; white-space: pre-wrap;
  &:empty { display: none; }
  > :is(p, ul, ol, h3, h4, h5, h6, blockquote, hr, .table) { white-space: normal; }
  :is(p, li, td, th) { white-space: pre-line; }
  :is(ul, ol) { display: grid; gap: .25rem; padding-inline-start: 1.5rem; }
  code { padding: .1em .3em; border-radius: .3rem; background: var(--well); font: .875em/1.55 var(--code); }
  pre { max-height: none; border: 1px solid var(--line); white-space: pre; overflow-wrap: normal; }
  pre code { padding: 0; background: none; }
  blockquote { padding-inline-start: 1rem; border-inline-start: 3px solid var(--line); color: var(--ink-soft); }
  .table { overflow-x: auto; }
  table { border-collapse: collapse; font-size: .9375rem; }
  :is(th, td) { padding: .375rem .75rem; border-block-end: 1px solid var(--line); text-align: start; }
}
[data-role=user] { justify-items: end; }
[data-role=user] .parts { max-width: min(85%, 36rem); padding: .625rem 1rem; border-radius: 1.25rem; border-end-end-radius: .375rem; background: var(--accent-wash); }
[data-delivery=failed] .parts { background: var(--red-wash); }
.live::after, .live > p:last-child::after { display: inline-block; width: .5em; height: 1em; margin-inline-start: .15em; border-radius: 2px; background: var(--accent); vertical-align: -.12em; content: ""; animation: blink 1.1s steps(2, jump-none) infinite; }
.live:has(> p:last-child)::after, .live:has(> :not(p):last-child)::after { display: none; }
.foot, .state, .progress, .gist, .reasoning, time, .hint, .body > p:not([class]) { color: var(--ink-soft); font-size: .875rem; }
.foot {
  display: flex; align-items: center;
  svg { width: 1.0625rem; height: 1.0625rem; }
}
@media (hover: hover) { .foot button { min-height: 2rem; } }
.busy [data-edit] { display: none; }
.quiet { border-color: transparent; background: none; color: inherit; font-weight: 400; }
[data-role=assistant] .foot { margin-inline-start: -.75rem; }
@media (hover: hover) { .messages > li:not(:hover, :focus-within, :last-child) .foot .icon { opacity: 0; } }
.typing {
  display: flex; gap: .3rem; padding-block: 1.75rem .5rem;
  i { width: .5rem; height: .5rem; border-radius: 50%; background: var(--line-strong); animation: breathe 1.2s ease-in-out infinite; }
}
.notice {
  display: flex; flex-wrap: wrap; align-items: center; gap: .5rem 1rem; margin-block-start: 1.5rem; padding: .5rem .5rem .5rem 1rem; border: 1px solid var(--line); border-radius: var(--radius); color: var(--ink-soft);
  p { flex: 1; min-width: 12rem; padding-block: .5rem; overflow-wrap: anywhere; }
  &[data-look=failed] { border-color: transparent; background: var(--red-wash); color: var(--red); }
  button { color: var(--ink); }
}
.older { align-self: center; margin-block-start: 1.5rem; }
.jump { position: absolute; inset-block-end: .75rem; inset-inline-start: calc(50% - 1.375rem); border-color: var(--line); border-radius: 50%; background: var(--sheet); }
.card { overflow: clip; border: 1px solid var(--line); border-radius: var(--radius); background: var(--sheet); }
summary { display: flex; flex-wrap: wrap; align-items: center; gap: 0 .625rem; min-height: 2.75rem; padding: .375rem .75rem; cursor: pointer; list-style: none; }
summary::-webkit-details-marker { display: none; }
.reasoning {
  border-style: dashed; background: none;
  .text { padding: 0 1rem .75rem 2.375rem; }
  svg:dir(rtl) { rotate: 180deg; }
  &[open] svg { rotate: 90deg; }
}
.sign {
  display: grid; place-items: center; width: 1.375rem; height: 1.375rem; border-radius: 50%;
  svg { width: .9375rem; stroke-width: 2.5; }
}
[data-look=busy] .sign { width: 1rem; height: 1rem; margin: .1875rem; border: 2px solid var(--line); border-block-start-color: var(--accent); animation: turn .8s linear infinite; }
[data-look=done] .sign { background: var(--accent-wash); color: var(--accent); }
[data-look=failed] :is(.sign, .state) { color: var(--red); }
[data-look=waits] :is(.sign, .state) { color: var(--amber); }
.tool[data-look=waits] { border-color: var(--amber); }
.tool .name { font: 600 .875rem var(--code); overflow-wrap: anywhere; }
.gist { flex: 1; min-width: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.progress { display: flex; flex: 1 0 100%; align-items: center; gap: .75rem; padding-inline-start: 2rem; }
progress { flex: 1; min-width: 3rem; height: .5rem; accent-color: var(--accent); }
.body { gap: .375rem; padding: .75rem; border-block-start: 1px solid var(--line); }
.ask { gap: .75rem; padding: .25rem; }
.ask :is(textarea, input, select), input[type=search], input[type=text] { width: 100%; min-height: 2.75rem; padding: .5rem .75rem; border: 1px solid var(--line-strong); border-radius: .5rem; background: var(--paper); font-weight: 400; field-sizing: content; resize: vertical; }
.ask .code { font: .8125rem/1.55 var(--code); }
pre, code, .code { direction: ltr; unicode-bidi: isolate; }
.edit { width: min(100%, 36rem); }
.buttons { display: flex; flex-wrap: wrap; gap: .5rem; }
.file { font-size: .9375rem; overflow-wrap: anywhere; }
.file img { display: block; max-width: 100%; max-height: 16rem; border-radius: .5rem; }
.welcome { display: grid; justify-items: center; gap: .5rem; margin: auto; padding-block: 1rem; text-align: center; }
.prompts {
  display: flex; flex-wrap: wrap; justify-content: center; gap: .5rem; margin-block-start: 1rem;
  button { border-radius: 1.375rem; font-weight: 400; font-size: .9375rem; }
}
.composer { display: grid; gap: .5rem; width: 100%; max-width: var(--da-column, 46rem); margin-inline: auto; padding: .25rem max(1rem, env(safe-area-inset-right)) calc(.75rem + env(safe-area-inset-bottom)) max(1rem, env(safe-area-inset-left)); }
.bar {
  display: flex; align-items: flex-end; justify-content: center; gap: .25rem; padding: .375rem; border: 1px solid var(--line-strong); border-radius: 1.625rem; background: var(--sheet);
  &:focus-within { border-color: var(--accent); outline: 1px solid var(--accent); }
  textarea { flex: 1; min-width: 0; min-height: 2.75rem; max-height: min(14rem, 40dvh); padding: .5625rem .5rem; border: 0; background: none; outline: 0; resize: none; line-height: 1.6; }
}
textarea::placeholder, input::placeholder { color: var(--ink-soft); opacity: 1; }
.bar .icon { border-radius: 50%; }
.round { background: var(--hover); }
.send:disabled { background: var(--hover); color: var(--ink-soft); opacity: 1; }
.files {
  display: flex; flex-wrap: wrap; gap: .5rem;
  &:empty { display: none; }
  li { display: flex; align-items: center; gap: .5rem; max-width: 100%; padding-inline-start: .75rem; border: 1px solid var(--line); border-radius: var(--radius); background: var(--sheet); font-size: .9375rem; overflow-wrap: anywhere; }
}
.thread-nav { flex: 1; min-height: 0; margin-block-start: .5rem; overflow-y: auto; }
.threads {
  display: grid; gap: .125rem; grid-template-columns: minmax(0, 1fr);
  li { position: relative; display: flex; flex-wrap: wrap; }
  a { display: flex; flex: 1; align-items: center; gap: .5rem; min-width: 0; min-height: 2.75rem; padding: .375rem .625rem; border-radius: var(--radius); color: inherit; font-size: .9375rem; text-decoration: none; }
  a:hover { background: var(--hover); }
  [aria-current] { background: var(--sheet); font-weight: 550; }
}
.name { overflow: hidden; text-overflow: ellipsis; }
.threads .name { flex: 1; white-space: nowrap; }
time { font-weight: 400; white-space: nowrap; }
.dot { width: .5rem; height: .5rem; flex: none; border: 1.5px solid var(--line-strong); border-radius: 50%; }
:is([data-status=streaming], [data-status=awaiting_tool_results]) .dot { border-color: transparent; background: var(--accent); animation: breathe 1.6s ease-in-out infinite; }
[data-status=failed] .dot { border-color: transparent; background: var(--red); }
[data-status=stopped] .dot { border-color: transparent; background: var(--amber); }
.threads {
  .buttons { flex: 1 0 100%; }
  .buttons button { padding-inline: .625rem; font-size: .875rem; }
}
@media (hover: hover) { .more { position: absolute; inset-inline-end: 0; } .threads li:not(:hover, :focus-within) .more, .threads li:is(:hover, :focus-within) time { opacity: 0; } }
@media (max-width: 30rem) { .column { padding: 0 1rem 1.25rem; } [data-role=user] .parts { max-width: 90%; } }
@keyframes breathe { 50% { opacity: .35; } }
@keyframes blink { to { opacity: 0; } }
@keyframes turn { to { rotate: 1turn; } }
@media (prefers-reduced-motion: reduce) { *, ::before, ::after { animation: none !important; } }
@media (forced-colors: active) { .dot, .sign, button, [data-role=user] .parts, .threads [aria-current] { border: 1px solid; } .typing i, .live::after { background: CanvasText; } }
`;

if (globalThis.customElements) {
  for (const [name, element] of /** @type {const} */ ([["durable-chat", DurableChat], ["durable-thread-list", DurableThreadList]])) {
    if (!customElements.get(name)) customElements.define(name, element);
  }
}
