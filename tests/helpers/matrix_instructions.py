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
uint4 shown[2][1024][3];  // what lanes show each other, in two sets: no lane can be two products ahead
unsigned char turns[1024];
void multiply(float* sum, uint4 low, uint4 high, uint4 column) {
  const int lane = threadIdx.x % 32, turn = turns[threadIdx.x] ^= 1;
  uint4(*warp)[3] = shown[turn] + threadIdx.x - lane;
  warp[lane][0] = low;
  warp[lane][1] = high;
  warp[lane][2] = column;
  __shfl_sync(~0u, 0u, lane);  // until all 32 have shown theirs
  for (int q = 0; q < 4; q++) {
    const uint4* rows = warp[lane / 4 * 4 + q];
    for (int i = 0; i < 2; i++) {
      const uint4 other = warp[(lane % 4 * 2 + i) * 4 + q][2];
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
