/** What models write becomes nodes; what they try to smuggle in becomes text. */

import assert from "node:assert/strict";
import {test} from "node:test";
import {runInNewContext} from "node:vm";

import {updateMarkdown} from "../../durable_agents/static/durable_agents/markdown.js";
import {updateMarkdown as minified} from "../../durable_agents/static/durable_agents/markdown.min.js";
import {fakeDocument} from "./fakedom.mjs";
import {HOSTILE} from "./hostile.mjs";
import {randomSource} from "./random.mjs";

function render(t, text, update = updateMarkdown) {
  const element = fakeDocument(t).createElement("div");
  update(element, text);
  return element.innerHTML;
}

for (const [markdown, html] of [
  ["", ""],
  ["one\ntwo\n\nthree", "<p>one\ntwo</p><p>three</p>"],
  ["# Title #\n## Next", "<h3>Title</h3><h4>Next</h4>"],
  ["a\n\n---\n***", "<p>a</p><hr></hr><hr></hr>"],
  ["**bold** *slanted* ***both*** __b__ _i_ ~~gone~~", "<p><strong>bold</strong> <em>slanted</em> <strong><em>both</em></strong> <strong>b</strong> <em>i</em> <del>gone</del></p>"],
  ["**3.** On *day `12`* two", "<p><strong>3.</strong> On <em>day <code>12</code></em> two</p>"],
  ["2 * 3 * 4 and snake_case_name and ~5", "<p>2 * 3 * 4 and snake_case_name and ~5</p>"],
  ["\\*not\\* `co*d*e` ``a`b`` ` x `", "<p>*not* <code>co*d*e</code> <code>a`b</code> <code>x</code></p>"],
  ["half **bold and `code", "<p>half **bold and `code</p>"],
  ["- a\n- b\n  - c\n- d", "<ul><li>a</li><li>b<ul><li>c</li></ul></li><li>d</li></ul>"],
  ["Text:\n1. a\n2. b\nstill b", "<p>Text:</p><ol><li>a</li><li>b\nstill b</li></ol>"],
  ["3. c\n\n   more\n\n4. d\n\nafter", '<ol start="3"><li><p>c</p><p>more</p></li><li><p>d</p></li></ol><p>after</p>'],
  ["- a\n\n- b\n* c", "<ul><li>a</li><li>b</li></ul><ul><li>c</li></ul>"],
  ["> quoted\n> - list\nafter", "<blockquote><p>quoted</p><ul><li>list</li></ul></blockquote><p>after</p>"],
  ["```py\nif a < b:\n\n    **c**\n```\nafter", "<pre><code>if a &lt; b:\n\n    **c**</code></pre><p>after</p>"],
  ["````\n```\n````", "<pre><code>```</code></pre>"],
  ["```\nnot closed yet", "<pre><code>not closed yet</code></pre>"],
  ["- item\n  ```\n  code\n  ```", "<ul><li>item<pre><code>code</code></pre></li></ul>"],
  ["a | b\n--|:-:\n1 | `2\\|3` | 4", "<div><table><thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td>1</td><td><code>2|3</code></td></tr></tbody></table></div>"],
  ["a | b\nno table", "<p>a | b\nno table</p>"],
  ["[**site**](https://example.org/a_(b) \"title\")", '<p><a href="https://example.org/a_(b)"><strong>site</strong></a></p>'],
  ["see https://example.org/a?b=c.", '<p>see <a href="https://example.org/a?b=c">https://example.org/a?b=c</a>.</p>'],
  ["[mail](mailto:a@example.org)", '<p><a href="mailto:a@example.org">mail</a></p>'],
]) {
  test(`markdown ${JSON.stringify(markdown).slice(0, 60)}`, (t) => {
    assert.equal(render(t, markdown), html);
    assert.equal(render(t, markdown, minified), html);
  });
}

for (const [hostile, html] of [
  ["<script>alert(1)</script>", "<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>"],
  ["<img src=x onerror=alert(1)>", "<p>&lt;img src=x onerror=alert(1)&gt;</p>"],
  ["[x](javascript:alert(1))", "<p>[x](javascript:alert(1))</p>"],
  ["[x](JaVaScRiPt:alert)", "<p>[x](JaVaScRiPt:alert)</p>"],
  ["[x](data:text/html,hi)", "<p>[x](data:text/html,hi)</p>"],
  ["[x](vbscript:x) [y](//evil.example) [z](/admin/)", "<p>[x](vbscript:x) [y](//evil.example) [z](/admin/)</p>"],
  ["![secret](https://evil.example/?q=secret)", '<p><a href="https://evil.example/?q=secret">secret</a></p>'],
]) {
  test(`hostile ${hostile} stays harmless`, (t) => assert.equal(render(t, hostile), html));
}

test("a link opens elsewhere, tells nobody where from, and shows where it leads", (t) => {
  const element = fakeDocument(t).createElement("div");
  updateMarkdown(element, "[your bank](https://evil.example/)");
  const [{rel, target, title}] = element.children[0].children;
  assert.deepEqual({rel, target, title}, {rel: "noopener noreferrer nofollow", target: "_blank", title: "https://evil.example/"});
});

test("while text grows, finished blocks keep their elements", (t) => {
  const element = fakeDocument(t).createElement("div");
  updateMarkdown(element, "first\n\nsec");
  const [first, second] = element.children;
  updateMarkdown(element, "first\n\nsecond\n\nthird");
  assert.equal(element.children[0], first);
  assert.notEqual(element.children[1], second);
  assert.equal(element.innerHTML, "<p>first</p><p>second</p><p>third</p>");
  updateMarkdown(element, "other");
  assert.equal(element.innerHTML, "<p>other</p>");
});

test("every beginning of a text can be shown, and growing gives what the whole gives", (t) => {
  const whole = "# A\n\n- **b** [c](https://d.example/)\n  1. `e`\n\n| f | g |\n|---|---|\n| h | i |\n\n```js\nj\n```\n> k *l*\n\nend";
  const element = fakeDocument(t).createElement("div");
  for (let length = 0; length <= whole.length; length++) updateMarkdown(element, whole.slice(0, length));
  assert.equal(element.innerHTML, render(t, whole));
});

test("a paragraph may have more pieces than a call takes arguments", (t) => {
  assert.equal(render(t, "**a** `b` ".repeat(100_000)).length, "<p></p>".length + "<strong>a</strong> <code>b</code> ".length * 100_000 - 1);
});

const LENGTH = 100_000;

for (const [name, unit] of Object.entries(HOSTILE)) {
  const text = unit.repeat(LENGTH / unit.length + 1).slice(0, LENGTH);

  test(`a hundred thousand characters of ${name} can be shown`, (t) => {
    const show = () => render(t, text);
    // A tenth of a second is usual. One look back at all that was read, for each character, takes longer than anybody waits.
    runInNewContext("show()", {show}, {timeout: 120_000});
  });

  test(`after a hundred thousand characters of ${name} the next ones cost no more than the first`, (t) => {
    const document = fakeDocument(t);
    const element = document.createElement("div");
    updateMarkdown(element, text.slice(0, LENGTH - 2_000));
    const made = countNodes();
    const grow = () => {
      for (let length = LENGTH - 2_000; length <= LENGTH; length += 50) updateMarkdown(element, text.slice(0, length));
    };
    // A tenth of a second is usual for all forty. To read everything again at each took up to a second and a half.
    runInNewContext("grow()", {grow}, {timeout: 120_000});
    // A paragraph is read again from its last piece on: so many nodes can be in one, each time.
    assert.ok(made() < 40 * 5_000, `${made()} nodes`);
  });
}

/** Counts the nodes that are made from now on. */
function countNodes() {
  let made = 0;
  for (const name of ["createElement", "createTextNode"]) {
    const make = globalThis.document[name];
    globalThis.document[name] = (argument) => (made++, make(argument));
  }
  return () => made;
}

for (const [name, unit] of Object.entries({
  "a list": "- a **b**\n",
  "a list within a list": "  - a **b**\n",
  "a quote": "> a **b**\n>\n",
  "a table": "a|**b**\n",
  "blocks": "a **b**\n\n",
})) {
  test(`a line more of ${name} makes the nodes of that line, however long it is`, (t) => {
    const element = fakeDocument(t).createElement("div");
    const head = {"a list within a list": "- x\n", "a table": "c|d\n-|-\n"}[name] ?? "";
    const counts = [100, 1_000, 5_000].map((lines) => {
      updateMarkdown(element, head + unit.repeat(lines));
      const made = countNodes();
      updateMarkdown(element, head + unit.repeat(lines + 1));
      return made();
    });
    assert.ok(counts[0] <= 12, `${counts}`);
    assert.deepEqual(counts, [counts[0], counts[0], counts[0]]);
  });
}

for (const [name, grown] of [
  ["code", "```js\nlet a;\nlet b;\n"],
  ["a list", "- a\n- b\n- c"],
  ["a loose list", "- a\n\n  b\n- c\n- d"],
  ["a quote", "> a\n>\n> b\n> c"],
  ["a table", "a|b\n-|-\nc|d\ne|f"],
  ["a long paragraph", `${"word ".repeat(3_000)}**end**`],
]) {
  test(`${name} keeps its element while it grows`, (t) => {
    const element = fakeDocument(t).createElement("div");
    const begun = Math.floor(grown.length * 0.7);
    updateMarkdown(element, grown.slice(0, begun));
    const before = element.children[0];
    for (let length = begun; length <= grown.length; length++) updateMarkdown(element, grown.slice(0, length));
    assert.equal(element.children[0], before);
    assert.equal(element.innerHTML, render(t, grown));
  });
}

const BITS = [
  ...["- ", "* ", "1. ", "2. ", "> ", "# ", "## x #", "```", "~~~", "```js", "\n", "\n", "\n", "\n\n", "  ", "    ", "\t", "\r\n", "\r"],
  ...["-", "10. ", "|-|-|\n", "~~~)", "a", "b c", "word ", "é", "😀", "|", "a|b", "|||", "-|-", "--|:-:", "---", "***", "*", "**", "_", "~~", "`", "``", "\\"],
  ...["[a](http://b)", "http://c.d", "x".repeat(900), "*a ".repeat(700), "y ".repeat(1500)],
];

for (const seed of [1, 2, 3]) {
  test(`a text in whatever deltas looks at each of them as it does at once (seed ${seed})`, (t) => {
    const {below: any} = randomSource(seed);
    for (let round = 0; round < 300; round++) {
      const text = Array.from({length: 3 + any(30)}, () => BITS[any(any(8) ? BITS.length - 3 : BITS.length)]).join("");
      const element = fakeDocument(t).createElement("div");
      for (let length = 1; length < text.length; length += 1 + any(any(3) ? 5 : 3_000)) {
        updateMarkdown(element, text.slice(0, length));
        assert.equal(element.innerHTML, render(t, text.slice(0, length)), JSON.stringify(text.slice(0, length)));
      }
    }
  });
}

for (const [situation, deltas] of [
  ["a line that left an item with code comes back", ["- ```\na\n-", "b"]],
  ["a line that left an item with code comes back as more lines", ["1. ~~~\na\n*", "b\nc"]],
  ["what began a list becomes the rule of a table", ["a |b|c\n- ", "|-|-|"]],
  ["what began a list becomes the rule of a table in a quote", ["> a |b|c\n> - ", "|-|-|\n> d|e|f"]],
]) {
  test(`${situation}, and looks as it does at once`, (t) => {
    const element = fakeDocument(t).createElement("div");
    for (let count = 1; count <= deltas.length; count++) updateMarkdown(element, deltas.slice(0, count).join(""));
    assert.equal(element.innerHTML, render(t, deltas.join("")));
  });
}

test("a text that becomes another one is shown anew", (t) => {
  const element = fakeDocument(t).createElement("div");
  for (const text of ["one\n\ntwo", "one\n\n- three\n- four", "one\n\n- three", "", "# five"]) {
    updateMarkdown(element, text);
    assert.equal(element.innerHTML, render(t, text));
  }
});

test("elements do not nest deeper than a page can take", (t) => {
  for (const text of ["*a ".repeat(50) + "b* ".repeat(50), "> ".repeat(500) + "a", "- ".repeat(500) + "a", "**a _b ~~c ".repeat(20)]) {
    const depth = render(t, text).split(/(?=<)/).reduce(
      ([deepest, now], tag) => (tag.startsWith("</") ? [deepest, now - 1] : [Math.max(deepest, now + 1), now + 1]),
      [0, 0],
    )[0];
    assert.ok(depth <= 30, `${depth} deep`);
  }
});

for (const [markdown, html] of [
  ["a|b\n-|-\n1", "<div><table><thead><tr><th>a</th><th>b</th></tr></thead><tbody></tbody></table></div><p>1</p>"],
  ["a | b | c\n-|-|-\n1|", '<div><table><thead><tr><th>a</th><th>b</th><th>c</th></tr></thead><tbody><tr><td>1</td><td colspan="2"></td></tr></tbody></table></div>'],
  ["**a *b** c*", "<p><strong>a *b</strong> c*</p>"],
  ["*a **b* c", "<p><em>a **b</em> c</p>"],
  ["[*a* https://b.c](http://d)", '<p><a href="http://d"><em>a</em> https://b.c</a></p>'],
]) {
  test(`markdown ${JSON.stringify(markdown)} is shown as it should be`, (t) => {
    assert.equal(render(t, markdown), html);
  });
}
