// The kernels for AVX-512.
#if defined(__x86_64__)

#include <immintrin.h>

#include "kernels.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma")
#endif

namespace pwlu::cpu {
namespace {

#include "avx512_vector.h"
#include "vector_kernels.h"

}  // namespace

const InstructionSet& avx512() {
  static const InstructionSet set = {"avx512", kernels<S, float>(), kernels<S, BFloat16>(),
                                     kernels<S, Half>()};
  return set;
}

}  // namespace pwlu::cpu

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif  // __x86_64__
