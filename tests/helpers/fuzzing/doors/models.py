"""Model folders, harmed: they are refused, or the model runs; weights that are no numbers never make a token."""

from __future__ import annotations

import json
import math
import shutil
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
from fuzzing.core import ROOT, Case, DifferentError, Door
from fuzzing.edits import apply, edits
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from tiny_models import write_llama

from engine.api import Completion, Failure, GenerationRequest, Message, SamplingParams
from engine.loader import NANO, inspect_model
from rsa import open_engine

WEIGHTS = "model.safetensors"
NUMBERS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf, "zero": 0.0, "large": 3e38}
NOT_FINITE = ("nan", "inf", "-inf")


class Models(Door):
    name = "models"
    limit_s = 60.0

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        llama = write_llama(scratch / "llama")
        (llama / "generation_config.json").write_text('{"eos_token_id": [3], "do_sample": true, "temperature": 0.7}')
        golden = ROOT / "tests" / "golden"
        self._folders = {"llama": llama, "zaya": golden / "tiny_hf", "jang": golden / "tiny_jang", "nano": NANO}

    @property
    def cases(self) -> SearchStrategy[Case]:
        def of(name: str) -> SearchStrategy[Case]:
            files = sorted(path.name for path in self._folders[name].iterdir())
            edited = edits([*files, *2 * ["config.json", WEIGHTS]], most=2)
            harm: list[SearchStrategy[Case]] = [st.fixed_dictionaries({"edits": edited})]
            if name != "nano":
                fill = {"tensor": st.integers(0, 200), "number": st.sampled_from(list(NUMBERS)), "whole": st.booleans()}
                harm.append(st.fixed_dictionaries({"fill": st.fixed_dictionaries(fill)}))
            then = st.sampled_from(("run", "run", "inspect"))
            return st.fixed_dictionaries({"model": st.just(name), "then": then, "harm": st.one_of(*harm)})

        return st.sampled_from((*3 * ("llama",), "zaya", "zaya", "jang", "nano")).flatmap(of)

    def enter(self, case: Case) -> str:
        here, whole = self.scratch / "here", self._folders[case["model"]]
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir()
        for path in whole.iterdir():
            (here / path.name).symlink_to(path)
        fill = case["harm"].get("fill")
        if fill is None:
            apply(here, case["harm"]["edits"])
        else:
            data = _filled((whole / WEIGHTS).read_bytes(), fill)
            (here / WEIGHTS).unlink()
            (here / WEIGHTS).write_bytes(data)
        if case["then"] == "inspect":
            inspect_model(here)
            return "right"
        written = anyio.run(_written, here)
        damaged = fill is not None and fill["number"] in NOT_FINITE and fill["whole"]
        if damaged and written and case["model"] == "llama":  # each of its tensors is in every token
            raise DifferentError(f"tokens of weights that are no numbers: {fill}")
        return "right"


async def _written(folder: Path) -> Sequence[int]:
    """What a model writes to a short prompt. Raises its failure."""
    engine = open_engine(str(folder))
    try:
        sampling = SamplingParams(reasoning_budget=4, answer_budget=4, seed=1)
        request = GenerationRequest(id="1", messages=(Message(role="user", text="2 + 2?"),), sampling=sampling)
        async with engine.generate([request]) as stream:
            async for event in stream:
                if isinstance(event, Failure):
                    raise event.error
                if isinstance(event, Completion):
                    return event.token_ids
    finally:
        await engine.aclose()
    return ()


def _filled(data: bytes, fill: dict[str, Any]) -> bytes:
    """Weights with one number of a tensor, or all of them, replaced. Only tensors of floats have such numbers."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    width = {"F32": 4, "BF16": 2, "F16": 2}
    tensors = [tensor for name, tensor in sorted(header.items()) if name != "__metadata__" and tensor["dtype"] in width]
    tensor = tensors[fill["tensor"] % len(tensors)]
    number = NUMBERS[fill["number"]]
    word = {
        "F32": struct.pack("<f", number),
        "BF16": struct.pack("<f", number)[2:],
        "F16": struct.pack("<e", number if abs(number) < 6e4 or not math.isfinite(number) else 6e4),
    }[tensor["dtype"]]
    start, end = (8 + size + int(offset) for offset in tensor["data_offsets"])
    if not fill["whole"]:
        end = start + len(word)
    return data[:start] + word * ((end - start) // len(word)) + data[end:]
