/** As much of a document as markdown needs, written out as HTML to compare with. */

const ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"};

class FakeText {
  constructor(data) {
    this.data = data;
  }

  get html() {
    return this.data.replace(/[&<>]/g, (character) => ESCAPES[character]);
  }
}

class FakeElement {
  childNodes = [];
  parent = null;
  attributes = {};
  dataset = {};
  style = {};

  constructor(tag) {
    this.tagName = tag.toUpperCase();
  }

  get children() {
    return this.childNodes.filter((node) => node instanceof FakeElement);
  }

  get lastElementChild() {
    return this.children.at(-1);
  }

  append(...nodes) {
    for (const node of nodes) {
      const child = typeof node === "string" ? new FakeText(node) : node;
      child.parent = this;
      this.childNodes.push(child);
    }
  }

  replaceWith(node) {
    node.parent = this.parent;
    this.parent.childNodes.splice(this.parent.childNodes.indexOf(this), 1, node);
  }

  remove() {
    this.parent.childNodes.splice(this.parent.childNodes.indexOf(this), 1);
  }

  setAttribute(name, value) {
    this.attributes[name] = value;
  }

  get innerHTML() {
    return this.childNodes.map((node) => node.html).join("");
  }

  get html() {
    const tag = this.tagName.toLowerCase();
    const address = this.href === undefined ? {} : {href: this.href};
    const attributes = Object.entries({...address, ...this.attributes}).map(([name, value]) => ` ${name}="${value}"`);
    return `<${tag}${attributes.join("")}>${this.innerHTML}</${tag}>`;
  }
}

/** Puts the document in place for one test. */
export function fakeDocument(t) {
  const createElement = (tag) => new FakeElement(tag);
  const createTextNode = (data) => new FakeText(data);
  globalThis.document = {createElement, createTextNode};
  t.after(() => delete globalThis.document);
  return {createElement};
}
