// The edits of the page's one ranking: by digit, tie, move, select, drop and typed line. Each can be undone.

import { announce } from "./net.js";
import { join, joinAbove, move, parse, place, rankOf, takeOut, told, write } from "./ranking.js";

export class Edits {
  // changed() is called after each edit, to draw and keep it.
  constructor(letters, changed) {
    Object.assign(this, { letters, changed, groups: [], past: [], tied: [] });
  }

  get line() {
    return write(this.groups);
  }
  get count() {
    return this.groups.flat().length;
  }
  rank(letter) {
    return rankOf(this.groups, letter);
  }

  // A tie that equal quality made and that nobody touched.
  byQuality(group) {
    return group.length > 1 && this.tied.includes(group.join(""));
  }

  // From the ratings: equal ones tie. Returns whether that changed the ranking.
  prefill(next) {
    const before = this.line;
    const tied = next.filter((group) => group.length > 1).map((group) => group.join(""));
    this.to(next, next[0][0], { say: false, tied });
    announce(`Ordered by quality: ${this.line}`);
    return this.line !== before;
  }

  // What is no edit: the page begins with it, or another version is shown.
  set(line, tied = []) {
    this.tied = tied;
    try {
      this.groups = parse(line || "", this.letters.join(""));
    } catch {
      this.groups = [];
    }
  }

  to(next, letter, { say = true, tied = this.tied.filter((group) => !group.includes(letter)) } = {}) {
    if (write(next) === this.line) return;
    const before = this.groups;
    this.past.push(before);
    this.groups = next;
    this.tied = tied;
    this.changed();
    if (say) announce(told(before, next, letter));
  }

  undo() {
    if (!this.past.length) return false;
    this.groups = this.past.pop();
    this.changed();
    announce(`Undone: ${this.line || "nothing ranked"}`);
    return true;
  }

  place(letter, rank) {
    const other = this.letters.find((x) => x !== letter);
    if (this.letters.length === 2 && rank <= 2) this.to(rank === 1 ? [[letter], [other]] : [[other], [letter]], letter); // one key orders both
    else this.to(place(this.groups, letter, rank), letter);
  }
  tie(letter, rank) {
    this.to(join(this.groups, letter, rank), letter);
  }
  tieAbove(letter) {
    this.to(joinAbove(this.groups, letter), letter);
  }
  tieAll(letter) {
    this.to([[...this.letters]], letter);
  }
  out(letter) {
    this.to(takeOut(this.groups, letter), letter);
  }
  move(letter, by) {
    this.to(move(this.groups, letter, by), letter);
  }

  // The select of a card: "" takes out, "2" places, "=2" ties.
  choose(letter, value) {
    if (!value) this.out(letter);
    else if (value[0] === "=") this.tie(letter, Number(value.slice(1)));
    else this.to(place(this.groups, letter, Number(value)), letter);
  }

  drop(letter, target) {
    if (target.out) this.out(letter);
    else if (target.join) this.tie(letter, target.join);
    else this.to(placeAt(this.groups, letter, target.before), letter);
  }

  // The typed line; one that cannot be read is told below it, and changes nothing.
  typed(field, fault, here) {
    field.addEventListener("input", () => {
      try {
        const next = parse(field.value, this.letters.join(""));
        fault.hidden = true;
        field.removeAttribute("aria-invalid");
        this.to(next, next.flat().at(-1) || here(), { say: false });
      } catch (error) {
        fault.textContent = error.message;
        fault.hidden = false;
        field.setAttribute("aria-invalid", "true");
      }
    });
    field.addEventListener("blur", () => (field.value = this.line));
  }
}

// Drop before the row that has number `before` now: taking the letter out first may shift that row.
function placeAt(groups, letter, before) {
  const alone = groups.findIndex((g) => g.length === 1 && g[0] === letter) + 1;
  return place(groups, letter, alone && alone < before ? before - 1 : before);
}
