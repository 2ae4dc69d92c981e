// The kernels, written once over a vector type. Each instruction set's .cpp includes this file inside an
// anonymous namespace, after defining a struct `S` of vector operations: every copy is private to its file,
// so that the linker can never hand code for one instruction set to a machine that has only another. For the
// same reason nothing here calls a template or inline function of the standard library.
//
// S provides: T (float or double), F (vector of T), M (mask), I (vector of int32), kWidth, and the functions
// used below. S::min and S::max return their second operand where one is a NaN.

// clang-format off: each needs those before it
#include "vector_memory.h"
#include "vector_input.h"
#include "vector_curve.h"
#include "vector_forward.h"
#include "vector_folded.h"
#include "vector_backward.h"
#include "vector_moments.h"
#include "vector_normalized.h"
// clang-format on

template <class S, class X>
constexpr Kernels<typename S::T, X> kernels() {
  return {&forward_run<S, X>,
          &forward_rows<S, X>,
          &folded_run<S, X>,
          &folded_rows<S, X>,
          &backward_run<S, X>,
          &backward_rows<S, X>,
          S::kWidth,
          &collect<typename S::T>,
          &moments_run<S, X>,
          &moments_rows<S, X>,
          &normalized_run<S, X>,
          &normalized_rows<S, X>,
          &normalized_backward_run<S, X>,
          &normalized_backward_rows<S, X>,
          &combination_run<S, X>,
          &combination_rows<S, X>};
}
