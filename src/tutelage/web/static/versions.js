// A draft that another machine's newer one overtook is kept as another version: offered, never mixed in, never lost.

import { $, kept, strip, toast } from "./net.js";

const name = (task) => `other:${task}`;
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

// What this browser kept of an item that the server has a newer draft of; `local` was never saved there.
export function setAside(task, local) {
  kept.set(name(task), { payload: local.payload });
  kept.drop(`draft:${task}`);
}

export const asides = () => kept.keys("other:");
export const forget = (task) => kept.drop(name(task));

// Offers the other version of this item, above the work and among its tools.
export function offer(work) {
  const button = $("#other-version");
  const other = kept.get(name(work.task));
  if (!other || !button) return;
  if (same(other.payload, work.read())) return forget(work.task);
  const change = () => {
    if (work.readOnly || work.sending) return;
    const { payload } = kept.get(name(work.task));
    kept.set(name(work.task), { payload: work.read() });
    work.show(payload);
    work.changed();
    toast("This is the other version. The one before is kept.");
  };
  const putAway = () => {
    forget(work.task);
    button.hidden = true;
    strip("");
  };
  button.hidden = false;
  button.onclick = change;
  const words = "You worked on this item in two places. The version of this browser, which was not saved, is kept.";
  strip(words, "", { text: "Show the other version", act: change }, { text: "Put it away", act: putAway });
}
