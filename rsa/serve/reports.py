"""Reports of runs, by whatever package here writes them: entry points of the group `rsa.reports`.

    [project.entry-points."rsa.reports"]
    html = "my_package.reports:write_report"

An entry point is a function that takes a run folder, writes a page into it and returns its path. `evals` brings ours in
this way, so that no room below it knows of it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from functools import cached_property
from importlib import metadata
from pathlib import Path

import anyio
import anyio.to_thread

from rsa.serve.errors import ApiError

GROUP = "rsa.reports"
"""The entry-point group of writers of reports."""
TICKET_S = 600.0
"""How long a report that was ordered can be read at its address."""
_MOST_TICKETS = 256

Writer = Callable[[Path], Path]


class Reports:
    """Writes reports, one at a time, and keeps under which addresses they can be read.

    write_report  None: the one of the entry-point group.
    clock         seconds, for how long a ticket is good.
    """

    def __init__(self, write_report: Writer | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._given = write_report
        self._lock = anyio.Lock()
        self._tickets: dict[str, tuple[float, Path]] = {}

    @property
    def available(self) -> bool:
        """Whether there is something that writes them."""
        return self._given is not None or bool(metadata.entry_points(group=GROUP))

    async def write(self, folder: Path) -> str:
        """Write the report of a run; the ticket that `find` takes. Raises ApiError."""
        if not self.available:
            raise ApiError(404, "nothing that is installed here writes reports", code="no_reports")
        async with self._lock:  # matplotlib draws one at a time
            path = await anyio.to_thread.run_sync(self._write, folder)
        now = self._clock()
        self._tickets = {name: kept for name, kept in self._tickets.items() if kept[0] > now}
        while len(self._tickets) >= _MOST_TICKETS:
            del self._tickets[next(iter(self._tickets))]
        ticket = secrets.token_urlsafe(24)
        self._tickets[ticket] = (now + TICKET_S, path)
        return ticket

    def find(self, ticket: str) -> Path:
        """The report of a ticket. Raises ApiError (404)."""
        until, path = self._tickets.get(ticket, (0.0, Path()))
        if until <= self._clock() or not path.is_file():
            raise ApiError(404, "there is no such report any more: open it from its run again")
        return path

    def _write(self, folder: Path) -> Path:
        return self._writer(folder)

    @cached_property
    def _writer(self) -> Writer:
        if self._given is not None:
            return self._given
        (point, *_) = metadata.entry_points(group=GROUP)
        try:
            found: Writer = point.load()
        except Exception as error:  # another's module may break in any way
            message = f"what writes reports cannot be loaded ({type(error).__name__}): install {point.value} again"
            raise ApiError(500, message, type="server_error") from error
        return found
