// The Rank page: read in the cards, order in the tray.

import { showAgainst } from "./against.js";
import { Piles, byQuality } from "./aids.js";
import { Cards } from "./cards.js";
import { drag } from "./drag.js";
import { Edits } from "./edits.js";
import { Judged } from "./judged.js";
import { own } from "./keys.js";
import { $, $$, announce, heard } from "./net.js";
import { draw as drawPage } from "./tray.js";
import { Work } from "./work.js";

export function openRank(main) {
  const form = $("#work", main);
  const field = $("#ranking");
  const letters = $$(".card", main).map((card) => card.dataset.letter);
  const texts = Object.fromEntries(letters.map((x) => [x, $(`#card-${x} .text`).textContent]));
  const judged = new Judged(form, letters);
  const piles = new Piles(letters);
  const edits = new Edits(letters, () => (draw(), work.changed()));
  let mode = ""; // "tie" waits for a rank, "quality" for 1 to 7
  let asked = false; // the project asks for quality that is missing: after each digit the next one lacking it comes
  let contradictions = 0;
  let prefilled = 0; // times that the ranking was made from the ratings

  const flag = (name) => form.elements[name];
  const read = () => ({
    ranking: edits.line,
    rest_below: flag("rest_below").checked,
    all_bad: flag("all_bad").checked,
    ratings: judged.ratings,
    flags: judged.flags,
    category: $("#category").value.trim() && $("#category").selectedIndex ? $("#category").value : "",
    note: $("#note").value,
    ...(Object.keys(piles.of).length ? { piles: piles.of } : {}),
    ...(prefilled ? { prefilled, tied: edits.tied } : {}),
  });
  const show = (payload) => {
    edits.set(payload.ranking, payload.tied);
    prefilled = payload.prefilled || 0;
    piles.set(payload.piles);
    flag("rest_below").checked = Boolean(payload.rest_below);
    flag("all_bad").checked = Boolean(payload.all_bad);
    judged.show(payload);
    $("#note").value = payload.note || "";
    $("#category").value = payload.category || "";
    draw();
  };
  const work = new Work(main, { read, show });
  const cards = new Cards(main, work.over.signal, () => draw());

  function draw() {
    drawPage({ edits, judged, piles, texts, here: cards.here, mode: mode || (rating() ? "quality" : "") });
  }

  const nextUnranked = () => {
    const order = piles.order;
    const start = order.indexOf(cards.here);
    return [...order.slice(start + 1), ...order.slice(0, start)].find((x) => !edits.rank(x));
  };

  // Piles first, then ranks inside of them.
  function sort(pile) {
    announce(piles.put(cards.here, pile));
    work.changed();
    const open = piles.unsorted;
    cards.goTo(open.find((x) => x > cards.here) || open[0] || piles.order.find((x) => !edits.rank(x)) || cards.here);
  }

  function roughly() {
    piles.on = !piles.on;
    if (piles.on && !piles.unsorted.length) piles.set({});
    if (piles.on) cards.goTo(piles.unsorted[0], { focus: true });
    draw();
    announce(piles.on ? `Sort roughly: ${own("1")} good, ${own("2")} middle, ${own("3")} poor` : "Digits rank");
  }

  function put(rank, tie = false) {
    if (tie) edits.tie(cards.here, rank);
    else edits.place(cards.here, rank);
    const next = (tie || rank > 2 || letters.length > 2) && nextUnranked();
    if (next) cards.goTo(next);
  }

  function setMode(next) {
    mode = next;
    draw();
    if (mode === "quality") announce(`Quality of ${cards.here}: 1 to 7`);
    if (mode === "tie") announce("Tie with which rank?");
  }

  function rate(value) {
    const letter = cards.here;
    judged.rate(letter, value);
    announce(`${letter} quality ${value}`);
    work.changed();
    mode = "";
    if (asked) return askQuality(), draw();
    if (rankThen()) return;
    const next = letters[letters.indexOf(letter) + 1];
    if (next) cards.goTo(next);
    else draw();
  }

  // Goes to the first answer whose quality the project asks for and that has none; returns all of them.
  function askQuality() {
    const missing = judged.missing(edits.groups);
    asked = missing.length > 0;
    if (asked) {
      cards.goTo(missing[0], { focus: false });
      setMode("quality");
      $(`#card-${missing[0]} .quality`).scrollIntoView({ block: "nearest" });
    }
    return missing;
  }

  // Rate, then rank: as the paper's two pages. The order by quality is where ranking begins; its ties are marked.
  const rateFirst = form.dataset.rating === "all";
  const rating = () => rateFirst && !edits.count && judged.missing([]).length > 0;
  function rankThen() {
    if (!rateFirst || edits.count || judged.missing([]).length) return false;
    acts.byQuality();
    const tie = edits.groups.find((group) => group.length > 1);
    cards.goTo((tie || edits.groups[0])[0]);
    announce(`Ordered by quality: ${edits.line}. ${tie ? "Now part the ties, or keep them" : "Now rank"}.`);
    return true;
  }

  const warned = new Set(); // each warning comes once
  async function submit() {
    const payload = read();
    const rest = payload.rest_below && edits.count > 0 && edits.count < letters.length;
    if (edits.count < 2 && !rest && !payload.all_bad) return work.faults({ ranking: `Rank two answers or more, or press ${own("x")} if all are bad.` });
    const missing = askQuality();
    if (missing.length) {
      work.faults({ ratings: `Rate the quality, 1 to 7, of ${missing.join(", ")}.` });
      $(`#card-${missing[0]} .quality`).scrollIntoView({ block: "nearest" });
      return heard($("#fault-ratings"));
    }
    const hidden = cards.unseen();
    if (edits.count && hidden && !warned.has("seen")) {
      warned.add("seen");
      return announceFault(`The end of ${hidden} was not on screen. Press submit again to send anyway.`);
    }
    const odd = judged.contradiction(edits.groups);
    if (odd && !warned.has("odd")) {
      warned.add("odd");
      contradictions++;
      return announceFault(odd);
    }
    $("#summary").hidden = true;
    const effort = { seen: letters.map((x) => cards.seen.has(x)), revisits: cards.revisits, contradictions, ...(prefilled ? { prefilled, prefilled_ties: edits.groups.filter((group) => edits.byQuality(group)).length } : {}) };
    await work.submit({ ...payload, effort });
  }

  const announceFault = (words) => {
    const line = $("#fault-ranking");
    line.textContent = words;
    line.hidden = false;
    heard(line);
  };

  const acts = {
    submit,
    undo: () => edits.undo(),
    out: () => edits.out(cards.here),
    up: () => edits.move(cards.here, -1),
    down: () => edits.move(cards.here, 1),
    join: () => edits.tieAbove(cards.here),
    byQuality() {
      if (!edits.prefill(byQuality(letters, judged.ratings))) return;
      prefilled++;
      work.keep();
    },
    open: () => cards.openAll(),
    differences: () => differences(),
    prompt() {
      const folded = $("#prompt").classList.toggle("folded");
      $("#prompt .fold").setAttribute("aria-expanded", String(!folded));
    },
  };

  // Against the card ranked above; without one, against the card before.
  function differences() {
    const letter = cards.here;
    const panel = $(`#card-${letter} .gone-text`);
    if (!panel.hidden) return (panel.hidden = true);
    const rank = edits.rank(letter);
    const above = rank > 1 ? edits.groups[rank - 2][0] : letters[(letters.indexOf(letter) || letters.length) - 1];
    return showAgainst(work.task, letters, letter, above);
  }

  function tieAbove() {
    if (letters.length === 2) return edits.tieAll(cards.here);
    acts.join();
    if (nextUnranked() && edits.rank(cards.here)) cards.goTo(nextUnranked());
  }

  const plain = {
    0: () => acts.out(),
    "=": () => setMode("tie"),
    r: () => (field.focus(), field.select()),
    w: () => flag("rest_below").click(),
    x: () => flag("all_bad").click(),
    l: () => form.dataset.rating !== "none" && setMode("quality"),
    m: () => cards.toggleMarks(cards.here),
    n: () => $("#note").focus(),
    q: () => $("#category").focus(),
    o: () => cards.long.length && acts.open(),
    v: () => differences(),
    p: () => acts.prompt(),
  };

  function key(event) {
    const { key: k } = event;
    if (event.altKey && (k === "ArrowUp" || k === "ArrowDown")) return acts[k === "ArrowUp" ? "up" : "down"](), true;
    if (event.altKey) return false;
    if ((mode === "quality" || (mode !== "tie" && rating())) && /^[1-7]$/.test(k)) return rate(Number(k)), true;
    if (mode === "tie" && k === "=") return setMode(""), tieAbove(), true;
    if (mode === "tie" && /^[1-9]$/.test(k)) return setMode(""), put(Number(k), true), true;
    if (mode) setMode("");
    if (rating() && /^[89]$/.test(k)) return announce("Quality is 1 to 7"), true;
    if (piles.on && /^[1-3]$/.test(k)) return sort(Number(k)), true;
    if (/^[1-9]$/.test(k)) return put(Number(k)), true;
    if (/^[a-i]$/.test(k) && letters.includes(k.toUpperCase())) return cards.goTo(k.toUpperCase()), true;
    const step = { j: 1, ArrowRight: 1, ArrowDown: 1, k: -1, ArrowLeft: -1, ArrowUp: -1 }[k];
    if (step) return cards.goTo(letters[(letters.indexOf(cards.here) + step + letters.length) % letters.length]), true;
    if (!Object.hasOwn(plain, k)) return false;
    plain[k]();
    return true;
  }

  main.addEventListener("click", (event) => {
    const target = event.target.closest("[data-act], [data-move], [data-chip], [data-tab], [data-rank-here], [data-send], [data-pile]");
    const card = event.target.closest(".card");
    if (card && card.dataset.letter !== cards.here && !event.target.closest("select")) cards.goTo(card.dataset.letter, { focus: false, scroll: false });
    if (!target) return;
    if (target.dataset.move) acts[target.dataset.move]();
    else if (target.dataset.chip) cards.goTo(target.dataset.chip, { focus: false });
    else if (target.dataset.tab) cards.goTo(target.dataset.tab, { focus: false });
    else if (target.dataset.rankHere) target.dataset.rankHere === "0" ? acts.out() : put(Number(target.dataset.rankHere));
    else if (target.dataset.send) submit();
    else if (target.dataset.pile) sort(Number(target.dataset.pile));
    else if (target.dataset.act === "by-quality") acts.byQuality();
    else if (target.dataset.act === "roughly") roughly();
    else if (["undo", "open", "prompt", "differences"].includes(target.dataset.act)) acts[target.dataset.act]();
  });
  main.addEventListener("change", (event) => {
    const { target } = event;
    if (target.dataset.rank) {
      cards.here = target.dataset.rank;
      edits.choose(cards.here, target.value);
      draw();
    } else if (target !== field) {
      if (target.name === "rest_below") announce(target.checked ? "The rest are worse" : "The rest are not ranked");
      if (target.name === "all_bad") announce(target.checked ? "All bad" : "Not all bad");
      draw();
      work.changed();
      if (target.name?.startsWith("rating_")) rankThen();
    }
  });
  edits.typed(field, $("#fault-ranking"), () => cards.here);
  $("#note").addEventListener("input", () => work.changed());
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  drag($(".tray", main), {
    drop(letter, target) {
      cards.here = letter;
      edits.drop(letter, target);
    },
  });

  draw();
  work.start();
  return { key, acts, work };
}
