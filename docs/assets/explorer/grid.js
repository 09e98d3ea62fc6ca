// The attention mask, row by row, and the sentence as the chosen row sees it.
import {draw, make, put, say} from "./dom.js";
import {objectiveChoice, watch} from "./page.js";
import {keysOf, layout, sees} from "./rule.js";
import {knowledge} from "./sentence.js";

const SIDE = 20; // of a cell, in units of the drawing

export function grid(root, store) {
  const slider = make("input", {type: "range", min: 0, data: {key: "row"},
    oninput: () => store.set({row: Number(slider.value)})});
  const kind = make("span"); // the slider stays while it is dragged, and so isn't made anew
  const bar = make("div", {className: "controls"}, kind, make("label", {}, "row", slider));
  const view = {store, slider, kind,
    picture: make("div", {className: "picture-of-mask"}),
    said: make("p", {role: "status"}), line: make("div", {className: "words"})};
  root.replaceChildren(bar, view.line, view.said, view.picture);
  watch(root, store, () => redraw(view));
}

function chosen(view, rows) { // the row that is looked at; at first the first prediction
  const {row} = view.store.state;
  const first = rows.findIndex(each => each.kind === rows.at(-1).kind);
  return row >= 0 && row < rows.length ? row : first;
}

const nameOf = (store, row) => {
  const word = row.kind === "mask" || row.kind === "query" ? "[M]" : store.token(row.id);
  return `${row.kind} ${row.rank}, “${word}”, position ${row.position}`;
};

function redraw(view) {
  const {store} = view, {objective} = store.state;
  const rows = layout(store.sentence.ids, store.predicted, objective, store.tokenizer.mask);
  const keys = keysOf(rows, objective), at = chosen(view, rows), row = rows[at];
  put(view.kind, objectiveChoice(store));
  Object.assign(view.slider, {max: rows.length - 1, value: at});
  view.slider.setAttribute("aria-valuetext", nameOf(store, row));
  put(view.line, ...sentence(view, row, rows));
  say(view.said, describe(store, row, keys));
  put(view.picture, drawing(view, rows, keys, at));
}

function describe(store, row, keys) {
  const seen = keys.filter(key => sees(row, key));
  const known = seen.filter(key => key.kind !== "mask").length;
  const T = store.sentence.ids.length, places = new Set(seen.map(key => key.position)).size;
  return `Row: ${nameOf(store, row)}, horizon ${row.horizon}. It knows ${known} of ${T} tokens `
    + `and attends to ${places} of ${T} positions.`;
}

function sentence(view, row, rows) { // pressing a token goes to its rows, one after the other
  const {store} = view, items = knowledge(store, store.state.objective, row, rows);
  return items.map(item => make("button", {type: "button", textContent: item.text,
    data: {key: `grid-${item.position}`}, className: `token ${item.kind}${item.own ? " own" : ""}`,
    "aria-label": `position ${item.position}: ${item.text}; go to its row`,
    "aria-pressed": item.own, onclick: () => next(view, rows, item.position)}));
}

function next(view, rows, position) {
  const own = rows.flatMap((row, i) => row.position === position ? [i] : []);
  const at = own.indexOf(chosen(view, rows));
  view.store.set({row: own[(at + 1) % own.length]});
}

const LABEL = 5; // cells that a label is long
const LABELLED = 32; // keys; with more of them a label can't be read

function labelOf(store, row) {
  const text = {mask: "[M]", query: `query ${row.rank}`}[row.kind] ?? store.token(row.id);
  return text.length > 11 ? `${text.slice(0, 10)}…` : text;
}

function drawing(view, rows, keys, at) {
  const {store} = view, own = rows[at].position, label = keys.length > LABELLED ? 1 : LABEL;
  const x = j => (j + label) * SIDE, y = i => (i + label) * SIDE;
  const cell = (i, j, kind) => draw("rect", {x: x(j) + 1, y: y(i) + 1, width: SIDE - 2,
    height: SIDE - 2, rx: 3, class: kind});
  const shapes = rows.flatMap((row, i) => keys.map((key, j) => cell(i, j,
    (sees(row, key) ? key.kind : "unseen") + (key.position === own ? " same" : ""))));
  shapes.push(draw("rect", {x: 1, y: y(at), width: x(keys.length) - 2, height: SIDE, rx: 4,
    class: "chosen"}));
  if (label === LABEL) {
    shapes.push(...rows.map((row, i) => draw("text", {x: x(0) - 6, y: y(i) + 15, class: "row"},
      labelOf(store, row))));
    shapes.push(...keys.map((key, j) => draw("text", {class: "key",
      transform: `translate(${x(j) + 15} ${y(0) - 6}) rotate(-90)`}, labelOf(store, key))));
  } else {
    shapes.push(...rows.map((row, i) => cell(i, -1, row.kind)));
    shapes.push(...keys.map((key, j) => cell(-1, j, key.kind)));
  }
  return framed(view, shapes, x(keys.length), y(rows.length), position =>
    Math.min(Math.floor(position / SIDE) - label, rows.length - 1));
}

function framed(view, shapes, width, height, rowAt) { // rowAt: from a height to the number of a row
  const picture = draw("svg", {viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": "The attention mask, a line for each row and a column for each key. "
      + "The chosen row is said in words above."}, ...shapes);
  picture.style.maxWidth = `${Math.min(width, 740)}px`;
  picture.addEventListener("pointerdown", event => {
    const box = picture.getBoundingClientRect();
    const row = rowAt((event.clientY - box.top) / box.height * height);
    if (row >= 0) view.store.set({row});
  });
  return picture;
}
