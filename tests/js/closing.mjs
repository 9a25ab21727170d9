/** Not a test: a client against a real server, which it gets to close with a code. Prints how the client takes it. */

import {createClient} from "../../durable_agents/static/durable_agents/durable-agents.js";

const {url, cookie, code} = JSON.parse(process.argv[2]);

/** What a browser adds to the handshake; Node lets a program say it. */
const headers = {
  origin: code === 4403 ? "https://evil.example" : url,
  ...(code === 4401 || code === 4408 ? {} : {cookie}),
};

/** What makes the server close with the code, once the socket is open. */
const PROMPTS = {
  4400: (socket) => socket.send("nonsense"),
  4401: (socket) => socket.send(JSON.stringify({type: "ping"})),
  4406: (socket) => socket.send(JSON.stringify({type: "hello", version: 9})),
  4413: (socket) => socket.send(JSON.stringify({type: "ping", t: "x".repeat(300_000)})),
  4429: (socket) => Array.from({length: 60}, () => socket.send('{"type": "ping"}')),
};

class Socket extends WebSocket {
  constructor(address, protocol) {
    super(address, {protocols: [protocol], headers});
    // 4408 is for who does not say hello, 4410 for who says no more.
    if (code === 4408) this.send = () => {};
    this.addEventListener("open", () => setTimeout(() => PROMPTS[code]?.(this), 50));
  }
}

const client = createClient({url: `${url}/agents/`, WebSocket: Socket});
client.connection.subscribe(() => {
  const {state, reason, retryAt} = client.connection.getSnapshot();
  if (state !== "waiting" && state !== "closed") return;
  const waitSeconds = retryAt && Math.round((retryAt - Date.now()) / 100) / 10;
  process.stdout.write(JSON.stringify({state, reason, waitSeconds}), () => process.exit(0));
});
client.connect();
