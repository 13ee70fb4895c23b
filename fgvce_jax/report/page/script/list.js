// The cards that are asked for: filtered, sorted, and built when they come into view.

import {build} from "./card.js";
import {cardOf, rows} from "./data.js";
import {el, field} from "./dom.js";

const KEPT = 40;

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

const text = (key) => (a, b) => a[key].localeCompare(b[key], undefined, {numeric: true});
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

const built = new Set();
const comings = new IntersectionObserver(meet, {rootMargin: "900px 0px"});

function meet(entries) {
  for (const {target, isIntersecting} of entries) if (isIntersecting) fill(target);
  if (built.size > KEPT) trim();
}

/** Build the card of an article, once. */
export async function fill(article) {
  if (article.dataset.built) return;
  article.dataset.built = "soon";
  const row = rows[Number(article.dataset.n)];
  try {
    build(article, row, await cardOf(row));
  } catch (error) {
    article.replaceChildren(el("p", {class: "missing"}, `${row.id}: ${error.message}`));
  }
  built.add(article);
}

/** Empty the cards furthest from view, at the height that they had. */
function trim() {
  const middle = innerHeight / 2;
  const away = (article) => Math.abs(article.getBoundingClientRect().top - middle);
  const far = [...built].map((article) => [away(article), article]).sort((a, b) => b[0] - a[0]);
  for (const [distance, article] of far.slice(0, built.size - KEPT)) {
    if (distance < 3000 || article.contains(document.activeElement)) continue;
    built.delete(article);
    article.style.minHeight = `${article.offsetHeight}px`;
    article.replaceChildren(el("h3", {}, rows[Number(article.dataset.n)].text));
    delete article.dataset.built;
  }
}

/** Show rows as cards, each a place that is filled when it comes near the view. */
export function show(found) {
  comings.disconnect();
  built.clear();
  const articles = found.map((row) => el("article", {
    class: "card box", tabindex: -1, "data-n": row.n, "data-id": row.id, "aria-label": row.text,
  }));
  field("cards").replaceChildren(...articles);
  for (const article of articles) comings.observe(article);
}

export const articles = () => [...field("cards").querySelectorAll(".card")];
