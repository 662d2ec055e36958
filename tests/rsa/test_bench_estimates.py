"""What `rsa bench` computes: speeds from measurements, times from speeds, what fits into memory."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsa.command.estimates import PROBLEM_TOKENS, Room, Speed, estimate, last_prompt
from rsa.command.speeds import Reading, Writing
from rsa.settings.config import RSAConfig

speeds = st.builds(
    Speed,
    base_s=st.floats(1e-3, 0.1),
    row_s=st.floats(0, 1e-2),
    token_s=st.floats(0, 1e-6),
    prompt_token_s=st.floats(1e-5, 1e-2),
    prompt_square_s=st.floats(0, 1e-7),
)
seconds = st.floats(1e-6, 1e3)
sizes = st.integers(1, 5000)


@dataclass(frozen=True, slots=True)
class Linear:
    """A memory in which each token of a row takes a byte, and each row some more."""

    room_bytes: int
    row_bytes: int = 0
    copy_bytes_per_s: float = 1e9

    def step_bytes(self, rows: int, tokens: int) -> int:
        return self.cache_bytes(rows, tokens)

    def cache_bytes(self, rows: int, tokens: int) -> int:
        return rows * (tokens + self.row_bytes)


memories = st.builds(Linear, st.integers(0, 10**6), st.integers(0, 1000))
rooms = st.builds(Room, memories, st.none() | st.integers(1, 10**5), st.none() | st.integers(1, 100))


@st.composite
def configs(draw: st.DrawFn) -> RSAConfig:
    n, beta = draw(st.integers(1, 40)), draw(st.integers(1, 300))
    return RSAConfig(
        n=n, c=draw(st.integers(1, n)), t=draw(st.integers(0, 4)), beta=beta, tau=draw(st.integers(1, beta))
    )


def one_step(speed: Speed, rows: int, tokens: int) -> float:
    return speed.base_s + rows * speed.row_s + rows * tokens * speed.token_s


def measured(speed: Speed) -> Speed:
    """What measurements without noise at such speeds come to."""
    writings = [
        Writing(rows, context, rows * 10, 10 * one_step(speed, rows, context))
        for rows, context in product((1, 4, 16), (1024, 4096))
    ]
    readings = [Reading(tokens, speed.reading_s(tokens)) for tokens in (1024, 4096)]
    return Speed.fit(writings, readings)


@given(speeds, st.integers(1, 64), sizes, sizes)
def test_measurements_of_a_speed_give_it_back(speed: Speed, rows: int, prompt: int, tokens: int) -> None:
    found = measured(speed)
    assert found.reading_s(prompt) == pytest.approx(speed.reading_s(prompt), rel=1e-3)
    assert found.writing_s(rows, prompt, tokens) == pytest.approx(speed.writing_s(rows, prompt, tokens), rel=1e-3)


@given(
    st.lists(st.tuples(st.integers(1, 64), sizes, seconds), min_size=1), st.lists(st.tuples(sizes, seconds), min_size=1)
)
def test_nothing_takes_negative_time_however_odd_the_measurements(
    writings: list[tuple[int, int, float]], readings: list[tuple[int, float]]
) -> None:
    found = Speed.fit(
        [Writing(rows, context, rows, took) for rows, context, took in writings], [Reading(*each) for each in readings]
    )
    assert min(found.base_s, found.row_s, found.token_s, found.prompt_token_s, found.prompt_square_s) >= 0
    assert found.reading_s(1000) > 0
    assert found.writing_s(4, 100, 100) > 0


def test_a_single_measurement_stands_for_all_steps_and_prompts() -> None:
    found = Speed.fit([Writing(4, 1000, 40, 2.0)], [Reading(1000, 3.0)])
    assert found.writing_s(4, 1000, 1) == pytest.approx(0.2)
    assert found.writing_s(4, 9000, 7) == pytest.approx(1.4)
    assert found.reading_s(2000) == pytest.approx(6.0)


@given(speeds, st.integers(1, 64), sizes, st.integers(0, 200))
def test_writing_takes_the_sum_of_its_steps(speed: Speed, rows: int, prompt: int, tokens: int) -> None:
    steps = sum(one_step(speed, rows, prompt + written) for written in range(tokens))
    assert speed.writing_s(rows, prompt, tokens) == pytest.approx(steps)


@given(rooms, st.integers(1, 100), st.integers(0, 2000))
def test_the_largest_beta_fits_and_one_more_does_not(room: Room, rows: int, prompt: int) -> None:
    def fits(beta: int) -> bool:
        return (
            (room.max_rows is None or rows <= room.max_rows)
            and (room.context_tokens is None or prompt + beta <= room.context_tokens)
            and room.holds(rows, prompt + beta)
        )

    beta = room.beta(rows, prompt)
    assert fits(beta) or beta == 0
    assert not fits(beta + 1)


@given(rooms, st.integers(1, 100), sizes)
def test_as_many_rows_at_once_as_there_is_room_for(room: Room, at_most: int, tokens: int) -> None:
    rows = room.rows(at_most, tokens)
    most = min(at_most, room.max_rows or at_most)
    assert rows <= most
    assert room.holds(rows, tokens) or rows == 0
    assert rows == most or not room.holds(rows + 1, tokens)


@given(configs(), speeds, rooms)
def test_a_run_takes_what_its_rounds_take_in_waves(config: RSAConfig, speed: Speed, room: Room) -> None:
    found = estimate(config, speed, room)
    if found.seconds is None:
        longest = last_prompt(config) + config.beta
        assert not room.holds(1, longest) or longest > (room.context_tokens or longest)
        return
    expected = 0.0
    for number in range(config.t + 1):
        prompt = PROBLEM_TOKENS + (config.c * config.tau if number else 0)
        expected += speed.reading_s(prompt) * (config.n if number else 1)
        waiting = config.n
        while waiting:
            wave = room.rows(waiting, prompt + config.beta)
            expected += sum(one_step(speed, wave, prompt + written) for written in range(config.beta))
            waiting -= wave
    assert found.seconds == pytest.approx(expected)
    assert 1 <= found.rows <= config.n


@given(configs(), speeds)
def test_more_memory_never_makes_a_run_longer_where_a_step_costs_something(config: RSAConfig, speed: Speed) -> None:
    tokens = last_prompt(config) + config.beta
    runs = [estimate(config, speed, Room(Linear(tokens * rows), None, None)) for rows in (1, config.n)]
    few, all_ = (run.seconds for run in runs)
    assert few is not None
    assert all_ is not None
    assert all_ <= few * (1 + 1e-9)
