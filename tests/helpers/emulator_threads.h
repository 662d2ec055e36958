// Runs the threads of a kernel's blocks on one CPU thread, each as a fiber that gives way where a GPU's threads wait for
// each other: at a barrier until all threads of the block have come, at an operation of a warp until its 32 have.
//
// What a GPU leaves undefined is an error here: a barrier that some threads never reach, a warp of which some lanes call
// another operation, memory beyond the end of an array, an address that is not aligned to its type. The memory of a block
// begins as bytes of 0xFF (not a number, -1), not as zeros.
#pragma once
#if defined(__APPLE__)
#define _XOPEN_SOURCE 700
#define _DARWIN_C_SOURCE
#endif
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <cmath>
#include <new>
#include <type_traits>

struct uint2 { unsigned x, y; };
struct uint3 { unsigned x, y, z; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };

// bfloat16 as its bits. Only conversions: what products and sums of two of them round to differs between GPUs.
struct Bf16 {
  uint16_t bits;
  Bf16() = default;
  explicit Bf16(float x) {
    uint32_t whole;
    memcpy(&whole, &x, 4);
    bits = std::isnan(x) ? 0x7FC0 : uint16_t((whole + 0x7FFF + (whole >> 16 & 1)) >> 16);
  }
  operator float() const {
    uint32_t whole = uint32_t(bits) << 16;
    float x;
    memcpy(&x, &whole, 4);
    return x;
  }
};
template <typename A, typename B>
using IfBf16 = std::enable_if_t<std::is_same_v<A, Bf16> || std::is_same_v<B, Bf16>, float>;
template <typename A, typename B> IfBf16<A, B> operator+(A, B) = delete;
template <typename A, typename B> IfBf16<A, B> operator-(A, B) = delete;
template <typename A, typename B> IfBf16<A, B> operator*(A, B) = delete;
template <typename A, typename B> IfBf16<A, B> operator/(A, B) = delete;

void one_thread();  // the kernel, with its arguments

#if defined(__ELF__)
#define BLOCK_MEMORY static __attribute__((section("block_memory")))
extern "C" char __start_block_memory[] __attribute__((weak)), __stop_block_memory[] __attribute__((weak));
#else
#define BLOCK_MEMORY static
#endif

namespace emulator {

enum Waits { RUNS, AT_BARRIER, AT_WARP, ENDED };
constexpr size_t STACK = 128 << 10;

struct Fiber {
  int index;     // of the thread in its block
  Waits waits;
  int place;     // the line of the barrier, or which operation of a warp
  int turn;      // of the two sets of cells that operations of a warp alternate between
  bool begun;
  jmp_buf at;
  ucontext_t start;
};

uint3 block, blocks;
int threads;
Fiber* fibers;
Fiber* now;
char* stacks;
uint64_t* cells;  // [2, threads] what lanes show each other
jmp_buf scheduler;
ucontext_t scheduler_start;
sigjmp_buf outside;
void* const* buffers;

inline void give_way(Waits waits, int place) {
  now->waits = waits;
  now->place = place;
  if (_setjmp(now->at) == 0) _longjmp(scheduler, 1);
}

inline void barrier(int line) { give_way(AT_BARRIER, line); }

// What lane `from` of this thread's warp shows; all 32 lanes must call it.
template <typename T>
T exchange(T x, int from, int operation) {
  static_assert(sizeof(T) <= 8, "a lane shows 8 bytes at most");
  uint64_t* shown = cells + now->turn * threads + now->index / 32 * 32;
  now->turn ^= 1;  // who is ahead writes into the other set, and no lane can be two operations ahead
  memcpy(&shown[now->index % 32], &x, sizeof(T));
  give_way(AT_WARP, operation);
  memcpy(&x, &shown[from & 31], sizeof(T));
  return x;
}

inline void fiber_main() {
  for (;;) {
    one_thread();
    give_way(ENDED, 0);
  }
}

inline void run_until_it_waits(Fiber& fiber) {
  now = &fiber;
  fiber.waits = RUNS;
  if (_setjmp(scheduler) != 0) return;
  if (fiber.begun) _longjmp(now->at, 1);
  fiber.begun = true;
  setcontext(&fiber.start);
}

// The threads of [first, end) until none runs; true if all of them wait for the same, or have ended.
inline bool together(int first, int end, bool backwards) {
  for (int i = first; i < end; i++) {
    Fiber& fiber = fibers[backwards ? end - 1 - (i - first) : i];
    if (fiber.waits == RUNS) run_until_it_waits(fiber);
  }
  for (int i = first + 1; i < end; i++)
    if (fibers[i].waits != fibers[first].waits || fibers[i].place != fibers[first].place) return false;
  return true;
}

inline void release(int first, int end) {
  for (int i = first; i < end; i++) fibers[i].waits = RUNS;
}

inline int describe(char* to, size_t size, const Fiber& fiber) {
  switch (fiber.waits) {
    case AT_BARRIER: return snprintf(to, size, "thread %d is at the barrier of line %d", fiber.index, fiber.place);
    case AT_WARP: return snprintf(to, size, "thread %d is at operation %d of its warp", fiber.index, fiber.place);
    default: return snprintf(to, size, "thread %d has ended", fiber.index);
  }
}

inline bool complain(char* message, size_t size, int first, int end) {
  int other = first + 1;
  while (fibers[other].waits == fibers[first].waits && fibers[other].place == fibers[first].place) other++;
  int used = snprintf(message, size, "block (%u, %u, %u): ", block.x, block.y, block.z);
  used += describe(message + used, size - used, fibers[first]);
  used += snprintf(message + used, size - used, ", ");
  describe(message + used, size - used, fibers[other]);
  return false;
}

inline bool run_block(bool backwards, char* message, size_t size) {
#if defined(__ELF__)
  if (__start_block_memory) memset(__start_block_memory, 0xFF, __stop_block_memory - __start_block_memory);
#endif
  release(0, threads);
  for (;;) {
    const int warps = (threads + 31) / 32;
    for (int i = 0; i < warps; i++) {
      const int first = (backwards ? warps - 1 - i : i) * 32, end = first + 32 < threads ? first + 32 : threads;
      while (together(first, end, backwards) && fibers[first].waits == AT_WARP) {
        if (end - first < 32) {
          snprintf(message, size, "a warp of %d threads calls an operation of 32", end - first);
          return false;
        }
        release(first, end);
      }
      if (!together(first, end, backwards)) return complain(message, size, first, end);
    }
    if (!together(0, threads, backwards)) return complain(message, size, 0, threads);
    if (fibers[0].waits == ENDED) return true;
    release(0, threads);
  }
}

inline void beyond(int, siginfo_t*, void*) { siglongjmp(outside, 1); }

// An array whose last byte lies right before memory that nobody may touch.
struct Guarded {
  char *pages = nullptr, *data = nullptr;
  size_t length = 0;
  void take(size_t bytes) {
    const size_t page = sysconf(_SC_PAGESIZE), room = (bytes + 15) / 16 * 16;
    length = (room + page - 1) / page * page + page;
    pages = (char*)mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
    mprotect(pages + length - page, page, PROT_NONE);
    data = pages + length - page - room;
  }
  ~Guarded() {
    if (pages) munmap(pages, length);
  }
};

inline void run_blocks(const int* counts, bool backwards, char* message, size_t size) {
  const long all = (long)counts[0] * counts[1] * counts[2];
  for (long n = 0; n < all; n++) {
    const long i = backwards ? all - 1 - n : n;
    block = {unsigned(i % counts[0]), unsigned(i / counts[0] % counts[1]), unsigned(i / counts[0] / counts[1])};
    if (!run_block(backwards, message, size)) return;
  }
}

}  // namespace emulator

// `given`: arrays of the inputs, then of the outputs, of so many bytes; what the kernel made of them is written back.
// `counts`: blocks in x, y and z, threads of a block. An error is left in `message`.
extern "C" void launch(
    char** given, const long* bytes, int arrays, const int* counts, int backwards, char* message, long size) {
  using namespace emulator;
  blocks = {unsigned(counts[0]), unsigned(counts[1]), unsigned(counts[2])};
  threads = counts[3];
  auto* guarded = new Guarded[arrays];
  auto* data = new void*[arrays];
  for (int i = 0; i < arrays; i++) {
    guarded[i].take(bytes[i]);
    memcpy(guarded[i].data, given[i], bytes[i]);
    data[i] = guarded[i].data;
  }
  buffers = data;
  cells = new uint64_t[2 * threads]();
  fibers = new Fiber[threads]();
  stacks = (char*)mmap(nullptr, threads * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON | MAP_NORESERVE, -1, 0);
  for (int i = 0; i < threads; i++) {
    fibers[i].index = i;
    getcontext(&fibers[i].start);
    fibers[i].start.uc_stack.ss_sp = stacks + i * STACK;
    fibers[i].start.uc_stack.ss_size = STACK;
    fibers[i].start.uc_link = nullptr;
    makecontext(&fibers[i].start, fiber_main, 0);
  }
  static char signal_stack[64 << 10];
  stack_t ours = {}, theirs;
  ours.ss_sp = signal_stack;
  ours.ss_size = sizeof signal_stack;
  sigaltstack(&ours, &theirs);
  struct sigaction action = {}, segv, bus;
  action.sa_sigaction = beyond;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGSEGV, &action, &segv);
  sigaction(SIGBUS, &action, &bus);
  if (sigsetjmp(outside, 1) == 0) {
    run_blocks(counts, backwards, message, size);
  } else {
    snprintf(message, size, "block (%u, %u, %u), thread %d: an address beyond an array, or not aligned",
             block.x, block.y, block.z, now->index);
  }
  sigaction(SIGSEGV, &segv, nullptr);
  sigaction(SIGBUS, &bus, nullptr);
  sigaltstack(&theirs, nullptr);
  for (int i = 0; i < arrays; i++) memcpy(given[i], guarded[i].data, bytes[i]);
  munmap(stacks, threads * STACK);
  delete[] fibers;
  delete[] cells;
  delete[] data;
  delete[] guarded;
}
