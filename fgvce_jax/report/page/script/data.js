// The report's data: the index, which is always there, and chunks that are read when needed.
//
// In a page of one file a chunk is a JSON block of it. In a folder it is a script beside the page
// that calls `fgvceChunk`: a page opened from the disk may run such a script, but not fetch a file.

import {field} from "./dom.js";

export const report = JSON.parse(field("index").textContent);

/** Rows as objects, in the order of the split; `n` is a row's number. */
export const rows = report.rows.id.map((_, n) => {
  const row = {n};
  for (const [key, column] of Object.entries(report.rows)) row[key] = column[n];
  row.suspected = row.suspect !== null && row.suspect >= report.suspect_from;
  row.pair = `${row.P}-${row.Q}`;
  row.text = `${className(row.P)}, not ${className(row.Q)} ${row.id}`.toLowerCase();
  return row;
});

export const pairs = report.pairs.map((pair) => ({...pair, key: `${pair.P}-${pair.Q}`}));

/** A class's name as it is shown. */
export function className(k) {
  return (report.classes[k] ?? `class ${k}`).replaceAll("_", " ");
}

const chunks = new Map();
const waiting = new Map();

globalThis.fgvceChunk = (kind, number, items) => waiting.get(`${kind}-${number}`)(items);

function chunk(kind, number) {
  const name = `${kind}-${number}`;
  if (!chunks.has(name)) chunks.set(name, report.folder ? fromFile(name) : fromBlock(name));
  return chunks.get(name);
}

async function fromBlock(name) {
  return JSON.parse(field(name).textContent);
}

function fromFile(name) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    waiting.set(name, resolve);
    script.src = `${report.folder}/${name}.js`;
    script.onerror = () => reject(new Error(`${script.src} is missing beside this page`));
    document.head.append(script);
  });
}

/** Item `n` of a kind: "cards", "references" or "pairs". */
export async function item(kind, n) {
  const size = report.chunks[kind];
  const items = await chunk(kind, Math.floor(n / size));
  return items[n % size];
}

/** A card with the references of its edits, in the order of the edits. */
export async function cardOf(row) {
  const card = await item("cards", row.n);
  const references = await Promise.all(card.edits.map((edit) => item("references", edit.reference)));
  return {...card, references};
}
