// One ranking as groups of letters, best first. Every way to edit it (keys, drag, select, typing) goes through here.

const without = (groups, letter) => groups.map((g) => g.filter((x) => x !== letter)).filter((g) => g.length);
const sorted = (group) => [...group].sort();

export const rankOf = (groups, letter) => groups.findIndex((g) => g.includes(letter)) + 1;

// A digit inserts: what stood there moves down.
export function place(groups, letter, rank) {
  const rest = without(groups, letter);
  rest.splice(Math.max(0, Math.min(rank - 1, rest.length)), 0, [letter]);
  return rest;
}

// Tie with the answers of a rank as it stands now; without such a rank, it becomes the last.
export function join(groups, letter, rank) {
  const target = groups[rank - 1];
  if (target && target.includes(letter)) return groups;
  const rest = without(groups, letter);
  if (!target) return place(groups, letter, rest.length + 1);
  return rest.map((g) => (g.some((x) => target.includes(x)) ? sorted([...g, letter]) : g));
}

export const takeOut = (groups, letter) => without(groups, letter);

// Tie with the row above; what is not ranked ties with the last row.
export function joinAbove(groups, letter) {
  const rank = rankOf(groups, letter);
  return join(groups, letter, rank ? Math.max(rank - 1, 1) : groups.length);
}

export function move(groups, letter, by) {
  const rank = rankOf(groups, letter);
  if (!rank) return by < 0 ? place(groups, letter, groups.length + 1) : groups;
  if (groups[rank - 1].length > 1) {
    // out of a tie: just above or below the others
    const rest = without(groups, letter);
    rest.splice(by < 0 ? rank - 1 : rank, 0, [letter]);
    return rest;
  }
  return place(groups, letter, Math.max(1, rank + by));
}

export function parse(line, letters) {
  const text = line.toUpperCase().replace(/[>,]/g, " ");
  const wrong = text.match(new RegExp(`[^${letters}\\s=]`));
  if (wrong) throw new Error(`There is no answer ${wrong[0]}; use ${letters[0]} to ${letters.at(-1)}, > and =.`);
  const tight = text.trim().replace(/\s*=\s*/g, "=");
  if (/^=|=$|==/.test(tight)) throw new Error("= stands between two answers.");
  const groups = (tight.match(/[A-I](=[A-I])*/g) || []).map((part) => sorted(part.split("=")));
  const flat = groups.flat();
  const twice = flat.find((x, i) => flat.indexOf(x) !== i);
  if (twice) throw new Error(`${twice} is ranked twice.`);
  return groups;
}

export const write = (groups) => groups.map((g) => g.join(" = ")).join(" > ");

const ORDINALS = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth"];

export function told(before, after, letter) {
  const rank = rankOf(after, letter);
  if (!rank) return `${letter} not ranked`;
  const group = after[rank - 1];
  if (group.length > 1) return `${letter} joins ${group.filter((x) => x !== letter).join(", ")} at rank ${rank}`;
  return `${letter} ${ORDINALS[rank - 1]} of ${after.length}`;
}
