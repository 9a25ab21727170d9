/** The elements with the core and Markdown in one file, which needs no import map. */

import {updateMarkdown} from "django-durable-agents/markdown";

import {DurableChat} from "./element.js";

DurableChat.renderText = updateMarkdown;

export * from "django-durable-agents";
export {DurableChat, DurableThreadList} from "./element.js";
export {updateMarkdown};
