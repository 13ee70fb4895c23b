// A card: one image, its maps, the curves and every edit.

import {cardOf, className, report} from "./data.js";
import {curves} from "./curve.js";
import {el} from "./dom.js";
import {after, describe, editList, slider, whyNoUndo} from "./edits.js";
import {BLANK, picture, upTo} from "./maps.js";
import {count, floats, percent} from "./numbers.js";
import {enlargeable, view} from "./pictures.js";
import {link} from "./state.js";
import {saveJson, savePicture} from "./takeaway.js";

const named = (k, of) => el("bdi", {class: of}, className(k));

/** "P, not Q" of a row, each in its colour. */
export const question = (row) => [named(row.P, "p"), ", not ", named(row.Q, "q")];

function outcome(row) {
  if (row.status === "no_reference") return el("span", {class: "tag no"}, "no reference image");
  const edits = `${row.edits} edit${row.edits === 1 ? "" : "s"}`;
  return row.flipped
    ? el("span", {class: "tag yes"}, `flips after ${edits}`)
    : el("span", {class: "tag no"}, `not flipped after ${edits}`);
}

function header(row, card) {
  return el("header", {},
    el("h3", {}, el("a", {href: link({card: row.id}), title: "a link to this card"}, question(row))),
    outcome(row),
    el("span", {class: "id"}, el("bdi", {}, row.id)),
    el("span", {class: "take"},
      card.edits.length ? el("button", {type: "button", click: () => savePicture(row, card)}, "PNG") : null,
      el("button", {type: "button", click: () => saveJson(row, card)}, "JSON")));
}

/** The image and both maps, and a function that shows them with some edits made. */
function views(row, card) {
  const maps = {P: floats(card.maps.invariant), Q: floats(card.maps.dominant)};
  const names = {P: "evidence for", Q: "deciding for"};
  const frames = card.edits.map((edit, t) => ({cell: edit.cell, of: "P", text: t + 1}));
  const bare = {image: card.image, pixelated: card.small};
  const image = view({...bare, frames, label: "the image, replaced cells in order"});
  const drawn = Object.keys(maps).map((of) => {
    const k = row[of];
    const drawing = view({...bare, map: BLANK, label: `${names[of]} ${className(k)}`});
    return {of, drawing, caption: el("figcaption", {}, `${names[of]} `, named(k, of.toLowerCase()))};
  });
  const framed = image.querySelectorAll(".frames > g");
  function show(on) {
    for (const [t, made] of on.entries()) framed[t].classList.toggle("off", !made);
    for (const {of, drawing} of drawn) {
      const whole = maps[of];
      const map = picture(upTo(whole, card.edits, on), of, Math.max(...whole));
      drawing.querySelector(".map").setAttribute("href", map);
    }
  }
  const figure = (drawing, caption) => el("figure", {},
    enlargeable(drawing, () => `${row.id}: ${drawing.getAttribute("aria-label")}`), caption);
  const shown = card.gone
    ? el("figure", {}, image, el("figcaption", {class: "missing"}, card.gone))
    : figure(image, el("figcaption", {}, "the image, replaced cells in order"));
  const element = el("div", {class: "views"}, shown,
    drawn.map(({drawing, caption}) => figure(drawing, caption)), twin(row, card));
  return {element, show};
}

function twin(row, card) {
  if (!card.twin) return null;
  const {image, of, parts, hits, chance} = card.twin;
  const label = `its twin, the same bird as ${className(row[of])}`;
  const drawing = view({image, label, pixelated: card.small});
  const share = hits.length ? hits.reduce((a, b) => a + b, 0) / hits.length : 0;
  return el("figure", {class: "twin"}, enlargeable(drawing, () => label),
    el("figcaption", {}, "its twin as ", named(row[of], of.toLowerCase()), `: differs in ${parts.join(", ")}. `,
      `${percent(share, 0)} of the edits lie there (chance ${percent(chance, 0)})`));
}

function gallery(row, card) {
  if (!report.methods.length) return null;
  return el("div", {class: "gallery"}, report.methods.map(({name, of}) => {
    const words = el("figcaption", {class: of.toLowerCase()}, `${name} · ${of}`);
    const values = floats(card.maps[name]);
    if (values.some(Number.isNaN)) return el("figure", {}, el("b", {}, "NaN"), words);
    const map = picture(values, of);
    const label = `${name} of ${className(row[of])}`;
    const drawing = view({image: card.image, map, label, pixelated: card.small});
    return el("figure", {}, enlargeable(drawing, () => label), words);
  }));
}

/** What speaks for a wrong label, in a line, and how the neighbours in feature space vote. */
function evidence(row, card) {
  const near = card.nearest.length;
  const of = (k) => card.nearest.filter((found) => found === k).length;
  const chance = (near / report.reference_classes.length).toFixed(1);
  const votes = near
    ? `Of the ${near} nearest references ${of(row.Q)} are of Q (chance ${chance}) and ${of(row.P)} of P `
      + (report.reference_classes.includes(row.P) ? `(chance ${chance}). ` : "(there are none of P). ")
    : null;
  if (row.suspect === null) return votes && el("p", {class: "soft"}, votes);
  const times = row.pP0 / Math.max(row.pQ0, 1e-6);
  const similarity = card.edits.reduce((sum, edit) => sum + edit.similarity, 0) / card.edits.length;
  return el("p", {class: row.suspected ? "suspect" : "soft"},
    el("b", {}, row.suspected ? "Is the label wrong? " : "Label: "),
    `score ${row.suspect.toFixed(2)}. P is ${times < 10 ? times.toFixed(1) : Math.round(times).toLocaleString("en")} times `
    + `as probable as Q; ${count(card.edits.length, "edit")} of mean similarity ${similarity.toFixed(2)}. `, votes);
}

/** Fill an article with the card of a row. */
export async function build(article, row) {
  const card = await cardOf(row);
  article.replaceChildren(header(row, card));
  const pictures = views(row, card);
  const side = el("div", {class: "side"});
  article.append(el("div", {}, pictures.element, gallery(row, card)), side);
  if (card.edits.length) {
    let on = card.edits.map(() => true);
    const label = `probabilities of ${className(row.P)} and ${className(row.Q)} after each edit`;
    const plot = curves(card, label);
    const range = slider(card, row.n, set);
    const list = editList(card, row, (t) => set(on.map((made, k) => (k === t ? !made : made))));
    function set(next) {
      on = next;
      const found = after(card, row, on);
      const made = on.filter(Boolean).length;
      range.input.value = made;
      range.words.replaceChildren(...describe(on, found).filter((node) => node !== null));
      plot.mark(made, found.pP, found.pQ);
      pictures.show(on);
      list.boxes.forEach((box, t) => { if (box) box.checked = on[t]; });
    }
    const why = whyNoUndo(card);
    side.append(
      el("figure", {}, plot.drawing, el("figcaption", {}, "probability of ", named(row.P, "p"),
        " and of ", named(row.Q, "q"), " after each edit")),
      range.element, why ? el("p", {class: "soft"}, `Single edits cannot be undone here: ${why}.`) : "");
    set(on);
    article.append(list.element);
  }
  side.append(evidence(row, card) ?? "");
}
