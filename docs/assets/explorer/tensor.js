// The little linear algebra that the model needs. A matrix is a Float32Array, row after row.

// y = x W' + b with x (n, inner), W (outer, inner). Two rows of x with four of W at once: six
// numbers are then read for eight products, which makes it three times as fast as one by one.
export function linear(x, {weight, bias, outer, inner}) {
  const n = x.length / inner, y = new Float32Array(n * outer), whole = outer - outer % 4;
  for (let o = 0; o < whole; o += 4) {
    for (let i = 0; i < n; i += 2) {
      eight(x, i, Math.min(i + 1, n - 1), weight, bias, o, inner, outer, y);
    }
  }
  for (let o = whole; o < outer; o++) {
    for (let i = 0; i < n; i++) {
      y[i * outer + o] = bias[o] + dot(x, i * inner, weight, o * inner, inner);
    }
  }
  return y;
}

// Rows i and j of y, columns o to o + 3. The last row of an odd number is computed twice.
function eight(x, i, j, weight, bias, o, inner, outer, y) {
  let a = bias[o], b = bias[o + 1], c = bias[o + 2], d = bias[o + 3];
  let e = a, f = b, g = c, h = d;
  const xi = i * inner, xj = j * inner;
  const w0 = o * inner, w1 = w0 + inner, w2 = w1 + inner, w3 = w2 + inner;
  for (let k = 0; k < inner; k++) {
    const u = x[xi + k], v = x[xj + k];
    const p = weight[w0 + k], q = weight[w1 + k], r = weight[w2 + k], s = weight[w3 + k];
    a += u * p;
    b += u * q;
    c += u * r;
    d += u * s;
    e += v * p;
    f += v * q;
    g += v * r;
    h += v * s;
  }
  const yi = i * outer + o, yj = j * outer + o;
  y[yi] = a;
  y[yi + 1] = b;
  y[yi + 2] = c;
  y[yi + 3] = d;
  y[yj] = e;
  y[yj + 1] = f;
  y[yj + 2] = g;
  y[yj + 3] = h;
}

export function dot(x, i, y, j, n) { // of n numbers of x from i on with those of y from j on
  let sum = 0;
  for (let k = 0; k < n; k++) sum += x[i + k] * y[j + k];
  return sum;
}

export function add(x, y) {
  return x.map((value, i) => value + y[i]);
}

export function layerNorm(x, {weight, bias, eps}) { // each row to mean 0 and variance 1, scaled
  const dim = weight.length, y = new Float32Array(x.length);
  for (let at = 0; at < x.length; at += dim) {
    let mean = 0, variance = 0;
    for (let k = 0; k < dim; k++) mean += x[at + k] / dim;
    for (let k = 0; k < dim; k++) variance += (x[at + k] - mean) ** 2 / dim;
    const scale = 1 / Math.sqrt(variance + eps);
    for (let k = 0; k < dim; k++) y[at + k] = (x[at + k] - mean) * scale * weight[k] + bias[k];
  }
  return y;
}

// The error function to 1.5e-7 (Abramowitz and Stegun 1964, 7.1.26).
function erf(x) {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741
    + t * (-1.453152027 + t * 1.061405429))));
  return Math.sign(x) * (1 - series * Math.exp(-x * x));
}

export function gelu(x) {
  return x.map(value => 0.5 * value * (1 + erf(value / Math.SQRT2)));
}

export function softmax(scores) { // minus infinity becomes 0
  const most = scores.reduce((a, b) => Math.max(a, b), -Infinity);
  const powers = Float64Array.from(scores, score => Math.exp(score - most));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map(power => power / sum);
}

export function logSoftmax(logits) { // natural logarithms of the probabilities
  const most = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const sum = logits.reduce((total, logit) => total + Math.exp(logit - most), 0);
  const shift = most + Math.log(sum);
  return Float64Array.from(logits, logit => logit - shift);
}
