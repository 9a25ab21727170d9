/** A chat with the React hooks, without a build step: the page's import map finds `react` and the package. */

import {createClient} from "django-durable-agents";
import {useAgentChat} from "django-durable-agents/react";
import {createElement as h, createRoot, StrictMode} from "react";

const root = document.getElementById("root");
const texts = root.dataset; // in the language of the page
const client = createClient();
const id = location.hash.slice(1) || (await client.createThread({agent: "assistant", title: texts.title})).id;
location.hash = id;

function Chat() {
  const {messages, sendMessage, stop, isRunning, isRecovering} = useAgentChat({client, threadId: id});
  const send = (form) => void sendMessage(form.get("text"));
  const said = messages.map(({role, parts, metadata}) => h("li", {key: metadata.key, "data-role": role}, parts.map(({text}, index) => text && h("p", {key: index}, text))));
  const field = h("input", {name: "text", required: true, "aria-label": texts.message, placeholder: texts.message, autoComplete: "off"});
  const button = isRunning ? h("button", {type: "button", onClick: stop}, texts.stop) : h("button", null, texts.send);
  return h("main", {className: "example"}, h("h1", null, texts.heading), h("ol", null, said), isRecovering && h("p", {role: "status"}, texts.recovering), h("form", {action: send}, field, button));
}

createRoot(root).render(h(StrictMode, null, h(Chat)));
