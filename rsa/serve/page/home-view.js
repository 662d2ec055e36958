// All runs of the server, and the form that starts one.

import { ask, pause } from "./api.js";
import { el, fromTemplate, keyed, say, show } from "./dom.js";
import { count, duration, inALine, markOf, moment, plural, stateOf } from "./words.js";

const EVERY_MS = 2000;
const LIVE = new Set(["queued", "running"]);

/** Show the runs in `main`. Returns what stops showing them. */
export function showHome(main) {
  const { root, parts } = fromTemplate("home-template");
  const gone = new AbortController();
  main.replaceChildren(root);
  parts.form.addEventListener("submit", (event) => { event.preventDefault(); start(parts.form, parts["form-error"]); });
  parts.form.problem.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) parts.form.requestSubmit();
  });
  fillModels(parts.form.model);
  watch(parts, gone.signal);
  return () => gone.abort();
}

async function fillModels(select) {
  const { data } = await ask("v1/models").catch(() => ({ data: [] }));
  const names = data.map((model) => model.id).filter((name) => /:rsa(-|$)/.test(name));
  select.replaceChildren(...names.map((name) => el("option", { value: name }, name)));
}

async function watch(parts, signal) {
  for (let first = true; !signal.aborted; first = false) {
    try {
      if (first || !document.hidden) render(parts, (await ask("page/runs", undefined, { signal })).data, first);
      say(parts.trouble, "");
    } catch (error) {
      if (signal.aborted) return;
      if (error.status === 401) return dispatchEvent(new CustomEvent("key-wanted"));
      say(parts.trouble, `${error.message} Trying again…`);
    }
    await pause(EVERY_MS, signal);
  }
}

function render(parts, runs, first) {
  document.title = "Markovian RSA";
  const running = runs.filter((run) => LIVE.has(run.state));
  const over = runs.filter((run) => !LIVE.has(run.state));
  show(parts["running-section"], running.length > 0);
  show(parts["ended-section"], over.length > 0);
  show(parts.empty, !runs.length);
  if (first) parts.new.open = !runs.length;
  for (const [list, items] of [[parts.running, running], [parts.ended, over]]) keyed(list, items, (run) => run.id, makeRow, updateRow);
}

function makeRow(run) {
  const bits = { state: el("span", { class: "badge" }), title: el("span", { class: "title", dir: "auto" }), answer: el("bdi"), mark: el("span"), votes: el("span"), tokens: el("span"), time: el("span") };
  const link = el("a", { href: `#/runs/${run.id}` },
    bits.title, el("span", { class: "answer" }, bits.answer, " ", bits.mark), el("span", { class: "facts" }, bits.state, bits.votes, bits.tokens, bits.time));
  return Object.assign(el("li", {}, link), { bits });
}

function updateRow(row, run) {
  const { bits } = row;
  const [tone, sign, word] = stateOf(run.state);
  bits.state.className = `badge ${tone}`;
  say(bits.state, `${sign} ${word}`);
  say(bits.title, inALine(run.title, 120));
  say(bits.answer, run.answer != null ? inALine(run.answer, 60) : run.state === "finished" ? "no answer" : run.error ? inALine(run.error, 80) : run.progress ?? "");
  if (run.check) {
    const [markTone, markSign, markWord] = markOf(run.check.mark);
    bits.mark.className = markTone;
    say(bits.mark, `${markSign} ${markWord}`);
  }
  const [vote] = run.votes;
  say(bits.votes, vote ? `${vote.count} of ${vote.of} agree` : `${run.n} × ${plural(run.t + 1, "round")}`);
  say(bits.tokens, run.tokens ? `${count(run.tokens)} tokens` : "");
  say(bits.time, run.seconds != null && !LIVE.has(run.state) ? `${duration(run.seconds)}, ${moment(run.created_at_iso)}` : moment(run.created_at_iso));
}

/** Start the run that the form describes, and go to it; what the server refuses is said at its field. */
async function start(form, trouble) {
  const settings = {};
  for (const field of form.querySelectorAll("[data-setting]")) {
    field.removeAttribute("aria-invalid");
    if (field.value === "") continue;
    const value = field.type === "number" ? Number(field.value) : field.value;
    const [group, name] = field.name.split(".");
    if (name) (settings[group] ??= {})[name] = value;
    else settings[group] = value;
  }
  const button = form.querySelector("button[type=submit]");
  button.disabled = true;
  say(trouble, "");
  refuse(form.problem, form.problem.value.trim() ? "" : "Write a problem first.");
  try {
    if (!form.problem.value.trim()) return form.problem.focus();
    const run = await ask("page/runs", { model: form.model.value, problem: form.problem.value, settings });
    location.hash = `#/runs/${run.id}`;
  } catch (error) {
    if (error.status === 401) return dispatchEvent(new CustomEvent("key-wanted"));
    say(trouble, error.message);
    const name = (error.param ?? "").replace(/^rsa\./, "");
    const field = form.elements.namedItem(name);
    if (field) {
      field.closest("details.more")?.setAttribute("open", "");
      field.setAttribute("aria-invalid", "true");
      field.focus();
    }
  } finally {
    button.disabled = false;
  }
}

function refuse(field, message) {
  const place = document.getElementById(field.getAttribute("aria-describedby"));
  field.toggleAttribute("aria-invalid", Boolean(message));
  say(place, message);
  show(place, Boolean(message));
}
