// An image with frames around cells and a map over it, and the dialog that enlarges one.

import {report} from "./data.js";
import {el, field, svg} from "./dom.js";

const place = (cell, n) => ({x: cell % n, y: Math.floor(cell / n)});

/** The part of an image shown for a cell: a cell's width around it, at least 3/7 of the side. */
function cropped(cell, n) {
  const side = Math.min(n, Math.max(3, 3 * n / 7));
  const {x, y} = place(cell, n);
  const start = (at) => Math.min(Math.max(at + 0.5 - side / 2, 0), n - side);
  return `${start(x)} ${start(y)} ${side} ${side}`;
}

function frame({cell, of, text}, n) {
  const {x, y} = place(cell, n);
  const number = text && n <= 16
    ? svg("text", {class: "number", x: x + 0.5, y: y + 0.5}, String(text))
    : null;
  return svg("g", {"data-cell": cell},
    svg("rect", {class: `cell ${of.toLowerCase()}`, x, y, width: 1, height: 1}), number);
}

/**
 * An image, its side n cells long (by default as many as the report's).
 *
 * `frames` are {cell, of: "P" or "Q", text}; `map` is a picture over the image, which the pointer
 * lifts; `crop` a cell to show with its surroundings only. A gone image is a grey field.
 */
export function view({image, label, frames = [], map = null, crop = null, pixelated = false, n = report.n}) {
  const whole = {width: n, height: n, preserveAspectRatio: "none"};
  return svg("svg", {
    viewBox: crop === null ? `0 0 ${n} ${n}` : cropped(crop, n), role: "img", "aria-label": label,
    class: pixelated ? "pixelated" : null,
  },
  image
    ? svg("image", {...whole, href: image, class: map ? "under" : null})
    : svg("rect", {...whole, class: "gone"}),
  map ? svg("image", {...whole, href: map, class: "map"}) : null,
  svg("g", {class: "frames"}, frames.map((framed) => frame(framed, n))));
}

/** A picture as a button that enlarges it; `caption` gives the words for the large one. */
export function enlargeable(drawing, caption) {
  return el("button", {
    class: "enlarge", type: "button", title: "enlarge",
    "aria-label": `enlarge ${drawing.getAttribute("aria-label")}`,
    click: () => enlarge(drawing, caption),
  }, drawing);
}

function enlarge(drawing, caption) {
  const dialog = field("enlarged");
  dialog.replaceChildren(
    el("form", {method: "dialog"}, el("button", {class: "close"}, "close")),
    drawing.cloneNode(true),
    el("p", {}, caption()),
  );
  dialog.showModal();
}
