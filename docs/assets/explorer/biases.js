// What each head has learned about distance, and what becomes of the predictions without it.
import {
  changed, choice, draw, loader, make, NAMES, nats, percent, put, sum, table, truths, watch,
} from "./page.js";
import {wordButtons} from "./sentence.js";

const FAR = 24; // the largest distance that is drawn, and that on a narrow screen
const NARROW = 12;

export function biases(root, store) {
  const bar = make("div", {className: "controls"}), picture = make("figure"), body = make("div");
  root.replaceChildren(wordButtons(store), picture, bar, body);
  watch(root, store, () => {
    put(bar, ...controls(store));
    const far = root.clientWidth < 500 ? NARROW : FAR;
    put(picture, ...(store.ready ? chart(store, far) : [loader(store)]));
    put(body, ...(store.ready && store.predicted.length ? effect(store) : []));
  });
}

function controls(store) {
  const {share, head} = store.state, {heads} = store.description.config;
  const slider = make("input", {type: "range", min: 0, max: 1, step: 0.1, value: share,
    data: {key: "share"}, "aria-valuetext": percent(Math.log(share)),
    oninput: event => store.set({share: Number(event.target.value)})});
  const list = Array.from({length: heads}, (_, i) => [i, i]);
  return [choice("head", list, head, "bias-head", value => store.set({head: Number(value)})),
    make("label", {}, "share of the biases", slider,
      make("output", {}, share ? percent(Math.log(share)) : "0 %"))];
}

function chart(store, far) { // the chosen head's biases as bars, those of the others as dots
  const {head, share} = store.state, {heads} = store.description.config;
  const distances = Array.from({length: 2 * far + 1}, (_, i) => i - far);
  const of = (each, distance) => share * store.ready.bias(each, distance);
  const all = distances.flatMap(d => Array.from({length: heads}, (_, i) => store.ready.bias(i, d)));
  const most = Math.max(...all.map(Math.abs)), width = 14, height = 180;
  const y = value => height / 2 - value / most * (height / 2 - 10);
  const shapes = [draw("line", {x1: 0, x2: width * distances.length, y1: y(0), y2: y(0), class: "axis"})];
  distances.forEach((distance, i) => {
    const value = of(head, distance), top = Math.min(y(0), y(value));
    shapes.push(draw("rect", {x: i * width + 2, y: top, width: width - 4, rx: 2,
      height: Math.abs(y(value) - y(0)), class: value > 0 ? "target" : "mask"}));
    for (let other = 0; other < heads; other++) {
      if (other !== head) shapes.push(draw("circle", {cx: (i + 0.5) * width, cy: y(of(other, distance)), r: 2}));
    }
    if (distance % (far / 3) === 0) shapes.push(draw("text", {x: (i + 0.5) * width, y: height + 16}, distance));
  });
  const strongest = distances.reduce((a, b) => of(head, b) > of(head, a) ? b : a);
  const said = share ? `Head ${head} adds most, ${nats(of(head, strongest))}, to the score of a key `
    + `at distance ${strongest}.` : "All biases are zero.";
  return [draw("svg", {viewBox: `0 0 ${width * distances.length} ${height + 22}`, role: "img",
    "aria-label": `The bias of head ${head} by distance. ${said}`}, ...shapes),
  make("figcaption", {}, `What head ${head} adds to a score, by the distance of the key (negative: `
    + `to the left; up to ±${nats(most)}). Dots: the other heads. ${said}`)];
}

function effect(store) { // the true words with all, and with this share, of the biases
  const {share} = store.state, kinds = Object.keys(NAMES);
  const whole = kinds.map(kind => truths(store, kind, {}));
  const now = kinds.map(kind => truths(store, kind, share < 1 ? {biases: share} : {}));
  const rows = store.predicted.map((position, rank) => [store.token(store.sentence.ids[position]),
    ...kinds.map((_, i) => changed(percent(now[i][rank]), percent(whole[i][rank])))]);
  const total = ["all, ln p",
    ...kinds.map((_, i) => changed(nats(sum(now[i])), nats(sum(whole[i]))))];
  return [table("The true words' probabilities; in brackets with the biases as they were learned.",
    ["True word", ...Object.values(NAMES)], [...rows, total], {className: "summed"})];
}
