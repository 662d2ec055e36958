"""Models of the Hugging Face hub: their local copies, and fetching them. The hub's own progress bars stay off."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import ModelError
from engine.files.checkpoint import CONFIG, TOKENIZER_FILES, FileProgress, OnProgress, find_files

FILES = ["*.json", "model*.safetensors", "*.model", "*.tiktoken", "*.txt", "*.jinja"]
"""The files of a repository that a model needs."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_NETWORK_BYTES_BAR = "Downloading bytes"  # beside the bar of bytes written; it counts what compression leaves


@dataclass(frozen=True, slots=True)
class Fetched:
    """A model on this machine, and the commit it is a copy of (None: its folder does not tell)."""

    path: Path
    revision: str | None


def is_hub_id(model: str) -> bool:
    """Whether a name has the form `owner/name`, which a path may have too."""
    return model.count("/") == 1 and not model.startswith((".", "/", "~")) and not model.endswith("/")


def cached(hub_id: str) -> Path | None:
    """The local copy of a model, whole or not; no network is used. Raises ModelError for what is no hub id."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, allow_patterns=FILES, local_files_only=True))
    except HFValidationError as error:
        raise _no_id(hub_id, error) from error
    except LocalEntryNotFoundError as error:
        partial = getattr(error, "snapshot_path", None)
        return Path(partial) if partial else None


def find(hub_id: str) -> Path | None:
    """The local copy of a model, if it can be loaded: others fetch parts. Raises ModelError for what is no hub id."""
    path = cached(hub_id)
    if path is None or not (path / CONFIG).is_file():
        return None
    there, absent = find_files(path)
    whole = there and not absent and any((path / name).is_file() for name in TOKENIZER_FILES)
    return path if whole else None


def fetch(hub_id: str, *, to: Path | None = None, on_progress: OnProgress | None = None) -> Fetched:
    """Bring a model's newest version here, into the hub's cache or a folder; what is here already is not sent again.

    on_progress is called from other threads. Raises ModelError, saying what to do where there is no network.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        path = Path(snapshot_download(hub_id, allow_patterns=FILES, local_dir=to, tqdm_class=_bars(on_progress)))
    except HFValidationError as error:
        raise _no_id(hub_id, error) from error
    except LocalEntryNotFoundError as error:
        raise ModelError(_advice(hub_id)) from error
    except GatedRepoError as error:
        raise ModelError(f"{hub_id} is gated: accept its terms on the hub, then log in with `hf auth login`") from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"the hub has no model {hub_id}, or it is private: check the name, or log in with `hf auth login`"
        ) from error
    except Exception as error:  # of the hub's libraries and their HTTP clients, whichever they use
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise ModelError(f"{hub_id} cannot be fetched ({why}); what came is kept: try again") from error
    return Fetched(path, _revision(path))


def _no_id(hub_id: str, error: Exception) -> ModelError:
    return ModelError(f"{hub_id!r} is neither a folder nor a hub id: {error}")


def _advice(hub_id: str) -> str:
    return (
        f"{hub_id} is not on this machine and the hub cannot be reached. Where there is a network, run "
        f"`hf download {hub_id} --local-dir {hub_id.split('/')[1]}`, copy the folder here and give its path "
        "as the model"
    )


def _revision(path: Path) -> str | None:
    """The commit of a downloaded folder: in the cache its name, elsewhere the first line of the hub's own notes."""
    if _COMMIT.fullmatch(path.name):
        return path.name
    note = path / ".cache" / "huggingface" / "download" / f"{CONFIG}.metadata"
    first = note.read_text().split("\n")[0] if note.is_file() else ""
    return first if _COMMIT.fullmatch(first) else None


def _bars(on_progress: OnProgress | None) -> type[Any]:
    """A class of progress bars that draw nothing; the one that counts written bytes tells `on_progress`."""
    from huggingface_hub.utils.tqdm import tqdm

    lock = threading.Lock()

    class Silent(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._told = kwargs.get("unit") == "B" and kwargs.get("desc") != _NETWORK_BYTES_BAR
            super().__init__(*args, **{**kwargs, "disable": True})  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> None:
            with lock:
                self.n += n or 0
                if self._told and on_progress is not None:
                    on_progress(FileProgress("fetching", int(self.n), int(self.total) if self.total else None))

    return Silent
