"""The kernels of experts against what they are defined by, in the emulator."""

from __future__ import annotations

from collections.abc import Callable

import emulator
import matrix_instructions
import mlx.core as mx
import numpy as np
import pytest

from engine.mlx.kernels import experts
from engine.mlx.kernels.launch import Kernel

HIDDEN, INNER, EXPERTS = 256, 512, 3


def drawn(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> mx.array:
    return mx.array((scale * rng.standard_normal(shape)).astype(np.float32)).astype(mx.bfloat16)


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(
    ("way", "classes"),
    [
        (experts.run, [1]),
        (experts.run, [3, 3]),
        (experts.run, [i % 4 for i in range(37)]),
        (experts.run, [2] * 40),
        (experts.run_many, [0] * 129 + [2, 3, 3]),
        (experts.run_many, [3] * 3),
        (experts.run_many, [(7 * i * i) % 4 for i in range(300)]),
    ],
)
def test_tokens_get_the_output_of_their_expert(
    way: Callable[..., mx.array], classes: list[int], backwards: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Kernel, "__call__", emulator.call("cuda", backwards=backwards))
    matrix_instructions.define(monkeypatch)
    rng, n = np.random.default_rng(len(classes)), len(classes)
    x = drawn(rng, n, HIDDEN)
    gate_up = drawn(rng, EXPERTS, 2 * INNER, HIDDEN, scale=HIDDEN**-0.5)
    down = drawn(rng, EXPERTS, HIDDEN, INNER, scale=INNER**-0.5)
    share = mx.array(rng.random(n).astype(np.float32))
    y = way(x, x.astype(mx.float32), mx.array(classes, dtype=mx.int32), share, gate_up, down)
    wide, gates_ups, downs = (np.array(a.astype(mx.float32)) for a in (x, gate_up, down))
    for token, chosen in enumerate(classes):
        expected = wide[token]
        if chosen < EXPERTS:
            gate, up = np.split(gates_ups[chosen] @ wide[token], 2)
            expected = downs[chosen] @ (gate / (1 + np.exp(-gate)) * up)
        np.testing.assert_allclose(np.array(y[token]), expected * float(share[token]), atol=0.02, rtol=0.02)
