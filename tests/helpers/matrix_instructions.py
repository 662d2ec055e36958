"""What `engine.mlx.kernels.experts` says in PTX, said in C++ for the emulator."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.mlx.kernels import experts

_DEFINITION = """
float dot8(uint4 a, uint4 b) {
  unsigned x[4] = {a.x, a.y, a.z, a.w}, y[4] = {b.x, b.y, b.z, b.w};
  float sum = 0.0f;
  for (int i = 0; i < 4; i++) {
    sum += __uint_as_float(x[i] << 16) * __uint_as_float(y[i] << 16);
    sum += __uint_as_float(x[i] & 0xffff0000u) * __uint_as_float(y[i] & 0xffff0000u);
  }
  return sum;
}
uint4 shown(uint4 x, int lane) {
  return make_uint4(__shfl_sync(~0u, x.x, lane), __shfl_sync(~0u, x.y, lane),
                    __shfl_sync(~0u, x.z, lane), __shfl_sync(~0u, x.w, lane));
}
void multiply(float* sum, uint4 low, uint4 high, uint4 column) {
  const int lane = threadIdx.x % 32;
  for (int q = 0; q < 4; q++) {
    const uint4 rows[2] = {shown(low, lane / 4 * 4 + q), shown(high, lane / 4 * 4 + q)};
    for (int i = 0; i < 2; i++) {
      const uint4 other = shown(column, (lane % 4 * 2 + i) * 4 + q);
      sum[i] += dot8(rows[0], other);
      sum[2 + i] += dot8(rows[1], other);
    }
  }
}
uint4 stream(const void* p) { return *(const uint4*)p; }
"""
"""m16n8k16 over pieces of 8 inputs, and a load."""

_KERNELS = ("_INWARDS", "_OUTWARDS", "_MANY_INWARDS", "_MANY_OUTWARDS")


def define(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the kernels of experts run in the emulator, as CUDA's text."""
    for name in _KERNELS:
        monkeypatch.setattr(experts, name, replace(getattr(experts, name), helpers=_DEFINITION))
