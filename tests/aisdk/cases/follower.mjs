/** The chat of the package's module `ai-sdk`, with the classes of one major of the AI SDK. */

import {createChat, isWaiting} from "../../../durable_agents/static/durable_agents/ai-sdk.js";
import {SITE} from "./site.mjs";

export {isWaiting};

/** A chat of a case; its `heard` has what the page was told. */
export function follower(scene, {site = SITE, ...options} = {}) {
  const {Chat, DefaultChatTransport} = scene.sdk;
  const heard = {refused: [], connection: []};
  const wire = scene.recorder();
  const chat = createChat({
    Chat,
    DefaultChatTransport,
    id: scene.id,
    url: `${site}/agents/`,
    headers: () => scene.users.demo,
    fetch: (url, init) => (url.includes("/chat/") || url.includes("/chat?") ? wire.fetch : fetch)(url, init),
    onRefused: (refused) => heard.refused.push(refused),
    onConnection: (isConnected) => heard.connection.push(isConnected),
    onError: (error) => wire.errors.push(error),
    ...options,
  });
  return Object.assign(chat, {heard, wire});
}
