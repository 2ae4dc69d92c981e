// Backward pass where the elements of a channel lie in runs: d loss / d x, and the sums of a piece of a channel.
#pragma once

#include "runs.cuh"
#include "sums.cuh"

namespace pwlu::cuda {

// Adds up the threads' sums bin by bin: first in kParts parts, so that many threads have work. Each begins with another
// thread's sum, so that they read from different banks.
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
    for (int part = 1; part < kParts; ++part) add(parts[bin * kParts + part], &total);
    totals[bin] = total;
  }
}

// blockIdx.x: a piece of a channel; blockIdx.y: a window.
template <typename X, int V>
__global__ void __launch_bounds__(kThreads)
    backward_runs(Streams<X> streams, const __grid_constant__ Table<Scalar<X>> table, Runs runs, int window_size, Partials partials,
                  Sums<Scalar<X>>* __restrict__ partial_sums) {
  using T = Scalar<X>;
  constexpr int kDepth = in_flight<X, V>(4);
  const int64_t index = blockIdx.x / runs.pieces.count;
  const int piece = blockIdx.x % runs.pieces.count;
  const Window window(window_size, table.num_intervals);
  PWLU_SHARED_BYTES(shared);
  Sums<T>* sums = reinterpret_cast<Sums<T>*>(shared);
  Sums<T>* parts = sums + window.count * runs.threads;
  T* slopes = reinterpret_cast<T*>(parts + window.count * kParts);

  const Channel<T> channel[1] = {
      Channel<T>::of(index, table.curve(index), sums + threadIdx.x, runs.threads, slopes, 1)};
  const bool plain = is_plain(channel[0].curve);
#pragma unroll 1
  for (int bin = threadIdx.x; bin < window.count; bin += runs.threads) {
    slopes[bin] = slope_at(window.first + bin, channel[0].curve, table.points_of(index), table.num_intervals);
  }
  channel[0].clear(window.count);
  RunCursor cursor(runs, index, piece);
  __syncthreads();

  while (cursor.left > 0) {
    Packed<X, V> g[kDepth], x[kDepth];
    RunCursor reader = cursor;
#pragma unroll
    for (int d = 0; d < kDepth; ++d, reader.advance(runs)) {
      if (reader.left > 0) {
        g[d].load(streams.grad + reader.position * V);
        x[d].load(streams.x + reader.position * V);
      }
    }
#pragma unroll
    for (int d = 0; d < kDepth; ++d, cursor.advance(runs)) {
      if (cursor.left > 0) settle(g[d], x[d], streams, cursor.position * V, channel, plain, table, window);
    }
  }
  __syncthreads();
  add_threads(sums, runs.threads, window.count, parts,
              partial_sums + partials.index(index, piece, 0, window.first));
}

}  // namespace pwlu::cuda
