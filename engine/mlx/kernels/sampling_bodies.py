"""The kernels that draw tokens: see `engine.mlx.kernels.sampling` for what each does and when it runs.

B rows of V tokens; a slice of a row is 2 * PAIRS * THREADS tokens, one half of them HALF = ceil(V / 2) after the other.
Constants: T the type of the logits, LIKELIHOODS whether they are wanted, others as in the module that launches. What is
common to several kernels is in `sampling_parts`.
What one kernel leaves to the next:

    params    [B, PARAMETERS] as the enumeration Parameter; FILTERS: 0 none, 1 min_p, 2 top_k or top_p, 3 both
    records   [B, SLICES, MOST, FIELDS] of each slice, best score first, as many as its COUNT
    stats     [B, SLICES, STATISTICS]; SUM and RAW_SUM are of exponentials at the row's temperature, at 1;
              RAW_BELOW is of those at 1, each times how far its logit is from the slice's largest
    made      [B, PARTS, BINS] tokens by how far they are below the top; by a first kernel, then within one of its bins
    place     [B, 2] which of the first bins that was, and how many tokens are before it
    weights   [B, SLICES, MOST + 2, 2] mass (over the top's) and number of the slice's tokens likelier than each record;
              in a row with both filters two more: of tokens above the piece that holds rank top_k, and of that piece
"""

from __future__ import annotations

from engine.mlx.kernels.launch import Kernel
from engine.mlx.kernels.sampling_parts import BEGIN_COUNT, END_COUNT, FIND, HELPERS, JOIN, TOP

PROPOSE = Kernel(
    name="sample_propose",
    inputs=("logits", "params", "keys"),
    outputs=("records", "stats"),
    helpers=HELPERS,
    body="""
  BLOCK_ARRAY(float, parts, 2 * WARPS + 1);
  const int V = logits_shape[1], HALF = (V + 1) / 2, SLICES = BLOCKS_X;
  const int row = BLOCK_Y, slice = BLOCK_X, first = slice * PAIRS * THREADS + THREAD;
  const float temperature = params[row * PARAMETERS + TEMPERATURE], sharpness = params[row * PARAMETERS + SHARPNESS];
  const float filters = params[row * PARAMETERS + FILTERS];
  const GLOBAL T* from = logits + (long)row * V;
  float x[2 * PAIRS], score[2 * PAIRS], raw_top = NONE;
#pragma unroll
  for (int i = 0; i < PAIRS; i++) {
    const int token = first + i * THREADS;
    x[i] = token < HALF ? number(float(from[token])) : NONE;
    x[PAIRS + i] = token < HALF && token + HALF < V ? number(float(from[token + HALF])) : NONE;
    raw_top = max(raw_top, max(x[i], x[PAIRS + i]));
  }
  raw_top = warp_max(raw_top);
  if (LANE == 0) parts[WARP] = raw_top;
  BARRIER();
  for (int w = 0; w < WARPS; w++) raw_top = max(raw_top, parts[w]);
  BARRIER();
  const float top = raw_top * sharpness, least = top + params[row * PARAMETERS + LOG_MIN_P];
  float sum = 0.0f, raw_sum = 0.0f, raw_below = 0.0f;
#pragma unroll
  for (int i = 0; i < PAIRS; i++) {
    const int token = first + i * THREADS;
    const float raw0 = x[i], raw1 = x[PAIRS + i];
    x[i] *= sharpness;
    x[PAIRS + i] *= sharpness;
    if (filters > 1.0f) {
      sum += raw0 > NONE ? exponential(x[i] - top) : 0.0f;
      sum += raw1 > NONE ? exponential(x[PAIRS + i] - top) : 0.0f;
    }
    if (LIKELIHOODS) {
      const float mass0 = raw0 > NONE ? exponential(raw0 - raw_top) : 0.0f;
      const float mass1 = raw1 > NONE ? exponential(raw1 - raw_top) : 0.0f;
      raw_sum += mass0;
      raw_sum += mass1;
      raw_below += mass0 > 0.0f ? mass0 * (raw0 - raw_top) : 0.0f;
      raw_below += mass1 > 0.0f ? mass1 * (raw1 - raw_top) : 0.0f;
    }
    const bool one = raw0 > NONE && x[i] >= least, two = raw1 > NONE && x[PAIRS + i] >= least;
    score[i] = one ? raw0 : NONE;
    score[PAIRS + i] = two ? raw1 : NONE;
    if (temperature > 0.0f && (one || two)) {
      unsigned bits0 = token, bits1 = token + HALF < V ? token + HALF : 0;
      threefry(keys[row * 2], keys[row * 2 + 1], &bits0, &bits1);
      if (one) score[i] += temperature * gumbel(bits0);
      if (two) score[PAIRS + i] += temperature * gumbel(bits1);
    }
  }
  if (filters > 1.0f) sum = block_sum(sum, parts, THREAD, THREADS);
  if (LIKELIHOODS) {
    raw_sum = block_sum(raw_sum, parts, THREAD, THREADS);
    raw_below = block_sum(raw_below, parts, THREAD, THREADS);
  }
  const int room = filters > 0.0f ? MOST : 1;
  int n = 0;
  for (float last = 0.0f; n < room;) {
    float best = NONE, at = float(V), logit = 0.0f;
#pragma unroll
    for (int i = 0; i < 2 * PAIRS; i++) {
      const bool open = n == 0 || (n == MOST - 1 ? x[i] >= top : x[i] > last);
      if (open && score[i] > best) {
        best = score[i];
        at = float(first + i % PAIRS * THREADS + i / PAIRS * HALF);
        logit = x[i];
      }
    }
    last = logit_of_first(best, at, logit, parts, THREAD, WARPS);
    if (!(best > NONE)) break;
    if (THREAD == 0) {
      GLOBAL float* record = records + (((long)row * SLICES + slice) * MOST + n) * FIELDS;
      record[SCORE] = best;
      record[LOGIT] = last;
      record[TOKEN] = at;
    }
    n++;
    if (last >= top) break;
  }
  if (THREAD == 0) {
    GLOBAL float* stat = stats + ((long)row * SLICES + slice) * STATISTICS;
    stat[RAW_TOP] = raw_top;
    stat[SUM] = sum;
    stat[RAW_SUM] = raw_sum;
    stat[RAW_BELOW] = raw_below;
    stat[COUNT] = float(n);
  }
""",
)

COUNT = Kernel(
    name="sample_count",
    inputs=("logits", "params", "stats"),
    outputs=("made",),
    helpers=HELPERS,
    body=f"""{TOP}
  if (filters < 3.0f) return;
  {BEGIN_COUNT}
  BARRIER();
  for (int token = BLOCK_X * THREADS + THREAD; token < V; token += PARTS * THREADS) {{
    const int d = distance_below(top, number(float(logits[(long)row * V + token])) * sharpness);
    if (d < BINS * BINS) count(&counters[d / BINS]);
  }}
  {END_COUNT}
""",
)

RECOUNT = Kernel(
    name="sample_recount",
    inputs=("logits", "params", "stats", "bins"),
    outputs=("made", "place"),
    helpers=HELPERS,
    body=f"""{TOP}
  if (filters < 3.0f) return;
  const int wanted = int(params[row * PARAMETERS + TOP_K]);
  {FIND}
  {BEGIN_COUNT}
  BARRIER();
  for (int token = BLOCK_X * THREADS + THREAD; token < V; token += PARTS * THREADS) {{
    const int d = distance_below(top, number(float(logits[(long)row * V + token])) * sharpness);
    if (d / BINS == found[0]) count(&counters[d % BINS]);
  }}
  {END_COUNT}
  if (BLOCK_X == 0 && THREAD < 2) place[row * 2 + THREAD] = found[THREAD];
""",
)


def _sum(place: str, condition: str) -> str:
    """Mass and number of a warp's tokens for which a condition on x[i] holds."""
    return f"""
    float all = 0.0f, many = 0.0f;
#pragma unroll
    for (int i = 0; i < 2 * PAIRS; i++)
      if (mass[i] > 0.0f && {condition}) {{ all += mass[i]; many += 1.0f; }}
    all = warp_sum(all);
    many = warp_sum(many);
    if (LANE == 0) {{
      sums[(WARP * (MOST + 2) + {place}) * 2] = all;
      sums[(WARP * (MOST + 2) + {place}) * 2 + 1] = many;
    }}
"""


def _weigh(both: bool) -> Kernel:
    """The kernel `weigh`: `both` if a row has top_k and top_p."""
    find = f"""
  const int wanted = int(params[row * PARAMETERS + TOP_K]) - place[row * 2 + 1];
  {FIND}
  const int edge = place[row * 2] * BINS + found[0];
"""
    at_edge = f"""
  if (filters > 2.0f) {{
    {{ {_sum("n", "distance_below(top, x[i]) < edge")} }}
    {{ {_sum("n + 1", "distance_below(top, x[i]) == edge")} }}
  }}
"""
    return Kernel(
        name="sample_weigh_both" if both else "sample_weigh",
        inputs=("logits", "params", "stats", "records", *(("bins", "place") if both else ())),
        outputs=("weights",),
        helpers=HELPERS,
        body=f"""{TOP}
  if (filters < 2.0f) return;
  {JOIN}
  {find if both else ""}
  BLOCK_ARRAY(float, sums, WARPS * (MOST + 2) * 2);
  const int slice = BLOCK_X, HALF = (V + 1) / 2;
  float x[2 * PAIRS], mass[2 * PAIRS];
#pragma unroll
  for (int i = 0; i < 2 * PAIRS; i++) {{
    const int token = (slice * PAIRS + i % PAIRS) * THREADS + THREAD, at = token + i / PAIRS * HALF;
    const float raw = token < HALF && at < V ? number(float(logits[(long)row * V + at])) : NONE;
    x[i] = raw * sharpness;
    mass[i] = raw > NONE ? exponential(x[i] - top) : 0.0f;
  }}
  for (int g = 0; g < n; g++) {{ {_sum("g", "x[i] > cuts[g]")} }}
  {at_edge if both else ""}
  BARRIER();
  for (int i = THREAD; i < (filters > 2.0f ? n + 2 : n) * 2; i += THREADS) {{
    float sum = 0.0f;
    for (int w = 0; w < WARPS; w++) sum += sums[w * (MOST + 2) * 2 + i];
    weights[((long)row * SLICES + slice) * (MOST + 2) * 2 + i] = sum;
  }}
""",
    )


WEIGH, WEIGH_BOTH = _weigh(False), _weigh(True)

CHOOSE = Kernel(
    name="sample_choose",
    inputs=("logits", "params", "stats", "records", "weights"),
    outputs=("drawn", "finite", "likelihoods"),
    helpers=HELPERS,
    body=f"""{TOP}
  {JOIN}
  BLOCK_ARRAY(float, sums, (MOST + 2) * 2);
  float total = 0.0f, raw_total = 0.0f, raw_below = 0.0f;
  for (int s = LANE; s < SLICES; s += 32) {{
    const float slice_top = stat[s * STATISTICS + RAW_TOP];
    if (filters > 1.0f) total += stat[s * STATISTICS + SUM] * exponential(slice_top * sharpness - top);
    const float mass = LIKELIHOODS ? stat[s * STATISTICS + RAW_SUM] * exponential(slice_top - raw_top) : 0.0f;
    if (mass > 0.0f) {{
      raw_total += mass;
      raw_below += stat[s * STATISTICS + RAW_BELOW] * exponential(slice_top - raw_top) + mass * (slice_top - raw_top);
    }}
  }}
  total = warp_sum(total);
  raw_total = warp_sum(raw_total);
  raw_below = warp_sum(raw_below);
  const int ends = filters > 2.0f ? n + 2 : filters > 1.0f ? n : 0;
  for (int i = WARP; i < ends * 2; i += WARPS) {{
    float sum = 0.0f;
    for (int s = LANE; s < SLICES; s += 32) sum += weights[((long)row * SLICES + s) * (MOST + 2) * 2 + i];
    sum = warp_sum(sum);
    if (LANE == 0) sums[i] = sum;
  }}
  BARRIER();
  if (THREAD > 0) return;
  const float top_p = params[row * PARAMETERS + TOP_P], top_k = params[row * PARAMETERS + TOP_K];
  float kept = total;
  if (filters > 2.0f) {{  // the tokens above the piece that holds rank top_k, and as many of that piece as are missing
    const float many = sums[n * 2 + 3], missing = min(top_k - sums[n * 2 + 1], many);
    kept = sums[n * 2] + (many > 0.0f ? sums[n * 2 + 2] * (missing / many) : 0.0f);
  }}
  int g = 0;
  if (filters > 1.0f)
    while (g < n - 1 && cuts[g] < top &&
           !(sums[g * 2 + 1] < top_k && (top_p >= 1.0f || sums[g * 2] < top_p * kept))) g++;
  const int token = n > 0 ? int(tokens[g]) : 0;
  drawn[row] = token;
  finite[row] = raw_top > NONE && raw_top < LARGEST;
  if (LIKELIHOODS) {{
    likelihoods[row * 2] = float(logits[(long)row * V + token]) - raw_top - logarithm(raw_total);
    likelihoods[row * 2 + 1] = raw_below / raw_total - logarithm(raw_total);
  }}
""",
)
