/**
 * The markdown that models write, as DOM nodes. Optional: without it, show a message as plain text.
 *
 *     updateMarkdown(element, text);
 *
 * The text is hostile. Nodes are built one by one and text only ever becomes text nodes, so there is nothing to escape
 * and nothing to sanitise; HTML in the text is shown as text. Links lead to the web or to a mail address only, and
 * images are links too: loading one would tell its host whatever the model put into the address.
 *
 * Known: paragraphs, headings, lists, quotes, fenced code, tables, rules; emphasis, code, strike-through, links. What
 * is only half there, as while an answer streams, reads as text until its other half comes. Work is bounded: everything
 * that looks ahead looks a limited way, and nesting has a limit.
 */

/**
 * A block and the lines it was made from; equal lines make equal blocks.
 * @typedef {{source: string, build: () => HTMLElement}} Block
 */

/** @typedef {{block: Block, end: number}} FoundBlock the block, and the line after it */
/** @typedef {(lines: string[], start: number, depth: number) => FoundBlock|null} BlockReader */
/** @typedef {{node: Node, end: number}} Found the node, and the character after it */
/** @typedef {(text: string, at: number, depth: number) => Found|null} InlineReader */

const MAX_DEPTH = 8;
const MAX_LOOK_AHEAD = 2_000;

/** @type {WeakMap<Element, string[]>} */
const shown = new WeakMap();

/**
 * Shows `text` in `element`, which must hold nothing else. Blocks that did not change keep their elements, so a
 * streaming answer costs its last block and a selection above it survives.
 *
 * @param {Element} element
 * @param {string} text
 */
export function updateMarkdown(element, text) {
  const blocks = blocksOf(linesOf(text), 0);
  const before = shown.get(element) ?? [];
  blocks.forEach(({source, build}, index) => {
    if (source === before[index]) return;
    const old = element.children[index];
    if (old) old.replaceWith(build());
    else element.append(build());
  });
  for (let extra = before.length; extra > blocks.length; extra--) element.lastElementChild?.remove();
  shown.set(element, blocks.map(({source}) => source));
}

/** @type {(text: string) => string[]} */
const linesOf = (text) => text.replace(/\r\n?/g, "\n").replaceAll("\t", "    ").split("\n");

// ------------------------------------------------------------------------------------------------------------ Blocks

/** @type {(lines: string[], depth: number) => Block[]} */
function blocksOf(lines, depth) {
  const blocks = [];
  for (let start = 0; start < lines.length; ) {
    if (isBlank(lines[start])) {
      start++;
      continue;
    }
    const {block, end} = blockAt(lines, start, depth);
    blocks.push(block);
    start = end;
  }
  return blocks;
}

/** @type {(lines: string[], start: number, depth: number) => FoundBlock} */
function blockAt(lines, start, depth) {
  const readers = depth < MAX_DEPTH ? READERS : [];
  for (const read of readers) {
    const found = read(lines, start, depth);
    if (found) return found;
  }
  return readParagraph(lines, start, depth);
}

/** @type {(lines: string[], start: number, end: number, build: () => HTMLElement) => FoundBlock} */
const found = (lines, start, end, build) => ({block: {source: lines.slice(start, end).join("\n"), build}, end});

/** @type {(line: string|undefined) => boolean} */
const isBlank = (line) => line !== undefined && line.trim() === "";

/** @type {(tag: string, children?: (Node|string)[]) => HTMLElement} */
function make(tag, children = []) {
  const element = document.createElement(tag);
  for (const child of children) element.append(child); // there may be more than a call takes arguments
  return element;
}

/** @type {BlockReader} */
function readCode(lines, start) {
  const [, indent, fence, language] = lines[start].match(/^( {0,3})(`{3,}|~{3,})([^`]*)$/) ?? [];
  if (!fence) return null;
  const isEnd = (/** @type {string} */ line) => line.trim().startsWith(fence) && /^(`+|~+)$/.test(line.trim());
  let end = start + 1;
  while (end < lines.length && !isEnd(lines[end])) end++;
  const code = lines.slice(start + 1, end).map((line) => cutIndent(line, indent.length));
  return found(lines, start, Math.min(end + 1, lines.length), () => makeCode(code.join("\n"), language.trim()));
}

/** @type {(code: string, language: string) => HTMLElement} */
function makeCode(code, language) {
  const element = make("pre", [make("code", [code])]);
  element.tabIndex = 0; // it scrolls sideways, with the keyboard too
  if (language) element.dataset.language = language.slice(0, 40);
  return element;
}

/** @type {BlockReader} */
function readHeading(lines, start) {
  const [, marks, text] = lines[start].match(/^ {0,3}(#{1,6}) +(.*)$/) ?? [];
  if (!marks) return null;
  const level = Math.min(6, marks.length + 2); // the page has its own first and second level
  return found(lines, start, start + 1, () => make(`h${level}`, inline(text.replace(/ +#+ *$/, ""))));
}

/** @type {BlockReader} */
function readRule(lines, start) {
  return isRule(lines[start]) ? found(lines, start, start + 1, () => make("hr")) : null;
}

/** @type {BlockReader} */
function readQuote(lines, start, depth) {
  const isQuote = (/** @type {string} */ line) => /^ {0,3}>/.test(line);
  let end = start;
  while (end < lines.length && isQuote(lines[end])) end++;
  if (end === start) return null;
  const inner = lines.slice(start, end).map((line) => line.replace(/^ {0,3}> ?/, ""));
  return found(lines, start, end, () => make("blockquote", build(blocksOf(inner, depth + 1))));
}

/** @type {(blocks: Block[]) => HTMLElement[]} */
const build = (blocks) => blocks.map((block) => block.build());

const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])( +|$)/;

/** @type {BlockReader} */
function readList(lines, start, depth) {
  const first = lines[start].match(ITEM);
  if (!first || isRule(lines[start])) return null;
  const kind = kindOf(first[2]);
  /** @type {string[][]} */
  const items = [];
  let end = start;
  while (end < lines.length && !isRule(lines[end])) {
    const marker = lines[end].match(ITEM);
    if (!marker || kindOf(marker[2]) !== kind) break;
    const next = endOfItem(lines, end, marker[0].length);
    items.push(itemLines(lines.slice(end, next), marker[0].length));
    end = next;
  }
  return found(lines, start, end, () => makeList(items, first[2], depth));
}

/** @type {(line: string) => boolean} */
const isRule = (line) => /^(-{3,}|\*{3,}|_{3,})$/.test(line.replaceAll(" ", ""));

/** Which list an item belongs to: a change of the marker begins a new list. @type {(marker: string) => string} */
const kindOf = (marker) => /** @type {string} */ (marker.at(-1));

/** @type {(lines: string[], start: number, indent: number) => number} */
function endOfItem(lines, start, indent) {
  let end = start + 1;
  for (; end < lines.length; end++) {
    const isInside = indentOf(lines[end]) >= indent || isBlank(lines[end]);
    const isLazy = !isBlank(lines[end - 1]) && !ITEM.test(lines[end]) && !startsBlock(lines[end]);
    if (!isInside && !isLazy) break;
  }
  return end;
}

/** @type {(lines: string[], indent: number) => string[]} */
const itemLines = ([first, ...rest], indent) => [first.slice(indent), ...rest.map((line) => cutIndent(line, indent))];

/** @type {(items: string[][], marker: string, depth: number) => HTMLElement} */
function makeList(items, marker, depth) {
  const isLoose = items.some((lines) => lines.slice(0, -1).some(isBlank));
  const list = make(/\d/.test(marker) ? "ol" : "ul", items.map((lines) => makeItem(lines, isLoose, depth)));
  const start = parseInt(marker, 10);
  if (start > 1) list.setAttribute("start", String(start));
  return list;
}

/** @type {(lines: string[], isLoose: boolean, depth: number) => HTMLElement} */
function makeItem(lines, isLoose, depth) {
  const blocks = build(blocksOf(lines, depth + 1));
  return make("li", isLoose ? blocks : blocks.flatMap(unwrapped));
}

/** @type {(block: HTMLElement) => Node[]} */
const unwrapped = (block) => (block.tagName === "P" ? [...block.childNodes] : [block]);

/** @type {(line: string) => number} */
const indentOf = (line) => line.length - line.trimStart().length;

/** @type {(line: string, indent: number) => string} */
const cutIndent = (line, indent) => line.slice(Math.min(indent, indentOf(line)));

/** @type {BlockReader} */
function readTable(lines, start) {
  const [head, rule] = [lines[start], lines[start + 1] ?? ""];
  if (!head.includes("|") || !rule.includes("-") || !/^[\s|:-]+$/.test(rule)) return null;
  const columns = cellsOf(rule);
  if (!columns.every((cell) => /^:?-+:?$/.test(cell)) || cellsOf(head).length !== columns.length) return null;
  let end = start + 2;
  while (end < lines.length && lines[end].includes("|")) end++;
  return found(lines, start, end, () => makeTable(head, columns, lines.slice(start + 2, end)));
}

/** @type {(line: string) => string[]} */
function cellsOf(line) {
  const inner = line.trim().replace(/^\|/, "").replace(/\|$/, "");
  return inner.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

/** @type {(head: string, columns: string[], rows: string[]) => HTMLElement} */
function makeTable(head, columns, rows) {
  const row = (/** @type {string} */ line, /** @type {string} */ tag) => {
    const cells = cellsOf(line);
    return make("tr", columns.map((column, index) => makeCell(tag, cells[index] ?? "", column)));
  };
  const table = make("table", [make("thead", [row(head, "th")]), make("tbody", rows.map((line) => row(line, "td")))]);
  const scroller = make("div", [table]);
  scroller.className = "table";
  scroller.tabIndex = 0;
  return scroller;
}

/** @type {(tag: string, text: string, column: string) => HTMLElement} */
function makeCell(tag, text, column) {
  const cell = make(tag, inline(text));
  const [left, right] = [column.startsWith(":"), column.endsWith(":")];
  if (right) cell.style.textAlign = left ? "center" : "end";
  return cell;
}

/** @type {BlockReader[]} */
const READERS = [readCode, readHeading, readRule, readQuote, readList, readTable];

/** Whether this line ends a paragraph that it follows. @type {(line: string) => boolean} */
function startsBlock(line) {
  return /^ {0,3}(`{3}|~{3}|#{1,6} |>)/.test(line) || isRule(line);
}

/** @type {(lines: string[], start: number, depth: number) => FoundBlock} */
function readParagraph(lines, start, depth) {
  const isOther = (/** @type {string} */ line) => depth < MAX_DEPTH && (startsBlock(line) || ITEM.test(line));
  let end = start + 1;
  while (end < lines.length && !isBlank(lines[end]) && !isOther(lines[end])) end++;
  const text = lines.slice(start, end).map((line) => line.trimStart()).join("\n");
  return found(lines, start, end, () => make("p", inline(text.trimEnd())));
}

// ------------------------------------------------------------------------------------------------------------ Inline

/** @type {(text: string, depth?: number) => Node[]} */
function inline(text, depth = 0) {
  /** @type {Node[]} */
  const nodes = [];
  let plain = "";
  for (let index = 0; index < text.length; ) {
    /** @type {InlineReader|undefined} */
    const read = depth < MAX_DEPTH ? INLINE.get(text[index]) : undefined;
    const special = read?.(text, index, depth);
    if (!special) {
      plain += text[index++];
      continue;
    }
    if (plain) nodes.push(document.createTextNode(plain));
    plain = "";
    nodes.push(special.node);
    index = special.end;
  }
  if (plain) nodes.push(document.createTextNode(plain));
  return nodes;
}

/** @type {InlineReader} */
function readEscape(text, at) {
  const next = text[at + 1] ?? "";
  return /[!-/:-@[-`{-~]/.test(next) ? {node: document.createTextNode(next), end: at + 2} : null;
}

/** @type {InlineReader} */
function readCodeSpan(text, at) {
  const fence = /** @type {RegExpMatchArray} */ (text.slice(at, at + 10).match(/^`+/))[0];
  const start = at + fence.length;
  const end = text.slice(start, start + MAX_LOOK_AHEAD).search(new RegExp(`(?<!\`)${fence}(?!\`)`));
  if (end <= 0) return null;
  const code = text.slice(start, start + end).replaceAll("\n", " ");
  return {node: make("code", [/^ .*[^ ].* $/.test(code) ? code.slice(1, -1) : code]), end: start + end + fence.length};
}

/** @type {InlineReader} */
function readEmphasis(text, at, depth) {
  const mark = text[at];
  const delimiter = text[at + 1] === mark ? mark + mark : mark;
  if (mark === "~" && delimiter.length < 2) return null;
  const start = at + delimiter.length;
  if (!/\S/.test(text[start] ?? "") || (mark === "_" && isWord(text[at - 1]))) return null;
  const end = closing(text, start, delimiter);
  if (end < 0) return null;
  const tag = mark === "~" ? "del" : delimiter.length === 2 ? "strong" : "em";
  return {node: make(tag, inline(text.slice(start, end), depth + 1)), end: end + delimiter.length};
}

/** @type {(text: string, start: number, delimiter: string) => number} */
function closing(text, start, delimiter) {
  const mark = delimiter[0];
  const limit = start + MAX_LOOK_AHEAD;
  for (let end = text.indexOf(delimiter, start + 1); end >= 0 && end < limit; end = text.indexOf(delimiter, end + 1)) {
    if (delimiter.length === 2) while (text[end + 2] === mark) end++;
    const isDouble = delimiter.length === 1 && (text[end + 1] === mark || text[end - 1] === mark);
    const isInWord = mark === "_" && isWord(text[end + delimiter.length]);
    if (/[^\s\\]/.test(text[end - 1]) && !isDouble && !isInWord) return end;
  }
  return -1;
}

/** @type {(character: string|undefined) => boolean} */
const isWord = (character) => character !== undefined && /[\p{L}\p{N}_]/u.test(character);

const LABEL = String.raw`!?\[([^[\]]{0,500})\]`;
const TARGET = String.raw`<?([^\s()<>]{1,1000}(?:\([^\s()<>]{0,200}\)[^\s()<>]{0,500})?)>?`;
const LINK = new RegExp(String.raw`${LABEL}\( {0,3}${TARGET}(?: {1,3}"[^"]{0,300}")? {0,3}\)`, "y");

/** @type {InlineReader} */
function readLink(text, at, depth) {
  LINK.lastIndex = at;
  const match = LINK.exec(text);
  if (!match) return null;
  const [whole, label, address] = match;
  const link = makeLink(address, inline(label || address, depth + 1));
  return link && {node: link, end: at + whole.length};
}

const ADDRESS = /https?:\/\/[^\s<>"'`]{1,1000}/y;

/** @type {InlineReader} */
function readAddress(text, at) {
  ADDRESS.lastIndex = at;
  if (isWord(text[at - 1])) return null;
  const address = (ADDRESS.exec(text)?.[0] ?? "").replace(/[.,;:!?)\]*_~]+$/, "");
  const link = makeLink(address, [document.createTextNode(address)]);
  return link && {node: link, end: at + address.length};
}

/** @type {(address: string, label: Node[]) => HTMLElement|null} */
function makeLink(address, label) {
  if (!URL.canParse(address) || !/^(https?|mailto):$/.test(new URL(address).protocol)) return null;
  const link = document.createElement("a");
  for (const node of label) link.append(node);
  link.href = link.title = address; // the title shows where a link leads whose label says something else
  link.rel = "noopener noreferrer nofollow";
  link.target = "_blank";
  return link;
}

/** What a character may begin. @type {Map<string, InlineReader>} */
const INLINE = new Map([
  ["\\", readEscape],
  ["`", readCodeSpan],
  ["*", readEmphasis],
  ["_", readEmphasis],
  ["~", readEmphasis],
  ["[", readLink],
  ["!", readLink],
  ["h", readAddress],
]);
