// The CPU kernel of pwlu::folded.
#include <torch/csrc/stable/library.h>

#include <vector>

#include "launch.h"
#include "parallel.h"

namespace pwlu::cpu {
namespace {

// O and S of every column side by side, with room for the channels after the last that a vector may cover.
template <typename T>
std::vector<T> lines_of(const FoldedCurves<T>& curves) {
  const int64_t columns = curves.num_intervals + 2;
  std::vector<T> lines(2 * columns * (curves.channels + kWidestVector));
  for (int64_t i = 0; i < curves.channels * columns; ++i) {
    lines[2 * i] = curves.offsets[i];
    lines[2 * i + 1] = curves.slopes[i];
  }
  return lines;
}

template <typename T, typename X>
void folded_typed(const FoldedProblem& p, const Tensor& y) {
  const auto& kernels = chosen_kernels<T, X>();
  const X* from = read<X>(p.x);
  X* to = write<X>(y);
  FoldedCurves<T> curves = {p.layout.channels, p.num_intervals,    read<T>(p.left), read<T>(p.interval),
                            read<T>(p.slopes), read<T>(p.offsets), nullptr};
  if (is_rows(p.layout)) {
    const std::vector<T> lines = lines_of(curves);
    curves.lines = lines.data();
    for_rows(p.layout, [&](int64_t i, int64_t rows, int64_t first, int64_t count) {
      kernels.folded_rows(from + i, to + i, rows, p.layout.channels, first, count, curves);
    });
  } else {
    for_runs(p.layout, [&](int64_t i, int64_t count, int64_t channel) {
      kernels.folded_run(from + i, to + i, count, curves, channel);
    });
  }
}

Tensor folded(const Tensor& x, const Tensor& left, const Tensor& interval, const Tensor& slopes,
              const Tensor& offsets, int64_t channel_dim) {
  const FoldedProblem p = make_folded_problem(x, left, interval, slopes, offsets, channel_dim);
  Tensor y = torch::stable::empty_like(p.x);
  if (p.x.numel() > 0) {
    dispatch(p.x.scalar_type(),
             [&](auto t, auto element) { folded_typed<decltype(t), decltype(element)>(p, y); });
  }
  return y;
}

}  // namespace
}  // namespace pwlu::cpu

STABLE_TORCH_LIBRARY_IMPL(pwlu, CPU, library) {
  library.impl("folded", TORCH_BOX(&pwlu::cpu::folded));
}
