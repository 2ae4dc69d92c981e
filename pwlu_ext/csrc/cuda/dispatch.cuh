// From an element type known at run time to a type.
#pragma once

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

}  // namespace pwlu::cuda
