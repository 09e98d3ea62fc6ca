// The rule, broken on purpose: how the answer leaks to the prediction.
import {choice, make, percent, put, table} from "./dom.js";
import {loader, truths, watch} from "./page.js";
import {wordButtons} from "./sentence.js";

const BREAKS = [
  ["", "the rule as it is"],
  ["query", "a query has the horizon r + 1: it attends to its own target"],
  ["mask", "the masks have the horizon P: they attend to all targets"],
];

export function broken(root, store) {
  const bar = make("div", {className: "controls"}), body = make("div");
  root.replaceChildren(wordButtons(store), bar, body);
  watch(root, store, () => {
    const choose = value => store.set({broken: value});
    put(bar, choice("rule", BREAKS, store.state.broken, "break", choose));
    put(body, ...draw(store));
  });
}

function draw(store) {
  if (!store.predicted.length) return [make("p", {}, "Hide some words first.")];
  if (!store.ready) return [loader(store)];
  const name = store.state.broken, whole = truths(store, "mpnet", {});
  const now = name ? truths(store, "mpnet", {broken: {[name]: true}}) : whole;
  const word = position => store.at(position);
  const factor = rank => `× ${Math.exp(now[rank] - whole[rank]).toFixed(1)}`;
  const rows = store.predicted.map((position, rank) => [word(position), percent(whole[rank]),
    ...(name ? [percent(now[rank]), factor(rank)] : [])]);
  const head = ["True word", "by the rule", ...(name ? ["broken", "change"] : [])];
  const paths = name ? store.predicted.map((_, rank) => path(store, name, rank)) : [];
  return [table("What MPNet gives the true words.", head, rows),
    make("div", {role: "status"}, make("p", {}, ABOUT[name]), ...paths)];
}

const ABOUT = {
  "": "No path leads from a target to the row that predicts it, through any number of layers.",
  query: "The query attends to the answer itself, in every layer:",
  mask: "In the first layer a mask attends to the answer, in a later one the query attends to the "
    + "mask. The query itself never sees the answer, and yet it arrives:",
};

// The edges of a leak, each with the largest weight that a head gives it.
function path(store, name, rank) {
  const {layers} = store.description.config, last = layers - 1;
  const options = {broken: {[name]: true}}, all = watched(store, options);
  const weight = (layer, row, key) => all.filter(each => each.layer === layer
    && each.row.kind === row && each.row.rank === rank).map(each => {
    const at = each.keys.findIndex(one => one.kind === key && one.rank === rank);
    return {head: each.head, value: each.weights[at]};
  }).reduce((a, b) => b.value > a.value ? b : a);
  const node = (kind, text) => make("span", {className: `token ${kind}`}, text);
  const edge = (layer, row, key) => {
    const {head, value} = weight(layer, row, key);
    const text = ` → layer ${layer}, head ${head}: ${value.toFixed(2)} → `;
    return make("span", {className: "edge"}, text);
  };
  const target = node("target", store.at(store.predicted[rank]));
  const query = node("nothing", `query ${rank}`);
  const between = name === "query" ? [edge(last, "query", "target")]
    : [edge(0, "mask", "target"), node("mask", `mask ${rank}`), edge(last, "query", "mask")];
  return make("p", {className: "path"}, target, ...between, query);
}

function watched(store, options) { // what every row and head computes
  const found = [];
  store.ready.logits(store.sentence.ids, store.predicted, "mpnet",
    {...options, note: seen => found.push(seen)});
  return found;
}
