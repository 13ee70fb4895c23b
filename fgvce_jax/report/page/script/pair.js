// The page of a pair: how often, in which direction, and what is replaced again and again.

import {className, item, pairs, report, rows} from "./data.js";
import {el, field} from "./dom.js";
import {picture} from "./maps.js";
import {count, floats, median, percent} from "./numbers.js";
import {enlargeable, view} from "./pictures.js";
import {link} from "./state.js";

const NAMES = [["top left", "top", "top right"], ["left", "middle", "right"], ["bottom left", "bottom", "bottom right"]];

/** The ninths of the image with most of the replaced cells: name, share, and share of all cells. */
export function regions(replaced, n) {
  const third = (at) => Math.min(2, Math.floor(3 * (at + 0.5) / n));
  const total = replaced.reduce((a, b) => a + b, 0) || 1;
  const found = new Map();
  replaced.forEach((times, cell) => {
    const name = NAMES[third(Math.floor(cell / n))][third(cell % n)];
    const {share, chance} = found.get(name) ?? {share: 0, chance: 0};
    found.set(name, {share: share + times / total, chance: chance + 1 / replaced.length});
  });
  return [...found].map(([name, shares]) => ({name, ...shares})).sort((a, b) => b.share - a.share);
}

function shares(title, found) {
  const item = ({name, share, chance}) => el("li", {}, el("b", {}, name),
    ` ${percent(share, 0)} of the edits `, el("span", {class: "soft"}, `chance ${percent(chance, 0)}`));
  return el("div", {}, el("h2", {}, title),
    found.length ? el("ol", {class: "shares"}, found.slice(0, 4).map(item)) : el("p", {class: "soft"}, "No edits."));
}

function mean(values, of, caption) {
  const drawing = view({image: null, map: picture(floats(values), of), label: caption});
  return el("figure", {}, enlargeable(drawing, () => caption), el("figcaption", {}, caption));
}

async function references(used) {
  const shown = await Promise.all(used.map(async ([k, edits]) => {
    const {id, image, gone} = await item("references", k);
    const drawing = view({image, label: `reference ${id}`});
    return el("figure", {}, image ? enlargeable(drawing, () => id) : el("span", {class: "missing"}, gone),
      el("figcaption", {title: id}, `${count(edits, "edit")} · `, el("bdi", {}, id.split("/").at(-1))));
  }));
  return el("div", {class: "used"}, el("h2", {}, "References used most"), el("div", {class: "row"}, shown));
}

function heading(pair, back) {
  const own = rows.filter((row) => row.pair === pair.key);
  const suspects = own.filter((row) => row.suspected).length;
  const asked = report.question === "confusion";
  const named = (k) => el("bdi", {}, className(k));
  const said = ({P, Q}) => (asked
    ? ["of ", named(P), ", predicted correctly, asked why not ", named(Q)]
    : ["labelled ", named(Q), " and predicted as ", named(P)]);
  return [
    el("p", {}, el("a", {href: link({pair: "", card: ""})}, "← all pairs")),
    el("h2", {class: "large", tabindex: -1, id: "pair-title"},
      el("bdi", {class: "p"}, className(pair.P)), ", not ", el("bdi", {class: "q"}, className(pair.Q))),
    el("p", {}, el("b", {}, count(pair.count, "image")), " ", said(pair),
      ` (${percent(pair.count / report.explanations)} of all ${asked ? "explanations" : "mistakes"}). The other way round: `,
      back ? [count(back.count, "image"), " ", said(back), " (", el("a", {href: link({pair: back.key, card: ""})}, "see them"), ")"] : "none",
      `. Edits: median ${median(own.map((row) => row.edits))}.`,
      suspects ? ` ${count(suspects, "label")} of these look wrong.` : null),
  ];
}

/** Show the page of a pair, or say that there is none of that name. */
export async function pairPage(key) {
  const place = pairs.findIndex((pair) => pair.key === key);
  const section = field("pair");
  if (place < 0) {
    section.replaceChildren(el("p", {}, "This report has no such pair. ", el("a", {href: link({pair: "", card: ""})}, "All pairs")));
    return;
  }
  const pair = pairs[place];
  const back = pairs.find((other) => other.P === pair.Q && other.Q === pair.P);
  section.replaceChildren(...heading(pair, back));
  const found = await item("pairs", place);
  const used = await references(found.references);
  if (section.dataset.key !== key) return;
  section.append(
    el("div", {class: "findings"},
      shares("Regions replaced most", regions(found.replaced, report.n).filter(({share}) => share > 0)),
      found.parts.length ? shares("Parts replaced most", found.parts) : null,
      el("div", {class: "row means"}, mean(found.invariant, "P", "mean evidence for P"), mean(found.dominant, "Q", "mean of what decides for Q"))),
    found.references.length ? used : "");
}
