"""What is ZAYA1's own in a step of decoding, as kernels: the merge of the residual stream, compressed convolutional
attention up to queries and keys, the router. Each has its plain path in `model`, `attention` and `moe` beside this.

Shapes: B rows, one token each; H hidden, heads and kv_heads of d, C = (heads + kv_heads) * d, V half of the values'
width.
"""

from __future__ import annotations

import math

import mlx.core as mx

from engine.families.zaya.config import ModelArgs
from engine.mlx.kernels.attention import PAGE
from engine.mlx.kernels.launch import Kernel

Constants = dict[str, int | mx.Dtype]

_MERGE = """
  // A thread has eight neighbouring channels.
  BLOCK_ARRAY(float, parts, 32);
  const int c = THREAD * 8;
  const long at = (long)BLOCK_X * H + c;
  float merged[8], bias[8], scale[8], squares = 0.0f;
  load8(h + at, merged);
  load8(h_bias + c, bias);
  load8(h_scale + c, scale);
  MORE
  for (int i = 0; i < 8; i++) {
    merged[i] = (merged[i] + bias[i]) * scale[i] + REST;
    squares += merged[i] * merged[i];
  }
  float y[8];
  load8(weight + c, y);
  const float norm = inverse_sqrt(block_sum(squares, parts, THREAD, H / 8) / H + EPS);
  for (int i = 0; i < 8; i++) y[i] *= merged[i] * norm;
  WRITE
"""
_MORE = """
  float before[8], shift[8], gain[8];
  load8(residual + at, before);
  load8(r_bias + c, shift);
  load8(r_scale + c, gain);
"""
_MERGE_INPUTS = ("h", "h_scale", "h_bias", "weight")
_RESIDUAL_INPUTS = ("residual", "r_scale", "r_bias")
_WRITES = {"stream": "store8(merged, stream + at);", "x32": "store8(y, x32 + at);", "x": "store8(y, x + at);"}
ENTER: tuple[str, ...] = ("stream", "x")
LEAVE: tuple[str, ...] = ("stream", "x32", "x")
END: tuple[str, ...] = ("x",)
"""What a merge gives: before the attention, before the experts, after all layers."""

_PROJECT = """
  // Head BLOCK_X of ROWS rows: thread (part, j) makes a part of channel j for all of them, then all of row `part`.
  const int B = lengths_shape[0], M = table_shape[1], ROWS = 4, W = C + V, Q = C + 2 * V, SPAN = 3 * D / ROWS;
  BLOCK_ARRAY(float, window, ROWS * 3 * D);
  BLOCK_ARRAY(float, sums, ROWS * ROWS * D);
  BLOCK_ARRAY(float, parts, ROWS * D / 32);
  const int g = BLOCK_X, j = THREAD % D, part = THREAD / D, base = BLOCK_Y * ROWS;
  for (int i = THREAD; i < ROWS * 3 * D; i += ROWS * D) {
    const int row = base + i / (3 * D), tap = i / D % 3, c = g * D + i % D;
    float x = 0.0f;
    if (row < B) x = tap < 2 ? float(tail[((long)row * 2 + tap) * W + c]) : float(qkv[(long)row * Q + c]);
    window[i] = x;
  }
  BARRIER();
  float sum[ROWS];
  for (int r = 0; r < ROWS; r++) sum[r] = 0.0f;
  for (int i = part * SPAN; i < (part + 1) * SPAN; i += 16) {
    float w[16];  // all on their way before the first is used
    for (int k = 0; k < 16; k++) w[k] = conv[((long)g * 3 * D + i + k) * D + j];
    for (int k = 0; k < 16; k++)
      for (int r = 0; r < ROWS; r++) sum[r] += window[r * 3 * D + i + k] * w[k];
  }
  for (int r = 0; r < ROWS; r++) sums[(part * ROWS + r) * D + j] = sum[r];
  BARRIER();
  const int row = base + part;
  const bool real = row < B;
  float y = 0.0f;
  if (real) {
    const GLOBAL T* mine = qkv + (long)row * Q + j;
    const int key = g < HEADS ? HEADS + g / GROUP : g;
    float mean = float(mine[key * D]);
    if (g < HEADS) mean += float(mine[g * D]);
    else {
      float all = 0.0f;
      for (int i = 0; i < GROUP; i++) all += float(mine[((g - HEADS) * GROUP + i) * D]);
      mean += all / GROUP;
    }
    y = bias[g * D + j] + 0.5f * mean;
    for (int p = 0; p < ROWS; p++) y += sums[(p * ROWS + part) * D + j];
  }
  const float squares = warp_sum(y * y);
  if (LANE == 0) parts[WARP] = squares;
  BARRIER();
  float all = 0.0f;
  for (int i = 0; i < D / 32; i++) all += parts[part * (D / 32) + i];
  y *= inverse_sqrt((all + L2_EPS) / D);
  sums[THREAD] = y;
  BARRIER();
  if (!real) return;
  const int position = lengths[row];
  if (j < 2 * HALF) {
    const float angle = float(position) * power2(-float(j % HALF) / HALF * LOG2_THETA);
    const float other = sums[part * D + (j < HALF ? j + HALF : j - HALF)];
    y = y * cosine(angle) + (j < HALF ? -other : other) * sine(angle);
  }
  if (g < HEADS) q[((long)row * HEADS + g) * D + j] = T(y);
  else if (position >= 0) {
    const int head = g - HEADS, c = head * D + j;
    const long page = table[row * M + position / PAGE];
    GLOBAL T* cell = (GLOBAL T*)pool + ((page * 2 * KV + head) * PAGE + position % PAGE) * D + j;
    cell[0] = T(y * temperature[head]);
    cell[(long)KV * PAGE * D] = c < V ? qkv[(long)row * Q + C + V + c] : tail[((long)row * 2 + 1) * W + C + c - V];
  }
  for (int c = g * D + j; c < (g == C / D - 1 ? W : (g + 1) * D); c += D) {
    after[(long)row * 2 * W + c] = tail[((long)row * 2 + 1) * W + c];
    after[((long)row * 2 + 1) * W + c] = qkv[(long)row * Q + c];
  }
"""

_ROUTE_IN = """
  // A warp makes one output for four rows.
  const int B = x_shape[0], output = BLOCK_X * 8 + WARP, base = BLOCK_Y * 4;
  float sum[4];
  for (int r = 0; r < 4; r++) sum[r] = 0.0f;
  UNROLL(4)
  for (int k = LANE * 8; k < H; k += 256) {
    float w[8], v[8];
    load8(weight + (long)output * H + k, w);
    for (int r = 0; r < 4; r++) {
      load8(x + (long)min(base + r, B - 1) * H + k, v);
      for (int i = 0; i < 8; i++) sum[r] += w[i] * v[i];
    }
  }
  for (int r = 0; r < 4; r++) {
    const float y = warp_sum(sum[r]);
    const long at = (long)(base + r) * R + output;
    if (LANE == 0 && base + r < B) state[at] = y + bias[output] + MORE;
  }
"""

_ROUTE = """
  // Thread (part, j) makes a part of output j; weights are [inputs, outputs], so that neighbours read neighbours.
  const int PARTS = 1024 / R, SPAN = R / PARTS, AHEAD = SPAN < 32 ? SPAN : 32;
  const int j = THREAD % R, part = THREAD / R, row = BLOCK_X;
  BLOCK_ARRAY(float, z, R);
  BLOCK_ARRAY(float, sums, 1024);
  BLOCK_ARRAY(float, parts, 32);
  BLOCK_ARRAY(float, scores, CLASSES);
  const float y = state[(long)row * R + j];
  const float norm = inverse_sqrt(block_sum(y * y, parts, THREAD, 1024) / PARTS / R + EPS);
  if (part == 0) z[j] = y * norm * weight[j];
  BARRIER();
  for (int layer = 0; layer < 2; layer++) {
    const GLOBAL float* matrix = layer == 0 ? fc1 : fc2;
    float sum = 0.0f;
    for (int i = part * SPAN; i < (part + 1) * SPAN; i += AHEAD) {
      float w[AHEAD];  // all on their way before the first is used
      for (int k = 0; k < AHEAD; k++) w[k] = matrix[(long)(i + k) * R + j];
      for (int k = 0; k < AHEAD; k++) sum += z[i + k] * w[k];
    }
    sums[THREAD] = sum;
    BARRIER();
    if (part == 0) {
      float a = layer == 0 ? bias1[j] : bias2[j];
      for (int p = 0; p < PARTS; p++) a += sums[p * R + j];
      z[j] = 0.5f * a * (1.0f + error_function(a * 0.70710678118654752f));
    }
    BARRIER();
  }
  for (int c = WARP; c < CLASSES; c += 32) {
    float sum = 0.0f;
    for (int i = LANE; i < R; i += 32) sum += z[i] * out_proj[c * R + i];
    sum = warp_sum(sum);
    if (LANE == 0) scores[c] = sum;
  }
  BARRIER();
  if (THREAD > 0) return;
  float most = scores[0], total = 0.0f;
  for (int c = 1; c < CLASSES; c++) most = max(most, scores[c]);
  for (int c = 0; c < CLASSES; c++) { scores[c] = exponential(scores[c] - most); total += scores[c]; }
  int best = 0;
  for (int c = 1; c < CLASSES; c++)
    if (scores[c] / total + balance[c] > scores[best] / total + balance[best]) best = c;
  choice[row] = lengths[row] < 0 ? CLASSES - 1 : best;
  share[row] = lengths[row] < 0 ? 0.0f : scores[best] / total;
"""


class Kernels:
    """The kernels of one model's sizes."""

    def __init__(self, args: ModelArgs, dtype: mx.Dtype) -> None:
        self.args, self.dtype = args, dtype
        eps = f"{args.norm_eps!r}f"
        body = _MERGE.replace("EPS", eps)
        self._merges: dict[tuple[bool, tuple[str, ...]], Kernel] = {
            (first, outputs): Kernel(
                "_".join(("zaya_merge", *outputs, "first" if first else "")),
                _MERGE_INPUTS if first else _MERGE_INPUTS + _RESIDUAL_INPUTS,
                outputs,
                body.replace("MORE", "" if first else _MORE)
                .replace("REST", "0.0f" if first else "(before[i] + shift[i]) * gain[i]")
                .replace("WRITE", " ".join(_WRITES[name] for name in outputs)),
            )
            for first in (True, False)
            for outputs in (ENTER, LEAVE, END)
        }
        log2_theta = f"{math.log2(args.rope_theta)!r}f"
        self._project = Kernel(
            "zaya_project",
            ("qkv", "tail", "conv", "bias", "temperature", "pool", "table", "lengths"),
            ("q", "after"),
            _PROJECT.replace("LOG2_THETA", log2_theta).replace("L2_EPS", "1e-12f"),
        )
        inputs = ("x", "weight", "bias")
        self._route_in_first = Kernel("zaya_route_first", inputs, ("state",), _ROUTE_IN.replace("MORE", "0.0f"))
        self._route_in = Kernel(
            "zaya_route_in",
            (*inputs, "before", "scale"),
            ("state",),
            _ROUTE_IN.replace("MORE", "before[at] * scale[output]"),
        )
        self._route = Kernel(
            "zaya_route",
            ("state", "weight", "fc1", "bias1", "fc2", "bias2", "out_proj", "balance", "lengths"),
            ("choice", "share"),
            _ROUTE.replace("EPS", eps),
        )

    def merge(
        self,
        h: mx.array,
        scales: list[mx.array],
        weight: mx.array,
        residual: mx.array | None,
        outputs: tuple[str, ...],
    ) -> list[mx.array]:
        """h [B, H] of any float type; scales: those of `ResidualScale`, h's first; weight [H] of the norm after it; the
        stream [B, H] before -> of `stream`, the one after, of its norm as `x32` in float32 and as `x` in the model's
        type what is asked for: `ENTER`, `LEAVE` or `END`."""
        rows, hidden = h.shape
        constants: Constants = {"T": self.dtype, "H": hidden}
        more = [] if residual is None else [residual, *scales[2:]]
        return self._merges[residual is None, outputs](
            h, *scales[:2], weight, *more,
            blocks=(rows, 1, 1), threads=hidden // 8, constants=constants,
            outputs=[((rows, hidden), self.dtype if name == "x" else mx.float32) for name in outputs],
        )  # fmt: skip

    def project(
        self, qkv: mx.array, tail: mx.array, conv: mx.array, bias: mx.array, temperature: mx.array,
        pool: mx.array, table: mx.array, lengths: mx.array,
    ) -> list[mx.array]:  # fmt: skip
        """qkv [B, C + 2 * V], tail [B, 2, C + V], `table` and `lengths` as in `engine.mlx.kernels.attention` -> queries
        [B, heads, d] for the attention and the new tail. Keys and values are written into the pool."""
        args, rows = self.args, qkv.shape[0]
        constants: Constants = {
            "T": self.dtype, "D": args.head_dim, "HEADS": args.num_heads, "KV": args.num_kv_heads,
            "GROUP": args.num_heads // args.num_kv_heads, "C": args.qk_width, "V": args.value_width,
            "HALF": args.rope_dims // 2, "PAGE": PAGE,
        }  # fmt: skip
        return self._project(
            qkv, tail, conv, bias, temperature, pool, table, lengths,
            blocks=(args.qk_heads, -(-rows // 4), 1), threads=4 * args.head_dim, constants=constants,
            outputs=[((rows, args.num_heads, args.head_dim), self.dtype), (tail.shape, self.dtype)],
        )  # fmt: skip

    def route(
        self, x: mx.array, down: list[mx.array], rest: list[mx.array], before: mx.array | None, lengths: mx.array
    ) -> list[mx.array]:
        """x [B, H] float32; down: the first projection's weight and bias, and the states' scale but in the first layer;
        rest: the norm's weight, fc1 [in, out] and bias, fc2 likewise, the last projection, the balancing biases; the
        state of the layer before [B, R] -> class [B] in int32, its probability [B], state. Empty places choose none."""
        rows, hidden = x.shape
        size = rest[0].size
        kernel, more = (self._route_in, [before, down[2]]) if before is not None else (self._route_in_first, [])
        (state,) = kernel(
            x, *down[:2], *more,
            blocks=(size // 8, -(-rows // 4), 1), threads=256, constants={"H": hidden, "R": size},
            outputs=[((rows, size), mx.float32)],
        )  # fmt: skip
        choice, share = self._route(
            state, *rest, lengths,
            blocks=(rows, 1, 1), threads=1024, constants={"R": size, "CLASSES": self.args.num_experts + 1},
            outputs=[((rows,), mx.int32), ((rows,), mx.float32)],
        )  # fmt: skip
        return [choice, share, state]
