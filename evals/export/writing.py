"""Writing an evaluation in another format: where a file goes, and what a format needs to be told."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Literal, get_args

from engine.paths import path_named
from evals.errors import ResultsError
from evals.export import eval_results, every_eval_ever
from evals.export.facts import Finished
from rsa.errors import ConfigError, did_you_mean
from rsa.folders import make_folder, write_atomically
from rsa.words import shown

Format = Literal["every-eval-ever", "eval-results"]


def export(
    folder: Path,
    *,
    kind: str = "every-eval-ever",
    by: str | None = None,
    relation: str = "other",
    task: str | None = None,
    url: str | None = None,
    out: Path | None = None,
    trust: bool = False,
) -> Path:
    """Write the evaluation in a results folder in a format of others. Returns the file, which is in a tree of folders
    as those who collect the format want it.

    kind           `every-eval-ever` or `eval-results`.
    by, relation   of an Every Eval Ever record: see `evals.export.every_eval_ever.Source`. `by` must be given.
    task, url      of an entry for the Hub: see `evals.export.eval_results.yaml_of`.
    out            the root of the tree; by default `export` in the results folder.
    trust          what was changed in the folder since it was written is taken as it is, not refused; the warnings that
                   are exported say so.

    Raises ConfigError for what does not go together, ResultsError for an evaluation that is not finished, that the
    format cannot hold, or that cannot be written.
    """
    if kind not in get_args(Format):
        raise ConfigError(
            f"no format is called {shown(kind)}{did_you_mean(kind, get_args(Format)) or '.'} There are "
            f"{' and '.join(get_args(Format))}"
        )
    folder = path_named(folder, ResultsError)
    root = folder / "export" if out is None else path_named(out, ResultsError)
    if kind == "every-eval-ever":
        for name, value in {"task": task, "url": url}.items():
            if value is not None:
                raise ConfigError(f"`{name}` has no place in an Every Eval Ever record: leave it out")
        if by is None:
            raise ConfigError("an Every Eval Ever record says who measured: give `by`, a name")
        source = every_eval_ever.Source(by, relation)  # type: ignore[arg-type]  # it checks
        evaluation = Finished.read(folder, trust=trust)
        record = every_eval_ever.record_of(evaluation, source, written_at_s=time.time())
        return _write(root, every_eval_ever.place_of(evaluation), json.dumps(record, indent=2))
    if by is not None or relation != "other":
        raise ConfigError("`by` and `relation` have no place in an entry of the Hub: leave them out, or give `url`")
    evaluation = Finished.read(folder, trust=trust)
    text = eval_results.yaml_of(evaluation, task=task or eval_results.DEFAULT_TASK, url=url)
    return _write(root, eval_results.place_of(evaluation), text)


def _write(root: Path, place: Path, text: str) -> Path:
    path = root / place
    try:
        make_folder(path.parent)
        write_atomically(path, text.rstrip("\n").encode() + b"\n")
    except OSError as error:
        raise ResultsError(f"cannot write into {root}: {error.strerror}") from None
    return path
