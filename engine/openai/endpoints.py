"""Several URLs of one model: whom to ask next, and whom to leave alone for a while."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

FAILURES_TO_OPEN = 3
"""Requests that fail in a row before an endpoint is left alone: its circuit opens."""
LONGEST_PAUSE_S = 60.0
"""The first time it is left alone for a few seconds; each time that it fails again afterwards, twice as long, up to
this."""


@dataclass(slots=True)
class Endpoint:
    """A URL, and how it does.

    outstanding  requests that it works on.
    failures     in a row.
    pause_s      how long its circuit was open last; 0 if it is closed.
    opens_at     when it may be tried again, on the clock of `Endpoints`.
    trial        a request that tries it again is under way.
    """

    url: str
    outstanding: int = 0
    failures: int = 0
    pause_s: float = 0.0
    opens_at: float = 0.0
    trial: bool = False

    def ready_in(self, now: float) -> float:
        """Seconds until a request may be sent there; infinite while another one tries it."""
        if not self.pause_s:
            return 0.0
        return float("inf") if self.trial else max(0.0, self.opens_at - now)


class Endpoints:
    """Gives each request the endpoint with the least outstanding ones, whose circuit is closed.

    An endpoint whose circuit opened is tried again after its pause, by one request alone; if that goes well, the
    circuit closes.

    first_pause_s  how long a circuit is open the first time.
    clock          gives seconds, and never goes back.

    Attributes:
        failed_trials  how often an endpoint that was tried again failed again.
        last_error     why a request failed last.
    """

    def __init__(self, urls: Sequence[str], *, first_pause_s: float, clock: Callable[[], float]) -> None:
        self.all = [Endpoint(url) for url in urls]
        self.failed_trials, self.last_error = 0, ""
        self._first_pause_s = first_pause_s
        self._clock = clock
        self._turn = itertools.count()

    def take(self, avoid: Endpoint | None = None) -> Endpoint | None:
        """An endpoint for a request, which counts as outstanding until `give_back`; None if no circuit is closed.

        avoid  one that has just failed: it is taken only if there is no other.
        """
        now = self._clock()
        ready = [each for each in self.all if each.ready_in(now) == 0]
        others = [each for each in ready if each is not avoid] or ready
        if not others:
            return None
        turn = next(self._turn)
        best = min(others, key=lambda each: (each.outstanding, (self.all.index(each) - turn) % len(self.all)))
        best.outstanding += 1
        best.trial = best.pause_s > 0
        return best

    def wait_s(self) -> float:
        """Seconds until `take` may have one; infinite if that depends on a request that is under way."""
        now = self._clock()
        return min(each.ready_in(now) for each in self.all)

    def give_back(self, endpoint: Endpoint) -> None:
        """A request is done, or was left."""
        endpoint.outstanding -= 1
        endpoint.trial = False

    def failed(self, endpoint: Endpoint, error: str) -> None:
        """A request came to grief there, for no fault of its own."""
        self.last_error = error
        self.failed_trials += endpoint.trial
        endpoint.failures += 1
        again = endpoint.trial or not endpoint.pause_s  # others that were under way say nothing new
        if again and (endpoint.failures >= FAILURES_TO_OPEN or endpoint.pause_s):
            endpoint.pause_s = min(LONGEST_PAUSE_S, max(self._first_pause_s, 2 * endpoint.pause_s))
            endpoint.opens_at = self._clock() + endpoint.pause_s

    def answered(self, endpoint: Endpoint) -> None:
        """It does its work: its circuit closes."""
        endpoint.failures, endpoint.pause_s, endpoint.trial = 0, 0.0, False
