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
  library.def(
      "folded_(Tensor(a!) x, Tensor left, Tensor interval, Tensor slopes, Tensor offsets, int channel_dim) "
      "-> "
      "()");
  // A PWLU behind a BatchNorm, whose channels are in dimension 1. terms: x and, where there is one, a
  // shortcut that is added. norms: mean, invstd, weight and bias of x, and of the shortcut if it has a
  // BatchNorm too. The second gradient has shape (3, C): the sums of d loss / d z, and of its products with
  // each term's x - mean.
  library.def("moments(Tensor x) -> (Tensor, Tensor)");
  library.def("normalized(Tensor[] terms, Tensor[] norms, Tensor[] parameters) -> Tensor");
  library.def(
      "normalized_backward(Tensor grad, Tensor[] terms, Tensor[] norms, Tensor[] parameters) -> "
      "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  library.def(
      "batch_norm_grad(Tensor grad_z, Tensor x, Tensor mean, Tensor invstd, Tensor weight, Tensor sum_grad, "
      "Tensor sum_moment, float count, Tensor(a!) to) -> ()");
  library.def("cpu_isa() -> str");
}
