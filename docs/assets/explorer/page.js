// What the views share: when they are drawn, and the bars of the best predictions.
import {button, choice, make, percent, say} from "./dom.js";
import {NAMES} from "./store.js";

// Draws a view when it is near the screen and something has changed, so that what nobody looks at
// computes nothing.
export function watch(root, store, redraw) {
  let stale = true, near = false;
  const refresh = () => {
    if (near && stale) redraw();
    stale = stale && !near;
    root.dataset.stale = stale; // whether what it shows is older than the state
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

export function objectiveChoice(store) {
  return choice("mask", Object.entries(NAMES), store.state.objective, "objective",
    objective => store.set({objective, row: -1}));
}

// The true words: their logarithms in the order of prediction, and the sum of these.
export function truths(store, objective, options, predicted = store.predicted) {
  const {ids} = store.sentence;
  const logs = store.predict(objective, options, ids, predicted);
  return predicted.map((position, rank) => logs[rank][ids[position]]);
}
export const sum = numbers => numbers.reduce((a, b) => a + b, 0);

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
