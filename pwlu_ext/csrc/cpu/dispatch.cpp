#include "dispatch.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace pwlu::cpu {
namespace {

bool has_avx512() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#else
  return false;
#endif
}

bool has_avx2() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");  // every such processor has f16c
#else
  return false;
#endif
}

const InstructionSet& named(const std::string& name) {
  if (name == "plain")
    return plain();
#if defined(__x86_64__)
  if (name == "avx512" && has_avx512())
    return avx512();
  if (name == "avx2" && has_avx2())
    return avx2();
#endif
  throw std::invalid_argument("pwlu: PWLU_CPU_ISA is '" + name + "', expected " +
                              (has_avx512() ? "avx512, " : "") + (has_avx2() ? "avx2 or " : "") +
                              "plain on this processor.");
}

const InstructionSet& choose() {
  const char* asked = std::getenv("PWLU_CPU_ISA");
  if (asked != nullptr && *asked != '\0')
    return named(asked);
  return named(has_avx512() ? "avx512" : has_avx2() ? "avx2" : "plain");
}

}  // namespace

const InstructionSet& chosen_instruction_set() {
  static const InstructionSet& set = choose();
  return set;
}

template <>
const Kernels<float, float>& chosen_kernels() {
  return chosen_instruction_set().float32;
}
template <>
const Kernels<float, BFloat16>& chosen_kernels() {
  return chosen_instruction_set().bfloat16;
}
template <>
const Kernels<float, Half>& chosen_kernels() {
  return chosen_instruction_set().float16;
}
template <>
const Kernels<double, double>& chosen_kernels() {
  return plain_float64();
}

}  // namespace pwlu::cpu
