// Draws the Rank page: rows and chips of the tray, the state of each card, the bar of a small screen.

import { $ } from "./net.js";

const made = (tag, fields, ...inside) => {
  const element = Object.assign(document.createElement(tag), fields);
  element.append(...inside);
  return element;
};

function chip(letter, { edits, piles, here, texts }) {
  const short = texts[letter].replace(/\s+/g, " ").slice(0, 60);
  const pile = edits.rank(letter) ? "" : piles.word(letter);
  const button = made("button", { type: "button", className: "chip" }, made("b", { textContent: letter }));
  if (pile) button.append(made("small", { className: "pile", textContent: pile }));
  button.append(made("span", { textContent: short }));
  button.dataset.chip = letter;
  button.setAttribute("aria-pressed", String(letter === here));
  return button;
}

function row(group, rank, page) {
  const chips = made("span", { className: "chips" });
  group.forEach((letter, n) => chips.append(...(n ? [made("span", { className: "eq", textContent: "=" })] : []), chip(letter, page)));
  if (page.edits.byQuality(group)) chips.append(made("small", { className: "by-quality", textContent: "equal quality" }));
  const line = made("li", { className: "row" }, made("span", { className: "nr", textContent: rank }), chips);
  line.dataset.row = rank;
  return line;
}

function drawCard(card, letter, rank, { here, mode, judged }) {
  card.classList.toggle("ranked", rank > 0);
  card.classList.toggle("current", letter === here);
  card.classList.toggle("rating", mode === "quality" && letter === here);
  $("select", card).value = rank ? String(rank) : "";
  const marks = judged.marks(letter);
  $(".count", card).textContent = marks ? `(${marks})` : "";
}

function tab(letter, rank, here) {
  const button = made("button", { type: "button" }, letter, made("small", { textContent: rank || "?" }));
  button.dataset.tab = letter;
  button.setAttribute("aria-pressed", String(letter === here));
  return button;
}

function phoneBar({ edits, here }) {
  const next = edits.groups.length + 1;
  const place = made("button", { type: "button", textContent: edits.rank(here) ? `Take ${here} out` : `${here}: rank ${next}` });
  place.dataset.rankHere = edits.rank(here) ? "0" : String(next);
  const send = made("button", { type: "button", className: "primary", textContent: "Submit" });
  send.dataset.send = "1";
  $("#phone-tabs").replaceChildren(...edits.letters.map((x) => tab(x, edits.rank(x), here)), place, send);
}

// page: { edits, judged, piles, texts, here, mode }
export function draw(page) {
  const { edits, judged, piles } = page;
  const focused = document.activeElement?.dataset?.chip;
  $("#rows").replaceChildren(...edits.groups.map((group, i) => row(group, i + 1, page)));
  $("#unranked").replaceChildren(...piles.order.filter((x) => !edits.rank(x)).map((x) => chip(x, page)));
  $("[data-act=by-quality]").disabled = Object.keys(judged.ratings).length < 2;
  $("[data-act=roughly]")?.setAttribute("aria-pressed", String(piles.on));
  if ($(".piles")) $(".piles").hidden = !piles.on;
  for (const x of edits.letters) drawCard($(`#card-${x}`), x, edits.rank(x), page);
  phoneBar(page);
  const field = $("#ranking");
  if (document.activeElement !== field) field.value = edits.line;
  $("#submit").textContent = edits.count ? `Submit ${edits.count} of ${edits.letters.length}` : "Submit";
  if (focused) $(`[data-chip="${focused}"]`)?.focus({ preventScroll: true });
}
