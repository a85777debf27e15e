// The Rank page: read in the cards, order in the tray.

import { Piles, byQuality } from "./aids.js";
import { $, $$, announce, root } from "./net.js";
import { drag } from "./drag.js";
import { join, joinAbove, move, parse, place, rankOf, takeOut, told, write } from "./ranking.js";
import { Work } from "./work.js";

export function openRank(main) {
  const form = $("#work", main);
  const letters = $$(".card", main).map((card) => card.dataset.letter);
  const field = $("#ranking");
  const texts = Object.fromEntries(letters.map((x) => [x, $(`#card-${x} .text`).textContent]));
  let groups = [];
  let past = [];
  let here = letters[0];
  let mode = ""; // "tie" waits for a rank, "quality" for 1 to 7, "skip" for a reason
  const seen = new Set();
  const visits = [];
  let contradictions = 0;
  let prefilled = 0; // times that the ranking was made from the ratings
  const piles = new Piles(letters);

  const flag = (name) => form.elements[name];
  const read = () => ({
    ranking: write(groups),
    rest_below: flag("rest_below").checked,
    all_bad: flag("all_bad").checked,
    ratings: Object.fromEntries(letters.map((x) => [x, Number(form.elements[`rating_${x}`].value)]).filter(([, v]) => v)),
    flags: Object.fromEntries(letters.map((x) => [x, $$(`#card-${x} .flags input:checked`).map((box) => box.value)]).filter(([, v]) => v.length)),
    category: $("#category").value.trim() && $("#category").selectedIndex ? $("#category").value : "",
    note: $("#note").value,
    ...(Object.keys(piles.of).length ? { piles: piles.of } : {}),
  });
  const show = (payload) => {
    try {
      groups = parse(payload.ranking || "", letters.join(""));
    } catch {
      groups = [];
    }
    piles.set(payload.piles);
    flag("rest_below").checked = Boolean(payload.rest_below);
    flag("all_bad").checked = Boolean(payload.all_bad);
    for (const x of letters) {
      for (const radio of form.elements[`rating_${x}`]) radio.checked = Number(radio.value) === (payload.ratings || {})[x];
      for (const box of $$(`#card-${x} .flags input`)) box.checked = ((payload.flags || {})[x] || []).includes(box.value);
    }
    $("#note").value = payload.note || "";
    $("#category").value = payload.category || "";
    draw();
  };
  const work = new Work(main, { read, show });

  const chip = (letter) => {
    const made = document.createElement("button");
    made.type = "button";
    made.className = "chip";
    made.dataset.chip = letter;
    made.setAttribute("aria-pressed", String(letter === here));
    const bold = document.createElement("b");
    bold.textContent = letter;
    const short = document.createElement("span");
    short.textContent = texts[letter].replace(/\s+/g, " ").slice(0, 60);
    const pile = Object.assign(document.createElement("small"), { className: "pile", textContent: piles.word(letter) });
    made.append(bold, ...(pile.textContent && !rankOf(groups, letter) ? [pile] : []), short);
    return made;
  };

  function draw() {
    const focused = document.activeElement?.dataset?.chip;
    $("#rows").replaceChildren(
      ...groups.map((group, i) => {
        const row = document.createElement("li");
        row.className = "row";
        row.dataset.row = i + 1;
        const number = document.createElement("span");
        number.className = "nr";
        number.textContent = i + 1;
        const chips = document.createElement("span");
        chips.className = "chips";
        group.forEach((letter, n) => {
          if (n) chips.append(Object.assign(document.createElement("span"), { className: "eq", textContent: "=" }));
          chips.append(chip(letter));
        });
        row.append(number, chips);
        return row;
      }),
    );
    $("#unranked").replaceChildren(...piles.order.filter((x) => !rankOf(groups, x)).map(chip));
    $("[data-act=by-quality]").disabled = Object.keys(read().ratings).length < 2;
    $("[data-act=roughly]")?.setAttribute("aria-pressed", String(piles.on));
    if ($(".piles")) $(".piles").hidden = !piles.on;
    const pushed = [];
    for (const letter of letters) {
      const rank = rankOf(groups, letter);
      const card = $(`#card-${letter}`);
      card.classList.toggle("ranked", rank > 0);
      card.classList.toggle("current", letter === here);
      card.classList.toggle("rating", mode === "quality" && letter === here);
      $("select", card).value = rank ? String(rank) : "";
      const marks = $$(".flags input:checked", card).length;
      $(".count", card).textContent = marks ? `(${marks})` : "";
      const tab = document.createElement("button");
      tab.type = "button";
      tab.dataset.tab = letter;
      tab.setAttribute("aria-pressed", String(letter === here));
      tab.append(letter, Object.assign(document.createElement("small"), { textContent: rank || "?" }));
      pushed.push(tab);
    }
    const best = document.createElement("button");
    best.type = "button";
    best.dataset.rankHere = rankOf(groups, here) ? "0" : String(groups.length + 1);
    best.textContent = rankOf(groups, here) ? `Take ${here} out` : `${here}: rank ${groups.length + 1}`;
    const sendButton = Object.assign(document.createElement("button"), { type: "button", className: "primary", textContent: "Submit" });
    sendButton.dataset.send = "1";
    $("#phone-tabs").replaceChildren(...pushed, best, sendButton);
    if (document.activeElement !== field) field.value = write(groups);
    const count = groups.flat().length;
    $("#submit").textContent = count ? `Submit ${count} of ${letters.length}` : "Submit";
    if (focused) $(`[data-chip="${focused}"]`)?.focus({ preventScroll: true });
  }

  function change(next, letter, { say = true } = {}) {
    if (write(next) === write(groups)) return;
    past.push(groups);
    const before = groups;
    groups = next;
    draw();
    work.changed();
    if (say) announce(told(before, groups, letter));
  }

  function goTo(letter, { focus = true, scroll = true } = {}) {
    if (!letter) return;
    if (letter !== here) visits.push(letter);
    here = letter;
    draw();
    const card = $(`#card-${letter}`);
    if (focus) card.focus({ preventScroll: true });
    if (scroll) card.scrollIntoView({ block: "nearest" });
  }

  const nextUnranked = () => {
    const order = piles.order;
    const start = order.indexOf(here);
    return [...order.slice(start + 1), ...order.slice(0, start)].find((x) => !rankOf(groups, x));
  };

  // Piles first, then ranks inside of them.
  function sort(pile) {
    announce(piles.put(here, pile));
    work.changed();
    const open = piles.unsorted;
    goTo(open.find((x) => x > here) || open[0] || piles.order.find((x) => !rankOf(groups, x)) || here);
  }

  function roughly() {
    piles.on = !piles.on;
    if (piles.on && !piles.unsorted.length) piles.set({});
    if (piles.on) goTo(piles.unsorted[0], { focus: true });
    draw();
    announce(piles.on ? "Sort roughly: 1 good, 2 middle, 3 poor" : "Digits rank");
  }

  function put(rank, tie = false) {
    const letter = here;
    if (letters.length === 2 && !tie && rank <= 2) {
      const other = letters.find((x) => x !== letter); // two answers: one key orders both
      return change(rank === 1 ? [[letter], [other]] : [[other], [letter]], letter);
    }
    change(tie ? join(groups, letter, rank) : place(groups, letter, rank), letter);
    const next = nextUnranked();
    if (next) goTo(next);
  }

  function setMode(next) {
    mode = next;
    draw();
    if (mode === "quality") announce(`Quality of ${here}: 1 to 7`);
    if (mode === "tie") announce("Tie with which rank?");
  }

  function rate(value) {
    const letter = here;
    const radio = $(`input[name="rating_${letter}"][value="${value}"]`);
    radio.checked = true;
    announce(`${letter} quality ${value}`);
    work.changed();
    const next = letters[letters.indexOf(letter) + 1];
    mode = "";
    if (next) goTo(next);
    else draw();
  }

  const warned = new Set(); // each warning comes once
  async function submit() {
    const payload = read();
    const ranked = groups.flat().length;
    const rest = payload.rest_below && ranked > 0 && ranked < letters.length;
    if (ranked < 2 && !rest && !payload.all_bad) return work.faults({ ranking: "Rank two answers or more, or press x if all are bad." });
    for (const x of letters) if (endOnScreen(x)) seen.add(x);
    const hidden = letters.find((x) => !seen.has(x));
    if (groups.length && hidden && !warned.has("seen")) {
      warned.add("seen");
      return announceFault(`The end of ${hidden} was not on screen. Press submit again to send anyway.`);
    }
    const odd = contradiction(payload.ratings);
    if (odd && !warned.has("odd")) {
      warned.add("odd");
      contradictions++;
      return announceFault(odd);
    }
    $("#summary").hidden = true;
    const revisits = visits.length - new Set(visits).size;
    await work.submit({ ...payload, effort: { seen: letters.map((x) => seen.has(x)), revisits, contradictions, ...(prefilled ? { prefilled } : {}) } });
  }

  const announceFault = (words) => {
    const line = $("#fault-ranking");
    line.textContent = words;
    line.hidden = false;
    announce(words);
  };

  function contradiction(ratings) {
    for (const [i, group] of groups.entries())
      for (const a of group)
        for (const b of groups.slice(i + 1).flat())
          if (ratings[a] && ratings[b] && ratings[a] < ratings[b]) return `You gave ${a} ${ratings[a]} and ${b} ${ratings[b]} but put ${a} above. Submit again to keep it, or look again.`;
    return "";
  }

  // Seen means that the end was on screen: not folded away, not under the bar of a small screen.
  const bar = () => $("#phone-tabs").offsetHeight;
  const endOnScreen = (letter) => {
    const body = $(`#card-${letter} .body`);
    const end = $(`[data-end="${letter}"]`).getBoundingClientRect();
    const within = body.offsetParent && end.top <= body.getBoundingClientRect().bottom;
    return Boolean(within) && end.top >= 0 && end.top <= innerHeight - bar() + 1;
  };
  const watch = new IntersectionObserver((entries) => entries.forEach(({ isIntersecting, target }) => isIntersecting && endOnScreen(target.dataset.end) && seen.add(target.dataset.end)), { rootMargin: `0px 0px -${bar()}px` });
  for (const x of letters) {
    const end = document.createElement("span");
    end.dataset.end = x;
    $(`#card-${x} .body`).append(end);
    watch.observe(end);
  }
  work.over.signal.addEventListener("abort", () => watch.disconnect());

  const cards = $("#cards");
  const long = $$(".card", main).filter((card) => $(".body", card).scrollHeight > 360);
  long.forEach((card) => card.classList.add("long"));
  cards.classList.toggle("folded-all", long.length > 0);

  const acts = {
    submit,
    undo() {
      if (!past.length) return false;
      groups = past.pop();
      draw();
      work.changed();
      announce(`Undone: ${write(groups) || "nothing ranked"}`);
      return true;
    },
    out: () => change(takeOut(groups, here), here),
    up: () => change(move(groups, here, -1), here),
    down: () => change(move(groups, here, 1), here),
    join: () => change(joinAbove(groups, here), here),
    byQuality() {
      const next = byQuality(letters, read().ratings);
      if (write(next) !== write(groups)) prefilled++;
      change(next, next[0][0], { say: false });
      announce(`Ordered by quality: ${write(groups)}`);
    },
    open() {
      const folded = cards.classList.toggle("folded-all");
      for (const button of $$(".open", main)) {
        button.setAttribute("aria-expanded", String(!folded));
        button.firstChild.textContent = folded ? "Open all " : "Fold all ";
      }
    },
    prompt() {
      const folded = $("#prompt").classList.toggle("folded");
      $("#prompt .fold").setAttribute("aria-expanded", String(!folded));
    },
  };

  // Against the card ranked above, or any other that is chosen in the panel.
  async function showDifferences(other = "") {
    const letter = here;
    const panel = $(`#card-${letter} .gone-text`);
    if (!other && !panel.hidden) return (panel.hidden = true);
    const rank = rankOf(groups, letter);
    const above = other || (rank > 1 ? groups[rank - 2][0] : letters[(letters.indexOf(letter) || letters.length) - 1]);
    const reply = await fetch(`${root()}/t/${work.task}/differences/${above}/${letter}`).catch(() => null);
    if (!reply?.ok) return announce("No connection.");
    const page = new DOMParser().parseFromString(await reply.text(), "text/html");
    const label = Object.assign(document.createElement("label"), { className: "against", textContent: "Against " });
    const select = document.createElement("select");
    select.append(...letters.filter((x) => x !== letter).map((x) => new Option(x, x, x === above, x === above)));
    select.addEventListener("change", (event) => {
      event.stopPropagation();
      here = letter;
      showDifferences(select.value);
    });
    label.append(select);
    panel.replaceChildren(label, ...page.body.childNodes);
    panel.hidden = false;
    if (other) select.focus();
  }

  function key(event) {
    const { key: k } = event;
    if (event.altKey && (k === "ArrowUp" || k === "ArrowDown")) return acts[k === "ArrowUp" ? "up" : "down"](), true;
    if (event.altKey) return false;
    if (mode === "quality" && /^[1-7]$/.test(k)) return rate(Number(k)), true;
    if (mode === "tie") {
      if (k === "=") return setMode(""), letters.length === 2 ? change([[...letters]], here) : (acts.join(), nextUnranked() && rankOf(groups, here) && goTo(nextUnranked())), true;
      if (/^[1-9]$/.test(k)) return setMode(""), put(Number(k), true), true;
    }
    if (mode) setMode("");
    if (piles.on && /^[1-3]$/.test(k)) return sort(Number(k)), true;
    if (/^[1-9]$/.test(k)) return put(Number(k)), true;
    if (k === "0") return acts.out(), true;
    if (k === "=") return setMode("tie"), true;
    if (/^[a-i]$/.test(k) && letters.includes(k.toUpperCase())) return goTo(k.toUpperCase()), true;
    const step = { j: 1, ArrowRight: 1, ArrowDown: 1, k: -1, ArrowLeft: -1, ArrowUp: -1 }[k];
    if (step) return goTo(letters[(letters.indexOf(here) + step + letters.length) % letters.length]), true;
    if (k === "r") return field.focus(), field.select(), true;
    if (k === "w") return flag("rest_below").click(), true;
    if (k === "x") return flag("all_bad").click(), true;
    if (k === "l") return setMode("quality"), true;
    if (k === "m") {
      const details = $(`#card-${here} .flags`);
      details.open = !details.open;
      (details.open ? $("input", details) : $(`#card-${here}`)).focus();
      return true;
    }
    if (k === "n") return $("#note").focus(), true;
    if (k === "q") return $("#category").focus(), true;
    if (k === "o") return long.length && acts.open(), true;
    if (k === "v") return showDifferences(), true;
    if (k === "p") return acts.prompt(), true;
    return false;
  }

  main.addEventListener("click", (event) => {
    const target = event.target.closest("[data-act], [data-move], [data-chip], [data-tab], [data-rank-here], [data-send], [data-pile]");
    const card = event.target.closest(".card");
    if (card && card.dataset.letter !== here && !event.target.closest("select")) goTo(card.dataset.letter, { focus: false, scroll: false });
    if (!target) return;
    if (target.dataset.move) acts[target.dataset.move]();
    else if (target.dataset.chip) goTo(target.dataset.chip, { focus: false });
    else if (target.dataset.tab) goTo(target.dataset.tab, { focus: false });
    else if (target.dataset.rankHere) target.dataset.rankHere === "0" ? acts.out() : put(Number(target.dataset.rankHere));
    else if (target.dataset.send) submit();
    else if (target.dataset.pile) sort(Number(target.dataset.pile));
    else if (target.dataset.act === "by-quality") acts.byQuality();
    else if (target.dataset.act === "roughly") roughly();
    else if (["undo", "open", "prompt"].includes(target.dataset.act)) acts[target.dataset.act]();
  });
  main.addEventListener("change", (event) => {
    const { target } = event;
    if (target.dataset.rank) {
      const letter = target.dataset.rank;
      here = letter;
      const value = target.value;
      change(!value ? takeOut(groups, letter) : value[0] === "=" ? join(groups, letter, Number(value.slice(1))) : place(groups, letter, Number(value)), letter);
      draw();
    } else if (target !== field) {
      if (target.name === "rest_below") announce(target.checked ? "The rest are worse" : "The rest are not ranked");
      if (target.name === "all_bad") announce(target.checked ? "All bad" : "Not all bad");
      draw();
      work.changed();
    }
  });
  field.addEventListener("input", () => {
    const fault = $("#fault-ranking");
    try {
      const next = parse(field.value, letters.join(""));
      fault.hidden = true;
      field.removeAttribute("aria-invalid");
      change(next, next.flat().at(-1) || here, { say: false });
    } catch (error) {
      fault.textContent = error.message;
      fault.hidden = false;
      field.setAttribute("aria-invalid", "true");
    }
  });
  $("#note").addEventListener("input", () => work.changed());
  field.addEventListener("blur", () => (field.value = write(groups)));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  drag($(".tray", main), {
    drop(letter, target) {
      here = letter;
      if (target.out) change(takeOut(groups, letter), letter);
      else if (target.join) change(join(groups, letter, target.join), letter);
      else change(placeAt(groups, letter, target.before), letter);
    },
  });

  draw();
  work.start();
  return { key, acts, work };
}

// Drop before the row that has number `before` now: taking the letter out first may shift that row.
function placeAt(groups, letter, before) {
  const alone = groups.findIndex((g) => g.length === 1 && g[0] === letter) + 1;
  return place(groups, letter, alone && alone < before ? before - 1 : before);
}
