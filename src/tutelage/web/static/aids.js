// Aids for many answers: sorting roughly before ranking, and a ranking from the quality that was given.

const PILES = { 1: "good", 2: "middle", 3: "poor" };

// Groups by quality, best first; equal quality ties, what was not rated stays unranked.
export function byQuality(letters, ratings) {
  const levels = [...new Set(Object.values(ratings))].sort((a, b) => b - a);
  return levels.map((level) => letters.filter((x) => ratings[x] === level));
}

// Piles are no answer: they only say in which order to read and rank.
export class Piles {
  constructor(letters) {
    this.letters = letters;
    this.of = {};
    this.on = false;
  }

  set(kept) {
    this.of = Object.fromEntries(Object.entries(kept || {}).filter(([x, pile]) => this.letters.includes(x) && PILES[pile]));
  }

  get unsorted() {
    return this.letters.filter((x) => !this.of[x]);
  }

  // Good first, what lies on no pile between middle and poor; each pile in the order of the cards.
  get order() {
    return [...this.letters].sort((a, b) => (this.of[a] || 2.5) - (this.of[b] || 2.5));
  }

  // Returns what to say.
  put(letter, pile) {
    this.of[letter] = pile;
    if (this.unsorted.length) return `${letter} ${PILES[pile]}`;
    this.on = false;
    const counts = Object.entries(PILES).map(([key, word]) => [this.letters.filter((x) => this.of[x] === Number(key)).length, word]);
    return `Sorted: ${counts.map(([n, word]) => `${n} ${word}`).join(", ")}. Now rank, the good ones first.`;
  }

  word(letter) {
    return PILES[this.of[letter]] || "";
  }
}
