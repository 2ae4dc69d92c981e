// The CUDA kernels of pwlu::forward, pwlu::folded and pwlu::backward.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>

#include <string>
#include <tuple>

#include "../checks.h"
#include "kernels.h"

namespace pwlu::cuda {
namespace {

using torch::stable::accelerator::DeviceGuard;

Element element_of(const Tensor& x) {
  switch (x.scalar_type()) {
    case ScalarType::Float:
      return Element::kFloat;
    case ScalarType::Double:
      return Element::kDouble;
    case ScalarType::Half:
      return Element::kHalf;
    case ScalarType::BFloat16:
      return Element::kBFloat16;
    default:
      fail("no CUDA kernel for ", name_of(x.scalar_type()), ".");
  }
}

// One CUDA argument suffices for the dispatcher to come here: others may be elsewhere.
void check_on_gpu(const char* name, const Tensor& tensor, const Tensor& x) {
  if (!tensor.is_cuda() || tensor.get_device_index() != x.get_device_index()) {
    fail("`", name, "` must be on the CUDA device of the other tensors. Move it with .to(device).");
  }
}

Parameters parameters_of(const Problem& p) {
  return {p.left.data_ptr(), p.right.data_ptr(), p.points.data_ptr(), p.left_slope.data_ptr(),
          p.right_slope.data_ptr()};
}

void* current_stream(const Tensor& x) {
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
  return stream;
}

void check_launch(const char* error) {
  if (error != nullptr)
    throw std::runtime_error(std::string("pwlu: a CUDA kernel was not launched: ") + error);
}

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

Tensor zeros_like(const Tensor& tensor) {
  Tensor zeros = torch::stable::empty_like(tensor);
  return torch::stable::zero_(zeros);
}

struct Gradients {
  Tensor x, left, right, points, left_slope, right_slope;
};

void launch_backward(const Problem& p, const Tensor& grad, const Gradients& gradients) {
  const BackwardCall call = {
      element_of(p.x),
      p.layout,
      p.num_intervals,
      parameters_of(p),
      grad.data_ptr(),
      p.x.data_ptr(),
      gradients.x.data_ptr(),
      {gradients.left.data_ptr(), gradients.right.data_ptr(), gradients.points.data_ptr(),
       gradients.left_slope.data_ptr(), gradients.right_slope.data_ptr()}};
  const int64_t bytes = static_cast<int64_t>(workspace_bytes(call));
  const Tensor workspace = torch::stable::new_empty(p.left, {bytes}, ScalarType::Byte);
  check_launch(run_backward(call, workspace.data_ptr(), current_stream(p.x)));
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
  const auto like = [&](const Tensor& t) { return empty ? zeros_like(t) : torch::stable::empty_like(t); };
  const Gradients g = {like(p.x),      like(p.left),       like(p.right),
                       like(p.points), like(p.left_slope), like(p.right_slope)};
  if (!empty)
    launch_backward(p, ordered, g);
  return {g.x, g.left, g.right, g.points, g.left_slope, g.right_slope};
}

}  // namespace
}  // namespace pwlu::cuda

STABLE_TORCH_LIBRARY_IMPL(pwlu, CUDA, library) {
  library.impl("forward", TORCH_BOX(&pwlu::cuda::forward));
  library.impl("folded", TORCH_BOX(&pwlu::cuda::folded));
  library.impl("backward", TORCH_BOX(&pwlu::cuda::backward));
}
