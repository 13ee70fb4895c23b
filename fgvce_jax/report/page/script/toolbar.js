// Search, filters, order, and how many cards that leaves.

import {pairs, rows} from "./data.js";
import {el, field} from "./dom.js";
import {count} from "./numbers.js";
import {adjust, FILTERS, reset} from "./state.js";

const CONTROLS = [...FILTERS, "sort"];

/** Let the controls change the state. */
export function listen() {
  for (const key of CONTROLS) {
    const control = field(key);
    control.addEventListener("input", () => {
      adjust({[key]: control.type === "checkbox" ? (control.checked ? "1" : "") : control.value});
    });
  }
  field("suspects").closest("label").hidden = !rows.some((row) => row.suspected);
}

/** Let the controls show the state, and say how many cards there are. */
export function tell(state, shown) {
  for (const key of CONTROLS) {
    const control = field(key);
    if (control.type === "checkbox") control.checked = state[key] === "1";
    else if (control.value !== state[key]) control.value = state[key];
  }
  field("shown").value = `${shown.toLocaleString("en")} of ${count(rows.length, "card")}`;
  field("none").replaceChildren(...(shown ? [] : nothing(state)));
}

function nothing(state) {
  if (!rows.length) return [el("p", {}, "Nothing to explain.")];
  const where = pairs.find((pair) => pair.key === state.pair) ? "of this pair " : "";
  return [
    el("p", {}, `No card ${where}has all that is asked for.`),
    el("button", {type: "button", click: reset}, "reset search and filters"),
  ];
}
