"""Attention of one query a row over keys and values in 8 bits, in pages: see `engine.mlx.kernels.attention`.

A layer's pool is [pages, 2, kv_heads, PAGE * (d + 2)] of bytes: of each head first the bytes of a page's tokens
[PAGE, d], then their scales [PAGE] in bfloat16; `engine.mlx.eight_bits` says what they mean.

What decodes is written in two steps: the projection leaves keys and values, as numbers, in `scratch`, a pool with one
page a row, and `pack` brings them into the rows' own pages.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from engine.mlx.eight_bits import SCALE
from engine.mlx.kernels.attention import GATHER, HIGHEST, PAGE, Split, attend_by
from engine.mlx.kernels.launch import Kernel

_WARPS = 4

_PACK = Kernel(
    name="pack_eight_bits",
    inputs=("q", "scratch", "pool", "table", "lengths"),
    outputs=("query",),
    body="""
  // A block has one head of the keys, or of the values, of one row. The queries only pass: who reads them comes after.
  BLOCK_ARRAY(float, parts, D / 32);
  const int row = BLOCK_Y, kind = BLOCK_X / KV, head = BLOCK_X % KV, M = table_shape[1], position = lengths[row];
  for (int i = BLOCK_X * D + THREAD; i < HEADS * D; i += 2 * KV * D)
    query[(long)row * HEADS * D + i] = q[(long)row * HEADS * D + i];
  if (position < 0) return;
  const long from = (((long)row * 2 + kind) * KV + head) * PAGE + position % PAGE;
  const float x = float(scratch[from * D + THREAD]);
  const float most = warp_max(x < 0.0f ? -x : x) + warp_sum(x - x);  // what is not finite stays so
  if (LANE == 0) parts[WARP] = most;
  BARRIER();
  float all = parts[0];
  for (int i = 1; i < D / 32; i++) all = parts[i] > all || parts[i] != parts[i] ? parts[i] : all;
  const BF16 scale = BF16(all / 127.0f);
  const float step = float(scale);
  const float whole = max(-127.0f, min(127.0f, step > 0.0f ? x / step : 0.0f));
  const long page = table[row * M + position / PAGE];
  GLOBAL BYTE* cells = (GLOBAL BYTE*)pool + ((page * 2 + kind) * KV + head) * PAGE * (D + 2);
  cells[position % PAGE * D + THREAD] = BYTE(int(whole + 128.5f));
  if (THREAD == 0) ((GLOBAL BF16*)(cells + PAGE * D))[position % PAGE] = scale;
""",
)

_ATTEND = Kernel(
    name="paged_attention_eight_bits",
    inputs=("q", "pool", "table", "lengths", "ruler"),
    outputs=("found", "weights"),
    helpers="""
template <int N>
struct alignas(N) Bytes { BYTE values[N]; };
""",
    body="""
  // A warp reads 4 keys at a time; 8 lanes share a key, PER neighbouring channels each. What a turn needs is read while
  // the one before is computed. GROUP query heads read the same keys.
  const int PER = D / 8, WARPS = 4, M = table_shape[1], CHUNK = ruler_shape[0];
  BLOCK_ARRAY(float, sums, 4 * GROUP * D);
  BLOCK_ARRAY(float, stats, 4 * GROUP * 2);
  const int row = BLOCK_Z, head = BLOCK_Y, keys = lengths[row] + 1, begin = BLOCK_X * CHUNK;
  if (begin >= keys) return;
  const int end = min(begin + CHUNK, keys), place = LANE / 8, part = LANE % 8;
  const float scale = inverse_sqrt(float(D)) * 1.4426950408889634f;  // powers of 2 are cheaper
  float query[GROUP][PER], shift[GROUP], sum[GROUP][PER], best[GROUP], total[GROUP];
  for (int h = 0; h < GROUP; h++) {
    load8(q + ((row * KV + head) * GROUP + h) * D + part * PER, query[h]);
    if (PER > 8) load8(q + ((row * KV + head) * GROUP + h) * D + part * PER + 8, query[h] + PER - 8);
    shift[h] = 0.0f;
    for (int i = 0; i < PER; i++) { query[h][i] *= scale; shift[h] += 128.0f * query[h][i]; sum[h][i] = 0.0f; }
    best[h] = -1e30f; total[h] = 0.0f;
  }
  const int first = begin + WARP * 4 + place;
  Bytes<PER> next_keys, next_values;
  float next_step = 0.0f, next_size = 0.0f;
  for (int turn = -1; first - place + turn * WARPS * 4 < end; turn++) {
    const Bytes<PER> k = next_keys, v = next_values;
    const float step = next_step, size = next_size;
    const int key = min(first + (turn + 1) * WARPS * 4, end - 1), cell = key % PAGE;
    const long page = table[row * M + key / PAGE];
    const GLOBAL BYTE* from = pool + (page * 2 * KV + head) * PAGE * (D + 2);
    const GLOBAL BYTE* more = from + (long)KV * PAGE * (D + 2);
    next_keys = *(const GLOBAL Bytes<PER>*)(from + cell * D + part * PER);
    next_values = *(const GLOBAL Bytes<PER>*)(more + cell * D + part * PER);
    next_step = float(((const GLOBAL BF16*)(from + PAGE * D))[cell]);
    next_size = float(((const GLOBAL BF16*)(more + PAGE * D))[cell]);
    if (turn < 0) continue;
    const bool beyond = first + turn * WARPS * 4 >= end;
    float score[GROUP];
    for (int h = 0; h < GROUP; h++) {
      score[h] = -shift[h];
      for (int i = 0; i < PER; i++) score[h] += query[h][i] * float(k.values[i]);
    }
    for (int mask = 1; mask < 8; mask <<= 1)
      for (int h = 0; h < GROUP; h++) score[h] += warp_xor(score[h], mask);
    for (int h = 0; h < GROUP; h++) score[h] *= step;
    HIGHEST
    for (int h = 0; h < GROUP; h++) {
      const float weight = beyond ? 0.0f : power2(score[h] - best[h]);
      total[h] += weight;
      const float height = weight * size;
      for (int i = 0; i < PER; i++) sum[h][i] += height * (float(v.values[i]) - 128.0f);
    }
  }
  GATHER
""".replace("HIGHEST", HIGHEST).replace("GATHER", GATHER.replace("CHANNEL", "part * PER + i")),
)

_STORE = Kernel(
    name="paged_store_eight_bits",
    inputs=("keys", "values", "scales", "pages", "span", "pool"),
    outputs=("done",),
    body="""
  // One block a token; span: row, position of token 0 in the buffers, capacity, first token.
  const int token = span[3] + BLOCK_X, cell = token % PAGE;
  const long page = pages[token / PAGE - span[3] / PAGE], at = span[1] + token;
  for (int i = THREAD; i < 2 * KV * D; i += 128) {
    const int head = i / D % KV, kind = i / D / KV;
    const long from = (((long)span[0] * KV + head) * span[2] + at) * D + i % D;
    GLOBAL BYTE* cells = (GLOBAL BYTE*)pool + ((page * 2 + kind) * KV + head) * PAGE * (D + 2);
    cells[cell * D + i % D] = kind == 0 ? keys[from] : values[from];
    if (i % D == 0)
      ((GLOBAL BF16*)(cells + PAGE * D))[cell] = scales[((long)span[0] * 2 * KV + kind * KV + head) * span[2] + at];
  }
  if (BLOCK_X == 0 && THREAD < 8) done[THREAD] = 1;
""",
)


def empty_pool(pages: int, kv_heads: int, width: int) -> mx.array:
    """A layer's pool."""
    return mx.zeros((pages, 2, kv_heads, PAGE * (width + SCALE.size)), mx.uint8)


def scratch(rows: int, kv_heads: int, width: int, dtype: mx.Dtype) -> mx.array:
    """Where the projection leaves what decodes: a pool of numbers with one page a row. All layers share it."""
    return mx.zeros((rows, 2, kv_heads, PAGE, width), dtype)


def pack(q: mx.array, scratch: mx.array, pool: mx.array, table: mx.array, lengths: mx.array) -> mx.array:
    """Bring the keys and values of the token that decodes from `scratch` into the pool. Returns the queries [B, heads,
    d]: use these, so that what reads the pool comes after."""
    rows, heads, d = q.shape
    kv = scratch.shape[2]
    (query,) = _PACK(
        q, scratch, pool, table, lengths,
        blocks=(2 * kv, rows, 1), threads=d, constants={"D": d, "KV": kv, "HEADS": heads, "PAGE": PAGE},
        outputs=[(q.shape, q.dtype)],
    )  # fmt: skip
    return query


def attend(q: mx.array, pool: mx.array, table: mx.array, lengths: mx.array, split: Split) -> mx.array:
    """As `engine.mlx.kernels.attention.attend`."""
    return attend_by(_ATTEND, q, pool, table, lengths, split)


def store(
    keys: mx.array,
    values: mx.array,
    scales: mx.array,
    row: int,
    start: int,
    tokens: tuple[int, int],
    pages: Sequence[int],
    pool: mx.array,
) -> mx.array:
    """As `engine.mlx.kernels.attention.store`, of bytes with their scales [B, 2 * kv_heads, capacity, 1]."""
    kv, capacity, d = keys.shape[1:]
    first, end = tokens
    span = mx.array([row, start, capacity, first], dtype=mx.int32)
    (done,) = _STORE(
        keys, values, scales, mx.array(list(pages), dtype=mx.int32), span, pool,
        blocks=(end - first, 1, 1), threads=128, constants={"D": d, "KV": kv, "PAGE": PAGE},
        outputs=[((8,), mx.int32)],
    )  # fmt: skip
    return done
