// AVX-512 with AVX512-BF16, which rounds to bfloat16 in one instruction (to nearest, ties to even; what is
// smaller than the smallest normal number becomes 0).
#if defined(__x86_64__)

#include <immintrin.h>

#include "kernels.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma,avx512bf16"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma,avx512bf16")
#endif

namespace pwlu::cpu {
namespace {

#include "avx512_vector.h"
#include "vector_kernels.h"

struct SBFloat16 : S {
  using S::store;
  using S::store_part;
  static void store(BFloat16* to, F a) {
    const __m256bh rounded = _mm512_cvtneps_pbh(a);
    __builtin_memcpy(to, &rounded, sizeof rounded);
  }
  static void store_part(BFloat16* to, F a, int count) {
    BFloat16 whole[kWidth];
    store(whole, a);
    __builtin_memcpy(to, whole, count * sizeof *to);
  }
};

}  // namespace

const InstructionSet& avx512_bf16() {
  static const InstructionSet set = {"avx512_bf16", avx512().float32, kernels<SBFloat16, BFloat16>(),
                                     avx512().float16};
  return set;
}

}  // namespace pwlu::cpu

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif  // __x86_64__
