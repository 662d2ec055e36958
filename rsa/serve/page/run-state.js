// A run as its events tell it: what there is to know, and nothing of how it looks.

const SPEED_WINDOW_S = 5;

/** A run of which nothing is known yet. Times of events are seconds since its start. */
export function newRun() {
  return {
    problem: null,
    started: null,
    rounds: [],
    notices: [],
    decisions: [],
    limit: null,
    result: null,
    state: "queued",
    error: null,
    at: 0,
    seen: performance.now(),
    samples: [],
  };
}

/** Take the next event. Returns what is worth telling somebody who does not look, or null. */
export function take(run, event) {
  const taker = TAKERS[event.type];
  if (!taker) return null;
  if (event.at_s !== undefined && event.at_s >= run.at) {
    run.at = event.at_s;
    run.seen = performance.now();
  }
  const said = taker(run, event) ?? null;
  sample(run);
  return said;
}

const TAKERS = {
  problem(run, event) {
    run.problem = event;
  },
  run_started(run, event) {
    run.started = event;
    if (run.state === "queued") run.state = "running";
  },
  budgets_lowered: notice,
  warned: notice,
  round_started(run, event) {
    const candidates = event.subsets.map((parents, index) => ({ index, parents, status: null, tokens: 0, section: null }));
    const known = roundOf(run, event);
    if (known) return null;
    run.rounds.push({ ...head(event), candidates, votes: [], done: false, asked: true, since: event.at_s, until: null });
    const special = { selection: "One more aggregation selects the answer.", match: "Answers of the last round are compared in pairs." };
    return special[event.kind] ?? `Round ${event.round} begins.`;
  },
  candidate_started(run, event) {
    const candidate = candidateOf(run, event);
    if (candidate && !candidate.status) Object.assign(candidate, { promptTokens: event.prompt_tokens, asked: true });
  },
  progress(run, event) {
    for (const [index, tokens, section] of event.rows) {
      const candidate = roundOf(run, event)?.candidates[index];
      if (candidate && !candidate.status) Object.assign(candidate, { tokens, section });
    }
  },
  candidate_finished(run, event) {
    const candidate = candidateOf(run, event);
    if (candidate) Object.assign(candidate, event);
  },
  round_finished(run, event) {
    const round = roundOf(run, event);
    if (!round) return null;
    Object.assign(round, { votes: event.votes, done: true, asked: event.asked, until: event.at_s });
    if (round.kind === "match") return "The matches have ended.";
    const [first] = event.votes;
    const led = first ? `: ${first.candidates.length} of ${first.of} agree on ${first.answer}` : "";
    return `${nameOf(round)} has ended${led}.`;
  },
  limit_hit(run, event) {
    run.limit = event;
    const what = { conclude: "candidates are asked for their answers", cancel: "candidates are cut off", no_new_round: "there is no further round" };
    const line = `The limit ${event.limit} is reached (${event.used} of ${event.allowed}): ${what[event.action]}.`;
    run.notices.push(line);
    return line;
  },
  policy_decided(run, event) {
    if (event.action === "cut") cut(run, event);
    run.decisions.push(event.words);
    return event.words;
  },
  run_finished(run, event) {
    run.result = event;
    run.state = "finished";
    return event.answer === null ? "The run has ended without an answer." : `The answer is ${event.answer}.`;
  },
  state(run, event) {
    Object.assign(run, { state: event.state, error: event.error, seconds: event.seconds });
    return event.error ? `The run ${event.state}: ${event.error}` : null;
  },
};

/** Who had ended with more tokens than a round was cut at does not count as ended. */
function cut(run, { round, at, wave }) {
  for (const candidate of roundOf(run, { kind: "population", round })?.candidates.slice(...wave) ?? []) {
    if (candidate.status === "ok" && candidate.tokens > at) Object.assign(candidate, { status: "cut", answer: null, check: null });
  }
}

function notice(run, event) {
  if (!run.notices.includes(event.message)) run.notices.push(event.message);
}

const head = ({ kind, round }) => ({ kind, number: round, key: `${kind}-${round}` });
const roundOf = (run, { kind, round }) => run.rounds.find((each) => each.kind === kind && each.number === round);
const candidateOf = (run, event) => roundOf(run, event)?.candidates[event.index];

/** What a round is called. */
export const nameOf = (round) => ({ selection: "Selection", match: `Matches ${round.number}` })[round.kind] ?? `Round ${round.number}`;
export const current = (run) => run.rounds.at(-1) ?? null;
export const ended = (run) => !["queued", "running"].includes(run.state);
const sum = (numbers) => numbers.reduce((all, each) => all + each, 0);
export const tokensOf = (round) => sum(round.candidates.map((candidate) => candidate.tokens));
export const tokens = (run) => sum(run.rounds.map(tokensOf));

/** Seconds since its start, by the page's clock between two events. */
export function elapsed(run) {
  if (run.result) return run.result.wall_s;
  if (ended(run)) return Math.max(run.seconds ?? 0, run.at);
  return !run.started ? run.at : run.at + (performance.now() - run.seen) / 1000;
}

/** Tokens a second over the last few seconds; of a run that ended, over all of it. */
export function speed(run) {
  if (ended(run)) return run.at > 0 ? tokens(run) / run.at : 0;
  const [first, last] = [run.samples[0], run.samples.at(-1)];
  return first && last.at > first.at ? (last.tokens - first.tokens) / (last.at - first.at) : 0;
}

function sample(run) {
  const now = tokens(run);
  if (run.samples.at(-1)?.at === run.at) run.samples.pop();
  run.samples.push({ at: run.at, tokens: now });
  while (run.at - run.samples[0].at > SPEED_WINDOW_S) run.samples.shift();
}

/** What a candidate of a run is doing, or how it ended. */
export function doing(candidate, run) {
  if (candidate.status || ended(run)) return candidate.status ?? "cancelled";
  return candidate.tokens ? candidate.section : candidate.promptTokens ? "reading" : "waiting";
}

/** The votes of a round: counted by the run when it has ended; before that, equal texts together, as they come. */
export function votesOf(round) {
  if (round.done) return round.votes;
  const found = new Map();
  for (const candidate of round.candidates) {
    if (candidate.answer == null) continue;
    const vote = found.get(candidate.answer) ?? { answer: candidate.answer, candidates: [], of: round.candidates.length, check: candidate.check };
    vote.candidates.push(candidate.index);
    found.set(candidate.answer, vote);
  }
  return [...found.values()].sort((a, b) => b.candidates.length - a.candidates.length || a.candidates[0] - b.candidates[0]);
}

/** The newest round that has answers to vote with, or the newest. */
export function voting(run) {
  const answered = run.rounds.filter((round) => round.kind !== "match" && votesOf(round).length);
  if (run.result?.answered_from_round != null) {
    const settled = answered.filter((round) => round.kind === "population" && round.number === run.result.answered_from_round);
    if (settled.length) return settled.at(-1);
  }
  return answered.at(-1) ?? current(run);
}

/** Who of a round gave its leading answer. */
export function leading(round) {
  return new Set(votesOf(round)[0]?.candidates ?? []);
}
