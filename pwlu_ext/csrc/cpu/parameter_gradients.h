// From the sums of a backward pass to the gradients of the parameters.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <vector>

#include "launch.h"

namespace pwlu::cpu {

// Those of a tensor without elements.
inline std::vector<double> no_sums(const Problem& p) {
  return std::vector<double>(2 * p.layout.channels * (p.num_intervals + 2), 0.0);
}

struct ParameterGradients {
  Tensor left, right, points, left_slope, right_slope;

  explicit ParameterGradients(const Problem& p)
      : left(torch::stable::empty_like(p.left)),
        right(torch::stable::empty_like(p.right)),
        points(torch::stable::empty_like(p.points)),
        left_slope(torch::stable::empty_like(p.left_slope)),
        right_slope(torch::stable::empty_like(p.right_slope)) {}

  // The closed form: from the two sums per bin to the gradients of Table 1, channel by channel.
  template <typename T>
  void write(const Problem& p, const std::vector<double>& sums) const {
    const T *of_left = read<T>(p.left), *of_right = read<T>(p.right), *of_points = read<T>(p.points);
    const T *of_left_slope = read<T>(p.left_slope), *of_right_slope = read<T>(p.right_slope);
    T* to_points = pwlu::cpu::write<T>(points);
    const int bins = p.num_intervals + 2, knots = p.num_intervals + 1;
    std::vector<double> sum_g(bins), sum_gt(bins);
    for (int64_t c = 0; c < p.layout.channels; ++c, of_points += knots, to_points += knots) {
      for (int bin = 0; bin < bins; ++bin) {
        sum_g[bin] = sums[2 * (c * bins + bin)];
        sum_gt[bin] = sums[2 * (c * bins + bin) + 1];
      }
      const Curve<T> curve =
          make_curve(of_left[c], of_right[c], of_left_slope[c], of_right_slope[c], p.num_intervals);
      const auto g = curve_gradient(sum_g.data(), sum_gt.data(), curve, of_points, p.num_intervals);
      pwlu::cpu::write<T>(left)[c] = g.left;
      pwlu::cpu::write<T>(right)[c] = g.right;
      pwlu::cpu::write<T>(left_slope)[c] = g.left_slope;
      pwlu::cpu::write<T>(right_slope)[c] = g.right_slope;
      for (int knot = 0; knot < knots; ++knot)
        to_points[knot] = point_gradient<T>(sum_g.data(), sum_gt.data(), knot, p.num_intervals);
    }
  }
};

}  // namespace pwlu::cpu
