"""The emulator of GPU kernels, on kernels whose results are plain to see."""

from __future__ import annotations

import emulator
import mlx.core as mx
import numpy as np
import pytest
from emulator import TEXTS, KernelError, Text

from engine.mlx.kernels.launch import Kernel

both = pytest.mark.parametrize("text", TEXTS)

ROW_SUMS = Kernel(
    name="row_sums",
    inputs=("x", "scale"),
    outputs=("sums", "where"),
    body="""
  BLOCK_ARRAY(float, parts, 32);
  float sum = 0.0f;
  for (int i = THREAD; i < N; i += THREADS) sum += float(x[BLOCK_X * N + i]);
  sum = warp_sum(sum);
  if (LANE == 0) parts[WARP] = sum;
  BARRIER();
  if (WARP > 0) return;
  sum = warp_sum(LANE < THREADS / 32 ? parts[LANE] : 0.0f);
  if (LANE == 0) sums[BLOCK_X] = T(sum * scale[0]);
  const int at = ((BLOCK_Z * 2 + BLOCK_Y) * 4 + BLOCK_X) * 3;
  if (LANE == 0) { where[at] = BLOCK_X; where[at + 1] = BLOCK_Y; where[at + 2] = BLOCK_Z; }
""",
)


@both
@pytest.mark.parametrize("threads", [32, 96, 1024])
@pytest.mark.parametrize("backwards", [False, True])
def test_threads_of_a_block_work_together(text: Text, threads: int, backwards: bool) -> None:
    x = np.random.default_rng(0).normal(size=(4, 1000)).astype(np.float32)
    sums, where = emulator.run(
        ROW_SUMS, [x, np.array([2.0], np.float32)], blocks=(4, 2, 3), threads=threads, text=text, backwards=backwards,
        outputs=[((4,), mx.float32), ((3, 2, 4, 3), mx.int32)],
        constants={"N": 1000, "THREADS": threads, "T": mx.float32},
    )  # fmt: skip
    np.testing.assert_allclose(sums, 2 * x.sum(axis=1), rtol=1e-5, atol=1e-4)
    assert where.tolist() == [[[[i, j, k] for i in range(4)] for j in range(2)] for k in range(3)]


@both
def test_bfloat16_rounds_to_the_nearest(text: Text) -> None:
    x = mx.random.normal((4, 64), key=mx.random.key(3)).astype(mx.bfloat16)
    sums, _ = emulator.run(
        ROW_SUMS, [np.array(x.view(mx.uint16)), np.array([1.0], np.float32)], blocks=(4, 1, 1), threads=32, text=text,
        outputs=[((4,), mx.bfloat16), ((1, 2, 4, 3), mx.int32)], constants={"N": 64, "THREADS": 32, "T": mx.bfloat16},
    )  # fmt: skip
    exact = mx.array(np.array(x.astype(mx.float32)).astype(np.float64).sum(axis=1).astype(np.float32))
    assert mx.array_equal(mx.array(sums).view(mx.bfloat16), exact.astype(mx.bfloat16))


def _launched(body: str, text: Text, x: np.ndarray, *, threads: int = 64, **more: bool) -> list[np.ndarray]:
    kernel = Kernel(name="small", inputs=("x",), outputs=("y",), body=body)
    return emulator.run(
        kernel, [x], blocks=(1, 1, 1), threads=threads, text=text, outputs=[((threads,), mx.int32)],
        constants={"N": x.size}, **more,
    )  # fmt: skip


@both
def test_what_is_written_into_an_input_is_seen(text: Text) -> None:
    x = np.zeros((2, 64), np.int32)
    (y,) = _launched("GLOBAL int* to = (GLOBAL int*)x; to[64 + THREAD] = THREAD;", text, x)
    assert x.tolist() == [[0] * 64, list(range(64))]
    assert y.tolist() == [-1] * 64  # not written


WRONG = {
    "a barrier that half of the threads reach": ("if (THREAD < 32) BARRIER();", "line 1, thread 32 has ended"),
    "two barriers at once": ("if (THREAD < 32) BARRIER();\nelse BARRIER();", "line 1, thread 32 is at .* line 2"),
    "an operation of half a warp": ("if (LANE < 16) y[0] = warp_xor(1.0f, 1);", "thread 16 has ended"),
    "a read beyond the end": ("y[THREAD] = x[THREAD + N];", r"block \(0, 0, 0\), thread 0: an address beyond an array"),
    "a write beyond the end": ("y[THREAD + 4] = 1;", "thread 60: an address beyond an array"),
    "a product of bfloat16": ("y[0] = int(BF16(1.0f) * BF16(2.0f));", "deleted function"),
    "a word that is not known": ("y[0] = threads_in_a_warp;", "small:1:"),
}  # fmt: skip


@both
@pytest.mark.parametrize("what", WRONG)
def test_undefined_behaviour_is_an_error(what: str, text: Text) -> None:
    body, message = WRONG[what]
    with pytest.raises(KernelError, match=message):
        _launched(body, text, np.zeros(64, np.int32))


@both
def test_a_missing_barrier_shows(text: Text) -> None:
    body = "BLOCK_ARRAY(int, seen, 64); seen[THREAD] = THREAD; y[THREAD] = seen[63 - THREAD];"
    right = list(range(63, -1, -1))
    x = np.zeros(64, np.int32)
    assert [_launched(body, text, x, backwards=b)[0].tolist() == right for b in (False, True)] == [False, False]
    body = body.replace("; y", "; BARRIER(); y")
    assert [_launched(body, text, x, backwards=b)[0].tolist() == right for b in (False, True)] == [True, True]


def test_metal_has_no_functions_of_cuda() -> None:
    with pytest.raises(KernelError, match="poisoned"):
        _launched("y[0] = int(expf(1.0f));", "metal", np.zeros(64, np.int32))
