"""What the words of a kernel's body mean on CUDA and on Metal: see `engine.mlx.kernels.launch`."""

from __future__ import annotations

from dataclasses import dataclass

_SHARED = """
typedef unsigned char BYTE;
#define PRAGMA(text) _Pragma(#text)
template <typename T>
struct alignas(16) Eight { T values[8]; };
template <typename T>
DEVICE void load8(const GLOBAL T* p, LOCAL float* to) {
  const Eight<T> from = *(const GLOBAL Eight<T>*)p;
  for (int i = 0; i < 8; i++) to[i] = float(from.values[i]);
}
template <typename T>
DEVICE void fetched8(const BLOCK T* p, LOCAL float* to) {
  const Eight<T> from = *(const BLOCK Eight<T>*)p;
  for (int i = 0; i < 8; i++) to[i] = float(from.values[i]);
}
template <typename T>
DEVICE void store8(const LOCAL float* from, GLOBAL T* to) {
  Eight<T> packed;
  for (int i = 0; i < 8; i++) packed.values[i] = T(from[i]);
  *(GLOBAL Eight<T>*)to = packed;
}
DEVICE float block_sum(float x, BLOCK float* parts, int index, int threads) {
  x = warp_sum(x);
  if (index % 32 == 0) parts[index / 32] = x;
  BARRIER();
  float sum = 0.0f;
  for (int i = 0; i < threads / 32; i++) sum += parts[i];
  BARRIER();
  return sum;
}
"""


@dataclass(frozen=True)
class Prelude:
    """header stands before the kernel's function, opening at the beginning of its body."""

    header: str
    opening: str


CUDA = Prelude(
    header="""
#include <cuda_bf16.h>
#include <cuda_pipeline_primitives.h>
#define GLOBAL
#define BLOCK
#define LOCAL
#define BLOCK_ARRAY(type, name, size) alignas(16) __shared__ type name[size]
#define BARRIER() __syncthreads()
#define DEVICE __device__ __forceinline__
#define UNROLL(times) PRAGMA(unroll times)
typedef __nv_bfloat16 BF16;
typedef unsigned COUNTER;
DEVICE void count(COUNTER* counter) { atomicAdd(counter, 1u); }
DEVICE void clear(COUNTER* counter) { *counter = 0; }
DEVICE int counted(COUNTER* counter) { return *counter; }
DEVICE float warp_xor(float x, int mask) { return __shfl_xor_sync(0xffffffffu, x, mask); }
DEVICE float warp_sum(float x) {
  for (int mask = 16; mask; mask >>= 1) x += warp_xor(x, mask);
  return x;
}
DEVICE float warp_max(float x) {
  for (int mask = 16; mask; mask >>= 1) x = fmaxf(x, warp_xor(x, mask));
  return x;
}
template <typename T>
DEVICE void fetch8(T* to, const T* from) {
  for (int i = 0; i < (int)sizeof(T) / 2; i++)
    __pipeline_memcpy_async((char*)to + 16 * i, (const char*)from + 16 * i, 16);
}
DEVICE void fetches_asked() { __pipeline_commit(); }
DEVICE void await_fetches(int newer) { __pipeline_wait_prior(newer); }
DEVICE float inverse_sqrt(float x) { return 1.0f / sqrtf(x); }
DEVICE float exponential(float x) { return expf(x); }
DEVICE float power2(float x) { return exp2f(x); }
DEVICE float logarithm(float x) { return logf(x); }
DEVICE float cosine(float x) { return cosf(x); }
DEVICE float sine(float x) { return sinf(x); }
DEVICE float error_function(float x) { return erff(x); }
"""
    + _SHARED,
    opening="""
  const int THREAD = threadIdx.x, BLOCK_X = blockIdx.x, BLOCK_Y = blockIdx.y, BLOCK_Z = blockIdx.z;
  const int BLOCKS_X = gridDim.x;
  const int LANE = THREAD % 32, WARP = THREAD / 32;
""",
)

METAL = Prelude(
    header="""
#define GLOBAL device
#define BLOCK threadgroup
#define LOCAL thread
#define BLOCK_ARRAY(type, name, size) alignas(16) threadgroup type name[size]
#define BARRIER() threadgroup_barrier(mem_flags::mem_threadgroup)
#define DEVICE inline
#define UNROLL(times) PRAGMA(clang loop unroll_count(times))
typedef bfloat16_t BF16;
typedef atomic_uint COUNTER;
DEVICE void count(threadgroup COUNTER* counter) { atomic_fetch_add_explicit(counter, 1u, memory_order_relaxed); }
DEVICE void clear(threadgroup COUNTER* counter) { atomic_store_explicit(counter, 0u, memory_order_relaxed); }
DEVICE int counted(threadgroup COUNTER* counter) { return atomic_load_explicit(counter, memory_order_relaxed); }
DEVICE float warp_xor(float x, int mask) { return simd_shuffle_xor(x, ushort(mask)); }
DEVICE float warp_sum(float x) { return simd_sum(x); }
DEVICE float warp_max(float x) { return simd_max(x); }
template <typename T>
DEVICE void fetch8(threadgroup T* to, const device T* from) {
  for (int i = 0; i < 8; i++) to[i] = from[i];
}
DEVICE void fetches_asked() {}
DEVICE void await_fetches(int newer) {}
DEVICE float inverse_sqrt(float x) { return metal::precise::rsqrt(x); }
DEVICE float exponential(float x) { return metal::precise::exp(x); }
DEVICE float power2(float x) { return metal::precise::exp2(x); }
DEVICE float logarithm(float x) { return metal::precise::log(x); }
DEVICE float cosine(float x) { return metal::precise::cos(x); }
DEVICE float sine(float x) { return metal::precise::sin(x); }
// A rational approximation in t of erfc, within 4e-7 of the true value everywhere.
DEVICE float error_function(float x) {
  float z = metal::abs(x), t = 1.0f / (1.0f + 0.5f * z);
  const float terms[10] = {-1.26551223f, 1.00002368f, 0.37409196f, 0.09678418f, -0.18628806f,
                           0.27886807f, -1.13520398f, 1.48851587f, -0.82215223f, 0.17087277f};
  float sum = terms[9];
  for (int i = 8; i >= 0; i--) sum = terms[i] + t * sum;
  float rest = t * metal::precise::exp(-z * z + sum);
  return x >= 0.0f ? 1.0f - rest : rest - 1.0f;
}
"""
    + _SHARED,
    opening="""
  const int THREAD = thread_position_in_threadgroup.x, BLOCK_X = threadgroup_position_in_grid.x,
    BLOCK_Y = threadgroup_position_in_grid.y, BLOCK_Z = threadgroup_position_in_grid.z;
  const int BLOCKS_X = threadgroups_per_grid.x;
  const int LANE = THREAD % 32, WARP = THREAD / 32;
""",
)
