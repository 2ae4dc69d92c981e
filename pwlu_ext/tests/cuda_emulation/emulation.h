// Plays the few CUDA names that the kernels use, so that their sources compile as plain C++ and run on a CPU.
//
// A block's threads are coroutines: __syncthreads() hands control to the next one. Between two barriers they
// run one after the other; a kernel whose result depends on their order (see `shuffled`) has a race.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <stdexcept>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)

struct uint2 {
  uint32_t x, y;
} __attribute__((aligned(8)));
struct uint4 {
  uint32_t x, y, z, w;
} __attribute__((aligned(16)));
struct float2 {
  float x, y;
};
struct dim3 {
  unsigned x, y;
  explicit dim3(unsigned x, unsigned y = 1) : x(x), y(y) {}
};

inline float __uint_as_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

struct __half {
  uint16_t bits;
};
struct __half2 {
  __half x, y;
};
inline __half __ushort_as_half(uint16_t bits) {
  return {bits};
}
inline uint16_t __half_as_ushort(__half half) {
  return half.bits;
}

inline float __half2float(__half half) {
  const int exponent = half.bits >> 10 & 31;
  const int fraction = half.bits & 1023;
  const float sign = half.bits >> 15 ? -1.0f : 1.0f;
  if (exponent == 31)
    return fraction ? NAN : sign * INFINITY;
  if (exponent == 0)
    return sign * std::ldexp(float(fraction), -24);
  return sign * std::ldexp(float(1024 + fraction), exponent - 25);
}

inline __half __float2half_rn(float value) {
  if (value != value)
    return {0x7fff};
  const int sign = std::signbit(value) ? 0x8000 : 0;
  const float size = std::abs(value);
  if (size >= 65520)
    return {uint16_t(sign | 0x7c00)};
  const int exponent = size < 0x1p-14f ? -14 : std::ilogb(size);
  const int units = int(std::nearbyint(std::ldexp(size, 10 - exponent)));  // 1024 and more, unless subnormal
  return {uint16_t(sign | (((exponent + 14) << 10) + units))};             // a carry goes into the exponent
}

inline float2 __half22float2(__half2 pair) {
  return {__half2float(pair.x), __half2float(pair.y)};
}
inline __half2 __floats2half2_rn(float x, float y) {
  return {__float2half_rn(x), __float2half_rn(y)};
}

struct __nv_bfloat16 {
  uint16_t bits;
};
struct __nv_bfloat162 {
  __nv_bfloat16 x, y;
};
inline __nv_bfloat16 __float2bfloat16_rn(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  if (value != value)
    return {0x7fff};
  return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
inline uint16_t __bfloat16_as_ushort(__nv_bfloat16 value) {
  return value.bits;
}
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) {
  return {__float2bfloat16_rn(x), __float2bfloat16_rn(y)};
}

namespace emulation {

// The order of a block's threads between two barriers: by index, or another one in every phase.
inline bool shuffled = false;

struct Thread {
  std::unique_ptr<char[]> stack;
  jmp_buf resume;
  bool started = false;
  bool finished = false;
};

// What runs now. One block at a time, on one thread of the host.
struct Machine {
  dim3 grid{1}, block_index{1}, thread_index{1};
  std::vector<unsigned char> shared;
  std::vector<Thread> threads;
  std::function<void()> body;
  Thread* current = nullptr;
  jmp_buf scheduler;
};
inline Machine machine;

constexpr size_t kStackBytes = 64 * 1024;

// Hands control back to the scheduler until it resumes this thread.
inline void pause() {
  if (_setjmp(machine.current->resume) == 0)
    _longjmp(machine.scheduler, 1);
}

// The life of a coroutine: one block after the other.
inline void run_thread() {
  for (;;) {
    machine.body();
    machine.current->finished = true;
    pause();
  }
}

// makecontext gives a thread its stack, once; from then on _setjmp and _longjmp change stacks, which unlike
// swapcontext need no system call.
inline void enter(Thread* thread) {
  thread->stack.reset(new char[kStackBytes]);
  thread->started = true;
  ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = thread->stack.get();
  context.uc_stack.ss_size = kStackBytes;
  context.uc_link = nullptr;
  makecontext(&context, run_thread, 0);
  setcontext(&context);
}

// Runs a thread to its next barrier or its end.
inline void resume(Thread* thread) {
  machine.current = thread;
  if (_setjmp(machine.scheduler) != 0)
    return;
  if (thread->started)
    _longjmp(thread->resume, 1);
  enter(thread);
}

inline void arrange(std::vector<int>* indices, uint32_t* state) {
  const int count = static_cast<int>(indices->size());
  for (int i = 0; i < count; ++i)
    (*indices)[i] = i;
  for (int i = count - 1; shuffled && i > 0; --i) {
    *state = *state * 1664525u + 1013904223u;
    std::swap((*indices)[i], (*indices)[(*state >> 8) % (i + 1)]);
  }
}

inline void run_block(int threads) {
  std::fill(machine.shared.begin(), machine.shared.end(),
            0xff);  // a GPU's shared memory holds anything at first
  for (int i = 0; i < threads; ++i)
    machine.threads[i].finished = false;
  std::vector<int> indices(threads);
  uint32_t state = 1;
  for (int running = threads; running > 0;) {
    arrange(&indices, &state);
    const int before = running;
    for (const int index : indices) {
      machine.thread_index = dim3(index);
      resume(&machine.threads[index]);
      if (machine.threads[index].finished)
        --running;
    }
    if (running != 0 && running != before)
      throw std::logic_error("a barrier that not all threads of a block reach");
  }
}

template <typename... Declared, typename... Given>
const char* launch(void (*kernel)(Declared...), dim3 blocks, int threads, int64_t shared_bytes, void*,
                   Given... arguments) {
  if (shared_bytes > 48 * 1024 || threads > 1024 || blocks.x == 0)
    return "invalid configuration argument";
  if (machine.threads.size() < static_cast<size_t>(threads))
    machine.threads.resize(threads);
  machine.grid = blocks;
  machine.shared.assign(shared_bytes, 0);
  machine.body = [=] { kernel(arguments...); };
  for (unsigned y = 0; y < blocks.y; ++y) {
    for (unsigned x = 0; x < blocks.x; ++x) {
      machine.block_index = dim3(x, y);
      run_block(threads);
    }
  }
  return nullptr;
}

}  // namespace emulation

#define threadIdx emulation::machine.thread_index
#define blockIdx emulation::machine.block_index
#define gridDim emulation::machine.grid
#define PWLU_SHARED_BYTES(name) unsigned char* name = emulation::machine.shared.data()

inline void __syncthreads() {
  emulation::pause();
}
