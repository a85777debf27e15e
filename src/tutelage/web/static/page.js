// Starts every page: theme, the keys dialog, single keys, and the page's own part.

import { openAdjudicate } from "./adjudicate.js";
import { $, $$, kept, root, strip, toast } from "./net.js";
import { openFlag } from "./flag.js";
import { keysOn, openKeys, usual } from "./keys.js";
import { flush, settle } from "./outbox.js";
import { openRank } from "./rank.js";
import { openSteps } from "./steps.js";
import { go, onOpen, work } from "./work.js";
import { openWrite } from "./write.js";

const PAGES = { rank: openRank, demonstrate: openWrite, steps: openSteps, flag: openFlag, adjudicate: openAdjudicate, practise: openAdjudicate };
let part = null;

document.documentElement.classList.add("script");

const dark = matchMedia("(prefers-color-scheme: dark)");
const themeNow = () => localStorage.getItem("tutelage:theme") ?? (dark.matches ? "dark" : "light");

// Without a choice the system's theme holds, and changes with it.
function theme(next) {
  if (next) localStorage.setItem("tutelage:theme", next);
  const chosen = localStorage.getItem("tutelage:theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
  $("[data-act=theme]").textContent = themeNow() === "dark" ? "Light" : "Dark";
}
dark.addEventListener("change", () => theme());

function open() {
  const main = $("main");
  part = PAGES[main.dataset.page]?.(main) ?? null;
  if (part && main.dataset.page !== "demonstrate") $("#prompt").focus({ preventScroll: true });
}

// A part that is fetched anew stays as the reader left it: folds open, the same control in focus.
let left = null;
document.addEventListener("htmx:beforeSwap", ({ detail: { target } }) => {
  const controls = $$("summary, a, button", target);
  left = { open: $$("details", target).map((one) => one.open), at: controls.indexOf(document.activeElement), of: controls.length };
});
document.addEventListener("htmx:afterSettle", ({ target }) => {
  const folds = $$("details", target);
  const controls = $$("summary, a, button", target);
  if (left && folds.length === left.open.length) folds.forEach((one, i) => (one.open = left.open[i]));
  if (left?.at >= 0 && controls.length === left.of) controls[left.at].focus({ preventScroll: true });
  left = null;
});

document.addEventListener("click", (event) => {
  const act = event.target.closest("[data-act]")?.dataset.act;
  if (act === "keys") openKeys();
  if (act === "theme") theme(themeNow() === "dark" ? "light" : "dark");
});
document.addEventListener("submit", (event) => {
  if (event.target.dataset.act !== "sign-out") return;
  event.preventDefault();
  signOut(event.target);
});

// What is only in this browser is sent first; it is cleared once the server has it, and the session has ended.
async function signOut(form, anyway = false) {
  await work()?.saveNow();
  const { words, keys } = await settle();
  if (words && !anyway)
    return strip(`Not sent: ${words}. You are still signed in. Kept in this browser and sent when you sign in here again.`, "red", {
      text: "Sign out all the same",
      act: () => signOut(form, true),
    });
  const headers = { "x-csrf-token": document.body.dataset.csrf, "content-type": "application/x-www-form-urlencoded" };
  const reply = await fetch(form.action, { method: "POST", headers }).catch(() => null);
  if (!reply?.ok && reply?.status !== 401) return strip("Not signed out: the server cannot do it now. Try again.", "red");
  work()?.close();
  kept.clear(words ? keys : []);
  location.assign(`${root()}/login`);
}

function toggle(id) {
  const details = $(id);
  if (!details) return;
  details.open = !details.open;
  $(details.open ? "button, .sheet" : "summary", details)?.focus();
}

const isText = (target) => target.matches("textarea, select, input:not([type=radio], [type=checkbox])") || target.isContentEditable;

document.addEventListener("keydown", (event) => {
  const { target, altKey } = event;
  const key = isText(target) ? event.key : usual(event.key);
  if (document.querySelector("dialog[open]") || event.isComposing) return;
  if ((event.ctrlKey || event.metaKey) && key === "Enter" && part) {
    event.preventDefault();
    return void part.acts.submit();
  }
  if (event.ctrlKey || event.metaKey) return;
  if (key === "Escape") {
    $$(".tools details[open]").forEach((one) => (one.open = false));
    if (isText(target)) target.blur();
    return;
  }
  if (isText(target)) {
    if (key === "Enter" && target.id === "ranking") {
      event.preventDefault();
      target.blur();
      part?.acts.submit();
    }
    return;
  }
  if (!keysOn()) return;
  const skip = $("#skip");
  if (skip?.open && /^[1-5]$/.test(key)) {
    event.preventDefault();
    return void $$("button", skip)[Number(key) - 1]?.click();
  }
  if (key === "Enter" && part && !target.closest("button, a, summary, label, input")) {
    event.preventDefault();
    return void part.acts.submit();
  }
  const arrows = key.startsWith("Arrow");
  if (arrows && !altKey && target.matches("input[type=radio]")) return;
  if (part && !work()?.readOnly && part.key({ key, altKey })) return void event.preventDefault();
  const ours = {
    "?": openKeys,
    "/": () => $("[type=search]")?.focus(),
    s: () => toggle("#skip"),
    t: () => toggle("#instructions"),
    z: () => part && (part.acts.undo?.() || reopen()),
    "[": () => step("earlier"),
    "]": () => step("later"),
  }[key];
  if (ours && !altKey) {
    event.preventDefault();
    ours();
  }
});

function reopen() {
  const last = kept.get("last");
  if (last && last.task !== work()?.task) go(`${root()}/t/${last.task}`).then(() => toast("Your last answer, to correct."));
}

function step(which) {
  const task = $("main").dataset[which];
  if (task) go(`${root()}/t/${task}`);
}

addEventListener("popstate", () => location.reload());
onOpen(open);
theme();
open();
if (document.body.dataset.person) flush();
