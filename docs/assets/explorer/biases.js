// What each head has learned about distance, and what becomes of the predictions without it.
import {changed, choice, draw, make, nats, percent, put, table} from "./dom.js";
import {loader, sum, truths, watch} from "./page.js";
import {NAMES} from "./store.js";
import {wordButtons} from "./sentence.js";

const FAR = 24; // the largest distance that is drawn, and that on a narrow screen
const NARROW = 12;

export function biases(root, store) {
  const picture = make("figure"), body = make("div"), heads = make("span"), said = make("output");
  const slider = make("input", {type: "range", min: 0, max: 1, step: 0.1, data: {key: "share"},
    oninput: () => store.set({share: Number(slider.value)})});
  const bar = make("div", {className: "controls"}, heads,
    make("label", {}, "share of the biases", slider), said);
  root.replaceChildren(wordButtons(store), picture, bar, body);
  watch(root, store, () => {
    put(heads, headChoice(store));
    slider.value = store.state.share;
    said.textContent = `${Math.round(100 * store.state.share)}\u00a0%`;
    const far = root.clientWidth < 500 ? NARROW : FAR;
    put(picture, ...(store.ready ? chart(store, far) : [loader(store)]));
    put(body, ...(store.ready && store.predicted.length ? effect(store) : []));
  });
}

function headChoice(store) {
  const list = Array.from({length: store.description.config.heads}, (_, i) => [i, i]);
  const choose = head => store.set({head: Number(head)});
  return choice("head", list, store.state.head, "bias-head", choose);
}

function chart(store, far) { // the chosen head's biases as bars, those of the others as dots
  const {head, share} = store.state, {heads} = store.description.config;
  const distances = Array.from({length: 2 * far + 1}, (_, i) => i - far);
  const of = (each, distance) => share * store.ready.bias(each, distance);
  const all = distances.flatMap(d => Array.from({length: heads}, (_, i) => store.ready.bias(i, d)));
  const most = Math.max(...all.map(Math.abs)), width = 14, height = 180;
  const y = value => height / 2 - value / most * (height / 2 - 10);
  const whole = width * distances.length;
  const shapes = [draw("line", {x1: 0, x2: whole, y1: y(0), y2: y(0), class: "axis"})];
  distances.forEach((distance, i) => {
    const value = of(head, distance), top = Math.min(y(0), y(value));
    shapes.push(draw("rect", {x: i * width + 2, y: top, width: width - 4, rx: 2,
      height: Math.abs(y(value) - y(0)), class: value > 0 ? "target" : "mask"}));
    const middle = (i + 0.5) * width;
    for (let other = 0; other < heads; other++) {
      const dot = {cx: middle, cy: y(of(other, distance)), r: 2};
      if (other !== head) shapes.push(draw("circle", dot));
    }
    if (distance % (far / 3) === 0) {
      shapes.push(draw("text", {x: middle, y: height + 16}, distance));
    }
  });
  const strongest = distances.reduce((a, b) => of(head, b) > of(head, a) ? b : a);
  const said = share ? `Head ${head} adds most, ${nats(of(head, strongest))}, to the score of a `
    + `key at distance ${strongest}.` : "All biases are zero.";
  return [draw("svg", {viewBox: `0 0 ${whole} ${height + 22}`, role: "img",
    "aria-label": `The bias of head ${head} by distance. ${said}`}, ...shapes),
  make("figcaption", {}, `What head ${head} adds to a score, by the distance of the key (negative: `
    + `to the left; up to ±${nats(most)}). Dots: the other heads. ${said}`)];
}

function effect(store) { // the true words with all, and with this share, of the biases
  const {share} = store.state, kinds = Object.keys(NAMES);
  const whole = kinds.map(kind => truths(store, kind, {}));
  const now = kinds.map(kind => truths(store, kind, share < 1 ? {biases: share} : {}));
  const rows = store.predicted.map((position, rank) => [store.at(position),
    ...kinds.map((_, i) => changed(percent(now[i][rank]), percent(whole[i][rank])))]);
  const total = ["all, ln p",
    ...kinds.map((_, i) => changed(nats(sum(now[i])), nats(sum(whole[i]))))];
  return [table("The true words' probabilities; in brackets with the biases as they were learned.",
    ["True word", ...Object.values(NAMES)], [...rows, total], {className: "summed"})];
}
