// Items at hand: leased and fetched while one is worked on, so that work goes on at once, and without a connection.

import { root } from "./net.js";
import { waiting } from "./outbox.js";

const MOST = 4; // with the one on screen as many as the outbox takes
let project = "";
let here = "";
let items = [];
let filling = null;

const good = (item) => item.expires > Date.now();
export const waitingTasks = () => waiting().map((one) => String(one.task));

// Work on this item begins: more are fetched.
export function at(where, task) {
  if (where !== project) items = [];
  [project, here] = [where, task];
  items = items.filter((one) => one.task !== task && (good(one) || !navigator.onLine));
  filling ??= fill().finally(() => (filling = null));
}

async function fill() {
  const mine = project;
  while (items.length < MOST && project === mine) {
    const before = [here, ...items.map((one) => one.task)];
    const besides = [...new Set([...before, ...waitingTasks()])];
    try {
      const reply = await fetch(`${root()}/p/${mine}/next?besides=${besides}`, { headers: { accept: "application/json" } });
      const { task } = await reply.json();
      if (!task || project !== mine || [here, ...before].includes(String(task))) return;
      const path = `${root()}/t/${task}`;
      const page = await fetch(`${path}?after=${before}`);
      if (!page.ok || page.redirected || project !== mine) return;
      const html = await page.text();
      const main = new DOMParser().parseFromString(html, "text/html").querySelector("main");
      items.push({ task: String(task), path, html, expires: Number(main.dataset.expires) * 1000 });
    } catch {
      return; // offline: fetched when it is needed
    }
  }
}

// The next one at hand. One whose lease ended may be somebody else's by now: only without a connection.
export function take() {
  const next = items.find(good) || (navigator.onLine ? null : items[0]);
  items = items.filter((one) => one !== next);
  return next;
}
