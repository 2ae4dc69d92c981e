// Checks of what reaches the operators for PWLUs behind a BatchNorm. Shared by the CPU and the CUDA library.
#pragma once

#include <optional>
#include <utility>
#include <vector>

#include "checks.h"

namespace pwlu {

// (x - mean) * invstd * weight + bias: each of shape (C,), for the channels in dimension 1 of x.
struct Norm {
  Tensor mean, invstd, weight, bias;
};

struct NormalizedTerm {
  Tensor x;  // in the memory order of the first term's
  std::optional<Norm> norm;
};

// One function for each channel, or one for all, of the sum of one or two terms.
struct NormalizedProblem {
  Problem functions;  // its x is that of the first term
  Layout layout;      // of the channels
  NormalizedTerm x;
  std::optional<NormalizedTerm> shortcut;
};

inline void check_channels(const char* name, const Tensor& vector, const Tensor& x) {
  check_parameter(name, vector, x);
  if (vector.dim() != 1 || vector.size(0) != x.size(1)) {
    fail("`", name, "` must have a number for each of the ", x.size(1), " channels of x, but has shape ",
         shape_of(vector), ".");
  }
}

// The four tensors of a BatchNorm from `first` on.
inline Norm checked_norm(const std::vector<Tensor>& norms, size_t first, const Tensor& x) {
  const char* names[] = {"mean", "invstd", "weight", "bias"};
  for (size_t i = 0; i < 4; ++i)
    check_channels(names[i], norms[first + i], x);
  return {as_contiguous(norms[first]), as_contiguous(norms[first + 1]), as_contiguous(norms[first + 2]),
          as_contiguous(norms[first + 3])};
}

// terms: x and, where there is one, a shortcut that is added. norms: four tensors for x, and four more where
// the shortcut has a BatchNorm too. parameters: left, right, points, left_slope, right_slope.
inline NormalizedProblem normalized_problem(const std::vector<Tensor>& terms,
                                            const std::vector<Tensor>& norms,
                                            const std::vector<Tensor>& parameters) {
  if (terms.empty() || terms.size() > 2 || norms.size() % 4 != 0 || norms.empty() ||
      norms.size() > 4 * terms.size() || parameters.size() != 5)
    fail("expected 1 or 2 terms, 4 tensors for each BatchNorm and 5 parameters, but got ", terms.size(), ", ",
         norms.size(), " and ", parameters.size(), ".");
  const Tensor& x = terms[0];
  const Problem functions =
      make_problem(x, parameters[0], parameters[1], parameters[2], parameters[3], parameters[4], 1);
  if (x.dim() < 2)
    fail("x must have a dimension of channels, but has shape ", shape_of(x), ".");
  NormalizedProblem p = {functions,
                         layout_of(functions.x, x.size(1), 1),
                         {functions.x, checked_norm(norms, 0, x)},
                         std::nullopt};
  if (terms.size() == 2) {
    p.shortcut = NormalizedTerm{checked_like("shortcut", terms[1], functions.x), std::nullopt};
    if (norms.size() == 8)
      p.shortcut->norm = checked_norm(norms, 4, x);
  }
  return p;
}

}  // namespace pwlu
