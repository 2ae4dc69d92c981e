// The CPU kernels of pwlu::forward and pwlu::backward.
#include "launch.h"

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "curves.h"
#include "parallel.h"

namespace pwlu::cpu {
namespace {

template <typename T>
CurveTable<T> curve_table(const Problem& p, Bins bins) {
  return {read<T>(p.left),        read<T>(p.right),  read<T>(p.points), read<T>(p.left_slope),
          read<T>(p.right_slope), p.layout.channels, p.num_intervals,   bins};
}

template <typename T, typename X>
void forward_typed(const Problem& p, const Tensor& y) {
  const CurveTable<T> table = curve_table<T>(p, is_rows(p.layout) ? Bins::kLines : Bins::kNone);
  const X* from = read<X>(p.x);
  X* to = write<X>(y);
  const auto& kernels = chosen_kernels<T, X>();
  const Curves<T>& curves = table.view();
  if (is_rows(p.layout)) {
    for_rows(p.layout, [&](int64_t i, int64_t rows, int64_t first, int64_t count) {
      kernels.forward_rows(from + i, to + i, rows, p.layout.channels, first, count, curves);
    });
  } else {
    for_runs(p.layout, [&](int64_t i, int64_t count, int64_t channel) {
      kernels.forward_run(from + i, to + i, count, curves, channel);
    });
  }
}

Tensor forward(const Tensor& x, const Tensor& left, const Tensor& right, const Tensor& points,
               const Tensor& left_slope, const Tensor& right_slope, int64_t channel_dim) {
  const Problem p = make_problem(x, left, right, points, left_slope, right_slope, channel_dim);
  Tensor y = torch::stable::empty_like(p.x);
  if (p.x.numel() > 0) {
    dispatch(p.x.scalar_type(),
             [&](auto t, auto element) { forward_typed<decltype(t), decltype(element)>(p, y); });
  }
  return y;
}

struct Gradients {
  Tensor x, left, right, points, left_slope, right_slope;
};

// The closed form: from the two sums per bin to the gradients of Table 1, channel by channel.
template <typename T>
void write_parameter_gradients(const Problem& p, const std::vector<double>& sums,
                               const Gradients& gradients) {
  const T *left = read<T>(p.left), *right = read<T>(p.right), *points = read<T>(p.points);
  const T *left_slope = read<T>(p.left_slope), *right_slope = read<T>(p.right_slope);
  T *grad_left = write<T>(gradients.left), *grad_right = write<T>(gradients.right);
  T *grad_left_slope = write<T>(gradients.left_slope), *grad_right_slope = write<T>(gradients.right_slope);
  T* grad_points = write<T>(gradients.points);
  const int bins = p.num_intervals + 2, knots = p.num_intervals + 1;
  std::vector<double> sum_g(bins), sum_gt(bins);
  for (int64_t c = 0; c < p.layout.channels; ++c, points += knots, grad_points += knots) {
    for (int bin = 0; bin < bins; ++bin) {
      sum_g[bin] = sums[2 * (c * bins + bin)];
      sum_gt[bin] = sums[2 * (c * bins + bin) + 1];
    }
    const Curve<T> curve = make_curve(left[c], right[c], left_slope[c], right_slope[c], p.num_intervals);
    const auto g = curve_gradient(sum_g.data(), sum_gt.data(), curve, points, p.num_intervals);
    grad_left[c] = g.left;
    grad_right[c] = g.right;
    grad_left_slope[c] = g.left_slope;
    grad_right_slope[c] = g.right_slope;
    for (int knot = 0; knot < knots; ++knot)
      grad_points[knot] = point_gradient<T>(sum_g.data(), sum_gt.data(), knot, p.num_intervals);
  }
}

template <typename T, typename X>
void backward_typed(const Problem& p, const Tensor& grad, const Gradients& gradients) {
  std::vector<double> sums(2 * p.layout.channels * (p.num_intervals + 2), 0.0);
  if (p.x.numel() > 0) {
    const CurveTable<T> table = curve_table<T>(p, is_rows(p.layout) ? Bins::kSlopes : Bins::kNone);
    const X* g = read<X>(grad);
    const X* x = read<X>(p.x);
    X* grad_x = write<X>(gradients.x);
    sums = is_rows(p.layout) ? backward_rows<T, X>(g, x, grad_x, p.layout, table.view())
                             : backward_runs<T, X>(g, x, grad_x, p.layout, table.view());
  }
  write_parameter_gradients<T>(p, sums, gradients);
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> backward(
    const Tensor& grad, const Tensor& x, const Tensor& left, const Tensor& right, const Tensor& points,
    const Tensor& left_slope, const Tensor& right_slope, int64_t channel_dim) {
  using torch::stable::empty_like;
  const Problem p = make_problem(x, left, right, points, left_slope, right_slope, channel_dim);
  const Tensor ordered = checked_gradient(grad, p.x);
  const Gradients gradients = {empty_like(p.x),      empty_like(p.left),       empty_like(p.right),
                               empty_like(p.points), empty_like(p.left_slope), empty_like(p.right_slope)};
  dispatch(p.x.scalar_type(), [&](auto t, auto element) {
    backward_typed<decltype(t), decltype(element)>(p, ordered, gradients);
  });
  return {gradients.x,      gradients.left,       gradients.right,
          gradients.points, gradients.left_slope, gradients.right_slope};
}

std::string cpu_isa() {
  return chosen_instruction_set().name;
}

}  // namespace
}  // namespace pwlu::cpu

STABLE_TORCH_LIBRARY_IMPL(pwlu, CPU, library) {
  library.impl("forward", TORCH_BOX(&pwlu::cpu::forward));
  library.impl("backward", TORCH_BOX(&pwlu::cpu::backward));
}

STABLE_TORCH_LIBRARY_IMPL(pwlu, CompositeExplicitAutograd, library) {
  library.impl("cpu_isa", TORCH_BOX(&pwlu::cpu::cpu_isa));
}
