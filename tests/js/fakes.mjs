/** A network and a page that do what a test tells them. */

import {createClient} from "../../durable_agents/static/durable_agents/durable-agents.js";
import {checkFrame} from "./protocol.mjs";

/** Sockets that record what is sent; the test speaks as the server. */
export function fakeNetwork() {
  const sockets = [];
  class FakeSocket {
    constructor(url, protocol) {
      Object.assign(this, {url, protocol, sent: [], closedWith: null});
      sockets.push(this);
    }

    send(text) {
      const frame = JSON.parse(text);
      checkFrame("client", frame);
      this.sent.push(frame);
    }

    close(code) {
      this.closedWith = code;
    }

    /** The handshake, as the server does it. */
    accept(welcome = {}) {
      this.onopen();
      this.say({type: "welcome", version: 1, session: "s", heartbeat: 25, user: "demo", ...welcome});
    }

    say(frame) {
      this.onmessage({data: JSON.stringify(frame)});
    }

    /** Answers the last request of this type. */
    answer(requestType, frame) {
      const {id, thread} = this.last(requestType);
      this.say({id, thread, ...frame});
    }

    drop(code = 1006, reason = "") {
      this.onclose({code, reason});
    }

    last(type) {
      return this.all(type).at(-1);
    }

    all(type) {
      return this.sent.filter((frame) => frame.type === type);
    }
  }
  return {
    WebSocket: FakeSocket,
    sockets,
    get socket() {
      return sockets.at(-1);
    },
  };
}

/** A page that can be hidden and lose its network; undone after the test. */
export function fakePage(t) {
  const window = new EventTarget();
  const document = Object.assign(new EventTarget(), {visibilityState: "visible", cookie: ""});
  const navigator = {onLine: true};
  const globals = {document, navigator, addEventListener: window.addEventListener.bind(window)};
  const before = Object.keys(globals).map((name) => [name, Object.getOwnPropertyDescriptor(globalThis, name)]);
  for (const [name, value] of Object.entries(globals)) {
    Object.defineProperty(globalThis, name, {value, configurable: true, writable: true});
  }
  t.after(() => before.forEach(([name, was]) => (was ? Object.defineProperty(globalThis, name, was) : delete globalThis[name])));
  return {
    document,
    setOnline(onLine) {
      navigator.onLine = onLine;
      window.dispatchEvent(new Event(onLine ? "online" : "offline"));
    },
    setHidden(isHidden) {
      document.visibilityState = isHidden ? "hidden" : "visible";
      document.dispatchEvent(new Event("visibilitychange"));
    },
  };
}

/** Stopped clock, no jitter (each wait is the longest possible), and a client on a fake network. */
export function start(t, options = {}) {
  t.mock.timers.enable({apis: ["setTimeout", "setInterval", "Date"]});
  t.mock.method(Math, "random", () => 1);
  const page = fakePage(t);
  const network = fakeNetwork();
  const client = createClient({url: "http://site.test/agents/", WebSocket: network.WebSocket, ...options});
  t.after(() => client.close());
  return {client, network, page, tick: (ms) => tickInSteps(t.mock.timers, ms)};
}

/** In small steps, because a timer that a timer sets counts from the end of the step. */
function tickInSteps(timers, ms) {
  for (let left = ms; left > 0; left -= 250) timers.tick(Math.min(left, 250));
}

export const SNAPSHOT = {type: "snapshot", rev: 1, status: "completed", title: "", error: null, messages: [], hasOlder: false, streams: []};

/** A client with one thread `t1` that is live and shows `snapshot`. */
export function startThread(t, snapshot = {}, options = {}) {
  const started = start(t, options);
  const store = started.client.thread("t1");
  store.subscribe(() => {});
  started.network.socket.accept();
  started.network.socket.answer("subscribe", {...SNAPSHOT, ...snapshot});
  return {...started, store};
}

/** Lets promises settle; timers stay where they are. */
export const settle = () => new Promise((resolve) => setImmediate(resolve));

export const text = (value, state = "done") => ({type: "text", text: value, state});
export const user = (id, value, position) => ({id, client_id: id, role: "user", parts: [{type: "text", text: value}], metadata: {}, position});
export const assistant = (id, parts, position) => ({id, client_id: null, role: "assistant", parts, metadata: {}, position});
export const textOf = (message) => message.parts.filter((part) => part.type === "text").map((part) => part.text).join("");
