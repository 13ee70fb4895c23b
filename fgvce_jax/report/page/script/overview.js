// What is confused with what: the ranked pairs, the matrix of classes, and two histograms.

import {className, pairs, report, rows} from "./data.js";
import {el, field, svg} from "./dom.js";
import {count, duration} from "./numbers.js";
import {link} from "./state.js";

const SHOWN = 10;
const CLASSES = 12;

const named = (k, of) => el("bdi", {class: of}, className(k));
const opposite = (pair) => pairs.find((other) => other.P === pair.Q && other.Q === pair.P)?.count ?? 0;

function pairRow(pair) {
  const width = 60 * pair.count / pairs[0].count;
  return el("tr", {},
    el("td", {}, el("a", {href: link({pair: pair.key, card: ""})}, named(pair.P, "p"), ", not ", named(pair.Q, "q"))),
    el("td", {}, el("span", {class: "bar", style: `width:${width.toFixed(0)}%`}), String(pair.count)),
    el("td", {class: "soft"}, String(opposite(pair))));
}

/** The ranked pairs, those whose names hold the words searched for. */
export function pairTable() {
  const body = el("tbody");
  const rest = el("p", {class: "soft"});
  const search = el("input", {type: "search", id: "find-pair", placeholder: "search the pairs",
    "aria-label": "search the pairs", input: fill});
  function fill() {
    const words = search.value.toLowerCase().split(/\s+/);
    const found = pairs.filter((pair) => {
      const text = `${className(pair.P)} ${className(pair.Q)}`.toLowerCase();
      return words.every((word) => text.includes(word));
    });
    body.replaceChildren(...found.slice(0, SHOWN).map(pairRow));
    rest.textContent = found.length ? more(found.length - SHOWN) : "No pair has such a name.";
  }
  fill();
  const asked = report.question === "confusion";
  const titles = [asked ? "predicted, correctly, and its most confused class" : "predicted, not the label",
    "images", "the other way"];
  field("pairs").replaceChildren(el("h2", {}, asked ? "The pairs" : "Confused most"), search,
    el("table", {}, el("thead", {}, el("tr", {}, titles.map((title) => el("th", {scope: "col"}, title)))), body),
    rest);
}

const more = (left) => (left > 0 ? `and ${count(left, "other pair")}; search to see them` : "");

/** The classes of the most frequent pairs, labels against predictions; every number leads to its pair. */
export function matrix() {
  const most = [];
  for (const {P, Q} of pairs) {
    const more = [P, Q].filter((k) => !most.includes(k));
    if (most.length + more.length <= CLASSES) most.push(...more);
  }
  const shown = together(most);
  const top = pairs[0]?.count ?? 1;
  const cell = (q, p) => {
    const pair = pairs.find((found) => found.P === p && found.Q === q);
    if (!pair) return el("td", {class: p === q ? "diagonal" : null});
    const words = `${className(p)}, not ${className(q)}: ${count(pair.count, "image")}`;
    return el("td", {style: `--share:${(pair.count / top).toFixed(2)}`},
      el("a", {href: link({pair: pair.key, card: ""}), title: words, "aria-label": words}, String(pair.count)));
  };
  const some = (key) => shown.filter((k) => pairs.some((pair) => pair[key] === k && shown.includes(pair.P) && shown.includes(pair.Q)));
  const [columns, lines] = [some("P"), some("Q")]; // an empty row or column says nothing
  const head = el("tr", {}, el("td", {class: "corner"}), columns.map((p) => el("th", {scope: "col", title: className(p)}, el("span", {}, named(p, "p")))));
  const body = lines.map((q) => el("tr", {},
    el("th", {scope: "row", title: className(q)}, named(q, "q")), columns.map((p) => cell(q, p))));
  field("matrix").replaceChildren(
    el("h2", {}, "The classes confused most ", el("span", {class: "soft"}, "a row per label Q, a column per prediction P")),
    el("div", {class: "scroll", tabindex: 0, role: "region", "aria-label": "matrix of the classes confused most"},
      el("table", {class: "matrix"}, el("thead", {}, head), el("tbody", {}, body))));
}

/** Classes reordered so that those confused with each other stand side by side. */
function together(classes) {
  const left = [...classes];
  const order = left.splice(0, 1);
  const weight = (a, b) => pairs.filter((pair) => (pair.P === a && pair.Q === b) || (pair.P === b && pair.Q === a))
    .reduce((sum, pair) => sum + pair.count, 0);
  while (left.length) {
    const last = order[order.length - 1];
    left.sort((a, b) => weight(b, last) - weight(a, last) || classes.indexOf(a) - classes.indexOf(b));
    order.push(left.shift());
  }
  return order;
}

/** Bars of numbers of images: `series` are {values, of}, `edges` the bins' ends. */
function histogram(series, edges, label) {
  const [width, height] = [300, 150];
  const bins = edges.length - 1;
  const counts = series.map(({values}) => edges.slice(0, -1).map((low, k) => values.filter(
    (value) => value >= low && (value < edges[k + 1] || (k === bins - 1 && value <= edges[bins]))).length));
  const top = Math.max(1, ...counts.flat());
  const step = width / bins;
  const bars = counts.map((found, s) => found.map((number, k) => svg("rect", {
    class: series[s].of, x: k * step + step * s / series.length, width: step / series.length - 0.5,
    y: height * (1 - number / top), height: height * number / top,
  })));
  return svg("svg", {class: "histogram", viewBox: "-36 -12 344 184", role: "img", "aria-label": label}, bars,
    svg("line", {class: "grid", x1: 0, x2: width, y1: height, y2: height}),
    svg("text", {x: -6, y: 4, "text-anchor": "end"}, String(top)),
    svg("text", {x: 0, y: height + 17}, String(edges[0])),
    svg("text", {x: width, y: height + 17, "text-anchor": "end"}, String(edges[bins])));
}

/** The edits of an image, and Q's probability before and after them. */
export function charts() {
  const explained = rows.filter((row) => row.status === "explained");
  const most = Math.max(10, ...explained.map((row) => row.edits + 1));
  const width = Math.ceil(most / 25);
  const edges = Array.from({length: Math.ceil(most / width) + 1}, (_, k) => k * width);
  const edits = (flipped) => explained.filter((row) => row.flipped === flipped).map((row) => row.edits);
  const tenths = Array.from({length: 11}, (_, k) => k / 10);
  const key = (of, words) => el("span", {}, el("span", {class: of, "aria-hidden": "true"}, "■ "), words, " ");
  field("charts").replaceChildren(
    el("div", {}, el("h2", {}, "Edits of an image ", el("span", {class: "soft"}, key("q", "flipped to Q"), key("p", "not flipped"))),
      histogram([{values: edits(true), of: "q"}, {values: edits(false), of: "p"}], edges, "numbers of images by edits")),
    el("div", {}, el("h2", {}, "Probability of Q ", el("span", {class: "soft"}, key("p", "before"), key("q", "after the edits"))),
      histogram([{values: explained.map((row) => row.pQ0), of: "p"}, {values: explained.map((row) => row.pQ1), of: "q"}],
        tenths, "numbers of images by the probability of Q")));
}

/** Where the time of the run went; nothing where it is not known. */
export function times() {
  const section = field("times");
  section.hidden = !report.times;
  if (!report.times) return;
  const {seconds, total, images, search} = report.times;
  const spent = Object.entries(seconds).filter(([, s]) => s >= 0.05).map(([name, s]) => `${name} ${duration(s)}`);
  const each = images ? [el("b", {}, duration(total / images)), " an image over everything: "] : [];
  section.replaceChildren(el("h2", {}, "Time"), el("p", {}, each, `${duration(total)}`,
    images ? ` for ${count(images, "image")}` : "", ` (${spent.join(", ")}).`,
    search === null ? "" : ` A search alone takes ${duration(search)}, its share of its batch.`));
}

/** What was measured of the edits and maps, beside chance; nothing where nothing was. */
export function findings() {
  const section = field("findings");
  section.hidden = !report.findings.length;
  const row = ({name, found, chance}) => el("tr", {},
    el("th", {scope: "row"}, name), el("td", {}, found), el("td", {class: "soft"}, chance));
  const titles = ["measure", "found", "chance"].map((title) => el("th", {scope: "col"}, title));
  section.replaceChildren(el("h2", {}, "The edits and maps, measured"),
    el("table", {}, el("thead", {}, el("tr", {}, titles)), el("tbody", {}, report.findings.map(row))));
}
