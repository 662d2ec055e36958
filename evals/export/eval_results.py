"""An evaluation as an entry of a model's page on the Hugging Face Hub: `.eval_results/NAME.yaml` in its repository.

The Hub shows it on the page and on the data set's leaderboard, whose numbers are of whole data sets and in percent. An
entry has a number and no place for its uncertainty: the notes hold interval, settings and fingerprint.
"""

from __future__ import annotations

from pathlib import Path

from evals.errors import ResultsError
from evals.export.facts import PROGRAM, Finished, interval

FOLDER = ".eval_results"
DEFAULT_TASK = "default"
"""The task of a data set that has one alone, as its `eval.yaml` calls it."""


def yaml_of(evaluation: Finished, *, task: str = DEFAULT_TASK, url: str | None = None) -> str:
    """The file's text.

    task  which leaderboard of the data set it is for, as the data set's `eval.yaml` calls it.
    url   where the evaluation can be looked at.

    Raises ResultsError for an evaluation that a leaderboard cannot compare: of a part of a data set, or of problems
    that are no data set of the Hub.
    """
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    data, mean = evaluation.results.data, evaluation.results.mean
    _check_comparable(evaluation)
    assert mean.value is not None
    entry = EvalResultEntry(
        dataset_id=data.name,
        task_id=task,
        value=round(100 * mean.value, 2),
        dataset_revision=data.revision,
        date=evaluation.record.created_at,
        source_url=url,
        source_name=None if url is None else PROGRAM,
        notes=_notes(evaluation),
    )
    return str(yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False, allow_unicode=True))


def place_of(evaluation: Finished) -> Path:
    """Where the file belongs in the model's repository; methods have files of their own."""
    return Path(FOLDER, f"{evaluation.results.benchmark}-{evaluation.results.method}.yaml")


def _check_comparable(evaluation: Finished) -> None:
    data, mean = evaluation.results.data, evaluation.results.mean
    what = f"an evaluation of {evaluation.results.benchmark}"
    if data.kind != "hub" or " + " in data.name:
        raise ResultsError(
            f"{what} on {data.name} has no leaderboard: an entry is of one data set of the Hub. A record of "
            "Every Eval Ever can be had: --format every-eval-ever"
        )
    if data.rows is not None and data.selected < data.rows:
        raise ResultsError(
            f"{what} has {data.selected} of the {data.rows} problems of {data.name}: a leaderboard compares whole data "
            "sets. Evaluate the others, or put shards together with rsa merge"
        )
    if mean.problems < data.selected:
        raise ResultsError(
            f"{what} has no value for {data.selected - mean.problems} of its {data.selected} problems: its warnings "
            "say why; evaluate them with rsa eval --resume"
        )


def _notes(evaluation: Finished) -> str:
    results = evaluation.results
    facts = [
        f"Markovian RSA. {results.protocol} {interval(results.mean)}",
        f"model fingerprint {results.model.fingerprint or 'unknown'}",
        f"{PROGRAM} {evaluation.version}",
    ]
    return "; ".join(facts)
