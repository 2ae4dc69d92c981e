// What the operators' launchers share.
#pragma once

#include "../checks.h"
#include "division.h"

namespace pwlu::cpu {

template <typename T>
const T* read(const Tensor& tensor) {
  return static_cast<const T*>(tensor.data_ptr());
}
template <typename T>
T* write(const Tensor& tensor) {
  return static_cast<T*>(tensor.data_ptr());
}

// Calls f with (T, X) numbers that name the types of the parameters and of x.
template <typename F>
void dispatch(ScalarType type, const F& f) {
  switch (type) {
    case ScalarType::Float:
      return f(float{}, float{});
    case ScalarType::Double:
      return f(double{}, double{});
    case ScalarType::BFloat16:
      return f(float{}, BFloat16{});
    case ScalarType::Half:
      return f(float{}, Half{});
    default:
      fail("no kernel for ", name_of(type), ".");
  }
}

}  // namespace pwlu::cpu
