// The report's parts put together, and the keys.

import {build} from "./card.js";
import {fill, firsts, show, step} from "./list.js";
import {select} from "./select.js";
import {rows} from "./data.js";
import {field} from "./dom.js";
import {charts, findings, matrix, pairTable, times} from "./overview.js";
import {pairPage} from "./pair.js";
import {go, link, watch} from "./state.js";
import {suspectList} from "./suspects.js";
import {listen, tell} from "./toolbar.js";
import {saveCsv} from "./takeaway.js";

const PRINTED = 200;
let selected = [];

function render(state, before) {
  const moved = !before || state.pair !== before.pair || state.card !== before.card;
  selected = select(state);
  const one = state.card ? rows.filter((row) => row.id === state.card) : null;
  field("overview").hidden = Boolean(state.pair || one);
  field("pair").hidden = !state.pair || Boolean(one);
  field("tools").hidden = Boolean(one);
  field("one").hidden = !one;
  tell(state, one ? one.length : selected.length);
  show(one ?? selected, build);
  if (one) steps(state, one);
  if (moved && state.pair && !one) {
    field("pair").dataset.key = state.pair;
    pairPage(state.pair);
  }
  if (moved && before) arrive(state, one);
}

/** After a step the new page begins at its top, and so does the keyboard. */
function arrive(state, one) {
  scrollTo(0, 0);
  const [first] = one ? firsts(1) : [field("pair-title")];
  if (one || state.pair) first?.focus({preventScroll: true});
}

/** Previous, next and back, over the cards that were selected. */
function steps(state, one) {
  const at = selected.findIndex((row) => row.id === state.card);
  field("place").textContent = one.length
    ? at < 0 ? "not among the cards selected" : `${at + 1} of ${selected.length}`
    : "This report has no card of that name.";
  field("back").href = link({card: ""});
  for (const [id, step] of [["previous", -1], ["next", 1]]) {
    const row = at < 0 ? undefined : selected[at + step];
    if (row) field(id).href = link({card: row.id});
    else field(id).removeAttribute("href");
  }
}

/** The next (1) or previous (-1) card: another page of one card, or further down the list. */
function turn(state, by) {
  if (!state.card) return step(by);
  const {href} = field(by > 0 ? "next" : "previous");
  if (href) location.href = href;
}

function keys(state, event) {
  const typing = event.target.closest("input, select, textarea, dialog");
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape" && !event.target.closest("dialog")) {
    if (typing) typing.blur();
    else if (state.card) go({card: ""});
    else if (state.pair) go({pair: ""});
    return;
  }
  if (typing) return;
  if (event.key === "j") turn(state, 1);
  else if (event.key === "k") turn(state, -1);
  else if (event.key === "/" && !state.card) {
    event.preventDefault();
    field("q").focus();
  }
}

/** Build what is selected, then print it. */
async function printed() {
  await Promise.all(firsts(PRINTED).map(fill));
  print();
}

let now;
if (rows.length) {
  pairTable();
  matrix();
  charts();
  suspectList();
  findings();
  times();
}
listen();
watch((state, before) => {
  now = state;
  render(state, before);
});
addEventListener("keydown", (event) => keys(now, event));
field("csv").addEventListener("click", () => saveCsv(selected));
field("print").addEventListener("click", printed);
