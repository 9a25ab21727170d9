/** The demo's page around `<durable-chat>`: the address of the thread, two tools that this page answers, the drawer. */

/** @typedef {import("../../../durable_agents/static/durable_agents/element.js").DurableChat} DurableChat */
/** @typedef {import("../../../durable_agents/static/durable_agents/element.js").WaitingCall} WaitingCall */

export {}; // a module

await customElements.whenDefined("durable-chat");

const chat = /** @type {DurableChat} */ (document.getElementById("chat"));
const byId = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));

/** A copy of a `<template>`'s form, with this title or that of the template. @type {(id: string, title: string) => HTMLFormElement} */
function form(id, title) {
  const template = /** @type {HTMLTemplateElement} */ (document.getElementById(id));
  const made = /** @type {HTMLFormElement} */ (template.content.firstElementChild?.cloneNode(true));
  const heading = /** @type {HTMLElement} */ (made.querySelector(".ask-title"));
  heading.textContent = title || template.dataset.title || "";
  made.setAttribute("aria-label", heading.textContent);
  return made;
}

/** Sends what a form asks for as the result of a call. @type {(made: HTMLFormElement, call: WaitingCall) => HTMLFormElement} */
function answering(made, call) {
  const field = /** @type {HTMLInputElement} */ (made.querySelector("input, textarea"));
  made.addEventListener("submit", (event) => {
    event.preventDefault();
    if (field.value.trim()) call.result(field.value.trim());
  });
  return made;
}

chat.clientTools = {
  /** @type {import("../../../durable_agents/static/durable_agents/element.js").ClientTool} */
  pick_date(input, call) {
    const made = answering(form("date-piece", input?.label), call);
    made.querySelector(".skip-date")?.addEventListener("click", () => call.error(made.dataset.skipped ?? ""));
    return made;
  },
  /** @type {import("../../../durable_agents/static/durable_agents/element.js").ClientTool} */
  ask_colleague: (input, call) => answering(form("answer-piece", input?.question), call),
};

// The address names the thread, so that a reload, a bookmark and the back button lead to it.

const inAddress = () => new URLSearchParams(location.search).get("thread") || decodeURIComponent(location.hash.slice(1)) || null;

/** @param {string|null} id */
function title(id) {
  const {threads} = chat.client.threads().getSnapshot();
  const heading = byId("title");
  const named = id && threads.find((thread) => thread.id === id)?.title;
  heading.textContent = named || (id ? heading.dataset.untitled : heading.dataset.new) || "";
}

chat.addEventListener("thread-change", () => {
  const id = chat.threadId;
  if (id !== inAddress()) history.pushState(null, "", id ? `?thread=${encodeURIComponent(id)}` : location.pathname);
  title(id);
  setOpen(false);
});
window.addEventListener("popstate", () => chat.openThread(inAddress()));
chat.client.threads().subscribe(() => title(chat.threadId));
byId("new-chat").addEventListener("click", () => {
  chat.openThread(null);
  setOpen(false);
  chat.focusComposer();
});

// On a narrow page the list of chats covers the conversation, and cannot get the focus while it is hidden.

const narrow = matchMedia("(max-width: 48rem)");

/** @param {boolean} isOpen */
function setOpen(isOpen) {
  document.body.dataset.drawer = isOpen ? "open" : "closed";
  byId("sidebar").inert = narrow.matches && !isOpen;
  byId("main").inert = isOpen;
  byId("open-drawer").setAttribute("aria-expanded", String(isOpen));
}

function close() {
  if (document.body.dataset.drawer !== "open") return;
  setOpen(false);
  byId("open-drawer").focus();
}

byId("open-drawer").addEventListener("click", () => {
  setOpen(true);
  byId("close-drawer").focus();
});
for (const id of ["close-drawer", "scrim"]) byId(id).addEventListener("click", close);
document.addEventListener("keydown", (event) => event.key === "Escape" && close());
narrow.addEventListener("change", () => setOpen(false));
setOpen(false);
if (inAddress() !== chat.threadId) chat.openThread(inAddress());
if (!narrow.matches) chat.focusComposer();
