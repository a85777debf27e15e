// Where one card is shown at a time, a finger's swipe goes to the next card or to the one before; up and down it scrolls as ever.

const LEAST = 48; // pixels, and more across than down

const selecting = () => !getSelection().isCollapsed;

// What moves sideways by itself, or has a use of its own for it.
function keeps(target, area) {
  for (let one = target; one && one !== area; one = one.parentElement) {
    if (one.matches("select, input, textarea")) return true;
    if (one.scrollWidth > one.clientWidth && /auto|scroll/.test(getComputedStyle(one).overflowX)) return true;
  }
  return false;
}

export function swipe(area, one, go) {
  let start = null;
  area.addEventListener("pointerdown", ({ pointerType, isPrimary, pointerId, clientX: x, clientY: y, target }) => {
    const may = pointerType === "touch" && isPrimary && one() && !selecting() && !keeps(target, area);
    start = may ? { pointerId, x, y } : null; // a second finger ends it
  });
  area.addEventListener("pointerup", ({ pointerId, clientX, clientY }) => {
    if (start?.pointerId !== pointerId) return;
    const [across, down] = [clientX - start.x, clientY - start.y];
    start = null;
    if (Math.abs(across) >= LEAST && Math.abs(across) > Math.abs(down) && !selecting()) go(across < 0 ? 1 : -1);
  });
  area.addEventListener("pointercancel", () => (start = null));
}
