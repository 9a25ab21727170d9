/** What a project in TypeScript writes: every export of the package, checked by `npm run types`, never run. */

import {applyChunk, createClient, DurableAgentsError, parsePartialJson, smoothText, Transcript} from "django-durable-agents";
import type {Connection, Message, Part, Snapshot, ThreadFilter, ThreadListSnapshot} from "django-durable-agents";
import {DurableChat, DurableThreadList} from "django-durable-agents/element";
import type {ClientTool} from "django-durable-agents/element";
import {updateMarkdown} from "django-durable-agents/markdown";
import {getMessageKey, useAgentChat, useConnection, useMessages, useSmoothText, useThread, useThreadList, useThreadMessages, useThreadStatus} from "django-durable-agents/react";

const client = createClient({url: "/agents/", transport: "sse", headers: () => ({Authorization: "Token x"})});
const store = client.thread("t");
const leave: () => void = store.subscribe(() => {});
const snapshot: Snapshot = store.getSnapshot();
const messages: Message[] = snapshot.messages;
const parts: Part[] = messages.flatMap((message) => message.parts);
const filter: ThreadFilter = {agent: "support", archived: false};
const list: ThreadListSnapshot = client.threads(filter).getSnapshot();
const connection: Connection = client.connection.getSnapshot();

export async function act(file: File): Promise<string> {
  const part = await client.uploadAttachment(file, {onProgress: (share) => console.log(share.toFixed(2))});
  const sent = await store.send("", {parts: [part], clientId: "c"});
  await store.edit(sent.id, "Hello");
  await store.approve("call", {arguments: {amount: 1}, reason: "fine"});
  try {
    await store.regenerate();
  } catch (error) {
    if (error instanceof DurableAgentsError) return `${error.code} ${error.retryable}`;
  }
  leave();
  return `${list.threads.length} ${connection.retryAt ?? ""} ${parts.length}`;
}

export function View({threadId}: {threadId: string | null}) {
  const {messages: shown, sendMessage, isRecovering, thread} = useAgentChat({client, threadId, stream: false});
  const {status} = useThreadStatus({client, threadId});
  const [visible, {cursor, isStreaming}] = useSmoothText("text", {charsPerSec: 100});
  const keys: string[] = [...shown, ...useMessages({client, threadId}), ...useThreadMessages({client, threadId})].map((message) => message.metadata.key);
  const {search} = useThreadList({client, ...filter});
  void sendMessage({text: visible});
  void search(`${status} ${cursor} ${isStreaming} ${isRecovering}`);
  return [keys, thread?.title, useThread({client, threadId})?.status, useConnection({client}).state, getMessageKey(shown[0])];
}

const pick: ClientTool = (input, call) => call.result(input.label);
DurableChat.renderText = updateMarkdown;
const chat = document.querySelector<DurableChat>("durable-chat");
if (chat) chat.clientTools = {pick};
document.querySelector<DurableThreadList>("durable-thread-list")?.select(null);
smoothText((text) => console.log(text)).update("Hello");
console.log(parsePartialJson('{"a'), new Transcript().messages(), applyChunk({id: "a", role: "assistant", parts: []}, {type: "start-step"}));
