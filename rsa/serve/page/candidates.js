// The candidates of each round as a list that can be opened: what one writes is asked for when somebody wants to read it.

import { events, ServerError } from "./api.js";
import { el, keyed, say } from "./dom.js";
import { doing, nameOf, tokensOf } from "./run-state.js";
import { count, duration, inALine, markOf, plural, statusOf } from "./words.js";

const SHOWN = 90;

/** The rounds of a run, the newest first, in `holder`. */
export class Candidates {
  constructor(holder, runId) {
    this.holder = holder;
    this.runId = runId;
    this.open = new Set();
  }

  update(run) {
    keyed(this.holder, run.rounds.toReversed(), (round) => round.key, () => this.makeRound(), (section, round) => {
      const newest = round === run.rounds.at(-1);
      if (section.newest !== newest) {
        section.newest = newest;
        if (newest || !section.touched) section.open = newest;
      }
      say(section.parts.name, nameOf(round));
      say(section.parts.counts, this.counts(round, run));
      keyed(section.parts.list, round.candidates, (candidate) => candidate.index, () => this.makeCandidate(round), (item, candidate) =>
        update(item, candidate, run),
      );
    });
  }

  counts(round, run) {
    const ended = round.candidates.filter((candidate) => candidate.status).length;
    const all = plural(round.candidates.length, "candidate");
    const parts = [round.done ? all : `${ended} of ${all} ended`, plural(tokensOf(round), "token")];
    if (round.until != null) parts.push(duration(round.until - round.since));
    if (round.done && !round.asked && run.started) parts.push("tails handed on");
    return parts.join(" · ");
  }

  makeRound() {
    const parts = { name: el("span", { class: "round-name" }), counts: el("span", { class: "counts" }), list: el("ol", { class: "candidates" }) };
    const section = el("details", { class: "round" }, el("summary", {}, el("h3", {}, parts.name, " ", parts.counts)), parts.list);
    section.parts = parts;
    section.querySelector("summary").addEventListener("click", () => (section.touched = true));
    return section;
  }

  makeCandidate(round) {
    const parts = {
      index: el("span", { class: "index" }),
      sign: el("span", { class: "sign", "aria-hidden": "true" }),
      word: el("span"),
      answer: el("bdi"),
      mark: el("span"),
      lengths: el("span", { class: "lengths" }),
      bar: el("span", { class: "length", "aria-hidden": "true" }),
      inside: el("div", { class: "inside" }),
    };
    parts.badge = el("span", { class: "badge" }, parts.sign, " ", parts.word);
    const summary = el("summary", {}, parts.index, parts.badge, el("span", { class: "answer" }, parts.answer, " ", parts.mark), parts.lengths, parts.bar);
    const details = el("details", {}, summary, parts.inside);
    const item = el("li", {}, details);
    Object.assign(item, { parts, details, round });
    details.addEventListener("toggle", () => (details.open ? this.read(item) : item.reading?.abort()));
    return item;
  }

  /** Show what a candidate writes, for as long as it is open. */
  async read(item) {
    const reading = (item.reading = new AbortController());
    const { inside } = item.parts;
    this.open.add(reading);
    try {
      const { kind, number } = item.round;
      for await (const event of events(`page/runs/${this.runId}/candidates/${kind}/${number}/${item.candidate.index}`, reading.signal)) {
        if (event.type === "writing") writing(inside, event);
        else if (event.type === "written") written(inside, event, item.round, (parent) => this.jump(item.round, parent));
        else inside.replaceChildren(el("p", { class: "cut" }, event.message ?? "It has not begun yet."));
      }
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!inside.childElementCount) inside.append(el("p", { class: "error" }, error instanceof ServerError ? error.message : "The text broke off."));
    } finally {
      this.open.delete(reading);
    }
  }

  /** Open a candidate, and its round, and go there. */
  show(round, candidate) {
    const section = this.holder.known?.get(round.key);
    const item = section?.parts.list.known?.get(candidate.index);
    if (!item) return;
    section.open = section.touched = item.details.open = true;
    item.scrollIntoView({ block: "center" });
    item.details.querySelector("summary").focus({ preventScroll: true });
  }

  jump(round, parent) {
    for (const [key, section] of this.holder.known) {
      if (key === `population-${round.kind !== "population" ? this.lastPopulation() : round.number - 1}`) {
        const item = section.parts.list.known.get(parent);
        if (item) this.show(item.round, item.candidate);
      }
    }
  }

  lastPopulation() {
    const numbers = [...this.holder.known.keys()].filter((key) => key.startsWith("population-")).map((key) => Number(key.split("-")[1]));
    return Math.max(...numbers);
  }

  close() {
    for (const reading of this.open) reading.abort();
  }
}

function update(item, candidate, run) {
  const { parts } = item;
  const budget = run.started?.beta ?? 0;
  item.candidate = candidate;
  const [tone, sign, word] = statusOf(doing(candidate, run));
  say(parts.index, String(candidate.index));
  const badge = `badge ${tone}`;
  if (parts.badge.className !== badge) parts.badge.className = badge;
  say(parts.sign, sign);
  say(parts.word, word);
  say(parts.answer, candidate.answer != null ? inALine(candidate.answer, SHOWN) : candidate.error ? inALine(candidate.error, SHOWN) : "");
  if (candidate.check) {
    const [markTone, markSign, markWord] = markOf(candidate.check.mark);
    parts.mark.className = markTone;
    say(parts.mark, `${markSign} ${markWord}`);
  }
  const reasoned = candidate.reasoning_tokens ?? 0;
  const lengths = candidate.status ? `${count(reasoned)}${candidate.forced ? "β" : ""} + ${count(candidate.tokens - reasoned)}` : candidate.tokens ? count(candidate.tokens) : "";
  say(parts.lengths, lengths);
  const share = budget ? Math.min((candidate.status ? reasoned : candidate.tokens) / budget, 1) : 0;
  parts.bar.style.setProperty("--share", `${(100 * share).toFixed(1)}%`);
}

/** The newest words of one that still writes. */
function writing(inside, event) {
  if (!inside.live) {
    inside.live = { note: el("p", { class: "cut" }), text: el("pre", { class: "trace", dir: "auto" }) };
    inside.replaceChildren(inside.live.note, inside.live.text);
  }
  say(inside.live.note, `The newest words of its ${event.section}, as they come:`);
  say(inside.live.text, event.text);
}

function written(inside, event, round, jump) {
  inside.live = null;
  const blocks = [];
  if (event.parents.length) {
    const links = event.parents.flatMap((parent, i) => [i ? ", " : "", el("button", { type: "button", class: "link", onclick: () => jump(parent) }, String(parent))]);
    blocks.push(el("p", {}, round.kind === "match" ? "Compares the attempts of " : "Went on from the tails of ", links, "."));
  }
  if (event.error) blocks.push(el("p", { class: "wrong" }, event.error));
  if (event.check?.reason) blocks.push(el("p", {}, `Its answer is ${event.check.mark}: ${event.check.reason}.`));
  if (event.text.trim()) blocks.push(el("h4", {}, "Answer"), el("pre", { class: "trace", dir: "auto" }, event.text.trim()));
  if (event.reasoning.trim()) {
    blocks.push(el("h4", {}, "Reasoning"));
    if (event.cut) blocks.push(el("p", { class: "cut" }, `${count(event.cut)} characters before this are not shown.`));
    blocks.push(el("pre", { class: "trace", dir: "auto" }, event.reasoning.trim()));
  }
  if (event.tail && event.tail.trim() !== event.reasoning.trim()) {
    blocks.push(el("h4", {}, `Tail, ${plural(event.tail_tokens, "token")}: what the next round reads of it`), el("pre", { class: "trace", dir: "auto" }, event.tail));
  }
  inside.replaceChildren(...(blocks.length ? blocks : [el("p", { class: "cut" }, "It wrote nothing.")]));
}
