"""Logs for machines: a line of JSON for each thing that happened, on standard error.

A line has `at` (UTC), `level`, `event`, and what belongs to the event. What people wrote (prompts, answers) is in none
of them, unless prompts are asked for; keys, and the queries of URLs, never are.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

LOGGER = "rsa.serve"
_OURS = "fields"


class JSONLines(logging.Formatter):
    """A record as one line: what was given as `fields`, or the message as `event` of others' loggers."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
        }
        fields = getattr(record, _OURS, None)
        if fields is None:
            line |= {"event": "message", "logger": record.name, "message": record.getMessage()}
        else:
            line |= {"event": record.getMessage(), **fields}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def log(event: str, *, level: int = logging.INFO, **fields: object) -> None:
    """Say that something happened. Fields that are None are left out."""
    given = {name: value for name, value in fields.items() if value is not None}
    logging.getLogger(LOGGER).log(level, event, extra={_OURS: given})


def log_to(stream: TextIO | None = None, *, level: int = logging.INFO) -> None:
    """Send the logs of this server, of uvicorn and of asyncio to a stream (standard error) as lines of JSON."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JSONLines())
    for name in (LOGGER, "uvicorn", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level if name == LOGGER else logging.WARNING)
