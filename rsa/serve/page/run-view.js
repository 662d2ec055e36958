// One run: its answer or how far it is, the vote, who reads whom, its candidates.

import { ask, events, pause } from "./api.js";
import { Candidates } from "./candidates.js";
import { el, fromTemplate, keyed, say, show } from "./dom.js";
import { draw } from "./lineage.js";
import { current, doing, elapsed, ended, nameOf, newRun, speed, take, tokens, votesOf, voting } from "./run-state.js";
import { count, duration, inALine, markOf, moment, percent, plural, stateOf, stopOf } from "./words.js";

const TICK_MS = 250, LONGEST_PAUSE_MS = 10_000, MOST_VOTES = 8;
const SETTINGS = [
  ["model", "Model"], ["n", "Candidates"], ["t", "Rounds after the first"], ["c", "Tails each reads"], ["beta", "Reasoning tokens (β)"],
  ["tau", "Tail tokens (τ)"], ["answer_budget", "Answer tokens"], ["prompt_bound", "No prompt is longer than"], ["select", "Choice of the answer"],
  ["task", "Prompts"], ["seed", "Seed"],
];

/** Show the run with this id in `main`. Returns what stops showing it. */
export function showRun(main, id, say_) {
  const view = new RunView(main, id, say_);
  view.follow();
  return () => view.close();
}

class RunView {
  constructor(main, id, announce) {
    const { root, parts } = fromTemplate("run-template");
    Object.assign(this, { id, parts, announce, run: newRun(), gone: new AbortController(), summary: null });
    main.replaceChildren(root);
    this.candidates = new Candidates(parts.rounds, id);
    this.ticking = setInterval(() => this.glance(), TICK_MS);
    this.sized = new ResizeObserver(() => this.drawLineage(true));
    this.sized.observe(parts.lineage);
    parts.stop.addEventListener("click", () => this.press(parts.stop, `v1/runs/${id}/cancel`));
    parts.resume.addEventListener("click", () => this.press(parts.resume, `v1/runs/${id}/resume`));
    parts.report.addEventListener("click", () => this.openReport());
    say(parts.id, id);
  }

  close() {
    this.gone.abort();
    this.candidates.close();
    clearInterval(this.ticking);
    this.sized.disconnect();
  }

  /** Read the run's events until it has ended, again from the first one where the stream breaks off. */
  async follow() {
    const { signal } = this.gone;
    for (let wait = 500; !signal.aborted; wait = Math.min(2 * wait, LONGEST_PAUSE_MS)) {
      try {
        this.summary = await ask(`page/runs/${this.id}`, undefined, { signal });
        const run = (this.run = newRun());
        for await (const event of events(`page/runs/${this.id}/events`, signal)) {
          wait = 500;
          const line = take(run, event);
          if (line) this.announce(line);
          this.soon();
        }
        this.render();
        if (ended(run)) return;
      } catch (error) {
        if (signal.aborted) return;
        if ([401, 404].includes(error.status)) return this.trouble(error);
        say(this.parts.sentence, `${error.message ?? "The stream broke off."} Trying again…`);
      }
      await pause(wait, signal);
    }
  }

  trouble(error) {
    if (error.status === 401) return dispatchEvent(new CustomEvent("key-wanted"));
    say(this.parts.title, "There is no such run");
    say(this.parts.sentence, error.message);
    for (const section of this.parts.title.closest("main").querySelectorAll("section, .pair")) section.hidden = true;
  }

  async press(button, path) {
    button.disabled = true;
    try {
      await ask(path, {});
      if (button === this.parts.resume) this.follow();
    } catch (error) {
      say(this.parts.sentence, error.message);
    } finally {
      button.disabled = false;
    }
  }

  /** Have the report written, and go there: the way back leads to the run again. */
  async openReport() {
    const { report } = this.parts;
    report.disabled = true;
    try {
      location.assign((await ask(`page/runs/${this.id}/report`, {})).url);
    } catch (error) {
      say(this.parts.sentence, error.message);
    } finally {
      report.disabled = false;
    }
  }

  /** Draw once, however many events come before the next frame. */
  soon() {
    if (this.waiting) return;
    this.waiting = true;
    // A page that nobody looks at gets no frames.
    (document.hidden ? (draw) => setTimeout(draw, TICK_MS) : requestAnimationFrame)(() => {
      this.waiting = false;
      if (!this.gone.signal.aborted) this.render();
    });
  }

  render() {
    this.sections();
    this.head();
    this.notices();
    this.glance();
    this.vote();
    this.drawLineage();
    this.candidates.update(this.run);
    this.problem();
    this.facts();
  }

  /** Nothing is shown of what there is nothing of: a run may wait, or fail before it begins. */
  sections() {
    const { parts, run } = this;
    show(parts["glance-section"], Boolean(run.started));
    show(parts["facts-section"], Boolean(run.started));
    show(parts.pair, run.rounds.length > 0);
    show(parts["candidates-section"], run.rounds.length > 0);
  }

  head() {
    const { parts, run, summary } = this;
    const [tone, sign, word] = stateOf(run.state);
    parts.state.className = `badge ${tone}`;
    say(parts.state, `${sign} ${word}`);
    say(parts.title, inALine(summary.title, 120));
    document.title = `${word}: ${inALine(summary.title, 50)}`;
    const s = run.started;
    if (s) say(parts.what, `${summary.name}: ${plural(s.n, "candidate")} × ${plural(s.t + 1, "round")}${s.resumed ? ", gone on with" : ""}`);
    keyed(parts.notes, s?.notes ?? [], (note) => note, (note) => el("p", { class: "note" }, `${note}.`), () => {});
    say(parts.answer, this.answer());
    parts.answer.classList.toggle("words", run.result?.answer == null);
    parts.answer.classList.toggle("none", !run.result?.answer && ended(run));
    const check = run.result?.check;
    show(parts.verdict, Boolean(check));
    if (check) {
      const [markTone, markSign, markWord] = markOf(check.mark);
      parts.verdict.replaceChildren(el("span", { class: `badge ${markTone}` }, `${markSign} ${markWord}`), check.reason ? `: ${check.reason}` : "");
    }
    say(parts.sentence, this.sentence());
    keyed(parts.decisions, run.decisions, (line) => line, (line) => el("p", { class: "note" }, `Decided: ${line}.`), () => {});
    show(parts.stop, !ended(run));
    show(parts.resume, ["cancelled", "interrupted", "failed"].includes(run.state));
    show(parts.report, Boolean(run.result && summary.report));
    show(parts.pace, !ended(run));
  }

  answer() {
    const { run } = this;
    if (run.result) return run.result.answer === null ? "No answer" : inALine(run.result.answer, 200);
    if (ended(run)) return { cancelled: "Stopped", failed: "Failed", interrupted: "Interrupted" }[run.state];
    const round = current(run);
    if (!round) return run.state === "queued" ? "Waiting" : "Starting";
    return { selection: "Selecting", match: "Comparing answers" }[round.kind] ?? `Round ${round.number} of ${run.started.t}`;
  }

  sentence() {
    const { run } = this;
    if (run.error) return run.error;
    if (run.result) {
      const { agreeing, chosen } = run.result;
      const agree = agreeing ? `${agreeing.candidates.length} of ${agreeing.of} candidates of round ${run.result.answered_from_round} agree.` : "";
      const how = chosen ? `${chosen[0].toUpperCase()}${chosen.slice(1)}.` : "";
      return [agree, how, stopOf(run.result.stopped_because)].filter(Boolean).join(" ");
    }
    if (ended(run)) return "What it had until then is below.";
    const round = current(run);
    if (!round) return run.state === "queued" ? "Others are before it, or its model is being opened." : "";
    const states = round.candidates.map((candidate) => doing(candidate, run));
    const many = (state) => states.filter((each) => each === state).length;
    const told = [[many("reasoning"), "think"], [many("answer"), "answer"], [many("reading") + many("waiting"), "wait"]].filter(([number]) => number);
    const still = told.map(([number, verb]) => `${number} ${number === 1 ? `${verb}s` : verb}`).join(", ");
    const over = round.candidates.filter((candidate) => candidate.status).length;
    return `${over} of ${round.candidates.length} candidates have ended${still ? `; ${still}` : ""}.`;
  }

  notices() {
    show(this.parts.warnings, this.run.notices.length > 0);
    keyed(this.parts.notices, this.run.notices, (line) => line, (line) => el("li", {}, line), () => {});
  }

  glance() {
    const { run, parts } = this;
    if (!this.summary) return;
    const round = current(run);
    const over = round ? round.candidates.filter((candidate) => candidate.status).length : 0;
    const limits = run.started?.limits ?? {};
    const all = tokens(run);
    const rows = [
      ["Tokens", count(all), limits.total_tokens ? `of ${count(limits.total_tokens)} at most` : run.result ? `${count(run.result.reasoning_tokens)} of them reasoning` : "written so far"],
      ["Time", duration(elapsed(run)), limits.deadline_s ? `of ${duration(limits.deadline_s)} at most` : `since ${moment(this.summary.created_at_iso)}`],
      ["Speed", `${count(Math.round(speed(run)))} tok/s`, ended(run) ? "over the whole run" : "over the last 5 s"],
      ["Round", round ? nameOf(round).replace("Round ", "") : "–", run.started ? `of ${run.started.t}` : ""],
      ["Prompts", count(run.rounds.reduce((sum, each) => sum + each.candidates.reduce((part, c) => part + (c.promptTokens ?? 0), 0), 0)), "tokens in them"],
    ];
    keyed(parts.glance, rows, ([name]) => name, ([name]) => el("div", {}, el("dt", {}, name), el("dd", {}, el("span"), el("small"))), (item, [, value, note]) => {
      say(item.querySelector("span"), value);
      say(item.querySelector("small"), note);
    });
    if (round) {
      parts.pace.setAttribute("aria-valuemax", round.candidates.length);
      parts.pace.setAttribute("aria-valuenow", over);
      parts.pace.firstElementChild.style.setProperty("--share", `${(100 * over) / Math.max(round.candidates.length, 1)}%`);
    }
  }

  vote() {
    const { parts, run } = this;
    const round = voting(run);
    const votes = round ? votesOf(round) : [];
    show(parts.ballot, votes.length > 0);
    say(parts["vote-note"], this.voteNote(round, votes));
    keyed(parts.votes, votes.slice(0, MOST_VOTES), (vote) => vote.answer, () => {
      const bits = { answer: el("bdi"), mark: el("span"), many: el("td") };
      return Object.assign(el("tr", {}, el("td", { class: "answer" }, bits.answer, " ", bits.mark), bits.many), { bits });
    }, (row, vote) => {
      say(row.bits.answer, inALine(vote.answer, 60));
      if (vote.check) {
        const [tone, sign, word] = markOf(vote.check.mark);
        row.bits.mark.className = `badge ${tone}`;
        say(row.bits.mark, `${sign} ${word}`);
      }
      say(row.bits.many, `${vote.candidates.length} of ${vote.of}`);
      row.style.setProperty("--share", percent(vote.candidates.length, vote.of));
    });
  }

  voteNote(round, votes) {
    if (!round) return "It begins with the first answer.";
    const more = votes.length > MOST_VOTES ? ` ${plural(votes.length - MOST_VOTES, "more answer")} not shown.` : "";
    if (!votes.length) {
      if (ended(this.run)) return "No candidate gave an answer.";
      return round.done && !round.asked ? "Rounds before the last one hand on tails; answers come at the end." : "No answers yet.";
    }
    if (!round.done) return `${nameOf(round)}, as answers come; equal ones are counted together when all are there.${more}`;
    return `${nameOf(round)}: ${plural(votes.length, "answer")} among ${plural(votes[0].of, "candidate")}.${more}`;
  }

  drawLineage(anew = false) {
    const rounds = this.run.rounds.filter((round) => round.kind !== "match");
    const seen = JSON.stringify(rounds.map((round) => round.candidates.map((c) => [c.status, c.answer, Boolean(c.tokens), Boolean(c.promptTokens)])));
    if (!anew && seen === this.drawn) return;
    this.drawn = seen;
    draw(this.parts.lineage, rounds, (round, candidate) => this.candidates.show(round, candidate));
  }

  problem() {
    const { problem } = this.run;
    say(this.parts.problem, problem?.text ?? this.summary.title);
    const beside = [
      problem?.earlier ? `${plural(problem.earlier, "earlier turn")} of the conversation` : "",
      problem?.images ? plural(problem.images, "image") : "",
    ].filter(Boolean).join(" and ");
    say(this.parts.beside, beside ? `With ${beside}, in the report.` : "");
    const text = this.run.result?.text.trim() ?? "";
    show(this.parts.written, Boolean(text));
    say(this.parts.text, text);
  }

  facts() {
    const s = this.run.started;
    if (!s) return;
    const rows = SETTINGS.map(([name, label]) => [label, typeof s[name] === "number" ? count(s[name]) : s[name]]);
    rows.push(...Object.entries(s.settings).map(([name, value]) => [name.replace("_", " "), String(value)]));
    keyed(this.parts.facts, rows, ([label]) => label, ([label]) => el("tr", {}, el("th", { scope: "row" }, label), el("td")), (row, [, value]) => say(row.lastElementChild, value));
  }
}
