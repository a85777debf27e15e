// Adjudicating and practising by keys: j k choose the order to take, 1 to 4 say why labelers differed, r types, Enter goes on.

import { $, $$, announce } from "./net.js";

export function openAdjudicate(main) {
  const form = $("#order, #settle", main);
  if (!form) return { key: () => false, acts: { submit: () => $("a.primary", main)?.click(), undo: () => true } };
  const typed = $(".typed input", form);
  const starts = $$("[name=ranking][type=radio]", form);
  const causes = $$("[name=cause]", form);
  const choose = (radio) => {
    if (!radio) return;
    radio.checked = true;
    radio.focus();
    announce(radio.closest("label").textContent.trim().replace(/\s+/g, " "));
  };
  const submit = () => form.requestSubmit();

  function key(event) {
    const { key: k, altKey } = event;
    if (altKey) return false;
    if (k === "r") return typed.focus(), typed.select(), true;
    if (/^[1-4]$/.test(k) && causes.length) return choose(causes[Number(k) - 1]), true;
    const step = { j: 1, k: -1 }[k];
    if (!step || !starts.length) return false;
    const now = starts.findIndex((one) => one.checked);
    return choose(starts[(now + step + starts.length) % starts.length]), true;
  }
  return { key, acts: { submit, undo: () => true } };
}
