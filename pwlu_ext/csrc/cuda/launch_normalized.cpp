// The CUDA kernels of pwlu::normalized and its gradients: PWLUs behind a BatchNorm.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "../checks_normalized.h"
#include "launch.h"

namespace pwlu::cuda {
namespace {

NormPointers pointers_of(const pwlu::Norm& norm) {
  return {norm.mean.data_ptr(), norm.invstd.data_ptr(), norm.weight.data_ptr(), norm.bias.data_ptr()};
}

TermPointers pointers_of(const NormalizedProblem& p) {
  TermPointers pointers = {1, {p.x.x.data_ptr(), nullptr}, {pointers_of(*p.x.norm), {}}};
  if (p.shortcut.has_value()) {
    pointers.count = 2;
    pointers.x[1] = p.shortcut->x.data_ptr();
    if (p.shortcut->norm.has_value())
      pointers.norms[1] = pointers_of(*p.shortcut->norm);
  }
  return pointers;
}

NormalizedProblem checked_problem(const std::vector<Tensor>& terms, const std::vector<Tensor>& norms,
                                  const std::vector<Tensor>& parameters) {
  const NormalizedProblem p = normalized_problem(terms, norms, parameters);
  for (const Tensor& term : terms)
    check_on_gpu("a term", term, parameters[0]);
  if (p.functions.points.size(0) != p.layout.channels)
    fail("on a GPU `points` must have a row for each of the ", p.layout.channels, " channels of x, but has ",
         p.functions.points.size(0), ".");
  if (p.functions.num_intervals > kMostNormalizedIntervals)
    fail("behind a BatchNorm there may be at most ", kMostNormalizedIntervals,
         " intervals on a GPU, but `points` has ", p.functions.num_intervals, ".");
  return p;
}

Tensor normalized(const std::vector<Tensor>& terms, const std::vector<Tensor>& norms,
                  const std::vector<Tensor>& parameters) {
  const NormalizedProblem p = checked_problem(terms, norms, parameters);
  const Tensor& x = p.x.x;
  const DeviceGuard guard(x.get_device_index());
  const Tensor y = torch::stable::empty_like(x);
  if (x.numel() == 0)
    return y;
  const NormalizedCall call = {
      element_of(x),  p.layout,    p.functions.num_intervals, parameters_of(p.functions),
      pointers_of(p), y.data_ptr()};
  check_launch(run_lines(call, current_stream(x)));
  return y;
}

// d loss / d z, the sums of a NormalizedBackwardCall, and the gradients of the parameters.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> normalized_backward(
    const Tensor& grad, const std::vector<Tensor>& terms, const std::vector<Tensor>& norms,
    const std::vector<Tensor>& parameters) {
  const NormalizedProblem p = checked_problem(terms, norms, parameters);
  const Tensor& x = p.x.x;
  check_on_gpu("grad", grad, x);
  const DeviceGuard guard(x.get_device_index());
  const Tensor ordered = checked_gradient(grad, x);
  const bool empty = x.numel() == 0;
  const Tensor grad_z = torch::stable::empty_like(x);
  Tensor sums = torch::stable::new_empty(p.functions.left, {3, p.layout.channels});
  const NewGradients g(p.functions, empty);
  if (empty) {
    torch::stable::zero_(sums);
  } else {
    const NormalizedBackwardCall call = {
        element_of(x),  p.layout,           p.functions.num_intervals, parameters_of(p.functions),
        pointers_of(p), ordered.data_ptr(), grad_z.data_ptr(),         sums.data_ptr(),
        g.pointers()};
    launch_backward(call, x, p.functions.left);
  }
  return {grad_z, sums, g.left, g.right, g.points, g.left_slope, g.right_slope};
}

}  // namespace
}  // namespace pwlu::cuda

STABLE_TORCH_LIBRARY_IMPL(pwlu, CUDA, library) {
  library.impl("normalized", TORCH_BOX(&pwlu::cuda::normalized));
  library.impl("normalized_backward", TORCH_BOX(&pwlu::cuda::normalized_backward));
}
