"""Whether rows of a model of mlx-lm may share a batch: tried once, when it is loaded.

mlx-lm's own programs batch some of its models; nobody promises that all can be. Here two prompts of unequal length are
decoded as the engine does it, and each alone:

    pass          0    1    2
    first row     a    a         leaves
    second row    b    b    b    begins behind padding, stays alone

Prompts of a model with plain KV caches share a pass, padded behind; that is tried likewise.

The numbers must be the same, up to the rounding of the type that the model computes in. It takes nine short passes: 4
seconds of processor time, half of that on two cores, for a model of 0.5 billion parameters in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten

from engine.errors import ModelError
from engine.families.mlx_lm.decode import Decoder, fits
from engine.families.mlx_lm.model import AdaptedModel
from engine.families.mlx_lm.pages import KVShape
from engine.mlx.comparing import relative_rms
from engine.mlx.kernels.launch import wanted

_PROMPT_TOKENS = (5, 2)
"""Tokens of the two prompts that are computed before the rows meet."""
_TOGETHER = 2
"""Passes that both rows share."""
_FEWEST_WORDS = 32
"""Words that any vocabulary has."""
_TOLERANCE = {mx.float32: 1e-3}
_TOLERANCE_16_BITS = 0.08
"""How far logits may be off, root mean square over that of the logits: of models of mlx-lm that batch rightly at most
1e-5 in float32. Fewer bits round more: Qwen2.5-Coder-0.5B in bfloat16, right on a CPU, was off by 0.053 on an H200,
where a row in a batch takes another kernel than alone. One that reads wrong positions is off by a tenth and more."""


@dataclass(frozen=True)
class _Alone:
    """A row as it is without company: its prompt, the caches of that, the tokens that follow and their logits [n, V] in
    float32."""

    prompt: list[int]
    caches: Sequence[Any]
    tokens: list[int]
    logits: mx.array

    @classmethod
    def run(cls, model: AdaptedModel, row: int) -> _Alone:
        words = min(model.vocab_size or _FEWEST_WORDS, _FEWEST_WORDS)
        prompt = _PROMPT_TOKENS[row]
        tokens = [(5 + 11 * row + 7 * i) % words for i in range(prompt + _TOGETHER + row)]
        caches = model.make_cache()
        mx.eval(model(mx.array([tokens[:prompt]]), caches)[0, -1])
        logits = model(mx.array([tokens[prompt:]]), deepcopy(caches))[0].astype(mx.float32)
        mx.eval(logits)
        return cls(tokens[:prompt], caches, tokens[prompt:], logits)


def adapted(module: nn.Module, model_type: str) -> AdaptedModel:
    """A model of mlx-lm for the engine; one whose rows are not right in a batch runs one row at a time, and says so.

    Raises ModelError if it cannot even run one.
    """
    model = AdaptedModel(module)
    try:
        rows = [_Alone.run(model, 0), _Alone.run(model, 1)]
    except Exception as error:  # a model's code raises what it happens to run into
        raise ModelError(f"mlx-lm's {model_type} fails on a short prompt ({_in_a_line(error)})") from error
    why = _why_not(model, rows)
    if why is None:
        decoder, notes = _decoder(model, rows, model_type)
        return AdaptedModel(module, takes_padding=_takes_padding(model, rows), decoder=decoder, notes=notes)
    note = f"{model_type} runs one candidate at a time, which takes many times as long: in mlx-lm {why}"
    return AdaptedModel(module, max_rows=1, notes=(note,))


def _why_not(model: AdaptedModel, rows: Sequence[_Alone]) -> str | None:
    """What is wrong with rows that share a batch; None: nothing."""
    lacking = sorted({type(cache).__name__ for cache in rows[0].caches if not hasattr(cache, "merge")})
    if lacking:
        return f"its caches ({', '.join(lacking)}) cannot be merged"
    try:
        off = _difference(model, *rows)
    except Exception as error:  # as above
        return f"rows of unequal length fail in a batch ({_in_a_line(error)})"
    if off <= _tolerance(model):
        return None
    return f"rows of unequal length get other logits in a batch than alone (off by {off:.1%})"


def _decoder(model: AdaptedModel, rows: Sequence[_Alone], model_type: str) -> tuple[Decoder | None, tuple[str, ...]]:
    """What decodes rows of a model in pages, where kernels are wanted and give the same logits; else why they do not,
    if there is anything to say."""
    shape = KVShape.of(rows[0].caches)
    if shape is None or not wanted() or not fits(model.module, shape):
        return None, ()
    decoder = Decoder(model.module, shape)
    try:
        off = _difference(AdaptedModel(model.module, decoder=decoder), *rows)
        if off <= _tolerance(model):
            return decoder, ()
        why = f"their logits are off by {off:.1%}"
    except Exception as error:  # a compiler, a driver, a model's code: whatever they say
        why = _in_a_line(error)[:200]
    return None, (f"{model_type} decodes slower than it could: kernels of our own do not run it ({why})",)


def _difference(model: AdaptedModel, first: _Alone, second: _Alone) -> float:
    """How far the logits of a batch are from those of each row alone, relative to these."""
    caches = model.batch_cache(first.caches, [0])
    for cache, more in zip(caches, model.batch_cache(second.caches, [0]), strict=True):
        cache.extend(more)
    found: list[mx.array] = []  # [V] each
    for i in range(_TOGETHER):
        logits = model(mx.array([[first.tokens[i]], [second.tokens[i]]]), caches)  # [2, 1, V]
        mx.async_eval(logits)  # as the engine does: a step goes off before the next is made
        found += [logits[0, 0], logits[1, 0]]
    for cache in caches:
        cache.filter([1])
    found.append(model(mx.array([second.tokens[-1:]]), caches)[0, 0])
    expected = mx.stack([row.logits[i] for i in range(_TOGETHER) for row in (first, second)] + [second.logits[-1]])
    return relative_rms(mx.stack(found), expected)


def _takes_padding(model: AdaptedModel, rows: Sequence[_Alone]) -> bool:
    """True if prompts that share a pass are followed by the same logits as each alone."""
    if not model.has_plain_caches:
        return False
    lengths = list(_PROMPT_TOKENS)
    padding = [max(lengths) - length for length in lengths]
    try:
        caches = model.make_cache(len(rows))
        for cache in caches:
            cache.prepare(lengths=lengths, right_padding=padding)
        model(mx.array([row.prompt + [0] * pad for row, pad in zip(rows, padding, strict=True)]), caches)
        for cache in caches:
            cache.finalize()
        caches = model.batch_cache(caches, range(len(rows)))
        found = model(mx.array([row.tokens[:1] for row in rows]), caches)[:, 0]
        off = relative_rms(found, mx.stack([row.logits[0] for row in rows]))
    except Exception:  # as above; prompts then have a pass each, which is right for every model
        return False
    return off <= _tolerance(model)


def _in_a_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _tolerance(model: AdaptedModel) -> float:
    kinds = {x.dtype for _, x in tree_flatten(model.module.parameters()) if mx.issubdtype(x.dtype, mx.floating)}
    return max(_TOLERANCE.get(kind, _TOLERANCE_16_BITS) for kind in kinds)
