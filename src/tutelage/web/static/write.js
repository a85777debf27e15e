// The Write page: the ideal answer, with more turns where the conversation needs them.

import { $, $$, announce, send } from "./net.js";
import { Work } from "./work.js";

export function openWrite(main) {
  const form = $("#work", main);
  const turns = $("#turns");
  let pasted = 0;
  const dropped = []; // turns that come back when turns are added again

  const fields = () => $$("textarea", turns);
  const read = () => ({ turns: fields().map((field) => field.value) });
  const field = (number, text) => {
    const label = document.createElement("label");
    const name = Object.assign(document.createElement("span"), { textContent: number % 2 ? "The user goes on" : number ? "Your answer" : "Your answer: what the ideal assistant would say" });
    const area = Object.assign(document.createElement("textarea"), { rows: number ? 6 : 14, dir: "auto", value: text });
    area.setAttribute("aria-describedby", "fault-answer count");
    if (!number) {
      label.id = "field-answer";
      area.id = "answer";
    }
    label.append(name, area);
    return label;
  };
  const show = (payload) => {
    const texts = payload.turns?.length ? payload.turns : [payload.answer || ""];
    turns.replaceChildren(...texts.map((text, i) => field(i, text)));
    draw();
  };
  const draw = () => {
    const words = fields().reduce((sum, area) => sum + (area.value.match(/\S+/g) || []).length, 0);
    const prompt = $$("#prompt .text").at(-1).textContent.trim();
    const same = fields().some((area) => area.value.trim() && area.value.trim() === prompt);
    $("#count").textContent = `${words} ${words === 1 ? "word" : "words"}${same ? " · Same as the prompt" : ""}`;
    $("[data-act=drop-turn]").hidden = fields().length < 3;
  };
  const work = new Work(main, { read, show });

  // The model's view comes from the server, 0.6 s after the last key; without a connection only the words are counted.
  let timer = 0;
  let left = Infinity;
  function measure() {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      const reply = await send(`/t/${work.task}/preview`, read()).catch(() => null);
      if (work.over.signal.aborted) return;
      if (reply?.status === 422) $("#tokens").textContent = `No token count: ${reply.data.error}`;
      if (!reply?.ok) return;
      const { text, tokens, answer, limit } = reply.data;
      const over = tokens - limit;
      $("#tokens").textContent = `${answer} tokens, ${tokens} of ${limit} with the prompt${over > 0 ? ` · ${over} tokens over: the end is cut in training` : ""}`;
      $("#tokens").classList.toggle("fault", over > 0);
      $("#preview pre").textContent = text;
      for (const mark of [50, 10, 0]) if (-over <= mark && left > mark) announce(mark ? `${mark} tokens left` : "No tokens left");
      left = -over;
    }, 600);
  }
  work.over.signal.addEventListener("abort", () => clearTimeout(timer));

  turns.addEventListener("input", () => {
    draw();
    measure();
    work.changed();
  });
  turns.addEventListener("paste", (event) => (pasted += event.clipboardData?.getData("text").length || 0));
  async function submit() {
    const texts = read().turns;
    const total = texts.join("").length;
    if (!texts.at(-1).trim()) return work.faults({ answer: "The answer is empty." });
    await work.submit({ turns: texts, effort: { pasted_share: total ? Math.min(1, pasted / total) : 0 } });
  }
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  main.addEventListener("click", (event) => {
    const act = event.target.closest("[data-act]")?.dataset.act;
    if (act === "add-turn") {
      for (const text of dropped.pop() || ["", ""]) turns.append(field(fields().length, text));
      fields().at(-2).focus();
      announce("Two turns added");
    } else if (act === "drop-turn") {
      dropped.push(read().turns.slice(-2));
      turns.lastElementChild.remove();
      turns.lastElementChild.remove();
    } else return;
    draw();
    measure();
    work.changed();
  });
  draw();
  measure();
  work.start();
  fields()[0].focus({ preventScroll: true });
  return { key: () => false, acts: { submit }, work };
}
