"""Training data: mixtures of samples, tails cut as the framework cuts them, rows of equal length, loss masks.

Every problem comes from the train split (asserted for each sample); tails of self-generated rollouts likewise.
"""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.queues import Queue
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from evals.tasks import chain, countdown, sums
from evals.tasks.splits import split_of_key
from examples.nano import others, traces, wording
from examples.nano.tokenizer import BOS_ID, END_THINK_ID
from examples.nano.traces import CLOSE, IM_END, UNSOLVED, Piece

TOKENS_PER_BATCH = 122_880
ROWS = (64, 80, 96, 120, 160, 192, 240, 320, 384, 480, 640, 768, 960, 1280, 1536, 2048, 4096)
"""Row lengths; each divides TOKENS_PER_BATCH. A sample goes to the shortest that holds it."""
MAX_CHAIN = 64
"""Operations of the longest chain: more than four times what fits into 128 tokens."""
CUT_OFF_SHARE = 0.095
"""The share of samples whose reasoning the budget ends."""
TOKENIZER_FILE = Path(__file__).resolve().parents[2] / "engine" / "weights" / "nano" / "tokenizer.json"

COUNTDOWN_WORDING = [i for i, (_, trained) in enumerate(countdown.PHRASINGS) if trained]
CHAIN_WORDING = [i for i, (_, trained) in enumerate(chain.PHRASINGS) if trained]
SUMS_WORDING = [i for i, (_, trained) in enumerate(sums.PHRASINGS) if trained]
Problem = countdown.CountdownProblem | chain.ChainProblem | sums.SumsProblem
SYSTEM = ("You are a helpful assistant.", "Solve the problem.", "Think step by step.", "You are a careful solver.")


@dataclass
class Rollouts:
    """The model's own reasoning on one training problem: `rounds[t]` holds token ids of each candidate's trace."""

    problem: Problem
    play: countdown.Play | None
    text: str
    rounds: list[list[np.ndarray[Any, Any]]] = field(default_factory=list)


_SUM = re.compile(r"\d\s*\+\s*\d")
Sample = tuple[list[int], list[bool]]
"""A sample: token ids, and which of them carry loss."""


def tail_tokens(rng: Random) -> int:
    """A tail length: log-uniform 32 to 256, seldom up to 768."""
    if rng.random() < 0.03:
        return rng.randint(256, 768)
    return int(math.exp(rng.uniform(math.log(32), math.log(257))))


def tail_count(rng: Random) -> int:
    """C of an aggregation prompt: 4 more often than not."""
    return rng.choices((1, 2, 3, 4), (17, 14, 14, 55))[0]


def failures_before(rng: Random) -> int:
    """Failed attempts written before the solution."""
    draw = rng.random()
    if draw < 0.38:
        return 0
    return rng.randint(8, 36) if draw > 0.975 else 1 + int(rng.expovariate(1 / 2.5))


def worded(rng: Random, problem: Problem) -> str:
    """The problem in words: one of the listed phrasings, or more freely."""
    listed = rng.random() < 0.4
    if isinstance(problem, countdown.CountdownProblem):
        if listed:
            return countdown.phrase(problem, rng.choice(COUNTDOWN_WORDING))
        return wording.countdown_text(rng, problem)
    if isinstance(problem, chain.ChainProblem):
        return chain.phrase(problem, rng.choice(CHAIN_WORDING)) if listed else wording.chain_text(rng, problem)
    return sums.phrase(problem, rng.choice(SUMS_WORDING)) if listed else wording.sums_text(rng, problem)


def new_problem(rng: Random, hard: bool = False) -> tuple[Problem, countdown.Play | None]:
    """A problem of the train split, with a solution where it is needed. `hard` ones are as the benchmarks put them."""
    draw = rng.random()
    if draw < 0.42:
        target = 24 if rng.random() < 0.04 and not hard else None
        size = rng.choice((4, 5, 6, 6)) if hard else (4 if target else None)
        return countdown.generate_with_play(rng, "train", size, target)
    if draw < 0.68:
        length = rng.randint(15, MAX_CHAIN) if hard or rng.random() < 0.5 else rng.randint(2, 24)
        wide = {"max_term": 96, "max_factor": 20} if rng.random() < 0.3 else {}
        return chain.generate(rng, "train", length, **wide), None
    length = rng.randint(10, sums.MAX_TERMS) if hard or rng.random() < 0.6 else rng.randint(2, 12)
    return sums.generate(rng, "train", length), None


def assert_unseen(problem: Problem) -> None:
    """Training may never touch the test split."""
    assert split_of_key(problem.key) == "train"


class Mixture:
    """Draws samples. `own` are self-generated rollouts; they make up `own_share` of the puzzle samples."""

    def __init__(
        self,
        seed: int,
        own: list[Rollouts] | None = None,
        own_share: float = 0.5,
        cut_off_share: float = CUT_OFF_SHARE,
    ) -> None:
        self.rng = Random(seed)
        self.tokenizer = Tokenizer.from_file(str(TOKENIZER_FILE))
        self.book = traces.PromptBook()
        self.own = own or []
        self.own_share = own_share if self.own else 0.0
        self.cut_off_share = cut_off_share

    # -- text to tokens

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: list[int]) -> str:
        text: str = self.tokenizer.decode(ids, skip_special_tokens=False)
        return text

    def tail(self, trace: str, tau: int, at: int | None = None) -> str:
        """The last `tau` tokens of the trace, cut off before token `at` when that is given."""
        return self.decode(self.encode(trace)[:at][-tau:])

    def assemble(self, prompt: str, pieces: list[Piece]) -> Sample:
        """Prompt without loss, completion with the loss of its pieces."""
        prompt_ids = [BOS_ID, *self.encode(prompt)]
        encoding = self.tokenizer.encode("".join(text for text, _ in pieces), add_special_tokens=False)
        carries = bytearray()
        for text, loss in pieces:
            carries += (b"\x01" if loss else b"\x00") * len(text)
        flags = [bool(carries[start]) for start, _ in encoding.offsets]
        return prompt_ids + encoding.ids, [False] * len(prompt_ids) + flags

    # -- samples

    def sample(self) -> Sample:
        """One training sample."""
        rng = self.rng
        draw = rng.random()
        if draw < 0.03:
            return self.other()
        if rng.random() < self.own_share:
            item = rng.choice(self.own)
            problem, play, text = item.problem, item.play, item.text
        else:
            item = None
            problem, play = new_problem(rng)
            text = worded(rng, problem)
        assert_unseen(problem)
        tails: list[str] = []
        if rng.random() < (0.8 if item else 0.45):
            count, tau = tail_count(rng), tail_tokens(rng)
            if isinstance(problem, countdown.CountdownProblem):
                assert play is not None
                make = self.own_countdown_tails if item else self.countdown_tails
                tails, pieces = make(item or problem, play, count, tau)  # type: ignore[arg-type]
            else:
                tails = self.own_tails(item, count, tau)[0] if item else self.list_tails(problem, count, tau)
                furthest = max(traces.furthest(problem, tail) for tail in tails)
                pieces = traces.list_pieces(problem, max(furthest, 1))
        elif isinstance(problem, countdown.CountdownProblem):
            assert play is not None
            failed = self.own_failures(item) if item else traces.failed_plays(rng, problem, failures_before(rng))
            pieces = traces.countdown_pieces(rng, problem, failed, play)
        else:
            pieces = traces.list_pieces(problem)
        return self.finish(text, tails, pieces)

    def finish(self, text: str, tails: list[str], pieces: list[Piece]) -> Sample:
        """The whole conversation; now and then with a system message, without thinking, or cut off by the budget."""
        rng = self.rng
        system = rng.choice(SYSTEM) if rng.random() < 0.03 else None
        user = self.book.user(text, tails)
        draw = rng.random()
        if draw < 0.025:
            last, loss = pieces[-1]
            shown = last.replace(CLOSE, "")  # without thinking, the work is part of the answer
            return self.assemble(traces.chat(user, False, system), [*pieces[:-1], (shown, loss)])
        if draw < 0.025 + self.cut_off_share:
            return self.cut_off(traces.chat(user, True, system), pieces)
        return self.assemble(traces.chat(user, True, system), pieces)

    def cut_off(self, prompt: str, pieces: list[Piece]) -> Sample:
        """Reasoning that the budget ends at a random token: the close is forced on it, the answer is honest."""
        ids, flags = self.assemble(prompt, pieces)
        begin = ids.index(END_THINK_ID) if END_THINK_ID in ids else len(ids)
        prompt_length = flags.index(True) if True in flags else len(ids)
        prompt_length = min(prompt_length, begin)
        at = self.rng.randint(prompt_length, begin)
        close = CLOSE if self.rng.random() < 0.7 else f"\n{CLOSE}"
        solved = at == begin
        last = pieces[-1][0].removeprefix(CLOSE) if solved else UNSOLVED + IM_END
        close_ids, last_ids = self.encode(close), self.encode(last)
        # The engine forces the tag alone: the blank line after it is the model's to write.
        close_flags = [False] * (len(close_ids) - 1) + [True]
        return ids[:at] + close_ids + last_ids, flags[:at] + close_flags + [True] * len(last_ids)

    def other(self) -> Sample:
        """No puzzle at all, as a first prompt or as an aggregation prompt."""
        rng = self.rng
        tails = [others.REASONING] * tail_count(rng) if rng.random() < 0.25 else []
        pieces: list[Piece] = [(others.REASONING, True), (CLOSE + others.ANSWER + IM_END, True)]
        text = others.other_text(rng)
        while _SUM.search(text):  # that is one of its tasks
            text = others.other_text(rng)
        return self.finish(text, tails, pieces)

    # -- synthetic tails

    def countdown_tails(
        self, problem: countdown.CountdownProblem, play: countdown.Play, count: int, tau: int
    ) -> tuple[list[str], list[Piece]]:
        """Tails in every state, and the completion: repeat a success that was seen, else try something new."""
        rng = self.rng
        success_rate = 0.0 if rng.random() < 0.5 else rng.uniform(0.15, 0.9)
        pool = traces.failed_plays(rng, problem, rng.randint(5, 14))
        per_line = 8 * len(problem.numbers) - 6
        seen_success = False
        claimed: list[countdown.Play] = []
        tails = []
        for _ in range(count):
            visible = tau // per_line + 2
            lines = [traces.attempt(rng.choice(pool), problem.target) for _ in range(visible + 1)]
            if rng.random() < success_rate:
                seen_success = True
                trace = "".join(lines[: rng.randint(0, visible)]) + traces.attempt(play, problem.target)
                tails.append(self.tail(trace, tau))
                continue
            if rng.random() < 0.08:
                false = rng.choice(pool)
                claim, sound_until_then = self.false_claim(false, problem.target)
                claimed += [false] * sound_until_then
                lines[-1] = claim
                tails.append(self.tail("".join(lines), tau))
                continue
            ids = self.encode("".join(lines))
            at = tau if rng.random() < 0.5 else len(ids) - rng.randint(0, per_line)
            tails.append(self.decode(ids[:at][-tau:]))
        failed = [] if seen_success else claimed[:1] + traces.failed_plays(rng, problem, failures_before(rng))
        return self.trimmed(tails), traces.countdown_pieces(rng, problem, failed, play)

    def false_claim(self, play: countdown.Play, target: int) -> tuple[str, bool]:
        """A line that claims success by a wrong last sum, or by a number it does not have; and whether the former."""
        last, rng = play[-1], self.rng
        if rng.random() < 0.5:
            return traces.attempt((*play[:-1], countdown.Step(last.a, last.op, last.b, target)), target), True
        if last.a < target:
            bent = countdown.Step(last.a, "+", target - last.a, target)
        else:
            bent = countdown.Step(last.a, "-", last.a - target, target)
        return traces.attempt((*play[:-1], bent), target), False

    def list_tails(self, problem: traces.ListProblem, count: int, tau: int) -> list[str]:
        """Tails that stop at like or unlike places, some of them with a wrong value near the end."""
        rng, length = self.rng, len(traces.steps_of(problem))
        per_line = 8.7 if isinstance(problem, chain.ChainProblem) else 13.5
        begin = 1 if rng.random() < 0.5 else rng.randint(1, length)
        lines_per_round = max(3, int(tau / per_line * rng.choice((1.0, 1.0, rng.uniform(1, 4)))))
        alike = rng.random() < 0.75
        spoiled_share = rng.choice((0.0, 0.08, 0.3, 0.7))
        tails = []
        for _ in range(count):
            first = begin if alike else rng.randint(1, length)
            last = min(length, first + lines_per_round + rng.randint(-2, 2))
            last = max(last, first)
            make = traces.spoiled_lines if rng.random() < spoiled_share else _sound_lines
            lines = make(rng, problem, first, last)
            at = None if last == length and rng.random() < 0.5 else -rng.randint(1, 8)
            tails.append(self.tail("".join(lines), tau, at) or lines[0])
        return self.trimmed(tails)

    def trimmed(self, tails: list[str]) -> list[str]:
        """Some callers strip the end of a tail, most do not."""
        return [tail.rstrip() for tail in tails] if self.rng.random() < 0.25 else tails

    # -- tails and failures of the model's own

    def own_tails(self, item: Rollouts, count: int, tau: int) -> tuple[list[str], list[str]]:
        """Tails of `count` candidates of one round under a random budget, and the traces they come from."""
        rng = self.rng
        candidates = rng.sample(rng.choice(item.rounds), count)
        budget = max(tau, int(math.exp(rng.uniform(math.log(32), math.log(400)))))
        kept = [trace[:budget].tolist() for trace in candidates]
        return self.trimmed([self.decode(ids[-tau:]) for ids in kept]), [self.decode(ids) for ids in kept]

    def own_countdown_tails(
        self, item: Rollouts, play: countdown.Play, count: int, tau: int
    ) -> tuple[list[str], list[Piece]]:
        """As `countdown_tails`, from rollouts; a success found by a candidate is worth more than our own."""
        rng, problem = self.rng, item.problem
        assert isinstance(problem, countdown.CountdownProblem)
        tails, texts = self.own_tails(item, count, tau)
        for text in texts:
            for tried in traces.attempts_in(problem, text):
                if tried[-1].result == problem.target:
                    return tails, traces.countdown_pieces(rng, problem, [], tried)
        return tails, traces.countdown_pieces(rng, problem, self.own_failures(item), play)

    def own_failures(self, item: Rollouts) -> list[countdown.Play]:
        """The first few failed attempts of one of the candidates."""
        assert isinstance(item.problem, countdown.CountdownProblem)
        candidate = self.rng.choice(self.rng.choice(item.rounds))
        # An attempt made twice is learned from once: models that see themselves repeat, repeat themselves.
        plays = dict.fromkeys(traces.attempts_in(item.problem, self.decode(candidate.tolist())))
        failed = [play for play in plays if play[-1].result != item.problem.target]
        return failed[: failures_before(self.rng)]


def _sound_lines(_: Random, problem: traces.ListProblem, first: int, last: int) -> list[str]:
    return traces.list_lines(problem, first, last)


# ---------------------------------------------------------------- batches

Batch = tuple[int, np.ndarray[Any, Any], np.ndarray[Any, Any]]
"""A batch: row length S, ids uint16 [T], loss flags uint8 [T]; T = TOKENS_PER_BATCH, rows padded on the right with
0."""


def batches(mixture: Mixture, tokens: int = TOKENS_PER_BATCH) -> Iterator[Batch]:
    """Endless batches; rows of one batch have one length."""
    waiting: dict[int, list[Sample]] = {row: [] for row in ROWS}
    while True:
        ids, flags = mixture.sample()
        row = next((row for row in ROWS if row >= len(ids)), None)
        if row is None or row > tokens:
            continue
        waiting[row].append((ids, flags))
        if len(waiting[row]) * row >= tokens:
            yield (row, *pack(waiting[row], row, tokens))
            waiting[row] = []


def pack(samples: list[Sample], row: int, tokens: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Ids and loss flags of the samples as flat padded rows."""
    ids = np.zeros((tokens // row, row), np.uint16)
    flags = np.zeros((tokens // row, row), np.uint8)
    for place, (sample_ids, sample_flags) in enumerate(samples[: tokens // row]):
        ids[place, : len(sample_ids)] = sample_ids
        flags[place, : len(sample_flags)] = sample_flags
    return ids.reshape(-1), flags.reshape(-1)


def work(
    queue: Queue[Batch], seed: int, own_file: str | None, own_share: float, tokens: int, cut_off_share: float
) -> None:
    """A data process: fills `queue` until it is ended. `own_file` is used as soon as it exists."""
    mixture = Mixture(seed, cut_off_share=cut_off_share)
    for batch in batches(mixture, tokens):
        if own_file and not mixture.own and Path(own_file).exists():
            mixture.own, mixture.own_share = pickle.loads(Path(own_file).read_bytes()), own_share
        queue.put(batch)
