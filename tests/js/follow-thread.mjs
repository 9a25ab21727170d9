/**
 * A store of one thread whose network is standard input and output. One JSON object per line:
 * in `{follow}`, `{show}`, `{leave}`, `{socket, opened | text | code}`; out `{socket, opened | text | closed}`, `{shown}`, `{changed}`.
 * Time passes 25 times as fast, so that nobody waits for reconnections.
 */

import {createInterface} from "node:readline";

import {createClient} from "../../durable_agents/static/durable_agents/durable-agents.js";

const FASTER = 25;
for (const name of ["setTimeout", "setInterval"]) {
  const start = globalThis[name];
  globalThis[name] = (run, ms = 0, ...values) => start(run, ms / FASTER, ...values);
}

const tell = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);
const sockets = [];

class PipedSocket {
  constructor() {
    this.number = sockets.push(this) - 1;
    tell({socket: this.number, opened: true});
  }

  send(text) {
    tell({socket: this.number, text});
  }

  close() {
    tell({socket: this.number, closed: true});
  }
}

let client, store;
for await (const line of createInterface({input: process.stdin})) {
  const {follow, show, leave, socket, opened, text, code} = JSON.parse(line);
  if (follow) {
    client = createClient({url: "http://site.test/agents/", WebSocket: PipedSocket});
    store = client.thread(follow);
    store.subscribe(() => tell({changed: true}));
  }
  if (show) {
    const {messages, status, rev} = store.getSnapshot();
    tell({shown: {messages, status, rev}});
  }
  if (leave) client.close();
  if (opened) sockets[socket].onopen();
  if (text) sockets[socket].onmessage({data: text});
  if (code) sockets[socket].onclose({code, reason: ""});
}
process.exit();
