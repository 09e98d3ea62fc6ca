// The sentence with its hidden words, the reader's choices, and both in the page's address.
import {describe, load} from "./model.js";
import {WordPiece} from "./wordpiece.js";

const HERE = new URL(".", import.meta.url);
const LONGEST_TEXT = 300; // characters that are read from an address
export const NAMES = {mlm: "MLM", plm: "PLM", mpnet: "MPNet"};

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
  return String(given) ? `#${given}` : "";
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

  // Another sentence, or other words of it. The steps stay unless they are to begin again, so that
  // nothing above what a reader looks at changes its height.
  take(text, hidden, step = this.state.step) {
    this.set({text, hidden, order: [], step, row: -1});
  }

  remember() { // without an entry in the browser's history; not at every step of a slider
    clearTimeout(this.later);
    this.later = setTimeout(() => {
      const {pathname, search} = location;
      history.replaceState(null, "", `${pathname}${search}${writeAddress(this.state)}`);
    }, 200);
  }

  token(id) {
    return this.tokenizer.tokens[id];
  }

  at(position) { // the true token there
    return this.token(this.sentence.ids[position]);
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

export async function open() {
  return new Store(await describe(HERE));
}
