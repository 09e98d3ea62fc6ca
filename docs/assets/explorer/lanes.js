// Three lanes: the same weights asked under the masks of MLM, PLM and MPNet, step by step.
import {EXAMPLES} from "./examples.js";
import {button, make, nats, percent, put, say, table} from "./dom.js";
import {bars, best, watch} from "./page.js";
import {NAMES} from "./store.js";
import {known, wordButtons} from "./sentence.js";

const PAUSE = 2000; // milliseconds between two predictions
const ABOUT = {
  mlm: "All at once: a prediction sees a mask in every hidden place, and none of the words there.",
  plm: "One after another: a prediction sees the words before it, and nothing in the other places.",
  mpnet: "One after another: a prediction sees the words before it, and masks in the other places.",
};

export function lanes(root, store) {
  const view = {store, playing: null,
    status: make("p", {role: "status", className: "lanes-status"}),
    lanes: make("div", {className: "lanes"}), controls: make("div", {className: "controls"}),
    result: make("div", {className: "result"})};
  root.replaceChildren(chooser(store), make("p", {className: "hint"},
    "Press two to four words to hide them."), wordButtons(store, 0),
  view.controls, view.status, view.lanes, view.result);
  watch(root, store, () => redraw(view));
}

function chooser(store) { // a sentence of one's own, or one of a few
  const input = make("input", {type: "text", maxLength: 300, data: {key: "text"},
    "aria-label": "Your sentence", autocomplete: "off", spellcheck: false});
  const take = () => {
    const text = input.value.trim();
    if (text && text !== store.state.text) store.take(text, [], 0);
  };
  input.addEventListener("change", take);
  const examples = make("select", {"aria-label": "A sentence of ours"},
    make("option", {value: ""}, "or take one of these …"),
    ...EXAMPLES.map(({text}, i) => make("option", {value: i}, text)));
  examples.addEventListener("change", () => {
    const {text, hidden} = EXAMPLES[examples.value] ?? {};
    if (text) store.take(text, hidden, 0);
    examples.value = "";
  });
  const form = make("form", {className: "chooser"}, input,
    make("button", {type: "submit"}, "Take it"), examples);
  form.addEventListener("submit", event => {
    event.preventDefault();
    take();
  });
  store.listen(() => { if (document.activeElement !== input) input.value = store.state.text; });
  return form;
}

async function show(view, step) { // the weights are fetched at the first prediction
  const {store} = view;
  if (!store.ready) {
    const size = (store.description.bytes / 1e6).toFixed(1);
    const tell = share =>
      say(view.status, `Loading the model, ${size} MB: ${(100 * share).toFixed(0)} %`);
    try {
      await store.model(tell);
    } catch (error) {
      stop(view);
      return say(view.status, `The model can't be loaded (${error.message}). Try again, or look `
        + "at the page from a web server: files alone can't fetch files.");
    }
  }
  return store.set({step});
}

function stop(view) {
  clearInterval(view.playing);
  view.playing = null;
}

function play(view) {
  const {store} = view;
  const next = () => {
    if (store.state.step >= store.predicted.length) stop(view);
    else show(view, store.state.step + 1);
  };
  if (store.state.step === store.predicted.length) store.set({step: 0});
  view.playing = setInterval(next, PAUSE);
  next();
}

function controls(view) {
  const {store} = view, {step} = store.state, P = store.predicted.length;
  if (step >= P) stop(view);
  const runs = view.playing !== null;
  const toggle = () => {
    if (runs) stop(view);
    else play(view);
    redraw(view);
  };
  put(view.controls,
    button(runs ? "Pause" : "Play", "play", toggle, {className: "main", disabled: !P}),
    button("Next prediction", "next", () => show(view, step + 1), {disabled: step >= P}),
    button("Back", "back", () => show(view, step - 1), {disabled: step === 0}),
    make("span", {className: "step"}, P ? `prediction ${step} of ${P}` : "no word is hidden"));
}

function lane(view, objective) {
  const {store} = view, {step} = store.state, P = store.predicted.length;
  const rank = Math.max(0, step - 1), position = store.predicted[rank];
  const name = NAMES[objective];
  const parts = [make("h3", {}, name), make("p", {className: "about"}, ABOUT[objective])];
  if (P) parts.push(known(store, objective, rank, `The sentence as ${name} sees it`));
  if (store.ready && step) {
    const logs = store.predict(objective)[rank];
    parts.push(bars(store, logs, store.sentence.ids[position]));
  }
  return make("div", {className: "lane", role: "group", "aria-label": name}, ...parts);
}

const logOf = (store, objective, rank) =>
  store.predict(objective)[rank][store.sentence.ids[store.predicted[rank]]];

function joint(store, objective, n) { // of the first n predictions
  let sum = 0;
  for (let rank = 0; rank < n; rank++) sum += logOf(store, objective, rank);
  return sum;
}

function result(view) { // the true words' probabilities so far, and all of them together
  const {store} = view, {step} = store.state, kinds = Object.keys(NAMES);
  if (!store.ready || !step) return [];
  const rows = store.predicted.slice(0, step).map((position, rank) => [
    store.at(position),
    ...kinds.map(objective => percent(logOf(store, objective, rank)))]);
  const sums = kinds.map(objective => joint(store, objective, step));
  const most = Math.max(...sums);
  const mark = value => make("span", {className: value === most ? "most" : ""}, nats(value));
  const name = step === store.predicted.length ? "all, ln p" : "so far, ln p";
  return [table("The probabilities of the true words, and the natural logarithm of their product: "
    + "the higher, the better the whole fits.", ["True word", ...Object.values(NAMES)],
  [...rows, [name, ...sums.map(mark)]], {className: "summed"})];
}

function describe(store) { // for the screen reader
  const {step} = store.state;
  if (!step || !store.ready) return "";
  const truth = store.token(store.sentence.ids[store.predicted[step - 1]]);
  const first = Object.entries(NAMES).map(([objective, name]) => {
    const logs = store.predict(objective)[step - 1], [id] = best(logs, 1);
    return `${name} predicts “${store.token(id)}” (${percent(logs[id])})`;
  });
  return `Prediction ${step}, the true word is “${truth}”: ${first.join(", ")}.`;
}

function redraw(view) {
  const {store} = view;
  controls(view);
  put(view.lanes, ...Object.keys(NAMES).map(objective => lane(view, objective)));
  put(view.result, ...result(view));
  say(view.status, describe(store));
  if (store.state.step && !store.ready && !store.loading) show(view, store.state.step); // a link
}
