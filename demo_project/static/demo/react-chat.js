/** A chat with the React hooks, without a build step: the page's import map finds `react` and the package. */

import {createClient} from "django-durable-agents";
import {useAgentChat} from "django-durable-agents/react";
import {createElement as h, createRoot, StrictMode} from "react";

const client = createClient();
const id = location.hash.slice(1) || (await client.createThread({agent: "assistant", title: "From React"})).id;
location.hash = id;

function Chat() {
  const {messages, sendMessage, stop, isRunning, isRecovering} = useAgentChat({client, threadId: id});
  const send = (form) => void sendMessage(form.get("text"));
  const said = messages.map(({role, parts, metadata}) => h("li", {key: metadata.key, "data-role": role}, parts.map(({text}, index) => text && h("p", {key: index}, text))));
  const field = h("input", {name: "text", required: true, "aria-label": "Message", placeholder: "Message", autoComplete: "off"});
  const button = isRunning ? h("button", {type: "button", onClick: stop}, "Stop") : h("button", null, "Send");
  return h("main", {className: "example"}, h("h1", null, "React without a build step"), h("ol", null, said), isRecovering && h("p", {role: "status"}, "The answer goes on in a moment."), h("form", {action: send}, field, button));
}

createRoot(document.getElementById("root")).render(h(StrictMode, null, h(Chat)));
