"""The models of a server: their public names, and their engines, opened when they are first needed.

`MODEL` is the model itself, `MODEL:rsa` Markovian RSA on it with the settings that suit it, `MODEL:rsa-PROFILE` with
those of a profile.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import anyio

from engine.api import Engine
from rsa.compose import model_settings, open_in_thread
from rsa.errors import did_you_mean
from rsa.serve.errors import ApiError
from rsa.serve.settings import ServedModel
from rsa.settings.profiles import profile_names

Opener = Callable[..., Awaitable[Engine]]
State = Literal["closed", "opening", "open", "broken"]
"""The state of a model's engine: not needed yet (or left after it died), being opened, at work, or not to be opened."""
_logger = logging.getLogger("rsa.serve")


@dataclass(frozen=True, slots=True)
class Route:
    """What a public name stands for: a model of the server, alone or under Markovian RSA with a profile's settings."""

    name: str
    model: str
    rsa: bool = False
    profile: str | None = None


@dataclass(slots=True)
class _Place:
    """A model's engine; `deaths` counts those that died, `why` is what became of the last one that is not there."""

    served: ServedModel
    lock: anyio.Lock
    engine: Engine | None = None
    settings: Mapping[str, Any] | None = None
    state: State = "closed"
    deaths: int = 0
    why: str | None = None


class Served:
    """All models of a server. Belongs to one event loop; close it with `aclose`.

    open_engine   opens what a `ServedModel` names; a test may give engines of its own, which are closed as ours are.
    """

    def __init__(self, models: Sequence[ServedModel], *, open_engine: Opener = open_in_thread) -> None:
        self._open_engine = open_engine
        self._places = {model.name: _Place(model, anyio.Lock()) for model in models}
        self._routes = {route.name: route for model in models for route in _routes(model.name)}

    @property
    def models(self) -> list[str]:
        """Names of the models themselves."""
        return list(self._places)

    @property
    def names(self) -> list[str]:
        """All public names."""
        return list(self._routes)

    def route(self, name: str) -> Route:
        """What a public name stands for. Raises ApiError (404) for one that is not served, naming the nearest."""
        found = self._routes.get(name)
        if found is None:
            meant = did_you_mean(name, self._routes) or "."
            raise ApiError(
                404,
                f"no model is called {name!r} here{meant} There are {', '.join(self._places)}, and each with :rsa",
                param="model",
                code="model_not_found",
            )
        return found

    def check_served(self, model: str) -> None:
        """Raises ApiError (409) for a model of an earlier server that this one does not have."""
        if model not in self._places:
            raise ApiError(
                409,
                f"the run is of the model {model!r}, which is not served here: serve it as {model}=...",
                code="conflict",
            )

    def settings_of(self, model: str) -> Mapping[str, Any]:
        """The settings of a run that suit a model."""
        place = self._places[model]
        if place.settings is None:  # once: a kind of engine is looked for in all that is installed
            place.settings = model_settings(place.served.opens)
        return place.settings

    def state(self, model: str) -> tuple[State, str | None]:
        """How the engine of a model is, and why if it is not well."""
        place = self._places[model]
        return place.state, place.why

    @property
    def deaths(self) -> Mapping[str, int]:
        """How many engines of each model have died."""
        return {name: place.deaths for name, place in self._places.items()}

    def opened(self, model: str) -> Engine | None:
        """A model's engine if it is open."""
        return self._places[model].engine

    async def engine(self, model: str) -> Engine:
        """The engine of a model: the one that is open, or else it is opened, and waited for.

        Raises what `rsa.compose.open_engine` raises; the next call tries again.
        """
        place = self._places[model]
        async with place.lock:
            if place.engine is None:
                place.state = "opening"
                try:
                    place.engine = await self._open_engine(place.served.opens, **place.served.options)
                except Exception as error:
                    place.state, place.why = "broken", str(error)
                    raise
                except BaseException:  # cancelled
                    place.state = "closed"
                    raise
                place.state, place.why = "open", None
            return place.engine

    async def lost(self, model: str, engine: Engine, why: str) -> None:
        """An engine died (somebody got EngineClosedError of it): close it; the next request opens another."""
        place = self._places[model]
        if place.engine is not engine:
            return  # somebody was faster
        place.engine, place.state, place.why = None, "closed", why
        place.deaths += 1
        _logger.error("the engine of %s died (%s): the next request opens it again", model, why)
        await engine.aclose()

    async def aclose(self) -> None:
        """Close all engines. Idempotent."""
        for place in self._places.values():
            engine, place.engine, place.state = place.engine, None, "closed"
            if engine is not None:
                await engine.aclose()


def _routes(model: str) -> list[Route]:
    profiles = [Route(f"{model}:rsa-{name}", model, rsa=True, profile=name) for name in profile_names()]
    return [Route(model, model), Route(f"{model}:rsa", model, rsa=True), *profiles]
