// Metal's words, as the prelude of the kernels and Metal's standard library have them. Address spaces mean nothing here:
// that a pointer has the wrong one is not found.
#pragma once
#include "emulator_threads.h"

#define __METAL_VERSION__ 310
#define device
#define constant
#define thread
#define threadgroup
#define thread_position_in_threadgroup (uint3{unsigned(emulator::now->index), 0, 0})
#define threadgroup_position_in_grid emulator::block
#define threads_per_threadgroup (uint3{unsigned(emulator::threads), 1, 1})
#define threadgroups_per_grid emulator::blocks
#define thread_index_in_simdgroup unsigned(emulator::now->index % 32)
#define simdgroup_index_in_threadgroup unsigned(emulator::now->index / 32)
#define threadgroup_barrier(flags) ((void)(flags), emulator::barrier(__LINE__))
#define simdgroup_barrier(flags) ((void)(flags), (void)emulator::exchange(0, 0, 1))

typedef unsigned uint;
typedef unsigned short ushort;
typedef unsigned char uchar;
typedef Bf16 bfloat16_t;

namespace metal {
enum class mem_flags { mem_none, mem_device, mem_threadgroup };

inline int lane() { return emulator::now->index % 32; }
template <typename T> T simd_shuffle(T x, ushort from) { return emulator::exchange(x, from, 2); }
template <typename T> T simd_broadcast(T x, ushort from) { return emulator::exchange(x, from, 2); }
template <typename T> T simd_shuffle_xor(T x, ushort by) { return emulator::exchange(x, lane() ^ by, 3); }
template <typename T> T simd_shuffle_down(T x, ushort by) { return emulator::exchange(x, lane() + by, 4); }
template <typename T> T simd_shuffle_up(T x, ushort by) { return emulator::exchange(x, lane() - by, 5); }
template <typename T> T simd_sum(T x) {
  for (int by = 16; by; by >>= 1) x += emulator::exchange(x, lane() ^ by, 6);
  return x;
}
template <typename T> T simd_max(T x) {
  for (int by = 16; by; by >>= 1) {
    T other = emulator::exchange(x, lane() ^ by, 7);
    x = x < other ? other : x;
  }
  return x;
}
template <typename T> T simd_min(T x) {
  for (int by = 16; by; by >>= 1) {
    T other = emulator::exchange(x, lane() ^ by, 8);
    x = other < x ? other : x;
  }
  return x;
}

using std::abs, std::ceil, std::cos, std::exp, std::exp2, std::fabs, std::floor, std::fma, std::fmax, std::fmin;
using std::isinf, std::isnan, std::log, std::log2, std::pow, std::sin, std::sqrt, std::tanh;
inline float rsqrt(float x) { return 1.0f / std::sqrt(x); }
namespace precise { using metal::cos, metal::exp, metal::exp2, metal::log, metal::log2, metal::pow, metal::rsqrt, metal::sin, metal::sqrt, metal::tanh; }
namespace fast { using metal::cos, metal::exp, metal::exp2, metal::log, metal::log2, metal::pow, metal::rsqrt, metal::sin, metal::sqrt, metal::tanh; }
template <typename T> T min(T a, T b) { return b < a ? b : a; }
template <typename T> T max(T a, T b) { return a < b ? b : a; }
template <typename T> T clamp(T x, T low, T high) { return min(max(x, low), high); }
template <typename T, typename S> T as_type(S x) {
  static_assert(sizeof(T) == sizeof(S), "as_type keeps the size");
  T y;
  memcpy(&y, &x, sizeof(T));
  return y;
}
inline int popcount(uint x) { return __builtin_popcount(x); }
inline int clz(uint x) { return x ? __builtin_clz(x) : 32; }

enum memory_order { memory_order_relaxed };
template <typename T> struct atomic { T value; };
typedef atomic<uint> atomic_uint;
typedef atomic<int> atomic_int;
template <typename T> T atomic_load_explicit(const atomic<T>* p, memory_order) { return p->value; }
template <typename T> void atomic_store_explicit(atomic<T>* p, std::type_identity_t<T> x, memory_order) { p->value = x; }
template <typename T> T atomic_fetch_add_explicit(atomic<T>* p, std::type_identity_t<T> x, memory_order) {
  T before = p->value;
  p->value += x;
  return before;
}
}  // namespace metal
using namespace metal;

// What C and CUDA have and Metal has not must not compile.
#pragma GCC poison double asm expf exp2f logf log2f powf sqrtf rsqrtf fabsf fmaxf fminf fmaf sinf cosf tanhf erff erf
#pragma GCC poison floorf ceilf __shfl_xor_sync __syncthreads atomicAdd make_uint4
