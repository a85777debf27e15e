// Answers that could not be sent wait here and go by themselves. Each has its own number: sent twice, stored once.

import { Offline, kept, send, signIn, strip } from "./net.js";

const MOST = 5;
let busy = false;
let told = 0;

export const waiting = () => kept.get("outbox") || [];
export const full = () => waiting().length >= MOST;

function tell() {
  const count = waiting().length;
  if (!count) return;
  strip(`No connection. Your work is kept here (${count} ${count === 1 ? "answer" : "answers"} waiting). Go on.`);
  told = Math.max(told, count);
}

// "stored", "waiting", or the server's refusal.
export async function deliver(task, answer) {
  try {
    const reply = await send(`/t/${task}/answer`, answer);
    if (reply.ok) return { state: "stored", data: reply.data };
    if (reply.status === 401) {
      if (await signIn()) return deliver(task, answer);
      return { state: "refused", data: { error: "Sign in to send this. Nothing is lost." } };
    }
    return { state: "refused", data: reply.data };
  } catch (error) {
    if (!(error instanceof Offline)) throw error;
    kept.set("outbox", [...waiting().filter((one) => one.answer.id !== answer.id), { task, answer }]);
    tell();
    return { state: "waiting" };
  }
}

export async function flush() {
  if (busy || !waiting().length) return;
  busy = true;
  try {
    for (const one of waiting()) {
      const reply = await send(`/t/${one.task}/answer`, one.answer);
      if (reply.status === 401 && (await signIn())) return;
      if (!reply.ok && reply.status !== 409 && reply.status !== 422) return;
      kept.set("outbox", waiting().filter((other) => other.answer.id !== one.answer.id));
      kept.drop(`draft:${one.task}`);
    }
    if (told) strip(`Sent ${told} ${told === 1 ? "answer" : "answers"}.`, "good");
    told = 0;
  } catch (error) {
    if (!(error instanceof Offline)) throw error;
    tell();
  } finally {
    busy = false;
  }
}

addEventListener("online", flush);
setInterval(flush, 4000);
