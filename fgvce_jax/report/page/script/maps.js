// A map of cells as a translucent picture: clipped at 0, bilinear, more opaque where it is higher.

import {report} from "./data.js";

const SIDE = 84;
const OPACITY = 0.9;
const LEVELS = 255;

/** A picture of nothing, in the place of a map that is still to be drawn. */
export const BLANK = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7";

function colour(stops, x) {
  const place = x * (stops.length - 1);
  const low = Math.min(Math.floor(place), stops.length - 2);
  const channel = (k) => {
    const [a, b] = [stops[low], stops[low + 1]].map((hex) => parseInt(hex.slice(1 + 2 * k, 3 + 2 * k), 16));
    return Math.round(a + (b - a) * (place - low));
  };
  return [channel(0), channel(1), channel(2)];
}

const scales = Object.fromEntries(Object.entries(report.palettes).map(([of, stops]) => [of,
  Array.from({length: LEVELS + 1}, (_, k) => [...colour(stops, k / LEVELS), 255 * OPACITY * (k / LEVELS) ** 0.8])]));

/** The value at a point between cell centres; `x`, `y` in cells. */
function between(values, n, x, y) {
  const clamp = (at) => Math.min(Math.max(at - 0.5, 0), n - 1);
  const [u, v] = [clamp(x), clamp(y)];
  const [left, top] = [Math.floor(u), Math.floor(v)];
  const [right, bottom] = [Math.min(left + 1, n - 1), Math.min(top + 1, n - 1)];
  const row = (at) => values[at * n + left] * (1 - u + left) + values[at * n + right] * (u - left);
  return row(top) * (1 - v + top) + row(bottom) * (v - top);
}

/** A map's picture as a data URI. `of` is "P" or "Q"; `peak` the value of full colour. */
export function picture(values, of, peak = null) {
  const n = Math.round(Math.sqrt(values.length));
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIDE;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(SIDE, SIDE);
  const clipped = values.map((value) => Math.max(value, 0));
  const full = Math.max(peak ?? Math.max(...clipped), 1e-12);
  for (let i = 0; i < SIDE * SIDE; i += 1) {
    const x = ((i % SIDE) + 0.5) * n / SIDE;
    const y = (Math.floor(i / SIDE) + 0.5) * n / SIDE;
    const height = Math.min(between(clipped, n, x, y) / full, 1);
    pixels.data.set(scales[of][Math.round(LEVELS * height)], 4 * i);
  }
  context.putImageData(pixels, 0, 0);
  return canvas.toDataURL();
}

/** A map with only the cells of the edits that are made. */
export function upTo(values, edits, on) {
  const made = new Set(edits.filter((_, t) => on[t]).map((edit) => edit.cell));
  return values.map((value, cell) => (made.has(cell) ? value : 0));
}
