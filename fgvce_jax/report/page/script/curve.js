// The probabilities of P and Q over the edits, with a mark at the edits made now.

import {svg} from "./dom.js";

const WIDTH = 350;
const HEIGHT = 150;

/** The curves of a card: the drawing, and a function that moves the mark. */
export function curves(card, label) {
  const steps = Math.max(card.pQ.length - 1, 1);
  const at = (k, p) => [WIDTH * k / steps, HEIGHT * (1 - p)];
  const line = (p, of) => svg("polyline", {
    class: of, points: p.map((value, k) => at(k, value).map((x) => x.toFixed(1)).join()).join(" "),
  });
  const dot = (of) => svg("circle", {class: of, r: 5});
  const dots = {p: dot("p"), q: dot("q")};
  const rule = svg("line", {class: "rule", y1: 0, y2: HEIGHT});
  const grid = [0, 0.5, 1].map((level) => [
    svg("line", {class: "grid", x1: 0, x2: WIDTH, y1: at(0, level)[1], y2: at(0, level)[1]}),
    svg("text", {x: -6, y: at(0, level)[1] + 4, "text-anchor": "end"}, String(level)),
  ]);
  const drawing = svg("svg", {class: "curve", viewBox: "-28 -10 440 188", role: "img", "aria-label": label},
    grid, rule, line(card.pP, "p"), line(card.pQ, "q"), ends(card, at), dots.p, dots.q,
    svg("text", {x: 0, y: HEIGHT + 20}, "0"),
    svg("text", {x: WIDTH, y: HEIGHT + 20, "text-anchor": "end"}, `${card.pQ.length - 1} edits`));

  function mark(made, pP, pQ) {
    const [x] = at(made, 0);
    rule.setAttribute("x1", x);
    rule.setAttribute("x2", x);
    for (const [of, p] of [["p", pP], ["q", pQ]]) {
      dots[of].setAttribute("cx", x);
      dots[of].setAttribute("cy", at(made, p)[1]);
    }
  }
  return {drawing, mark};
}

/** The last values beside the curves, moved apart where they would overlap. */
function ends(card, at) {
  const last = card.pQ.length - 1;
  const [x, q] = at(last, card.pQ[last]);
  let p = at(last, card.pP[last])[1];
  if (Math.abs(p - q) < 15) p = q + (p < q ? -15 : 15);
  return [["q", card.pQ[last], q], ["p", card.pP[last], p]].map(([of, value, y]) =>
    svg("text", {class: `end ${of}`, x: x + 10, y: y + 4}, value.toFixed(2)));
}
