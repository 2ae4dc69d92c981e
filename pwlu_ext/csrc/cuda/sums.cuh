// What both backward kernels share: the two sums per bin, and how an element is added to them.
//
// Every thread adds to sums of its own in shared memory, [bin][thread], so that there are neither atomics nor
// conflicts of banks. At the end of its piece a block adds the sums of its threads, in a fixed order, and
// writes them as one partial sum; finish.cuh adds those up.
#pragma once

#include "input.cuh"
#include "locate.cuh"
#include "plan_backward.h"

namespace pwlu::cuda {

// Over the elements of a bin: of g = d loss / d y, and of g times the bounded() coordinate.
template <typename T>
struct alignas(2 * sizeof(T)) Sums {
  T g;
  T gt;
};

template <typename To, typename From>
__device__ __forceinline__ void add(const Sums<From>& summand, Sums<To>* total) {
  total->g += summand.g;
  total->gt += summand.gt;
}

// The bins that a block works on: all of them, unless their sums do not fit into shared memory. Then several
// blocks read the same elements, one at a time, and each handles those in its window.
struct Window {
  int first;
  int count;

  __device__ __forceinline__ Window(int size, int num_intervals) {
    first = blockIdx.y * size;
    const int rest = num_intervals + 2 - first;
    count = rest < size ? rest : size;
  }
  __device__ __forceinline__ bool holds(int interval) const {
    return static_cast<unsigned>(interval + 1 - first) < static_cast<unsigned>(count);
  }
};

// A channel as a thread sees it: its function, the thread's sums and the slopes (d y / d x). The interval
// that they are indexed by is counted from the second bin of the window, i.e. from the first interval if the
// window is all bins.
template <typename T>
struct Channel {
  int64_t index;
  Curve<T> curve;
  char* sums;
  int sums_stride;  // from one bin to the next, in bytes: one instruction less than in elements
  const T* slopes;
  int slopes_stride;

  // The arrays begin with the window's first bin.
  static __device__ __forceinline__ Channel of(int64_t index, const Curve<T>& curve, Sums<T>* sums,
                                               int sums_stride, const T* slopes, int slopes_stride) {
    return {index,
            curve,
            reinterpret_cast<char*>(sums + sums_stride),
            sums_stride * static_cast<int>(sizeof(Sums<T>)),
            slopes + slopes_stride,
            slopes_stride};
  }

  __device__ __forceinline__ Sums<T>* at(int interval) const {
    return reinterpret_cast<Sums<T>*>(sums + interval * sums_stride);
  }
  __device__ __forceinline__ void clear(int bins) const {
    for (int bin = 0; bin < bins; ++bin)
      *at(bin - 1) = {T(0), T(0)};
  }
  // Adds an element and returns d loss / d x.
  __device__ __forceinline__ T add(T g, const Place<T>& place) const {
    Sums<T>* own = at(place.interval);
    *own = {own->g + g, multiply_add(g, place.coordinate, own->gt)};
    return g * slopes[place.interval * slopes_stride];
  }
};

// What a thread needs to know of the elements on its way. channels: of the V elements of a vector, or one for
// all; plain: whether all of them are.
template <typename X, typename Input, int kChannels>
struct Work {
  const X* __restrict__ grad;
  X* __restrict__ grad_x;  // d loss / d z where the input is Normalized
  const Input& input;
  const Table<Scalar<X>>& table;
  Window window;
  Channel<Scalar<X>> channels[kChannels];
  bool plain;
  Moments<Scalar<X>, Input::kMoments, kChannels> moments;

  // Leaves the moments behind the last bin of the thread's sums.
  __device__ __forceinline__ void keep_moments() const {
    if constexpr (Input::kMoments > 0) {
#pragma unroll
      for (int e = 0; e < kChannels; ++e)
        *channels[e].at(window.count - 1) = {
            moments.totals[0][e], Input::kMoments == 2 ? moments.totals[Input::kMoments - 1][e] : 0};
    }
  }
};

// Bins besides those of the functions.
template <typename Input>
constexpr int kMoreBins = Input::kMoments > 0;

// Adds element i, in column e of its vector, to its sums and writes its gradient, the specification's way.
template <typename X, typename Input, int kChannels>
__device__ __forceinline__ void accumulate_slowly(int64_t i, int e, Work<X, Input, kChannels>* work) {
  const Channel<Scalar<X>>& channel = work->channels[e % kChannels];
  auto place = locate_slowly(work->input.at(i, e), &work->table, channel.index);
  if (!work->window.holds(place.interval))
    return;
  place.interval -= work->window.first;
  const Scalar<X> grad = channel.add(widen(work->grad[i]), place);
  narrow(grad, work->grad_x + i);
  if constexpr (Input::kMoments > 0)
    work->input.add_moments(i, e, grad, &work->moments);
}

// Accumulates the vectors `begin` to `end` on the cursor's way, the specification's way.
template <typename X, int V, typename Input, int kChannels, typename Cursor>
__device__ __forceinline__ void accumulate_slowly(Cursor cursor, int begin, int end,
                                                  Work<X, Input, kChannels>* work) {
#pragma unroll 1
  for (int d = 0; d < end; ++d, cursor.advance()) {
    if (d < begin || cursor.left <= 0)
      continue;
#pragma unroll kChannels
    for (int e = 0; e < V; ++e)
      accumulate_slowly(cursor.position / int(sizeof(X)) + e, e, work);
  }
}

// Where the elements of the group that begins with vector `begin` lie. False where one of them is for
// accumulate_slowly.
template <typename X, int V, typename Input, int kChannels>
__device__ __forceinline__ bool locate_group(const Loaded<X, V, Input::kTerms>& loaded, int begin,
                                             const Work<X, Input, kChannels>& work,
                                             Place<Scalar<X>> (&places)[kGroup<X, V>][V]) {
  bool quick = work.plain;
#pragma unroll
  for (int d = 0; d < kGroup<X, V>; ++d) {
    Scalar<X> x[V];
    work.input.values(loaded, begin + d, x);
#pragma unroll
    for (int e = 0; e < V; ++e) {
      places[d][e] = locate_quickly(x[e], work.channels[e % kChannels].curve, work.table.num_intervals);
      quick &= std::abs(places[d][e].coordinate) <= Limits<Scalar<X>>::kMax;
    }
  }
  return quick;
}

// Adds V elements, vector `d` of the batch, to their sums and replaces g by their gradient. False, and
// nothing done, if the element lies in another window (there are several only where V is 1).
template <typename X, int V, typename Input, int kChannels>
__device__ __forceinline__ bool accumulate(Packed<X, V>* packed_g, const Loaded<X, V, Input::kTerms>& loaded,
                                           int d, Place<Scalar<X>> (&places)[V],
                                           Work<X, Input, kChannels>* work) {
  if constexpr (V == 1) {
    if (!work->window.holds(places[0].interval))
      return false;
    places[0].interval -= work->window.first;
  }
  Scalar<X> g[V];
  packed_g->unpack(g);
#pragma unroll
  for (int e = 0; e < V; ++e)
    g[e] = work->channels[e % kChannels].add(g[e], places[e]);
  if constexpr (Input::kMoments > 0)
    work->input.add_moments(loaded, d, g, &work->moments);
  packed_g->pack(g);
  return true;
}

// All elements on the cursor's way.
template <typename X, int V, typename Input, int kChannels, typename Cursor>
__device__ __forceinline__ void accumulate_all(const Cursor& cursor, Work<X, Input, kChannels>* work) {
  for_batches<X, V>(cursor, [&](const auto& batch, const Cursor& start) {
    Packed<X, V> g[kDepth<X, V>];
    Loaded<X, V, Input::kTerms> loaded;
    batch.load(work->grad, g);
    work->input.load(batch, &loaded);
#pragma unroll
    for (int begin = 0; begin < kDepth<X, V>; begin += kGroup<X, V>) {
      Place<Scalar<X>> places[kGroup<X, V>][V];
      if (!locate_group(loaded, begin, *work, places)) {
        accumulate_slowly<X, V>(start, begin, begin + kGroup<X, V>, work);
        continue;
      }
#pragma unroll
      for (int d = 0; d < kGroup<X, V>; ++d) {
        const bool mine = accumulate(&g[begin + d], loaded, begin + d, places[d], work);
        if (mine && batch.valid[begin + d])
          g[begin + d].store(work->grad_x, batch.position[begin + d]);
      }
    }
  });
}

}  // namespace pwlu::cuda
