/** Finding and making elements. Text that others wrote only ever becomes text nodes. */

/**
 * The element of this id; the page is broken without it.
 * @template {HTMLElement} T
 * @param {string} id
 * @param {{new (): T, prototype: T}} kind
 * @returns {T}
 */
export function byId(id, kind) {
  return of(document.getElementById(id), kind, `#${id}`);
}

/**
 * The first element that matches inside `root`.
 * @template {Element} T
 * @param {ParentNode} root
 * @param {string} selector
 * @param {{new (): T, prototype: T}} kind
 * @returns {T}
 */
export function inside(root, selector, kind) {
  return of(root.querySelector(selector), kind, selector);
}

/**
 * A new copy of what a `<template>` holds.
 * @param {string} id
 * @returns {HTMLElement}
 */
export function piece(id) {
  const content = byId(id, HTMLTemplateElement).content.firstElementChild;
  return of(/** @type {Element} */ (content?.cloneNode(true)), HTMLElement, `#${id}`);
}

/**
 * @template {Element} T
 * @param {Element|null} element
 * @param {{new (): T, prototype: T}} kind
 * @param {string} name
 * @returns {T}
 */
function of(element, kind, name) {
  if (element instanceof kind) return element;
  throw new Error(`The page has no ${name}.`);
}

/**
 * Shows `text`, writing only what is new when the text has grown: a selection in it survives.
 * @param {HTMLElement} element
 * @param {string} text
 */
export function showText(element, text) {
  const node = element.firstChild;
  if (!(node instanceof Text)) element.replaceChildren(text);
  else if (text.startsWith(node.data)) node.appendData(text.slice(node.data.length));
  else node.data = text;
}

/**
 * Shows or hides. Returns whether it is shown now.
 * @param {HTMLElement} element
 * @param {boolean} isShown
 */
export function show(element, isShown) {
  element.hidden = !isShown;
  return isShown;
}
