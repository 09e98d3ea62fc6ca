// The order of prediction: tokens are dragged, or moved by arrow keys, and the numbers follow.
import {button, changed, make, nats, percent, put, table} from "./dom.js";
import {loader, sum, truths, watch} from "./page.js";
import {NAMES} from "./store.js";
import {wordButtons} from "./sentence.js";

export function order(root, store) {
  const list = make("ol", {className: "order", "aria-label": "The order of prediction"});
  const said = make("p", {role: "status", className: "status"}), body = make("div");
  const hint = make("p", {className: "hint"}, "Drag a token, or move it by its arrows or by the "
    + "arrow keys: what stands first is predicted first.");
  root.replaceChildren(wordButtons(store), hint, list, said, body);
  const view = {store, list, said, body, dragged: null};
  watch(root, store, () => redraw(view));
}

function move(view, from, to) {
  const {store} = view, order = store.predicted.slice();
  if (to < 0 || to >= order.length || from === to) return;
  order.splice(to, 0, ...order.splice(from, 1));
  store.set({order});
  const word = store.token(store.sentence.ids[order[to]]);
  view.said.textContent = `“${word}” is predicted as number ${to + 1} of ${order.length}.`;
}

function chip(view, position, rank) {
  const {store} = view, word = store.at(position), n = store.predicted.length;
  const to = (rank, by) => () => move(view, rank, rank + by);
  const handle = make("button", {type: "button", className: "token target handle",
    data: {key: `chip-${position}`}, "aria-label": `${word}, number ${rank + 1} of ${n}; `
      + "the arrow keys move it"}, word);
  handle.addEventListener("keydown", event => {
    const by = {ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1}[event.key];
    if (!by) return;
    event.preventDefault();
    move(view, rank, rank + by);
  });
  handle.addEventListener("pointerdown", event => drag(view, event, position));
  return make("li", {data: {position}},
    button("◂", `before-${position}`, to(rank, -1),
      {"aria-label": `${word}: predict it earlier`, disabled: rank === 0}),
    handle,
    button("▸", `after-${position}`, to(rank, 1),
      {"aria-label": `${word}: predict it later`, disabled: rank === n - 1}));
}

// Where the pointer comes over another token, the dragged one takes its place. It may then still
// be over that one, if it is longer: they change places again only when it has been elsewhere.
function drag(view, event, position) {
  event.preventDefault();
  event.currentTarget.focus({preventScroll: true});
  let passed = position;
  const over = moved => {
    const under = document.elementFromPoint(moved.clientX, moved.clientY);
    const chip = under?.closest(".order [data-position]");
    const below = chip ? Number(chip.dataset.position) : position;
    if (below === passed) return;
    passed = below;
    const rank = at => view.store.predicted.indexOf(at);
    move(view, rank(position), rank(below));
  };
  const end = () => {
    removeEventListener("pointermove", over);
    removeEventListener("pointerup", end);
    removeEventListener("pointercancel", end);
  };
  addEventListener("pointermove", over);
  addEventListener("pointerup", end);
  addEventListener("pointercancel", end);
}

function redraw(view) {
  const {store} = view;
  put(view.list, ...store.predicted.map((position, rank) => chip(view, position, rank)));
  put(view.body, ...numbers(store));
}

function numbers(store) {
  if (!store.predicted.length) return [make("p", {}, "Hide some words first.")];
  if (!store.ready) return [loader(store)];
  const plain = store.predicted.toSorted((a, b) => a - b), kinds = Object.keys(NAMES);
  const now = kinds.map(objective => truths(store, objective));
  const before = kinds.map(objective => truths(store, objective, {}, plain));
  const was = (i, position) => before[i][plain.indexOf(position)];
  const rows = store.predicted.map((position, rank) => [
    store.at(position),
    ...kinds.map((_, i) => changed(percent(now[i][rank]), percent(was(i, position))))]);
  const total = ["all, ln p",
    ...kinds.map((_, i) => changed(nats(sum(now[i])), nats(sum(before[i]))))];
  return [table("The true words' probabilities in this order; in brackets what they are from left "
    + "to right, where that is another number.", ["True word", ...Object.values(NAMES)],
  [...rows, total], {className: "summed"})];
}
