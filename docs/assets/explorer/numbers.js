// One head as numbers: for a prediction, the score, bias, mask and weight of every key.
import {choice, make, nats, put, table} from "./dom.js";
import {loader, objectiveChoice, watch} from "./page.js";
import {wordButtons} from "./sentence.js";

export function numbers(root, store) {
  const bar = make("div", {className: "controls"}), body = make("div");
  root.replaceChildren(wordButtons(store), bar, body);
  watch(root, store, () => {
    put(bar, ...choices(store));
    put(body, ...draw(store));
  });
}

function choices(store) {
  const {layers, heads} = store.description.config, {rank, layer, head} = store.state;
  const upTo = n => Array.from({length: n}, (_, i) => [i, i]);
  const words = store.predicted.map((position, i) => [i, store.at(position)]);
  return [objectiveChoice(store),
    choice("prediction", words, rank, "rank", value => store.set({rank: Number(value)})),
    choice("layer", upTo(layers), layer, "layer", value => store.set({layer: Number(value)})),
    choice("head", upTo(heads), head, "head", value => store.set({head: Number(value)}))];
}

// What one head computes for the row that predicts; `options` as for the model.
export function look(store, objective, rank, options = {}) {
  const found = [], kind = objective === "mlm" ? "mask" : "query";
  const note = seen => {
    if (seen.row.kind === kind && seen.row.rank === rank) found.push(seen);
  };
  store.ready.logits(store.sentence.ids, store.predicted, objective, {...options, note});
  return found; // one for each layer and head
}

function draw(store) {
  if (!store.predicted.length) return [make("p", {}, "Hide some words first.")];
  if (!store.ready) return [loader(store)];
  const {objective, rank, layer, head} = store.state;
  const seen = look(store, objective, rank)
    .find(each => each.layer === layer && each.head === head);
  const most = Math.max(...seen.weights);
  const rows = seen.keys.map((key, j) => [name(store, key), key.position - seen.row.position,
    nats(seen.scores[j]), nats(seen.bias[j]), seen.mask[j] ? "−∞" : "0",
    weight(seen.weights[j], most)]);
  return [table("Every key in the order of the batch. Score + bias + mask, then the softmax: that "
    + "is the weight. The distance is the key's position minus the row's.",
  ["Key", "distance", "score q·k/√d", "bias", "mask", "weight"], rows, {className: "numbers"})];
}

function name(store, key) {
  const text = key.kind === "mask" ? "[M]" : store.token(key.id);
  return make("span", {className: `token ${key.kind}`, title: `${key.kind} ${key.rank}`}, text);
}

function weight(value, most) {
  const filled = make("span", {className: "fill"});
  filled.style.width = `${100 * value / most}%`;
  return make("span", {className: "meter"},
    make("span", {className: "track", "aria-hidden": "true"}, filled), value.toFixed(3));
}
