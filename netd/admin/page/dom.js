// Elements, made and filled without touching what is already right.

/** An element with properties and children. */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** A link to somewhere on this page. */
export function link(href, words) {
  return element("a", { href }, words);
}

/** Have an element say this; whether that was news. */
export function text(node, words) {
  const told = String(words);
  if (node.textContent === told) return false;
  node.textContent = told;
  return true;
}
