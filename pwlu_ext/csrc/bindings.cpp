// The operators' schemas. Kernels are registered per device in cpu/launch.cpp and cuda/launch.cpp; the
// dispatcher chooses.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(pwlu, library) {
  library.def(
      "forward(Tensor x, Tensor left, Tensor right, Tensor points, Tensor left_slope, Tensor right_slope, "
      "int channel_dim) -> Tensor");
  library.def(
      "backward(Tensor grad, Tensor x, Tensor left, Tensor right, Tensor points, Tensor left_slope, "
      "Tensor right_slope, int channel_dim) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  library.def(
      "folded(Tensor x, Tensor left, Tensor interval, Tensor slopes, Tensor offsets, int channel_dim) -> "
      "Tensor");
  library.def("cpu_isa() -> str");
}
