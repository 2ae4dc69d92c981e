// What the programs of the emulation report, and how they compare.
#pragma once

#include "problem.h"

namespace pwlu::cuda::test {
namespace {

int failures = 0;

template <typename... Arguments>
void fail(const Shape& s, const char* type, const char* format, Arguments... arguments) {
  ++failures;
  if (failures > 40)
    return;
  printf("%s outer %lld channels %lld inner %lld intervals %d misalignment %d%s: ", type,
         (long long)s.layout.outer, (long long)s.layout.channels, (long long)s.layout.inner, s.num_intervals,
         s.misalignment, s.unusual ? " unusual" : "");
  printf(format, arguments...);
  printf("\n");
}

template <typename X>
struct Kind;
template <>
struct Kind<float> {
  static constexpr Element kElement = Element::kFloat;
  static constexpr const char* kName = "float32";
  static constexpr double kRounding = 0x1p-24;
};
template <>
struct Kind<double> {
  static constexpr Element kElement = Element::kDouble;
  static constexpr const char* kName = "float64";
  static constexpr double kRounding = 0x1p-53;
};
template <>
struct Kind<Half> {
  static constexpr Element kElement = Element::kHalf;
  static constexpr const char* kName = "float16";
  static constexpr double kRounding = 0x1p-11;
};
template <>
struct Kind<BFloat16> {
  static constexpr Element kElement = Element::kBFloat16;
  static constexpr const char* kName = "bfloat16";
  static constexpr double kRounding = 0x1p-8;
};

// Equal to within `tolerance`; both NaN; or both beyond what float can tell from infinity.
bool close(double got, double expected, double tolerance) {
  if (std::isnan(expected))
    return std::isnan(got);
  if (std::abs(expected) > 1e30)
    return std::abs(got) > 1e30 && std::signbit(got) == std::signbit(expected);
  return std::abs(got - expected) <= tolerance;
}

}  // namespace
}  // namespace pwlu::cuda::test
