export * from "django-durable-agents";
export { updateMarkdown };
import { updateMarkdown } from "django-durable-agents/markdown";
export { DurableChat, DurableThreadList } from "./element.js";
