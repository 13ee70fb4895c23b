// Which cards are asked for, and in which order.

import {rows} from "./data.js";

/** Whether a row is among those that a state asks for. */
export function wanted(row, state) {
  const edits = row.edits;
  return (!state.pair || row.pair === state.pair)
    && state.q.toLowerCase().split(/\s+/).every((word) => row.text.includes(word))
    && edits >= Number(state.least || 0)
    && edits <= (state.most === "" ? Infinity : Number(state.most))
    && (!state.unflipped || !row.flipped)
    && (!state.unlikely || row.pQ1 === null || row.pQ1 < 0.5)
    && (!state.suspects || row.suspected);
}

const {compare} = new Intl.Collator(undefined, {numeric: true});
const text = (key) => (a, b) => compare(a[key], b[key]);
const number = (key) => (a, b) => (a[key] ?? 0) - (b[key] ?? 0);
const ORDERS = {
  index: number("index"), edits: number("edits"), before: number("pQ0"), after: number("pQ1"),
  suspect: number("suspect"), pair: text("text"), id: text("id"),
};

/** The rows that a state asks for, in its order. */
export function select(state) {
  const [, sign, key] = state.sort.match(/^(-?)(.*)$/);
  const order = ORDERS[key] ?? ORDERS.index;
  const found = rows.filter((row) => wanted(row, state));
  return found.sort((a, b) => (sign ? -1 : 1) * order(a, b) || a.n - b.n);
}
