// Chat: the same words to one model or two; answers grow, then their KL and reward appear; thumbs are data.

import { $, $$, announce, root, send, toast } from "./net.js";

const sides = { a: { turns: [], busy: false }, b: { turns: [], busy: false } };
const spec = (side) => $(`#model-${side}`).value;
const live = () => ["a", "b"].filter((side) => spec(side));
const made = (tag, text, cls) => Object.assign(document.createElement(tag), { textContent: text ?? "", className: cls ?? "" });
const list = (side) => $(`[data-side=${side}] .turns`);

function address() {
  const query = new URLSearchParams({ a: spec("a"), ...(spec("b") ? { b: spec("b") } : {}) });
  history.replaceState(null, "", `${root()}/chat?${query}`);
  $("[data-side=b]").hidden = !spec("b");
}

function anew() {
  for (const side of ["a", "b"]) {
    sides[side].turns = [];
    list(side).replaceChildren();
  }
  $("#stage-answers").replaceChildren(made("p", "Ask something first.", "muted"));
}

async function* events(path, body) {
  const reply = await fetch(root() + path, {
    method: "POST",
    headers: { "content-type": "application/json", accept: "application/json", "x-csrf-token": document.body.dataset.csrf },
    body: JSON.stringify(body),
  });
  if (!reply.ok) throw new Error((await reply.json().catch(() => ({}))).error ?? `The server answered ${reply.status}.`);
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) yield JSON.parse(part.slice(6));
  }
}

async function answer(side, said) {
  const own = sides[side];
  const model = spec(side);
  own.turns.push({ role: "user", content: said });
  const messages = [...own.turns];
  const user = made("li", said, "turn-said");
  const item = made("li", "", "turn-answer");
  const text = made("p", "…", "text");
  text.dir = "auto";
  const facts = made("p", "", "small muted facts");
  item.append(text, facts);
  list(side).append(user, item);
  item.scrollIntoView({ block: "end" });
  let whole = "";
  let done = "";
  try {
    const body = { model, messages, temperature: Number($("#temperature").value), max_tokens: Number($("#max-tokens").value), seed: own.turns.length };
    for await (const event of events("/chat/say", body)) {
      if (event.error) throw new Error(event.error);
      if (event.text !== undefined) text.textContent = whole = event.text;
      done = event.done ?? done;
    }
    if (!done) throw new Error("The connection broke.");
  } catch (error) {
    facts.textContent = `Stopped early: ${error.message}`;
    facts.classList.add("fault");
    own.turns.pop();
    return;
  }
  if (!whole) text.replaceChildren(made("span", "(empty)", "muted"));
  own.turns.push({ role: "assistant", content: whole });
  item.append(buttons(side, messages, whole, model));
  facts.textContent = "weighing …";
  const reply = await send("/chat/weigh", { model, messages, text: whole, reward: $("#reward").value, finish: done });
  const weighed = reply.data;
  facts.textContent = reply.ok
    ? [
        weighed.reward === null ? "" : `reward ${weighed.reward.toFixed(2)}`,
        klOf(weighed),
        weighed.tokens === null ? "" : `${weighed.tokens} tokens`,
        done === "length" ? "cut off" : "",
      ].filter(Boolean).join(" · ")
    : weighed.error;
  facts.title = "KL: log-probability of this answer less that under the reference. Its mean over answers is the KL; of one answer it may be negative.";
}

function klOf({ kl, reference }) {
  if (reference === "missing") return "KL not known: its reference is not on this machine";
  if (kl === null) return "";
  return reference === "itself" ? "KL 0 (it is its own reference)" : `KL ${kl.toFixed(1)} nats to its reference`;
}

function buttons(side, messages, completion, model) {
  const row = made("p", "", "thumbs");
  const give = async (what, said) => {
    const reply = await send("/v1/feedback", { messages, completion, model, id: crypto.randomUUID().replaceAll("-", ""), ...what });
    if (!reply.ok) return toast(reply.data.error);
    const undo = made("button", "Undo");
    undo.type = "button";
    row.replaceChildren(made("span", `${said} `, "small muted"), undo);
    announce(said);
    undo.addEventListener("click", async () => {
      const back = await send(`/v1/feedback/${reply.data.id}/undo`, {});
      if (back.ok) row.replaceWith(buttons(side, messages, completion, model));
      else toast(back.data.error);
    });
  };
  const button = (label, act) => {
    const one = made("button", label);
    one.type = "button";
    one.addEventListener("click", act);
    return one;
  };
  const edit = () => {
    const area = made("textarea");
    area.rows = 4;
    area.value = completion;
    area.setAttribute("aria-label", "The better answer");
    row.replaceChildren(area, button("Save the better answer", () => give({ edit: area.value }, "Saved as a demonstration.")));
    area.focus();
  };
  row.append(button("Good", () => give({ thumb: "up" }, "Saved as a thumb up.")), button("Bad", () => give({ thumb: "down" }, "Saved as a thumb down.")), button("Edit", edit));
  if (spec("b")) {
    row.append(
      button("Go on with this", () => {
        // Both models go on from this text, so that they stay on one conversation.
        for (const other of ["a", "b"]) if (other !== side) sides[other].turns = [...sides[side].turns];
        toast(`Both go on with ${side.toUpperCase()}'s answer.`);
      }),
    );
  }
  return row;
}

async function stages() {
  const box = $("#stage-answers");
  const [side = "a", other = ""] = live().filter((one) => !/^(openai|anthropic):/.test(spec(one))); // an endpoint has no stages here
  const turns = sides[side].turns;
  const messages = turns.filter((_, i) => i < turns.length - (turns.at(-1)?.role === "assistant" ? 1 : 0));
  if (!$("#stages").open || !messages.length) return;
  box.replaceChildren(made("p", "Each stage is asked …", "muted"));
  const reply = await send("/chat/stages", { model: spec(side), other: other && spec(other), messages });
  if (!reply.ok) return box.replaceChildren(made("p", reply.data.error, "fault"));
  box.replaceChildren(
    ...reply.data.stages.map(({ name, text, cut, failed }) => {
      const card = made("article", "", "answer");
      const said = made("p", failed || text || "(empty)", failed ? "fault" : "text");
      said.dir = "auto";
      card.append(made("h3", name), said);
      if (cut) card.append(made("p", "cut off", "small muted facts"));
      return card;
    }),
  );
}

$("#say").addEventListener("submit", async (event) => {
  event.preventDefault();
  const said = $("#message").value.trim();
  if (!said || sides.a.busy) return;
  $("#message").value = "";
  sides.a.busy = true;
  $("#say button").disabled = true;
  announce("The answer begins.");
  // Both at once: each in its own stream, so that neither waits for the other.
  await Promise.all(live().map((side) => answer(side, said)));
  announce("The answer is complete.");
  sides.a.busy = false;
  $("#say button").disabled = false;
  stages();
});
$("#message").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("#say").requestSubmit();
  }
});
$("#stages").addEventListener("toggle", stages);
$("#anew").addEventListener("click", anew);
// An endpoint or a folder that is not in the lists becomes a choice of both.
$("#add-model")?.addEventListener("submit", (event) => {
  event.preventDefault();
  const typed = $("#other-model").value.trim();
  if (!typed) return;
  for (const list of $$("#model-a, #model-b")) if (![...list.options].some((one) => one.value === typed)) list.add(new Option(typed, typed));
  $("#other-model").value = "";
  $("#model-b").value = typed;
  $("#model-b").dispatchEvent(new Event("change"));
});
for (const one of $$("#model-a, #model-b")) {
  one.addEventListener("change", () => {
    address();
    anew();
  });
}
