"""`rsa bench`: how fast a model runs on this machine, how near that is to what memory gives, and what follows from it.

A line is printed as soon as it is measured, so that who interrupts has what was measured until then.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import anyio

from engine.api import COUNTABLE, Engine, KnowsMemory, Memory, ModelInfo
from rsa.command.estimates import PROBLEM_TOKENS, Estimate, Room, Speed, estimate, last_prompt
from rsa.command.speeds import Reading, Writing, longest, prompt_with, read, write
from rsa.errors import ConfigError
from rsa.settings.config import RSAConfig
from rsa.settings.profiles import load_config, profile_names
from rsa.settings.sizes import parse_size

_ROWS, _CONTEXTS = (1, 4, 16), (1024, 4096)
_NS = (8, 16, 32, 64)
"""Numbers of candidates for which the largest beta is told."""
_WARM_TOKENS = 64
_HEAD = "measured  rows  context  tokens/s  ms a step  of the byte roofline"

Tell = Callable[[str], None]


@dataclass(slots=True)
class Report:
    """What was measured, and `profiles` and `betas` (by N), which are computed; those are empty without `room`."""

    model: ModelInfo
    room: Room | None
    readings: list[Reading] = field(default_factory=list)
    writings: list[Writing] = field(default_factory=list)
    profiles: dict[str, Estimate] = field(default_factory=dict)
    betas: dict[int, int] = field(default_factory=dict)

    def roofline(self, writing: Writing) -> float | None:
        """The share of a step's time that its bytes would take at the speed of a copy; None: not known."""
        if self.room is None:
            return None
        memory = self.room.memory
        return memory.step_bytes(writing.rows, writing.context_tokens) / memory.copy_bytes_per_s / writing.step_s


def sizes(name: str, text: str, most: int = COUNTABLE - 1) -> list[int]:
    """Numbers of a flag, separated by commas, `1k` being 1024, `most` at most. Raises ConfigError, naming the
    setting."""
    try:
        found = sorted({parse_size(part) for part in text.split(",")})
    except ValueError as error:
        raise ConfigError(f"`{name}`: {error}") from None
    if found[0] < 1:
        raise ConfigError(f"`{name}`: {found[0]} is too few: give numbers from 1 on")
    if found[-1] > most:
        raise ConfigError(f"`{name}`: {found[-1]} is too many: give numbers to {most}")
    return found


def bench(
    engine: Engine,
    *,
    rows: Sequence[int] | None,
    contexts: Sequence[int] | None,
    tokens: int,
    brought: Mapping[str, Any],
    tell: Tell,
) -> Report:
    """Measure, telling each line, and compute. Closes the engine.

    rows      how many are to write at once, ascending; None: what suits every machine.
    contexts  lengths of prompts, ascending; None: as `rows`.
    tokens    that each row writes to be measured.
    brought   the settings that suit the model, keys as in `RSAConfig`.

    Raises ConfigError for what the model cannot run, EngineError for what the engine fails with.
    """

    async def run() -> Report:
        try:
            return await _measured(engine, rows, contexts, tokens, tell)
        finally:
            await engine.aclose()

    report = anyio.run(run)
    if report.room is not None and report.writings:
        _compute(report, report.room, brought, tell)
    return report


def as_json(report: Report) -> str:
    """A report in one line."""
    memory = report.room.memory if report.room else None
    return json.dumps(
        {
            "model": report.model.name,
            "device": report.model.details.get("device"),
            "copy_bytes_per_s": memory.copy_bytes_per_s if memory else None,
            "cache_room_bytes": memory.room_bytes if memory else None,
            "reading": [asdict(r) | {"tokens_per_s": r.prompt_tokens / r.seconds} for r in report.readings],
            "writing": [
                asdict(w) | {"tokens_per_s": w.tokens / w.seconds, "roofline_share": report.roofline(w)}
                for w in report.writings
            ],
            "profiles": {name: asdict(found) for name, found in report.profiles.items()},
            "largest_beta_of_n": report.betas,
            "assumed_problem_tokens": PROBLEM_TOKENS,
        }
    )


def _compute(report: Report, room: Room, brought: Mapping[str, Any], tell: Tell) -> None:
    """Fill in what follows from the measurements, and tell it."""
    speed = Speed.fit(report.writings, report.readings)
    own = load_config(defaults=brought)
    configs = {name: load_config(name) for name in profile_names()} | ({"its own settings": own} if brought else {})
    report.profiles = {name: estimate(config, speed, room) for name, config in configs.items()}
    report.betas = {n: room.beta(n, last_prompt(own)) for n in _NS}
    _tell_computed(report, own, tell)


async def _measured(
    engine: Engine, rows: Sequence[int] | None, contexts: Sequence[int] | None, tokens: int, tell: Tell
) -> Report:
    model = engine.model
    rows = _possible_rows(model, rows)
    contexts = _possible_contexts(model, contexts, tokens)
    memory = await engine.memory() if isinstance(engine, KnowsMemory) else None
    room = Room(memory, model.context_tokens, model.max_rows) if memory is not None else None
    report = Report(model, room)
    tell(f"{model.name}{_device(model, memory)}")
    await read(engine, prompt_with(engine.tokenizer, _WARM_TOKENS))
    tell(_HEAD)
    for context in contexts:
        for _ in range(2):  # the first of a length may compile something
            message = prompt_with(engine.tokenizer, context)
            reading = await read(engine, message)
        report.readings.append(reading)
        tell(_table("reading", 1, reading.prompt_tokens, f"{reading.prompt_tokens / reading.seconds:,.0f}"))
        for count in rows:
            if room is not None and not room.holds(count, context + longest(tokens)):
                tell(f"{_table('writing', count, context)}  left out: no room in memory for their caches")
                continue
            writing = await write(engine, message, rows=count, tokens=tokens)
            if writing is None:
                tell(f"{_table('writing', count, context)}  left out: they end too soon to be measured")
                continue
            report.writings.append(writing)
            tell(_writing_line(report, writing))
    return report


def _possible_rows(model: ModelInfo, asked: Sequence[int] | None) -> Sequence[int]:
    most = model.max_rows
    if asked is not None and most is not None and asked[-1] > most:
        raise ConfigError(f"`rows`: {model.name} decodes at most {most} at once here, not {asked[-1]}")
    return asked or [rows for rows in _ROWS if most is None or rows <= most]


def _possible_contexts(model: ModelInfo, asked: Sequence[int] | None, tokens: int) -> Sequence[int]:
    """Those asked for, or the usual ones, where the model has fewer tokens half of them."""
    most = model.context_tokens
    if most is None:
        return asked or _CONTEXTS
    if asked is not None and asked[-1] + tokens > most:
        raise ConfigError(
            f"`context`: {asked[-1]:,} tokens and {tokens:,} more (`tokens`) exceed the {most:,} of {model.name}"
        )
    return asked or sorted({min(context, most // 2) for context in _CONTEXTS})


def _device(model: ModelInfo, memory: Memory | None) -> str:
    if memory is None:
        return ": it does not say what memory it is in, so that only speeds are told"
    return (
        f" on this machine's {str(model.details.get('device') or 'device').upper()}: a large copy moves "
        f"{memory.copy_bytes_per_s / 1e9:,.1f} GB/s (measured), {memory.room_bytes / 2**30:.1f} GiB for caches"
    )


def _table(what: str, rows: int, context: int, speed: str = "", step: str = "", share: str = "") -> str:
    return f"{what:<8}{rows:>6}{context:>9,}{speed:>10}{step:>11}{share:>22}".rstrip()


def _writing_line(report: Report, writing: Writing) -> str:
    share = report.roofline(writing)
    return _table(
        "writing",
        writing.rows,
        writing.context_tokens,
        f"{writing.tokens / writing.seconds:,.0f}",
        f"{writing.step_s * 1e3:,.1f}",
        "" if share is None else f"{share:.0%}",
    )


def _tell_computed(report: Report, own: RSAConfig, tell: Tell) -> None:
    tell("")
    tell(f"computed: minutes for a problem of {PROBLEM_TOKENS} tokens, if every candidate uses its whole beta; answers")
    tell("are not counted, and other numbers of rows and tokens follow the trend of those measured")
    for name, found in report.profiles.items():
        if found.seconds is None:
            tell(f"{name:<16} {found.obstacle}")
        else:
            tell(f"{name:<16} {found.seconds / 60:>8,.1f} min, {found.rows} candidates at once")
    tell("")
    tell(f"computed: the largest beta that fits into memory and context, after prompts of {last_prompt(own):,} tokens")
    best = max(report.betas, key=lambda n: n * report.betas[n])
    for n, beta in report.betas.items():
        what = f"beta {beta:>9,}, n x beta {n * beta:>11,}" if beta else "does not fit"
        tell(f"n {n:>3}  {what}{'  (the most)' if beta and n == best else ''}")
