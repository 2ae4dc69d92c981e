// From an element type and an access width known at run time to a type and a constant.
#pragma once

#include <type_traits>

#include "element.cuh"

namespace pwlu::cuda {

// Elements per access where 16 bytes are too many: 4 bytes, or a single larger element.
template <typename X>
constexpr int kShortVector = sizeof(X) < 4 ? 4 / int(sizeof(X)) : 1;

// f(X()) for the type X of `element`.
template <typename F>
const char* with_element(Element element, const F& f) {
  switch (element) {
    case Element::kFloat:
      return f(float());
    case Element::kDouble:
      return f(double());
    case Element::kHalf:
      return f(Half());
    default:
      return f(BFloat16());
  }
}

// f(constant) for the constant V that is `vector`: 1, 16 bytes of X or a short vector of them.
template <typename X, typename F>
const char* with_vector(int vector, const F& f) {
  switch (vector) {
    case 1:
      return f(std::integral_constant<int, 1>());
    case 16 / sizeof(X):
      return f(std::integral_constant<int, 16 / sizeof(X)>());
    default:
      return f(std::integral_constant<int, kShortVector<X>>());
  }
}

}  // namespace pwlu::cuda
