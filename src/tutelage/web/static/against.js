// The panel of a card that says what it has otherwise than another one, which is chosen there.

import { $, announce, root } from "./net.js";

export async function showAgainst(task, letters, letter, other) {
  const panel = $(`#card-${letter} .gone-text`);
  const reply = await fetch(`${root()}/t/${task}/differences/${other}/${letter}`).catch(() => null);
  if (!reply?.ok) return announce("No connection.");
  const page = new DOMParser().parseFromString(await reply.text(), "text/html");
  const label = Object.assign(document.createElement("label"), { className: "against", textContent: "Against " });
  const select = document.createElement("select");
  select.append(...letters.filter((x) => x !== letter).map((x) => new Option(x, x, x === other, x === other)));
  select.addEventListener("change", async (event) => {
    event.stopPropagation();
    await showAgainst(task, letters, letter, select.value);
    $("select", panel)?.focus();
  });
  label.append(select);
  panel.replaceChildren(label, ...page.body.childNodes);
  panel.hidden = false;
}
