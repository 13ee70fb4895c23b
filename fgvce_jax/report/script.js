const cards = [...document.querySelectorAll(".card")], field = id => document.getElementById(id);
const number = (card, key) => Number(card.dataset[key]);
const text = key => (a, b) => a.dataset[key].localeCompare(b.dataset[key], undefined, {numeric: true});
const orders = {
  index: (a, b) => number(a, "index") - number(b, "index"),
  edits: (a, b) => number(a, "edits") - number(b, "edits"),
  before: (a, b) => number(a, "before") - number(b, "before"),
  pair: text("names"), id: text("id"),
};
function show() {
  const pair = field("pair").value, least = Number(field("least").value || 0);
  const most = field("most").value === "" ? Infinity : Number(field("most").value);
  let shown = 0;
  for (const card of cards) {
    const edits = number(card, "edits");
    card.hidden = (pair && card.dataset.pair !== pair) || edits < least || edits > most
      || (field("unflipped").checked && card.dataset.flipped === "1");
    card.style.display = card.hidden ? "none" : "";
    shown += !card.hidden;
  }
  field("shown").value = `${shown} of ${cards.length}`;
}
function sort() {
  const [, sign, key] = field("order").value.match(/^(-?)(.*)$/);
  cards.sort((a, b) => (sign ? -1 : 1) * orders[key](a, b) || orders.index(a, b));
  field("cards").append(...cards);
}
field("order").addEventListener("input", sort);
for (const id of ["pair", "least", "most", "unflipped"]) field(id).addEventListener("input", show);
for (const button of document.querySelectorAll(".pairs button")) button.addEventListener("click", () => {
  field("pair").value = button.dataset.pair;
  show();
  field("cards").scrollIntoView();
});
show();
