// Which row attends to which key: permutation (lesson 03) and the one rule (lesson 05).

export const OBJECTIVES = { // the blocks of rows, in the order of a batch's columns
  mpnet: {rows: ["context", "target", "mask", "query"], keys: ["context", "target", "mask"]},
  plm: {rows: ["context", "target", "query"], keys: ["context", "target"]},
  mlm: {rows: ["context", "mask"], keys: ["context", "mask"]},
};

// The rows of one sentence, each {kind, rank, id, position, horizon}. `predicted` holds the
// positions of the hidden tokens in the order in which they are predicted.
export function layout(ids, predicted, objective, mask, broken = {}) {
  const hidden = new Set(predicted);
  const context = [...ids.keys()].filter(position => !hidden.has(position));
  return OBJECTIVES[objective].rows.flatMap(kind => {
    const positions = kind === "context" ? context : predicted;
    const shown = position => kind === "context" || kind === "target" ? ids[position] : mask;
    return positions.map((position, rank) => ({
      kind, rank, position, id: shown(position),
      horizon: horizonOf(kind, rank, predicted.length, broken),
    }));
  });
}

// The number of targets that a row knows. `broken` names a rule that is broken on purpose.
export function horizonOf(kind, rank, P, broken = {}) {
  if (kind === "target") return rank + 1;
  if (kind === "query") return broken.query ? rank + 1 : rank;
  if (kind === "mask") return broken.mask ? P : 0;
  return 0;
}

export function sees(row, key) { // the one rule
  if (key.kind === "target") return key.rank < row.horizon;
  if (key.kind === "mask") return key.rank >= row.horizon;
  return true;
}

export function keysOf(rows, objective) { // the first rows; queries only ask
  return rows.filter(row => OBJECTIVES[objective].keys.includes(row.kind));
}

export function predicting(rows, objective) { // the rows that make the predictions, by rank
  const kind = OBJECTIVES[objective].rows.at(-1);
  return rows.filter(row => row.kind === kind);
}
