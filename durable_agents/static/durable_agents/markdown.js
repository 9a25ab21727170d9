/**
 * Renders the Markdown that models write as DOM nodes. Optional: without it, show messages as plain text.
 *
 *     updateMarkdown(element, text);
 *
 * The text is untrusted. Nodes are built one by one and text only becomes text nodes, so nothing needs escaping or
 * sanitising; HTML in the text is shown as text. Links may only lead to web pages and mail addresses. Images become
 * links too: loading one would send its host whatever the model put into the URL.
 *
 * Supported: paragraphs, headings, lists, quotes, fenced code, tables, rules; emphasis, code, strike-through, links.
 * Incomplete markup, as in an answer that still streams, is shown as text until the rest arrives.
 *
 * Rendering takes time linear in the length of the text, whatever it contains. When a text grows, as an answer does,
 * parsing continues at its last line: blocks are objects that persist with their elements and accept more lines.
 *
 * This needs limits. Nesting is limited, and so is the length of a heading or a table row. Long paragraphs are parsed
 * in pieces, and emphasis, code and links cannot span two pieces.
 */

/** @typedef {Pick<Block, "start"|"end"|"resume"|"remove">} AnyBlock */

const MAX_DEPTH = 8;
const MAX_COLUMNS = 100;
/** A piece of a long paragraph ends at the first space after this length, but at `LONGEST_PIECE` at the latest. */
const PIECE_CHARACTERS = 4_000;
const LONGEST_PIECE = 5_000;

/** The blocks in an element, and its text without the last line, which may continue. @type {WeakMap<Element, {flow: Flow, text: string}>} */
const views = new WeakMap();

/**
 * Shows `text` in `element`, which must contain nothing else. If the text has only grown, existing nodes are kept, so an
 * update costs only the last lines and a selection above them survives.
 *
 * @param {Element} element
 * @param {string} text
 */
export function updateMarkdown(element, text) {
  let view = views.get(element);
  if (view && !text.startsWith(view.text)) {
    view.flow.remove();
    view = undefined;
  }
  const {flow, text: known} = view ?? {flow: new Flow(element, 0), text: ""};
  const {lines, last} = linesOf(text, known.length);
  flow.update(Math.max(0, flow.lines.length - 1), lines);
  views.set(element, {flow, text: text.slice(0, last)});
}

/** Returns the lines of a text from an offset on, and the offset of the last line. @type {(text: string, from: number) => {lines: string[], last: number}} */
function linesOf(text, from) {
  const lines = [];
  const ending = /\r\n|\n|\r(?!\n|$)/g; // a carriage return at the end may be the first half of \r\n
  ending.lastIndex = from;
  let last = from;
  for (let match = ending.exec(text); match; match = ending.exec(text)) {
    lines.push(spaced(text.slice(last, match.index)));
    last = ending.lastIndex;
  }
  lines.push(spaced(text.slice(last)));
  return {lines, last};
}

/** @type {(line: string) => string} */
const spaced = (line) => line.replaceAll("\t", "    ").replace("\r", "");

// ------------------------------------------------------------------------------------------------------------- Nodes

/** @type {(tag: string, children?: (Node|string)[]) => HTMLElement} */
function make(tag, children = []) {
  const element = document.createElement(tag);
  for (const child of children) element.append(child); // one by one: there may be too many for the arguments of one call
  return element;
}

/**
 * Replaces the last nodes of an element. Text nodes are kept and get new text, so that a selection survives.
 * @type {(parent: Element, old: Node[], fresh: Node[]) => Node[]}
 */
function changeNodes(parent, old, fresh) {
  /** @type {Node[]} */
  const kept = [];
  let at = 0;
  for (const node of fresh) {
    for (; at < old.length && isText(old[at]) && !isText(node); at++) kept.push(rewrite(old[at], ""));
    const slot = old[at++];
    if (slot && isText(slot) && isText(node)) kept.push(rewrite(slot, node.data));
    else kept.push(node);
    if (!slot) parent.append(node);
    else if (!isText(slot)) asElement(slot).replaceWith(node);
  }
  for (const node of old.slice(at)) {
    if (isText(node)) kept.push(rewrite(node, ""));
    else asElement(node).remove();
  }
  return kept;
}

/** @type {(node: Node) => node is Text} */
const isText = (node) => "data" in node;

/** @type {(node: Node) => Element} */
const asElement = (node) => /** @type {Element} */ (node);

/** @type {(node: Node, data: string) => Node} */
function rewrite(node, data) {
  if (isText(node) && node.data !== data) node.data = data;
  return node;
}

// ------------------------------------------------------------------------------------------------------------- Lines

const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])( +|$)/;
const FENCE = /^( {0,3})(`{3,}(?!`)|~{3,}(?!~))([^`]*)$/; // matches whole runs only, without trying shorter ones
const HEADING = /^ {0,3}(#{1,6}) +(.*)$/;
const QUOTE = /^ {0,3}>/;
const RULE = /^ *([-*_]) *(?:\1 *){2,}$/;

/** Returns the match of a line and its groups, or nothing. @type {(line: string, pattern: RegExp) => string[]} */
const partsOf = (line, pattern) => line.match(pattern) ?? [];

/** @type {(line: string) => boolean} */
const isBlank = (line) => line.trim() === "";

/** @type {(line: string) => boolean} */
const isRule = (line) => RULE.test(line);

/** Whether this line ends a paragraph that it follows. @type {(line: string) => boolean} */
const startsBlock = (line) => /^ {0,3}(`{3}|~{3}|#{1,6} |>)/.test(line) || isRule(line);

/** @type {(line: string) => number} */
const indentOf = (line) => line.length - line.trimStart().length;

/** @type {(line: string, indent: number) => string} */
const cutIndent = (line, indent) => line.slice(Math.min(indent, indentOf(line)));

/** Which block begins at a line. @type {(lines: string[], at: number, depth: number) => new (flow: Flow, start: number) => AnyBlock} */
const kindAt = (lines, at, depth) =>
  (depth < MAX_DEPTH && KINDS.find((kind) => kind.begins(lines, at))) || Paragraph;

// ------------------------------------------------------------------------------------------------------------ Blocks

/** A sequence of blocks and their lines. The last line may continue; the others are final. */
class Flow {
  /** @type {string[]} */
  lines = [];
  /** @type {AnyBlock[]} */
  #blocks = [];
  /** The first line that is not in a block. Only blank lines separate it from the last block. */
  #next = 0;

  /** @param {Element} parent @param {number} depth @param {boolean} [isBare] whether paragraphs are shown without an element */
  constructor(parent, depth, isBare = false) {
    this.parent = parent;
    this.depth = depth;
    this.isBare = isBare;
  }

  /** Replaces the lines from `from` on. @param {number} from @param {string[]} fresh */
  update(from, fresh) {
    this.lines.length = from;
    for (const line of fresh) this.lines.push(line);
    this.#next = Math.min(this.#next, from);
    if (this.#isBack(from)) this.#drop();
    let last = this.#blocks.at(-1);
    for (; last && !this.#goesOn(last, from); last = this.#blocks.at(-1)) this.#drop();
    this.#next = Math.max(this.#next, last?.end ?? 0);
    this.#read();
  }

  /**
   * Whether the first line of the last block now belongs to the block before it: as it grows, it may become a row of a
   * table, or the delimiter row that makes the line before it a table header.
   * @param {number} from
   */
  #isBack(from) {
    const before = this.#blocks.at(-2);
    if (before?.end !== from || from >= this.lines.length) return false;
    if (before instanceof Table) return isRow(this.lines[from]);
    return from === before.start + 1 && kindAt(this.lines, before.start, this.depth) !== before.constructor;
  }

  /** @param {AnyBlock} block @param {number} from */
  #goesOn(block, from) {
    if (block.end < from) return true;
    const isThere = block.start < this.lines.length;
    return isThere && kindAt(this.lines, block.start, this.depth) === block.constructor && block.resume(this.lines, from);
  }

  #drop() {
    const block = this.#blocks.pop();
    block?.remove();
    this.#next = Math.min(this.#next, block?.start ?? 0);
  }

  #read() {
    while (this.#next < this.lines.length) {
      if (isBlank(this.lines[this.#next])) {
        this.#next++;
        continue;
      }
      const Kind = kindAt(this.lines, this.#next, this.depth);
      const block = new Kind(this, this.#next);
      this.#blocks.push(block);
      this.#next = block.end;
    }
  }

  remove() {
    while (this.#blocks.length) this.#drop();
  }
}

/** Consecutive lines that form one block, and the element that shows them. */
class Block {
  /** @param {{parent: Element}} flow @param {number} start its first line @param {HTMLElement} element */
  constructor({parent}, start, element) {
    this.start = start;
    /** The line after its last one. */
    this.end = start + 1;
    this.element = element;
    parent.append(element);
  }

  /**
   * Continues with lines that have changed from `from` on. Returns false if the block has to be parsed again.
   * @param {string[]} _lines @param {number} from @returns {boolean}
   */
  resume(_lines, from) {
    return this.start < from;
  }

  remove() {
    this.element.remove();
  }
}

class Rule extends Block {
  /** @param {Flow} flow @param {number} start */
  constructor(flow, start) {
    super(flow, start, make("hr"));
  }

  /** @param {string[]} lines @param {number} at */
  static begins = (lines, at) => isRule(lines[at]);
}

/** A heading, shown two levels lower, since the page has headings of its own. */
class Heading extends Block {
  /** @param {Flow} flow @param {number} start */
  constructor(flow, start) {
    const [, marks, text] = partsOf(flow.lines[start], HEADING);
    super(flow, start, make(`h${Math.min(6, marks.length + 2)}`, inline(withoutClosing(text))));
  }

  /** @param {string[]} lines @param {number} at */
  static begins = (lines, at) => lines[at].length <= LONGEST_PIECE && HEADING.test(lines[at]);
}

/** A heading's text without the marks that may close it, as in `# Title #`. @type {(text: string) => string} */
function withoutClosing(text) {
  const trimmed = text.trimEnd();
  let end = trimmed.length;
  while (trimmed[end - 1] === "#") end--;
  return trimmed[end - 1] === " " ? trimmed.slice(0, end).trimEnd() : trimmed;
}

/** A fenced code block. Without a closing fence it extends to the end. */
class Code extends Block {
  /** @param {Flow} flow @param {number} start */
  constructor(flow, start) {
    const [, indent, fence, language] = partsOf(flow.lines[start], FENCE);
    const text = document.createTextNode("");
    super(flow, start, make("pre", [make("code", [text])]));
    this.text = text;
    this.indent = indent.length;
    this.fence = fence;
    /** The code before line `taken`. The last line of the text is not included, because it may still grow. */
    this.code = "";
    this.taken = start + 1;
    this.isClosed = false;
    this.element.tabIndex = 0; // so that the keyboard can scroll it
    if (language.trim()) this.element.dataset.language = language.trim().slice(0, 40);
    this.#take(flow.lines);
  }

  /** @param {string[]} lines @param {number} at */
  static begins = (lines, at) => FENCE.test(lines[at]);

  /** @param {string[]} lines @param {number} from */
  resume(lines, from) {
    if (this.start >= from) return false;
    if (!this.isClosed || this.taken >= from) this.#take(lines);
    return true;
  }

  /** @param {string[]} lines */
  #take(lines) {
    const last = lines.length - 1;
    for (; this.taken < last && !this.#isEnd(lines[this.taken]); this.taken++) {
      this.code += `${cutIndent(lines[this.taken], this.indent)}\n`;
    }
    this.isClosed = this.taken <= last && this.#isEnd(lines[this.taken]);
    const isOpen = this.taken <= last && !this.isClosed;
    this.end = Math.min(this.taken, last) + 1;
    rewrite(this.text, isOpen ? this.code + cutIndent(lines[last], this.indent) : this.code.slice(0, -1));
  }

  /** @param {string} line */
  #isEnd(line) {
    return line.trim().startsWith(this.fence) && /^(`+|~+)$/.test(line.trim());
  }
}

/** A quote, which contains blocks of its own. */
class Quote extends Block {
  /** @param {Flow} flow @param {number} start */
  constructor(flow, start) {
    super(flow, start, make("blockquote"));
    this.flow = new Flow(this.element, flow.depth + 1);
    this.resume(flow.lines, start);
  }

  /** @param {string[]} lines @param {number} at */
  static begins = (lines, at) => QUOTE.test(lines[at]);

  /** @param {string[]} lines @param {number} from */
  resume(lines, from) {
    let end = from;
    while (end < lines.length && QUOTE.test(lines[end])) end++;
    this.end = end;
    this.flow.update(from - this.start, lines.slice(from, end).map((line) => line.replace(/^ {0,3}> ?/, "")));
    return true;
  }
}

/** A list. If blank lines separate its content (a loose list), paragraphs of its items get elements. */
class List extends Block {
  isLoose = false;
  /** @type {Item[]} */
  #items = [];

  /** @param {Flow} flow @param {number} start */
  constructor(flow, start) {
    const marker = markerOf(flow.lines[start]);
    const first = +marker.slice(0, -1); // zero for bullets, whose markers have one character
    super(flow, start, make(marker[1] ? "ol" : "ul"));
    this.end = start;
    this.depth = flow.depth;
    this.marker = marker;
    if (first > 1) this.element.setAttribute("start", String(first));
    this.#read(flow.lines);
  }

  /** @param {string[]} lines @param {number} at */
  static begins = (lines, at) => ITEM.test(lines[at]) && !isRule(lines[at]);

  /** @param {string[]} lines @param {number} from */
  resume(lines, from) {
    if (this.start === from && markerOf(lines[from]) !== this.marker) return false;
    // Until there is text after the marker, the last line may turn out not to be an item, or to have another indent.
    let last = this.#items.at(-1);
    for (; last && !this.#isItem(last, lines, from); last = this.#items.at(-1)) this.#items.pop()?.remove();
    if (!last) return false;
    this.end = last.take(lines, from);
    this.#read(lines);
    return true;
  }

  /** @param {Item} item @param {string[]} lines @param {number} from */
  #isItem(item, lines, from) {
    if (item.start < from) return true;
    return this.#goesOn(lines, from) && item.indent === partsOf(lines[from], ITEM)[0].length;
  }

  /** Whether there is an item of this list at a line. @param {string[]} lines @param {number} at */
  #goesOn(lines, at) {
    return at < lines.length && List.begins(lines, at) && kindOf(markerOf(lines[at])) === kindOf(this.marker);
  }

  /** @param {string[]} lines */
  #read(lines) {
    this.#loosen(lines);
    while (this.#goesOn(lines, this.end)) {
      const item = new Item(this, lines, this.end);
      this.#items.push(item);
      this.end = item.end;
      this.#loosen(lines);
    }
  }

  /** At the first gap, all items are rebuilt. @param {string[]} lines */
  #loosen(lines) {
    if (this.isLoose || !this.#items.at(-1)?.hasGap) return;
    this.isLoose = true;
    for (const item of this.#items) item.restart(lines);
  }
}

/** @type {(line: string) => string} */
const markerOf = (line) => partsOf(line, ITEM)[2] ?? "";

/** Returns the kind of a marker. An item with another kind of marker begins a new list. @type {(marker: string) => string|undefined} */
const kindOf = (marker) => marker.at(-1);

/** An item of a list. */
class Item extends Block {
  /** Whether there is a blank line between other lines. Blank lines at the end do not count. */
  hasGap = false;

  /** @param {List} list @param {string[]} lines @param {number} start */
  constructor(list, lines, start) {
    super({parent: list.element}, start, make("li"));
    this.list = list;
    this.indent = partsOf(lines[start], ITEM)[0].length;
    this.flow = this.#flow();
    this.take(lines, start);
  }

  #flow() {
    return new Flow(this.element, this.list.depth + 1, !this.list.isLoose);
  }

  /** Reads the item's lines from `from` on, and returns the number of the line after the item. @param {string[]} lines @param {number} from */
  take(lines, from) {
    if (this.end < from) return this.end;
    let end = Math.max(from, this.start + 1);
    for (; end < lines.length && this.#isInside(lines, end); end++) {
      this.hasGap ||= isBlank(lines[end - 1]) && !isBlank(lines[end]) && end - 1 > this.start;
    }
    this.end = end;
    this.#show(lines, from);
    return end;
  }

  /** @param {string[]} lines @param {number} from */
  #show(lines, from) {
    const cut = (/** @type {string} */ line, /** @type {number} */ index) =>
      from + index === this.start ? line.slice(this.indent) : cutIndent(line, this.indent);
    this.flow.update(from - this.start, lines.slice(from, this.end).map(cut));
  }

  /** @param {string[]} lines @param {number} at */
  #isInside(lines, at) {
    if (indentOf(lines[at]) >= this.indent || isBlank(lines[at])) return true;
    return !isBlank(lines[at - 1]) && !ITEM.test(lines[at]) && !startsBlock(lines[at]);
  }

  /** Rebuilds the item after its list has become loose. @param {string[]} lines */
  restart(lines) {
    const element = make("li");
    this.element.replaceWith(element);
    this.element = element;
    this.flow = this.#flow();
    this.#show(lines, this.start);
  }
}

/** A table. */
class Table extends Block {
  /** @type {HTMLElement[]} */
  #rows = [];

  /** @param {Flow} flow @param {number} start */
  constructor(flow, start) {
    const [head, rule] = flow.lines.slice(start, start + 2);
    const columns = cellsOf(rule);
    const body = make("tbody");
    super(flow, start, make("div", [make("table", [make("thead", [makeRow(head, columns, "th")]), body])]));
    this.rule = rule;
    this.columns = columns;
    this.body = body;
    this.element.className = "table";
    this.element.tabIndex = 0;
    this.#take(flow.lines);
  }

  /** @param {string[]} lines @param {number} at */
  static begins(lines, at) {
    const [head, rule] = [lines[at], lines[at + 1] ?? ""];
    if (!isRow(head) || !rule.includes("-") || !/^[\s|:-]+$/.test(rule)) return false;
    const columns = cellsOf(rule);
    const fits = columns.length <= MAX_COLUMNS && columns.every((cell) => /^:?-+:?$/.test(cell));
    return fits && cellsOf(head).length === columns.length;
  }

  /** @param {string[]} lines @param {number} from */
  resume(lines, from) {
    if (lines[this.start + 1] !== this.rule) return false;
    while (this.#rows.length && this.start + 1 + this.#rows.length >= from) this.#rows.pop()?.remove();
    this.#take(lines);
    return true;
  }

  /** @param {string[]} lines */
  #take(lines) {
    for (this.end = this.start + 2 + this.#rows.length; this.end < lines.length && isRow(lines[this.end]); this.end++) {
      const row = makeRow(lines[this.end], this.columns, "td");
      this.#rows.push(row);
      this.body.append(row);
    }
  }
}

/** @type {(line: string) => boolean} */
const isRow = (line) => line.length <= LONGEST_PIECE && line.includes("|");

/** @type {(line: string) => string[]} */
function cellsOf(line) {
  const inner = line.trim().replace(/^\|/, "").replace(/\|$/, "");
  return inner.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

/**
 * A row. The missing cells of a short line become one cell that spans them: otherwise a table of many rows and columns
 * could have far more cells than its text has characters.
 * @type {(line: string, columns: string[], tag: string) => HTMLElement}
 */
function makeRow(line, columns, tag) {
  const cells = cellsOf(line).slice(0, columns.length);
  const row = make("tr", cells.map((cell, index) => makeCell(tag, cell, columns[index])));
  const missing = columns.length - cells.length;
  if (!missing) return row;
  const rest = make(tag);
  rest.setAttribute("colspan", String(missing));
  row.append(rest);
  return row;
}

/** @type {(tag: string, text: string, column: string) => HTMLElement} */
function makeCell(tag, text, column) {
  const cell = make(tag, inline(text));
  if (column.endsWith(":")) cell.style.textAlign = column.startsWith(":") ? "center" : "end";
  return cell;
}

/** Any text that is no other block. */
class Paragraph {
  /** The nodes of the last piece, which begins in `#line`, `#offset` characters after the indent. @type {Node[]} */
  #nodes = [];
  #line;
  #offset = 0;

  /** @param {Flow} flow @param {number} start */
  constructor({lines, parent, depth, isBare}, start) {
    this.start = this.#line = start;
    this.end = start + 1;
    this.depth = depth;
    this.isBare = isBare;
    this.element = isBare ? parent : make("p");
    if (!isBare) parent.append(this.element);
    this.resume(lines, start);
  }

  /** @param {string[]} lines @param {number} from */
  resume(lines, from) {
    let end = Math.max(from, this.start + 1);
    while (end < lines.length && !isBlank(lines[end]) && !this.#isOther(lines[end])) end++;
    this.end = end;
    let text = lines.slice(this.#line, end).map((line) => line.trimStart()).join("\n").slice(this.#offset);
    for (let length = lengthOfPiece(text); length < text.length; length = lengthOfPiece(text)) {
      if (!this.#isThere(length, text, lines)) break;
      changeNodes(this.element, this.#nodes, inline(text.slice(0, length)));
      this.#nodes = [];
      this.#advance(length, lines);
      text = text.slice(length);
    }
    this.#showLast(text.trimEnd());
    return true;
  }

  /** @param {string} line */
  #isOther(line) {
    return this.depth < MAX_DEPTH && (startsBlock(line) || ITEM.test(line));
  }

  /**
   * Whether so many characters certainly belong to the paragraph. A short last line may still become another block.
   * @param {number} length @param {string} text @param {string[]} lines
   */
  #isThere(length, text, lines) {
    const last = this.end === lines.length ? lines[lines.length - 1].trimStart() : "";
    return last.length >= PIECE_CHARACTERS || length <= text.length - last.length;
  }

  /** @param {number} length @param {string[]} lines */
  #advance(length, lines) {
    this.#offset += length;
    for (let line = lines[this.#line].trimStart(); this.#offset > line.length; line = lines[this.#line].trimStart()) {
      this.#offset -= line.length + 1;
      this.#line++;
    }
  }

  /** Rebuilds a short paragraph. @param {string} text */
  #showLast(text) {
    const fresh = inline(text);
    if (this.isBare || this.#line > this.start || this.#offset || !this.#nodes.length) {
      this.#nodes = changeNodes(this.element, this.#nodes, fresh);
      return;
    }
    const element = make("p", fresh);
    this.element.replaceWith(element);
    this.element = element;
    this.#nodes = fresh;
  }

  remove() {
    if (this.isBare) changeNodes(this.element, this.#nodes, []);
    else this.element.remove();
  }
}

const KINDS = [Code, Heading, Rule, Quote, List, Table];

/** Returns the length of the first piece, which stays the same when the text grows. @type {(text: string) => number} */
function lengthOfPiece(text) {
  const most = Math.min(LONGEST_PIECE, text.length);
  for (let end = PIECE_CHARACTERS; end < most; end++) if (/\s/.test(text[end])) return end;
  if (text.length <= LONGEST_PIECE) return text.length;
  return /[\uD800-\uDBFF]/.test(text[LONGEST_PIECE - 1]) ? LONGEST_PIECE - 1 : LONGEST_PIECE; // not within a character
}

// ------------------------------------------------------------------------------------------------------------ Inline

/**
 * A run of marks that may begin emphasis. `left` of its characters are unused; they stand in the output at `index`.
 * @typedef {{mark: string, left: number, index: number}} Opener
 */

/** How deep elements nest. @type {WeakMap<Node, number>} */
const heights = new WeakMap();

/** Characters that may begin inline markup. */
const SPECIAL = /[\\`*_~![h]/g;

/** @type {(text: string, isLabel?: boolean) => Node[]} */
function inline(text, isLabel = false) {
  /** @type {(Node|string)[]} */
  const out = [];
  const emphasis = new Emphasis(out);
  const closingRun = runsOf(text);
  for (let at = 0; at < text.length; ) {
    SPECIAL.lastIndex = at;
    const next = SPECIAL.exec(text)?.index ?? text.length;
    if (next > at) out.push(text.slice(at, next));
    if (next === text.length) break;
    const mark = text[next];
    if (mark === "*" || mark === "_" || mark === "~") {
      at = endOfRun(text, next);
      emphasis.take(mark, at - next, text[next - 1] ?? "", text[at] ?? "");
      continue;
    }
    const [node, end] = readNode(text, next, closingRun, isLabel) ?? [mark, next + 1];
    out.push(node);
    at = end;
  }
  return merged(out);
}

/** @type {(text: string, at: number, closingRun: (length: number, from: number) => number, isLabel: boolean) => [Node|string, number]|null} */
function readNode(text, at, closingRun, isLabel) {
  if (text[at] === "\\") return readEscape(text, at);
  if (text[at] === "`") return readCodeSpan(text, at, closingRun);
  if (text[at] === "h") return isLabel ? null : readAddress(text, at);
  return readLink(text, at);
}

/** Joins neighbouring texts into one text node. @type {(pieces: (Node|string)[]) => Node[]} */
function merged(pieces) {
  /** @type {Node[]} */
  const nodes = [];
  /** @type {string[]} */
  let plain = [];
  const flush = () => {
    const text = plain.join("");
    if (text) nodes.push(document.createTextNode(text));
    plain = [];
  };
  for (const piece of pieces) {
    if (typeof piece === "string") {
      plain.push(piece);
      continue;
    }
    flush();
    nodes.push(piece);
  }
  flush();
  return nodes;
}

/** @type {(text: string, at: number) => number} */
function endOfRun(text, at) {
  let end = at + 1;
  while (text[end] === text[at]) end++;
  return end;
}

/** Pairs marks by the rules of CommonMark, with a stack of open marks; visits each mark once. */
class Emphasis {
  /** @type {Opener[]} */
  #open = [];
  #out;

  /** @param {(Node|string)[]} out */
  constructor(out) {
    this.#out = out;
  }

  /**
   * Adds a run of marks. What it closes becomes an element; unused marks may open another one.
   * @param {string} mark @param {number} length @param {string} before @param {string} after the characters beside it
   */
  take(mark, length, before, after) {
    const canOpen = /\S/.test(after) && !(mark === "_" && isWord(before));
    const canClose = /\S/.test(before) && !(mark === "_" && isWord(after));
    const least = mark === "~" ? 2 : 1;
    let left = length;
    for (let opener = canClose && this.#opener(mark, left); opener && left >= least; opener = this.#opener(mark, left)) {
      const used = mark === "~" ? 2 : 2 - (Math.min(left, opener.left) % 2); // `***a***` becomes `em` in `strong`
      if (used > Math.min(left, opener.left) || !this.#close(opener, used)) break;
      left -= used;
    }
    if (!left) return;
    if (canOpen && left >= least) this.#open.push({mark, left, index: this.#out.length});
    this.#out.push(mark.repeat(left));
  }

  /** Among the last openers of this mark, returns the last with the same length or else the last. @type {(mark: string, left: number) => Opener|undefined} */
  #opener(mark, left) {
    const near = this.#open.slice(-MAX_DEPTH).filter((opener) => opener.mark === mark);
    return near.findLast((opener) => opener.left === left) ?? near.at(-1);
  }

  /** Makes an element of the output since the opener. Returns false if it would nest too deeply. @type {(opener: Opener, used: number) => boolean} */
  #close(opener, used) {
    while (this.#open.at(-1) !== opener) this.#open.pop();
    const children = merged(this.#out.splice(opener.index + 1));
    const height = 1 + children.reduce((highest, node) => Math.max(highest, heights.get(node) ?? 0), 0);
    if (height > MAX_DEPTH) {
      this.#open.length = 0; // marks that are still open would nest even deeper
      appendTo(this.#out, children);
      return false;
    }
    opener.left -= used;
    this.#out[opener.index] = opener.mark.repeat(opener.left);
    if (!opener.left) this.#open.pop();
    const element = make(opener.mark === "~" ? "del" : used === 2 ? "strong" : "em", children);
    heights.set(element, height);
    this.#out.push(element);
    return true;
  }
}

/** @type {(list: (Node|string)[], nodes: Node[]) => void} */
function appendTo(list, nodes) {
  for (const node of nodes) list.push(isText(node) ? node.data : node);
}

/** @type {(text: string, at: number) => [string, number]|null} */
function readEscape(text, at) {
  const next = text[at + 1] ?? "";
  return /[!-/:-@[-`{-~]/.test(next) ? [next, at + 2] : null;
}

/**
 * Returns a function that finds the next run of backticks of a given length, or -1. Call it from left to right.
 * @type {(text: string) => (length: number, from: number) => number}
 */
function runsOf(text) {
  /** @type {Map<number, number[]>} */
  const runs = new Map();
  for (const {0: run, index} of text.matchAll(/`+/g)) {
    const places = runs.get(run.length);
    if (places) places.push(index);
    else runs.set(run.length, [index]);
  }
  for (const places of runs.values()) places.reverse();
  return (length, from) => {
    const places = runs.get(length) ?? [];
    while ((places.at(-1) ?? from) < from) places.pop();
    return places.at(-1) ?? -1;
  };
}

/** @type {(text: string, at: number, closingRun: (length: number, from: number) => number) => [Node|string, number]} */
function readCodeSpan(text, at, closingRun) {
  const start = endOfRun(text, at);
  const end = closingRun(start - at, start);
  if (end < 0) return [text.slice(at, start), start];
  const code = text.slice(start, end).replaceAll("\n", " ");
  const isPadded = code.startsWith(" ") && code.endsWith(" ") && !isBlank(code);
  return [make("code", [isPadded ? code.slice(1, -1) : code]), end + start - at];
}

/** @type {(character: string) => boolean} */
const isWord = (character) => /[\p{L}\p{N}_]/u.test(character);

/** A link or an image: its label, then its address, which may contain one pair of parentheses, then perhaps a title. */
const LINK =
  /!?\[([^[\]]{0,500})\]\( {0,3}<?([^\s()<>]{1,1000}(?:\([^\s()<>]{0,200}\)[^\s()<>]{0,500})?)>?(?: {1,3}"[^"]{0,300}")? {0,3}\)/y;

/** @type {(text: string, at: number) => [Node, number]|null} */
function readLink(text, at) {
  LINK.lastIndex = at;
  const match = LINK.exec(text);
  if (!match) return null;
  const [whole, label, address] = match;
  const link = makeLink(address, () => inline(label || address, true));
  return link && [link, at + whole.length];
}

const ADDRESS = /https?:\/\/[^\s<>"'`]{1,1000}/y;
const AFTER_ADDRESS = ".,;:!?)]*_~";

/** @type {(text: string, at: number) => [Node, number]|null} */
function readAddress(text, at) {
  ADDRESS.lastIndex = at;
  const address = isWord(text[at - 1] ?? "") ? "" : (ADDRESS.exec(text)?.[0] ?? "");
  let end = address.length;
  while (end && AFTER_ADDRESS.includes(address[end - 1])) end--;
  const shown = address.slice(0, end);
  const link = makeLink(shown, () => [document.createTextNode(shown)]);
  return link && [link, at + end];
}

/** @type {(address: string, label: () => Node[]) => HTMLElement|null} */
function makeLink(address, label) {
  if (!/^(https?|mailto):/i.test(address) || !URL.canParse(address)) return null;
  const link = /** @type {HTMLAnchorElement} */ (make("a", label()));
  link.href = link.title = address; // the title shows the real address, whatever the label says
  link.rel = "noopener noreferrer nofollow";
  link.target = "_blank";
  return link;
}
