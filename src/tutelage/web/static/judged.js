// Quality from 1 to 7 and marks, as the form of the Rank page holds them for each answer, and what the project asks of it.

import { $$ } from "./net.js";

const given = (letters, value, is) => Object.fromEntries(letters.map((x) => [x, value(x)]).filter(([, v]) => is(v)));

export class Judged {
  constructor(form, letters) {
    Object.assign(this, { form, letters });
  }

  get ratings() {
    return given(this.letters, (x) => Number(this.form.elements[`rating_${x}`].value), Boolean);
  }
  get flags() {
    return given(this.letters, (x) => this.boxes(x).filter((box) => box.checked).map((box) => box.value), (v) => v.length);
  }

  boxes(letter) {
    return $$(`#card-${letter} .flags input`);
  }
  marks(letter) {
    return this.boxes(letter).filter((box) => box.checked).length;
  }

  rate(letter, value) {
    for (const radio of this.form.elements[`rating_${letter}`]) radio.checked = Number(radio.value) === value;
  }

  show({ ratings = {}, flags = {} }) {
    for (const x of this.letters) {
      this.rate(x, ratings[x]);
      for (const box of this.boxes(x)) box.checked = (flags[x] || []).includes(box.value);
    }
  }

  // The letters of which the project asks the quality ("all"; "ends": the best and the worst ranked) and that have none.
  missing(groups) {
    const { ratings } = this;
    const asked = { all: this.letters, ends: [...(groups[0] || []), ...(groups.at(-1) || [])] }[this.form.dataset.rating] || [];
    return this.letters.filter((x) => asked.includes(x) && !ratings[x]);
  }

  // What to say where an answer stands above one of better quality.
  contradiction(groups) {
    const { ratings } = this;
    for (const [i, group] of groups.entries())
      for (const a of group)
        for (const b of groups.slice(i + 1).flat())
          if (ratings[a] && ratings[b] && ratings[a] < ratings[b]) return `You gave ${a} ${ratings[a]} and ${b} ${ratings[b]} but put ${a} above. Submit again to keep it, or look again.`;
    return "";
  }
}
