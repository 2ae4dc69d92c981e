// What both backward kernels share: the two sums per bin, and how an element is added to them.
//
// Every thread adds to sums of its own in shared memory, [bin][thread], so that there are neither atomics nor conflicts of
// banks. At the end of its piece a block adds the sums of its threads, in a fixed order, and writes them as one partial
// sum; finish.cuh adds those up.
#pragma once

#include "element.cuh"
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

// The bins that a block works on: all of them, unless their sums do not fit into shared memory. Then several blocks
// read the same elements, one at a time, and each handles those in its window.
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

// A channel as a thread sees it: its function, the thread's sums and the slopes (d y / d x). The interval that they are
// indexed by is counted from the second bin of the window, i.e. from the first interval if the window is all bins.
template <typename T>
struct Channel {
  int64_t index;
  Curve<T> curve;
  char* sums;
  int sums_stride;  // from one bin to the next, in bytes: one instruction less than in elements
  const T* slopes;
  int slopes_stride;

  // The arrays begin with the window's first bin.
  static __device__ __forceinline__ Channel of(int64_t index, const Curve<T>& curve, Sums<T>* sums, int sums_stride,
                                               const T* slopes, int slopes_stride) {
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
    for (int bin = 0; bin < bins; ++bin) *at(bin - 1) = {T(0), T(0)};
  }
  // Adds an element and returns d loss / d x.
  __device__ __forceinline__ T add(T g, const Place<T>& place) const {
    Sums<T>* own = at(place.interval);
    *own = {own->g + g, multiply_add(g, place.coordinate, own->gt)};
    return g * slopes[place.interval * slopes_stride];
  }
};

// The tensors of the backward pass.
template <typename X>
struct Streams {
  const X* __restrict__ grad;
  const X* __restrict__ x;
  X* __restrict__ grad_x;
};

// Adds an element to its sums and writes d loss / d x, the specification's way.
template <typename X>
__device__ __forceinline__ void settle_slowly(const Streams<X>& streams, int64_t position,
                                              const Channel<Scalar<X>>& channel, const Table<Scalar<X>>& table,
                                              const Window& window) {
  auto place = locate_slowly(widen(streams.x[position]), &table, channel.index);
  if (!window.holds(place.interval)) return;
  place.interval -= window.first;
  narrow(channel.add(widen(streams.grad[position]), place), streams.grad_x + position);
}

// Adds V elements to their sums and writes d loss / d x. channels: of each element, or one for all; plain: whether all
// of them are. An element that lies in another window is left to that one's block (there are several only where V is 1).
template <typename X, int V, int kChannels>
__device__ __forceinline__ void settle(const Packed<X, V>& packed_g, const Packed<X, V>& packed_x,
                                       const Streams<X>& streams, int64_t position,
                                       const Channel<Scalar<X>> (&channels)[kChannels], bool plain,
                                       const Table<Scalar<X>>& table, const Window& window) {
  using T = Scalar<X>;
  T x[V], g[V];
  packed_x.unpack(x);
  packed_g.unpack(g);
  Place<T> places[V];
  bool quick = plain;
#pragma unroll
  for (int e = 0; e < V; ++e) {
    places[e] = locate_quickly(x[e], channels[e % kChannels].curve, table.num_intervals);
    quick &= std::abs(places[e].coordinate) <= Limits<T>::kMax;
  }
  if (!quick) {
#pragma unroll kChannels
    for (int e = 0; e < V; ++e) {
      settle_slowly(streams, position + e, channels[e % kChannels], table, window);
    }
    return;
  }
  if constexpr (V == 1) {
    if (!window.holds(places[0].interval)) return;
    places[0].interval -= window.first;
  }
#pragma unroll
  for (int e = 0; e < V; ++e) g[e] = channels[e % kChannels].add(g[e], places[e]);
  Packed<X, V> packed;
  packed.pack(g);
  packed.store(streams.grad_x + position);
}

}  // namespace pwlu::cuda
