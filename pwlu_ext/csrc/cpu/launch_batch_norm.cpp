// The CPU kernels of pwlu::moments and pwlu::batch_norm_grad, the parts of a BatchNorm beside the PWLU behind
// it.
#include <torch/csrc/stable/library.h>

#include <cmath>
#include <tuple>

#include "../checks_normalized.h"
#include "launch.h"
#include "parallel.h"

namespace pwlu::cpu {
namespace {

// Number, mean and sum of squared deviations of elements.
struct Moments {
  double count = 0, mean = 0, deviation = 0;

  Moments() = default;
  template <typename T>
  Moments(int64_t count_, const BlockMoments<T>& block)
      : count(static_cast<double>(count_)),
        mean(block.center + block.sum / count),
        deviation(std::isinf(block.squares)  // the square of the sum may be, too
                      ? block.squares
                      : block.squares - static_cast<double>(block.sum) * block.sum / count) {}

  void add(const Moments& more) {
    if (more.count == 0)
      return;
    if (count == 0) {
      *this = more;
      return;
    }
    const double total = count + more.count, shift = more.mean - mean;
    deviation += more.deviation + shift * shift * (count * more.count / total);
    mean += shift * (more.count / total);
    count = total;
  }
};

template <typename T, typename X>
struct RunMoments {
  const X* x;
  int64_t channels;
  std::vector<Moments>& partial;
  Moments* own = nullptr;

  void start(int64_t part, int64_t channel) { own = &partial[part * channels + channel]; }
  void add(int64_t first, int64_t count) {
    BlockMoments<T> block;
    chosen_kernels<T, X>().moments_run(x + first, count, &block);
    own->add({count, block});
  }
  void finish() {}
};

template <typename T, typename X>
struct RowMoments {
  const X* x;
  int64_t channels;
  std::vector<Moments>& partial;
  Moments* own = nullptr;
  int64_t width = 0;

  void start(int64_t part, int64_t first, int64_t count) {
    own = &partial[part * channels + first];
    width = count;
  }
  void add(int64_t first, int64_t rows) {
    BlockMoments<T> blocks[kChannelBlock];
    chosen_kernels<T, X>().moments_rows(x + first, rows, channels, width, blocks);
    for (int64_t channel = 0; channel < width; ++channel)
      own[channel].add({rows, blocks[channel]});
  }
  void finish() {}
};

template <typename T, typename X, typename Parts, typename Worker>
std::vector<Moments> moments_of(const X* x, const Layout& layout) {
  const Parts parts(layout);
  std::vector<Moments> partial(parts.count() * layout.channels), totals(layout.channels);
  parts.for_each([&] { return Worker{x, layout.channels, partial}; });
  for (size_t i = 0; i < partial.size(); ++i)
    totals[i % layout.channels].add(partial[i]);
  return totals;
}

std::tuple<Tensor, Tensor> moments(const Tensor& x) {
  check_x(x);
  const Tensor dense = as_dense(x);
  const Layout layout = layout_of(dense, x.size(1), 1);
  const ScalarType type = x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  const Tensor mean = torch::stable::new_empty(x, {layout.channels}, type);
  const Tensor variance = torch::stable::new_empty(x, {layout.channels}, type);
  dispatch(x.scalar_type(), [&](auto t, auto element) {
    using T = decltype(t);
    using X = decltype(element);
    const auto totals = x.numel() == 0 ? std::vector<Moments>(layout.channels)
                        : is_rows(layout)
                            ? moments_of<T, X, RowParts, RowMoments<T, X>>(read<X>(dense), layout)
                            : moments_of<T, X, RunParts, RunMoments<T, X>>(read<X>(dense), layout);
    for (int64_t channel = 0; channel < layout.channels; ++channel) {
      write<T>(mean)[channel] = static_cast<T>(totals[channel].mean);
      write<T>(variance)[channel] =
          static_cast<T>(std::max(totals[channel].deviation, 0.0) / std::max(totals[channel].count, 1.0));
    }
  });
  return {mean, variance};
}

template <typename T, typename X>
void combine_typed(const Layout& layout, const Combination<T, X>& combination) {
  const auto& kernels = chosen_kernels<T, X>();
  if (is_rows(layout)) {
    for_rows(
        layout,
        [&](int64_t i, int64_t rows, int64_t first, int64_t count) {
          kernels.combination_rows(combination.at(i), rows, layout.channels, first, count);
        },
        layout.channels);  // whole rows: nothing has to stay in the cache
  } else {
    for_runs(layout, [&](int64_t i, int64_t count, int64_t channel) {
      kernels.combination_run(combination.at(i), count, channel);
    });
  }
}

// d loss / d x of z = (x - mean) * invstd * weight + bias, whose mean and invstd are those of `count`
// elements of x, from grad_z = d loss / d z. sum_grad and sum_moment: the sums of grad_z and of grad_z * (x -
// mean) over those elements. The result is written to `to`, which may be grad_z.
void batch_norm_grad(const Tensor& grad_z, const Tensor& x, const Tensor& mean, const Tensor& invstd,
                     const Tensor& weight, const Tensor& sum_grad, const Tensor& sum_moment, double count,
                     Tensor to) {
  check_x(x);
  const int64_t channels = x.size(1);
  const auto checked = [&](const char* name, const Tensor& vector) {
    check_channels(name, vector, x);
    return as_contiguous(vector);
  };
  const Tensor means = checked("mean", mean), inverses = checked("invstd", invstd);
  const Tensor weights = checked("weight", weight), grads = checked("sum_grad", sum_grad);
  const Tensor moments = checked("sum_moment", sum_moment);
  const Tensor dense = as_dense(x), ordered = checked_like("grad_z", grad_z, dense);
  if (!same_strides(to, dense))
    fail("`to` must have the memory order of x.");
  dispatch(x.scalar_type(), [&](auto t, auto element) {
    using T = decltype(t);
    using X = decltype(element);
    std::vector<T> scale(channels), mean_grad(channels), of_x(channels);
    for (int64_t c = 0; c < channels; ++c) {
      const double inverse = read<T>(inverses)[c];
      scale[c] = static_cast<T>(inverse * read<T>(weights)[c]);
      mean_grad[c] = static_cast<T>(read<T>(grads)[c] / count);
      of_x[c] = static_cast<T>(-inverse * inverse * read<T>(moments)[c] / count);
    }
    combine_typed<T, X>(layout_of(dense, channels, 1),
                        {read<X>(ordered), read<X>(dense), write<X>(to), scale.data(), mean_grad.data(),
                         of_x.data(), read<T>(means)});
  });
}

}  // namespace
}  // namespace pwlu::cpu

STABLE_TORCH_LIBRARY_IMPL(pwlu, CPU, library) {
  library.impl("moments", TORCH_BOX(&pwlu::cpu::moments));
  library.impl("batch_norm_grad", TORCH_BOX(&pwlu::cpu::batch_norm_grad));
}
