// Answers that could not be sent wait here and go by themselves. Each has its own number: sent twice, stored once.
// One that the server refuses is kept, with its draft, until its item is answered anew or it is put away.

import { Offline, kept, root, send, signIn, strip } from "./net.js";
import { asides, forget } from "./versions.js";

const MOST = 5;
const EVERY = 4000;
let going = null;
let sent = 0; // answers of the outbox that were stored since the strip last said so
let why = ""; // what the server said when it could not take one now; "" without a connection
let asked = false; // one left the sign-in open: not asked again unless they want it

export const waiting = () => kept.get("outbox") || [];
export const refused = () => kept.get("refused") || [];
export const full = () => waiting().length >= MOST;
export const count = (number, what = "answer") => `${number} ${number === 1 ? what : `${what}s`}`;
const others = (list, task) => list.filter((one) => one.task !== task);

function stored(task) {
  kept.set("outbox", others(waiting(), task));
  kept.set("refused", others(refused(), task));
  kept.drop(`draft:${task}`);
  kept.drop(`time:${task}`);
  forget(task);
}

function putAway() {
  for (const { task } of refused()) kept.drop(`draft:${task}`);
  kept.drop("refused");
  tell();
}

// One line about all that the server does not have.
export function tell() {
  const bad = refused();
  const left = waiting().length;
  const news = sent ? `Sent ${count(sent)}. ` : "";
  sent = 0;
  if (bad.length) {
    const links = bad.map((one) => ({ text: `Open ${one.title}`, href: `${root()}/t/${one.task}` }));
    strip(`${news}Not sent: ${count(bad.length)}. ${bad[0].error} Your work is kept.`, "red", ...links, { text: "Put away", act: putAway });
  } else if (left && asked) strip(`${news}${why} (${count(left)} waiting).`, "red", { text: "Send now", act: () => flush() });
  else if (left && why) strip(`${news}${why} ${count(left)} waiting; sent by itself as soon as that works. Go on.`, "red");
  else if (left) strip(`${news}No connection. Your work is kept here (${count(left)} waiting). Go on.`);
  else strip(news, "good");
}

// "stored"; "later": no connection, or a server that cannot save now; "stay": sign in or load the page first; "refused".
async function attempt(task, answer) {
  let reply;
  try {
    reply = await send(`/t/${task}/answer`, answer);
  } catch (error) {
    if (!(error instanceof Offline)) throw error;
    why = "";
    return { state: "later" };
  }
  const { status, data } = reply;
  if (reply.ok) return { state: "stored", data };
  if (status === 401) return (await signIn()) ? attempt(task, answer) : { state: "stay", data: { error: "Sign in to send this. Nothing is lost." } };
  if (status === 403) return { state: "stay", data };
  if (status === 429 || status >= 500) {
    why = data.error;
    return { state: "later", data };
  }
  return { state: "refused", data };
}

export async function deliver(task, answer, title) {
  const result = await attempt(task, answer);
  if (result.state === "stored") stored(task);
  if (result.state === "later") {
    kept.set("outbox", [...others(waiting(), task), { task, answer, title }]);
    kept.set("refused", others(refused(), task));
  }
  if (result.state === "stored" || result.state === "later") tell();
  return result;
}

async function empty() {
  const before = waiting().length;
  asked = false;
  for (const { task, answer, title } of waiting()) {
    const { state, data } = await attempt(task, answer);
    if (state === "stored") {
      stored(task);
      sent++;
    } else if (state === "refused") {
      kept.set("outbox", others(waiting(), task));
      kept.set("refused", [...others(refused(), task), { task, title: title || `item ${task}`, error: data.error, faults: data.faults }]);
    } else {
      if (state === "stay") [asked, why] = [true, data.error];
      break;
    }
  }
  if (before || refused().length) tell();
}

export const flush = () => (going ??= empty().finally(() => (going = null)));

const unsaved = () =>
  kept
    .keys("draft:")
    .filter((task) => kept.get(`draft:${task}`)?.unsaved && ![...waiting(), ...refused()].some((one) => String(one.task) === task));

// All that is only here goes to the server; returns what does not: its keys, and in words.
export async function settle() {
  await flush();
  for (const task of unsaved()) {
    const { revision, payload } = kept.get(`draft:${task}`);
    const reply = await send(`/t/${task}/draft`, { revision, payload }).catch(() => null);
    if (reply?.ok) kept.set(`draft:${task}`, { revision: reply.data.revision, payload });
  }
  const answers = [...waiting(), ...refused()];
  const drafts = unsaved();
  const asided = asides();
  const counts = [[answers.length, "answer"], [drafts.length, "draft"], [asided.length, "other version"]];
  const words = counts.filter(([number]) => number).map(([number, what]) => count(number, what)).join(" and ");
  const kinds = [...answers.map((one) => `draft:${one.task}`), ...drafts.map((task) => `draft:${task}`), ...asided.map((task) => `other:${task}`)];
  return { words, keys: ["outbox", "refused", ...kinds] };
}

addEventListener("online", flush);
setInterval(() => waiting().length && !asked && flush(), EVERY);
