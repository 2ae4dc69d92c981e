// The CUDA names that the kernels use. With PWLU_EMULATION they come from
// tests/cuda_emulation/emulation.h, so that the kernels run, block by block, on a CPU.
#pragma once

#ifdef PWLU_EMULATION
#include "emulation.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

// The block's dynamic shared memory.
#define PWLU_SHARED_BYTES(name) extern __shared__ __align__(16) unsigned char name[]
#endif

#include <cmath>
#include <cstdint>

#include "../pwlu.h"
#include "kernels.h"

namespace pwlu::cuda {

#ifdef PWLU_EMULATION
using emulation::launch;
#else
// Returns nullptr or what CUDA says. A launch alone cannot report what happens in the kernel.
template <typename... Declared, typename... Given>
const char* launch(void (*kernel)(Declared...), dim3 blocks, int threads, int64_t shared_bytes, void* stream,
                   Given... arguments) {
  kernel<<<blocks, threads, shared_bytes, static_cast<cudaStream_t>(stream)>>>(arguments...);
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}
#endif

__device__ __forceinline__ float multiply_add(float a, float b, float c) {
  return fmaf(a, b, c);
}
__device__ __forceinline__ double multiply_add(double a, double b, double c) {
  return fma(a, b, c);
}
__device__ __forceinline__ float round_down(float value) {
  return floorf(value);
}
__device__ __forceinline__ double round_down(double value) {
  return floor(value);
}

__device__ __forceinline__ float smaller(float a, float b) {
  return fminf(a, b);
}
__device__ __forceinline__ double smaller(double a, double b) {
  return fmin(a, b);
}
__device__ __forceinline__ float larger(float a, float b) {
  return fmaxf(a, b);
}
__device__ __forceinline__ double larger(double a, double b) {
  return fmax(a, b);
}

// Between low and high; low for a NaN.
template <typename T>
__device__ __forceinline__ T clamped(T value, T low, T high) {
  return smaller(larger(value, low), high);
}

// Of numbers that are not negative. A division of 32 bits is several times faster than one of 64.
__device__ __forceinline__ int64_t divide(int64_t a, int64_t b) {
  return ((a | b) >> 32) == 0 ? static_cast<uint32_t>(a) / static_cast<uint32_t>(b) : a / b;
}

// The parameters of all channels, with their type.
template <typename T>
struct Table {
  const T* left;
  const T* right;
  const T* points;
  const T* left_slope;
  const T* right_slope;
  int num_intervals;

  static Table of(const Parameters& p, int num_intervals) {
    const auto typed = [](const void* pointer) { return static_cast<const T*>(pointer); };
    return {typed(p.left),       typed(p.right),       typed(p.points),
            typed(p.left_slope), typed(p.right_slope), num_intervals};
  }
  __device__ __forceinline__ Curve<T> curve(int64_t channel) const {
    return make_curve(left[channel], right[channel], left_slope[channel], right_slope[channel],
                      num_intervals);
  }
  __device__ __forceinline__ const T* points_of(int64_t channel) const {
    return points + channel * (num_intervals + 1);
  }
};

// Whether 1 / interval is far enough from overflow and underflow for the short cuts of locate_quickly and the
// forward pass. Other channels (collapsed ones among them) take the specification's way, which is slower.
template <typename T>
__device__ __forceinline__ bool is_plain(const Curve<T>& curve) {
  const T small = T(1) / (T(1) * (int64_t(1) << 60));
  return curve.inverse > small && curve.inverse * small < T(1);
}

}  // namespace pwlu::cuda
