"""What is known of a model that an engine runs, in words for people."""

from __future__ import annotations

from engine.api import ModelInfo

_YES = {True: "yes", False: "no"}


def model_facts(model: ModelInfo) -> dict[str, str]:
    """Facts by name, those that are not known left out."""
    facts = {
        "name": model.name,
        "context": f"{model.context_tokens:,} tokens" if model.context_tokens else "not known",
        "thinks": _YES[model.thinks],
        "counts tokens": "exactly" if model.exact_tokens else "by estimate: beta, tau and all counts are approximate",
        "answers at beta": _YES[model.conclude],
        "fingerprint": model.fingerprint,
    }
    details = {name.replace("_", " "): value for name, value in model.details.items() if value is not None}
    said = {name: _YES[value] if isinstance(value, bool) else str(value) for name, value in details.items()}
    return {name: value for name, value in {**facts, **said}.items() if value}
