// Single keys: on or off, and one's own in place of the usual ones. The pages know the usual keys only: what is pressed is
// translated. Kept in this browser, for each person.

import { $, $$ } from "./net.js";

const dialog = $("#keys");
const form = $("#own-keys form");
const place = () => `tutelage:keys:${document.body.dataset.person}`;
let mine = {}; // usual -> own, of those that differ
let meant = {}; // own -> usual

export const keysOn = () => localStorage.getItem("tutelage:keys") !== "off";
export const openKeys = () => dialog.showModal();

// The key to print where the usual one is meant.
export const own = (usual) => (Object.hasOwn(mine, usual) ? mine[usual] : usual);

// The usual key that is meant by the one that was pressed; "" where one's own keys left it without a use.
export function usual(pressed) {
  if (Object.hasOwn(meant, pressed)) return meant[pressed];
  return Object.hasOwn(mine, pressed) ? "" : pressed;
}

const fields = () => $$("input", form);
const keysOf = (text) => [...text.replace(/\s/g, "")];

function load() {
  try {
    const known = fields().flatMap((field) => [...field.dataset.usual]);
    const found = Object.entries(JSON.parse(localStorage.getItem(place())) || {});
    mine = Object.fromEntries(found.filter(([key, to]) => known.includes(key) && typeof to === "string"));
  } catch {
    mine = {};
  }
  meant = Object.fromEntries(Object.entries(mine).map(([key, to]) => [to, key]));
  for (const field of fields()) field.value = [...field.dataset.usual].map(own).join("");
  $("#usual-keys").hidden = !Object.keys(mine).length;
  print(document);
}

// What the pages print of keys: beside controls, for screen readers, and in hints with {x} for the key x.
function print(from) {
  for (const mark of $$("kbd", from)) {
    mark.dataset.usual ??= mark.textContent;
    const key = own(mark.dataset.usual);
    if (mark.textContent !== key) mark.textContent = key;
  }
  for (const one of $$("[aria-keyshortcuts]", from)) {
    one.dataset.usualShortcut ??= one.getAttribute("aria-keyshortcuts");
    one.setAttribute("aria-keyshortcuts", own(one.dataset.usualShortcut));
  }
  for (const one of $$("[data-hint]", from)) one.dataset.empty = one.dataset.hint.replace(/\{(.)\}/g, (_, key) => own(key));
}
new MutationObserver((changes) => {
  const added = changes.flatMap((change) => [...change.addedNodes]).filter((node) => node.nodeType === 1);
  for (const node of added) print(node.parentNode ?? node);
}).observe(document.body, { childList: true, subtree: true });

// The field that cannot be used, and why; null where all can.
function fault() {
  const used = new Map();
  for (const field of fields()) {
    const keys = keysOf(field.value);
    const words = field.labels[0].textContent.trim();
    const count = [...field.dataset.usual].length;
    if (keys.length !== count) return { field, why: `“${words}” needs ${count === 1 ? "one key" : `${count} keys`}, as one character each.` };
    for (const key of keys) {
      if (used.has(key)) return { field, why: `${key} is there already: ${used.get(key) === words ? `twice in “${words}”` : `“${used.get(key)}”`}. Choose another key.` };
      used.set(key, words);
    }
  }
  return null;
}

function tell(words, tone = "") {
  $("#own-keys-fault").textContent = tone ? words : "";
  $("#own-keys-said").textContent = tone ? "" : words;
  $("#own-keys-fault").hidden = !tone;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const wrong = fault();
  for (const field of fields()) field.removeAttribute("aria-invalid");
  if (wrong) {
    wrong.field.setAttribute("aria-invalid", "true");
    wrong.field.closest("label").after($("#own-keys-fault"));
    tell(wrong.why, "red");
    return wrong.field.focus();
  }
  const pairs = fields().flatMap((field) => [...field.dataset.usual].map((key, i) => [key, keysOf(field.value)[i]]));
  localStorage.setItem(place(), JSON.stringify(Object.fromEntries(pairs.filter(([key, to]) => key !== to))));
  load();
  tell("Saved in this browser.");
});
$("#usual-keys").addEventListener("click", () => {
  localStorage.removeItem(place());
  for (const field of fields()) field.removeAttribute("aria-invalid");
  load();
  tell("The usual keys hold again.");
  $("#keys-on").focus();
});
$("#keys-on").checked = keysOn();
$("#keys-on").addEventListener("change", (event) => localStorage.setItem("tutelage:keys", event.target.checked ? "on" : "off"));
dialog.addEventListener("close", () => {
  tell("");
  load(); // what was not saved
});
load();
