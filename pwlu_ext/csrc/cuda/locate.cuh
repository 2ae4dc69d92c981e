// Where x lies: pwlu.h's locate(), with the division done by multiplications.
#pragma once

#include "device.cuh"

namespace pwlu::cuda {

// A Location, with its bin counted from the first interval: -1 is the left tail, num_intervals the right one.
template <typename T>
struct Place {
  int interval;
  T coordinate;
};

// The specification's way, off the hot path; a function of its own keeps its registers out of it.
template <typename T>
__device__ __noinline__ Place<T> locate_slowly(T x, const Table<T>* table, int64_t channel) {
  const Location<T> at = locate(x, table->curve(channel), table->num_intervals);
  return {at.bin - 1, bounded(at.coordinate)};
}

// The same to the bit, except that the coordinate is not bounded(), for a channel that is_plain(). With the
// correctly rounded inverse of the divisor at hand, a multiplication and two fused ones round the quotient as
// the division does (Brisebarre, Muller and Raina, IEEE Trans. Computers 53(8), 2004).
template <typename T>
__device__ __forceinline__ Place<T> locate_quickly(T x, const Curve<T>& curve, int num_intervals) {
  const T distance = x - curve.left;
  const T estimate = distance * curve.inverse;
  const T rest = multiply_add(-estimate, curve.interval, distance);
  const T position = multiply_add(rest, curve.inverse, estimate);
  const T index = smaller(round_down(position), T(num_intervals - 1));
  const bool below = x < curve.left;
  const bool inside = !below && x < curve.edge;  // false for a NaN
  // An index is made only where position is sound.
  const int not_below = inside ? static_cast<int>(index) : num_intervals;
  const T right_of = inside ? position - index : x - curve.right;
  return {below ? -1 : not_below, below ? distance : right_of};
}

}  // namespace pwlu::cuda
