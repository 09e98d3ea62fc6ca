// Elements: how they are made, changed without losing the focus, and what numbers look like.

export function make(tag, properties = {}, ...children) {
  const {data = {}, ...rest} = properties;
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(rest)) {
    if (name.startsWith("aria-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  Object.assign(element.dataset, data);
  element.append(...children.filter(child => child !== null && child !== ""));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";
export function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export function button(text, key, onclick, properties = {}) { // `key` keeps the focus, see `put`
  return make("button", {type: "button", textContent: text, onclick, data: {key}, ...properties});
}

// New contents for an element. What had the focus is found again by its key.
export function put(element, ...children) {
  const key = element.contains(document.activeElement) && document.activeElement.dataset.key;
  element.replaceChildren(...children.filter(child => child !== null));
  for (const box of element.querySelectorAll(".scroll")) reach(box);
  if (key) element.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({preventScroll: true});
}

function reach(box) { // what is wider than the screen can be scrolled by keyboard
  if (box.scrollWidth <= box.clientWidth + 1) return;
  box.tabIndex = 0;
  box.setAttribute("role", "group");
  box.setAttribute("aria-label", "Wide table, can be scrolled sideways");
}

export function say(element, text) { // read out by screen readers, if it has changed
  if (element.textContent !== text) element.textContent = text;
}

export function percent(log) { // of the natural logarithm of a probability
  const share = 100 * Math.exp(log);
  if (share >= 9.95) return `${share.toFixed(0)}\u00a0%`;
  return share >= 0.095 ? `${share.toFixed(1)}\u00a0%` : "<\u00a00.1\u00a0%";
}

// A number, and below it in brackets what it was before something was changed.
export function changed(now, before) {
  if (now === before) return now;
  return make("span", {}, now, " ", make("span", {className: "was"}, `(${before})`));
}

export const nats = value => value.toFixed(2).replace("-", "−");

export function choice(label, options, value, key, choose) { // a <select>; options: [value, text]
  const select = make("select", {data: {key}}, ...options.map(([each, text]) =>
    make("option", {value: each, selected: String(each) === String(value)}, text)));
  select.addEventListener("change", () => choose(select.value));
  return make("label", {}, label, select);
}

export function table(caption, head, rows, properties = {}) { // rows: lists of cells, a name first
  const cells = ([first, ...rest]) =>
    [make("th", {scope: "row"}, first), ...rest.map(cell => make("td", {}, cell))];
  const whole = make("table", {"aria-label": caption, ...properties},
    make("thead", {}, make("tr", {}, ...head.map(text => make("th", {scope: "col"}, text)))),
    make("tbody", {}, ...rows.map(row => make("tr", {}, ...cells(row)))));
  return make("div", {}, make("p", {className: "hint", "aria-hidden": "true"}, caption),
    make("div", {className: "scroll"}, whole));
}
