// How many words are missing? MPNet counts its masks; PLM can't know.
import {button, make, put} from "./dom.js";
import {bars, loader, watch} from "./page.js";
import {cut, NAMES} from "./store.js";
import {tokens} from "./sentence.js";

const MOST = 6;
const BEGINNINGS = ["the task is", "return a list of", "the default value is", "raised when the"];
const OPEN = "PLM's five numbers stay as they are: no key of it tells that more is missing. MPNet "
  + "has one mask for each missing token, and its numbers change.";
const ENDED = "Now PLM's numbers change as well: the full stop and </s> are context, and their "
  + "positions give away how much is missing before them. Where a text is cut off, nothing does.";

export function missing(root, store) {
  const body = make("div");
  root.replaceChildren(beginnings(store), body);
  watch(root, store, () => put(body, ...draw(store)));
}

function beginnings(store) { // of one's own, or one of a few
  const input = make("input", {type: "text", "aria-label": "The beginning of a text",
    autocomplete: "off", spellcheck: false, maxLength: 300,
    onchange: () => store.set({begin: input.value})});
  store.listen(() => { if (document.activeElement !== input) input.value = store.state.begin; });
  return make("div", {className: "presets"}, input, ...BEGINNINGS.map(text =>
    button(text, `begin-${text}`, () => store.set({begin: text}))));
}

function draw(store) {
  const {missing: n, ended} = store.state;
  const set = number => store.set({missing: number});
  const toggle = make("input", {type: "checkbox", checked: ended === 1, data: {key: "ended"},
    onchange: event => store.set({ended: Number(event.target.checked)})});
  const controls = make("p", {className: "controls"},
    button("Fewer", "fewer", () => set(n - 1), {disabled: n === 1}),
    button("More", "more", () => set(n + 1), {disabled: n === MOST}),
    make("span", {role: "status"}, n === 1 ? "one token is missing" : `${n} tokens are missing`),
    make("label", {}, toggle, "a full stop and the end token after them"));
  const both = make("div", {className: "lanes"}, lane(store, "plm"), lane(store, "mpnet"));
  const below = store.ready ? make("p", {className: "hint"}, ended ? ENDED : OPEN) : loader(store);
  return [controls, both, below];
}

// The text's beginning, masks, and perhaps an end: its ids and the positions of the masks.
function unfinished(store) {
  const {tokenizer, state} = store, {longest} = store.description.config;
  const start = cut(tokenizer, state.begin, longest - MOST - 1).ids.slice(0, -1);
  const masks = Array(state.missing).fill(tokenizer.mask);
  const end = state.ended ? [tokenizer.ids.get(".") ?? tokenizer.unknown, tokenizer.end] : [];
  return {ids: [...start, ...masks, ...end], predicted: masks.map((_, i) => start.length + i)};
}

function lane(store, objective) {
  const {ids, predicted} = unfinished(store), name = NAMES[objective];
  const hidden = objective === "plm" ? {kind: "nothing", text: "–"} : {kind: "mask", text: "[M]"};
  const shown = ids.map((id, i) => predicted.includes(i)
    ? {...hidden, own: i === predicted[0]}
    : {kind: "context", text: store.token(id), own: false});
  return make("div", {className: "lane", role: "group", "aria-label": name}, make("h3", {}, name),
    tokens(shown, `What the first prediction of ${name} sees`),
    store.ready ? bars(store, store.predict(objective, {}, ids, predicted)[0]) : "");
}
