"""Settings: `RSAConfig`, profiles laid over each other, methods, and the TOML files of configs/."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any
from unittest import mock

from fuzzing.core import Case, DifferentError, Door
from fuzzing.edits import apply, edits, wild
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from rsa import RSAConfig, load_config
from rsa.settings import resources
from rsa.settings.methods import method_settings

FILES = {
    "profiles": ("light.toml", "paper-16k.toml"),
    "prompts": ("math.toml", "vqa.toml"),
    "benchmarks": ("aime25.toml", "mmmu.toml", "chain.toml"),
    "models": ("nano.toml",),
}
NAMES = (*RSAConfig.model_fields, "asked", "N", "", "limit", "n ")
SIZES = ("4k", "1.5k", "1.3k", "40K", "2M", " 8k ", "1_000", "1__0", "-1", "4 k", "k", "9" * 19, "٣", "0x10", "1e3")
LIMITS = ("total_tokens", "deadline_s", "prompt_tokens", "deadline", "")


class Settings(Door):
    name = "settings"
    share = 68

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self._configs = scratch / "configs"
        shutil.copytree(resources.configs_folder(), self._configs)

    @property
    def cases(self) -> SearchStrategy[Case]:
        value = st.one_of(st.sampled_from(SIZES), st.integers(-2, 40), st.floats(0, 2), wild())
        limits = st.dictionaries(st.sampled_from(LIMITS), value, max_size=2)
        given = st.dictionaries(st.sampled_from(NAMES), st.one_of(value, limits), min_size=1, max_size=5)
        names = st.sampled_from(
            (None, "light", "paper-16k", "lite", "", "x.toml", "single", "full-rsa", "\0", "a" * 300)
        )
        settings = st.fixed_dictionaries(
            {"do": st.sampled_from(("config", "load", "method")), "name": names, "settings": given, "more": given}
        )
        files = [
            st.fixed_dictionaries({"do": st.just("file"), "kind": st.just(kind), "edits": edits([name])})
            for kind, names in FILES.items()
            for name in names
        ]
        return st.one_of(settings, *files)

    def enter(self, case: Case) -> str:
        match case["do"]:
            case "config":
                _same_from_json(RSAConfig(**_plain(case["settings"])))
            case "load":
                _same_from_json(load_config(case["name"], _plain(case["settings"]), defaults=_plain(case["more"])))
            case "method":
                method_settings(str(case["name"]), _plain(case["settings"]), measured=bool(case["more"]))
            case _:
                self._read_file(case)
        return "right"

    def _read_file(self, case: Case) -> None:
        kind, folder = case["kind"], self.scratch / "here" / case["kind"]
        shutil.rmtree(self.scratch / "here", ignore_errors=True)
        shutil.copytree(self._configs / kind, folder)
        apply(folder, case["edits"])
        path = folder / case["edits"][0]["file"]
        if kind == "profiles":
            _same_from_json(load_config(str(path)))
        elif kind == "prompts":
            from rsa import Problem
            from rsa.prompts import load_prompts

            prompts, problem = load_prompts(str(path)), Problem("What is 2 + 2?")
            prompts.initial(problem)
            prompts.aggregate(problem, ["one", "two"])
        elif kind == "benchmarks":
            from evals.data.benchmarks import load_benchmark
            from evals.scorers import make

            benchmark = load_benchmark(path)
            make(str(benchmark.metric), settings=benchmark.settings)
            if benchmark.generate is not None:
                from evals.data.open import open_data

                next(iter(open_data(benchmark, limit=2)))
        else:
            from rsa.compose import model_spec

            with mock.patch.object(resources, "configs_folder", return_value=folder.parent):
                load_config(None, defaults=model_spec(path.stem).rsa)


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as a program gives them: what only a file can spell becomes something else that nobody expects."""
    return {key: 10**5000 if value == {"raw": "5000 digits"} else value for key, value in settings.items()}


def _same_from_json(config: RSAConfig) -> None:
    """What was accepted can be kept, and is the same when it is read again."""
    again = RSAConfig.model_validate_json(config.model_dump_json())
    if again != config or again.model_fields_set != config.model_fields_set:
        raise DifferentError(f"settings from JSON: {config.differences(again)}")
