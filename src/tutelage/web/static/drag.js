// Dragging chips with mouse, pen or finger. Onto a row ties, between rows inserts, below the line takes out; Esc leaves all as it was.

import { $$, announce } from "./net.js";

const START = 6; // pixels before a press is a drag

export function drag(tray, { drop }) {
  let held = null;

  const clear = () => $$(".join, .before, .after", tray).forEach((one) => one.classList.remove("join", "before", "after"));

  function target(y) {
    const unranked = tray.querySelector("#unranked").getBoundingClientRect();
    const label = tray.querySelector(".row-label").getBoundingClientRect();
    if (y >= label.top && y <= unranked.bottom + 8) return { out: true, mark: [tray.querySelector("#unranked"), "join"] };
    const rows = $$(".row", tray);
    for (const row of rows) {
      const box = row.getBoundingClientRect();
      const number = Number(row.dataset.row);
      if (y < box.top + box.height * 0.28) return { before: number, mark: [row, "before"] };
      if (y < box.bottom - box.height * 0.28) return { join: number, mark: [row, "join"] };
    }
    const last = rows.at(-1);
    return { before: rows.length + 1, mark: last ? [last, "after"] : null };
  }

  function end() {
    if (!held) return;
    held.chip.classList.remove("dragged");
    held.chip.style.removeProperty("transform");
    clear();
    held = null;
  }

  tray.addEventListener("pointerdown", (event) => {
    const chip = event.target.closest(".chip");
    if (!chip || event.button || chip.disabled) return;
    held = { chip, letter: chip.dataset.chip, x: event.clientX, y: event.clientY, scroll: tray.scrollTop, moving: false, id: event.pointerId };
  });
  tray.addEventListener("pointermove", (event) => {
    if (!held || event.pointerId !== held.id) return;
    const dx = event.clientX - held.x;
    const dy = event.clientY - held.y + tray.scrollTop - held.scroll;
    if (!held.moving && Math.hypot(dx, dy) < START) return;
    if (!held.moving) {
      held.moving = true;
      tray.setPointerCapture(held.id);
      held.chip.classList.add("dragged");
      announce(`${held.letter} lifted`);
    }
    event.preventDefault();
    held.chip.style.setProperty("transform", `translate(${dx}px, ${dy}px)`);
    const box = tray.getBoundingClientRect();
    if (event.clientY > box.bottom - 40) tray.scrollTop += 12;
    if (event.clientY < box.top + 40) tray.scrollTop -= 12;
    clear();
    const { mark } = target(event.clientY);
    if (mark) mark[0].classList.add(mark[1]);
  });
  tray.addEventListener("pointerup", (event) => {
    if (!held) return;
    const { moving, letter } = held;
    const where = moving ? target(event.clientY) : null;
    end();
    if (!where) return;
    tray.addEventListener("click", (click) => click.stopPropagation(), { capture: true, once: true });
    setTimeout(() => tray.dispatchEvent(new Event("click")), 0); // spends the listener where no click follows
    drop(letter, where);
  });
  tray.addEventListener("pointercancel", end);
  addEventListener("keydown", (event) => event.key === "Escape" && held?.moving && (end(), announce("Left as it was")));
}
