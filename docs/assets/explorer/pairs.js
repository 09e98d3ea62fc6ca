// Why MLM says "the the": the product of two probabilities beside the probability of both.
import {make, percent, put, table} from "./dom.js";
import {best, loader, watch} from "./page.js";
import {EXAMPLES} from "./examples.js";
import {presets, wordButtons} from "./sentence.js";

const FEW = 6; // candidates for each place
const SHOWN = 4; // pairs of each kind

export function pairs(root, store) {
  const body = make("div");
  const clashing = EXAMPLES.filter(each => each.clash);
  root.replaceChildren(presets(store, clashing), wordButtons(store), body);
  watch(root, store, () => put(body, ...draw(store)));
}

function draw(store) {
  if (store.predicted.length < 2) return [make("p", {}, "Hide two words.")];
  if (!store.ready) return [loader(store)];
  const listed = candidates(store), name = pair => pair.ids.map(id => store.token(id)).join(" ");
  const top = kind => listed.reduce((a, b) => b[kind] > a[kind] ? b : a);
  const said = `The best pair by MLM's product: ${name(top("mlm"))}. `
    + `The best pair by MPNet: ${name(top("mpnet"))}.`;
  const rows = listed.map(pair => [name(pair) + (pair.isTrue ? " ✓" : ""),
    meter(pair.mlm, "mlm"), meter(pair.mpnet, "mpnet")]);
  return [make("p", {role: "status"}, said), table(
    "Pairs for the first two predictions, ordered by MLM's product; ✓ is the true one.",
    ["Pair", "MLM: p(a) · p(b)", "MPNet: p(a) · p(b | a)"], rows, {className: "pairs"})];
}

function meter(log, kind) {
  const filled = make("span", {className: "fill"});
  filled.style.width = `${100 * Math.exp(log)}%`;
  return make("span", {className: `meter ${kind}`},
    make("span", {className: "track", "aria-hidden": "true"}, filled), percent(log));
}

function candidates(store) { // [{ids, mlm, mpnet, isTrue}], the best by either way and the true one
  const {ids} = store.sentence, [at, next] = store.predicted;
  const [first, second] = store.predict("mlm");
  const start = store.predict("mpnet")[0];
  const following = a => { // log-probabilities of the second, if the first is a
    const filled = ids.slice();
    filled[at] = a;
    return store.predict("mpnet", {}, filled)[1];
  };
  const pair = (a, b) => ({ids: [a, b], isTrue: a === ids[at] && b === ids[next],
    mlm: first[a] + second[b], mpnet: start[a] + following(a)[b]});
  const alone = best(first, FEW).flatMap(a => best(second, FEW).map(b => [a, b]));
  const linked = best(start, FEW).flatMap(a => best(following(a), FEW).map(b => [a, b]));
  const all = [...alone, ...linked, [ids[at], ids[next]]].map(both => pair(...both));
  const most = kind => all.toSorted((a, b) => b[kind] - a[kind]);
  const wanted = [...unique(most("mlm")).slice(0, SHOWN), ...unique(most("mpnet")).slice(0, SHOWN),
    ...all.filter(each => each.isTrue)];
  return unique(wanted).toSorted((a, b) => b.mlm - a.mlm);
}

function unique(found) {
  return [...new Map(found.map(pair => [pair.ids.join(), pair])).values()];
}
