// The edits of a card: the slider over them, and single ones switched off and on again.

import {className, report} from "./data.js";
import {el} from "./dom.js";
import {floats, prefix, probability, softmaxAfter} from "./numbers.js";
import {enlargeable, view} from "./pictures.js";

const SHOWN = 8;

/** The probabilities of P and Q, and the class predicted (null: not known), with some edits made. */
export function after(card, row, on) {
  const made = prefix(on);
  if (card.logits === null) {
    return {pP: card.pP[made], pQ: card.pQ[made], predicted: null};
  }
  const p = softmaxAfter(floats(card.logits), floats(card.changes), on);
  const of = (k) => p[card.kept.indexOf(k)] ?? 0;
  // The run's own numbers where it has them: they are the model's to the last digit.
  const [pP, pQ] = made === null ? [of(row.P), of(row.Q)] : [card.pP[made], card.pQ[made]];
  return {pP, pQ, predicted: card.kept[p.indexOf(Math.max(...p))]};
}

/** The slider with its words; `changed` is called with the first edits on, as many as it says. */
export function slider(card, id, changed) {
  const total = card.edits.length;
  const input = el("input", {
    type: "range", min: 0, max: total, step: 1, value: total, id: `slider-${id}`,
    "aria-label": "edits made",
    input: () => changed(card.edits.map((_, t) => t < Number(input.value))),
  });
  const words = el("output", {class: "made", for: `slider-${id}`});
  return {input, words, element: el("div", {class: "slider"}, input, words)};
}

/** The words beside the slider. */
export function describe(on, found) {
  const made = on.filter(Boolean).length;
  const predicted = found.predicted === null
    ? null
    : el("span", {}, " predicted: ", el("bdi", {}, className(found.predicted)));
  return [
    `${made} of ${on.length} edits: `,
    el("span", {class: "p", "data-p": found.pP}, `P ${probability(found.pP)}`), " ",
    el("span", {class: "q", "data-q": found.pQ}, `Q ${probability(found.pQ)}`),
    predicted,
  ];
}

/** Why single edits cannot be switched off; null where they can. */
export function whyNoUndo(card) {
  if (card.logits !== null) return null;
  return report.edits_interact ?? "this run does not hold the change of the logits by each edit";
}

/** The list of the edits, each with the whole reference image; `toggle` is called with its number. */
export function editList(card, row, toggle) {
  const undo = whyNoUndo(card) === null;
  const items = card.edits.map((edit, t) => editItem(card, row, edit, t, undo ? toggle : null));
  const list = el("ol", {class: "edits"}, items.slice(0, SHOWN));
  const rest = items.length - SHOWN;
  const more = rest > 0
    ? el("button", {type: "button", class: "more", click: () => {
      list.append(...items.slice(SHOWN));
      more.remove();
    }}, `show the other ${rest} edits`)
    : null;
  const boxes = items.map((node) => node.querySelector("input"));
  return {element: el("div", {class: "all-edits"}, list, more), boxes};
}

function editItem(card, row, edit, t, toggle) {
  const reference = card.references[t];
  const number = t + 1;
  const [cell, there] = [{cell: edit.cell, of: "P"}, {cell: edit.candidate_cell, of: "Q"}];
  const old = view({image: card.image, crop: edit.cell, frames: [cell], pixelated: card.small,
    label: `the replaced cell ${edit.cell} of the image`});
  const whole = view({image: reference.image, frames: [there], pixelated: card.small,
    label: `reference ${reference.id}, cell ${edit.candidate_cell} framed`});
  const words = () => `Edit ${number}: cell ${edit.candidate_cell} of ${reference.id}, an image of `
    + `${className(row.Q)}, similarity ${edit.similarity.toFixed(2)}`;
  const box = toggle && el("input", {type: "checkbox", checked: true, "aria-label": `edit ${number}`,
    change: () => toggle(t)});
  return el("li", {},
    el("div", {class: "two"}, enlargeable(old, words), el("span", {"aria-hidden": "true"}, "→"),
      reference.image ? enlargeable(whole, words) : el("span", {class: "missing"}, reference.gone)),
    el("div", {class: "figures", title: words()},
      el("label", {}, box, ` ${number}`),
      el("span", {}, `similarity ${edit.similarity.toFixed(2)}`),
      el("span", {class: "q"}, card.pQ[number].toFixed(2))),
    edit.parts?.length ? el("div", {class: "soft"}, edit.parts.join(", ")) : null);
}
