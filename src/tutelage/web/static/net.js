// Requests to the server, what is kept in the browser, and the lines that tell about it.

export const root = () => document.body.dataset.root;
export const $ = (selector, from = document) => from.querySelector(selector);
export const $$ = (selector, from = document) => [...from.querySelectorAll(selector)];

export class Offline extends Error {}

export async function send(path, body, { keepalive = false } = {}) {
  let reply;
  try {
    reply = await fetch(root() + path, {
      method: "POST",
      keepalive,
      headers: { "content-type": "application/json", accept: "application/json", "x-csrf-token": document.body.dataset.csrf },
      body: JSON.stringify(body),
    });
  } catch {
    throw new Offline();
  }
  const data = await reply.json().catch(() => ({ error: `The server answered ${reply.status}.` }));
  return { status: reply.status, ok: reply.ok, data };
}

export const announce = (text) => ($("#status").textContent = text);

// A line above the work, with buttons ({ text, act }) and links ({ text, href }). The same words again are not said twice.
export function strip(text, tone = "", ...actions) {
  const line = $("#strip");
  const said = JSON.stringify([text, tone, actions]);
  if (!line.hidden && line.dataset.said === said) return;
  line.dataset.said = said;
  line.className = `strip ${tone}`;
  line.textContent = text;
  for (const { text: words, act, href } of actions) {
    const made = document.createElement(href ? "a" : "button");
    made.textContent = words;
    if (href) made.href = href;
    else {
      made.type = "button";
      made.addEventListener("click", act);
    }
    line.append(made);
  }
  line.hidden = !text;
}

let toastTimer = 0;
export function toast(text) {
  const line = $("#toast");
  line.textContent = text;
  line.hidden = false;
  announce(text);
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => (line.hidden = true), 3500);
}

// Words that stand at this line already, said once more where the line is not on screen.
export function heard(line) {
  const { top, bottom } = line.getBoundingClientRect();
  if (top < 0 || bottom > innerHeight) toast(line.textContent);
  else announce(line.textContent);
}

// Sign in over the work: resolves when a new session's token is there.
let waiting = null;
export function signIn() {
  waiting ??= new Promise((resolve) => {
    const dialog = $("#sign-in");
    const form = $("form", dialog);
    form.onsubmit = async (event) => {
      event.preventDefault();
      const { name, password } = Object.fromEntries(new FormData(form));
      const reply = await send("/login", { name, password }).catch(() => ({ ok: false, data: { error: "No connection." } }));
      if (reply.ok && reply.data.person !== document.body.dataset.person) {
        location.reload(); // somebody else: their own page
      } else if (reply.ok) {
        document.body.dataset.csrf = reply.data.csrf;
        dialog.close();
        form.reset();
        resolve(true);
      } else {
        const fault = $("#sign-in-fault");
        fault.textContent = reply.data.error;
        fault.hidden = false;
      }
    };
    dialog.onclose = () => {
      waiting = null;
      resolve(false);
    };
    dialog.showModal();
  });
  return waiting;
}

// What the browser keeps until the server has it, by person.
const name = (key) => `tutelage:${document.body.dataset.person}:${key}`;
export const kept = {
  get(key) {
    try {
      return JSON.parse(localStorage.getItem(name(key)));
    } catch {
      return null;
    }
  },
  set(key, value) {
    try {
      localStorage.setItem(name(key), JSON.stringify(value));
    } catch {
      strip("This browser keeps nothing (private window or full). Your work is saved on the server only.");
    }
  },
  drop(key) {
    localStorage.removeItem(name(key));
  },
  keys(prefix) {
    return Object.keys(localStorage)
      .filter((key) => key.startsWith(name(prefix)))
      .map((key) => key.slice(name(prefix).length));
  },
  clear(except = []) {
    for (const key of kept.keys("")) if (!except.includes(key)) kept.drop(key);
  },
};
