// CUDA's words, as the prelude of the kernels and NVRTC have them.
#pragma once
#include "emulator_threads.h"

#define __CUDACC_RTC__ 1
#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ BLOCK_MEMORY
#define __restrict__
#define __syncthreads() emulator::barrier(__LINE__)
#define threadIdx (uint3{unsigned(emulator::now->index), 0, 0})
#define blockIdx emulator::block
#define blockDim (uint3{unsigned(emulator::threads), 1, 1})
#define gridDim emulator::blocks

typedef Bf16 __nv_bfloat16;
struct __nv_bfloat162 { Bf16 x, y; };
inline float2 __bfloat1622float2(__nv_bfloat162 pair) { return {pair.x, pair.y}; }
inline float __bfloat162float(Bf16 x) { return x; }
inline Bf16 __float2bfloat16(float x) { return Bf16(x); }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

inline int lane() { return emulator::now->index % 32; }
inline void whole_warp(unsigned mask) {
  if (mask != 0xFFFFFFFFu) abort();  // operations of a part of a warp are not among the words of the kernels
}
inline void __syncwarp(unsigned mask = 0xFFFFFFFFu) { whole_warp(mask), emulator::exchange(0, 0, 1); }
inline void __pipeline_memcpy_async(void* to, const void* from, size_t size) { memcpy(to, from, size); }
inline void __pipeline_commit() {}
inline void __pipeline_wait_prior(size_t) {}
template <typename T> T __shfl_sync(unsigned mask, T x, int from) { return whole_warp(mask), emulator::exchange(x, from, 2); }
template <typename T> T __shfl_xor_sync(unsigned mask, T x, int by) { return whole_warp(mask), emulator::exchange(x, lane() ^ by, 3); }
template <typename T> T __shfl_down_sync(unsigned mask, T x, int by) {
  return whole_warp(mask), emulator::exchange(x, lane() + by < 32 ? lane() + by : lane(), 4);
}
template <typename T> T __shfl_up_sync(unsigned mask, T x, int by) {
  return whole_warp(mask), emulator::exchange(x, lane() >= by ? lane() - by : lane(), 5);
}
inline unsigned __ballot_sync(unsigned mask, int yes) {
  unsigned bits = yes ? 1u << lane() : 0;
  for (int by = 1; by < 32; by <<= 1) bits |= __shfl_xor_sync(mask, bits, by);
  return bits;
}

inline unsigned __float_as_uint(float x) { unsigned bits; memcpy(&bits, &x, 4); return bits; }
inline float __uint_as_float(unsigned bits) { float x; memcpy(&x, &bits, 4); return x; }
inline int __float_as_int(float x) { return int(__float_as_uint(x)); }
inline float __int_as_float(int bits) { return __uint_as_float(unsigned(bits)); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
template <typename T> T __ldg(const T* p) { return *p; }
template <typename T> T atomicAdd(T* p, T x) { T before = *p; *p += x; return before; }
template <typename T> T atomicMax(T* p, T x) { T before = *p; *p = before > x ? before : x; return before; }
template <typename T> T min(T a, T b) { return b < a ? b : a; }
template <typename T> T max(T a, T b) { return a < b ? b : a; }
