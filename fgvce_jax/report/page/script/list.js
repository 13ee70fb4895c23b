// A list of cards. Of thousands only those near the view exist.
//
// The list is cut into stretches. One that comes near the view gets its places, one for each card,
// and a place that comes nearer its card; both are emptied again at the height that they had.

import {rows} from "./data.js";
import {el, field} from "./dom.js";

const STRETCH = 100;
const BUILT = 40;
const HEIGHT = 572;

let found = [];
let build = null;
const built = new Set();
const comings = new IntersectionObserver(meet, {rootMargin: "900px 0px"});
const stretches = new IntersectionObserver((entries) => {
  for (const {target, isIntersecting} of entries) (isIntersecting ? lay : clear)(target);
}, {rootMargin: "3000px 0px"});

function meet(entries) {
  for (const {target, isIntersecting} of entries) if (isIntersecting) fill(target);
  if (built.size > BUILT) trim();
}

/** Build the card of an article, once. */
export async function fill(article) {
  if (article.dataset.built) return;
  article.dataset.built = "soon";
  const row = rows[Number(article.dataset.n)];
  try {
    await build(article, row);
    article.dataset.built = "yes";
  } catch (error) {
    article.replaceChildren(el("p", {class: "missing"}, `${row.id}: ${error.message}`));
  }
  if (article.isConnected) built.add(article);
}

/** Empty the cards furthest from view. */
function trim() {
  const middle = innerHeight / 2;
  const away = (article) => Math.abs(article.getBoundingClientRect().top - middle);
  const far = [...built].map((article) => ({article, distance: away(article), height: article.offsetHeight}))
    .sort((a, b) => b.distance - a.distance)
    .slice(0, built.size - BUILT);
  for (const {article, distance, height} of far) {
    if (distance < 3000 || article.contains(document.activeElement)) continue;
    built.delete(article);
    article.style.minHeight = `${height}px`;
    article.replaceChildren(el("h3", {}, rows[Number(article.dataset.n)].text));
    delete article.dataset.built;
  }
}

function place(row) {
  return el("article", {
    class: "card box", tabindex: -1, "data-n": row.n, "data-id": row.id, "aria-label": row.text,
  });
}

/** Give a stretch its places, once. */
function lay(stretch) {
  if (stretch.firstChild) return;
  const first = STRETCH * Number(stretch.dataset.k);
  stretch.append(...found.slice(first, first + STRETCH).map(place));
  stretch.style.height = "";
  for (const article of stretch.children) comings.observe(article);
}

/** Empty a stretch; the first stays, as the list begins with it. */
function clear(stretch) {
  if (!stretch.firstChild || stretch.dataset.k === "0" || stretch.contains(document.activeElement)) return;
  stretch.style.height = `${stretch.offsetHeight}px`;
  for (const article of stretch.children) {
    comings.unobserve(article);
    built.delete(article);
  }
  stretch.replaceChildren();
}

/** Show rows as cards, each a place that `make` (article, row) fills when it comes near the view. */
export function show(wanted, make) {
  [found, build] = [wanted, make];
  comings.disconnect();
  stretches.disconnect();
  built.clear();
  const all = Array.from({length: Math.ceil(found.length / STRETCH)}, (_, k) => {
    const count = Math.min(STRETCH, found.length - STRETCH * k);
    return el("div", {"data-k": k, style: `height:${HEIGHT * count}px`});
  });
  field("cards").replaceChildren(...all);
  if (all.length) lay(all[0]);
  for (const stretch of all) stretches.observe(stretch);
}

/** The places of the first cards, at most `count`. */
export function firsts(count) {
  const all = [...field("cards").children].slice(0, Math.ceil(count / STRETCH));
  all.forEach(lay);
  return all.flatMap((stretch) => [...stretch.children]).slice(0, count);
}

/** Go to the next (1) or previous (-1) card of the list, the first one where none has the focus. */
export function step(by) {
  const current = document.activeElement?.closest(".card");
  const at = current ? found.findIndex((row) => row.n === Number(current.dataset.n)) + by : 0;
  const position = Math.max(0, at);
  if (position >= found.length) return;
  const stretch = field("cards").children[Math.floor(position / STRETCH)];
  lay(stretch);
  const article = stretch.children[position % STRETCH];
  article.focus({preventScroll: true});
  article.scrollIntoView();
}
