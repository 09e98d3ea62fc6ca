// The sentence: to be chosen, with words to be hidden, and as a prediction sees it.
import {keysOf, layout, predicting, sees} from "./rule.js";
import {button, make, put} from "./dom.js";

const MOST = 8; // hidden tokens

// Its words as buttons; a word that is pressed is hidden.
// After a change the lanes are at `step`, or where they were.
export function wordButtons(store, step) {
  const group = make("div", {className: "words", role: "group",
    "aria-label": "The sentence. Press a word to hide it, or to show it again."});
  const buttons = () => store.sentence.words.map((word, i) => wordButton(store, word, i, step));
  store.listen(() => put(group, ...buttons()));
  return group;
}

function wordButton(store, word, i, step) {
  const isHidden = store.state.hidden.includes(i);
  const pieces = word.ids.map(id => store.token(id));
  const shown = pieces.length > 1 ? pieces.join(" ").replaceAll("##", "") : word.text;
  const room = store.predicted.length + word.ids.length <= MOST;
  return button(shown, `word-${i}`, () => toggle(store, i, step), {
    className: isHidden ? "token mask" : "token", "aria-pressed": isHidden,
    disabled: !isHidden && !room,
    title: pieces.length > 1 ? `${pieces.length} tokens: ${pieces.join(" ")}` : "",
  });
}

function toggle(store, i, step) {
  const {text, hidden} = store.state;
  const changed = hidden.includes(i) ? hidden.filter(other => other !== i) : [...hidden, i];
  store.take(text, changed, step);
}

// What a row knows of each position, in reading order: {position, kind, text, own, id}.
export function knowledge(store, objective, row, rows) {
  const keys = keysOf(rows, objective).filter(key => sees(row, key));
  return store.sentence.ids.map((_, position) => {
    const key = keys.find(each => each.position === position);
    const own = row.position === position;
    if (!key) return {position, kind: "nothing", text: "–", own};
    return {position, kind: key.kind, text: key.kind === "mask" ? "[M]" : store.token(key.id), own};
  });
}

const SAID = {context: "context", target: "predicted before", mask: "a mask", nothing: "not seen"};

export function known(store, objective, rank, label) { // as the prediction of this rank sees it
  const rows = layout(store.sentence.ids, store.predicted, objective, store.tokenizer.mask);
  const asking = predicting(rows, objective)[rank];
  return tokens(knowledge(store, objective, asking, rows), label);
}

export function tokens(items, label) {
  return make("ol", {className: "tokens", "aria-label": label}, ...items.map(item =>
    make("li", {className: `token ${item.kind}${item.own ? " own" : ""}`,
      "aria-label": `${item.text}: ${SAID[item.kind]}${item.own ? ", to be predicted" : ""}`},
    item.text)));
}

export function presets(store, examples) { // a button for each
  return make("div", {className: "presets", role: "group", "aria-label": "Sentences to try"},
    ...examples.map(({text, hidden}) => button(text, `preset-${text}`,
      () => store.take(text, hidden))));
}
