// The CPU kernels of pwlu::forward and pwlu::backward.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "../checks.h"
#include "curves.h"
#include "parallel.h"

namespace pwlu::cpu {
namespace {

template <typename T>
CurveTable<T> curve_table(const Problem& p) {
  return {static_cast<const T*>(p.left.data_ptr()),
          static_cast<const T*>(p.right.data_ptr()),
          static_cast<const T*>(p.points.data_ptr()),
          static_cast<const T*>(p.left_slope.data_ptr()),
          static_cast<const T*>(p.right_slope.data_ptr()),
          p.layout.channels,
          p.num_intervals};
}

// Calls f with (T, X) numbers that name the types of the parameters and of x.
template <typename F>
void dispatch(ScalarType type, const F& f) {
  switch (type) {
    case ScalarType::Float:
      return f(float{}, float{});
    case ScalarType::Double:
      return f(double{}, double{});
    case ScalarType::BFloat16:
      return f(float{}, BFloat16{});
    case ScalarType::Half:
      return f(float{}, Half{});
    default:
      fail("no kernel for ", name_of(type), ".");
  }
}

// inner == 1 puts neighbouring elements into different channels (channels_last); otherwise they share theirs.
bool is_rows(const Layout& layout) {
  return layout.inner == 1 && layout.channels > 1;
}

template <typename T, typename X>
void forward_typed(const Problem& p, const Tensor& y) {
  const CurveTable<T> table = curve_table<T>(p);
  const X* from = static_cast<const X*>(p.x.data_ptr());
  X* to = static_cast<X*>(y.data_ptr());
  if (is_rows(p.layout)) {
    forward_rows<T, X>(from, to, p.layout, table.view());
  } else {
    forward_runs<T, X>(from, to, p.layout, table.view());
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
  const auto read = [](const Tensor& tensor) { return static_cast<const T*>(tensor.data_ptr()); };
  const auto write = [](const Tensor& tensor) { return static_cast<T*>(tensor.data_ptr()); };
  const int bins = p.num_intervals + 2;
  std::vector<double> sum_g(bins), sum_gt(bins);
  for (int64_t c = 0; c < p.layout.channels; ++c) {
    for (int bin = 0; bin < bins; ++bin) {
      sum_g[bin] = sums[2 * (c * bins + bin)];
      sum_gt[bin] = sums[2 * (c * bins + bin) + 1];
    }
    const Curve<T> curve = make_curve(read(p.left)[c], read(p.right)[c], read(p.left_slope)[c],
                                      read(p.right_slope)[c], p.num_intervals);
    const auto g = boundary_gradient(sum_g.data(), sum_gt.data(), curve, read(p.points) + c * (bins - 1),
                                     p.num_intervals);
    write(gradients.left)[c] = g.left;
    write(gradients.right)[c] = g.right;
    write(gradients.left_slope)[c] = g.left_slope;
    write(gradients.right_slope)[c] = g.right_slope;
    for (int knot = 0; knot < bins - 1; ++knot) {
      write(gradients.points)[c * (bins - 1) + knot] =
          point_gradient<T>(sum_g.data(), sum_gt.data(), knot, p.num_intervals);
    }
  }
}

template <typename T, typename X>
void backward_typed(const Problem& p, const Tensor& grad, const Gradients& gradients) {
  std::vector<double> sums(2 * p.layout.channels * (p.num_intervals + 2), 0.0);
  if (p.x.numel() > 0) {
    const CurveTable<T> table = curve_table<T>(p);
    const X* g = static_cast<const X*>(grad.data_ptr());
    const X* x = static_cast<const X*>(p.x.data_ptr());
    X* grad_x = static_cast<X*>(gradients.x.data_ptr());
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
