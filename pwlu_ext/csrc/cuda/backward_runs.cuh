// Backward pass where the elements of a channel lie in runs: d loss / d x, and the sums of a piece of a
// channel.
#pragma once

#include <type_traits>

#include "runs.cuh"
#include "sums.cuh"

namespace pwlu::cuda {

// Adds up the threads' sums bin by bin: first in kParts parts, so that many threads have work. Each begins
// with another thread's sum, so that they read from different banks.
template <typename T>
__device__ __forceinline__ void add_threads(const Sums<T>* sums, int threads, int bins, Sums<T>* parts,
                                            Sums<T>* totals) {
  const int slice = threads / kParts;  // a power of two
  for (int item = threadIdx.x; item < bins * kParts; item += threads) {
    const int bin = item / kParts;
    Sums<T> total = {T(0), T(0)};
    for (int k = 0; k < slice; ++k) {
      add(sums[bin * threads + ((k + bin) & (slice - 1)) * kParts + item % kParts], &total);
    }
    parts[item] = total;
  }
  __syncthreads();
  for (int bin = threadIdx.x; bin < bins; bin += threads) {
    Sums<T> total = parts[bin * kParts];
    for (int part = 1; part < kParts; ++part)
      add(parts[bin * kParts + part], &total);
    totals[bin] = total;
  }
}

// blockIdx.x: a piece of a channel; blockIdx.y: a window. input_of(channel): what the function is evaluated
// at.
template <typename X, int V, typename InputOf>
__device__ __forceinline__ void sum_runs(const X* __restrict__ grad, X* __restrict__ grad_x,
                                         const Table<Scalar<X>>& table, const Runs& runs, int window_size,
                                         const Partials& partials, Sums<Scalar<X>>* __restrict__ partial_sums,
                                         const InputOf& input_of) {
  using T = Scalar<X>;
  const int64_t channel = blockIdx.x / runs.pieces.count;
  const int piece = blockIdx.x % runs.pieces.count;
  const auto input = input_of(channel);
  using Input = std::remove_const_t<decltype(input)>;
  const Window window(window_size, table.num_intervals);
  const int bins = window.count + kMoreBins<Input>;
  PWLU_SHARED_BYTES(shared);
  Sums<T>* sums = reinterpret_cast<Sums<T>*>(shared);
  Sums<T>* parts = sums + bins * runs.threads;
  T* slopes = reinterpret_cast<T*>(parts + bins * kParts);

  const Curve<T> curve = table.curve(channel);
#pragma unroll 1
  for (int bin = threadIdx.x; bin < window.count; bin += runs.threads) {
    slopes[bin] = slope_at(window.first + bin, curve, table.points_of(channel), table.num_intervals);
  }
  Work<X, Input, 1> work = {grad,
                            grad_x,
                            input,
                            table,
                            window,
                            {Channel<T>::of(channel, curve, sums + threadIdx.x, runs.threads, slopes, 1)},
                            is_plain(curve),
                            {}};
  work.channels[0].clear(window.count);
  const RunCursor cursor(runs, channel, piece);
  __syncthreads();
  accumulate_all<X, V>(cursor, &work);
  work.keep_moments();
  __syncthreads();
  add_threads(sums, runs.threads, bins, parts,
              partial_sums + partials.index(channel, piece, 0, window.first));
}

// Where more than 64 registers are needed, the bound of 2 blocks keeps the compiler from spilling to save
// them.
template <typename X, int V>
__global__ void __launch_bounds__(kThreads, sizeof(X) * V < 16 || sizeof(X) == 8 ? 2 : 4)
    backward_runs(const X* __restrict__ grad, const X* __restrict__ x, X* __restrict__ grad_x,
                  const __grid_constant__ Table<Scalar<X>> table, const __grid_constant__ Runs runs,
                  int window_size, Partials partials, Sums<Scalar<X>>* __restrict__ partial_sums) {
  sum_runs<X, V>(grad, grad_x, table, runs, window_size, partials, partial_sums,
                 [&](int64_t) { return Direct<X>{x}; });
}

template <typename X, int V, int kTerms>
__global__ void __launch_bounds__(kThreads, 2)
    normalized_backward_runs(const X* __restrict__ grad, const __grid_constant__ Terms<X, kTerms> terms,
                             X* __restrict__ grad_z, const __grid_constant__ Table<Scalar<X>> table,
                             const __grid_constant__ Runs runs, int window_size, Partials partials,
                             Sums<Scalar<X>>* __restrict__ partial_sums) {
  sum_runs<X, V>(grad, grad_z, table, runs, window_size, partials, partial_sums, [&](int64_t channel) {
    return Normalized<X, kTerms, 1>(terms, [&](int) { return channel; });
  });
}

}  // namespace pwlu::cuda
