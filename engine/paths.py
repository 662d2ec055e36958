"""Names of files and folders as people give them: read in one place, whatever they hold."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_MAX_SHOWN = 80
"""Characters of a name that a message shows."""


def path_named(given: str | Path, error: type[Exception], what: str = "a path") -> Path:
    """The path that somebody names, with `~` and `~user` spelled out; whether anything is there is not asked.

    What it returns can be looked at: `is_file`, `is_dir` and `exists` answer. Raises `error` for what names nothing: an
    empty text, a zero byte or half a character in it, a user whom the system does not know, a name too long for the
    file system, a folder on the way that may not be entered. `what` it should have been stands in the message.
    """
    why = "it is empty"
    try:
        if isinstance(given, str | Path) and str(given).strip():
            path = Path(given).expanduser()
            _look(path)
            return path
        if not isinstance(given, str | Path):
            why = "should be a text or a Path"
    except RuntimeError:
        why = f"there is no user {Path(given).parts[0].removeprefix('~')!r}, or no home of theirs"
    except UnicodeEncodeError:
        why = "it has half a character (a lone surrogate) in it"
    except ValueError:
        why = "it has a zero byte in it"
    except OSError as trouble:
        why = trouble.strerror or type(trouble).__name__
    try:
        shown = repr(str(given) if isinstance(given, Path) else given)
    except ValueError:  # a number of thousands of digits
        shown = type(given).__name__
    shown = shown if len(shown) <= _MAX_SHOWN else f"{shown[: _MAX_SHOWN - 1]}…"
    raise error(f"cannot use {shown} as {what}: {why}")


def is_folder(given: str | Path) -> bool:
    """Whether somebody names a folder that is there; False for whatever is no path. Never raises."""
    try:
        return path_named(given, ValueError).is_dir()
    except (ValueError, OSError):
        return False


def _look(path: Path) -> None:
    """Raises OSError where one can look neither at a path nor into it, ValueError for a zero byte."""
    with suppress(FileNotFoundError, NotADirectoryError):
        os.stat(f"{path}/.")  # noqa: PTH116 - a Path would drop the dot, which asks to enter a folder
