"""Data sets of the Hugging Face Hub: which files hold a split, and getting just these.

Files are kept in the Hub's own cache, so that a second run needs no network. `datasets` is asked which files hold a
split where that is not plain, but it does not load them: `load_dataset(id, split=...)` fetches the files of all splits
(textvqa: 9 GB for 1 GB) and keeps a second copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory

from evals.data.benchmarks import Source
from evals.errors import DataError
from rsa.words import listed

TIMEOUT_S = 20.0
"""Time limit of the one request that tells whether the Hub can be reached."""


@dataclass(frozen=True)
class Found:
    """A source whose files are at hand.

    files      paths of local files, in the order of the rows; of a stream the addresses (`hf://...`) of remote ones.
    revisions  commits they are of, one for each hub id of the source.
    skipped    why the sources before this one were not used, a sentence each.
    """

    source: Source
    files: tuple[str, ...]
    revisions: tuple[str, ...]
    skipped: tuple[str, ...] = ()


class _UnreachableError(Exception):
    """The Hub does not answer, and what is wanted is not in the cache."""


class _UnusableError(Exception):
    """The Hub answers, but not with the data; the message says why."""


def find(benchmark: str, sources: Sequence[Source], revision: str | None = None) -> Found:
    """The first source that can be had. `revision` is used instead of those that the sources are pinned to.

    Raises DataError, which says why each source is out of reach and how to bring the data here.
    """
    hub = _Hub()
    failures: list[str] = []
    for source in sources:
        pinned = (revision,) * len(source.hub) if revision else source.revision or (None,) * len(source.hub)
        try:
            parts = [hub.part(source, name, wanted) for name, wanted in zip(source.hub, pinned, strict=True)]
        except (_UnusableError, _UnreachableError) as error:
            failures.append(f"{' + '.join(source.hub)}: {error}")
        else:
            files = tuple(file for _, found in parts for file in found)
            return Found(source, files, tuple(commit for commit, _ in parts), tuple(failures))
    if hub.answers:
        raise DataError(
            f"benchmark {benchmark} cannot be loaded: {'; '.join(failures)}. A .jsonl, .json or .parquet "
            "file may be given as `data`; where its columns are others, say which they are"
        )
    ids = ", ".join(" + ".join(source.hub) for source in sources)
    raise DataError(
        f"benchmark {benchmark} cannot be loaded: {_why_not()}, and no whole copy is on this machine (of {ids}). "
        f"{how_to_bring(benchmark, sources[0], revision)}"
    )


def _why_not() -> str:
    from huggingface_hub.constants import HF_HUB_OFFLINE

    return "HF_HUB_OFFLINE is set" if HF_HUB_OFFLINE else "the Hub cannot be reached"


def how_to_bring(name: str, source: Source, revision: str | None = None) -> str:
    """What to type elsewhere, and then here."""
    patterns = source.patterns if len(source.patterns) < 4 else (f"*/{source.split}-*",)
    includes = "".join(f" --include '{pattern}'" for pattern in patterns)
    commits = (revision,) * len(source.hub) if revision else source.revision or ("",) * len(source.hub)
    commands = " && ".join(
        f"hf download {hub} --repo-type dataset{commit and f' --revision {commit}'}{includes} --local-dir {folder}"
        for hub, commit, folder in zip(source.hub, commits, _folders(name, source), strict=True)
    )
    return (
        f"Where there is a network: `{commands}`. Bring the folder {name} here and give it as `data`; "
        "or give a .jsonl, .json or .parquet file, and say what its columns are where they are others"
    )


def _folders(name: str, source: Source) -> list[str]:
    if len(source.hub) == 1:
        return [name]
    return [f"{name}/{index}" for index, _ in enumerate(source.hub, 1)]


def files_in(folder: Path, name: str, sources: Sequence[Source]) -> tuple[Source, list[Path]]:
    """The split's files in a folder that was filled as `how_to_bring` says, and the source they are of.

    Raises DataError if there are none.
    """
    for source in sources:
        found: list[Path] = []
        for part in _folders(name, source):
            inside = folder / Path(part).relative_to(name)
            found += [inside / file for file in _matching(_files_below(inside), source.patterns)]
        if found:
            return source, found
    wanted = " or ".join(dict.fromkeys(pattern for source in sources for pattern in source.patterns[:2]))
    raise DataError(f"no file in {folder} is called {wanted}: give the .jsonl, .json or .parquet file itself")


def _files_below(folder: Path) -> list[str]:
    try:
        return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    except OSError as error:
        raise DataError(f"cannot read {error.filename}: {error.strerror}") from None


def _matching(files: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Files by pattern, and by name within a pattern; none twice."""
    return list(dict.fromkeys(file for pattern in patterns for file in sorted(files) if fnmatch(file, pattern)))


class _Hub:
    """The Hub as seen from here. Once it did not answer (`answers` is false) it is not asked again."""

    def __init__(self) -> None:
        self.answers = True

    def part(self, source: Source, hub: str, revision: str | None) -> tuple[str, list[str]]:
        """The commit of one hub id of a source, and the split's files: addresses of a stream, else local paths.

        Raises _UnusableError or _UnreachableError.
        """
        listing = self._listing(hub, revision)
        patterns = source.patterns
        if listing is not None:
            revision, everything = listing
            if not _matching(everything, patterns):
                patterns = _described_files(source, hub, revision, everything)
            if source.stream:
                return revision, [f"hf://datasets/{hub}@{revision}/{file}" for file in _matching(everything, patterns)]
        elif source.stream:
            raise _UnreachableError("it is read on the Hub, which cannot be reached")
        folder = self._snapshot(hub, revision, patterns)
        files = [folder / file for file in _matching(_files_below(folder), patterns)]
        if not files:
            raise _UnreachableError("not on this machine, and the Hub cannot be reached")
        return folder.name, [str(file) for file in files]

    def _listing(self, hub: str, revision: str | None) -> tuple[str, list[str]] | None:
        """The commit and the names of all files; None if the Hub does not answer.

        Raises _UnusableError if it says no.
        """
        from huggingface_hub import HfApi
        from huggingface_hub.errors import (
            GatedRepoError,
            HfHubHTTPError,
            HFValidationError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        if not self.answers:
            return None
        try:
            info = HfApi().dataset_info(hub, revision=revision, timeout=TIMEOUT_S)
        except GatedRepoError:
            raise _UnusableError("access must be asked for on its page, then `hf auth login`") from None
        except RevisionNotFoundError:
            raise _UnusableError(f"has no revision {revision}") from None
        except RepositoryNotFoundError:
            raise _UnusableError("the Hub has no such data set, or it is private") from None
        except HFValidationError as error:
            raise _UnusableError(f"is no hub id: {error}") from None
        except HfHubHTTPError as error:
            if error.response.status_code < 500:
                raise _UnusableError(str(error).partition("\n")[0]) from None
            self.answers = False
        except Exception:
            # No name server, no route, a proxy's refusal, offline mode: each library has its own exception.
            self.answers = False
        else:
            return str(info.sha), [sibling.rfilename for sibling in info.siblings or ()]
        return None

    def _snapshot(self, hub: str, revision: str | None, patterns: Sequence[str]) -> Path:
        """The folder of a commit in the Hub's cache, with the files of these patterns in it."""
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            return Path(
                snapshot_download(
                    hub,
                    repo_type="dataset",
                    revision=revision,
                    allow_patterns=list(patterns),
                    local_files_only=not self.answers,
                )
            )
        except LocalEntryNotFoundError:
            raise _UnreachableError("not whole on this machine, and the Hub cannot be reached") from None
        except Exception as error:
            raise _UnusableError(f"the download broke off: {str(error).partition(chr(10))[0]}") from None


def _described_files(source: Source, hub: str, commit: str, everything: Sequence[str]) -> tuple[str, ...]:
    """The files that hold the split of a data set that is not laid out as usual: its own description tells."""
    if source.files:
        raise _UnusableError(f"no file is called {' or '.join(source.files[:3])}; it has {_some(everything)}")
    from datasets import load_dataset_builder

    names: list[str] = []
    try:
        for config in source.config or (None,):
            with TemporaryDirectory() as scratch:
                builder = load_dataset_builder(hub, config, revision=commit, cache_dir=scratch)
            files = (builder.config.data_files or {}).get(source.split, ())
            names += [str(file).removeprefix(f"hf://datasets/{hub}@{commit}/") for file in files]
    except Exception as error:
        # An unknown configuration, a loading script, a description that is wrong: datasets says which.
        raise _UnusableError(str(error).partition("\n")[0]) from None
    if not names:
        raise _UnusableError(f"has no split {source.split!r}; its files are {_some(everything)}")
    return tuple(names)


def _some(files: Sequence[str]) -> str:
    data = [file for file in files if file.endswith((".parquet", ".jsonl", ".json", ".csv", ".zip"))]
    return listed(data, 5) or "no data files"
