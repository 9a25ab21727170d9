/** What stands around the conversation: scrolling, spoken news, the connection sign and the drawer. */

import {byId, show, showText} from "./dom.js";

/** @typedef {import("../../../durable_agents/static/durable_agents/durable-agents.js").Connection} Connection */

const NEAR_PX = 80;
const SPOKEN_CHARACTERS = 2_000;

/** Keeps the end of the conversation in view for a reader who is there, and leaves one who scrolled up alone. */
export class Follower {
  #isFollowing = true;
  #log;
  #jump;

  /** @param {HTMLElement} log @param {HTMLButtonElement} jump */
  constructor(log, jump) {
    this.#log = log;
    this.#jump = jump;
    log.addEventListener("scroll", () => this.#onScroll(), {passive: true});
    jump.addEventListener("click", () => this.#toEnd());
    new ResizeObserver(() => this.keep(() => undefined)).observe(log);
    log.addEventListener("load", () => this.keep(() => undefined), {capture: true}); // of images
  }

  /** From now on the end is followed. */
  follow() {
    this.#isFollowing = true;
  }

  /** Changes the conversation; who was at its end is at its end afterwards. @param {() => void} change */
  keep(change) {
    change();
    if (this.#isFollowing) this.#log.scrollTop = this.#log.scrollHeight;
    show(this.#jump, !this.#isFollowing);
  }

  /** Puts something above what is being read without moving it. @param {() => Promise<void>} change */
  async keepInPlace(change) {
    const fromEnd = this.#log.scrollHeight - this.#log.scrollTop;
    this.#isFollowing = false;
    await change();
    await new Promise((resolve) => requestAnimationFrame(resolve));
    this.#log.scrollTop = this.#log.scrollHeight - fromEnd;
  }

  #onScroll() {
    const {scrollHeight, scrollTop, clientHeight} = this.#log;
    this.#isFollowing = scrollHeight - scrollTop - clientHeight < NEAR_PX;
    show(this.#jump, !this.#isFollowing);
  }

  #toEnd() {
    const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.#log.scrollTo({top: this.#log.scrollHeight, behavior: isCalm ? "instant" : "smooth"});
    this.#log.focus({preventScroll: true});
  }
}

/** Tells a screen reader what happened: states at once, an answer when it is whole and never word by word. */
export class Announcer {
  #status;
  #spoken;

  /** @param {HTMLElement} status @param {HTMLElement} spoken */
  constructor(status, spoken) {
    this.#status = status;
    this.#spoken = spoken;
  }

  /** @param {string} text */
  status(text) {
    this.#status.textContent = text;
  }

  /** @param {string} text */
  speak(text) {
    this.#spoken.textContent = text.length > SPOKEN_CHARACTERS ? `${text.slice(0, SPOKEN_CHARACTERS)} …` : text;
  }
}

/** @type {Record<string, string>} */
const CLOSED_TEXTS = {
  unauthorized: "Signed out",
  forbidden: "Not allowed",
  outdated: "Reload the page",
};

/** Says how the connection is, with a countdown while it waits. */
export class ConnectionSign {
  /** @type {ReturnType<typeof setInterval>|undefined} */
  #countdown;
  #sign;
  #text;

  /** @param {HTMLElement} sign @param {HTMLElement} text */
  constructor(sign, text) {
    this.#sign = sign;
    this.#text = text;
  }

  /** @param {Connection} connection */
  render(connection) {
    clearInterval(this.#countdown);
    this.#sign.dataset.state = connection.state;
    this.#say(connection);
    if (connection.retryAt !== null) this.#countdown = setInterval(() => this.#say(connection), 1000);
  }

  /** @param {Connection} connection */
  #say({state, retryAt, reason}) {
    const seconds = retryAt === null ? 0 : Math.ceil((retryAt - Date.now()) / 1000);
    const texts = {
      idle: "",
      connecting: "Connecting…",
      open: "Connected",
      waiting: seconds > 1 ? `Reconnecting in ${seconds} s` : "Reconnecting…",
      offline: "Offline",
      closed: CLOSED_TEXTS[reason ?? ""] ?? "Disconnected",
    };
    showText(this.#text, texts[state]);
  }
}

/** The list of chats, which on a narrow page lies over the conversation and takes no focus while it is away. */
export class Drawer {
  #sidebar = byId("sidebar", HTMLElement);
  #opener = byId("open-drawer", HTMLButtonElement);
  #closer = byId("close-drawer", HTMLButtonElement);
  #narrow = matchMedia("(max-width: 48rem)");
  isOpen = false;

  constructor() {
    this.#opener.addEventListener("click", () => this.open());
    this.#closer.addEventListener("click", () => this.close());
    byId("scrim", HTMLElement).addEventListener("click", () => this.close());
    this.#narrow.addEventListener("change", () => this.#set(false));
    this.#set(false);
  }

  open() {
    this.#set(true);
    this.#closer.focus();
  }

  close() {
    if (!this.isOpen) return;
    this.#set(false);
    this.#opener.focus();
  }

  /** @param {boolean} isOpen */
  #set(isOpen) {
    this.isOpen = isOpen;
    document.body.dataset.drawer = isOpen ? "open" : "closed";
    this.#sidebar.inert = this.#narrow.matches && !isOpen;
    byId("main", HTMLElement).inert = isOpen;
    this.#opener.setAttribute("aria-expanded", String(isOpen));
  }
}
