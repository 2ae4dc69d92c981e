// Checks of what reaches the operators, and the dense view of x that the kernels work on. Shared by the CPU
// and the CUDA library. Every message names the argument, what came and what was expected.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <sstream>
#include <stdexcept>

#include "pwlu.h"

namespace pwlu {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// A checked set of arguments: parameters are contiguous, `layout` describes the dense memory of x.
struct Problem {
  Layout layout;
  int num_intervals;
  Tensor x, left, right, points, left_slope, right_slope;
};

template <typename... Parts>
[[noreturn]] inline void fail(const Parts&... parts) {
  std::ostringstream message;
  message << "pwlu: ";
  (message << ... << parts);
  throw std::invalid_argument(message.str());
}

inline std::string shape_of(const Tensor& tensor) {
  std::ostringstream text;
  text << "(";
  for (int64_t dim = 0; dim < tensor.dim(); ++dim)
    text << (dim ? ", " : "") << tensor.size(dim);
  text << (tensor.dim() == 1 ? ",)" : ")");
  return text.str();
}

inline const char* name_of(ScalarType type) {
  switch (type) {
    case ScalarType::Float:
      return "float32";
    case ScalarType::Double:
      return "float64";
    case ScalarType::Half:
      return "float16";
    case ScalarType::BFloat16:
      return "bfloat16";
    case ScalarType::Int:
      return "int32";
    case ScalarType::Long:
      return "int64";
    case ScalarType::Bool:
      return "bool";
    default:
      return "an unsupported dtype";
  }
}

inline void check_parameter(const char* name, const Tensor& parameter, const Tensor& x) {
  const ScalarType type = x.scalar_type();
  const ScalarType expected = type == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  if (parameter.scalar_type() != expected) {
    fail("`", name, "` must be ", name_of(expected), " for a ", name_of(type), " x, but is ",
         name_of(parameter.scalar_type()), ". Parameters stay float32 (float64 with a float64 x).");
  }
  if (parameter.is_cpu() != x.is_cpu() || parameter.get_device_index() != x.get_device_index()) {
    fail("`", name, "` and x must be on the same device. Move the module with .to(x.device).");
  }
}

inline void check_vector(const char* name, const Tensor& parameter, const Tensor& x, int64_t groups) {
  check_parameter(name, parameter, x);
  if (parameter.dim() != 1 || parameter.size(0) != groups) {
    fail("`", name, "` must have shape (", groups, ",) like the first dimension of `points`, but has shape ",
         shape_of(parameter), ".");
  }
}

inline void check_x(const Tensor& x) {
  const ScalarType type = x.scalar_type();
  if (type != ScalarType::Float && type != ScalarType::Double && type != ScalarType::Half &&
      type != ScalarType::BFloat16) {
    fail("`x` must be float64, float32, float16 or bfloat16, but is ", name_of(type), ".");
  }
}

inline void check_points(const Tensor& points, const Tensor& x) {
  check_parameter("points", points, x);
  if (points.dim() != 2 || points.size(0) < 1 || points.size(1) < 2) {
    fail("`points` must have shape (G, num_intervals + 1) with G >= 1 and num_intervals >= 1, but has shape ",
         shape_of(points), ".");
  }
}

// The dimension of x that holds the channels; only asked for when there is more than one function.
inline int64_t checked_channel_dim(const Tensor& x, int64_t groups, int64_t channel_dim) {
  const int64_t dims = x.dim();
  if (channel_dim < -dims || channel_dim >= dims) {
    fail("`channel_dim` is ", channel_dim, ", but x has ", dims, " dimensions: shape ", shape_of(x), ".");
  }
  const int64_t dim = channel_dim < 0 ? channel_dim + dims : channel_dim;
  if (x.size(dim) != groups) {
    fail("x of shape ", shape_of(x), " has ", x.size(dim), " channels in dimension ", channel_dim,
         ", but the parameters are for ", groups, " (the first dimension of `points`). Expected 1 or ",
         x.size(dim), ".");
  }
  return dim;
}

// True when x fills a contiguous piece of memory in some order of its dimensions (NCHW, channels_last,
// permuted ...).
inline bool is_dense(const Tensor& x) {
  int64_t filled = 1;
  for (int64_t step = 0; step < x.dim(); ++step) {
    bool found = false;  // of the dimensions larger than 1, one must continue where the previous ones end
    bool wanted = false;
    for (int64_t dim = 0; dim < x.dim() && !found; ++dim) {
      if (x.size(dim) == 1 || x.stride(dim) < filled)
        continue;
      wanted = true;
      if (x.stride(dim) == filled) {
        filled *= x.size(dim);
        found = true;
      }
    }
    if (!found)
      return !wanted && filled == x.numel();
  }
  return filled == x.numel();
}

inline bool same_strides(const Tensor& a, const Tensor& b) {
  for (int64_t dim = 0; dim < a.dim(); ++dim) {
    if (a.size(dim) > 1 && a.stride(dim) != b.stride(dim))
      return false;
  }
  return true;
}

// `tensor` with the memory order of `pattern`, copied only if it has another one.
inline Tensor in_order_of(const Tensor& tensor, const Tensor& pattern) {
  if (same_strides(tensor, pattern))
    return tensor;
  Tensor ordered = torch::stable::empty_like(pattern);
  torch::stable::copy_(ordered, tensor);
  return ordered;
}

inline Layout layout_of(const Tensor& x, int64_t groups, int64_t channel_dim) {
  const int64_t numel = x.numel();
  if (groups == 1)
    return {1, 1, numel};
  const int64_t dim = checked_channel_dim(x, groups, channel_dim);
  const int64_t inner = x.stride(dim);
  return {numel == 0 ? 0 : numel / (groups * inner), groups, inner};
}

inline Problem make_problem(const Tensor& x, const Tensor& left, const Tensor& right, const Tensor& points,
                            const Tensor& left_slope, const Tensor& right_slope, int64_t channel_dim) {
  check_x(x);
  check_points(points, x);
  const int64_t groups = points.size(0);
  check_vector("left", left, x, groups);
  check_vector("right", right, x, groups);
  check_vector("left_slope", left_slope, x, groups);
  check_vector("right_slope", right_slope, x, groups);
  if (groups > 1)
    checked_channel_dim(x, groups, channel_dim);
  Tensor dense = x;
  if (!is_dense(x)) {  // empty_like gives a dense tensor with the same order of dimensions
    dense = torch::stable::empty_like(x);
    torch::stable::copy_(dense, x);
  }
  return {layout_of(dense, groups, channel_dim),
          static_cast<int>(points.size(1) - 1),
          dense,
          torch::stable::contiguous(left),
          torch::stable::contiguous(right),
          torch::stable::contiguous(points),
          torch::stable::contiguous(left_slope),
          torch::stable::contiguous(right_slope)};
}

inline Tensor checked_gradient(const Tensor& grad, const Tensor& x) {
  bool same = grad.dim() == x.dim() && grad.scalar_type() == x.scalar_type();
  for (int64_t dim = 0; same && dim < x.dim(); ++dim)
    same = grad.size(dim) == x.size(dim);
  if (!same) {
    fail("`grad` must have the shape ", shape_of(x), " and dtype ", name_of(x.scalar_type()),
         " of x, but has ", shape_of(grad), " and ", name_of(grad.scalar_type()), ".");
  }
  return in_order_of(grad, x);
}

}  // namespace pwlu
