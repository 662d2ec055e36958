// Numbers and states in words.

const counted = new Intl.NumberFormat("en");
const rounded = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export const count = (value) => counted.format(value);
export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;
export const percent = (part, of) => `${rounded.format((100 * part) / of)}%`;

/** Seconds as people read them: 4.2 s, 3 min 20 s, 2 h 5 min. */
export function duration(seconds) {
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

/** A text as a part of a line. */
export function inALine(text, most) {
  const line = text.replace(/\s+/g, " ").trim();
  return line.length <= most ? line : `${line.slice(0, most - 1)}…`;
}

/** What a time of day was, or a date where that is another. */
export function moment(iso) {
  const then = new Date(iso);
  if (Number.isNaN(then.getTime())) return "";
  const today = then.toDateString() === new Date().toDateString();
  return today
    ? then.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })
    : then.toLocaleDateString([], { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
}

const STATES = {
  queued: ["third", "◌", "waiting for its turn"],
  running: ["first", "●", "running"],
  finished: ["right", "✓", "finished"],
  failed: ["wrong", "✕", "failed"],
  cancelled: ["none", "■", "stopped"],
  interrupted: ["second", "‖", "interrupted"],
};
const STATUSES = {
  ok: ["right", "✓", "done"],
  degenerate: ["second", "∞", "repeats itself"],
  failed: ["wrong", "✕", "failed"],
  cancelled: ["none", "■", "cut off"],
  cut: ["none", "✂", "cut short"],
  waiting: ["none", "◌", "waiting"],
  reading: ["none", "◌", "reads its prompt"],
  reasoning: ["first", "●", "thinks"],
  answer: ["first", "●", "answers"],
};
const MARKS = { verified: ["right", "✓"], wrong: ["wrong", "✕"], unchecked: ["none", "?"] };

/** Tone, sign and word of a run's state. */
export const stateOf = (state) => STATES[state] ?? ["none", "·", state];
/** Tone, sign and word of how a candidate is. */
export const statusOf = (status) => STATUSES[status] ?? ["none", "·", status];
/** Tone, sign and word of what a model's checker says. */
export const markOf = (mark) => [...(MARKS[mark] ?? ["none", "?"]), mark];

const STOPS = {
  policy: "It stopped early: a policy ended it.",
  total_tokens: "The limit on tokens ended it.",
  deadline_s: "The deadline ended it.",
  no_candidates: "No candidate came to an end.",
};
/** Why a run ended, where that is worth a sentence. */
export const stopOf = (why) => STOPS[why] ?? "";
