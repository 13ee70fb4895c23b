// Numbers as text, and the probabilities after any subset of the edits.

export const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;

/** A count with its noun: 1 edit, 1,234 edits. */
export function count(number, word) {
  const plural = /[^aeiou]y$/.test(word) ? word.replace(/y$/, "ies") : `${word}s`;
  return `${number.toLocaleString("en")} ${number === 1 ? word : plural}`;
}

/** The middle one of some numbers, or the mean of the two in the middle. */
export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const half = Math.floor(sorted.length / 2);
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

/** A time in the unit that suits it: 1.2 ms, 34 ms, 5.6 s. */
export function duration(seconds) {
  if (seconds >= 1) return `${seconds.toFixed(1)} s`;
  return `${(1000 * seconds).toFixed(seconds < 0.01 ? 1 : 0)} ms`;
}

/** A probability: four digits, which is more than the arithmetic leaves uncertain. */
export const probability = (p) => p.toFixed(4);

/** 32-bit floats, little-endian, from base64. */
export function floats(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}

/** Probabilities of the kept classes once the edits that are `on` are made: z + their changes. */
export function softmaxAfter(logits, changes, on) {
  const z = Float64Array.from(logits);
  on.forEach((made, edit) => {
    if (made) z.forEach((_, k) => { z[k] += changes[edit * z.length + k]; });
  });
  const top = Math.max(...z);
  const powers = z.map((value) => Math.exp(value - top));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((value) => value / sum);
}

/** How many edits are made, where they are the first ones; null for any other subset. */
export function prefix(on) {
  const made = on.filter(Boolean).length;
  return on.slice(0, made).every(Boolean) ? made : null;
}
