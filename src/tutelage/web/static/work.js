// What ranking, writing and judging share: drafts, sending, going on to the next item, leases, two tabs.

import { Activity } from "./activity.js";
import { $, $$, Offline, announce, kept, root, send, signIn, strip, toast } from "./net.js";
import { count, deliver, flush, full, refused, tell, waiting } from "./outbox.js";
import { at, take, waitingTasks } from "./shelf.js";
import { offer, setAside } from "./versions.js";

const SAVE_AFTER = 1500;
const AGAIN_AFTER = 3000;
const SLOW = 3000; // until one who waits is told so
let current = null;
export const work = () => current;

export class Work {
  // read() gives the payload of the page, show(payload) puts one back.
  constructor(main, { read, show }) {
    Object.assign(this, { main, read, show });
    this.task = main.dataset.task;
    this.project = main.dataset.project;
    this.kind = main.dataset.page;
    this.revision = Number(main.dataset.revision);
    this.expires = Number(main.dataset.expires) * 1000;
    this.span = Number(main.dataset.lease) * 1000; // how long the project lends an item
    this.activity = new Activity();
    this.id = crypto.randomUUID ? crypto.randomUUID() : [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, "0")).join("");
    this.dirty = this.sent = this.readOnly = false;
    this.moves = 0;
    this.over = new AbortController();
    this.timers = [];
    current?.close();
    current = this;
  }

  start() {
    const { signal } = this.over;
    const before = kept.get(`time:${this.task}`) || {};
    this.activity.add(before);
    this.moves += before.moves || 0;
    this.restore();
    const leave = () => (this.keepTime(), this.save(true));
    addEventListener("pagehide", leave, { signal });
    addEventListener("blur", () => (this.activity.tick(true), leave()), { signal });
    addEventListener("focus", () => this.activity.tick(false), { signal });
    document.addEventListener("visibilitychange", () => (this.activity.tick(document.hidden), document.hidden && leave()), { signal });
    for (const [event, kind] of [["keydown", "keys"], ["pointerdown", "pointer"], ["scroll", ""]])
      addEventListener(event, (e) => (this.activity.touched(kind === "keys" && e.target?.matches?.("input, textarea") ? "text" : kind), this.renew()), { signal, passive: true, capture: true });
    this.timers.push(setInterval(() => this.activity.tick(), 1000), setInterval(() => this.lease(), 15000));
    this.lease();
    this.tabs();
    $("#skip-form")?.addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit({ kind: "skip", reason: event.submitter?.value });
    });
    if (!this.main.dataset.answered) at(this.project, this.task);
    flush();
  }

  // The seconds of an item outlive a reload, and a return to it later.
  keepTime() {
    if (!this.readOnly && !this.sent) kept.set(`time:${this.task}`, { ...this.activity.spent(), moves: this.moves });
  }

  close() {
    this.keepTime();
    this.over.abort();
    this.timers.forEach(clearInterval);
    clearTimeout(this.timer);
    this.channel?.close();
  }

  // The newest of: what this browser kept, the server's draft (already on the page). The other one is set aside.
  restore() {
    const local = kept.get(`draft:${this.task}`);
    const start = JSON.parse(this.main.dataset.start);
    const bad = refused().find((one) => String(one.task) === this.task);
    if (local && (bad || local.revision >= this.revision) && JSON.stringify(local.payload) !== JSON.stringify(start)) {
      this.show(local.payload);
      this.dirty = true;
      this.saved("Kept in this browser");
      this.timer = setTimeout(() => this.save(), SAVE_AFTER);
    } else {
      if (Object.keys(start).length) this.show(start);
      if (local?.unsaved && local.revision < this.revision) setAside(this.task, local);
    }
    offer(this);
    if (bad) this.faults(bad.faults || { work: bad.error });
  }

  changed() {
    if (this.readOnly) return;
    this.dirty = true;
    this.moves++;
    this.keep();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.save(), SAVE_AFTER);
  }

  // In the browser at once; `unsaved` until the server has it.
  keep() {
    kept.set(`draft:${this.task}`, { revision: this.revision, payload: this.read(), unsaved: true });
  }

  async saveNow() {
    while (this.saving) await new Promise((resolve) => setTimeout(resolve, 30));
    await this.save();
  }

  async save(keepalive = false) {
    if (!this.dirty || this.sent || this.readOnly || this.saving) return;
    clearTimeout(this.timer);
    this.dirty = false;
    this.saving = true;
    try {
      const payload = this.read();
      const reply = await send(`/t/${this.task}/draft`, { revision: this.revision, payload }, { keepalive });
      if (this.sent) return;
      if (reply.ok) {
        this.revision = reply.data.revision;
        if (this.dirty) this.keep();
        else kept.set(`draft:${this.task}`, { revision: this.revision, payload });
        this.saved(`Saved ${new Date().toTimeString().slice(0, 5)}`);
        if (this.trouble) tell();
        this.trouble = false;
      } else if (reply.status === 409) this.freeze(reply.data.error);
      else if (reply.status === 401) (await signIn()) && ((this.dirty = true), (this.timer = setTimeout(() => this.save(), 0)));
      else if (reply.status >= 500) this.later(reply.data.error, "red", keepalive);
      else strip(reply.data.error, "red");
    } catch (error) {
      if (!(error instanceof Offline)) throw error;
      this.later("No connection. Your work is kept here. Go on.", "", keepalive);
    } finally {
      this.saving = false;
      if (this.dirty && !this.timer) this.timer = setTimeout(() => this.save(), SAVE_AFTER);
    }
  }

  // The draft stays in the browser and is tried again; what the outbox says of answers comes first.
  later(words, tone, last) {
    this.dirty = this.trouble = true;
    this.saved("Kept in this browser");
    if (!waiting().length) strip(words, tone);
    if (!last) this.timer = setTimeout(() => this.save(), AGAIN_AFTER);
  }

  saved(text) {
    $("#saved").textContent = text;
  }

  async submit(fields) {
    if (this.readOnly || this.sending) return;
    if (full()) return strip("Five answers wait for a connection. Wait for it before you go on.", "red");
    this.sending = true;
    const button = $("#submit");
    button.disabled = true;
    clearTimeout(this.timer);
    const effort = { ...this.activity.effort(), moves: this.moves, ...fields.effort };
    const answer = { kind: this.kind, ...fields, id: this.id, seconds: Math.round(this.activity.active * 10) / 10, effort };
    this.sent = true;
    if (answer.kind !== "skip") this.keep();
    const result = await deliver(this.task, answer, document.title.split(" · ")[0]);
    this.sending = false;
    button.disabled = false;
    if (result.state === "refused" || result.state === "stay") {
      this.sent = false;
      return result.data.faults ? this.faults(result.data.faults) : strip(result.data.error, "red");
    }
    if (result.data?.extra) toast("Kept. Others had finished it: it counts for quality, not for the quota.");
    kept.set("last", { task: this.task, project: this.project });
    await this.next();
  }

  faults(faults) {
    $$(".fault[id^=fault-]").forEach((line) => (line.hidden = true));
    const list = $("#summary ul");
    list.replaceChildren();
    for (const [field, words] of Object.entries(faults)) {
      const item = document.createElement("li");
      const link = document.createElement("a");
      link.href = $(`#field-${field}`) ? `#field-${field}` : "#work";
      link.textContent = words;
      item.append(link);
      list.append(item);
      const line = $(`#fault-${field}`);
      if (line) {
        line.textContent = words;
        line.hidden = false;
      }
    }
    $("#summary").hidden = false;
    $("#summary").focus();
  }

  async next() {
    const item = this.main.dataset.answered ? null : take(); // after a correction the one that was left comes first
    if (item) return swap(item.path, item.html);
    await goNext(this.project);
  }

  // Any input in the last third of a lease prolongs it.
  renew() {
    if (Date.now() > this.expires - this.span / 3 && Date.now() - (this.renewed || 0) > Math.min(20_000, this.span / 6)) this.lease(true);
  }

  async lease(ask = false) {
    const left = Math.max(0, Math.round((this.expires - Date.now()) / 60_000));
    const line = $("#lease");
    if (line && line.textContent) line.textContent = `yours for ${left} min`;
    if (!ask && this.expires > Date.now()) return;
    this.renewed = Date.now();
    const ended = this.expires <= Date.now();
    const reply = await send(`/t/${this.task}/lease`, {}).catch(() => null);
    if (!reply?.ok) return;
    if (reply.data.lease === "filled") return strip("Others finished it. Submit anyway: it counts for pay and quality, not the quota.");
    this.expires = Date.now() + this.span;
    if (ended && reply.data.lease === "free") strip(`Your ${count(Math.max(1, Math.round(this.span / 60_000)), "minute")} ended; it was still free, go on.`, "good");
  }

  // A second tab on the same item is read-only until it takes over.
  tabs() {
    if (!("BroadcastChannel" in window)) return;
    this.channel = new BroadcastChannel(`tutelage:${document.body.dataset.person}:${this.task}`);
    this.channel.onmessage = ({ data }) => {
      if (data === "open" && !this.readOnly) this.channel.postMessage("held");
      if (data === "held" && !this.taking) this.freeze("Open in another tab.");
      if (data === "take") this.freeze("Open in another tab.");
    };
    this.channel.postMessage("open");
  }

  freeze(why) {
    this.keepTime();
    this.readOnly = true;
    this.main.classList.add("read-only");
    $$("button, input, select, textarea", $("#work")).forEach((control) => (control.disabled = true));
    strip(why, "", { text: "Work here instead", act: () => this.take() });
  }

  take() {
    this.taking = true;
    this.channel?.postMessage("take");
    setTimeout(() => location.reload(), 150);
  }
}

let opener = null;
export const onOpen = (act) => (opener = act);

// Put another page's work in place of this one, without loading scripts and styles again.
export function swap(path, html, { fresh = false } = {}) {
  const page = new DOMParser().parseFromString(html, "text/html");
  const main = $("main", page);
  if (!main) return location.assign(path);
  current?.close();
  current = null;
  $("main").replaceWith(document.adoptNode(main));
  $(".where").replaceWith(document.adoptNode($(".where", page)));
  document.title = page.title;
  if (fresh) document.body.dataset.csrf = page.body.dataset.csrf; // one fetched ahead may be of an ended session
  history.pushState({}, "", path);
  $("#saved").textContent = "";
  scrollTo(0, 0);
  announce(document.title);
  opener?.();
}

// From the server: never an item whose answer still waits here.
async function goNext(project) {
  await flush();
  const left = waitingTasks();
  await go(`${root()}/p/${project}/next${left.length ? `?besides=${left}` : ""}`, () => goNext(project));
}

export async function go(path, again = () => go(path)) {
  const slow = setTimeout(() => strip("Still fetching"), SLOW);
  const reply = await fetch(path).catch(() => null);
  clearTimeout(slow);
  if ($("#strip").textContent === "Still fetching") strip("");
  if (!reply || reply.status >= 500) {
    const words = reply ? "The server cannot give the next item now." : "No connection, and no other item is at hand.";
    $("main").replaceChildren(Object.assign(document.createElement("p"), { className: "note", textContent: `${words} Your work is kept; this page goes on by itself.` }));
    setTimeout(again, AGAIN_AFTER);
    return;
  }
  if (reply.url.includes("/login")) return location.assign(path);
  swap(reply.url, await reply.text(), { fresh: true });
}
