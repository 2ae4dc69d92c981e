// Compares what the kernels make of a Problem with what the specification does.
#pragma once

#include "report.h"

namespace pwlu::cuda::test {
namespace {

template <typename X>
void compare_elements(const Problem<X>& p, const Answer<X>& answer, const Expected<X>& expected) {
  using T = Scalar<X>;
  for (int64_t i = 0; i < p.count; ++i) {
    const double y = widen(answer.y.data()[i]), wanted = widen(expected.y.data()[i]);
    const Curve<T> curve = p.curve(p.channel(i));
    // Next to a boundary, y is as good as x - left is.
    const double span = std::abs(double(curve.right - curve.left) * curve.right_slope);
    const double tolerance =
        2 * Kind<X>::kRounding * std::abs(wanted) +
        Kind<T>::kRounding * (4 * span + 16 * p.shape.num_intervals * (4 + std::abs(wanted)));
    if (!close(y, wanted, tolerance)) {
      fail(p.shape, Kind<X>::kName, "y[%lld] = %.9g, expected %.9g at z = %.9g", (long long)i, y, wanted,
           double(p.z[i]));
      return;
    }
  }
  if (answer.grad_x.same_bits(expected.grad_x))
    return;
  for (int64_t i = 0; i < p.count; ++i) {
    const double got = widen(answer.grad_x.data()[i]), wanted = widen(expected.grad_x.data()[i]);
    if (got != wanted) {
      fail(p.shape, Kind<X>::kName, "grad_x[%lld] = %.9g, expected %.9g at z = %.9g", (long long)i, got,
           wanted, double(p.z[i]));
      return;
    }
  }
}

template <typename X>
void compare_parameters(const Problem<X>& p, const char* name, const std::vector<Scalar<X>>& got,
                        const std::vector<Scalar<X>>& wanted, const Expected<X>& expected, bool times_slope) {
  using T = Scalar<X>;
  const size_t per_channel = got.size() / expected.size.size();
  for (size_t i = 0; i < got.size(); ++i) {
    const size_t c = i / per_channel;
    const double tolerance = 64 * Kind<T>::kRounding * expected.size[c] * p.shape.num_intervals;
    if (!close(got[i], wanted[i], times_slope ? tolerance * expected.steepest[c] : tolerance)) {
      fail(p.shape, Kind<X>::kName, "gradient of %s[%zu] = %.9g, expected %.9g", name, i, double(got[i]),
           double(wanted[i]));
      return;
    }
  }
}

template <typename X>
void compare(const Problem<X>& p, const Answer<X>& answer, const Expected<X>& expected) {
  compare_elements(p, answer, expected);
  compare_parameters(p, "left", answer.left, expected.left, expected, true);
  compare_parameters(p, "right", answer.right, expected.right, expected, true);
  compare_parameters(p, "points", answer.points, expected.points, expected, false);
  compare_parameters(p, "left_slope", answer.left_slope, expected.left_slope, expected, false);
  compare_parameters(p, "right_slope", answer.right_slope, expected.right_slope, expected, false);
}

template <typename X>
bool same_bits(const Answer<X>& a, const Answer<X>& b) {
  const auto same = [](const auto& u, const auto& v) {
    return memcmp(u.data(), v.data(), u.size() * sizeof(u[0])) == 0;
  };
  return a.y.same_bits(b.y) && a.grad_x.same_bits(b.grad_x) && same(a.left, b.left) &&
         same(a.right, b.right) && same(a.points, b.points) && same(a.left_slope, b.left_slope) &&
         same(a.right_slope, b.right_slope);
}

}  // namespace
}  // namespace pwlu::cuda::test
