// A problem for the kernels: shape, memory, values; and what the specification, pwlu.h, makes of it.
#pragma once

#include <cstdio>
#include <random>
#include <string>

#include "../../csrc/cuda/dispatch.cuh"
#include "../../csrc/cuda/plan.h"

namespace pwlu::cuda::test {

struct Shape {
  Layout layout;
  int num_intervals;
  int misalignment;          // elements by which x starts late: breaks the alignment of vectors
  bool unusual;              // with NaN, infinities, collapsed and degenerate channels
  int64_t most_blocks = 64;  // few, so that even little tensors are cut into several pieces
};

// An array with guards on both sides that must stay as they are; all of it holds 0xff at first, a NaN.
template <typename X>
class Guarded {
 public:
  Guarded(int64_t count, int misalignment)
      : memory_((count + 2 * kGuard) * sizeof(X) + 32, 0xff), count_(count), start_(kGuard + misalignment) {}

  X* data() { return reinterpret_cast<X*>(aligned()) + start_; }
  const X* data() const { return const_cast<Guarded*>(this)->data(); }

  bool guards_hold() const {
    const auto* first = reinterpret_cast<const unsigned char*>(data());
    const auto* last = reinterpret_cast<const unsigned char*>(data() + count_);
    const auto is_guard = [](unsigned char byte) { return byte == 0xff; };
    return std::all_of(memory_.data(), first, is_guard) &&
           std::all_of(last, memory_.data() + memory_.size(), is_guard);
  }
  bool same_bits(const Guarded& other) const { return memcmp(data(), other.data(), count_ * sizeof(X)) == 0; }

 private:
  static constexpr int kGuard = 16;
  unsigned char* aligned() { return memory_.data() + (-reinterpret_cast<uintptr_t>(memory_.data()) & 15); }
  std::vector<unsigned char> memory_;
  int64_t count_;
  int start_;
};

template <typename X>
struct Problem {
  using T = Scalar<X>;
  Shape shape;
  int64_t count;
  std::vector<T> left, right, points, left_slope, right_slope;
  Guarded<X> x, g;
  std::vector<T> z;  // what the functions are evaluated at

  Problem(const Shape& shape, uint32_t seed);

  int64_t channel(int64_t i) const { return i / shape.layout.inner % shape.layout.channels; }
  Curve<T> curve(int64_t c) const {
    return make_curve(left[c], right[c], left_slope[c], right_slope[c], shape.num_intervals);
  }
  bool is_narrow(int64_t c) const { return curve(c).inverse > T(0x1p60); }
  const T* points_of(int64_t c) const { return points.data() + c * (shape.num_intervals + 1); }
  Parameters parameters() const {
    return {left.data(), right.data(), points.data(), left_slope.data(), right_slope.data()};
  }
};

// Channels that training can reach, or that are just odd: no interior, boundaries crossed, a d whose inverse
// overflows or is out of reach of the short cuts, a wide interior, flat tails.
template <typename T>
void make_unusual(int64_t channel, int num_intervals, T* left, T* right, T* left_slope, T* right_slope) {
  switch (channel % 8) {
    case 1:
      *right = *left;
      break;
    case 2:
      *right = *left - T(1);
      break;
    case 3:
      *left = T(0), *right = T(0.5) / Limits<T>::kMax;
      break;
    case 4:
      *left = T(0), *right = T(4.1) * T(num_intervals) / Limits<T>::kMax;
      break;
    case 5:
      *right = T(0x1p80);
      break;
    case 6:
      *right = T(1000);
      break;
    case 7:
      *left_slope = *right_slope = T(0);
      break;
    default:
      break;
  }
}

template <typename X>
Problem<X>::Problem(const Shape& shape, uint32_t seed)
    : shape(shape), count(numel(shape.layout)), x(count, shape.misalignment), g(count, shape.misalignment) {
  std::mt19937 random(seed);
  const auto uniform = [&](double low, double high) {
    return std::uniform_real_distribution<double>(low, high)(random);
  };
  for (int64_t c = 0; c < shape.layout.channels; ++c) {
    left.push_back(T(uniform(-3, -1)));
    right.push_back(T(uniform(1, 3)));
    left_slope.push_back(T(uniform(-1, 1)));
    right_slope.push_back(T(uniform(-1, 1)));
    if (shape.unusual)
      make_unusual(c, shape.num_intervals, &left[c], &right[c], &left_slope[c], &right_slope[c]);
    const double height = is_narrow(c) ? 1e-20 : 2;  // the slopes must not overflow
    for (int knot = 0; knot <= shape.num_intervals; ++knot)
      points.push_back(T(uniform(-height, height)));
  }
  for (int64_t i = 0; i < count; ++i) {
    const int64_t c = channel(i);
    T value = T(uniform(-4, 4)), upper = T(uniform(-1, 1));
    if (right[c] < 10 && (i % 7 == 3 || is_narrow(c)))  // a knot
      value = left[c] + T(i % (shape.num_intervals + 1)) * curve(c).interval;
    if (i % 101 == 5)
      value = left[c];
    if (i % 103 == 5 && right[c] < 10)
      value = right[c];
    const bool first = i < shape.layout.channels * shape.layout.inner && i % shape.layout.inner == 0;
    if (shape.unusual && first) {
      value = T(c % 5 == 0 ? NAN : c % 5 == 1 ? INFINITY : c % 5 == 2 ? -INFINITY : 0);
      if (c % 5 != 0 && c % 2 == 0)
        upper = T(0);  // 0 * inf must not come about
    }
    narrow(value, x.data() + i);
    narrow(upper, g.data() + i);
    z.push_back(widen(x.data()[i]));
  }
}

template <typename X>
struct Answer {
  using T = Scalar<X>;
  Guarded<X> y, grad_x;
  std::vector<T> left, right, points, left_slope, right_slope;

  explicit Answer(const Problem<X>& p)
      : y(p.count, 0),
        grad_x(p.count, 0),
        left(p.left.size(), T(NAN)),
        right(left),
        points(p.points.size(), T(NAN)),
        left_slope(left),
        right_slope(left) {}
};

// Sums as double; and for each channel the sum of their summands' magnitudes and the steepest slope, to tell
// what rounding may do.
template <typename X>
struct Expected : Answer<X> {
  using T = Scalar<X>;
  std::vector<double> size, steepest;

  explicit Expected(const Problem<X>& p);
};

template <typename X>
Expected<X>::Expected(const Problem<X>& p) : Answer<X>(p), size(p.left.size(), 1.0), steepest(size) {
  const int intervals = p.shape.num_intervals;
  const int bins = intervals + 2;
  std::vector<double> sum_g(p.left.size() * bins, 0.0), sum_gt(sum_g);
  for (int64_t i = 0; i < p.count; ++i) {
    const int64_t c = p.channel(i);
    const Curve<T> curve = p.curve(c);
    const T g = widen(p.g.data()[i]);
    const Location<T> at = locate(p.z[i], curve, intervals);
    narrow(value_at(at, curve, p.points_of(c), intervals), this->y.data() + i);
    narrow(g * slope_at(at.bin, curve, p.points_of(c), intervals), this->grad_x.data() + i);
    steepest[c] = std::max<double>(steepest[c], std::abs(slope_at(at.bin, curve, p.points_of(c), intervals)));
    sum_g[c * bins + at.bin] += g;
    sum_gt[c * bins + at.bin] += double(g) * bounded(at.coordinate);
    if (std::abs(at.coordinate) < 100)
      size[c] += std::abs(g) * (1 + std::abs(double(at.coordinate)));
  }
  for (size_t c = 0; c < p.left.size(); ++c) {
    const double* s = &sum_g[c * bins];
    const double* t = &sum_gt[c * bins];
    const auto gradient = curve_gradient(s, t, p.curve(c), p.points_of(c), intervals);
    this->left[c] = gradient.left;
    this->right[c] = gradient.right;
    this->left_slope[c] = gradient.left_slope;
    this->right_slope[c] = gradient.right_slope;
    for (int knot = 0; knot <= intervals; ++knot) {
      this->points[c * (intervals + 1) + knot] = point_gradient<T>(s, t, knot, intervals);
    }
  }
}

}  // namespace pwlu::cuda::test
