// What the operators' launchers share.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/ops.h>

#include <string>

#include "../checks.h"
#include "kernels.h"

namespace pwlu::cuda {

using torch::stable::accelerator::DeviceGuard;

inline Element element_of(const Tensor& x) {
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
inline void check_on_gpu(const char* name, const Tensor& tensor, const Tensor& x) {
  if (!tensor.is_cuda() || tensor.get_device_index() != x.get_device_index()) {
    fail("`", name, "` must be on the CUDA device of the other tensors. Move it with .to(device).");
  }
}

inline Parameters parameters_of(const Problem& p) {
  return {p.left.data_ptr(), p.right.data_ptr(), p.points.data_ptr(), p.left_slope.data_ptr(),
          p.right_slope.data_ptr()};
}

inline void* current_stream(const Tensor& x) {
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
  return stream;
}

inline void check_launch(const char* error) {
  if (error != nullptr)
    throw std::runtime_error(std::string("pwlu: a CUDA kernel was not launched: ") + error);
}

inline Tensor zeros_like(const Tensor& tensor) {
  Tensor zeros = torch::stable::empty_like(tensor);
  return torch::stable::zero_(zeros);
}

// Of the parameters: not filled in, or zeros where there are no elements.
struct NewGradients {
  Tensor left, right, points, left_slope, right_slope;

  NewGradients(const Problem& p, bool zero)
      : left(like(p.left, zero)),
        right(like(p.right, zero)),
        points(like(p.points, zero)),
        left_slope(like(p.left_slope, zero)),
        right_slope(like(p.right_slope, zero)) {}

  static Tensor like(const Tensor& tensor, bool zero) {
    return zero ? zeros_like(tensor) : torch::stable::empty_like(tensor);
  }
  ParameterGradients pointers() const {
    return {left.data_ptr(), right.data_ptr(), points.data_ptr(), left_slope.data_ptr(),
            right_slope.data_ptr()};
  }
};

// Runs a BackwardCall or a NormalizedBackwardCall.
template <typename Call>
void launch_backward(const Call& call, const Tensor& x, const Tensor& any_parameter) {
  const int64_t bytes = static_cast<int64_t>(workspace_bytes(call));
  const Tensor workspace = torch::stable::new_empty(any_parameter, {bytes}, ScalarType::Byte);
  check_launch(run_backward(call, workspace.data_ptr(), current_stream(x)));
}

}  // namespace pwlu::cuda
