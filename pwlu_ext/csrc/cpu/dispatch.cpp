#include "dispatch.h"

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

namespace pwlu::cpu {
namespace {

#if defined(__x86_64__)
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

bool has_avx512_bf16() {
  return has_avx512() && __builtin_cpu_supports("avx512bf16");
}

bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");  // every such processor has f16c
}
#endif

struct Candidate {
  bool here;
  const InstructionSet& (*set)();
};

// What this processor has, the best first.
std::vector<Candidate> candidates() {
  return {
#if defined(__x86_64__)
      {has_avx512_bf16(), &avx512_bf16},
      {has_avx512(), &avx512},
      {has_avx2(), &avx2},
#endif
      {true, &plain}};
}

const InstructionSet& choose() {
  const char* variable = std::getenv("PWLU_CPU_ISA");
  const std::string asked = variable == nullptr ? "" : variable;
  std::string known;
  for (const Candidate& candidate : candidates()) {
    if (!candidate.here)
      continue;
    const InstructionSet& set = candidate.set();
    if (asked.empty() || asked == set.name)
      return set;
    known += known.empty() ? set.name : std::string(", ") + set.name;
  }
  throw std::invalid_argument("pwlu: PWLU_CPU_ISA is '" + asked + "', expected one of " + known +
                              " on this processor.");
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
