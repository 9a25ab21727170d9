/**
 * The demo's chat page: it puts the store of one thread on the page and the reader's wishes into the store.
 *
 * The package's modules are named by the page rather than imported by a relative path, so that a storage which puts
 * hashes into file names can serve them.
 */

import {Announcer, ConnectionSign, Drawer, Follower} from "./around.js";
import {askOf, focusForm} from "./asks.js";
import {byId, show, showText} from "./dom.js";
import {MessageList, textOf} from "./messages.js";
import {ThreadList} from "./threads.js";

/** @typedef {import("../../../durable_agents/static/durable_agents/durable-agents.js").Snapshot} Snapshot */
/** @typedef {import("../../../durable_agents/static/durable_agents/durable-agents.js").Message} Message */
/** @typedef {ReturnType<import("./threads.js").Client["thread"]>} Store */

const {core = "", markdown = "", agentsUrl, loginUrl = "", agent = ""} = document.body.dataset;
/** @type {typeof import("../../../durable_agents/static/durable_agents/durable-agents.js")} */
const {createClient} = await import(core);
/** @type {typeof import("../../../durable_agents/static/durable_agents/markdown.js")} */
const {updateMarkdown} = await import(markdown);

const TITLE_CHARACTERS = 60;

class ChatPage {
  #client = createClient({url: agentsUrl});
  /** @type {Store|null} */
  #store = null;
  #isCreating = false;
  #wasRunning = false;
  /** The calls that wait for the reader, by id; null until the chat is there. @type {Set<string>|null} */
  #asked = null;
  #threads = new ThreadList(this.#client, (id) => this.#go(id));
  #messages = new MessageList(
    byId("messages", HTMLOListElement),
    updateMarkdown,
    (message) => this.#resend(message),
    () => this.#store,
  );
  #follower = new Follower(byId("log", HTMLElement), byId("jump", HTMLButtonElement));
  #announcer = new Announcer(byId("status", HTMLElement), byId("spoken", HTMLElement));
  #connection = new ConnectionSign(byId("connection", HTMLElement), byId("connection-text", HTMLElement));
  #drawer = new Drawer();
  #prompt = byId("prompt", HTMLTextAreaElement);
  #send = byId("send", HTMLButtonElement);
  #stop = byId("stop", HTMLButtonElement);
  #title = byId("title", HTMLElement);
  #welcome = byId("welcome", HTMLElement);
  #refused = byId("refused", HTMLElement);
  #older = byId("older", HTMLButtonElement);
  #typing = byId("typing", HTMLElement);
  #notice = byId("notice", HTMLElement);
  #noticeText = byId("notice-text", HTMLElement);
  #resume = byId("resume", HTMLButtonElement);
  #problem = byId("problem", HTMLElement);

  start() {
    this.#client.connection.subscribe(() => this.#onConnection());
    this.#client.connect();
    this.#listen();
    this.#threads.refresh();
    this.#open(threadInAddress());
  }

  #listen() {
    byId("composer", HTMLFormElement).addEventListener("submit", (event) => this.#onSubmit(event));
    this.#prompt.addEventListener("input", () => this.#onInput());
    this.#prompt.addEventListener("keydown", (event) => this.#onKey(event));
    this.#stop.addEventListener("click", () => this.#stopAnswer());
    this.#resume.addEventListener("click", () => this.#ask((store) => store.resume()));
    this.#older.addEventListener("click", () => this.#loadOlder());
    byId("new-chat", HTMLButtonElement).addEventListener("click", () => this.#go(null));
    this.#welcome.addEventListener("click", (event) => this.#onSuggestion(event));
    document.addEventListener("keydown", (event) => event.key === "Escape" && !event.isComposing && this.#onEscape());
    addEventListener("popstate", () => this.#open(threadInAddress()));
    addEventListener("hashchange", () => this.#open(threadInAddress()));
  }

  /** @param {string|null} id null: a new chat */
  #go(id) {
    history.pushState(null, "", id ? `?thread=${encodeURIComponent(id)}` : location.pathname);
    this.#open(id);
    this.#drawer.close();
    if (matchMedia("(pointer: fine)").matches) this.#prompt.focus(); // on a phone the keyboard would jump up
  }

  /** @param {string|null} id */
  #open(id) {
    if (id !== null && this.#store?.id === id) return;
    this.#store?.close();
    this.#store = id === null ? null : this.#client.thread(id);
    this.#wasRunning = false;
    this.#asked = null;
    this.#follower.follow();
    this.#threads.select(id);
    this.#store?.subscribe(() => this.#render());
    this.#sayProblem(null);
    this.#render();
  }

  #render() {
    const snapshot = this.#store?.getSnapshot() ?? null;
    const {messages = [], isRunning = false, title = ""} = snapshot ?? {};
    this.#follower.keep(() => {
      this.#messages.render(messages, isRunning);
      show(this.#older, snapshot?.hasOlder ?? false);
      show(this.#welcome, messages.length === 0 && !snapshot?.isLoading && !snapshot?.refused && !this.#isCreating);
      show(this.#typing, isRunning && !isWriting(messages.at(-1)));
      this.#renderNotice(snapshot);
      if (show(this.#refused, Boolean(snapshot?.refused))) showText(this.#refused, refusalText(snapshot));
    });
    showText(this.#title, title || "New chat");
    document.title = `${title || "New chat"} · Durable agents`;
    this.#renderComposer(snapshot);
    if (snapshot && !snapshot.isLoading && !snapshot.refused) this.#tellAround(snapshot);
  }

  /** @param {Snapshot|null} snapshot */
  #renderComposer(snapshot) {
    const isStopping = snapshot?.isStopping ?? false;
    const hadFocus = document.activeElement === this.#stop;
    show(this.#stop, snapshot?.isRunning ?? false);
    if (hadFocus && this.#stop.hidden) this.#prompt.focus();
    this.#stop.setAttribute("aria-disabled", String(isStopping));
    this.#stop.setAttribute("aria-label", isStopping ? "Stopping" : "Stop the answer");
    this.#send.disabled = this.#prompt.value.trim() === "" || this.#isCreating || Boolean(snapshot?.refused);
  }

  /** @param {Snapshot|null} snapshot */
  #renderNotice(snapshot) {
    const text = noticeText(snapshot);
    if (!show(this.#notice, text !== "")) return;
    this.#notice.dataset.kind = snapshot?.isFailed ? "failed" : "";
    showText(this.#noticeText, text);
    show(this.#resume, Boolean(snapshot?.isFailed || snapshot?.isStopped));
    showText(this.#resume, snapshot?.isFailed ? "Try again" : "Continue");
  }

  /** @param {Snapshot} snapshot */
  #tellAround({threadId, title, status, isRunning, messages, error}) {
    this.#threads.put({id: threadId, title, status});
    if (isRunning !== this.#wasRunning) this.#tellOfRun(isRunning, status, messages, error);
    this.#tellOfAsks(messages);
  }

  /** @param {boolean} isRunning @param {string|null} status @param {Message[]} messages @param {Snapshot["error"]} error */
  #tellOfRun(isRunning, status, messages, error) {
    this.#wasRunning = isRunning;
    if (isRunning) return this.#announcer.status("The assistant is answering.");
    this.#announcer.status(REST_TEXTS[status ?? ""] ?? error?.message ?? "");
    const last = messages.at(-1);
    if (last?.role === "assistant") this.#announcer.speak(textOf(last));
    this.#threads.refresh();
  }

  /**
   * Says once of each call that it waits for the reader, and leads one there who is about to write nothing else.
   * @param {Message[]} messages
   */
  #tellOfAsks(messages) {
    const waiting = messages.flatMap(({parts}) => parts).filter((part) => part.toolCallId && askOf(part));
    const fresh = waiting.filter(({toolCallId}) => !this.#asked?.has(toolCallId));
    const isFirstLook = this.#asked === null;
    this.#asked = new Set(waiting.map(({toolCallId}) => toolCallId));
    if (fresh.length === 0) return;
    this.#announcer.status(`The assistant waits for you: ${fresh.map((part) => askOf(part)?.title(part)).join(" ")}`);
    const isIdle = document.activeElement === this.#prompt && this.#prompt.value === "";
    if (isIdle && !isFirstLook) focusForm(fresh[0].toolCallId);
  }

  #onConnection() {
    const connection = this.#client.connection.getSnapshot();
    this.#connection.render(connection);
    if (connection.reason === "unauthorized") location.assign(`${loginUrl}?next=${encodeURIComponent(here())}`);
  }

  /** @param {SubmitEvent} event */
  #onSubmit(event) {
    event.preventDefault();
    const prompt = this.#prompt.value.trim();
    if (prompt === "" || this.#send.disabled) return;
    this.#prompt.value = "";
    this.#onInput();
    this.#say(prompt);
  }

  /** @param {string} prompt */
  async #say(prompt) {
    this.#sayProblem(null);
    this.#follower.follow();
    const store = this.#store ?? (await this.#create(prompt));
    store?.send(prompt).catch(ignore); // the message itself shows what went wrong
  }

  /**
   * Creates the thread of a new chat and opens it. Returns null when that failed; the words are back in their field.
   * @param {string} prompt
   */
  async #create(prompt) {
    this.#isCreating = true;
    this.#render();
    try {
      const thread = await this.#client.createThread({agent, title: prompt.slice(0, TITLE_CHARACTERS)});
      this.#threads.put(thread);
      this.#go(thread.id);
      return this.#store;
    } catch (error) {
      this.#prompt.value = prompt;
      this.#sayProblem(error);
      return null;
    } finally {
      this.#isCreating = false;
      this.#onInput();
      this.#render();
    }
  }

  /** @param {Message} message */
  #resend({id, parts}) {
    this.#store?.send("", {parts, clientId: id}).catch(ignore);
  }

  /** @param {(store: Store) => Promise<void>} command */
  async #ask(command) {
    if (!this.#store) return;
    this.#sayProblem(null);
    await command(this.#store).catch((error) => this.#sayProblem(error));
  }

  async #loadOlder() {
    this.#older.disabled = true;
    await this.#follower.keepInPlace(() => this.#ask((store) => store.loadOlder()));
    this.#older.disabled = false;
  }

  /** @param {Event} event */
  #onSuggestion(event) {
    const button = event.target instanceof Element && event.target.closest("button");
    if (!button || this.#isCreating) return;
    this.#prompt.focus();
    this.#say(button.textContent ?? "");
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    const isComposing = event.isComposing || event.keyCode === 229; // the word is still in the input method's hands
    if (event.key !== "Enter" || event.shiftKey || isComposing) return;
    event.preventDefault();
    this.#prompt.form?.requestSubmit();
  }

  #onEscape() {
    if (document.activeElement?.matches(".field")) return; // who leaves a field does not mean to end the run
    if (this.#drawer.isOpen) this.#drawer.close();
    else this.#stopAnswer();
  }

  #stopAnswer() {
    const {isRunning, isStopping} = this.#store?.getSnapshot() ?? {};
    if (isRunning && !isStopping) this.#ask((store) => store.stop());
  }

  #onInput() {
    this.#prompt.style.height = "auto";
    this.#prompt.style.height = `${this.#prompt.scrollHeight}px`;
    this.#renderComposer(this.#store?.getSnapshot() ?? null);
  }

  /** @param {unknown} error */
  #sayProblem(error) {
    if (show(this.#problem, error !== null)) showText(this.#problem, messageOf(error));
  }
}

/** @type {Record<string, string>} */
const REST_TEXTS = {completed: "The answer is complete.", stopped: "Stopped."};

const ignore = () => undefined;

/** @param {unknown} error */
const messageOf = (error) => (error instanceof Error ? error.message : String(error));

const here = () => location.pathname + location.search;

/** `?thread=` or `#` and the id of a thread. */
function threadInAddress() {
  return new URLSearchParams(location.search).get("thread") || decodeURIComponent(location.hash.slice(1)) || null;
}

/** Whether the page shows that something is going on in this message. @param {Message|undefined} message */
function isWriting(message) {
  const last = message?.role === "assistant" ? message.parts.at(-1) : undefined;
  return (last && askOf(last) !== null) || last?.state === "streaming" || last?.state === "input-streaming" || last?.state === "input-available";
}

/** @param {Snapshot|null} snapshot */
function refusalText(snapshot) {
  const isUnknown = snapshot?.refused?.code === "thread_not_found";
  return isUnknown ? "This chat does not exist, or it is not yours." : (snapshot?.refused?.message ?? "");
}

/** @param {Snapshot|null} snapshot */
function noticeText(snapshot) {
  if (snapshot?.isFailed) return snapshot.error?.message || "The answer failed.";
  if (snapshot?.isStopped) return "You stopped this answer.";
  if (!snapshot?.isRunning || !snapshot.retry) return "";
  const {error, attempt, max_attempts: attempts} = snapshot.retry;
  const count = attempt && attempts ? ` (${attempt} of ${attempts})` : "";
  return `${error || "The model did not answer."} Trying again${count}.`;
}

new ChatPage().start();
