"""An evaluation as a record of Every Eval Ever 0.3.0 (arXiv 2606.14516), which collects results of all harnesses.

A record is a JSON file in a tree `data/BENCHMARK/DEVELOPER/MODEL/UUID.json`. What has no field of its own there, such
as N, T and tau, the model's fingerprint or the revision of the data, stands under `additional_details`.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from evals.export.facts import PROGRAM, Finished, texts
from evals.stats import CONFIDENCE, Estimate
from rsa.errors import ConfigError
from rsa.words import shown

SCHEMA = "0.3.0"
Relation = Literal["first_party", "third_party", "collaborative", "other"]
"""What who measured is to who made the model."""
_WORDS = {
    "candidates": "mean score of the round's candidates",
    "vote": "score of the answer that most candidates of the round agree on",
    "answer": "score of the one answer that a run gave",
    "best_of": "expected best score of k candidates",
}


@dataclass(frozen=True, slots=True)
class Source:
    """Who answers for a record: the name of an organisation or a person, and what it is to the model's makers."""

    name: str
    relation: Relation = "other"

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise ConfigError(f"`by` = {shown(self.name)}: should be the name of who measured")
        if not self.name.strip():
            raise ConfigError("`by` is empty: give the name of who measured")
        if self.relation not in get_args(Relation):
            raise ConfigError(f"`relation` = {shown(self.relation)}: should be one of {', '.join(get_args(Relation))}")


def record_of(evaluation: Finished, source: Source, *, written_at_s: float) -> dict[str, Any]:
    """The record, as its JSON. `written_at_s`: when it is made, in seconds since 1970."""
    record, results = evaluation.record, evaluation.results
    return {
        "schema_version": SCHEMA,
        "evaluation_id": f"{results.benchmark}/{_model_id(evaluation)}/{evaluation.began_s:.0f}-{_digest(evaluation)}",
        "evaluation_timestamp": record.created_at,
        "retrieved_timestamp": f"{written_at_s:.0f}",
        "source_metadata": {
            "source_name": PROGRAM,
            "source_type": "evaluation_run",
            "source_organization_name": source.name,
            "evaluator_relationship": source.relation,
            "additional_details": texts({"protocol": results.protocol, "warnings": results.warnings or None}),
        },
        "eval_library": {
            "name": PROGRAM,
            "version": evaluation.version,
            "additional_details": texts({"versions": results.versions}),
        },
        "model_info": _model(evaluation),
        "evaluation_results": [_result(evaluation, figure) for figure in _figures(evaluation)],
    }


def place_of(evaluation: Finished) -> Path:
    """Where the record belongs in a tree of them; however often it is written, an evaluation has one place."""
    developer, _, name = _model_id(evaluation).rpartition("/")
    folders = (_safe(part) for part in (evaluation.results.benchmark, developer or "unknown", name))
    digest = hashlib.sha256(f"{_digest(evaluation)} {evaluation.record.created_at}".encode()).digest()
    return Path("data", *folders, f"{uuid.UUID(bytes=digest[:16], version=4)}.json")


# ---- the model


def _model_id(evaluation: Finished) -> str:
    """As its hub calls it; without one, its own name."""
    return evaluation.hub_id or evaluation.results.model.name


def _model(evaluation: Finished) -> dict[str, Any]:
    model = evaluation.results.model
    served = str(model.details.get("source") or "").startswith("openai:")
    ours = model.details.get("source") == "nano"
    open_weights = ours or (evaluation.hub_id is not None and not served)
    found: dict[str, Any] = {
        "name": model.name,
        "id": _model_id(evaluation),
        "additional_details": {
            "deployment_type": "unknown" if served else "self_deployed",
            "model_availability": "open_weights" if open_weights else "unknown",
            **texts(
                {
                    "fingerprint": model.fingerprint or None,
                    "architecture": model.details.get("architecture"),
                    "device": model.details.get("device"),
                    "context_tokens": model.context_tokens,
                    "notes": list(model.notes) or None,
                }
            ),
        },
    }
    if evaluation.hub_id is not None:
        found["developer"] = evaluation.hub_id.partition("/")[0]
    if not served and "mlx" in evaluation.results.versions:
        found["inference_engine"] = {"name": "mlx", "version": evaluation.results.versions["mlx"]}
    return found


# ---- the figures


@dataclass(frozen=True, slots=True)
class _Figure:
    """One number: what it is of, its parameters, and what it is worth. `name` tells it apart within the record."""

    kind: Literal["candidates", "vote", "answer", "best_of"]
    estimate: Estimate
    parameters: dict[str, int]

    @property
    def name(self) -> str:
        return "-".join([self.kind, *(f"{key}{value}" for key, value in self.parameters.items())])


def _figures(evaluation: Finished) -> Iterator[_Figure]:
    """The headline first; figures that no problem has a value for are left out."""
    results = evaluation.results
    rounds = results.rounds
    last = rounds[-1].round
    found = [] if results.headline == "answer" else [_Figure("answer", results.answer, {})]
    for stats in rounds:
        found += [
            _Figure("candidates", stats.mean, {"round": stats.round, "n": results.config.n}),
            _Figure("vote", stats.vote, {"round": stats.round, "n": results.config.n}),
        ]
    found += [
        _Figure("best_of", best, {"round": last, "k": k}) for k, best in sorted(rounds[-1].best_of.items()) if k > 1
    ]
    # A run may end before its last round: the headline is over the last round of each, wherever that was.
    yield _Figure(results.headline, results.mean, {})
    yield from (figure for figure in found if figure.estimate.value is not None)


def _result(evaluation: Finished, figure: _Figure) -> dict[str, Any]:
    results = evaluation.results
    return {
        "evaluation_result_id": f"{_digest(evaluation)}/{figure.name}",
        "evaluation_name": results.benchmark,
        "source_data": _data(evaluation),
        "evaluation_timestamp": evaluation.record.created_at,
        "metric_config": {
            "evaluation_description": _description(figure),
            "metric_id": f"{PROGRAM}.{results.metric}.{figure.kind}",
            "metric_name": _WORDS[figure.kind],
            "metric_parameters": figure.parameters,
            "metric_unit": "proportion",
            "lower_is_better": False,
            "score_type": "continuous",
            "min_score": 0.0,
            "max_score": 1.0,
        },
        "score_details": {"score": figure.estimate.value, "uncertainty": _uncertainty(figure.estimate)},
        "generation_config": _generation(evaluation),
    }


def _description(figure: _Figure) -> str:
    where = "" if "round" in figure.parameters else ", of the last round of each run"
    return f"{_WORDS[figure.kind]}{where if figure.kind != 'answer' else ''}; mean over problems"


def _uncertainty(estimate: Estimate) -> dict[str, Any]:
    found: dict[str, Any] = {"num_samples": estimate.problems}
    if estimate.se is not None:
        clustered = "" if estimate.clusters == estimate.problems else f", {estimate.clusters} clusters of them"
        found["standard_error"] = {"value": estimate.se, "method": f"analytic, over problems{clustered}"}
        found["confidence_interval"] = {
            "lower": estimate.low,
            "upper": estimate.high,
            "confidence_level": CONFIDENCE,
            "method": f"Student's t, {estimate.clusters - 1} degrees of freedom, cut off at 0 and 1",
        }
    return found


def _data(evaluation: Finished) -> dict[str, Any]:
    data = evaluation.results.data
    of_the_hub = data.kind == "hub"
    found: dict[str, Any] = {
        "dataset_name": data.name,
        "source_type": "hf_dataset" if of_the_hub else "other",
        "additional_details": texts(
            {
                "revision": data.revision,
                "config": data.config,
                "kind": data.kind,
                "options": data.options,
                "columns": data.columns,
                "problems": data.selected,
                "rows": data.rows,
            }
        ),
    }
    if of_the_hub:
        ids = [problem.id for problem in evaluation.results.problems]
        found |= {"hf_repo": data.name, "samples_number": data.selected, "sample_ids": ids}
        found |= {} if data.split is None else {"hf_split": data.split}
    return found


def _generation(evaluation: Finished) -> dict[str, Any]:
    results = evaluation.results
    config = results.config
    # A prompts file of one's own is told apart by its digest; where it lay is nobody's business.
    settings = {**config.values(), "task": Path(config.task).name, "method": results.method, "epochs": results.epochs}
    return {
        "generation_args": {
            "temperature": config.temperature,
            "top_p": config.top_p,
            "top_k": config.top_k,
            "max_tokens": config.beta + config.answer_budget,
            "reasoning": results.model.thinks,
        },
        "additional_details": texts(
            {
                **settings,
                "prompt_sha256": results.prompt_sha256,
                "prompt_tokens": results.usage.prompt_tokens,
                "completion_tokens": results.usage.completion_tokens,
            }
        ),
    }


# ---- names


def _digest(evaluation: Finished) -> str:
    """Of all that makes the evaluation what it is, data and model included."""
    identity = json.dumps(evaluation.record.identity(), sort_keys=True, default=str)
    return hashlib.sha256(identity.encode()).hexdigest()[:12]


def _safe(name: str) -> str:
    """As a folder's name that leads nowhere else."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "unknown"
