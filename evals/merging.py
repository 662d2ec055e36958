"""Shards of an evaluation put together: the results folder that one run over all problems would have written."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

from engine.paths import path_named
from evals.data.choice import SHARD
from evals.data.shard import Shard, interleaved
from evals.errors import OtherEvalError, ResultsError
from evals.eval_record import EvalRecord
from evals.folder import RESULTS, RUNS, ResultsFolder, read_eval, read_results
from evals.results import EvalResults
from evals.runner import write_figures
from rsa.digests import TAKEN
from rsa.folders import make_folder, what_differs
from rsa.words import listed, plural, shown

MAX_NAMED = 5
"""Shards, or folders, that a message names."""
_OF_A_SHARD = (f"data.{SHARD}", "data.selected")
"""What may differ between shards of one evaluation."""


def merge(folders: Sequence[str | Path], out: str | Path, *, trust: bool = False) -> EvalResults:
    """Put the finished shards of one evaluation together, in a results folder as one run over all problems writes it.

    But for clocks, it holds the same to the byte. The shards stay as they are.

    folders  results folders, one of each shard, in any order.
    out      a folder that is new or empty; it is there whole or not at all.
    trust    what was changed in a shard since it was written is taken as it is, not refused; the warnings of the
             results say so.

    Raises ResultsError: a folder that is no shard, or unfinished; shards that are missing or there twice, or of unequal
    numbers; a folder in use, or one that cannot be written. OtherEvalError for shards of different evaluations.
    """
    target = path_named(out, ResultsError)
    _check_free(target)
    with ExitStack() as stack:
        shards = [
            stack.enter_context(ResultsFolder.of(folder, trust=trust)) for folder in _in_order(folders, trust=trust)
        ]
        building = target.with_name(f".{target.name}.merging")
        try:
            shutil.rmtree(building, ignore_errors=True)  # of a merge that was killed
            results = _build(shards, building)
            building.replace(target)
        except OSError as error:
            raise ResultsError(f"cannot write into {target}: {error.strerror or error}") from None
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return results


def _check_free(target: Path) -> None:
    try:
        make_folder(target.parent)
        taken = target.exists() and (not target.is_dir() or any(target.iterdir()))
    except OSError as error:
        raise ResultsError(f"cannot use results folder {target}: {error.strerror or error}") from None
    if taken:
        raise ResultsError(f"{target} is not empty: name a new folder for what is merged")


def _in_order(folders: Sequence[str | Path], *, trust: bool) -> list[Path]:
    """The folders of shards 1 to n. Raises as `merge` for what is not one finished shard of each."""
    if isinstance(folders, str | Path) or not isinstance(folders, Iterable):
        raise ResultsError(f"folders = {shown(folders)}: should be a list of results folders")
    paths = [path_named(folder, ResultsError) for folder in folders]
    if not paths:
        raise ResultsError("there is nothing to merge: name the results folders of all shards")
    records = [read_eval(path, trust=trust) for path in paths]
    _check_one_evaluation(paths, records)
    shards = [_shard_of(path, record) for path, record in zip(paths, records, strict=True)]
    _check_numbers(paths, shards)
    ordered = [path for _, path in sorted(zip([shard.index for shard in shards], paths, strict=True))]
    unfinished = [str(path) for path in ordered if not (path / RESULTS).is_file()]
    if unfinished:
        raise ResultsError(
            f"{plural(len(unfinished), 'shard')} not finished: {listed(unfinished, MAX_NAMED)}; go on with: "
            f"rsa eval --resume {unfinished[0]}"
        )
    return ordered


def _shard_of(path: Path, record: EvalRecord) -> Shard:
    if record.shard is None:
        raise ResultsError(f"{path} is no shard: it holds a whole evaluation")
    return record.shard


def _check_numbers(paths: Sequence[Path], shards: Sequence[Shard]) -> None:
    """Raises ResultsError unless each shard is there once."""
    of = shards[0].of
    found: dict[int, Path] = {}
    for path, shard in zip(paths, shards, strict=True):
        if shard.of != of:
            raise ResultsError(f"{paths[0]} is shard {shards[0]}, {path} is shard {shard}: all must be of one number")
        if shard.index in found:
            raise ResultsError(f"{found[shard.index]} and {path} are both shard {shard}: leave one of them out")
        found[shard.index] = path
    missing = [str(Shard(index, of)) for index in range(1, of + 1) if index not in found]
    if missing:
        raise ResultsError(f"{plural(len(missing), 'shard')} missing: {listed(missing, MAX_NAMED)}")


def _check_one_evaluation(paths: Sequence[Path], records: Sequence[EvalRecord]) -> None:
    def identity(record: EvalRecord) -> dict[str, object]:
        return {key: value for key, value in record.identity().items() if key not in _OF_A_SHARD}

    for path, record in zip(paths[1:], records[1:], strict=True):
        keys, details = what_differs(identity(records[0]), identity(record))
        if keys:
            raise OtherEvalError(f"{paths[0]} and {path} are of different evaluations. Different: {details}", keys)


def _build(shards: Sequence[ResultsFolder], folder: Path) -> EvalResults:
    """Write the merged evaluation into a folder of its own. Raises OSError, ResultsError."""
    problems = _in_order_of_the_data([_ids_of(shard) for shard in shards], shards)
    record = _merged_record([shard.record for shard in shards], len(problems))
    with ResultsFolder.open(folder, record, resume=False, trust=shards[0].trust.given) as merged:
        for shard in shards:
            shutil.copytree(shard.folder / RUNS, folder / RUNS, dirs_exist_ok=True)
        merged.spent_s = sum(shard.spent_s for shard in shards)
        merged.trust.notes += [note for shard in shards for note in shard.trust.notes]
        return write_figures(merged, [(problem, epoch) for problem in problems for epoch in range(record.epochs)])


def _ids_of(shard: ResultsFolder) -> list[str]:
    """The ids of a shard's problems, all of which are scored. What it took on trust, now or before, is noted.

    Raises ResultsError here, where files have their names, for scores that are missing or were changed.
    """
    results = read_results(shard.folder, trust=shard.trust.given)
    ids = [problem.id for problem in results.problems]
    for _ in shard.scores((problem, epoch) for problem in ids for epoch in range(shard.record.epochs)):
        pass
    shard.trust.notes += [warning for warning in results.warnings if warning.startswith(TAKEN)]
    return ids


def _in_order_of_the_data(parts: Sequence[Sequence[str]], shards: Sequence[ResultsFolder]) -> list[str]:
    """The ids of all problems; `parts`: those of each shard."""
    owners: dict[str, Path] = {}
    for shard, part in zip(shards, parts, strict=True):
        for problem in part:
            if problem in owners:
                raise ResultsError(
                    f"{owners[problem]} and {shard.folder} both have the problem {problem!r}: their data differ"
                )
            owners[problem] = shard.folder
    try:
        return interleaved(parts)
    except ValueError as error:
        raise ResultsError(f"these are not the shards of one list of problems: {error}") from None


def _merged_record(records: Sequence[EvalRecord], problems: int) -> EvalRecord:
    """What one evaluation of all problems would have recorded, where the first shard ran."""
    first = records[0]
    options = {key: value for key, value in first.data.options.items() if key != SHARD}
    warnings = [warning for record in records for warning in record.data_warnings]
    for record in records[1:]:
        keys, details = what_differs(first.versions, record.versions)
        if keys:
            warnings.append(f"shard {record.shard} ran with other versions than shard {first.shard}: {details}")
    return first.model_copy(
        update={
            "created_at": min(record.created_at for record in records),
            "data": first.data.model_copy(update={"options": options, "selected": problems}),
            "data_warnings": tuple(dict.fromkeys(warnings)),
        }
    )
