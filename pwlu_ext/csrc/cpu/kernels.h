// What cpu/launch.cpp asks of an instruction set: plain function pointers, so that the choice is made once at
// run time.
#pragma once

#include <cstdint>

#include "../pwlu.h"

namespace pwlu::cpu {

struct BFloat16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

// All channels' functions, prepared for vector code: one array per field of Curve, and tables with a row of
// `row_length` entries per channel (num_intervals of them used, so that a row fills whole vector registers).
template <typename T>
struct Curves {
  int64_t channels;
  int num_intervals;
  int row_length;
  const T *left, *right, *left_slope, *right_slope, *edge, *interval, *inverse, *left_limit, *right_limit;
  const T *first, *last;  // Y_P[0] and Y_P[num_intervals]
  const T* start;         // Y_P[i]
  const T* rise;          // Y_P[i + 1] - Y_P[i]
  const T* start_rise;    // both side by side, so that one access fetches them
};

// Sums of a backward pass: per channel num_intervals + 2 bins, per bin the pair (sum_g, sum_gt) of pwlu.h
// side by side.
//
// `run` works on n elements of one channel, `rows` on `rows` rows of `count` neighbouring channels from
// `first` on, where consecutive rows are `stride` elements apart (channels_last). `sums` has `run_replicas`
// tables of one channel for `run` (neighbouring elements add into different ones: they often share a bin) and
// one table per channel for `rows`.
template <typename T, typename X>
struct Kernels {
  void (*forward_run)(const X* x, X* y, int64_t n, const Curves<T>& curves, int64_t channel);
  void (*forward_rows)(const X* x, X* y, int64_t rows, int64_t stride, int64_t first, int64_t count,
                       const Curves<T>& curves);
  void (*backward_run)(const X* grad, const X* x, X* grad_x, int64_t n, const Curves<T>& curves,
                       int64_t channel, T* sums);
  void (*backward_rows)(const X* grad, const X* x, X* grad_x, int64_t rows, int64_t stride, int64_t first,
                        int64_t count, const Curves<T>& curves, T* sums);
  int run_replicas;
};

struct InstructionSet {
  const char* name;
  Kernels<float, float> float32;
  Kernels<float, BFloat16> bfloat16;
  Kernels<float, Half> float16;
};

#if defined(__x86_64__)
const InstructionSet& avx512();
const InstructionSet& avx2();
#endif
const InstructionSet& plain();
const Kernels<double, double>& plain_float64();

}  // namespace pwlu::cpu
