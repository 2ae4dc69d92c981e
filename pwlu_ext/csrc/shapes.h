// Checks of shapes, and how channels lie in memory. Tensors are torch's or whatever else has dim(), size(),
// stride() and numel(): nothing here includes a torch header.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

#include "pwlu.h"

namespace pwlu {

template <typename... Parts>
[[noreturn]] inline void fail(const Parts&... parts) {
  std::ostringstream message;
  message << "pwlu: ";
  (message << ... << parts);
  throw std::invalid_argument(message.str());
}

template <class Tensor>
std::string shape_of(const Tensor& tensor) {
  std::ostringstream text;
  text << "(";
  for (int64_t dim = 0; dim < tensor.dim(); ++dim)
    text << (dim ? ", " : "") << tensor.size(dim);
  text << (tensor.dim() == 1 ? ",)" : ")");
  return text.str();
}

template <class Tensor>
void check_vector_shape(const char* name, const Tensor& vector, int64_t groups, const char* table) {
  if (vector.dim() != 1 || vector.size(0) != groups) {
    fail("`", name, "` must have shape (", groups, ",) like the first dimension of `", table,
         "`, but has shape ", shape_of(vector), ".");
  }
}

// `table` has shape (G, num_intervals + more_columns).
template <class Tensor>
void check_table_shape(const char* name, const Tensor& table, int64_t more_columns) {
  if (table.dim() != 2 || table.size(0) < 1 || table.size(1) <= more_columns) {
    fail("`", name, "` must have shape (G, num_intervals + ", more_columns,
         ") with G >= 1 and num_intervals >= 1, but has shape ", shape_of(table), ".");
  }
}

// The dimension of x that holds the channels; only asked for when there is more than one function.
template <class Tensor>
int64_t checked_channel_dim(const Tensor& x, int64_t groups, int64_t channel_dim) {
  const int64_t dims = x.dim();
  if (channel_dim < -dims || channel_dim >= dims) {
    fail("`channel_dim` is ", channel_dim, ", but x has ", dims, " dimensions: shape ", shape_of(x), ".");
  }
  const int64_t dim = channel_dim < 0 ? channel_dim + dims : channel_dim;
  if (x.size(dim) != groups) {
    fail("x of shape ", shape_of(x), " has ", x.size(dim), " channels in dimension ", channel_dim,
         ", but the parameters are for ", groups, ". Expected 1 or ", x.size(dim), ".");
  }
  return dim;
}

// Checks the shapes of the arguments of pwlu::folded; returns the number of functions, G.
template <class Tensor>
int64_t checked_groups(const Tensor& x, const Tensor& left, const Tensor& interval, const Tensor& slopes,
                       const Tensor& offsets, int64_t channel_dim) {
  check_table_shape("slopes", slopes, 2);
  check_table_shape("offsets", offsets, 2);
  const int64_t groups = slopes.size(0);
  if (offsets.size(0) != groups || offsets.size(1) != slopes.size(1))
    fail("`offsets` must have the shape ", shape_of(slopes), " of `slopes`, but has ", shape_of(offsets),
         ".");
  check_vector_shape("left", left, groups, "slopes");
  check_vector_shape("interval", interval, groups, "slopes");
  if (groups > 1)
    checked_channel_dim(x, groups, channel_dim);
  return groups;
}

// Of a dense x.
template <class Tensor>
Layout layout_of(const Tensor& x, int64_t groups, int64_t channel_dim) {
  const int64_t numel = x.numel();
  if (groups == 1)
    return {1, 1, numel};
  const int64_t dim = checked_channel_dim(x, groups, channel_dim);
  const int64_t inner = x.stride(dim);
  return {numel == 0 ? 0 : numel / (groups * inner), groups, inner};
}

}  // namespace pwlu
