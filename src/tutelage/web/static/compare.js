// The matrix: rows come in as they are answered, one is open at a time, votes go by key.

import { keysOn, usual } from "./keys.js";
import { $, $$, announce, root, send, toast } from "./net.js";

const main = $("main");
const base = `/compare/${main.dataset.id}`;
let columns = $$(".matrix thead th").length;
let revision = 0;
let names = [];

const part = async (path) => {
  const reply = await fetch(root() + path);
  const made = document.createElement("template");
  made.innerHTML = await reply.text(); // the server's own escaped pieces
  return made.content;
};

const opened = () => $("#opened");
const openRow = () => Number(opened()?.dataset.row ?? -1);

let opening = 0;
async function open(row, against = 0, focus = true) {
  const mine = ++opening;
  const content = await part(`${base}/rows/${row}?against=${against}`);
  if (mine !== opening) return; // another row was asked for meanwhile
  close();
  const before = $(`#row-${row}`); // looked up now: the stream may have replaced it
  const made = document.createElement("tr");
  made.className = "opened";
  made.id = "opened";
  made.dataset.row = row;
  const cell = made.insertCell();
  cell.colSpan = columns;
  cell.append(content);
  before.after(made);
  $(".open", before).setAttribute("aria-expanded", "true");
  history.replaceState(null, "", `${root()}${base}?open=${row}`);
  before.scrollIntoView({ block: "nearest" });
  if (focus) $(".open", before).focus({ preventScroll: true });
}

function close() {
  opened()?.remove();
  $$(".open[aria-expanded=true]").forEach((one) => one.setAttribute("aria-expanded", "false"));
  history.replaceState(null, "", root() + base);
}

async function renew(rows) {
  if (!rows.length) return;
  const fresh = await part(`${base}/rows?n=${rows.join(",")}`);
  for (const row of $$("tr[data-row]", fresh)) {
    const old = $(`#row-${row.dataset.row}`);
    $(".open", row).setAttribute("aria-expanded", String(openRow() === Number(row.dataset.row)));
    const focused = old.contains(document.activeElement);
    old.replaceWith(row);
    if (focused) $(".open", row).focus({ preventScroll: true });
  }
  filter();
}

const renewRatings = async () => $("#ratings").replaceChildren(await part(`${base}/ratings`));

function filter() {
  const wanted = $("#filter").value;
  for (const row of $$("#rows > tr[data-row]")) {
    if (row.id !== "opened") row.hidden = Boolean(wanted) && !row.dataset.tags.split(" ").includes(wanted);
  }
}
$("#filter").addEventListener("change", filter);

function progress(now) {
  const { done, cut, failed, missing, queued, running } = now.counts;
  $("#progress").textContent =
    `${done} done, ${cut} cut off, ${failed} failed` + (missing ? `, ${missing} missing` : "") + (queued + running ? `, ${queued + running} to come` : "");
  $("#stop").hidden = !now.running;
  $("#start").hidden = now.running || !now.waiting;
  $("#waiting").textContent = now.waiting;
  $("#failure").hidden = !now.failure;
  $("#failure").textContent = now.failure;
}

function listen() {
  const source = new EventSource(`${root()}${base}/events?since=${revision}`);
  let turn = Promise.resolve(); // one event after the other: an older answer must not overwrite a newer one
  source.onmessage = (event) => (turn = turn.then(() => take(event)));
  const take = async (event) => {
    const now = JSON.parse(event.data);
    revision = now.revision;
    progress(now);
    if (!now.running) {
      source.close();
      announce(now.waiting ? `It has ended: ${$("#progress").textContent}.` : "All answers are there.");
    }
    await renew(now.rows);
    const row = openRow();
    // What somebody is reading stays as it is; a row that was waited for opens by itself.
    if (now.rows.includes(row) && !$(".answers", opened())) await open(row, 0, false);
    await renewRatings();
  };
}

async function act(form) {
  const reply = await send(form.getAttribute("action").slice(root().length), {});
  if (reply.ok && form.id === "start") {
    $("#start").hidden = true;
    $("#stop").hidden = false;
    listen();
  } else if (!reply.ok) toast(reply.data.error);
}

async function vote(ranking) {
  const row = openRow();
  const shown = opened().querySelector("[name=shown]")?.value ?? "";
  const reply = await send(`${base}/rows/${row}/vote`, { ranking, shown });
  if (reply.status === 422 && reply.data.error.includes("changed since")) await open(row);
  if (!reply.ok) return toast(reply.data.error);
  names.push(reply.data.names);
  const note = reply.data.rated ? (reply.data.self_naming ? " An answer that names its model is left out." : "") : ` Not rated: ${reply.data.why}.`;
  close();
  await renew([row]);
  await renewRatings();
  const next = $$("#rows > tr[data-votable='1']").find((one) => Number(one.dataset.row) > row) ?? $("#rows > tr[data-votable='1']");
  if (next) await open(Number(next.dataset.row));
  toast(`${reply.data.names}.${note}${next ? "" : " That was the last one."}`);
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a.open");
  const against = event.target.closest("a.against");
  if (link) {
    event.preventDefault();
    const row = Number(link.closest("tr").dataset.row);
    if (openRow() === row) close();
    else open(row);
  } else if (against) {
    event.preventDefault();
    open(openRow(), against.dataset.against);
  }
});

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (form.id === "start" || form.id === "stop") {
    event.preventDefault();
    act(form);
  } else if (form.classList.contains("vote")) {
    event.preventDefault();
    if (event.submitter?.hasAttribute("formaction")) {
      const row = openRow();
      await send(`${base}/rows/${row}/reveal`, {});
      await renew([row]);
      await open(row);
    } else {
      vote(event.submitter?.name === "ranking" ? event.submitter.value : form.elements.ranking.value);
    }
  }
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea, select")) return;
  const key = usual(event.key);
  if (!keysOn() || document.querySelector("dialog[open]")) return;
  const form = opened() && $(".vote", opened());
  const cards = Number(form?.dataset.cards ?? 0);
  const ranking = cards === 2 ? { 1: "A > B", 2: "B > A", "=": "A = B" }[key] : cards === 1 && key === "=" ? "A" : null;
  if (ranking) {
    event.preventDefault();
    vote(ranking);
  } else if ((key === "j" || key === "k") && $("#rows > tr")) {
    const all = $$("#rows > tr[data-row]").filter((one) => one.id !== "opened" && !one.hidden);
    const at = all.findIndex((one) => Number(one.dataset.row) === openRow());
    const to = all[at + (key === "j" ? 1 : -1)];
    if (to) open(Number(to.dataset.row));
  } else if (key === "Escape" && opened()) close();
});

if (opened()) opened().dataset.row = $(".reading", opened()).dataset.row;
if (main.dataset.running === "1") listen();
