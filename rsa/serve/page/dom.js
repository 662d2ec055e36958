// Elements without markup: what a model or a stranger wrote only ever becomes the text of a node.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes and children; a text becomes a text node, null is left out. */
export function el(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** The same, of a drawing. */
export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child != null && child !== ""));
  return element;
}

/** What a template holds, with its named parts: `{root, parts: {title: <h1>, ...}}`. */
export function fromTemplate(id) {
  const root = document.getElementById(id).content.cloneNode(true);
  const parts = {};
  for (const part of root.querySelectorAll("[data-part]")) parts[part.dataset.part] = part;
  return { root, parts };
}

/** Give an element this text, and touch nothing if it has it: readers of screens hear of changes only. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Show or hide an element. */
export function show(element, shown) {
  if (element.hidden === shown) element.hidden = !shown;
}

/** Make a list's children those of `items`, each made once by `make` and brought up to date by `update`. */
export function keyed(list, items, keyOf, make, update) {
  const known = (list.known ??= new Map());
  const kept = new Set();
  let place = list.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    kept.add(key);
    let child = known.get(key);
    if (!child) known.set(key, (child = make(item)));
    update(child, item);
    if (child === place) place = place.nextElementSibling;
    else list.insertBefore(child, place);
  }
  for (const [key, child] of known) {
    if (!kept.has(key)) {
      child.remove();
      known.delete(key);
    }
  }
}
