// Runs side by side: who is wrong where, and how each explains it.

import {className, item, report, rows} from "./data.js";
import {el, field} from "./dom.js";
import {show, step} from "./list.js";
import {picture} from "./maps.js";
import {count, floats} from "./numbers.js";
import {enlargeable, view} from "./pictures.js";

const NAMES = {P: "evidence for", Q: "deciding for"};

/** The column of one run: what it predicted, its replaced cells, both maps. */
function column(run, shown, image) {
  const name = el("h4", {}, el("bdi", {}, run.name));
  if (!shown) return el("section", {class: "run"}, name, el("p", {class: "soft"}, "not explained: classified correctly"));
  const n = run.n;
  const frames = shown.edits.map((cell, t) => ({cell, of: "P", text: t + 1}));
  const drawn = [view({image, frames, n, label: `${run.name}: replaced cells in order`}),
    ...Object.keys(NAMES).map((of) => view({
      image, n, map: picture(floats(shown.maps[of]), of), label: `${run.name}: ${NAMES[of]} ${className(shown[of])}`,
    }))];
  const p = (values) => `${values[0].toFixed(2)} → ${values[1].toFixed(2)}`;
  return el("section", {class: "run"}, name,
    el("p", {}, "predicts ", el("bdi", {class: "p"}, className(shown.P)), `, ${count(shown.edits.length, "edit")}`,
      shown.flipped ? "" : ", not flipped"),
    el("div", {class: "views"}, drawn.map((drawing) => el("figure", {}, enlargeable(drawing, () => drawing.getAttribute("aria-label"))))),
    el("p", {class: "soft"}, `P ${p(shown.pP)}, Q ${p(shown.pQ)}`));
}

async function build(article, row) {
  const card = await item("cards", row.n);
  article.replaceChildren(
    el("header", {}, el("h3", {}, el("bdi", {}, row.id)), el("span", {class: "tag"}, report.groups[row.group]),
      el("span", {class: "soft"}, "Q: ", el("bdi", {class: "q"}, className(row.Q)))),
    card.gone ? el("p", {class: "missing"}, card.gone) : "",
    el("div", {class: "runs"}, report.runs.map((run, k) => column(run, card.runs[k], card.image))));
}

function render() {
  const words = field("q").value.toLowerCase().split(/\s+/);
  const group = field("group").value;
  const found = rows.filter((row) => (group === "" || row.group === Number(group))
    && words.every((word) => row.text.includes(word)));
  field("shown").value = `${found.length} of ${count(rows.length, "image")}`;
  field("none").replaceChildren(...(found.length ? [] : [el("p", {}, "No image has all that is asked for.")]));
  show(found, build);
}

field("group").append(...report.groups.map((name, k) => el("option", {value: k}, name)));
for (const id of ["q", "group"]) field(id).addEventListener("input", render);
addEventListener("keydown", (event) => {
  if (event.target.closest("input, select, dialog") || !["j", "k"].includes(event.key)) return;
  step(event.key === "j" ? 1 : -1);
});
render();
