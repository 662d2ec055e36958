"""Files with digests, for tests that look into them, or write them as if something else had been written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rsa.digests import seal, unseal


def copy_of(folder: Path) -> Path:
    """A copy beside a folder, to be changed; the one before is gone then."""
    copy = folder.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    return copy


def content(path: Path) -> bytes:
    """What a record, or a line of a chain, says: all but its digest."""
    return unseal(path.read_bytes()).content


def rewrite(path: Path, change: Callable[[Any], Any]) -> None:
    """Change a record that follows on no other, as if it had been written so."""
    data = json.dumps(change(json.loads(content(path))), ensure_ascii=False, separators=(",", ":"))
    path.write_bytes(seal(data.encode()).data)


def contents(path: Path) -> list[bytes]:
    """What the lines of a file say."""
    return [unseal(line).content for line in path.read_bytes().splitlines()]


def reseal(folder: Path) -> None:
    """Compute all digests of a run folder anew, as one does who forges it."""
    run, log, result = (folder / name for name in ("run.json", "events.jsonl", "result.json"))
    data, digest = seal(content(run))
    run.write_bytes(data)
    lines = []
    for said in contents(log):
        line, digest = seal(said, digest)
        lines.append(line + b"\n")
    log.write_bytes(b"".join(lines))
    if result.exists():
        result.write_bytes(seal(content(result), digest).data)


def forged(folder: Path, change: Callable[[Any], object]) -> Path:
    """A copy of a run folder with another result, its digests computed anew."""
    copy = copy_of(folder)
    said = json.loads(content(copy / "result.json"))
    change(said)
    (copy / "result.json").write_bytes(json.dumps(said, separators=(",", ":")).encode())
    reseal(copy)
    return copy


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The places of all values in JSON that hold no others."""
    if isinstance(value, dict | list) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return [place for key, item in items for place in leaves(item, (*path, key))]
    return [path]


def replaced(value: Any, path: tuple[str | int, ...], new: Any) -> Any:
    """JSON with another value at a place."""
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


def rewrite_event(folder: Path, kind: str, change: Callable[[Any], object] | None) -> int:
    """Change the first event of a kind, or leave it out for None, and forge all digests; the number of its line."""
    path = folder / "events.jsonl"
    said = [json.loads(line) for line in contents(path)]
    at = next(at for at, event in enumerate(said) if event["type"] == kind)
    if change is None:
        del said[at]
    else:
        change(said[at])
    path.write_bytes(b"".join(json.dumps(event).encode() + b"\n" for event in said))
    reseal(folder)
    return at + 1
