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

constexpr int kWidestVector = 16;
constexpr int64_t kChannelBlock = 64;  // most channels that a `rows` kernel works on

// All channels' functions: one array per field of Curve, so that vector code can read neighbouring channels.
template <typename T>
struct Curves {
  int64_t channels;
  int num_intervals;
  const T *left, *right, *left_slope, *right_slope, *edge, *interval, *inverse, *left_limit, *right_limit;
  const T* points;  // (channels, num_intervals + 1)
  // For the `rows` kernels, per channel and bin (num_intervals + 2 of them, the tails included), with room
  // for kWidestVector more channels: where the bin's line starts and what it rises by when the bin's
  // coordinate grows by 1, side by side; and its slope.
  const T *bins, *slopes;
};

// The same in the form of section 4.3.
template <typename T>
struct FoldedCurves {
  int64_t channels;
  int num_intervals;
  const T *left, *interval;   // (channels,)
  const T *slopes, *offsets;  // S and O, (channels, num_intervals + 2)
  const T* lines;             // for the `rows` kernel: O and S side by side, with room as for Curves::bins
};

// Sums of a backward pass: per channel num_intervals + 2 bins, per bin the pair (sum_g, sum_gt) of pwlu.h
// side by side.
//
// `run` works on n elements of one channel, `rows` on `rows` rows of `count` <= kChannelBlock neighbouring
// channels from `first` on, where consecutive rows are `stride` elements apart (channels_last). `sums` has
// `run_replicas` tables of one channel for `run` (neighbouring elements add into different ones: they often
// share a bin) and one table per channel for `rows`, their number rounded up to kWidestVector. `collect` adds
// `tables` tables of `size` sums to `totals`, one table, and clears them.
template <typename T, typename X>
struct Kernels {
  void (*forward_run)(const X* x, X* y, int64_t n, const Curves<T>& curves, int64_t channel);
  void (*forward_rows)(const X* x, X* y, int64_t rows, int64_t stride, int64_t first, int64_t count,
                       const Curves<T>& curves);
  void (*folded_run)(const X* x, X* y, int64_t n, const FoldedCurves<T>& curves, int64_t channel);
  void (*folded_rows)(const X* x, X* y, int64_t rows, int64_t stride, int64_t first, int64_t count,
                      const FoldedCurves<T>& curves);
  void (*backward_run)(const X* grad, const X* x, X* grad_x, int64_t n, const Curves<T>& curves,
                       int64_t channel, T* sums);
  void (*backward_rows)(const X* grad, const X* x, X* grad_x, int64_t rows, int64_t stride, int64_t first,
                        int64_t count, const Curves<T>& curves, T* sums);
  void (*collect)(T* sums, int64_t tables, int64_t size, double* totals);
  int run_replicas;
};

struct InstructionSet {
  const char* name;
  Kernels<float, float> float32;
  Kernels<float, BFloat16> bfloat16;
  Kernels<float, Half> float16;
};

#if defined(__x86_64__)
const InstructionSet& avx512_bf16();
const InstructionSet& avx512();
const InstructionSet& avx2();
#endif
const InstructionSet& plain();
const Kernels<double, double>& plain_float64();

}  // namespace pwlu::cpu
