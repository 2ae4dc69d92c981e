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

// A tensor and what a BatchNorm makes of it: scale * (x - mean) + bias, with a number for each channel.
template <typename T, typename X>
struct Term {
  const X* x;
  const T *scale, *mean, *bias;

  // From element i on.
  Term at(int64_t i) const { return {x == nullptr ? nullptr : x + i, scale, mean, bias}; }
};

// What a PWLU behind a BatchNorm is evaluated at, z: the sum of both terms. shortcut.x is null if there is
// none.
template <typename T, typename X>
struct Normalized {
  Term<T, X> x, shortcut;

  Normalized at(int64_t i) const { return {x.at(i), shortcut.at(i)}; }
};

// Per channel the sums of d loss / d z * (x - mean), for either term.
constexpr int kMoments = 2;

// Of a channel's elements: a number near their mean, and the sums of their distances from it and of the
// squares.
template <typename T>
struct BlockMoments {
  T center, sum, squares;
};

// scale * (grad - mean_grad + of_x * (x - mean)), with numbers for each channel; `to` may be `grad`.
template <typename T, typename X>
struct Combination {
  const X *grad, *x;
  X* to;
  const T *scale, *mean_grad, *of_x, *mean;

  Combination at(int64_t i) const { return {grad + i, x + i, to + i, scale, mean_grad, of_x, mean}; }
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
  int run_replicas;
  void (*collect)(T* sums, int64_t tables, int64_t size, double* totals);

  void (*moments_run)(const X* x, int64_t n, BlockMoments<T>* to);
  void (*moments_rows)(const X* x, int64_t rows, int64_t stride, int64_t count, BlockMoments<T>* to);
  // The functions of z.
  void (*normalized_run)(const Normalized<T, X>& inputs, X* y, int64_t n, const Curves<T>& curves,
                         int64_t channel);
  void (*normalized_rows)(const Normalized<T, X>& inputs, X* y, int64_t rows, int64_t stride, int64_t first,
                          int64_t count, const Curves<T>& curves);
  // A backward pass at z, which writes grad_z = d loss / d z and adds to the kMoments `moments` of each
  // channel.
  void (*normalized_backward_run)(const X* grad, const Normalized<T, X>& inputs, X* grad_z, int64_t n,
                                  const Curves<T>& curves, int64_t channel, T* sums, double* moments);
  void (*normalized_backward_rows)(const X* grad, const Normalized<T, X>& inputs, X* grad_z, int64_t rows,
                                   int64_t stride, int64_t first, int64_t count, const Curves<T>& curves,
                                   T* sums, double* moments);
  void (*combination_run)(const Combination<T, X>& combination, int64_t n, int64_t channel);
  void (*combination_rows)(const Combination<T, X>& combination, int64_t rows, int64_t stride, int64_t first,
                           int64_t count);
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
