"""Signals that ask a command to end: `kill` or `docker stop` (SIGTERM) and a closed terminal (SIGHUP) act as Ctrl-C.

What was begun is put in order, the terminal gets its cursor back, and a line says how to go on. The exit code is
128 + the number of the signal: 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP.
"""

from __future__ import annotations

import atexit
import os
import signal
from types import FrameType

_received: list[int] = []


def end_at_once() -> None:
    """Until `end_in_order`: nothing is begun yet, so Ctrl-C ends the process without a word, whatever it imports."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def end_in_order() -> None:
    """From now on SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt, or do what an event loop does instead of that.

    Those that the process was told to ignore (by `nohup`, or as a background job of a script) stay ignored.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # An event loop puts its own handler, which cancels, in place of Python's alone; without it SIGTERM would raise
        # in the middle of a write and have a line written twice. So Python handles what never comes.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _interrupt)
    atexit.register(_end_deaf)


def exit_code() -> int:
    """Of a command that was interrupted."""
    return 128 + (_received[0] if _received else signal.SIGINT)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """The first one ends the command in order; others are no news: GNU `timeout` tells a process twice."""
    if _received:
        return
    _received.append(number)
    handler = signal.getsignal(signal.SIGINT)  # an event loop has its own: it cancels before it raises
    if not callable(handler):
        raise KeyboardInterrupt
    handler(signal.SIGINT, frame)


def _end_deaf() -> None:
    """Who has been told to end and does is not told again: as it goes, Python puts back what a signal does by itself,
    which is to kill, and the exit code would be another."""
    if _received:
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is _interrupt:
                signal.signal(number, signal.SIG_IGN)


def _leave(number: int, _: FrameType | None) -> None:
    os._exit(128 + number)
