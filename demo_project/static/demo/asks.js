/** The forms by which a reader answers a tool call: lets it run or not, picks a date, says what a colleague would. */

import {inside, piece, show, showText} from "./dom.js";

/** @typedef {import("../../../durable_agents/static/durable_agents/durable-agents.js").Part} Part */
/** @typedef {ReturnType<import("./threads.js").Client["thread"]>} Store */

/**
 * What is asked, in which form, and what each of its two buttons does with what was typed.
 * @typedef {object} Ask
 * @property {string} piece
 * @property {(part: Part) => string} title
 * @property {boolean} [hasFacts] whether the arguments are listed
 * @property {(store: Store, id: string, text: string) => Promise<void>} yes
 * @property {(store: Store, id: string, text: string) => Promise<void>} [no]
 */

/** @type {Ask} */
const APPROVAL = {
  piece: "approval-piece",
  title: (part) => `Allow “${plainName(part)}”?`,
  hasFacts: true,
  yes: (store, id, reason) => store.approve(id, reason ? {reason} : {}),
  no: (store, id, reason) => store.reject(id, reason ? {reason} : {}),
};

/** The tools whose result comes from this page. @type {Map<string, Ask>} */
const ANSWERED_HERE = new Map([
  [
    "pick_date",
    {
      piece: "date-piece",
      title: ({input}) => textOr(input?.label, "Pick a date"),
      yes: (store, id, day) => store.addToolOutput(id, day),
      no: (store, id) => store.addToolError(id, "The user picked no date."),
    },
  ],
  [
    "ask_colleague",
    {
      piece: "answer-piece",
      title: ({input}) => textOr(input?.question, "A question for you"),
      yes: (store, id, text) => store.addToolOutput(id, text),
    },
  ],
]);

/**
 * What a call asks of the reader now, or null while it asks nothing.
 * @param {Part} part
 * @returns {Ask|null}
 */
export function askOf(part) {
  if (part.state === "approval-requested") return APPROVAL;
  return part.state === "input-available" ? (ANSWERED_HERE.get(nameOf(part)) ?? null) : null;
}

/** @param {Part} part */
export const nameOf = (part) => String(part.toolName ?? part.type.slice("tool-".length));

/** A name as people write it: `book_table` is "Book table". @param {Part} part */
const plainName = (part) => {
  const words = nameOf(part).replace(/[_-]+/g, " ").trim();
  return words.charAt(0).toUpperCase() + words.slice(1);
};

/** @type {(value: unknown, otherwise: string) => string} */
const textOr = (value, otherwise) => (typeof value === "string" && value.trim() ? value : otherwise);

/** @param {string} toolCallId */
const titleId = (toolCallId) => `ask-${toolCallId}`;

/** Leads the reader to the form of a call; a screen reader says its title. @param {string} toolCallId */
export function focusForm(toolCallId) {
  document.getElementById(titleId(toolCallId))?.closest("form")?.focus({preventScroll: true});
}

/** One form on the page; it lives as long as its call waits. */
export class AskForm {
  element;
  #ask;
  #part;
  #getStore;
  #answer;
  #problem;

  /** @param {Ask} ask @param {Part} part @param {() => Store|null} getStore */
  constructor(ask, part, getStore) {
    this.#ask = ask;
    this.#part = part;
    this.#getStore = getStore;
    this.element = /** @type {HTMLFormElement} */ (piece(ask.piece));
    this.#answer = inside(this.element, ".ask-answer", HTMLElement);
    this.#problem = inside(this.element, ".ask-problem", HTMLElement);
    const title = inside(this.element, ".ask-title", HTMLElement);
    title.id = titleId(part.toolCallId);
    this.element.setAttribute("aria-labelledby", title.id);
    showText(title, ask.title(part));
    if (ask.hasFacts) inside(this.element, ".ask-facts", HTMLElement).append(...factsOf(part.input));
    this.element.addEventListener("submit", (event) => this.#onSubmit(event));
  }

  /** Whether it asks what this part asks. @param {Part} part */
  fits(part) {
    return askOf(part) === this.#ask;
  }

  /** @param {SubmitEvent} event */
  async #onSubmit(event) {
    event.preventDefault();
    const store = this.#getStore();
    const isNo = event.submitter instanceof HTMLButtonElement && event.submitter.value === "no";
    const act = isNo ? this.#ask.no : this.#ask.yes;
    if (!store || !act || this.element.ariaBusy === "true") return;
    this.#setBusy(true);
    try {
      await act(store, this.#part.toolCallId, /** @type {HTMLInputElement} */ (this.#answer).value.trim());
    } catch (error) {
      showText(this.#problem, error instanceof Error ? error.message : String(error));
      show(this.#problem, true);
      this.#setBusy(false);
    }
  }

  /** @param {boolean} isBusy */
  #setBusy(isBusy) {
    this.element.ariaBusy = String(isBusy);
    for (const button of this.element.querySelectorAll("button")) button.ariaDisabled = String(isBusy);
  }
}

/** The arguments of a call as a list of names and values. @type {(input: any) => HTMLElement[]} */
function factsOf(input) {
  const facts = typeof input === "object" && input !== null ? Object.entries(input) : [["input", input]];
  return facts.map(([name, value]) => {
    const row = document.createElement("div");
    const [term, detail] = [document.createElement("dt"), document.createElement("dd")];
    term.textContent = name.replaceAll("_", " ");
    detail.textContent = typeof value === "string" ? value : JSON.stringify(value, null, 1);
    detail.dir = "auto";
    row.append(term, detail);
    return row;
  });
}
