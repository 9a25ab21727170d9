/**
 * The list of messages on the page. Each message and each part keeps its elements while it changes, so an open card
 * stays open and a selection stays selected.
 */

import {AskForm, askOf, nameOf} from "./asks.js";
import {inside, piece, show, showText} from "./dom.js";

/** @typedef {import("../../../durable_agents/static/durable_agents/durable-agents.js").Message} Message */
/** @typedef {import("../../../durable_agents/static/durable_agents/durable-agents.js").Part} Part */
/** @typedef {{element: HTMLElement, update: (part: Part) => void}} PartView */
/** @typedef {import("./asks.js").Store} Store */
/** @typedef {(element: Element, text: string) => void} ShowMarkdown */

const AUTHORS = new Map([
  ["user", "You"],
  ["assistant", "Assistant"],
]);

export class MessageList {
  /** @type {Map<string, MessageView>} */
  #views = new Map();
  #list;
  #showMarkdown;
  #onRetry;
  #getStore;

  /**
   * @param {HTMLElement} list
   * @param {ShowMarkdown} showMarkdown
   * @param {(message: Message) => void} onRetry a message that was not delivered shall be sent again
   * @param {() => Store|null} getStore the thread whose calls are answered
   */
  constructor(list, showMarkdown, onRetry, getStore) {
    this.#getStore = getStore;
    this.#list = list;
    this.#showMarkdown = showMarkdown;
    this.#onRetry = onRetry;
  }

  /**
   * @param {Message[]} messages
   * @param {boolean} isRunning
   */
  render(messages, isRunning) {
    const shown = messages.filter(({role, parts}) => role !== "system" && parts.length > 0);
    for (const [id, view] of this.#views) if (!shown.some((message) => message.id === id)) this.#remove(id, view);
    shown.forEach((message, index) => {
      const view = this.#viewOf(message);
      view.update(message, isRunning && index === shown.length - 1);
      place(this.#list, view.element, index);
    });
  }

  /** @param {Message} message */
  #viewOf(message) {
    const view = this.#views.get(message.id) ?? new MessageView(this.#showMarkdown, this.#onRetry, this.#getStore);
    this.#views.set(message.id, view);
    return view;
  }

  /** @param {string} id @param {MessageView} view */
  #remove(id, view) {
    view.element.remove();
    this.#views.delete(id);
  }
}

class MessageView {
  element = piece("message-piece");
  /** @type {Map<string, PartView>} */
  #parts = new Map();
  /** @type {Message|null} */
  #message = null;
  #isOpen = false;
  #showMarkdown;
  #container = inside(this.element, ".parts", HTMLElement);
  #foot = inside(this.element, ".message-foot", HTMLElement);
  #delivery = inside(this.element, ".delivery", HTMLElement);
  #retry = inside(this.element, ".retry", HTMLButtonElement);
  #copy = inside(this.element, ".copy", HTMLButtonElement);

  #getStore;

  /** @param {ShowMarkdown} showMarkdown @param {(message: Message) => void} onRetry @param {() => Store|null} getStore */
  constructor(showMarkdown, onRetry, getStore) {
    this.#getStore = getStore;
    this.#showMarkdown = showMarkdown;
    this.#retry.addEventListener("click", () => this.#message && onRetry(this.#message));
    this.#copy.addEventListener("click", () => this.#copyText());
  }

  /**
   * @param {Message} message
   * @param {boolean} isOpen whether more may be written to it
   */
  update(message, isOpen) {
    if (message === this.#message && isOpen === this.#isOpen) return;
    this.#message = message;
    this.#isOpen = isOpen;
    this.element.dataset.role = message.role;
    this.element.setAttribute("aria-busy", String(isOpen && message.role === "assistant"));
    showText(inside(this.element, ".author", HTMLElement), `${AUTHORS.get(message.role) ?? message.role}:`);
    this.#renderParts(message.parts);
    this.#renderFoot(message, isOpen);
  }

  /** @param {Part[]} parts */
  #renderParts(parts) {
    const keyed = parts.map((part, index) => ({part, key: part.toolCallId ?? `${part.type} ${index}`}));
    const shown = keyed.filter(({part}) => SHOWN.test(part.type));
    const keys = new Set(shown.map(({key}) => key));
    for (const [key, {element}] of this.#parts) {
      if (keys.has(key)) continue;
      element.remove();
      this.#parts.delete(key);
    }
    shown.forEach(({part, key}, index) => this.#placePart(part, key, index));
  }

  /** @param {Part} part @param {string} key @param {number} index */
  #placePart(part, key, index) {
    const view = this.#parts.get(key) ?? this.#makePart(part);
    this.#parts.set(key, view);
    view.update(part);
    place(this.#container, view.element, index);
  }

  /** @param {Part} part @returns {PartView} */
  #makePart({type}) {
    if (type === "text") return textView(this.#message?.role === "assistant" ? this.#showMarkdown : null);
    if (type === "reasoning") return reasoningView();
    return type === "source-url" || type === "file" ? sourceView() : toolView(this.#getStore);
  }

  /** @param {Message} message @param {boolean} isOpen */
  #renderFoot(message, isOpen) {
    const note = deliveryNote(message);
    showText(this.#delivery, note);
    show(this.#retry, message.delivery === "failed");
    this.element.dataset.delivery = message.delivery ?? "";
    const isCopyable = show(this.#copy, message.role === "assistant" && !isOpen && textOf(message) !== "");
    show(this.#foot, note !== "" || isCopyable);
  }

  async #copyText() {
    if (!this.#message) return;
    await navigator.clipboard?.writeText(textOf(this.#message));
    this.#copy.dataset.done = "true";
    setTimeout(() => delete this.#copy.dataset.done, 1500);
  }
}

/**
 * What a message says in plain words.
 * @param {Message} message
 */
export function textOf(message) {
  const said = message.parts.filter((part) => part.type === "text" && part.text.trim());
  return said.map((part) => part.text).join("\n\n");
}

/** @type {(message: Message) => string} */
function deliveryNote({role, delivery, problem, position}) {
  if (delivery === "failed") return `Not sent. ${problem?.message ?? ""}`;
  if (delivery === "sending") return "Sending…";
  return role === "user" && position === null ? "Waits for its turn" : "";
}

/** The parts that a reader sees. */
const SHOWN = /^(text|reasoning|source-url|file|dynamic-tool|tool-.+)$/;

/** @type {(parent: HTMLElement, child: HTMLElement, index: number) => void} */
function place(parent, child, index) {
  const there = parent.children[index] ?? null;
  if (there !== child) parent.insertBefore(child, there);
}

/** @type {(showMarkdown: ShowMarkdown|null) => PartView} */
function textView(showMarkdown) {
  const element = piece("text-piece");
  if (showMarkdown) element.classList.add("prose");
  return {
    element,
    update(part) {
      if (showMarkdown) showMarkdown(element, part.text);
      else showText(element, part.text);
      element.classList.toggle("is-streaming", part.state === "streaming");
    },
  };
}

/** @type {() => PartView} */
function reasoningView() {
  const element = piece("reasoning-piece");
  const label = inside(element, ".reasoning-label", HTMLElement);
  const text = inside(element, ".text", HTMLElement);
  return {
    element,
    update(part) {
      showText(label, part.state === "streaming" ? "Thinking…" : "Thought about it");
      showText(text, part.text);
      element.classList.toggle("is-streaming", part.state === "streaming");
    },
  };
}

/** How each state of a tool part reads and looks. @type {Record<string, {text: string, look: string}>} */
const TOOL_STATES = {
  "input-streaming": {text: "Preparing", look: "busy"},
  "input-available": {text: "Running", look: "busy"},
  "approval-requested": {text: "Needs approval", look: "waits"},
  "approval-responded": {text: "Running", look: "busy"},
  "output-available": {text: "Done", look: "done"},
  "output-error": {text: "Failed", look: "failed"},
  "output-denied": {text: "Rejected", look: "failed"},
};

/** @type {(getStore: () => Store|null) => PartView} */
function toolView(getStore) {
  const element = /** @type {HTMLDetailsElement} */ (piece("tool-piece"));
  const field = (/** @type {string} */ name) => inside(element, `.tool-${name}`, HTMLElement);
  const showJson = (/** @type {string} */ name, /** @type {any} */ value) => {
    show(field(`${name}-head`), value !== undefined);
    if (show(field(name), value !== undefined)) showText(field(name), pretty(value));
  };
  /** @type {AskForm|null} */
  let form = null;
  return {
    element,
    update(part) {
      form = placeForm(element, form, part, getStore);
      const {text, look} = form ? WAITS : (TOOL_STATES[part.state] ?? {text: part.state, look: "busy"});
      element.dataset.look = look;
      showText(field("name"), nameOf(part));
      showText(field("gist"), form ? "" : gistOf(part.input)); // a form says it at length
      showText(field("state"), text);
      showJson("input", form ? undefined : (part.input ?? {}));
      showProgress(element, part.progress);
      showJson("output", part.output);
      if (show(field("error"), part.errorText !== undefined)) showText(field("error"), part.errorText);
    },
  };
}

const WAITS = {text: "Waits for you", look: "waits"};

/**
 * The form of a call that waits for the reader: put on the page and opened, or taken away when it waits no more.
 * @type {(card: HTMLDetailsElement, form: AskForm|null, part: Part, getStore: () => Store|null) => AskForm|null}
 */
function placeForm(card, form, part, getStore) {
  const ask = askOf(part);
  if (form?.fits(part) || (!form && !ask)) return form;
  const hadFocus = form?.element.contains(document.activeElement) ?? false;
  form?.element.remove();
  card.open = ask !== null;
  if (!ask) {
    if (hadFocus) inside(card, "summary", HTMLElement).focus();
    return null;
  }
  const made = new AskForm(ask, part, getStore);
  inside(card, ".tool-body", HTMLElement).prepend(made.element);
  return made;
}

/**
 * How far a call is: a bar where it says how much of how much, else its own words.
 * @type {(card: HTMLElement, progress: any) => void}
 */
function showProgress(card, progress) {
  if (!show(inside(card, ".tool-progress", HTMLElement), progress !== undefined)) return;
  const bar = inside(card, ".tool-bar", HTMLProgressElement);
  const {value, text} = measured(progress);
  if (show(bar, value !== null)) bar.value = value ?? 0;
  showText(inside(card, ".tool-progress-text", HTMLElement), text);
}

/**
 * A number from 0 to 1, or an object with `done` and `total`, is a part of a whole; anything else is shown as it is.
 * @type {(progress: any) => {value: number|null, text: string}}
 */
function measured(progress) {
  const {done, total, text} = typeof progress === "object" && progress !== null ? progress : {};
  const share = typeof progress === "number" ? progress : done / total;
  if (!(share >= 0 && share <= 1)) return {value: null, text: gistOf(progress) || String(progress)};
  const said = typeof text === "string" ? text : total ? `${done} of ${total}` : `${Math.round(share * 100)} %`;
  return {value: share, text: said};
}

/** @type {(value: any) => string} */
const pretty = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 2));

/** The arguments of a call in one line. @type {(input: any) => string} */
function gistOf(input) {
  if (typeof input !== "object" || input === null) return "";
  const values = Object.values(input).map((value) => (typeof value === "string" ? value : JSON.stringify(value)));
  return values.join(", ").slice(0, 120);
}

/** A source or a file; an image is shown as one. @type {() => PartView} */
function sourceView() {
  const element = piece("source-piece");
  const link = inside(element, "a", HTMLAnchorElement);
  return {
    element,
    update(part) {
      const name = part.title ?? part.filename ?? part.url;
      const image = part.mediaType?.startsWith("image/") && isWebAddress(part.url) ? imageOf(part.url, name) : null;
      if (image && link.querySelector("img")?.src === image.src) return;
      if (image) link.replaceChildren(image);
      else showText(link, name);
      if (isWebAddress(part.url)) link.href = part.url;
    },
  };
}

/** @type {(url: string, name: string) => HTMLImageElement} */
function imageOf(url, name) {
  const image = document.createElement("img");
  image.alt = name;
  image.src = url;
  return image;
}

/** Files of this site have a relative address. @type {(url: string) => boolean} */
function isWebAddress(url) {
  return URL.canParse(url, location.href) && /^https?:$/.test(new URL(url, location.href).protocol);
}
