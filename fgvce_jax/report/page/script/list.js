// Cards that are built when they come into view.

import {rows} from "./data.js";
import {el, field} from "./dom.js";

const KEPT = 40;

const built = new Set();
let build = null;
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
    await build(article, row);
    article.dataset.built = "yes";
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

/** Show rows as cards, each a place that `make` (article, row) fills when it comes near the view. */
export function show(found, make) {
  build = make;
  comings.disconnect();
  built.clear();
  const articles = found.map((row) => el("article", {
    class: "card box", tabindex: -1, "data-n": row.n, "data-id": row.id, "aria-label": row.text,
  }));
  field("cards").replaceChildren(...articles);
  for (const article of articles) comings.observe(article);
}

export const articles = () => [...field("cards").querySelectorAll(".card")];
