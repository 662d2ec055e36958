// Who reads whom: a column for each round, a point for each candidate, a line from each tail to those who read it.

import { svg } from "./dom.js";
import { leading, nameOf } from "./run-state.js";

const ROW = 18, TOP = 28, LEFT = 34, RIGHT = 16, LEAST_COLUMN = 64, SIZE = 4.5;
const MOST_POINTS = 600;

/** Draw the rounds of a run into an element, as wide as that is. `open` is told which candidate was pointed at. */
export function draw(holder, rounds, open) {
  const most = Math.max(...rounds.map((round) => round.candidates.length), 0);
  if (!most || most * rounds.length > MOST_POINTS) {
    holder.replaceChildren(most ? "There are too many candidates for a picture." : "");
    return;
  }
  const columns = Math.max(rounds.length - 1, 1);
  const width = Math.max(holder.clientWidth, LEFT + RIGHT + columns * LEAST_COLUMN);
  const step = (width - LEFT - RIGHT) / columns;
  const row = most > 24 ? ROW * 0.7 : ROW;
  const height = TOP + most * row;
  const at = (place, index) => [LEFT + place * step, TOP + (index + 0.5) * row];
  const leaders = rounds.map(leading);

  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", class: "lineage", "aria-label": described(rounds, leaders) });
  root.append(...rounds.map((round, place) => label(at(place, 0)[0], 14, place, rounds.length, nameOf(round))));
  root.append(...indices(most, row, at));
  const lines = [];
  rounds.forEach((round, place) => {
    if (!place) return;
    for (const candidate of round.candidates) {
      for (const parent of candidate.parents) {
        const [x1, y1] = at(place - 1, parent);
        const [x2, y2] = at(place, candidate.index);
        const right = leaders[place].has(candidate.index) && (leaders[place - 1].has(parent) || !leaders[place - 1].size);
        const begun = candidate.promptTokens || candidate.status;
        lines.push(svg("line", { x1, y1, x2, y2, class: right ? "right" : begun ? "line" : "line faint" }));
      }
    }
  });
  lines.sort((a, b) => a.classList.contains("right") - b.classList.contains("right"));
  root.append(...lines);
  rounds.forEach((round, place) => {
    for (const candidate of round.candidates) root.append(point(...at(place, candidate.index), candidate, leaders[place], () => open(round, candidate)));
  });
  holder.replaceChildren(root);
}

function label(x, y, place, many, text) {
  const anchor = place === 0 ? "start" : place === many - 1 ? "end" : "middle";
  const shifted = place === 0 ? x - LEFT : place === many - 1 ? x + RIGHT : x;
  return svg("text", { x: shifted, y, "text-anchor": anchor }, text);
}

function indices(most, row, at) {
  const every = Math.max(1, Math.ceil(most / 8));
  return Array.from({ length: Math.ceil(most / every) }, (_, i) => i * every).map((index) =>
    svg("text", { x: 14, y: at(0, index)[1] + 4, "text-anchor": "end", class: "index" }, String(index)),
  );
}

function point(x, y, candidate, leaders, onclick) {
  const answered = candidate.answer != null;
  const kind = !candidate.status ? (candidate.tokens ? "open busy" : "open") : !answered ? "open done" : leaders.has(candidate.index) ? "leads" : "differs";
  const shape = kind === "differs"
    ? svg("path", { d: `M${x} ${y - SIZE - 1}l${SIZE + 1} ${SIZE + 1}l${-SIZE - 1} ${SIZE + 1}l${-SIZE - 1} ${-SIZE - 1}z` })
    : svg("circle", { cx: x, cy: y, r: SIZE });
  return svg("g", { class: `point ${kind}`, onclick }, shape, svg("circle", { cx: x, cy: y, r: 9, class: "target" }));
}

function described(rounds, leaders) {
  const parts = rounds.map((round, place) => {
    const read = place ? `, each from ${round.candidates[0].parents.length} tails` : "";
    const led = leaders[place].size ? `; ${leaders[place].size} gave the leading answer` : "";
    return `${nameOf(round)}: ${round.candidates.length} candidates${read}${led}`;
  });
  return `${parts.join(". ")}.`;
}
