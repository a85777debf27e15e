// The Sensitive page of a screening: one text, yes or no.

import { $, announce } from "./net.js";
import { Work } from "./work.js";

export function openFlag(main) {
  const form = $("#work", main);
  const radios = [...form.elements.sensitive];
  const read = () => ({ sensitive: form.elements.sensitive.value });
  const put = (value) => radios.forEach((radio) => (radio.checked = radio.value === value));
  const work = new Work(main, { read, show: (payload) => put(payload.sensitive) });
  const choose = (value) => {
    put(value);
    work.changed();
    announce(value === "1" ? "Sensitive" : "Not sensitive");
  };
  const submit = () => {
    if (!read().sensitive) return work.faults({ sensitive: "Say whether the text is sensitive." });
    return work.submit(read());
  };
  form.addEventListener("change", () => choose(read().sensitive));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  work.start();
  return { key: ({ key, altKey }) => !altKey && /^[12]$/.test(key) && (choose(key === "1" ? "1" : "0"), true), acts: { submit }, work };
}
