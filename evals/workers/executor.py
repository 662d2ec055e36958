"""Who starts workers: `Executor`, and the ones that the command line names."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, runtime_checkable

from evals.workers.driver import Channel
from rsa.errors import ConfigError, did_you_mean

EXECUTORS = ("local", "ray")
"""The names of executors."""


@runtime_checkable
class Executor(Protocol):
    """Starts workers somewhere.

    elsewhere  they run on other machines, which fetch models themselves.
    """

    @property
    def elsewhere(self) -> bool: ...

    def channels(self, model: str) -> AbstractAsyncContextManager[Sequence[Channel]]:
        """The ways to workers for a model, at least one, and what they need while they are used. Raises ConfigError if
        there is nowhere to start them."""


def executor_named(name: str, *, devices: str | None = None, address: str | None = None) -> Executor | None:
    """The executor of a name; None: no workers, this process alone.

    devices  of `local`: see `evals.workers.devices`; without them there are no workers.
    address  of the cluster, for `ray`; None: the one that this machine belongs to.

    Raises ConfigError for an unknown name, for what does not go with it, and where Ray is not installed.
    """
    if name not in EXECUTORS:
        hint = did_you_mean(name, EXECUTORS) or "."
        raise ConfigError(f"no executor is called {name!r}{hint} There are {', '.join(EXECUTORS)}")
    if name == "ray":
        if devices is not None:
            raise ConfigError("`devices` goes with the executor local: a Ray cluster says itself what it has")
        from evals.workers.ray_cluster import RayCluster

        return RayCluster.at(address)
    if address is not None:
        raise ConfigError("`address` goes with the executor ray: leave it out")
    if devices is None:
        return None
    from evals.workers.devices import Devices
    from evals.workers.processes import Processes

    return Processes(Devices.read(devices))
