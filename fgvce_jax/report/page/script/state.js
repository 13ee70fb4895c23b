// What is shown, as text after the address's #: a link or a reload shows the same.

const DEFAULTS = {
  pair: "", card: "", q: "", sort: "index", least: "", most: "",
  unflipped: "", unlikely: "", suspects: "",
};
export const FILTERS = ["q", "least", "most", "unflipped", "unlikely", "suspects"];

const listeners = [];
let state = read();

function read() {
  const given = new URLSearchParams(location.hash.slice(1));
  const found = {};
  for (const [key, value] of Object.entries(DEFAULTS)) found[key] = given.get(key) ?? value;
  return found;
}

/** The address of the present state with some changes. */
export function link(changes) {
  const given = new URLSearchParams();
  for (const [key, value] of Object.entries({...state, ...changes})) {
    if (String(value) !== DEFAULTS[key]) given.set(key, value);
  }
  return `#${given}`;
}

/** Go to a changed state, as a step that the browser's back button undoes. */
export function go(changes) {
  location.hash = link(changes);
}

/** Change the state in place: typing leaves no trail of steps. */
export function adjust(changes) {
  history.replaceState(null, "", link(changes));
  update();
}

export const reset = () => adjust(Object.fromEntries(FILTERS.map((key) => [key, DEFAULTS[key]])));

/** Call a function with (state, the state before) now and after every change. */
export function watch(listener) {
  listeners.push(listener);
  listener(state, null);
}

function update() {
  const before = state;
  state = read();
  for (const listener of listeners) listener(state, before);
}

addEventListener("hashchange", update);
