// The kernels of y = PWLU(x).
//
// The look-up is shorter than that of the backward pass: the function is continuous, so that next to a knot
// either interval gives y to within rounding, and the tails are two more intervals that extend to infinity.
// Whatever comes out infinite or NaN (0 * inf on a flat tail, a collapsed channel, a NaN in x) is computed
// again by the specification.
#pragma once

#include "columns.cuh"
#include "input.cuh"
#include "runs.cuh"

namespace pwlu::cuda {

// y = start + rise * t in one interval, t counted from the interval's left end (the left tail's right end) in
// units of d.
template <typename T>
struct alignas(2 * sizeof(T)) Line {
  T start;
  T rise;
};

template <typename T>
__device__ __forceinline__ Line<T> line_of(const Table<T>& table, int64_t channel, int bin) {
  const T* points = table.points_of(channel);
  const int last = table.num_intervals;
  if (bin > 0 && bin <= last)
    return {points[bin - 1], points[bin] - points[bin - 1]};
  const T interval = table.curve(channel).interval;
  if (bin > last)
    return {points[last], table.right_slope[channel] * interval};
  return {points[0], table.left_slope[channel] * interval};
}

// What a thread keeps of a channel in registers.
template <typename T>
struct Scale {
  T left;
  T inverse;  // NaN in a channel that is not plain: sends every x to value_slowly
};

template <typename T>
__device__ __forceinline__ Scale<T> scale_of(const Curve<T>& curve) {
  return {curve.left, is_plain(curve) ? curve.inverse : T(NAN)};
}

// `lines`: those of the channel, `stride` apart.
template <typename T>
__device__ __forceinline__ T value_quickly(T x, const Scale<T>& scale, const Line<T>* lines, int stride,
                                           T intervals) {
  const T position = (x - scale.left) * scale.inverse;
  const T index = clamped(round_down(position), T(-1), intervals);
  const Line<T> line = lines[(static_cast<int>(index) + 1) * stride];
  return multiply_add(position - larger(index, T(0)), line.rise, line.start);
}

// The specification's way, off the hot path; a function of its own keeps its registers out of it. x is in
// column `column` of its row, of channel column / inner.
template <typename T>
__device__ __noinline__ T value_slowly(T x, const Table<T>* table, int64_t column, int64_t inner) {
  const int64_t channel = divide(column, inner);
  const Curve<T> curve = table->curve(channel);
  return value_at(locate(x, curve, table->num_intervals), curve, table->points_of(channel),
                  table->num_intervals);
}

// Evaluates the vectors `begin` to `end` on the cursor's way by slowly(x, e) where y is not finite.
template <typename X, int V, typename Input, typename Cursor, typename Slowly>
__device__ __forceinline__ void evaluate_again(const Input& input, X* __restrict__ y, Cursor cursor,
                                               int begin, int end, const Slowly& slowly) {
#pragma unroll 1
  for (int d = 0; d < end; ++d, cursor.advance()) {
    if (d < begin || cursor.left <= 0)
      continue;
#pragma unroll Input::kChannels
    for (int e = 0; e < V; ++e) {
      const int64_t i = cursor.position / int(sizeof(X)) + e;
      if (!(std::abs(widen(y[i])) <= Limits<Scalar<X>>::kMax))
        narrow(slowly(input.at(i, e), e), y + i);
    }
  }
}

// y of all elements on the cursor's way. quickly(x, e): of element e, not finite where it has to be slowly(x,
// e).
template <typename X, int V, typename Input, typename Cursor, typename Quickly, typename Slowly>
__device__ __forceinline__ void evaluate_all(const Input& input, X* __restrict__ y, const Cursor& cursor,
                                             const Quickly& quickly, const Slowly& slowly) {
  for_batches<X, V>(cursor, [&](const auto& batch, const Cursor& start) {
    Loaded<X, V, Input::kTerms> loaded;
    input.load(batch, &loaded);
#pragma unroll
    for (int begin = 0; begin < kDepth<X, V>; begin += kGroup<X, V>) {
      bool finite = true;
#pragma unroll
      for (int d = begin; d < begin + kGroup<X, V>; ++d) {
        Scalar<X> values[V];
        input.values(loaded, d, values);
#pragma unroll
        for (int e = 0; e < V; ++e) {
          values[e] = quickly(values[e], e);
          finite &= std::abs(values[e]) <= Limits<Scalar<X>>::kMax;
        }
        loaded.terms[0][d].pack(values);
      }
#pragma unroll
      for (int d = begin; d < begin + kGroup<X, V>; ++d) {
        if (batch.valid[d])
          loaded.terms[0][d].store(y, batch.position[d]);
      }
      if (!finite)
        evaluate_again<X, V>(input, y, start, begin, begin + kGroup<X, V>, slowly);
    }
  });
}

// input_of(channel): what a channel's function is evaluated at.
template <typename X, int V, typename InputOf>
__device__ __forceinline__ void evaluate_runs(X* __restrict__ y, const Table<Scalar<X>>& table,
                                              const Runs& runs, const InputOf& input_of) {
  using T = Scalar<X>;
  PWLU_SHARED_BYTES(shared);
  Line<T>* lines = reinterpret_cast<Line<T>*>(shared);
  const int64_t channel = blockIdx.x / runs.pieces.count;
  const Scale<T> scale = scale_of(table.curve(channel));
#pragma unroll 1
  for (int bin = threadIdx.x; bin < table.num_intervals + 2; bin += runs.threads) {
    lines[bin] = line_of(table, channel, bin);
  }
  const T intervals = T(table.num_intervals);
  const RunCursor cursor(runs, channel, blockIdx.x % runs.pieces.count);
  const auto input = input_of(channel);
  __syncthreads();

  const auto quickly = [&](T value, int) { return value_quickly(value, scale, lines, 1, intervals); };
  const auto slowly = [&](T value, int) { return value_slowly(value, &table, channel, 1); };
  evaluate_all<X, V>(input, y, cursor, quickly, slowly);
}

template <typename X, int V>
__global__ void __launch_bounds__(kThreads, sizeof(X) == 8 ? 3 : 4)
    forward_runs(const X* __restrict__ x, X* __restrict__ y, const __grid_constant__ Table<Scalar<X>> table,
                 const __grid_constant__ Runs runs) {
  evaluate_runs<X, V>(y, table, runs, [&](int64_t) { return Direct<X>{x}; });
}

// The lines of a tile, [bin][e][lane] for column e of a lane's V: every lane has a copy in banks of its own,
// so that no look-up waits for another. The warps share the copies, having the same columns, and the work.
template <int V, typename T, typename LineOf>
__device__ __forceinline__ void fill_lines(Line<T>* lines, int num_intervals, const Columns& columns,
                                           int64_t group, const LineOf& line) {
#pragma unroll 1
  for (int item = threadIdx.x / kWarp; item < (num_intervals + 2) * V; item += columns.threads / kWarp) {
    const int64_t channel = channel_of(columns, group, item % V, V);
    lines[item * kWarp + threadIdx.x % kWarp] = line(channel, item / V);
  }
}

// input_of(channel_at): what is evaluated in V columns, e of which is of channel channel_at(e).
template <typename X, int V, typename InputOf>
__device__ __forceinline__ void evaluate_columns(X* __restrict__ y, const Table<Scalar<X>>& table,
                                                 const Columns& columns, const InputOf& input_of) {
  using T = Scalar<X>;
  PWLU_SHARED_BYTES(shared);
  Line<T>* lines = reinterpret_cast<Line<T>*>(shared);
  const ColumnCursor cursor(columns, blockIdx.x / columns.pieces.count, blockIdx.x % columns.pieces.count);
  const auto channel_at = [&](int e) { return channel_of(columns, cursor.group, e, V); };
  Scale<T> scales[V];
#pragma unroll
  for (int e = 0; e < V; ++e)
    scales[e] = scale_of(table.curve(channel_at(e)));
  fill_lines<V>(lines, table.num_intervals, columns, cursor.group,
                [&](int64_t channel, int bin) { return line_of(table, channel, bin); });
  const T intervals = T(table.num_intervals);
  const auto input = input_of(channel_at);
  __syncthreads();

  const Line<T>* own = lines + threadIdx.x % kWarp;
  const auto quickly = [&](T value, int e) {
    return value_quickly(value, scales[e], own + e * kWarp, V * kWarp, intervals);
  };
  const auto slowly = [&](T value, int e) {
    return value_slowly(value, &table, cursor.group * V + e, columns.inner);
  };
  evaluate_all<X, V>(input, y, cursor, quickly, slowly);
}

template <typename X, int V>
__global__ void __launch_bounds__(kThreads, 3)
    forward_columns(const X* __restrict__ x, X* __restrict__ y,
                    const __grid_constant__ Table<Scalar<X>> table, const __grid_constant__ Columns columns) {
  evaluate_columns<X, V>(y, table, columns, [&](const auto&) { return Direct<X>{x}; });
}

// Any layout and any number of intervals, one element at a time: for tables that do not fit into shared
// memory.
template <typename X>
__global__ void __launch_bounds__(kThreads)
    forward_any(const X* __restrict__ x, X* __restrict__ y, const __grid_constant__ Table<Scalar<X>> table,
                Layout layout, int64_t count) {
  const int64_t step = int64_t(gridDim.x) * kThreads;
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < count; i += step) {
    const int64_t column = i % (layout.channels * layout.inner);
    narrow(value_slowly(widen(x[i]), &table, column, layout.inner), y + i);
  }
}

}  // namespace pwlu::cuda
