// Guess before the model does: a sentence, a hidden word, and four guesses.
import {CHALLENGES} from "./examples.js";
import {button, make, percent, put} from "./dom.js";
import {bars, best, loader, watch} from "./page.js";
import {cut, NAMES} from "./store.js";
import {splitWords} from "./wordpiece.js";

export function challenge(root, store) {
  const view = {store, root, body: make("div"), at: 0, rank: 0, guess: null,
    score: {reader: 0, mlm: 0, plm: 0, mpnet: 0}, asked: 0};
  root.replaceChildren(view.body);
  watch(root, store, () => redraw(view));
}

function puzzle(view) { // the sentence, its hidden positions, and the one that is asked for
  const {store} = view, {text, hidden} = CHALLENGES[view.at];
  const {words, ids} = cut(store.tokenizer, text, store.description.config.longest);
  const predicted = hidden.flatMap(i => words[i].positions);
  return {ids, predicted, rank: view.rank, truth: ids[predicted[view.rank]]};
}

function answer(view, text) {
  const {store} = view, {truth, ids, predicted, rank} = puzzle(view);
  const [word] = splitWords(text), right = word === store.token(truth);
  view.guess = {word, right, id: store.tokenizer.ids.get(word)};
  view.asked += 1;
  view.score.reader += right;
  for (const objective of Object.keys(NAMES)) {
    const [first] = best(store.predict(objective, {}, ids, predicted)[rank], 1);
    view.score[objective] += first === truth;
  }
  redraw(view);
  view.root.querySelector("[data-key=onward]").focus();
}

function onward(view) {
  const more = view.rank + 1 < puzzle(view).predicted.length;
  if (!more) view.at = (view.at + 1) % CHALLENGES.length;
  view.rank = more ? view.rank + 1 : 0;
  view.guess = null;
  redraw(view);
  view.root.querySelector("input").focus();
}

function sentence(view, {ids, predicted, rank}) { // what was predicted before is shown
  const {store} = view, open = predicted.slice(rank + (view.guess ? 1 : 0));
  const items = ids.slice(1, -1).map((id, i) => {
    const position = i + 1, missing = open.includes(position), asked = position === predicted[rank];
    const kind = missing ? "mask" : predicted.includes(position) ? "target" : "context";
    const [text, name] = !missing ? [store.token(id), store.token(id)]
      : asked ? ["?", "the missing word"] : ["…", "another missing word"];
    return make("li", {className: `token ${kind}${asked ? " own" : ""}`, "aria-label": name}, text);
  });
  return make("ol", {className: "tokens", "aria-label": "The sentence"}, ...items);
}

function redraw(view) {
  const {store} = view;
  if (!store.ready) return put(view.body, loader(store));
  const asked = puzzle(view), parts = [sentence(view, asked)];
  parts.push(...(view.guess ? revealed(view, asked) : [form(view)]));
  const {reader, ...lanes} = view.score;
  const scores = Object.entries(lanes).map(([objective, right]) => `${NAMES[objective]} ${right}`);
  if (view.asked) {
    parts.push(make("p", {className: "hint"}, `Right at the first guess, of ${view.asked}: `
      + `you ${reader}, ${scores.join(", ")}.`));
  }
  return put(view.body, ...parts);
}

function form(view) {
  const input = make("input", {type: "text", "aria-label": "Your guess for the missing word",
    autocomplete: "off", autocapitalize: "none", spellcheck: false, maxLength: 40});
  const form = make("form", {className: "controls"}, input,
    make("button", {type: "submit", className: "main"}, "Guess"),
    button("I give up", "give-up", () => answer(view, "")));
  form.addEventListener("submit", event => {
    event.preventDefault();
    if (input.value.trim()) answer(view, input.value);
  });
  return form;
}

function revealed(view, {ids, predicted, rank, truth}) {
  const {store} = view, {word, right, id} = view.guess;
  const logsOf = objective => store.predict(objective, {}, ids, predicted)[rank];
  const yours = !word ? "You gave up." : right ? `“${word}” is right.`
    : `You said “${word}”` + (id === undefined ? ", which is no token of the model's."
      : `, to which MPNet gives ${percent(logsOf("mpnet")[id])}.`);
  const lanes = Object.entries(NAMES).map(([objective, name]) => make("div",
    {className: "lane", role: "group", "aria-label": name},
    make("h3", {}, name), bars(store, logsOf(objective), truth, 3)));
  return [make("p", {role: "status"}, `${yours} The word is “${store.token(truth)}”.`),
    make("div", {className: "lanes"}, ...lanes),
    make("p", {className: "controls"},
      button("Go on", "onward", () => onward(view), {className: "main"}))];
}
