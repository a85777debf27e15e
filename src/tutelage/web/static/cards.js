// The cards of the Rank page: which one is in hand, all folded or all open, and of which ones the end was on screen.

import { $, $$ } from "./net.js";
import { swipe } from "./swipe.js";

const small = matchMedia("(max-width: 640px)"); // one card at a time, as app.css has it

export class Cards {
  // drawn() draws the page after another card came to hand.
  constructor(main, signal, drawn) {
    Object.assign(this, { main, drawn, seen: new Set(), visits: [] });
    this.letters = $$(".card", main).map((card) => card.dataset.letter);
    this.here = this.letters[0];
    $("#cards").classList.add("measured"); // each by itself, a small screen's hidden ones too
    this.long = $$(".card", main).filter((card) => $(".body", card).scrollHeight > 360);
    $("#cards").classList.remove("measured");
    this.long.forEach((card) => card.classList.add("long"));
    $("#cards").classList.toggle("folded-all", this.long.length > 0);
    this.watch(signal);
    swipe($("#cards"), () => small.matches, (by) => this.goTo(this.letters[this.letters.indexOf(this.here) + by]));
  }

  card(letter) {
    return $(`#card-${letter}`);
  }

  goTo(letter, { focus = true, scroll = true } = {}) {
    if (!letter) return;
    if (letter !== this.here) this.visits.push(letter);
    this.here = letter;
    this.drawn();
    if (focus) this.card(letter).focus({ preventScroll: true });
    if (scroll) this.card(letter).scrollIntoView({ block: small.matches && this.card(letter).getBoundingClientRect().top < 0 ? "start" : "nearest" });
  }

  get revisits() {
    return this.visits.length - new Set(this.visits).size;
  }

  // Seen means that the end was on screen: not folded away, not under the bar of a small screen.
  watch(signal) {
    const look = (entries) => entries.forEach(({ isIntersecting, target }) => isIntersecting && this.endOnScreen(target.dataset.end) && this.seen.add(target.dataset.end));
    const watch = new IntersectionObserver(look, { rootMargin: `0px 0px -${bar()}px` });
    for (const x of this.letters) {
      const end = document.createElement("span");
      end.dataset.end = x;
      $(".body", this.card(x)).append(end);
      watch.observe(end);
    }
    signal.addEventListener("abort", () => watch.disconnect());
  }

  endOnScreen(letter) {
    const body = $(".body", this.card(letter));
    const end = $(`[data-end="${letter}"]`).getBoundingClientRect();
    const within = body.offsetParent && end.top <= body.getBoundingClientRect().bottom;
    return Boolean(within) && end.top >= 0 && end.top <= innerHeight - bar() + 1;
  }

  // The first answer whose end was never on screen.
  unseen() {
    for (const x of this.letters) if (this.endOnScreen(x)) this.seen.add(x);
    return this.letters.find((x) => !this.seen.has(x));
  }

  openAll() {
    const folded = $("#cards").classList.toggle("folded-all");
    for (const button of $$(".open", this.main)) {
      button.setAttribute("aria-expanded", String(!folded));
      button.firstChild.textContent = folded ? "Open all " : "Fold all ";
    }
  }

  toggleMarks(letter) {
    const details = $(".flags", this.card(letter));
    details.open = !details.open;
    (details.open ? $("input", details) : this.card(letter)).focus();
  }
}

const bar = () => $("#phone-tabs").offsetHeight;
