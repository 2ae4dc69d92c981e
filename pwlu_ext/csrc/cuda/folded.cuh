// The kernels of the inference form of section 4.3: y = x * S[i] + O[i].
//
// The interval is the specification's to the bit (the tables need not be continuous), by the division without
// a division of locate.cuh. Whatever comes out infinite or NaN is computed again by the specification.
#pragma once

#include "forward.cuh"

namespace pwlu::cuda {

// The tables of all channels, with their type.
template <typename T>
struct FoldedTable {
  const T* left;
  const T* interval;
  const T* slopes;
  const T* offsets;
  int num_intervals;

  static FoldedTable of(const FoldedTables& tables, int num_intervals) {
    const auto typed = [](const void* pointer) { return static_cast<const T*>(pointer); };
    return {typed(tables.left), typed(tables.interval), typed(tables.slopes), typed(tables.offsets),
            num_intervals};
  }
  __device__ __forceinline__ Line<T> line(int64_t channel, int bin) const {
    const int64_t i = channel * (num_intervals + 2) + bin;
    return {offsets[i], slopes[i]};
  }
};

// What a thread keeps of a channel in registers.
template <typename T>
struct FoldedScale {
  T left;
  T interval;
  T inverse;  // NaN where it is out of reach of the short cut: sends every x to folded_slowly
};

template <typename T>
__device__ __forceinline__ FoldedScale<T> scale_of(const FoldedTable<T>& table, int64_t channel) {
  const T interval = table.interval[channel];
  const T inverse = T(1) / interval;
  const T small = T(1) / (T(1) * (int64_t(1) << 60));
  const T size = std::abs(inverse);
  const bool plain = size > small && size * small < T(1) && is_finite(table.left[channel]);
  return {table.left[channel], interval, plain ? inverse : T(NAN)};
}

// lines: of the channel, from one bin to the next in steps of `stride`. Off the tables, far from them the
// estimate is cut off before it is improved: nothing overflows, and either way x is in a tail.
template <typename T>
__device__ __forceinline__ T folded_quickly(T x, const FoldedScale<T>& scale, const Line<T>* lines,
                                            int stride, T intervals) {
  const T distance = x - scale.left;
  const T estimate = clamped(distance * scale.inverse, T(-2), intervals + T(2));
  const T rest = multiply_add(-estimate, scale.interval, distance);
  const T position = multiply_add(rest, scale.inverse, estimate);
  const T index = clamped(round_down(position), T(-1), intervals);
  const Line<T> line = lines[(static_cast<int>(index) + 1) * stride];
  // A NaN in the inverse reaches y: 0 of a finite position, NaN of no position.
  return multiply_add(x, line.rise, line.start + (position - position));
}

// The specification's way, off the hot path. x is in column `column` of its row, of channel column / inner.
template <typename T>
__device__ __noinline__ T folded_slowly(T x, const FoldedTable<T>* table, int64_t column, int64_t inner) {
  const int64_t channel = divide(column, inner);
  const T position = round_down((x - table->left[channel]) / table->interval[channel]);
  const T last = T(table->num_intervals);
  const bool right = !(position < last);  // a NaN goes to the right tail
  const int bin = right ? table->num_intervals + 1 : static_cast<int>(larger(position, T(-1))) + 1;
  const Line<T> line = table->line(channel, bin);
  const bool flat_tail = line.rise == T(0) && x == x && !is_finite(x);  // 0 * inf would be a NaN
  return multiply_add(flat_tail ? T(0) : x, line.rise, line.start);
}

template <typename X, int V>
__global__ void __launch_bounds__(kThreads, sizeof(X) == 8 ? 3 : 4)
    folded_runs(const X* __restrict__ x, X* __restrict__ y,
                const __grid_constant__ FoldedTable<Scalar<X>> table, const __grid_constant__ Runs runs) {
  using T = Scalar<X>;
  PWLU_SHARED_BYTES(shared);
  Line<T>* lines = reinterpret_cast<Line<T>*>(shared);
  const int64_t channel = blockIdx.x / runs.pieces.count;
  const FoldedScale<T> scale = scale_of(table, channel);
#pragma unroll 1
  for (int bin = threadIdx.x; bin < table.num_intervals + 2; bin += runs.threads) {
    lines[bin] = table.line(channel, bin);
  }
  const T intervals = T(table.num_intervals);
  const RunCursor cursor(runs, channel, blockIdx.x % runs.pieces.count);
  __syncthreads();

  const auto quickly = [&](T value, int) { return folded_quickly(value, scale, lines, 1, intervals); };
  const auto slowly = [&](T value, int) { return folded_slowly(value, &table, channel, 1); };
  evaluate_all<X, V>(Direct<X>{x}, y, cursor, quickly, slowly);
}

template <typename X, int V>
__global__ void __launch_bounds__(kThreads, 3)
    folded_columns(const X* __restrict__ x, X* __restrict__ y,
                   const __grid_constant__ FoldedTable<Scalar<X>> table,
                   const __grid_constant__ Columns columns) {
  using T = Scalar<X>;
  PWLU_SHARED_BYTES(shared);
  Line<T>* lines = reinterpret_cast<Line<T>*>(shared);
  const ColumnCursor cursor(columns, blockIdx.x / columns.pieces.count, blockIdx.x % columns.pieces.count);
  FoldedScale<T> scales[V];
#pragma unroll
  for (int e = 0; e < V; ++e)
    scales[e] = scale_of(table, channel_of(columns, cursor.group, e, V));
  fill_lines<V>(lines, table.num_intervals, columns, cursor.group,
                [&](int64_t channel, int bin) { return table.line(channel, bin); });
  const T intervals = T(table.num_intervals);
  __syncthreads();

  const Line<T>* own = lines + threadIdx.x % kWarp;
  const auto quickly = [&](T value, int e) {
    return folded_quickly(value, scales[e], own + e * kWarp, V * kWarp, intervals);
  };
  const auto slowly = [&](T value, int e) {
    return folded_slowly(value, &table, cursor.group * V + e, columns.inner);
  };
  evaluate_all<X, V>(Direct<X>{x}, y, cursor, quickly, slowly);
}

// Any layout and any number of intervals, one element at a time: for tables that do not fit into shared
// memory.
template <typename X>
__global__ void __launch_bounds__(kThreads)
    folded_any(const X* __restrict__ x, X* __restrict__ y,
               const __grid_constant__ FoldedTable<Scalar<X>> table, Layout layout, int64_t count) {
  const int64_t step = int64_t(gridDim.x) * kThreads;
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < count; i += step) {
    const int64_t column = i % (layout.channels * layout.inner);
    narrow(folded_slowly(widen(x[i]), &table, column, layout.inner), y + i);
  }
}

}  // namespace pwlu::cuda
