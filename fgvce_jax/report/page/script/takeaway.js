// Taking away: a card as a picture or as JSON, the table as CSV, and print.

import {className, report} from "./data.js";
import {floats} from "./numbers.js";
import {picture} from "./maps.js";

function save(name, blob) {
  const anchor = document.createElement("a");
  anchor.href = URL.createObjectURL(blob);
  anchor.download = name.replace(/[^\w.-]+/g, "_").slice(-120);
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(anchor.href), 1000);
}

/** A card as a plain object, its arrays as numbers and its classes as names. */
export function plain(row, card) {
  const name = (k) => report.classes[k] ?? k;
  const maps = Object.fromEntries(Object.entries(card.maps).map(([key, text]) => [key, [...floats(text)]]));
  return {
    id: row.id, index: row.index, predicted: name(row.P), target: name(row.Q), status: row.status,
    flipped: row.flipped, p_predicted: card.pP, p_target: card.pQ,
    edits: card.edits.map(({cell, candidate_cell, similarity}, t) =>
      ({cell, candidate_image: card.references[t].id, candidate_cell, similarity})),
    nearest: card.nearest.map(name), label_suspicion: row.suspect, maps,
  };
}

export function saveJson(row, card) {
  const text = JSON.stringify(plain(row, card), null, 1);
  save(`${row.id}.json`, new Blob([text], {type: "application/json"}));
}

// A cell that begins like a formula would be computed by a spreadsheet.
const quoted = (value) => {
  const text = String(value ?? "");
  return `"${(/^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text).replaceAll('"', '""')}"`;
};

/** Rows as CSV text, one line each. */
export function csv(rows) {
  const columns = {
    id: (row) => row.id, index: (row) => row.index, predicted: (row) => report.classes[row.P],
    target: (row) => report.classes[row.Q], status: (row) => row.status, flipped: (row) => row.flipped,
    edits: (row) => row.edits, p_predicted_before: (row) => row.pP0, p_predicted_after: (row) => row.pP1,
    p_target_before: (row) => row.pQ0, p_target_after: (row) => row.pQ1, label_suspicion: (row) => row.suspect,
  };
  const lines = rows.map((row) => Object.values(columns).map((of) => quoted(of(row))).join());
  return [Object.keys(columns).join(), ...lines, ""].join("\r\n");
}

export const saveCsv = (rows) => save("explanations.csv", new Blob([csv(rows)], {type: "text/csv"}));

function loaded(href) {
  return new Promise((resolve) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => resolve(null);
    image.src = href;
  });
}

const SIZE = 260;
const GAP = 16;

/** A card as a canvas: the image, both maps, the curves, and its first edits. */
export async function drawn(row, card) {
  const style = getComputedStyle(document.documentElement);
  const [ink, ground, p, q] = ["--ink", "--card", "--p", "--q"].map((name) => style.getPropertyValue(name));
  const canvas = document.createElement("canvas");
  const shown = card.edits.slice(0, 8);
  [canvas.width, canvas.height] = [4 * SIZE + 5 * GAP, 2 * SIZE + 190];
  const context = canvas.getContext("2d");
  const words = (text, x, y, colour = ink, size = 17, room = SIZE) => {
    context.font = `${size}px system-ui, sans-serif`;
    context.fillStyle = colour;
    context.fillText(text, x, y, room);
  };
  context.fillStyle = ground;
  context.fillRect(0, 0, canvas.width, canvas.height);
  words(`${className(row.P)}, not ${className(row.Q)}`, GAP, 34, ink, 24, canvas.width - 2 * GAP);
  words(row.id, GAP, 58, ink, 14, canvas.width - 2 * GAP);
  const image = await loaded(card.image);
  const maps = [null, ...[["invariant", "P"], ["dominant", "Q"]].map(([key, of]) => picture(floats(card.maps[key]), of))];
  for (const [k, map] of maps.entries()) {
    const x = GAP + k * (SIZE + GAP);
    if (image) context.drawImage(image, x, 74, SIZE, SIZE);
    if (map) context.drawImage(await loaded(map), x, 74, SIZE, SIZE);
  }
  for (const {cell} of card.edits) framed(context, GAP, 74, SIZE, cell, p);
  const captions = ["the image, replaced cells", `evidence for ${className(row.P)}`, `deciding for ${className(row.Q)}`];
  for (const [k, text] of captions.entries()) words(text, GAP + k * (SIZE + GAP), 96 + SIZE);
  curve(context, card, {x: 2 * GAP + 3 * (SIZE + GAP), y: 84, p, q, ink});
  words("probabilities of P and Q", GAP + 3 * (SIZE + GAP), 96 + SIZE);
  const side = (canvas.width - 9 * GAP) / 8;
  for (const [t, edit] of shown.entries()) {
    const [x, y] = [GAP + t * (side + GAP), 130 + SIZE];
    const reference = card.references[t].image && await loaded(card.references[t].image);
    if (reference) context.drawImage(reference, x, y, side, side);
    framed(context, x, y, side, edit.candidate_cell, q);
    words(`${t + 1}: cell ${edit.cell} from`, x, y + side + 18, ink, 13, side);
    words(card.references[t].id, x, y + side + 35, ink, 11, side);
  }
  return canvas;
}

function framed(context, x, y, size, cell, colour) {
  const side = size / report.n;
  context.strokeStyle = colour;
  context.lineWidth = 2.5;
  context.strokeRect(x + (cell % report.n) * side, y + Math.floor(cell / report.n) * side, side, side);
}

function curve(context, card, {x, y, p, q, ink}) {
  const [width, height] = [SIZE - 2 * GAP, SIZE - 20];
  context.lineWidth = 1;
  context.strokeStyle = ink;
  context.strokeRect(x, y, width, height);
  context.lineWidth = 2.5;
  for (const [values, colour] of [[card.pP, p], [card.pQ, q]]) {
    context.strokeStyle = colour;
    context.beginPath();
    for (const [k, value] of values.entries()) {
      context.lineTo(x + width * k / Math.max(values.length - 1, 1), y + height * (1 - value));
    }
    context.stroke();
  }
}

export async function savePicture(row, card) {
  const canvas = await drawn(row, card);
  canvas.toBlob((blob) => save(`${row.id}.png`, blob));
}

