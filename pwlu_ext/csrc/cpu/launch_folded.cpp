// The CPU kernels of pwlu::folded and pwlu::folded_.
#include <torch/csrc/stable/library.h>

#include "folded.h"
#include "launch.h"
#include "parallel.h"

namespace pwlu::cpu {
namespace {

template <typename T, typename X>
void folded_typed(const FoldedProblem& p, const Tensor& y) {
  const FoldedCurves<T> curves = {p.layout.channels, p.num_intervals,    read<T>(p.left), read<T>(p.interval),
                                  read<T>(p.slopes), read<T>(p.offsets), nullptr};
  evaluate_folded(TorchThreads{}, read<X>(p.x), write<X>(y), p.layout, curves);
}

// y has the memory order of p.x, or is p.x.
void evaluate(const FoldedProblem& p, const Tensor& y) {
  if (p.x.numel() > 0) {
    dispatch(p.x.scalar_type(),
             [&](auto t, auto element) { folded_typed<decltype(t), decltype(element)>(p, y); });
  }
}

Tensor folded(const Tensor& x, const Tensor& left, const Tensor& interval, const Tensor& slopes,
              const Tensor& offsets, int64_t channel_dim) {
  const FoldedProblem p = make_folded_problem(x, left, interval, slopes, offsets, channel_dim);
  const Tensor y = torch::stable::empty_like(p.x);
  evaluate(p, y);
  return y;
}

void folded_(Tensor x, const Tensor& left, const Tensor& interval, const Tensor& slopes,
             const Tensor& offsets, int64_t channel_dim) {
  const FoldedProblem p = make_folded_problem(x, left, interval, slopes, offsets, channel_dim);
  evaluate(p, p.x);
  if (p.x.data_ptr() != x.data_ptr())
    torch::stable::copy_(x, p.x);
}

}  // namespace
}  // namespace pwlu::cpu

STABLE_TORCH_LIBRARY_IMPL(pwlu, CPU, library) {
  library.impl("folded", TORCH_BOX(&pwlu::cpu::folded));
  library.impl("folded_", TORCH_BOX(&pwlu::cpu::folded_));
}
