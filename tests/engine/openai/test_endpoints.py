"""Which of several servers is asked next."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.openai.endpoints import FAILURES_TO_OPEN, LONGEST_PAUSE_S, Endpoint, Endpoints


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def endpoints(count: int = 2) -> tuple[Endpoints, Clock]:
    clock = Clock()
    return Endpoints([f"http://{i}" for i in range(count)], first_pause_s=5.0, clock=clock), clock


def taken(pool: Endpoints, avoid: Endpoint | None = None) -> Endpoint:
    endpoint = pool.take(avoid)
    assert endpoint is not None
    return endpoint


def fail(pool: Endpoints, times: int = FAILURES_TO_OPEN) -> None:
    for _ in range(times):
        endpoint = taken(pool)
        pool.failed(endpoint, "broke")
        pool.give_back(endpoint)


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(1, 4))
def test_nobody_has_two_requests_more_than_another(given_back: list[int], count: int) -> None:
    """As long as none is done: what is given back may leave any of them with less."""
    pool, _ = endpoints(count)
    held: list[Endpoint] = []
    for number in given_back:
        fewest = min(each.outstanding for each in pool.all)
        endpoint = taken(pool)
        assert endpoint.outstanding == fewest + 1
        held.append(endpoint)
        if number < len(held):
            pool.give_back(held.pop(number))
    assert sum(each.outstanding for each in pool.all) == len(held)


def test_equal_ones_take_turns() -> None:
    pool, _ = endpoints(3)
    seen = []
    for _ in range(6):
        endpoint = taken(pool)
        seen.append(endpoint.url)
        pool.give_back(endpoint)
    assert sorted(seen) == sorted(["http://0", "http://1", "http://2"] * 2)


def test_who_has_just_failed_is_avoided_while_there_is_another() -> None:
    pool, _ = endpoints(2)
    first = taken(pool)
    pool.give_back(first)
    assert {taken(pool, first).url for _ in range(4)} == {each.url for each in pool.all if each is not first}
    alone, _ = endpoints(1)
    assert taken(alone, alone.all[0]) is alone.all[0]


def test_a_circuit_opens_is_tried_by_one_and_closes_again() -> None:
    pool, clock = endpoints(1)
    fail(pool)
    assert (pool.take(), pool.wait_s()) == (None, 5.0)
    clock.now = 5.0
    trial = taken(pool)
    assert (pool.take(), pool.wait_s()) == (None, float("inf")), "one request tries it alone"
    pool.answered(trial)
    assert taken(pool) is trial
    assert pool.wait_s() == 0
    assert (pool.failed_trials, pool.last_error) == (0, "broke")


def test_a_trial_that_fails_doubles_the_pause_up_to_a_minute() -> None:
    pool, clock = endpoints(1)
    fail(pool)
    pauses = []
    for _ in range(6):
        pauses.append(pool.wait_s())
        clock.now += pool.wait_s()
        fail(pool, 1)
    assert pool.failed_trials == 6
    assert pauses == [5.0, 10.0, 20.0, 40.0, LONGEST_PAUSE_S, LONGEST_PAUSE_S]


def test_those_that_were_under_way_say_nothing_new() -> None:
    pool, _ = endpoints(1)
    held = [taken(pool) for _ in range(8)]
    for endpoint in held:
        pool.failed(endpoint, "broke")
        pool.give_back(endpoint)
    assert pool.wait_s() == pytest.approx(5.0)


def test_a_trial_that_is_left_frees_the_place_for_another() -> None:
    pool, clock = endpoints(1)
    fail(pool)
    clock.now = 5.0
    pool.give_back(taken(pool))
    assert pool.take() is not None
