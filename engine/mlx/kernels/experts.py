"""SwiGLU experts of which each token has chosen one, or none; every expert's weights are read once however many tokens
chose it.

A block makes 16 outputs of one expert for all its tokens, 8 at a time in the columns of a matrix instruction
(m16n8k16). Its warps share the sum over the inputs. Each lane reads 16 bytes of a row: the four lanes of a quad take
four neighbouring pieces, and as both factors are read so, which input is called which does not matter to the sum.
Matrix instructions are CUDA's: bfloat16 only.
"""

from __future__ import annotations

import mlx.core as mx

from engine.mlx.kernels.launch import Kernel

_WARPS = 8
MOST_TOKENS = 256
"""Tokens that a pass may have: beyond, products by sorted tokens are better."""

_HELPERS = """
// 16 bytes of a weight, which is read once: past the first cache. In order with the instructions below, or the compiler
// would put each load right before its use.
DEVICE uint4 stream(const void* p) {
  uint4 x;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
      : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w) : "l"(p));
  return x;
}
// sum[0..3] of a 16 x 8 tile: this lane has rows LANE / 4 and + 8, columns 2 * (LANE % 4) and + 1.
// low, high: 8 inputs of those two rows of the left factor; column: of column LANE / 4 of the right one.
DEVICE void multiply(float* sum, uint4 low, uint4 high, uint4 column) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(low.x), "r"(high.x), "r"(low.y), "r"(high.y), "r"(column.x), "r"(column.y));
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(low.z), "r"(high.z), "r"(low.w), "r"(high.w), "r"(column.z), "r"(column.w));
}
"""

_FIND = """
  // Which tokens chose this expert, in order.
  BLOCK_ARRAY(int, chosen, MOST);
  BLOCK_ARRAY(int, mine, MOST);
  BLOCK_ARRAY(int, count, 1);
  const int all = choice_shape[0];
  for (int t = THREAD; t < all; t += 256) chosen[t] = choice[t];
  BARRIER();
  for (int t = THREAD; t < all; t += 256) {
    int before = 0;
    for (int i = 0; i < t; i++) before += chosen[i] == BLOCK_Y;
    if (chosen[t] == BLOCK_Y) mine[before] = t;
    if (t == all - 1) count[0] = before + (chosen[t] == BLOCK_Y);
  }
  BARRIER();
  const int tokens = count[0], first = BLOCK_X * 16, quad = LANE % 4, line = LANE / 4;
  if (tokens == 0) return;
"""

_INWARDS = Kernel(
    name="experts_in",
    inputs=("x", "weights", "choice"),
    outputs=("inner",),
    helpers=_HELPERS,
    body=_FIND
    + """
  BLOCK_ARRAY(float, parts, 8 * TILES * 256);
  const GLOBAL T* gate = weights + ((long)BLOCK_Y * 2 * I + first + line) * H + quad * 8;
  const GLOBAL T* up = gate + (long)I * H;
  for (int base = 0; base < tokens; base += 8 * TILES) {
    float gates[TILES][4], ups[TILES][4];
    for (int t = 0; t < TILES; t++)
      for (int i = 0; i < 4; i++) gates[t][i] = ups[t][i] = 0.0f;
    for (int k = WARP * (H / 8); k < (WARP + 1) * (H / 8); k += 32 * AHEAD) {
      uint4 rows[AHEAD][4];  // all on their way before the first is used
      for (int a = 0; a < AHEAD; a++) {
        rows[a][0] = stream(gate + k + 32 * a);
        rows[a][1] = stream(gate + 8 * H + k + 32 * a);
        rows[a][2] = stream(up + k + 32 * a);
        rows[a][3] = stream(up + 8 * H + k + 32 * a);
      }
      for (int a = 0; a < AHEAD; a++)
        for (int t = 0; t < TILES; t++) {
          const int n = base + t * 8 + line;
          uint4 column = make_uint4(0, 0, 0, 0);
          if (n < tokens) column = *(const uint4*)(x + (long)mine[n] * H + k + 32 * a + quad * 8);
          multiply(gates[t], rows[a][0], rows[a][1], column);
          multiply(ups[t], rows[a][2], rows[a][3], column);
        }
    }
    for (int t = 0; t < TILES; t++)
      for (int i = 0; i < 4; i++) {
        const int cell = (line + i / 2 * 8) * 8 + quad * 2 + i % 2;
        parts[((WARP * TILES + t) * 2) * 128 + cell] = gates[t][i];
        parts[((WARP * TILES + t) * 2 + 1) * 128 + cell] = ups[t][i];
      }
    BARRIER();
    for (int i = THREAD; i < 128 * TILES; i += 256) {
      const int t = i / 128, column = i % 128 / 16, output = i % 16, n = base + t * 8 + column;
      float g = 0.0f, u = 0.0f;
      for (int w = 0; w < 8; w++) {
        g += parts[((w * TILES + t) * 2) * 128 + output * 8 + column];
        u += parts[((w * TILES + t) * 2 + 1) * 128 + output * 8 + column];
      }
      if (n < tokens) inner[(long)mine[n] * I + first + output] = T(g / (1.0f + exponential(-g)) * u);
    }
    BARRIER();
  }
""",
)

_OUTWARDS = Kernel(
    name="experts_out",
    inputs=("inner", "weights", "choice", "x", "share"),
    outputs=("y",),
    helpers=_HELPERS,
    body=_FIND
    + """
  if (BLOCK_Y == E) {
    for (int i = THREAD; i < 16 * tokens; i += 256) {
      const long at = (long)mine[i / 16] * H + first + i % 16;
      y[at] = x[at] * share[mine[i / 16]];
    }
    return;
  }
  BLOCK_ARRAY(float, parts, 8 * TILES * 128);
  const GLOBAL T* down = weights + ((long)BLOCK_Y * H + first + line) * I + quad * 8;
  for (int base = 0; base < tokens; base += 8 * TILES) {
    float sums[TILES][4];
    for (int t = 0; t < TILES; t++)
      for (int i = 0; i < 4; i++) sums[t][i] = 0.0f;
    for (int k = WARP * (I / 8); k < (WARP + 1) * (I / 8); k += 32 * AHEAD) {
      uint4 rows[AHEAD][2];
      for (int a = 0; a < AHEAD; a++) {
        rows[a][0] = stream(down + k + 32 * a);
        rows[a][1] = stream(down + 8 * I + k + 32 * a);
      }
      for (int a = 0; a < AHEAD; a++)
        for (int t = 0; t < TILES; t++) {
          const int n = base + t * 8 + line;
          uint4 column = make_uint4(0, 0, 0, 0);
          if (n < tokens) column = *(const uint4*)(inner + (long)mine[n] * I + k + 32 * a + quad * 8);
          multiply(sums[t], rows[a][0], rows[a][1], column);
        }
    }
    for (int t = 0; t < TILES; t++)
      for (int i = 0; i < 4; i++)
        parts[(WARP * TILES + t) * 128 + (line + i / 2 * 8) * 8 + quad * 2 + i % 2] = sums[t][i];
    BARRIER();
    for (int i = THREAD; i < 128 * TILES; i += 256) {
      const int t = i / 128, column = i % 128 / 16, output = i % 16, n = base + t * 8 + column;
      float sum = 0.0f;
      for (int w = 0; w < 8; w++) sum += parts[(w * TILES + t) * 128 + output * 8 + column];
      if (n < tokens) y[(long)mine[n] * H + first + output] = sum * share[mine[n]];
    }
    BARRIER();
  }
""",
)


_SEARCH = """
  // Tokens lie in order of their class: which class do the 128 from here on have, and how many are they?
  int tile = BLOCK_Y, expert = 0, start = 0;
  for (; expert <= E; expert++) {
    const int tiles = (ends[expert] - start + 127) / 128;
    if (tile < tiles) break;
    tile -= tiles;
    start = ends[expert];
  }
  if (expert > LAST) return;
  start += tile * 128;
  const int rows = min(128, ends[expert] - start), quad = LANE % 4, line = LANE / 4;
"""

_TILE = """
  // 128 tokens times 128 outputs: a warp has 64 x 32 of them; 32 inputs a step, of which two are on their way.
  BLOCK_ARRAY(T, left, 3 * 4096);
  BLOCK_ARRAY(T, right, 3 * 4096);
  const int piece = THREAD % 4 * 8, own = THREAD / 4, top = WARP / 4 * 64, side = WARP % 4 * 32;
  const GLOBAL T* from[4];
  for (int i = 0; i < 2; i++) {
    const int r = own + 64 * i, sorted = start + min(r, rows - 1);
    const int t = r % 32, o = BLOCK_X * WIDTH + r / 32 * (WIDTH / 4);
    from[i] = LEFT + piece;
    from[2 + i] = RIGHT + piece;
  }
  float sum[4][4][4];
  for (int m = 0; m < 4; m++)
    for (int n = 0; n < 4; n++)
      for (int i = 0; i < 4; i++) sum[m][n][i] = 0.0f;
  for (int step = -2; step < K / 32; step++) {
    const int coming = step + 2, to = coming % 3 * 4096 + own * 32 + piece;
    if (step >= 0) {
      await_fetches(1);
      BARRIER();
    }
    if (coming < K / 32)
      for (int i = 0; i < 2; i++) {
        fetch8(left + to + 2048 * i, from[i] + coming * 32);
        fetch8(right + to + 2048 * i, from[2 + i] + coming * 32);
      }
    fetches_asked();
    if (step < 0) continue;
    const int at = step % 3 * 4096 + line * 32 + quad * 8;
    uint4 columns[4];
    for (int n = 0; n < 4; n++) columns[n] = *(const uint4*)(right + at + (side + n * 8) * 32);
    for (int m = 0; m < 4; m++) {
      const uint4 low = *(const uint4*)(left + at + (top + m * 16) * 32);
      const uint4 high = *(const uint4*)(left + at + (top + m * 16 + 8) * 32);
      for (int n = 0; n < 4; n++) multiply(sum[m][n], low, high, columns[n]);
    }
  }
"""

_MANY_INWARDS = Kernel(
    name="many_experts_in",
    inputs=("x", "weights", "order", "ends"),
    outputs=("inner",),
    helpers=_HELPERS,
    # Of a warp's 32 columns the first half are gates, the others the ups of the same outputs.
    body=_SEARCH.replace("LAST", "E - 1")
    + _TILE.replace("WIDTH", "64")
    .replace("LEFT", "x + (long)order[sorted] * K")
    .replace("RIGHT", "weights + ((long)expert * 2 * I + t / 16 * I + o + t % 16) * K")
    + """
  for (int m = 0; m < 4; m++)
    for (int i = 0; i < 4; i++) {
      const int r = top + m * 16 + line + i / 2 * 8;
      if (r < rows)
        for (int n = 0; n < 2; n++) {
          const float gate = sum[m][n][i], up = sum[m][n + 2][i];
          const int o = BLOCK_X * 64 + side / 2 + n * 8 + quad * 2 + i % 2;
          inner[(long)(start + r) * I + o] = T(gate / (1.0f + exponential(-gate)) * up);
        }
    }
""",
)

_MANY_OUTWARDS = Kernel(
    name="many_experts_out",
    inputs=("inner", "weights", "order", "ends", "x", "share"),
    outputs=("y",),
    helpers=_HELPERS,
    body=_SEARCH.replace("LAST", "E")
    + """
  if (expert == E) {
    for (int i = THREAD; i < rows * 128; i += 256) {
      const long token = order[start + i / 128], at = token * H + BLOCK_X * 128 + i % 128;
      y[at] = x[at] * share[token];
    }
    return;
  }
"""
    + _TILE.replace("WIDTH", "128")
    .replace("LEFT", "inner + (long)sorted * K")
    .replace("RIGHT", "weights + ((long)expert * H + o + t) * K")
    + """
  for (int m = 0; m < 4; m++)
    for (int i = 0; i < 4; i++) {
      const int r = top + m * 16 + line + i / 2 * 8;
      if (r < rows) {
        const long token = order[start + r];
        for (int n = 0; n < 4; n++)
          y[token * H + BLOCK_X * 128 + side + n * 8 + quad * 2 + i % 2] = sum[m][n][i] * share[token];
      }
    }
""",
)


def fits(hidden: int, inner: int, dtype: mx.Dtype) -> bool:
    """True if the kernels can run experts of these widths here."""
    return not mx.metal.is_available() and dtype == mx.bfloat16 and hidden % 256 == 0 and inner % 256 == 0


def run_many(
    x: mx.array, x32: mx.array, choice: mx.array, share: mx.array, gate_up: mx.array, down: mx.array
) -> mx.array:
    """The same as `run` for any number of tokens: tiles of 128 tokens of an expert, without the host knowing how many
    each has."""
    tokens, hidden = x.shape
    experts, _, inner = down.shape
    order = mx.argsort(choice).astype(mx.int32)
    ends = mx.sum(choice[:, None] <= mx.arange(experts + 1), axis=0).astype(mx.int32)
    tiles = -(-tokens // 128) + experts + 1
    constants: dict[str, int | mx.Dtype] = {"T": x.dtype, "H": hidden, "I": inner, "E": experts}
    (h,) = _MANY_INWARDS(
        x, gate_up, order, ends,
        blocks=(inner // 64, tiles, 1), threads=256, constants={**constants, "K": hidden},
        outputs=[((tokens, inner), x.dtype)],
    )  # fmt: skip
    (y,) = _MANY_OUTWARDS(
        h, down, order, ends, x32, share,
        blocks=(hidden // 128, tiles, 1), threads=256, constants={**constants, "K": inner},
        outputs=[((tokens, hidden), mx.float32)],
    )  # fmt: skip
    return y


_TILES = {32: 1, 128: 2, MOST_TOKENS: 4}
"""Columns of tokens that a block has side by side, eight tokens each, for up to so many tokens of a pass."""


def sizes() -> tuple[int, ...]:
    """Numbers of tokens between which `run` is by different kernels."""
    return tuple(_TILES)


def run(x: mx.array, x32: mx.array, choice: mx.array, share: mx.array, gate_up: mx.array, down: mx.array) -> mx.array:
    """x [N, H], the same in float32, choice [N] in int32, share [N], gate_up [experts, 2 * inner, H] (gates, then ups),
    down [experts, H, inner] -> [N, H] in float32: the chosen expert's output times the token's share. Who chose
    `experts`, none, gets x times its share."""
    tokens, hidden = x.shape
    experts, _, inner = down.shape
    assert tokens <= MOST_TOKENS, "more tokens are not meant to come here"
    tiles = next(tiles for most, tiles in _TILES.items() if tokens <= most)
    constants: dict[str, int | mx.Dtype] = {
        "T": x.dtype, "MOST": MOST_TOKENS, "H": hidden, "I": inner, "E": experts, "TILES": tiles,
    }  # fmt: skip
    (h,) = _INWARDS(
        x, gate_up, choice,
        blocks=(inner // 16, experts, 1), threads=32 * _WARPS, constants={**constants, "AHEAD": _ahead(hidden, 4)},
        outputs=[((tokens, inner), x.dtype)],
    )  # fmt: skip
    (y,) = _OUTWARDS(
        h, down, choice, x32, share,
        blocks=(hidden // 16, experts + 1, 1), threads=32 * _WARPS, constants={**constants, "AHEAD": _ahead(inner, 8)},
        outputs=[((tokens, hidden), mx.float32)],
    )  # fmt: skip
    return y


def _ahead(width: int, most: int) -> int:
    """Steps of 32 inputs that a warp has on their way at once: as many as divide its part of the inputs."""
    steps, ahead = width // (32 * _WARPS), 1
    while ahead < most and steps % (2 * ahead) == 0:
        ahead *= 2
    return ahead
