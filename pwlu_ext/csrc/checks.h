// Checks of the tensors that reach the operators, and the dense view of x that the kernels work on. Shared by
// the CPU and the CUDA library. Every message names the argument, what came and what was expected.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include "shapes.h"

namespace pwlu {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// A checked set of arguments: parameters are contiguous, `layout` describes the dense memory of x.
struct Problem {
  Layout layout;
  int num_intervals;
  Tensor x, left, right, points, left_slope, right_slope;
};

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

inline void check_vector(const char* name, const Tensor& parameter, const Tensor& x, int64_t groups,
                         const char* table) {
  check_parameter(name, parameter, x);
  check_vector_shape(name, parameter, groups, table);
}

inline void check_x(const Tensor& x) {
  const ScalarType type = x.scalar_type();
  if (type != ScalarType::Float && type != ScalarType::Double && type != ScalarType::Half &&
      type != ScalarType::BFloat16) {
    fail("`x` must be float64, float32, float16 or bfloat16, but is ", name_of(type), ".");
  }
}

// `table` has shape (G, num_intervals + more_columns).
inline void check_table(const char* name, const Tensor& table, const Tensor& x, int64_t more_columns) {
  check_parameter(name, table, x);
  check_table_shape(name, table, more_columns);
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

inline Tensor as_contiguous(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

// x, copied only if it has gaps or overlaps; empty_like keeps the order of the dimensions.
inline Tensor as_dense(const Tensor& x) {
  if (is_dense(x))
    return x;
  Tensor dense = torch::stable::empty_like(x);
  torch::stable::copy_(dense, x);
  return dense;
}

inline Problem make_problem(const Tensor& x, const Tensor& left, const Tensor& right, const Tensor& points,
                            const Tensor& left_slope, const Tensor& right_slope, int64_t channel_dim) {
  check_x(x);
  check_table("points", points, x, 1);
  const int64_t groups = points.size(0);
  check_vector("left", left, x, groups, "points");
  check_vector("right", right, x, groups, "points");
  check_vector("left_slope", left_slope, x, groups, "points");
  check_vector("right_slope", right_slope, x, groups, "points");
  if (groups > 1)
    checked_channel_dim(x, groups, channel_dim);
  const Tensor dense = as_dense(x);
  return {layout_of(dense, groups, channel_dim),
          static_cast<int>(points.size(1) - 1),
          dense,
          as_contiguous(left),
          as_contiguous(right),
          as_contiguous(points),
          as_contiguous(left_slope),
          as_contiguous(right_slope)};
}

// The same for the inference form.
struct FoldedProblem {
  Layout layout;
  int num_intervals;
  Tensor x, left, interval, slopes, offsets;
};

inline FoldedProblem make_folded_problem(const Tensor& x, const Tensor& left, const Tensor& interval,
                                         const Tensor& slopes, const Tensor& offsets, int64_t channel_dim) {
  check_x(x);
  check_parameter("slopes", slopes, x);
  check_parameter("offsets", offsets, x);
  check_parameter("left", left, x);
  check_parameter("interval", interval, x);
  const int64_t groups = checked_groups(x, left, interval, slopes, offsets, channel_dim);
  const Tensor dense = as_dense(x);
  return {layout_of(dense, groups, channel_dim),
          static_cast<int>(slopes.size(1) - 2),
          dense,
          as_contiguous(left),
          as_contiguous(interval),
          as_contiguous(slopes),
          as_contiguous(offsets)};
}

// `tensor`, which has to be like x, in the memory order of x.
inline Tensor checked_like(const char* name, const Tensor& tensor, const Tensor& x) {
  bool same = tensor.dim() == x.dim() && tensor.scalar_type() == x.scalar_type();
  for (int64_t dim = 0; same && dim < x.dim(); ++dim)
    same = tensor.size(dim) == x.size(dim);
  if (!same) {
    fail("`", name, "` must have the shape ", shape_of(x), " and dtype ", name_of(x.scalar_type()),
         " of x, but has ", shape_of(tensor), " and ", name_of(tensor.scalar_type()), ".");
  }
  return in_order_of(tensor, x);
}

inline Tensor checked_gradient(const Tensor& grad, const Tensor& x) {
  return checked_like("grad", grad, x);
}

}  // namespace pwlu
