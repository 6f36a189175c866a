"use strict";
// Rows and columns of a block's map from what `pack.py` packed: Eq. 1's f / C, pair by pair.

const HALF = new Float32Array(65536);
for (let bits = 0; bits < 65536; bits++) {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  HALF[bits] = sign * (exponent === 0 ? fraction * 2 ** -24
    : exponent === 31 ? (fraction ? NaN : Infinity) : (1 + fraction / 1024) * 2 ** (exponent - 15));
}

function bytes(text) {
  return Uint8Array.from(atob(text), letter => letter.charCodeAt(0)).buffer;
}

function numbers(text, half) {
  return half ? Float32Array.from(new Uint16Array(bytes(text)), bits => HALF[bits])
    : new Float32Array(bytes(text));
}

const product = sizes => sizes.reduce((a, b) => a * b, 1);

class Block {
  constructor(packed) {
    Object.assign(this, packed);
    this.q = numbers(packed.q, packed.half);
    this.k = numbers(packed.k, packed.half);
    this.totals = numbers(packed.totals, false);
    this.average = numbers(packed.average, false);
    this.P = product(this.cells);
    this.Q = product(this.keys);
    this.depth = this.q.length / this.P;
  }

  // The frames of keys that a query of frame t sees, as [from, to).
  frames(t) {
    if (this.group) return [Math.floor(t / this.group) * this.group,
      (Math.floor(t / this.group) + 1) * this.group];
    return this.causal ? [Math.max(0, t - this.causal + 1), t + 1] : [0, this.keys[0]];
  }

  // The share of query i's weight on key j, signed.
  share(i, j) {
    if (this.form === "pairs") return this.q[i * this.Q + j];
    if (this.form === "relu") return Math.max(0, this.q[i] + this.k[j]) / (this.totals[i] || 1);
    let score = 0;
    for (let d = 0, a = i * this.depth, b = j * this.depth; d < this.depth; d++)
      score += this.q[a + d] * this.k[b + d];
    return this.form === "softmax" ? Math.exp(score - this.totals[i]) : score / (this.totals[i] || 1);
  }

  // What query i looks at: signed shares (Q,), which keys it sees, in order.
  row(i) {
    const weights = new Float32Array(this.Q), seen = [];
    const [, height, width] = this.cells, area = this.keys[1] * this.keys[2];
    const [from, to] = this.frames(Math.floor(i / (height * width)));
    for (let s = from; s < to; s++) {
      if (this.mode === "time") seen.push(s * area + i % area);
      else for (let j = s * area; j < (s + 1) * area; j++) seen.push(j);
    }
    for (const j of seen) weights[j] = this.share(i, j);
    return { weights, seen };
  }

  // Who looks at key j: shares (P,) of each query's own weight, which queries see it, and the sum
  // of what they would give if all weights were equal.
  column(j) {
    const weights = new Float32Array(this.P), seen = [];
    const [frames, height, width] = this.cells, area = height * width;
    const keyArea = this.keys[1] * this.keys[2], s = Math.floor(j / keyArea);
    let equal = 0;
    for (let t = 0; t < frames; t++) {
      const [from, to] = this.frames(t);
      if (s < from || s >= to) continue;
      const one = this.mode === "time", count = (to - from) * (one ? 1 : keyArea);
      for (let p = one ? j % keyArea : 0; p < (one ? j % keyArea + 1 : area); p++) {
        seen.push(t * area + p);
        equal += 1 / count;
      }
    }
    for (const i of seen) weights[i] = this.share(i, j);
    return { weights, seen, equal };
  }

  // Half the sum of differences from the average row, of which early causal queries see the end.
  departure({ weights, seen }) {
    const skip = this.average.length - seen.length;
    let whole = 0, sum = 0;
    for (let n = 0; n < seen.length; n++) whole += Math.abs(this.average[skip + n]);
    const scale = skip && whole ? 1 / whole : 1;
    for (let n = 0; n < seen.length; n++)
      sum += Math.abs(weights[seen[n]] - scale * this.average[skip + n]);
    return sum / 2;
  }
}

// The figures of a map, of shares |w| / sum |w| over what is seen, and its heaviest places.
function figures({ weights, seen }, top) {
  const order = seen.filter(n => weights[n]).sort((a, b) => Math.abs(weights[b]) - Math.abs(weights[a]));
  const total = order.reduce((sum, n) => sum + Math.abs(weights[n]), 0);
  const part = n => Math.abs(weights[n]) / total;
  return {
    heaviest: order.slice(0, top), total,
    share: order.slice(0, top).reduce((sum, n) => sum + part(n), 0),
    uniform: Math.min(top, seen.length) / seen.length,
    entropy: order.reduce((sum, n) => sum - (part(n) ? part(n) * Math.log(part(n)) : 0), 0),
    negative: order.reduce((sum, n) => sum + (weights[n] < 0 ? part(n) : 0), 0),
  };
}

const centre = (index, [stride, offset]) => offset + stride * index;
const nearest = (place, [stride, offset], size) =>
  Math.min(Math.max(Math.floor((place - offset) / stride + 0.5), 0), size - 1);

// The place (t, y, x) of cell n, and the cell nearest to a place.
function placeOf(n, size, grid) {
  const [, height, width] = size;
  return [Math.floor(n / (height * width)), Math.floor(n / width) % height, n % width]
    .map((cell, axis) => centre(cell, grid[axis]));
}

function cellAt(place, size, grid) {
  const [t, y, x] = place.map((p, axis) => nearest(p, grid[axis], size[axis]));
  return (t * size[1] + y) * size[2] + x;
}
