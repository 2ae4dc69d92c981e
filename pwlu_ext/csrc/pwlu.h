// The scalar mathematics of the Piecewise Linear Unit for host and device code: value_at is Eq. 1 (for
// vectors: cpu/vector_curve.h, without a division: cuda/locate.cuh), slope_at, curve_gradient and
// point_gradient are Table 1.
//
// Names follow the paper (section 3.1): left = B_L, right = B_R, points = Y_P, left_slope = K_L, right_slope
// = K_R, num_intervals = N, interval = d = (B_R - B_L) / N.
//
// Nothing here includes a torch header, so that .cu files which use it compile in seconds.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define PWLU_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define PWLU_HOST_DEVICE inline
#endif

namespace pwlu {

// Where a tensor's channels lie in its (dense) memory: element i belongs to channel (i / inner) % channels.
// NCHW: outer = N, inner = H * W. channels_last: outer = N * H * W, inner = 1. Layer-wise: one channel, inner
// = numel.
struct Layout {
  int64_t outer;
  int64_t channels;
  int64_t inner;
};

template <typename T>
struct Limits;
template <>
struct Limits<float> {
  static constexpr float kMax = 3.402823466e+38F;
};
template <>
struct Limits<double> {
  static constexpr double kMax = 1.7976931348623157e+308;
};

template <typename T>
PWLU_HOST_DEVICE bool is_finite(T value) {
  return value - value == T(0);  // false for NaN and for both infinities
}

// What one channel's function needs besides its table of points.
template <typename T>
struct Curve {
  T left, right, left_slope, right_slope;
  T edge;      // the interior is [left, edge): edge = right, or left where the interior has collapsed
  T interval;  // d; 1 where collapsed
  T inverse;   // 1 / d; 0 where collapsed
  // The distances from the boundaries are cut off here: infinity, or the largest finite number where the
  // slope is 0, because 0 * inf would make a NaN where ReLU has none.
  T left_limit, right_limit;
};

// Training may drive right to left or below it. Then, or when d or 1 / d is not finite, no x is in the
// interior: the function is its left tail for x < left and its right tail for all others.
template <typename T>
PWLU_HOST_DEVICE Curve<T> make_curve(T left, T right, T left_slope, T right_slope, int num_intervals) {
  const T infinity = Limits<T>::kMax * T(2);
  const T interval = (right - left) / T(num_intervals);
  const bool open = interval > T(0) && is_finite(interval) && is_finite(T(1) / interval);
  Curve<T> curve;
  curve.left = left;
  curve.right = right;
  curve.left_slope = left_slope;
  curve.right_slope = right_slope;
  curve.edge = open ? right : left;
  curve.interval = open ? interval : T(1);
  curve.inverse = open ? T(1) / interval : T(0);
  curve.left_limit = left_slope == T(0) ? Limits<T>::kMax : infinity;
  curve.right_limit = right_slope == T(0) ? Limits<T>::kMax : infinity;
  return curve;
}

// Where x lies. bin: 0 for the left tail, i + 1 for interval i, num_intervals + 1 for the right tail (so that
// a bin can index a table of num_intervals + 2 sums). A NaN goes to the right tail; no index is ever made
// from it. coordinate: t = (x - B_i) / d in [0, 1] inside; in the tails the distance x - left or x - right.
template <typename T>
struct Location {
  int bin;
  T coordinate;
};

// floor((x - left) / d) is taken of a true division (Eq. 2): a multiplication by 1 / d puts an x that is
// exactly a knot into the interval on its left now and then.
template <typename T>
PWLU_HOST_DEVICE Location<T> locate(T x, const Curve<T>& curve, int num_intervals) {
  if (x < curve.left)
    return {0, x - curve.left};
  if (!(x < curve.edge))
    return {num_intervals + 1, x - curve.right};
  const T position = (x - curve.left) / curve.interval;
  int index = static_cast<int>(position);  // position is in [0, num_intervals]: truncation is floor
  if (index > num_intervals - 1)
    index = num_intervals - 1;
  return {index + 1, position - T(index)};
}

template <typename T>
PWLU_HOST_DEVICE T at_most(T value, T limit) {
  return value > limit ? limit : value;  // keeps a NaN, which fmin would not
}

// The coordinate as it enters sum_gt below: an infinite distance counts as the largest finite one, because g
// * inf is a NaN for every g that is 0. (A NaN stays a NaN.)
template <typename T>
PWLU_HOST_DEVICE T bounded(T coordinate) {
  const T largest = Limits<T>::kMax;
  return coordinate > largest ? largest : coordinate < -largest ? -largest : coordinate;
}

// Equation 1, in the local form, which does not cancel far from the origin.
template <typename T>
PWLU_HOST_DEVICE T value_at(Location<T> at, const Curve<T>& curve, const T* points, int num_intervals) {
  if (at.bin == 0)
    return points[0] - at_most(-at.coordinate, curve.left_limit) * curve.left_slope;
  if (at.bin == num_intervals + 1) {
    return points[num_intervals] + at_most(at.coordinate, curve.right_limit) * curve.right_slope;
  }
  const T start = points[at.bin - 1];
  return start + at.coordinate * (points[at.bin] - start);
}

// d PWLU / d x (first row of Table 1).
template <typename T>
PWLU_HOST_DEVICE T slope_at(int bin, const Curve<T>& curve, const T* points, int num_intervals) {
  if (bin == 0)
    return curve.left_slope;
  if (bin == num_intervals + 1)
    return curve.right_slope;
  return (points[bin] - points[bin - 1]) * curve.inverse;
}

// The sum of d loss / d x over a channel: within a bin it is the slope times sum_g(bin), that of d loss / d
// y.
template <typename T, typename SumG>
PWLU_HOST_DEVICE double sum_of_input_gradient(const SumG& sum_g, const Curve<T>& curve, const T* points,
                                              int num_intervals) {
  double total = 0;
  for (int bin = 0; bin < num_intervals + 2; ++bin)
    total += double(slope_at(bin, curve, points, num_intervals)) * sum_g(bin);
  return total;
}

// The gradients of the parameters (Table 1), summed over a channel. Within a bin y is linear in the
// coordinate, so that all of them follow from two sums per bin, of g = d loss / d y: sum_g[bin] = sum of g,
// and sum_gt[bin] = sum of g * bounded(coordinate).

// d loss / d B_L, d loss / d B_R, d loss / d K_L and d loss / d K_R.
template <typename T>
struct CurveGradient {
  T left, right, left_slope, right_slope;
};

// d loss / d B_L and d loss / d B_R.
template <typename Sum>
struct BoundaryGradient {
  Sum left, right;
};

// What the elements in interval i contribute to the gradients of B_L and B_R.
template <typename T, typename Sum>
PWLU_HOST_DEVICE BoundaryGradient<Sum> boundary_gradient_of_interval(const Sum* sum_g, const Sum* sum_gt,
                                                                     const Curve<T>& curve, const T* points,
                                                                     int i, int num_intervals) {
  // (x - B_R) / (B_R - B_L) = (i + t) / N - 1 and (B_L - x) / (B_R - B_L) = -(i + t) / N
  const Sum slope = (Sum(points[i + 1]) - Sum(points[i])) * Sum(curve.inverse);
  const Sum moment = (Sum(i) * sum_g[i + 1] + sum_gt[i + 1]) / Sum(num_intervals);
  return {slope * (moment - sum_g[i + 1]), -slope * moment};
}

// The tails added to `inside`, the boundaries' gradient from all intervals: d y / d B_L = -K_L and
// d y / d K_L = x - B_L in the left one.
template <typename T, typename Sum>
PWLU_HOST_DEVICE CurveGradient<T> with_tails(BoundaryGradient<Sum> inside, const Sum* sum_g,
                                             const Sum* sum_gt, const Curve<T>& curve, int num_intervals) {
  const int last = num_intervals + 1;
  return {T(inside.left - Sum(curve.left_slope) * sum_g[0]),
          T(inside.right - Sum(curve.right_slope) * sum_g[last]), T(sum_gt[0]), T(sum_gt[last])};
}

template <typename T, typename Sum>
PWLU_HOST_DEVICE CurveGradient<T> curve_gradient(const Sum* sum_g, const Sum* sum_gt, const Curve<T>& curve,
                                                 const T* points, int num_intervals) {
  BoundaryGradient<Sum> inside = {Sum(0), Sum(0)};
  for (int i = 0; i < num_intervals; ++i) {
    const auto share = boundary_gradient_of_interval(sum_g, sum_gt, curve, points, i, num_intervals);
    inside.left += share.left;
    inside.right += share.right;
  }
  return with_tails(inside, sum_g, sum_gt, curve, num_intervals);
}

// d loss / d Y_P[knot], knot = 0 .. num_intervals.
template <typename T, typename Sum>
PWLU_HOST_DEVICE T point_gradient(const Sum* sum_g, const Sum* sum_gt, int knot, int num_intervals) {
  const Sum from_left = knot == 0 ? sum_g[0] : sum_gt[knot];
  const Sum from_right = knot == num_intervals ? sum_g[knot + 1] : sum_g[knot + 1] - sum_gt[knot + 1];
  return T(from_left + from_right);
}

}  // namespace pwlu
