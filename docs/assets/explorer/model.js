// MPNet: embeddings, two-stream attention and head, as in lessons 04 to 06. Parameters have the
// names of `transformers`; a matrix is (rows, columns) of a Float32Array.
import {WordPiece} from "./wordpiece.js";
import {keysOf, layout, predicting, sees} from "./rule.js";
import {add, dot, gelu, layerNorm, linear, logSoftmax, softmax} from "./tensor.js";

// The bucket of a distance: near ones exact, far ones logarithmic (lesson 04). `starts` holds
// the smallest distance of each bucket of a side but the first.
export function bucketOf(distance, starts) {
  const reached = starts.filter(start => Math.abs(distance) >= start).length;
  return reached + (distance > 0 ? starts.length + 1 : 0);
}

// The numbers of one tensor as they are stored: float32, or 8 bits with a scale for each row.
function unpack(buffer, {shape, offset, bits}) {
  const size = shape.reduce((a, b) => a * b, 1);
  if (bits === 32) return new Float32Array(buffer, offset, size);
  const rows = shape[0], columns = size / rows, values = new Float32Array(size);
  const scales = new Float32Array(buffer, offset, rows);
  const whole = new Int8Array(buffer, offset + 4 * rows, size);
  for (let i = 0; i < size; i++) values[i] = whole[i] * scales[Math.floor(i / columns)];
  return values;
}

export class Model {
  constructor(description, buffer) { // model.json, and the bytes of weights.bin
    this.config = description.config;
    this.tokenizer = new WordPiece(description.vocabulary);
    this.parameters = new Map(description.tensors.map(t => [t.name, unpack(buffer, t)]));
    const {dim, heads, longest, starts} = this.config;
    this.size = dim / heads; // of a head
    const distances = Array.from({length: 2 * longest + 1}, (_, i) => i - longest);
    this.buckets = distances.map(distance => bucketOf(distance, starts));
  }

  get(name) {
    return this.parameters.get(name);
  }

  dense(name) { // a matrix and its bias
    const weight = this.get(`${name}.weight`), bias = this.get(`${name}.bias`);
    return {weight, bias, outer: bias.length, inner: weight.length / bias.length};
  }

  norm(name) {
    const weight = this.get(`${name}.weight`), bias = this.get(`${name}.bias`);
    return {weight, bias, eps: this.config.eps};
  }

  embed(rows) { // (rows, dim): token plus position; two rows of the position table are padding
    const {dim} = this.config, x = new Float32Array(rows.length * dim);
    const words = this.get("mpnet.embeddings.word_embeddings.weight");
    const places = this.get("mpnet.embeddings.position_embeddings.weight");
    rows.forEach(({id, position}, i) => {
      for (let k = 0; k < dim; k++) {
        x[i * dim + k] = words[id * dim + k] + places[(position + 2) * dim + k];
      }
    });
    return layerNorm(x, this.norm("mpnet.embeddings.LayerNorm"));
  }

  bias(head, distance) { // what a head adds to a score for a key so far to the right
    const {heads, longest} = this.config;
    const table = this.get("mpnet.encoder.relative_attention_bias.weight");
    return table[this.buckets[distance + longest] * heads + head];
  }

  // What each asking row gathers from the keys that it sees (lesson 05). `note` is given what
  // each row and head computes on the way, for those who want to look.
  attend(layer, x, asking, keys, {biases = 1, note} = {}) {
    const {dim, heads} = this.config, size = this.size;
    const name = part => this.dense(`mpnet.encoder.layer.${layer}.attention.attn.${part}`);
    const from = x.length - asking.length * dim;
    const q = linear(x.subarray(from), name("q"));
    const content = x.subarray(0, keys.length * dim);
    const k = linear(content, name("k")), v = linear(content, name("v"));
    const gathered = new Float32Array(asking.length * dim);
    asking.forEach((row, i) => {
      for (let head = 0; head < heads; head++) {
        const first = head * size;
        const scores = keys.map((key, j) =>
          dot(q, i * dim + first, k, j * dim + first, size) / Math.sqrt(size));
        const bias = keys.map(key => biases * this.bias(head, key.position - row.position));
        const mask = keys.map(key => sees(row, key) ? 0 : -Infinity);
        const weights = softmax(scores.map((score, j) => score + bias[j] + mask[j]));
        weights.forEach((weight, j) => {
          for (let c = first; c < first + size; c++) {
            gathered[i * dim + c] += weight * v[j * dim + c];
          }
        });
        if (note) note({layer, head, row, keys, scores, bias, mask, weights});
      }
    });
    return linear(gathered, name("o"));
  }

  layer(i, x, asking, keys, options) { // attention, then feed-forward, each with a residual
    const name = `mpnet.encoder.layer.${i}`;
    const own = x.subarray(x.length - asking.length * this.config.dim);
    const attended = add(own, this.attend(i, x, asking, keys, options));
    const h = layerNorm(attended, this.norm(`${name}.attention.LayerNorm`));
    const inner = gelu(linear(h, this.dense(`${name}.intermediate.dense`)));
    const out = linear(inner, this.dense(`${name}.output.dense`));
    return layerNorm(add(h, out), this.norm(`${name}.output.LayerNorm`));
  }

  head(hidden) { // (rows, dim) -> (rows, vocabulary) logits; the matrix is the embedding table
    const dense = gelu(linear(hidden, this.dense("lm_head.dense")));
    const h = layerNorm(dense, this.norm("lm_head.layer_norm"));
    const bias = this.get("lm_head.bias");
    const weight = this.get("mpnet.embeddings.word_embeddings.weight");
    return linear(h, {weight, bias, outer: bias.length, inner: this.config.dim});
  }

  // The logits of the hidden tokens, in the order in which they are predicted: content and query
  // stream in one pass. In the last layer only the rows that predict are needed.
  logits(ids, predicted, objective, {broken, ...options} = {}) {
    const rows = layout(ids, predicted, objective, this.tokenizer.mask, broken);
    const keys = keysOf(rows, objective), last = this.config.layers - 1;
    let x = this.embed(rows);
    for (let i = 0; i < last; i++) x = this.layer(i, x, rows, keys, options);
    const logits = this.head(this.layer(last, x, predicting(rows, objective), keys, options));
    const n = this.config.vocabulary;
    return predicted.map((_, rank) => logits.subarray(rank * n, (rank + 1) * n));
  }

  // For each hidden token: the logarithm of each token's probability.
  predict(ids, predicted, objective, options) {
    return this.logits(ids, predicted, objective, options).map(logSoftmax);
  }
}

export async function load(folder, progress = () => {}) { // a URL that ends in a slash
  const description = await describe(folder);
  const answer = await fetch(new URL("weights.bin", folder));
  if (!answer.ok) throw new Error(`weights.bin: ${answer.status} ${answer.statusText}`);
  const bytes = new Uint8Array(description.bytes), reader = answer.body.getReader();
  for (let at = 0, part; !(part = await reader.read()).done; at += part.value.length) {
    bytes.set(part.value, at);
    progress((at + part.value.length) / description.bytes);
  }
  return new Model(description, bytes.buffer);
}

let described; // asked for once
export function describe(folder) { // configuration and vocabulary: enough to cut a text to pieces
  described ??= fetch(new URL("model.json", folder)).then(answer => {
    if (!answer.ok) throw new Error(`model.json: ${answer.status} ${answer.statusText}`);
    return answer.json();
  });
  return described;
}
