"""What people name is a path that can be looked at, or is refused in one line that says why."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.paths import is_folder, path_named

NO_PATHS: dict[str, tuple[Any, str]] = {
    "nothing": ("", "cannot use '' as a path: it is empty"),
    "blanks": (" \n", "as a path: it is empty"),
    "an unknown user": ("~no-such-user/run", "there is no user 'no-such-user', or no home of theirs"),
    "a zero byte": ("a\0b", "it has a zero byte in it"),
    "half a character": ("a\ud83d", "it has half a character"),
    "a long name": ("x" * 5000, "cannot use 'xxxx.*… as a path: File name too long"),
    "a number": (5, "cannot use 5 as a path: should be a text or a Path"),
    "bytes": (b"a", "should be a text or a Path"),
    "none": (None, "should be a text or a Path"),
}


@pytest.mark.parametrize("case", NO_PATHS)
def test_what_is_no_path(case: str) -> None:
    given, words = NO_PATHS[case]
    with pytest.raises(KeyError, match=words) as caught:
        path_named(given, KeyError)
    assert len(str(caught.value)) < 250
    assert not is_folder(given)


def test_homes_are_spelled_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert path_named("~/run", KeyError) == path_named(Path("~/run"), KeyError) == tmp_path / "run"
    assert path_named("a~/~b", KeyError) == Path("a~/~b")
    assert is_folder("~")


def test_folders_that_may_not_be_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def shut(path: str) -> None:
        """To root, who runs tests in containers, nothing is shut."""
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("engine.paths.os.stat", shut)
    with pytest.raises(KeyError, match="as a path: Permission denied"):
        path_named(tmp_path, KeyError)
    assert not is_folder(tmp_path)


@given(name=st.text(max_size=300) | st.text(alphabet="~./\0a\ud83d", max_size=20))
def test_what_is_a_path_can_be_looked_at(name: str) -> None:
    try:
        path = path_named(name, KeyError)
    except KeyError:
        assert not is_folder(name)
    else:
        assert is_folder(name) == path.is_dir()
        path.is_file()
        path.exists()
