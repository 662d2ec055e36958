"""What the kernels that draw tokens have in common, as C++: see `engine.mlx.kernels.sampling_bodies` for the arrays."""

from __future__ import annotations

HELPERS = """
enum Parameter { TEMPERATURE, SHARPNESS, LOG_MIN_P, TOP_P, TOP_K, FILTERS, PARAMETERS };
enum Statistic { RAW_TOP, SUM, RAW_SUM, RAW_BELOW, COUNT, STATISTICS = 8 };
enum Field { SCORE, LOGIT, TOKEN, FIELDS };
#define NONE -3.0e38f
#define LARGEST 3.4e38f
// NaN and infinity are huge, so that the largest logit tells of them.
DEVICE float number(float x) { return x < LARGEST ? x : LARGEST; }
// Two words of Threefry-2x32 with 20 rounds, in place of the two that are counted.
DEVICE void threefry(unsigned key0, unsigned key1, LOCAL unsigned* first, LOCAL unsigned* second) {
  const unsigned keys[3] = {key0, key1, key0 ^ key1 ^ 0x1BD11BDAu};
  const int turns[8] = {13, 15, 26, 6, 17, 29, 16, 24};
  unsigned x = *first + keys[0], y = *second + keys[1];
#pragma unroll
  for (int i = 0; i < 5; i++) {
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const int turn = turns[i % 2 * 4 + j];
      x += y;
      y = (y << turn) | (y >> (32 - turn));
      y ^= x;
    }
    x += keys[(i + 1) % 3];
    y += keys[(i + 2) % 3] + i + 1;
  }
  *first = x;
  *second = y;
}
DEVICE float gumbel(unsigned bits) {
  return -logarithm(-logarithm(min(float(bits) * 2.3283064365386963e-10f, 0.99999994f)));
}
// The order of scores; of equal ones the smaller token is first. Tokens below 2^24 are exact as floats.
DEVICE bool ahead(float score, float token, float of_score, float of_token) {
  return score > of_score || (score == of_score && token < of_token);
}
DEVICE void block_first(LOCAL float& score, LOCAL float& token, BLOCK float* parts, int index, int warps) {
  for (int mask = 16; mask; mask >>= 1) {
    const float other = warp_xor(score, mask), of = warp_xor(token, mask);
    if (ahead(other, of, score, token)) { score = other; token = of; }
  }
  if (index % 32 == 0) { parts[index / 32 * 2] = score; parts[index / 32 * 2 + 1] = token; }
  BARRIER();
  for (int w = 0; w < warps; w++)
    if (ahead(parts[w * 2], parts[w * 2 + 1], score, token)) { score = parts[w * 2]; token = parts[w * 2 + 1]; }
  BARRIER();
}
// The same, and the logit of the first, which its own thread knows: to read it again would take longer than all this.
DEVICE float logit_of_first(LOCAL float& score, LOCAL float& token, float logit, BLOCK float* parts, int index,
                            int warps) {
  const float own = token;
  block_first(score, token, parts, index, warps);
  if (own == token) parts[2 * warps] = logit;
  BARRIER();
  return parts[2 * warps];
}
// How far below the top, in 2^18 pieces of 32 nats; 2^18 beyond.
DEVICE int distance_below(float top, float x) {
  const float pieces = (top - x) * 8192.0f;
  return pieces < 262144.0f ? int(pieces) : 262144;
}
"""
"""Functions, and what stands where in params, stats and records."""

TOP = """
  const int row = BLOCK_Y, V = logits_shape[1], SLICES = stats_shape[1];
  const float sharpness = params[row * PARAMETERS + SHARPNESS], filters = params[row * PARAMETERS + FILTERS];
  const GLOBAL float* stat = stats + (long)row * SLICES * STATISTICS;
  float raw_top = NONE;
  for (int s = LANE; s < SLICES; s += 32) raw_top = max(raw_top, stat[s * STATISTICS + RAW_TOP]);
  raw_top = warp_max(raw_top);
  const float top = raw_top * sharpness;
"""
"""The sizes, and the row's largest logit."""

FIND = """
  // Of bins [B, PARTS, BINS], likeliest first: which holds the token of rank `wanted`, and how many are before it.
  BLOCK_ARRAY(int, held, BINS);
  BLOCK_ARRAY(int, groups, 32);
  BLOCK_ARRAY(int, found, 2);
  for (int b = THREAD; b < BINS; b += THREADS) {
    held[b] = 0;
    for (int p = 0; p < PARTS; p++) held[b] += bins[((long)row * PARTS + p) * BINS + b];
  }
  BARRIER();
  if (THREAD < 32) {
    groups[THREAD] = 0;
    for (int i = 0; i < BINS / 32; i++) groups[THREAD] += held[THREAD * (BINS / 32) + i];
  }
  BARRIER();
  if (THREAD == 0) {
    found[0] = BINS;
    found[1] = 0;
    for (int g = 0; g < 32; g++) found[1] += groups[g];
  }
  BARRIER();
  for (int b = THREAD; b < BINS; b += THREADS) {
    const int group = b / (BINS / 32);
    int before = 0;
    for (int g = 0; g < group; g++) before += groups[g];
    for (int i = group * (BINS / 32); i < b; i++) before += held[i];
    if (before < wanted && wanted <= before + held[b]) { found[0] = b; found[1] = before; }
  }
  BARRIER();
"""
"""Finds the bin that holds the token of a rank."""

BEGIN_COUNT = """
  BLOCK_ARRAY(COUNTER, counters, BINS);
  for (int b = THREAD; b < BINS; b += THREADS) clear(&counters[b]);
"""

END_COUNT = """
  BARRIER();
  GLOBAL int* to = made + ((long)row * PARTS + BLOCK_X) * BINS;
  for (int b = THREAD; b < BINS; b += THREADS) to[b] = counted(&counters[b]);
"""
"""A block counts tokens in its bins, and hands them on."""

JOIN = """
  // The records of the row among those of its slices: cuts[n], scaled logits that rise, and their tokens. Each thread
  // holds the first few that it looks through, so that they are read once.
  BLOCK_ARRAY(float, parts, 2 * WARPS + 1);
  BLOCK_ARRAY(float, cuts, MOST);
  BLOCK_ARRAY(float, tokens, MOST);
  float longest = 0.0f;
  for (int s = LANE; s < SLICES; s += 32) longest = max(longest, stat[s * STATISTICS + COUNT]);
  longest = warp_max(longest);
  const float least = top + params[row * PARAMETERS + LOG_MIN_P];
  const int room = filters > 0.0f ? MOST : 1, slots = SLICES * int(longest);
  float mine[HELD * FIELDS];
  int s = THREAD % SLICES, r = THREAD / SLICES;
  const int s_step = THREADS % SLICES, r_step = THREADS / SLICES;
#pragma unroll
  for (int k = 0; k < HELD; k++) {
    const bool there = float(r) < longest && float(r) < stat[s * STATISTICS + COUNT];
    const GLOBAL float* record = records + (((long)row * SLICES + s) * MOST + r) * FIELDS;
#pragma unroll
    for (int f = 0; f < FIELDS; f++) mine[k * FIELDS + f] = there ? record[f] : NONE;
    s += s_step;
    r += r_step;
    if (s >= SLICES) { s -= SLICES; r++; }
  }
  int n = 0;
  for (float last = 0.0f; n < room;) {
    float best = NONE, at = float(V), logit = 0.0f;
#pragma unroll
    for (int k = 0; k < HELD; k++) {
      const float score = mine[k * FIELDS + SCORE], x = mine[k * FIELDS + LOGIT], token = mine[k * FIELDS + TOKEN];
      const bool open = x >= least && (n == 0 || (n == MOST - 1 ? x >= top : x > last));
      if (open && ahead(score, token, best, at)) { best = score; at = token; logit = x; }
    }
    for (int i = THREAD + HELD * THREADS; i < slots; i += THREADS) {
      const int s = i % SLICES, r = i / SLICES;
      if (float(r) >= stat[s * STATISTICS + COUNT]) continue;
      const GLOBAL float* record = records + (((long)row * SLICES + s) * MOST + r) * FIELDS;
      const float x = record[LOGIT];
      const bool open = x >= least && (n == 0 || (n == MOST - 1 ? x >= top : x > last));
      if (open && ahead(record[SCORE], record[TOKEN], best, at)) {
        best = record[SCORE];
        at = record[TOKEN];
        logit = x;
      }
    }
    last = logit_of_first(best, at, logit, parts, THREAD, WARPS);
    if (!(best > NONE)) break;
    if (THREAD == 0) { cuts[n] = last; tokens[n] = at; }
    n++;
    if (last >= top) break;
  }
  BARRIER();
"""
"""The records of a row, best first."""
