"""Decoding by kernels against the plain path: random weights, rows of any length that come and go."""

from __future__ import annotations

from typing import Any

import emulator
import matrix_instructions
import mlx.core as mx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlx.utils import tree_map_with_path
from rows_by_kernels import VOCAB, Rows, tokens

from engine.families.zaya import CCACache, Model, decode
from engine.families.zaya.config import ModelArgs
from engine.families.zaya.pages import ZayaRows
from engine.families.zaya.tensors import FLOAT32
from engine.loader import kernels_here
from engine.mlx.kernels import experts
from engine.mlx.kernels.attention import PAGE
from engine.mlx.kernels.launch import Kernel

ARGS = ModelArgs(
    model_type="zaya", vocab_size=VOCAB, hidden_size=256, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=64,
    num_experts=3, expert_size=256, router_size=32, rope_theta=1e4, rope_dims=32,
)  # fmt: skip


def random_model(args: ModelArgs) -> Model:
    rng = np.random.default_rng(0)

    def draw(name: str, x: mx.array) -> mx.array:
        scale = x.shape[-1] ** -0.5 if x.ndim > 1 and "conv" not in name else 0.1
        centre = 1.0 if name.endswith(("scale", "norm.weight", "temp")) else 0.0
        drawn = mx.array((centre + scale * rng.standard_normal(x.shape)).astype(np.float32))
        return drawn if FLOAT32.search(name) else drawn.astype(mx.bfloat16)

    model = Model(args)
    model.update(tree_map_with_path(draw, model.parameters()))
    mx.eval(model.parameters())
    return model


@pytest.fixture(scope="module")
def plain() -> Model:
    return random_model(ARGS)


@pytest.fixture(params=emulator.PLACES)
def fused(plain: Model, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Model:
    emulator.use(request.param, monkeypatch)
    if request.param != "gpu":
        monkeypatch.setattr("engine.mlx.pages.mx.compile", lambda step: step)
        matrix_instructions.define(monkeypatch)
    if request.param == "metal":  # has no such instructions
        monkeypatch.setattr(experts, "fits", lambda *_: False)
    model = Model(ARGS)
    model.update(plain.parameters())
    model.use_kernels()
    return model


@pytest.fixture
def in_eight_bits(plain: Model, fused: Model) -> tuple[Model, Model]:
    """By kernels and not, with caches that keep keys and values in 8 bits."""
    model = Model(ARGS)
    model.update(plain.parameters())
    model.kv_bits = fused.kv_bits = 8
    return fused, model


def test_rows_of_unequal_length_decode_as_alone(plain: Model, fused: Model) -> None:
    """Prompts of a token less than a page, a page and a token more: the next token begins a page, or another one."""
    rows = Rows(fused, plain)
    for seed, count in enumerate((3, PAGE - 1, 17, PAGE, PAGE + 1)):
        rows.join(tokens(count, seed))
    rows.step(1)
    rows.step(40)


def test_rows_in_eight_bits_decode_as_alone(in_eight_bits: tuple[Model, Model]) -> None:
    rows = Rows(*in_eight_bits)
    for seed, count in enumerate((3, PAGE, PAGE + 1)):
        rows.join(tokens(count, seed), copies=1 + seed % 2)
    rows.step(1)
    rows.keep([1, 3, 0])
    rows.join(tokens(5, 7))
    rows.step(40)
    whole = ZayaRows(ARGS, mx.bfloat16)
    pools = [rows.together._empty_pool(1).nbytes, whole._empty_pool(1).nbytes]
    assert pools[0] * 2 * ARGS.head_dim == pools[1] * (ARGS.head_dim + 2)


def test_rows_of_one_prompt_share_its_pages_and_write_their_own(plain: Model, fused: Model) -> None:
    rows = Rows(fused, plain)
    rows.join(tokens(PAGE + 5), copies=3)
    rows.step(1)
    rows.step(2)
    pages = [set(pages) for pages in rows.together._rows]
    assert len(pages[0] & pages[1] & pages[2]) == 1
    assert len(set.union(*pages)) == 4


def test_prompts_that_shared_a_pass_go_on_by_themselves(plain: Model, fused: Model) -> None:
    rows = Rows(fused, plain)
    rows.join_padded([tokens(9), tokens(4, 1), tokens(7, 2)], places=[1, 2, 0, 2])
    rows.step(3)


def test_pages_of_rows_that_leave_are_used_again(plain: Model, fused: Model) -> None:
    rows = Rows(fused, plain)
    for seed in range(4):
        rows.join(tokens(20, seed))
    rows.step(0)
    held = rows.together.nbytes
    for seed in range(4, 8):
        rows.keep([0, 1, 3])
        rows.join(tokens(30, seed))
        rows.step(seed)
    assert rows.together.nbytes == held


@pytest.mark.thorough
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_rows_that_come_and_go_decode_as_alone(plain: Model, fused: Model, data: st.DataObject) -> None:
    rows = Rows(fused, plain)
    rows.come_and_go(data)


def test_kernels_that_are_off_are_not_used(fused: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line for people; and rows decode as before."""
    monkeypatch.setattr(decode, "wanted", lambda: True)
    monkeypatch.setattr(decode, "_CHECKED_TOKENS", 6)
    monkeypatch.setattr(decode, "_try_experts", lambda _: None)  # the emulator takes long to compile them
    decode.adopt(fused)
    assert fused.notes == ()
    assert isinstance(fused.batch_cache(fused.make_cache(), [0])[0], ZayaRows)
    right = Kernel.__call__

    def wrong(kernel: Kernel, *inputs: mx.array, **how: Any) -> list[mx.array]:
        return [3 * x if x.dtype == mx.float32 else x for x in right(kernel, *inputs, **how)]

    monkeypatch.setattr(Kernel, "__call__", wrong)
    decode.adopt(fused)
    (note,) = fused.notes
    assert "kernels of our own do not run here (their logits are off by" in note
    assert isinstance(fused.batch_cache(fused.make_cache(), [0])[0], CCACache)


def test_a_compiler_that_refuses_is_named_in_a_line(plain: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(ARGS)
    model.update(plain.parameters())
    monkeypatch.setattr(decode, "wanted", lambda: True)

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("Failed to compile kernel: nvrtc: error\nline 2")

    monkeypatch.setattr(Kernel, "__call__", refuse)
    decode.adopt(model)
    assert model.notes == (
        "decoding is slower than it could be: kernels of our own do not run here "
        "(Failed to compile kernel: nvrtc: error)",
    )


def test_a_kernel_that_only_more_rows_need_is_tried_before(plain: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would end every row in the middle of a run."""
    model = Model(ARGS)
    model.update(plain.parameters())
    monkeypatch.setattr(decode, "wanted", lambda: True)
    monkeypatch.setattr(decode, "fused", lambda *_: True)
    monkeypatch.setattr(decode, "_CHECKED_TOKENS", 6)

    def run(x: mx.array, x32: mx.array, *_: mx.array) -> mx.array:
        if len(x) > 128:
            raise RuntimeError("too many registers")
        return x32

    monkeypatch.setattr(experts, "run", run)
    decode.adopt(model)
    (note,) = model.notes
    assert "kernels of our own do not run here (too many registers)" in note


def test_whether_they_run_here_is_tried_on_a_small_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of sizes that they take, with weights that leave its logits numbers."""
    assert kernels_here() == (False, ()), "on a CPU they are not wanted"
    monkeypatch.setattr(decode, "wanted", lambda: True)

    def difference(model: Model) -> float:
        assert decode.fits(model.args, model.dtype)
        logits = np.array(model(mx.array([tokens(9)])))
        assert 0.1 < logits.std() < 10
        return 0.2

    monkeypatch.setattr(decode, "_difference", difference)
    (note,) = decode.slow_here()
    assert "kernels of our own do not run here (their logits are off by 20.0%)" in note


def test_more_rows_than_the_kernels_of_experts_take(
    fused: Model, plain: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experts, "MOST_TOKENS", 4)
    rows = Rows(fused, plain)
    rows.join(tokens(2), copies=5)
    rows.step(3)
