// The CUDA kernels of pwlu::forward, pwlu::folded and pwlu::backward.
#include "launch.h"

#include <torch/csrc/stable/library.h>

#include <tuple>

namespace pwlu::cuda {
namespace {

Tensor forward(const Tensor& x, const Tensor& left, const Tensor& right, const Tensor& points,
               const Tensor& left_slope, const Tensor& right_slope, int64_t channel_dim) {
  const Problem p = make_problem(x, left, right, points, left_slope, right_slope, channel_dim);
  check_on_gpu("x", x, x);
  const DeviceGuard guard(x.get_device_index());
  const Tensor y = torch::stable::empty_like(p.x);
  if (p.x.numel() == 0)
    return y;
  const ForwardCall call = {element_of(p.x),  p.layout,       p.num_intervals,
                            parameters_of(p), p.x.data_ptr(), y.data_ptr()};
  check_launch(run_lines(call, current_stream(p.x)));
  return y;
}

Tensor folded(const Tensor& x, const Tensor& left, const Tensor& interval, const Tensor& slopes,
              const Tensor& offsets, int64_t channel_dim) {
  const FoldedProblem p = make_folded_problem(x, left, interval, slopes, offsets, channel_dim);
  check_on_gpu("x", x, x);
  const DeviceGuard guard(x.get_device_index());
  const Tensor y = torch::stable::empty_like(p.x);
  if (p.x.numel() == 0)
    return y;
  const FoldedCall call = {
      element_of(p.x), p.layout,
      p.num_intervals, {p.left.data_ptr(), p.interval.data_ptr(), p.slopes.data_ptr(), p.offsets.data_ptr()},
      p.x.data_ptr(),  y.data_ptr()};
  check_launch(run_lines(call, current_stream(p.x)));
  return y;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> backward(
    const Tensor& grad, const Tensor& x, const Tensor& left, const Tensor& right, const Tensor& points,
    const Tensor& left_slope, const Tensor& right_slope, int64_t channel_dim) {
  const Problem p = make_problem(x, left, right, points, left_slope, right_slope, channel_dim);
  check_on_gpu("x", x, x);
  check_on_gpu("grad", grad, x);
  const DeviceGuard guard(x.get_device_index());
  const Tensor ordered = checked_gradient(grad, p.x);
  const bool empty = p.x.numel() == 0;
  const Tensor grad_x = torch::stable::empty_like(p.x);
  const NewGradients g(p, empty);
  if (!empty) {
    const BackwardCall call = {element_of(p.x),    p.layout,       p.num_intervals,   parameters_of(p),
                               ordered.data_ptr(), p.x.data_ptr(), grad_x.data_ptr(), g.pointers()};
    launch_backward(call, p.x, p.left);
  }
  return {grad_x, g.left, g.right, g.points, g.left_slope, g.right_slope};
}

}  // namespace
}  // namespace pwlu::cuda

STABLE_TORCH_LIBRARY_IMPL(pwlu, CUDA, library) {
  library.impl("forward", TORCH_BOX(&pwlu::cuda::forward));
  library.impl("folded", TORCH_BOX(&pwlu::cuda::folded));
  library.impl("backward", TORCH_BOX(&pwlu::cuda::backward));
}
