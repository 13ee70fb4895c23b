// The labels that look wrong, the most suspect first.

import {className, item, report, rows} from "./data.js";
import {el, field} from "./dom.js";
import {count} from "./numbers.js";
import {link} from "./state.js";

const SHOWN = 6;

/** A suspect label, and a function that fetches its picture. */
function suspect(row) {
  const image = el("img", {alt: "", class: "thumb"});
  const element = el("li", {}, image, el("div", {},
    el("a", {href: link({card: row.id}), title: row.id}, el("bdi", {}, row.id.split("/").at(-1))),
    el("br"), "labelled ", el("bdi", {class: "q"}, className(row.Q)),
    el("br"), "predicted ", el("bdi", {class: "p"}, className(row.P)),
    el("br"), el("span", {class: "soft"}, `score ${row.suspect.toFixed(2)}`)));
  async function draw() {
    const card = await item("cards", row.n);
    if (card.image) image.src = card.image;
  }
  return {element, draw};
}

/** The list on the first page; nothing where no mistake was scored. */
export function suspectList() {
  const scored = rows.filter((row) => row.suspect !== null);
  const section = field("suspect-labels");
  section.hidden = !scored.length;
  const found = scored.filter((row) => row.suspected).sort((a, b) => b.suspect - a.suspect);
  const shown = found.slice(0, SHOWN).map(suspect);
  section.replaceChildren(
    el("h2", {}, "Is it the label? ", el("span", {class: "soft"},
      `${count(found.length, "suspect label")} among ${count(scored.length, "mistake")}, a score of ${report.suspect_from} or more`)),
    el("ol", {class: "suspects"}, shown.map(({element}) => element)),
    found.length ? el("a", {href: link({suspects: "1", sort: "-suspect"})}, "all of them, the most suspect first") : "",
    el("p", {class: "soft"}, "The score weighs how much more probable P is than Q, how dissimilar the cells are that Q "
      + "needs, how many, and which classes the nearest references are of."));
  const coming = new IntersectionObserver((entries) => {
    if (!entries.some(({isIntersecting}) => isIntersecting)) return;
    coming.disconnect();
    for (const {draw} of shown) draw();
  });
  coming.observe(section);
}
