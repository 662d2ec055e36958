"""Attention of one query a row over keys and values in pages, each row by its own length.

Keys and values of a layer lie in one array, the pool: [pages, 2, kv_heads, PAGE, d], keys before values. `table`
[B, M] names the pages of each row in order, `lengths` [B] how many tokens it has before the one that decodes now
(negative: the place is empty). A row costs what it is long; nothing is padded or masked.

Row b's keys are split among blocks, a chunk to each (`attend`); a second kernel joins what they found (`join`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from engine.mlx.kernels.launch import Kernel

PAGE = 256
"""Tokens of a page."""

_WARPS = 4
_CHANNELS = 512
"""Channels of the queries that a block of threads holds, in registers: heads of a group with more are parted."""
_BLOCKS, _CHUNKS = 256, (128, 2048)
"""Blocks of `attend` to aim at, two for each multiprocessor of a large GPU; and the shortest and the longest chunk.
Measured on an H200, us for chunks of 512 / 1024 / 2048 keys with its launch: 64 rows of 1,024 49 / 55 / 46, of
4,096 106 / 99 / 99, of 8,192 191 / 175 / 168; 16 rows of 8,192 65 / 60 / 91."""

HIGHEST = """bool higher = false;
    for (int h = 0; h < GROUP; h++) {
      if (beyond) score[h] = -1e30f;
      higher = higher || score[h] > best[h];
    }
    if (higher)
      for (int h = 0; h < GROUP; h++) {
        const float most = max(best[h], score[h]), less = power2(best[h] - most);
        best[h] = most; total[h] *= less;
        for (int i = 0; i < PER; i++) sum[h][i] *= less;
      }"""
"""Brings `best`, `total` and `sum` of each head up to its `score`, which counts for nothing `beyond` the last key."""

GATHER = """for (int h = 0; h < GROUP; h++) {
    float most = best[h];
    most = max(most, warp_xor(most, 8));
    most = max(most, warp_xor(most, 16));
    const float less = power2(best[h] - most);
    float all = total[h] * less;
    all += warp_xor(all, 8);
    all += warp_xor(all, 16);
    for (int i = 0; i < PER; i++) {
      float x = sum[h][i] * less;
      x += warp_xor(x, 8);
      x += warp_xor(x, 16);
      if (place == 0) sums[(WARP * GROUP + h) * D + CHANNEL] = x;
    }
    if (LANE == 0) { stats[(WARP * GROUP + h) * 2] = most; stats[(WARP * GROUP + h) * 2 + 1] = all; }
  }
  BARRIER();
  for (int i = THREAD; i < GROUP * D; i += WARPS * 32) {
    const int h = i / D;
    float most = -1e30f, all = 0.0f, x = 0.0f;
    for (int w = 0; w < WARPS; w++) most = max(most, stats[(w * GROUP + h) * 2]);
    for (int w = 0; w < WARPS; w++) {
      const float less = power2(stats[(w * GROUP + h) * 2] - most);
      all += stats[(w * GROUP + h) * 2 + 1] * less;
      x += sums[w * GROUP * D + i] * less;
    }
    const long to = ((row * KV + head) * BLOCKS_X + BLOCK_X) * GROUP + h;
    found[to * D + i % D] = x;
    if (i % D == 0) { weights[to * 2] = most; weights[to * 2 + 1] = all; }
  }"""
"""Puts together what the warps of a block have found, and writes it; CHANNEL: which one a lane's i-th is."""

_ATTEND = Kernel(
    name="paged_attention",
    inputs=("q", "pool", "table", "lengths", "ruler"),
    outputs=("found", "weights"),
    body="""
  // A warp reads 4 keys at a time; 8 lanes share a key, PER channels each. GROUP query heads read the same keys, and
  // PARTS groups those of one head of the pool.
  const int PER = D / 8, WARPS = 4, TURNS = 4, M = table_shape[1], CHUNK = ruler_shape[0];
  BLOCK_ARRAY(float, sums, 4 * GROUP * D);
  BLOCK_ARRAY(float, stats, 4 * GROUP * 2);
  const int row = BLOCK_Z, head = BLOCK_Y, keys = lengths[row] + 1, begin = BLOCK_X * CHUNK;
  const int HELD = KV / PARTS, held = head / PARTS;  // in the pool
  if (begin >= keys) return;
  const int end = min(begin + CHUNK, keys), place = LANE / 8, part = LANE % 8;
  const float scale = inverse_sqrt(float(D)) * 1.4426950408889634f;  // powers of 2 are cheaper
  float query[GROUP][PER], sum[GROUP][PER], best[GROUP], total[GROUP];
  for (int h = 0; h < GROUP; h++) {
    const GLOBAL T* from = q + ((row * KV + head) * GROUP + h) * D + part * 8;
    for (int i = 0; i < PER / 8; i++) load8(from + i * 64, query[h] + i * 8);
    for (int i = 0; i < PER; i++) { query[h][i] *= scale; sum[h][i] = 0.0f; }
    best[h] = -1e30f; total[h] = 0.0f;
  }
  // What a lane reads it has asked for itself, three turns before: no thread waits for another.
  BLOCK_ARRAY(T, ring, WARPS * TURNS * 8 * D);
  const int turns = (end - begin - WARP * 4 + WARPS * 4 - 1) / (WARPS * 4);
  for (int turn = 1 - TURNS; turn < turns; turn++) {
    const int coming = turn + TURNS - 1;
    if (coming < turns) {
      const int key = min(begin + WARP * 4 + coming * WARPS * 4 + place, end - 1);
      const long page = table[row * M + key / PAGE];
      const GLOBAL T* from = pool + ((page * 2 * HELD + held) * PAGE + key % PAGE) * D + part * 8;
      BLOCK T* to = ring + ((WARP * TURNS + coming % TURNS) * 8 + place) * D + part * 8;
      for (int i = 0; i < PER / 8; i++) {
        fetch8(to + i * 64, from + i * 64);
        fetch8(to + 4 * D + i * 64, from + (long)HELD * PAGE * D + i * 64);
      }
    }
    fetches_asked();
    if (turn < 0) continue;
    await_fetches(TURNS - 1);
    const int first = begin + WARP * 4 + turn * WARPS * 4;
    const BLOCK T* mine = ring + ((WARP * TURNS + turn % TURNS) * 8 + place) * D + part * 8;
    float k[PER], v[PER];
    for (int i = 0; i < PER / 8; i++) {
      fetched8(mine + i * 64, k + i * 8);
      fetched8(mine + 4 * D + i * 64, v + i * 8);
    }
    // All heads side by side: one alone would wait for each of its own steps.
    const bool beyond = first + place >= end;
    float score[GROUP];
    for (int h = 0; h < GROUP; h++) {
      float even = 0.0f, odd = 0.0f;
      for (int i = 0; i < PER; i += 2) { even += query[h][i] * k[i]; odd += query[h][i + 1] * k[i + 1]; }
      score[h] = even + odd;
    }
    for (int mask = 1; mask < 8; mask <<= 1)
      for (int h = 0; h < GROUP; h++) score[h] += warp_xor(score[h], mask);
    HIGHEST
    for (int h = 0; h < GROUP; h++) {
      const float weight = beyond ? 0.0f : power2(score[h] - best[h]);
      total[h] += weight;
      for (int i = 0; i < PER; i++) sum[h][i] += weight * v[i];
    }
  }
  GATHER
""".replace("HIGHEST", HIGHEST).replace("GATHER", GATHER.replace("CHANNEL", "i / 8 * 64 + part * 8 + i % 8")),
)

_APPEND = Kernel(
    name="paged_append",
    inputs=("q", "k", "v", "pool", "table", "lengths"),
    outputs=("queries",),
    body="""
  // One block a row, eight neighbours a thread at a time: those of the queries, of the new key, of the new value.
  const int row = BLOCK_X, length = lengths[row], EIGHTS = D / 8, NEW = HEADS * EIGHTS, M = table_shape[1];
  const long page = length < 0 ? 0 : table[row * M + length / PAGE];
  for (int i = THREAD; i < (HEADS + 2 * KV) * EIGHTS; i += THREADS) {
    float x[8];
    if (i < NEW) {
      load8(q + ((long)row * NEW + i) * 8, x);
      store8(x, queries + ((long)row * NEW + i) * 8);
    } else if (length >= 0) {
      const int at = (i - NEW) % (KV * EIGHTS), head = at / EIGHTS, kind = (i - NEW) / (KV * EIGHTS);
      load8((kind ? v : k) + ((long)row * KV * EIGHTS + at) * 8, x);
      store8(x, (GLOBAL T*)pool + (((page * 2 + kind) * KV + head) * PAGE + length % PAGE) * D + at % EIGHTS * 8);
    }
  }
""",
)

_JOIN = Kernel(
    name="paged_attention_join",
    inputs=("found", "weights", "lengths", "ruler"),
    outputs=("out",),
    body="""
  const int row = BLOCK_Y, head = BLOCK_X / GROUP, h = BLOCK_X % GROUP, CHUNK = ruler_shape[0];
  const int splits = (lengths[row] + CHUNK) / CHUNK;
  const long from = (long)(row * KV + head) * found_shape[2] * GROUP + h;
  float most = -1e30f, all = 0.0f, x = 0.0f;
  for (int s = 0; s < splits; s++) most = max(most, weights[(from + s * GROUP) * 2]);
  for (int s = 0; s < splits; s++) {
    const float less = power2(weights[(from + s * GROUP) * 2] - most);
    all += weights[(from + s * GROUP) * 2 + 1] * less;
    x += found[(from + s * GROUP) * D + THREAD] * less;
  }
  out[(row * KV * GROUP + BLOCK_X) * D + THREAD] = T(splits > 0 ? x / all : 0.0f);
""",
)

_STORE = Kernel(
    name="paged_store",
    inputs=("keys", "values", "pages", "span", "pool"),
    outputs=("done",),
    body="""
  // One block a token; span: row, position of token 0 in the buffers, capacity, first token.
  const int token = span[3] + BLOCK_X;
  const long page = pages[token / PAGE - span[3] / PAGE];
  for (int i = THREAD; i < KV * D; i += 128) {
    const int head = i / D;
    const long from = (((long)span[0] * KV + head) * span[2] + span[1] + token) * D + i % D;
    const long to = (((page * 2) * KV + head) * PAGE + token % PAGE) * D + i % D;
    GLOBAL T* cells = (GLOBAL T*)pool;
    cells[to] = keys[from];
    cells[to + (long)KV * PAGE * D] = values[from];
  }
  if (BLOCK_X == 0 && THREAD < 8) done[THREAD] = 1;
""",
)


@dataclass(frozen=True)
class Split:
    """How rows are cut into chunks: chosen anew as they grow, by a quarter at most."""

    chunk: int
    splits: int

    @classmethod
    def of(cls, rows: int, kv_heads: int, longest: int) -> Split:
        """For rows of which the longest has so many keys."""
        shortest, largest = _CHUNKS
        step = max(1 << longest.bit_length() >> 3, shortest)
        reach = (longest // step + 1) * step  # few different ones: a step is traced for each choice
        pieces = -(-_BLOCKS // (rows * kv_heads))
        chunk = min(-(-reach // (pieces * shortest)) * shortest, largest)
        return cls(chunk, -(-reach // chunk))

    @property
    def reach(self) -> int:
        """Keys of a row that it is good for."""
        return self.chunk * self.splits


def attend(q: mx.array, pool: mx.array, table: mx.array, lengths: mx.array, split: Split) -> mx.array:
    """q [B, heads, d], the pool of a layer, `table` [B, M] and `lengths` [B] in int32 -> [B, heads * d].

    The token that decodes is in the pool already. Empty places give zeros. Scores and sums are float32.
    """
    group, d = q.shape[1] // pool.shape[2], q.shape[2]
    return attend_by(_ATTEND, q, pool, table, lengths, split, parts=parts_of(group, d))


def attend_by(
    kernel: Kernel, q: mx.array, pool: mx.array, table: mx.array, lengths: mx.array, split: Split, *, parts: int = 1
) -> mx.array:
    """`attend`, where `kernel` reads the pool; the query heads of each of its heads are in so many parts."""
    batch, heads, d = q.shape
    kv, ruler = pool.shape[2] * parts, _ruler(split.chunk)
    group = heads // kv
    constants: dict[str, int | mx.Dtype] = {
        "T": q.dtype, "D": d, "KV": kv, "GROUP": group, "PARTS": parts, "PAGE": PAGE
    }  # fmt: skip
    pieces = (batch, kv, split.splits, group)
    found, weights = kernel(
        q, pool, table, lengths, ruler,
        blocks=(split.splits, kv, batch), threads=32 * _WARPS, constants=constants,
        outputs=[((*pieces, d), mx.float32), ((*pieces, 2), mx.float32)],
    )  # fmt: skip
    (out,) = _JOIN(
        found, weights, lengths, ruler,
        blocks=(heads, batch, 1), threads=d, constants=constants, outputs=[((batch, heads * d), q.dtype)],
    )  # fmt: skip
    return out


def parts_of(group: int, d: int) -> int:
    """Into how many parts the query heads of a key head, of size d, are cut, so that a block can hold one of them."""
    return next(parts for parts in range(1, group + 1) if group % parts == 0 and group // parts * d <= _CHANNELS)


def append(q: mx.array, k: mx.array, v: mx.array, pool: mx.array, table: mx.array, lengths: mx.array) -> mx.array:
    """q [B, heads, 1, d], and the keys and values [B, kv_heads, 1, d] of the token that decodes: these are written into
    the pool of a layer. Returns q as `attend` takes it: who attends with this one finds them there."""
    batch, heads, _, d = q.shape
    kv = k.shape[1]
    threads = min(-(-(heads + 2 * kv) * d // 8 // 32) * 32, 1024)
    (queries,) = _APPEND(
        q, k, v, pool, table, lengths,
        blocks=(batch, 1, 1), threads=threads,
        constants={"T": q.dtype, "D": d, "HEADS": heads, "KV": kv, "PAGE": PAGE, "THREADS": threads},
        outputs=[((batch, heads, d), q.dtype)],
    )  # fmt: skip
    return queries


def _ruler(chunk: int) -> mx.array:
    """An array as long as a chunk, of which kernels read the shape alone. As a constant, each length would be another
    kernel, and a kernel takes a second to compile."""
    return mx.array(np.zeros(chunk, np.uint8))


def store(
    keys: mx.array,
    values: mx.array,
    row: int,
    start: int,
    tokens: tuple[int, int],
    pages: Sequence[int],
    pool: mx.array,
) -> mx.array:
    """Copy a half-open range of the tokens of a row of buffers [B, kv_heads, capacity, d], whose token 0 is at position
    `start` there, into the pages of that range. The pool itself is written: evaluate what this returns, and use the
    pool after it."""
    kv, capacity, d = keys.shape[1:]
    first, end = tokens
    span = mx.array([row, start, capacity, first], dtype=mx.int32)
    (done,) = _STORE(
        keys, values, mx.array(list(pages), dtype=mx.int32), span, pool,
        blocks=(end - first, 1, 1), threads=128, constants={"T": pool.dtype, "D": d, "KV": kv, "PAGE": PAGE},
        outputs=[((8,), mx.int32)],
    )  # fmt: skip
    return done
