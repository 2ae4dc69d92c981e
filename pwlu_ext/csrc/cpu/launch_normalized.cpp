// The CPU kernels of pwlu::normalized and its gradients: PWLUs behind a BatchNorm.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "../checks_normalized.h"
#include "curves.h"
#include "parameter_gradients.h"
#include "sums.h"

namespace pwlu::cpu {
namespace {

// The numbers of a Term. Without a BatchNorm it is x itself.
template <typename T>
class Affine {
 public:
  Affine(const NormalizedTerm& term, int64_t channels)
      : scale_(channels, T(1)), mean_(channels, T(0)), bias_(channels, T(0)) {
    if (!term.norm.has_value())
      return;
    const T *mean = read<T>(term.norm->mean), *invstd = read<T>(term.norm->invstd);
    const T *weight = read<T>(term.norm->weight), *bias = read<T>(term.norm->bias);
    for (int64_t c = 0; c < channels; ++c) {
      scale_[c] = weight[c] * invstd[c];
      mean_[c] = mean[c];
      bias_[c] = bias[c];
    }
  }

  template <typename X>
  Term<T, X> of(const Tensor& x) const {
    return {read<X>(x), scale_.data(), mean_.data(), bias_.data()};
  }

 private:
  std::vector<T> scale_, mean_, bias_;
};

template <typename T>
class Affines {
 public:
  explicit Affines(const NormalizedProblem& p)
      : p_(p), x_(p.x, p.layout.channels), shortcut_(p.shortcut.value_or(p.x), p.layout.channels) {}

  template <typename X>
  Normalized<T, X> inputs() const {
    return {x_.template of<X>(p_.x.x),
            p_.shortcut.has_value() ? shortcut_.template of<X>(p_.shortcut->x) : Term<T, X>{}};
  }

 private:
  const NormalizedProblem& p_;
  Affine<T> x_, shortcut_;
};

// A single function is kept in registers.
Bins bins_of(const NormalizedProblem& p, Bins of_rows) {
  return is_rows(p.layout) && p.functions.points.size(0) > 1 ? of_rows : Bins::kNone;
}

template <typename T, typename X>
void normalized_typed(const NormalizedProblem& p, const Tensor& y) {
  const Layout& layout = p.layout;
  const CurveTable<T> table = curve_table<T>(p.functions, bins_of(p, Bins::kLines));
  const Affines<T> affines(p);
  const auto inputs = affines.template inputs<X>();
  X* to = write<X>(y);
  const auto& kernels = chosen_kernels<T, X>();
  if (is_rows(layout)) {
    // A single function has no tables that should stay in the cache.
    const int64_t channel_block = table.view().channels > 1 ? kChannelBlock : layout.channels;
    const auto run = [&](int64_t i, int64_t rows, int64_t first, int64_t count) {
      kernels.normalized_rows(inputs.at(i), to + i, rows, layout.channels, first, count, table.view());
    };
    for_rows(layout, run, channel_block);
  } else {
    for_runs(layout, [&](int64_t i, int64_t count, int64_t channel) {
      kernels.normalized_run(inputs.at(i), to + i, count, table.view(), channel);
    });
  }
}

Tensor normalized(const std::vector<Tensor>& terms, const std::vector<Tensor>& norms,
                  const std::vector<Tensor>& parameters) {
  const NormalizedProblem p = normalized_problem(terms, norms, parameters);
  Tensor y = torch::stable::empty_like(p.x.x);
  if (y.numel() > 0) {
    dispatch(y.scalar_type(),
             [&](auto t, auto element) { normalized_typed<decltype(t), decltype(element)>(p, y); });
  }
  return y;
}

template <typename T, typename X>
ChannelSums backward_typed(const NormalizedProblem& p, const Tensor& grad, const Tensor& grad_z) {
  const Layout& layout = p.layout;
  const CurveTable<T> table = curve_table<T>(p.functions, bins_of(p, Bins::kSlopes));
  const Curves<T>& curves = table.view();
  const Affines<T> affines(p);
  const auto inputs = affines.template inputs<X>();
  const X* g = read<X>(grad);
  X* to = write<X>(grad_z);
  const auto& kernels = chosen_kernels<T, X>();
  if (is_rows(layout)) {
    const auto add = [&](int64_t i, int64_t rows, int64_t first, int64_t count, T* sums, double* moments) {
      kernels.normalized_backward_rows(g + i, inputs.at(i), to + i, rows, layout.channels, first, count,
                                       curves, sums, moments);
    };
    return sum_rows<T, X>(layout, curves.num_intervals, add);
  }
  const auto add = [&](int64_t i, int64_t n, int64_t channel, T* sums, double* moments) {
    kernels.normalized_backward_run(g + i, inputs.at(i), to + i, n, curves, channel, sums, moments);
  };
  return sum_runs<T, X>(layout, curves.num_intervals, add);
}

// The sum of d loss / d z over a channel, whose bins are `sums`.
template <typename T>
double sum_of_grad_z(const Problem& functions, const double* sums, int64_t function) {
  const Curve<T> curve = make_curve(read<T>(functions.left)[function], read<T>(functions.right)[function],
                                    read<T>(functions.left_slope)[function],
                                    read<T>(functions.right_slope)[function], functions.num_intervals);
  const T* points = read<T>(functions.points) + function * (functions.num_intervals + 1);
  return sum_of_input_gradient([&](int bin) { return sums[2 * bin]; }, curve, points,
                               functions.num_intervals);
}

// Fills `to`, (1 + kMoments, C): the sums of d loss / d z, and of its products with the terms' x - mean.
template <typename T>
void write_sums(const NormalizedProblem& p, const ChannelSums& sums, const Tensor& to) {
  const int64_t channels = p.layout.channels, bins = 2 * (p.functions.num_intervals + 2);
  for (int64_t c = 0; c < channels; ++c) {
    const int64_t function = p.functions.points.size(0) > 1 ? c : 0;
    write<T>(to)[c] = static_cast<T>(sum_of_grad_z<T>(p.functions, &sums.bins[c * bins], function));
    for (int term = 0; term < kMoments; ++term)
      write<T>(to)[(1 + term) * channels + c] = static_cast<T>(sums.moments[kMoments * c + term]);
  }
}

// The channels' bins; those of a single function are the sums of all channels'.
std::vector<double> bins_of_functions(const NormalizedProblem& p, const std::vector<double>& of_channels) {
  if (p.functions.points.size(0) > 1)
    return of_channels;
  std::vector<double> totals(2 * (p.functions.num_intervals + 2), 0.0);
  for (size_t i = 0; i < of_channels.size(); ++i)
    totals[i % totals.size()] += of_channels[i];
  return totals;
}

template <typename T, typename X>
ChannelSums all_sums(const NormalizedProblem& p, const Tensor& grad, const Tensor& grad_z) {
  if (grad_z.numel() > 0)
    return backward_typed<T, X>(p, grad, grad_z);
  const int64_t channels = p.layout.channels;
  return {std::vector<double>(2 * channels * (p.functions.num_intervals + 2)),
          std::vector<double>(channels * kMoments)};
}

// d loss / d z, the sums of write_sums, and the gradients of the parameters.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> normalized_backward(
    const Tensor& grad, const std::vector<Tensor>& terms, const std::vector<Tensor>& norms,
    const std::vector<Tensor>& parameters) {
  const NormalizedProblem p = normalized_problem(terms, norms, parameters);
  const Tensor ordered = checked_gradient(grad, p.x.x);
  const Tensor grad_z = torch::stable::empty_like(p.x.x);
  const Tensor sums = torch::stable::new_empty(p.functions.left, {1 + kMoments, p.layout.channels});
  const ParameterGradients gradients(p.functions);
  dispatch(grad_z.scalar_type(), [&](auto t, auto element) {
    using T = decltype(t);
    const ChannelSums added = all_sums<T, decltype(element)>(p, ordered, grad_z);
    gradients.write<T>(p.functions, bins_of_functions(p, added.bins));
    write_sums<T>(p, added, sums);
  });
  return {grad_z,
          sums,
          gradients.left,
          gradients.right,
          gradients.points,
          gradients.left_slope,
          gradients.right_slope};
}

}  // namespace
}  // namespace pwlu::cpu

STABLE_TORCH_LIBRARY_IMPL(pwlu, CPU, library) {
  library.impl("normalized", TORCH_BOX(&pwlu::cpu::normalized));
  library.impl("normalized_backward", TORCH_BOX(&pwlu::cpu::normalized_backward));
}
