// The CPU kernels of pwlu::forward and pwlu::backward.
#include "launch.h"

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "curves.h"
#include "parameter_gradients.h"
#include "sums.h"

namespace pwlu::cpu {
namespace {

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

template <typename T, typename X>
ChannelSums backward_typed(const Problem& p, const Tensor& grad, const Tensor& grad_x) {
  const CurveTable<T> table = curve_table<T>(p, is_rows(p.layout) ? Bins::kSlopes : Bins::kNone);
  const Curves<T>& curves = table.view();
  const X* g = read<X>(grad);
  const X* x = read<X>(p.x);
  X* to = write<X>(grad_x);
  const auto& kernels = chosen_kernels<T, X>();
  if (is_rows(p.layout)) {
    const auto add = [&](int64_t i, int64_t rows, int64_t first, int64_t count, T* sums, double*) {
      kernels.backward_rows(g + i, x + i, to + i, rows, p.layout.channels, first, count, curves, sums);
    };
    return sum_rows<T, X>(p.layout, p.num_intervals, add);
  }
  const auto add = [&](int64_t i, int64_t n, int64_t channel, T* sums, double*) {
    kernels.backward_run(g + i, x + i, to + i, n, curves, channel, sums);
  };
  return sum_runs<T, X>(p.layout, p.num_intervals, add);
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> backward(
    const Tensor& grad, const Tensor& x, const Tensor& left, const Tensor& right, const Tensor& points,
    const Tensor& left_slope, const Tensor& right_slope, int64_t channel_dim) {
  const Problem p = make_problem(x, left, right, points, left_slope, right_slope, channel_dim);
  const Tensor ordered = checked_gradient(grad, p.x);
  const Tensor grad_x = torch::stable::empty_like(p.x);
  const ParameterGradients gradients(p);
  dispatch(p.x.scalar_type(), [&](auto t, auto element) {
    using T = decltype(t);
    gradients.write<T>(
        p, p.x.numel() > 0 ? backward_typed<T, decltype(element)>(p, ordered, grad_x).bins : no_sums(p));
  });
  return {grad_x,           gradients.left,       gradients.right,
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
