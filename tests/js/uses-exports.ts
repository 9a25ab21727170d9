/** What a project in TypeScript writes: every export of the package, checked by `npm run types`, never run. */

import {applyChunk, createClient, DurableAgentsError, parsePartialJson, smoothText, Transcript} from "django-durable-agents";
import type {Agent, AgentTool, Chunk, ClientOptions, Connection, Message, Part, Snapshot, ThreadFilter, ThreadList, ThreadListSnapshot, UploadSettings} from "django-durable-agents";
import {DurableChat, DurableThreadList} from "django-durable-agents/element";
import type {Client, ClientTool, Store, Texts, WaitingCall} from "django-durable-agents/element";
import {createChat, isWaiting, problemOf} from "django-durable-agents/ai-sdk";
import type {ChatAdditions, ChatOptions, Problem, Refused, StoredMessage, StoredThread} from "django-durable-agents/ai-sdk";
import {updateMarkdown} from "django-durable-agents/markdown";
import {getMessageKey, useAgentChat, useConnection, useMessages, useSmoothText, useThread, useThreadList, useThreadMessages, useThreadStatus} from "django-durable-agents/react";
import type {KeyedMessage, Outgoing, ThreadOptions} from "django-durable-agents/react";

const options: ClientOptions = {url: "/agents/", transport: "sse", headers: () => ({Authorization: "Token x"})};
const client: Client = createClient(options);
const store: Store = client.thread("t");
const leave: () => void = store.subscribe(() => {});
const snapshot: Snapshot = store.getSnapshot();
const messages: Message[] = snapshot.messages;
const parts: Part[] = messages.flatMap((message) => message.parts);
const filter: ThreadFilter = {agent: "support", archived: false};
const threads: ThreadList = client.threads(filter);
const list: ThreadListSnapshot = threads.getSnapshot();
const connection: Connection = client.connection.getSnapshot();

export async function act(file: File): Promise<string> {
  const settings: UploadSettings = {onProgress: (share) => console.log(share.toFixed(2))};
  const part = await client.uploadAttachment(file, settings);
  const agents: Agent[] = await client.listAgents();
  const tools: AgentTool[] = agents.flatMap((agent) => agent.tools);
  const sent = await store.send("", {parts: [part], clientId: "c"});
  await store.edit(sent.id, "Hello");
  await store.approve("call", {arguments: {amount: 1}, reason: "fine"});
  try {
    await store.regenerate();
  } catch (error) {
    if (error instanceof DurableAgentsError) return `${error.code} ${error.retryable}`;
  }
  leave();
  return `${list.threads.length} ${connection.retryAt ?? ""} ${parts.length} ${tools.length}`;
}

export function View({threadId}: Pick<ThreadOptions, "threadId">) {
  const {messages: shown, sendMessage, isRecovering, thread} = useAgentChat({client, threadId, stream: false});
  const {status} = useThreadStatus({client, threadId});
  const [visible, {cursor, isStreaming}] = useSmoothText("text", {charsPerSec: 100});
  const all: KeyedMessage[] = [...shown, ...useMessages({client, threadId}), ...useThreadMessages({client, threadId})];
  const keys: string[] = all.map((message) => message.metadata.key);
  const outgoing: Outgoing = {text: visible};
  const {search} = useThreadList({client, ...filter});
  void sendMessage(outgoing);
  void search(`${status} ${cursor} ${isStreaming} ${isRecovering}`);
  return [keys, thread?.title, useThread({client, threadId})?.status, useConnection({client}).state, getMessageKey(shown[0])];
}

const pick: ClientTool = (input, call: WaitingCall) => call.result(input.label);
const texts: Partial<Texts> = {send: "Ask"};
const chunk: Chunk = {type: "start-step"};
DurableChat.renderText = updateMarkdown;
const chat = document.querySelector<DurableChat>("durable-chat");
if (chat) chat.clientTools = {pick};
chat?.setAttribute("texts", JSON.stringify(texts));
document.querySelector<DurableThreadList>("durable-thread-list")?.select(null);
smoothText((text) => console.log(text)).update("Hello");
console.log(parsePartialJson('{"a'), new Transcript().messages(), applyChunk({id: "a", role: "assistant", parts: []}, chunk));

declare class Chat {
  constructor(init: object);
  messages: StoredMessage[];
}
declare class DefaultChatTransport {
  constructor(init: object);
}
const settings: ChatOptions & {Chat: typeof Chat} = {Chat, DefaultChatTransport, id: "t", onRefused: ({text, problem}: Refused) => console.log(text, problem.code)};
const talk: Chat & ChatAdditions = createChat(settings);
const problem: Problem = problemOf(new Error("no"));
const owner: StoredThread | null = talk.thread;
console.log(talk.messages.some(isWaiting), problem.text, owner?.error?.message);
