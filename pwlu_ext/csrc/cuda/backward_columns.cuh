// Backward pass where neighbouring elements are of different channels: d loss / d x, and the sums of a tile's
// channels over a piece of the rows.
#pragma once

#include <type_traits>

#include "columns.cuh"
#include "sums.cuh"

namespace pwlu::cuda {

// Shared memory: the sums [bin][e][thread], for column e of the thread's V, then the slopes [bin][e][lane].
// All warps have the same columns and share the slopes; a lane reads its own bank.
template <typename T, int V>
struct TileMemory {
  Sums<T>* sums;
  T* slopes;
  int threads;

  __device__ __forceinline__ TileMemory(unsigned char* shared, int bins, int threads)
      : sums(reinterpret_cast<Sums<T>*>(shared)),
        slopes(reinterpret_cast<T*>(sums + bins * V * threads)),
        threads(threads) {}

  __device__ __forceinline__ int sum_slot(int bin, int e, int thread) const {
    return (bin * V + e) * threads + thread;
  }

  // Column e of the thread.
  __device__ __forceinline__ Channel<T> channel(int64_t index, const Curve<T>& curve, int e) const {
    const int lane = threadIdx.x % kWarp;
    return Channel<T>::of(index, curve, sums + sum_slot(0, e, threadIdx.x), V * threads,
                          slopes + e * kWarp + lane, V * kWarp);
  }
};

// Fills in the slopes of column e of the lane; its warps share the work.
template <typename T, int V>
__device__ __forceinline__ void fill_slopes(const TileMemory<T, V>& memory, const Curve<T>& curve, int e,
                                            const T* points, int num_intervals, const Window& window) {
  T* slopes = memory.slopes + e * kWarp + threadIdx.x % kWarp;
#pragma unroll 1
  for (int bin = threadIdx.x / kWarp; bin < window.count; bin += memory.threads / kWarp) {
    slopes[bin * V * kWarp] = slope_at(window.first + bin, curve, points, num_intervals);
  }
}

// The sum of a bin over columns `begin` to `end` of the tile, and over all threads that have one of them.
template <typename T, int V>
__device__ __forceinline__ Sums<T> add_columns(const TileMemory<T, V>& memory, const Columns& columns,
                                               int bin, int begin, int end) {
  Sums<T> total = {T(0), T(0)};
  for (int column = begin; column < end; ++column) {
    const Sums<T>* sums = memory.sums + memory.sum_slot(bin, column % V, column / V);
    for (int warp = 0; warp < memory.threads; warp += kWarp) {
      for (int row = 0; row < columns.rows_per_warp; ++row)
        add(sums[warp + row * columns.tile], &total);
    }
  }
  return total;
}

// Writes the sums of each channel of the tile.
template <typename T, int V>
__device__ __forceinline__ void write_totals(const TileMemory<T, V>& memory, const Columns& columns,
                                             const Partials& partials, int first_bin, int bins, int64_t tile,
                                             int piece, Sums<T>* partial_sums) {
  const int64_t first = tile * partials.width;
  const int64_t last =
      columns.groups * V < first + partials.width ? columns.groups * V : first + partials.width;
  for (int item = threadIdx.x; item < partials.slots * bins; item += memory.threads) {
    const int slot = item % partials.slots;
    const int bin = item / partials.slots;
    const int64_t begin = (partials.first_channel(tile) + slot) * partials.inner;
    const int64_t end = begin + partials.inner;
    partial_sums[partials.index(tile, piece, slot, first_bin + bin)] =
        add_columns(memory, columns, bin, static_cast<int>((begin < first ? first : begin) - first),
                    static_cast<int>((end < last ? end : last) - first));
  }
}

// blockIdx.x: a piece of a tile's rows; blockIdx.y: a window. input_of(channel_at): what is evaluated in V
// columns, e of which is of channel channel_at(e).
template <typename X, int V, typename InputOf>
__device__ __forceinline__ void sum_columns(const X* __restrict__ grad, X* __restrict__ grad_x,
                                            const Table<Scalar<X>>& table, const Columns& columns,
                                            int window_size, const Partials& partials,
                                            Sums<Scalar<X>>* __restrict__ partial_sums,
                                            const InputOf& input_of) {
  using T = Scalar<X>;
  const int64_t tile = blockIdx.x / columns.pieces.count;
  const int piece = blockIdx.x % columns.pieces.count;
  const ColumnCursor cursor(columns, tile, piece);
  const auto channel_at = [&](int e) { return channel_of(columns, cursor.group, e, V); };
  const auto input = input_of(channel_at);
  using Input = std::remove_const_t<decltype(input)>;
  const Window window(window_size, table.num_intervals);
  const int bins = window.count + kMoreBins<Input>;
  PWLU_SHARED_BYTES(shared);
  const TileMemory<T, V> memory(shared, bins, columns.threads);

  Work<X, Input, V> work = {grad, grad_x, input, table, window, {}, true, {}};
#pragma unroll
  for (int e = 0; e < V; ++e) {
    const int64_t channel = channel_at(e);
    const Curve<T> curve = table.curve(channel);
    work.plain &= is_plain(curve);
    work.channels[e] = memory.channel(channel, curve, e);
    work.channels[e].clear(window.count);
    fill_slopes(memory, curve, e, table.points_of(channel), table.num_intervals, window);
  }
  __syncthreads();
  accumulate_all<X, V>(cursor, &work);
  work.keep_moments();
  __syncthreads();
  write_totals(memory, columns, partials, window.first, bins, tile, piece, partial_sums);
}

template <typename X, int V>
__global__ void __launch_bounds__(kThreads, 2)
    backward_columns(const X* __restrict__ grad, const X* __restrict__ x, X* __restrict__ grad_x,
                     const __grid_constant__ Table<Scalar<X>> table, const __grid_constant__ Columns columns,
                     int window_size, Partials partials, Sums<Scalar<X>>* __restrict__ partial_sums) {
  sum_columns<X, V>(grad, grad_x, table, columns, window_size, partials, partial_sums,
                    [&](const auto&) { return Direct<X>{x}; });
}

template <typename X, int V, int kTerms>
__global__ void __launch_bounds__(kThreads, 2)
    normalized_backward_columns(const X* __restrict__ grad, const __grid_constant__ Terms<X, kTerms> terms,
                                X* __restrict__ grad_z, const __grid_constant__ Table<Scalar<X>> table,
                                const __grid_constant__ Columns columns, int window_size, Partials partials,
                                Sums<Scalar<X>>* __restrict__ partial_sums) {
  sum_columns<X, V>(grad, grad_z, table, columns, window_size, partials, partial_sums,
                    [&](const auto& channel_at) { return Normalized<X, kTerms, V>(terms, channel_at); });
}

}  // namespace pwlu::cuda
