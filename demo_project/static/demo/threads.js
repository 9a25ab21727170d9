/** The list of chats beside the conversation, kept up to date from the API. */

import {byId, inside, piece, show, showText} from "./dom.js";

/** @typedef {typeof import("../../../durable_agents/static/durable_agents/durable-agents.js")} Core */
/** @typedef {ReturnType<Core["createClient"]>} Client */
/** @typedef {Record<string, any>} Thread */

const PAGE = 30;
/** What the server gives at once; of a longer list a refresh leaves so many. */
const MOST = 200;
const REFRESH_MS = 10_000;
const RUNNING = new Set(["streaming", "awaiting_tool_results"]);

/** What the dot before a chat says. @type {Record<string, string>} */
const STATUS_TEXTS = {
  streaming: "answering",
  awaiting_tool_results: "working",
  failed: "failed",
  stopped: "stopped",
  completed: "",
};

export class ThreadList {
  /** @type {Map<string, Thread>} */
  #threads = new Map();
  /** @type {Map<string, HTMLElement>} */
  #elements = new Map();
  /** @type {string|null} */
  #next = null;
  /** @type {string|null} */
  #current = null;
  /** Requests go one after the other, so that none undoes what another has shown. @type {Promise<void>} */
  #last = Promise.resolve();
  #list = byId("threads", HTMLUListElement);
  #note = byId("threads-note", HTMLElement);
  #more = byId("more-threads", HTMLButtonElement);
  #client;

  /**
   * @param {Client} client
   * @param {(id: string) => void} onPick
   */
  constructor(client, onPick) {
    this.#client = client;
    this.#list.addEventListener("click", (event) => pick(event, onPick));
    this.#more.addEventListener("click", () => this.#soon(() => this.#showMore()));
    setInterval(() => this.#isWorthAsking() && this.refresh(), REFRESH_MS);
    document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && this.refresh());
  }

  /** Asks the server again for as many chats as are listed. One that is gone leaves the list. */
  refresh = () => this.#soon(() => this.#refresh());

  /** @param {string|null} id */
  select(id) {
    this.#current = id;
    this.#render();
  }

  /**
   * Takes what is known better than by the last refresh.
   * @param {Thread} thread with its `id`
   */
  put(thread) {
    const known = this.#threads.get(thread.id);
    const isNews = !known || Object.keys(thread).some((key) => thread[key] !== known[key]);
    if (!isNews) return;
    this.#threads.set(thread.id, {updated_at: new Date().toISOString(), ...known, ...thread});
    this.#render();
  }

  #isWorthAsking() {
    const isVisible = document.visibilityState === "visible";
    return isVisible && [...this.#threads.values()].some(({id, status}) => id !== this.#current && RUNNING.has(status));
  }

  async #refresh() {
    const listed = [...this.#threads.keys()];
    await this.#take({limit: Math.min(Math.max(listed.length, PAGE), MOST)}, listed);
  }

  async #showMore() {
    if (this.#next) await this.#take({page: this.#next});
  }

  /**
   * @param {{limit?: number, page?: string}} asked
   * @param {string[]} listed the chats that are gone unless the server lists them; the one that is open stays
   */
  async #take(asked, listed = []) {
    const {results, next} = await this.#client.listThreads(asked);
    for (const id of listed) if (id !== this.#current) this.#threads.delete(id);
    for (const thread of results) this.#threads.set(thread.id, thread);
    this.#next = next;
  }

  /** @param {() => Promise<void>} work */
  #soon(work) {
    this.#last = this.#last.then(() => this.#attempt(work));
    return this.#last;
  }

  /** @param {() => Promise<void>} work */
  async #attempt(work) {
    try {
      await work();
      this.#say(this.#threads.size === 0 ? "Your chats will be listed here." : "");
    } catch (error) {
      const {message} = /** @type {Error} */ (error);
      this.#say(this.#threads.size === 0 ? `The list could not be loaded. ${message}` : "");
    }
    this.#render();
  }

  /** @param {string} text */
  #say(text) {
    showText(this.#note, text);
    show(this.#note, text !== "");
  }

  #render() {
    for (const [id, element] of this.#elements) if (!this.#threads.has(id)) this.#remove(id, element);
    const ordered = [...this.#threads.values()].sort((one, other) => other.updated_at.localeCompare(one.updated_at));
    ordered.forEach((thread, index) => {
      const element = this.#elementOf(thread);
      const there = this.#list.children[index] ?? null;
      if (there !== element) this.#list.insertBefore(element, there);
    });
    if (ordered.length > 0) this.#say("");
    show(this.#more, this.#next !== null);
  }

  /** @param {string} id @param {HTMLElement} element */
  #remove(id, element) {
    element.remove();
    this.#elements.delete(id);
  }

  /** @param {Thread} thread */
  #elementOf(thread) {
    const element = this.#elements.get(thread.id) ?? piece("thread-piece");
    this.#elements.set(thread.id, element);
    const link = inside(element, "a", HTMLAnchorElement);
    link.dataset.thread = thread.id;
    link.dataset.status = thread.status;
    link.href = `?thread=${encodeURIComponent(thread.id)}`;
    if (thread.id === this.#current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
    showText(inside(element, ".thread-name", HTMLElement), thread.title || "Untitled chat");
    showText(inside(element, ".thread-status", HTMLElement), STATUS_TEXTS[thread.status] ?? thread.status);
    const time = inside(element, "time", HTMLTimeElement);
    time.dateTime = thread.updated_at;
    showText(time, ageOf(thread.updated_at));
    return element;
  }
}

/**
 * A plain click picks a chat here; one that asks for a new tab is left to the browser.
 * @param {MouseEvent} event
 * @param {(id: string) => void} onPick
 */
function pick(event, onPick) {
  const link = event.target instanceof Element && event.target.closest("a");
  if (!link || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  onPick(/** @type {HTMLElement} */ (link).dataset.thread ?? "");
}

/** @type {[limitSeconds: number, unitSeconds: number, unit: string][]} */
const AGES = [
  [3_600, 60, "min"],
  [86_400, 3_600, "h"],
  [Infinity, 86_400, "d"],
];

/** @param {string} date */
function ageOf(date) {
  const seconds = Math.max(0, (Date.now() - Date.parse(date)) / 1000);
  if (seconds < 60) return "now";
  const [, unitSeconds, unit] = /** @type {[number, number, string]} */ (AGES.find(([limit]) => seconds < limit));
  return `${Math.floor(seconds / unitSeconds)} ${unit}`;
}
