// What the views share: elements, the sentence with its hidden words, and the state in the address.
import {describe, load} from "./model.js";
import {WordPiece} from "./wordpiece.js";

const HERE = new URL(".", import.meta.url);
const LONGEST_TEXT = 300; // characters that are read from an address
export const NAMES = {mlm: "MLM", plm: "PLM", mpnet: "MPNet"};

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

// The sentence. Every word knows its pieces and the positions of these; <s> has position 0.
export function cut(tokenizer, text, longest) {
  const words = [];
  let position = 1;
  for (const word of tokenizer.words(text)) {
    if (position + word.ids.length > longest - 1) break;
    words.push({...word, positions: word.ids.map((_, i) => position + i)});
    position += word.ids.length;
  }
  return {words, ids: [tokenizer.start, ...words.flatMap(word => word.ids), tokenizer.end]};
}

// The state: what the reader has chosen. Each field has its short name in the address, how it is
// read from there, and how it is written.
const numbers = {read: text => text.split(",").map(Number).filter(Number.isInteger),
  write: list => list.join(",")};
const number = {read: text => Number(text) || 0, write: String};
const word = {read: text => text.slice(0, LONGEST_TEXT), write: text => text};
const FIELDS = {
  text: ["s", word],
  hidden: ["hide", numbers], // numbers of words
  order: ["order", numbers], // positions of tokens; empty: from left to right
  step: ["step", number], // predictions that have been made
  objective: ["mask", word], // of the grid and of the numbers
  row: ["row", number],
  rank: ["rank", number],
  layer: ["layer", number],
  head: ["head", number],
  share: ["biases", number],
  begin: ["begin", word], // of the text that goes on with missing tokens
  missing: ["missing", number],
  ended: ["end", number],
  broken: ["break", word],
};
const START = {text: "If the target directory already exists, raise an OSError.", hidden: [1, 2],
  order: [], step: 0, objective: "mpnet", row: -1, rank: 0, layer: 0, head: 0, share: 1,
  begin: "the task is", missing: 2, ended: 0, broken: ""};

export function readAddress(hash) { // only a hash with = in it is a state; others are sections
  if (!hash.includes("=")) return {};
  const given = new URLSearchParams(hash.slice(1)), found = {};
  for (const [name, [short, {read}]] of Object.entries(FIELDS)) {
    if (given.has(short)) found[name] = read(given.get(short));
  }
  return found;
}

export function writeAddress(state) {
  const given = new URLSearchParams();
  for (const [name, [short, {write}]] of Object.entries(FIELDS)) {
    const text = write(state[name]);
    if (text !== write(START[name])) given.set(short, text);
  }
  return given.size ? `#${given}` : "";
}

export class Store {
  constructor(description) {
    this.description = description;
    this.tokenizer = new WordPiece(description.vocabulary);
    this.listeners = [];
    this.asked = new Map();
    this.set({...START, ...readAddress(location.hash)}, false);
    addEventListener("hashchange", () => {
      if (location.hash.includes("=")) this.set({...START, ...readAddress(location.hash)}, false);
    });
  }

  listen(listener) { // called now and after each change
    this.listeners.push(listener);
    listener();
  }

  set(changes, remember = true) {
    const state = {...this.state, ...changes}, {longest, layers, heads} = this.description.config;
    if (changes.text !== undefined) this.sentence = cut(this.tokenizer, state.text, longest);
    const {words} = this.sentence, within = (value, most) => Math.min(Math.max(0, value), most);
    state.hidden = [...new Set(state.hidden)].filter(i => words[i]).sort((a, b) => a - b);
    const plain = state.hidden.flatMap(i => words[i].positions);
    if (state.order.toSorted().join() !== plain.toSorted().join()) state.order = [];
    state.step = within(state.step, plain.length);
    state.rank = within(state.rank, Math.max(0, plain.length - 1));
    state.layer = within(state.layer, layers - 1);
    state.head = within(state.head, heads - 1);
    state.share = within(state.share, 1);
    state.missing = Math.max(1, within(state.missing, 6));
    if (!NAMES[state.objective]) state.objective = "mpnet";
    if (!["query", "mask"].includes(state.broken)) state.broken = "";
    this.state = state;
    this.predicted = state.order.length ? state.order : plain;
    if (remember) this.remember();
    for (const listener of this.listeners) listener();
  }

  remember() { // without an entry in the browser's history for every click
    const {pathname, search} = location;
    history.replaceState(null, "", `${pathname}${search}${writeAddress(this.state)}`);
  }

  token(id) {
    return this.tokenizer.tokens[id];
  }

  // The weights, fetched when they are first needed.
  model(progress) {
    this.loading ??= load(HERE, progress).catch(error => {
      this.loading = null;
      throw error;
    });
    return this.loading.then(model => {
      this.ready = model;
      return model;
    });
  }

  // log-probabilities of the hidden tokens, each question computed once
  predict(objective, options = {}, ids = this.sentence.ids, predicted = this.predicted) {
    const question = JSON.stringify([objective, options, ids, predicted]);
    if (!this.asked.has(question)) {
      if (this.asked.size > 500) this.asked.clear();
      this.asked.set(question, this.ready.predict(ids, predicted, objective, options));
    }
    return this.asked.get(question);
  }
}

// Draws a view when it is near the screen and something has changed, so that what nobody looks at
// computes nothing. Before the weights are there, it asks for them.
export function watch(root, store, redraw) {
  let stale = true, near = false;
  const refresh = () => {
    if (near && stale) redraw();
    stale = stale && !near;
  };
  const observer = new IntersectionObserver(entries => {
    near = entries.at(-1).isIntersecting;
    refresh();
  }, {rootMargin: "200px"});
  observer.observe(root);
  store.listen(() => {
    stale = true;
    refresh();
  });
}

export function loader(store) { // what stands in place of numbers before the weights are there
  const size = `${(store.description.bytes / 1e6).toFixed(1)} MB`;
  const said = make("span", {role: "status"});
  const tell = share => say(said, `${(100 * share).toFixed(0)} %`);
  const ask = () => store.model(tell).then(() => store.set({}), error => {
    say(said, `The model can't be loaded (${error.message}). Try again, or look at the page from `
      + "a web server: a page that is opened as a file can't fetch others.");
  });
  return make("p", {className: "controls"}, button(`Load the model, ${size}`, "load", ask), said);
}

export function choice(label, options, value, key, choose) { // a <select>; options: [value, text]
  const select = make("select", {data: {key}}, ...options.map(([each, text]) =>
    make("option", {value: each, selected: String(each) === String(value)}, text)));
  select.addEventListener("change", () => choose(select.value));
  return make("label", {}, label, select);
}

export function objectiveChoice(store) {
  return choice("mask", Object.entries(NAMES), store.state.objective, "objective",
    objective => store.set({objective, row: -1}));
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

// The true words: their logarithms in the order of prediction, and the sum of these.
export function truths(store, objective, options, predicted = store.predicted) {
  const {ids} = store.sentence;
  const logs = store.predict(objective, options, ids, predicted);
  return predicted.map((position, rank) => logs[rank][ids[position]]);
}
export const sum = numbers => numbers.reduce((a, b) => a + b, 0);

export async function open() {
  return new Store(await describe(HERE));
}

export function best(logs, n) { // the ids of the n most likely tokens
  return [...logs.keys()].sort((a, b) => logs[b] - logs[a]).slice(0, n);
}

// The best predictions as bars; the true token is marked, and shown below them if it is not there.
export function bars(store, logs, truth, n = 5) {
  const shown = best(logs, n), line = id => bar(store.token(id), logs[id], id === truth);
  const items = shown.map(line);
  if (truth !== undefined && !shown.includes(truth)) {
    const place = logs.reduce((count, log) => count + (log > logs[truth]), 1);
    items.push(make("li", {className: "apart"}, `true word, number ${place.toLocaleString("en")}:`),
      line(truth));
  }
  return make("ol", {className: "bars"}, ...items);
}

function bar(token, log, isTrue) {
  const filled = make("span", {className: "fill"});
  filled.style.width = `${100 * Math.exp(log)}%`;
  const name = make("span", {className: "name"}, token, isTrue ? " ✓" : "");
  return make("li", {className: isTrue ? "true" : ""}, name,
    make("span", {className: "track", "aria-hidden": "true"}, filled),
    make("span", {className: "number"}, percent(log)),
    isTrue ? make("span", {className: "aside"}, "the true word") : "");
}
