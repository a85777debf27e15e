// The Steps page: right, neutral or wrong for each step; past a first error nothing needs a label.

import { $, $$, announce } from "./net.js";
import { Work } from "./work.js";

const VALUES = ["1", "0", "-1"];
const WORDS = { 1: "right", 0: "neutral", "-1": "wrong" };

export function openSteps(main) {
  const form = $("#work", main);
  const steps = $$(".step", main);
  let here = 0;
  let past = [];
  let known = []; // the labels before a click changes them

  const labels = () => {
    const given = steps.map((_, i) => form.elements[`step_${i}`].value).map((v) => (v === "" ? null : Number(v)));
    const error = given.indexOf(-1);
    return error < 0 ? given : given.slice(0, error + 1);
  };
  const put = (given) => {
    steps.forEach((_, i) => {
      for (const radio of form.elements[`step_${i}`]) radio.checked = given[i] != null && Number(radio.value) === given[i];
    });
    known = labels();
    draw();
  };
  const work = new Work(main, { read: () => ({ labels: labels() }), show: (payload) => put(payload.labels || []) });

  function draw() {
    const error = labels().indexOf(-1);
    steps.forEach((step, i) => {
      step.classList.toggle("current", i === here);
      step.classList.toggle("after-error", error >= 0 && i > error);
    });
  }
  function change(given, say) {
    past.push(labels());
    put(given);
    work.changed();
    announce(say);
  }
  function goTo(number) {
    here = Math.max(0, Math.min(steps.length - 1, number));
    draw();
    steps[here].focus({ preventScroll: true });
    steps[here].scrollIntoView({ block: "nearest" });
  }
  function label(number, value) {
    const given = labels();
    while (given.length < number) given.push(null);
    given[number] = Number(value);
    change(given, `Step ${number + 1} ${WORDS[value]}`);
    if (value !== "-1") goTo(number + 1);
  }
  const firstError = (number) => {
    const given = labels();
    change([...Array(number)].map((_, i) => (given[i] === 0 ? 0 : 1)).concat(-1), `Right up to step ${number}, step ${number + 1} wrong`);
    goTo(number);
  };
  const allRight = () => change(steps.map(() => 1), "All right");
  const undo = () => (past.length ? (put(past.pop()), work.changed(), true) : false);

  form.addEventListener("change", (event) => {
    const number = Number(event.target.name?.slice(5));
    here = number;
    past.push(known);
    known = labels();
    draw();
    work.changed();
    announce(`Step ${number + 1} ${WORDS[event.target.value]}`);
  });
  const submit = () => {
    const given = labels();
    if (given.includes(null)) return work.faults({ steps: "Label each step, or mark the first wrong one." });
    return work.submit({ labels: given });
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  main.addEventListener("click", (event) => {
    const step = event.target.closest(".step");
    if (step) ((here = Number(step.dataset.step)), draw());
    const error = event.target.closest("[data-first-error]");
    if (error) firstError(Number(error.dataset.firstError));
    if (event.target.closest("[data-act=all-right]")) allRight();
  });
  function key(event) {
    const { key: k } = event;
    if (event.altKey) return false;
    if (/^[123]$/.test(k)) return label(here, VALUES[Number(k) - 1]), true;
    if (k === "u") return firstError(here), true;
    if (k === "y") return allRight(), true;
    const step = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 }[k];
    if (step) return goTo(here + step), true;
    return false;
  }
  known = labels();
  draw();
  work.start();
  return { key, acts: { submit, undo }, work };
}
