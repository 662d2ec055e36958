"""What a monitor reads at `/metrics`: counters, gauges and histograms of one server, in Prometheus' text.

Names begin with `rsa_`; sizes are tokens, times seconds. Labels take few values: models are those of the server, paths
those of its routes, and what a client made up is counted under `other`.
"""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from engine.api import Usage
from rsa.events import CandidateFinished, CandidateStarted, Event, RoundFinished, RunFinished
from rsa.serve.guard import Slots

CONTENT_TYPE = CONTENT_TYPE_LATEST
_FIRST_BYTE_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_REQUEST_S = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600)
_RUN_S = (1, 5, 10, 30, 60, 300, 900, 3600, 4 * 3600)
_STATES = ("closed", "opening", "open", "broken")


class Metrics:
    """The numbers of one server, in a registry of their own: two servers in a process do not share them."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._writing: Counts[str] = Counts()  # candidates of a run that have begun and not ended
        by_route = ("path", "code")
        self._requests = Counter("rsa_requests", "Requests answered, by route and status", by_route, registry=registry)
        self._errors = Counter("rsa_errors", "Requests refused or failed, by code", ("code",), registry=registry)
        self._in_flight = Gauge("rsa_requests_in_flight", "Requests not answered to the end yet", registry=registry)
        self._first_byte_s = Histogram(
            "rsa_first_byte_seconds", "From a request to the first byte of its body", ("path",),
            buckets=_FIRST_BYTE_S, registry=registry,
        )  # fmt: skip
        self._request_s = Histogram(
            "rsa_request_seconds", "From a request to its last byte", ("path",), buckets=_REQUEST_S, registry=registry
        )
        self._tokens = Counter("rsa_tokens", "Tokens, by model and kind", ("model", "kind"), registry=registry)
        self._candidates = Counter(
            "rsa_candidates", "Candidates of runs that ended, by how", ("model", "status"), registry=registry
        )
        self._rounds = Counter("rsa_rounds", "Rounds of runs that ended", ("model",), registry=registry)
        self._runs = Counter("rsa_runs", "Runs that ended, by why", ("model", "ended"), registry=registry)
        self._run_s = Histogram(
            "rsa_run_seconds", "Length of runs that were answered", ("model",), buckets=_RUN_S, registry=registry
        )
        self._running = Gauge("rsa_runs_in_progress", "Runs that are being worked on", registry=registry)
        self._rows = Gauge("rsa_rows", "Completions asked of engines that have not ended", registry=registry)
        self._working = Gauge("rsa_slots_working", "Places that are worked on", registry=registry)
        self._waiting = Gauge("rsa_queue", "Requests that wait for a place", registry=registry)
        self._engines = Gauge(
            "rsa_engine", "1 for the state that an engine is in", ("model", "state"), registry=registry
        )
        self._deaths = Gauge("rsa_engine_deaths", "Engines of a model that died", ("model",), registry=registry)

    # ---- requests

    def began(self) -> None:
        """A request came in."""
        self._in_flight.inc()

    def first_byte(self, path: str, seconds: float) -> None:
        """The first byte of an answer's body went out."""
        self._first_byte_s.labels(path).observe(seconds)

    def ended(self, path: str, status: int, seconds: float) -> None:
        """A request was answered to the end, or left."""
        self._in_flight.dec()
        self._requests.labels(path, str(status)).inc()
        self._request_s.labels(path).observe(seconds)

    def error(self, code: str) -> None:
        """A request was refused or failed: its error's code, or its type where it has none."""
        self._errors.labels(code).inc()

    # ---- engines and runs

    def spent(self, model: str, usage: Usage) -> None:
        """Tokens of completions that ended."""
        for kind in ("prompt", "cached", "completion", "reasoning"):
            self._tokens.labels(model, kind).inc(getattr(usage, f"{kind}_tokens"))

    def rows(self, more: int) -> None:
        """So many more completions are asked for, or (below 0) have ended."""
        self._rows.inc(more)

    def observe(self, run_id: str, model: str, event: Event) -> None:
        """What an event of a run says; to be told of each once, and not of those a resumed run repeats."""
        match event:
            case CandidateStarted():
                self._writing[run_id] += 1
                self.rows(1)
            case CandidateFinished():
                if self._writing[run_id]:
                    self._writing[run_id] -= 1
                    self.rows(-1)
                self._candidates.labels(model, event.candidate.status).inc()
                if event.candidate.completion is not None:
                    self.spent(model, event.candidate.completion.usage)
            case RoundFinished():
                self._rounds.labels(model).inc()
            case RunFinished():
                self._runs.labels(model, event.result.stopped_because).inc()
                self._run_s.labels(model).observe(event.result.timings.wall_s)

    def run_ended(self, run_id: str, model: str, state: str) -> None:
        """A run is over; its rows are, too."""
        self.rows(-self._writing.pop(run_id, 0))
        if state != "finished":
            self._runs.labels(model, state).inc()

    # ---- what is asked for at the moment of reading

    def watch(self, slots: Slots, running: Callable[[], int]) -> None:
        """Read the queue, and how many runs go on, whenever the numbers are read."""
        self._working.set_function(lambda: slots.working)
        self._waiting.set_function(lambda: slots.waiting)
        self._running.set_function(running)

    def engines(self, states: Mapping[str, str], deaths: Mapping[str, int]) -> None:
        """How the engines are, by model."""
        for model, found in states.items():
            for state in _STATES:
                self._engines.labels(model, state).set(state == found)
            self._deaths.labels(model).set(deaths.get(model, 0))

    def text(self) -> bytes:
        """The numbers as they are now."""
        return generate_latest(self._registry)
