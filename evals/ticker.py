"""Something done again and again beside whatever else goes on, even while nothing else happens."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Thread
from typing import Self


class Ticker:
    """Calls `tick` from a thread of its own, within `with`.

    tick  does what is due and says in how many seconds it wants to be called again. If it cannot write any more, it is
          not called again.
    wait  waits for so many seconds; true: it is to end. By default it ends when the `with` does.
    """

    def __init__(self, tick: Callable[[], float], wait: Callable[[float], bool] | None = None) -> None:
        self._tick = tick
        self._over = Event()
        self._wait = wait or self._over.wait
        self._thread = Thread(target=self._run, name="ticker", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._wait(self._tick()):
                pass
        except (OSError, ValueError):  # a full disk, a closed stream: there is nobody to tell
            return
