// AVX-512: 16 floats a vector; a table of up to 32 numbers is looked up inside two registers.
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

#include "x86_pairs.h"

struct S {
  using T = float;
  using F = __m512;
  using M = __mmask16;
  using I = __m512i;
  static constexpr int kWidth = 16, kSmallTable = 16, kLargeTable = 32;

  static F set(float value) { return _mm512_set1_ps(value); }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F div(F a, F b) { return _mm512_div_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F neg(F a) { return _mm512_xor_ps(a, set(-0.0F)); }
  static F min(F a, F b) { return _mm512_min_ps(a, b); }
  static F max(F a, F b) { return _mm512_max_ps(a, b); }
  static F floor(F a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
  static M less(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
  static M not_less(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_NLT_UQ); }
  static M either(M a, M b) { return a | b; }
  static bool any(M a) { return a != 0; }
  static F select(M where, F yes, F no) { return _mm512_mask_blend_ps(where, no, yes); }
  static I to_int(F a) { return _mm512_cvttps_epi32(a); }
  static I lanes_times(int step) {
    const I lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    return _mm512_mullo_epi32(lanes, _mm512_set1_epi32(step));
  }
  static I add_int(I a, I b) { return _mm512_add_epi32(a, b); }

  static __mmask16 part(int count) { return static_cast<__mmask16>((1U << count) - 1U); }
  static F load(const float* from) { return _mm512_loadu_ps(from); }
  static void store(float* to, F a) { _mm512_storeu_ps(to, a); }
  static F load_part(const float* from, int count) { return _mm512_maskz_loadu_ps(part(count), from); }
  static void store_part(float* to, F a, int count) { _mm512_mask_storeu_ps(to, part(count), a); }

  static F widen(BFloat16, __m256i bits) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
  static F widen(Half, __m256i bits) { return _mm512_cvtph_ps(bits); }
  static __m256i narrow(BFloat16, F a) {  // to nearest, ties to even; a NaN stays one
    const I bits = _mm512_castps_si512(a);
    const I odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const I rounded =
        _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF))), 16);
    const M nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(rounded, nan, _mm512_set1_epi32(0x7FC0)));
  }
  static __m256i narrow(Half, F a) {
    return _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }

  template <class X>
  static F load(const X* from) {
    return widen(X{}, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
  template <class X>
  static void store(X* to, F a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), narrow(X{}, a));
  }
  template <class X>
  static F load_part(const X* from, int count) {
    return widen(X{}, _mm256_maskz_loadu_epi16(part(count), from));
  }
  template <class X>
  static void store_part(X* to, F a, int count) {
    _mm256_mask_storeu_epi16(to, part(count), narrow(X{}, a));
  }

  template <int kSize>
  struct Table;
  struct Rows {  // one table of (start, rise) pairs per lane, `length` pairs apart
    const float* table;
    I lane_start;
    struct Entry {
      F start, rise;
    };
    Rows(const float* first, int length) : table(first), lane_start(lanes_times(length)) {}
    // Sixteen 8-byte loads, put together in registers, are several times faster than two gather instructions.
    Entry at(I index) const {
      alignas(64) int32_t slot[16];
      _mm512_store_si512(slot, _mm512_add_epi32(lane_start, index));
      const __m512 low = _mm512_insertf32x8(_mm512_castps256_ps512(four(slot)), four(slot + 4), 1);
      const __m512 high = _mm512_insertf32x8(_mm512_castps256_ps512(four(slot + 8)), four(slot + 12), 1);
      const I even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
      const I odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
      return {_mm512_permutex2var_ps(low, even, high), _mm512_permutex2var_ps(low, odd, high)};
    }
    __m256 four(const int32_t* slot) const {
      return _mm256_insertf128_ps(_mm256_castps128_ps256(two(slot)), two(slot + 2), 1);
    }
    const double* entry(int32_t slot) const { return reinterpret_cast<const double*>(table) + slot; }
    __m128 two(const int32_t* slot) const {
      return _mm_castpd_ps(_mm_loadh_pd(_mm_load_sd(entry(slot[0])), entry(slot[1])));
    }
  };

  static void store_int(int32_t* to, I a) { _mm512_storeu_si512(to, a); }
  static void add_to(float* sums, const int32_t* slot, const float* pairs, int count) {
    add_pairs(sums, slot, pairs, count);
  }
  static void store_pairs(float* to, F a, F b) {  // a0 b0 a1 b1 ...
    const I low = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    const I high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    _mm512_storeu_ps(to, _mm512_permutex2var_ps(a, low, b));
    _mm512_storeu_ps(to + 16, _mm512_permutex2var_ps(a, high, b));
  }
};

template <>
struct S::Table<16> {
  F numbers;
  explicit Table(const float* row) : numbers(_mm512_loadu_ps(row)) {}
  F at(I index) const { return _mm512_permutexvar_ps(index, numbers); }
};
template <>
struct S::Table<32> {
  F low, high;
  explicit Table(const float* row) : low(_mm512_loadu_ps(row)), high(_mm512_loadu_ps(row + 16)) {}
  F at(I index) const { return _mm512_permutex2var_ps(low, index, high); }
};
template <>
struct S::Table<0> {
  const float* row;
  explicit Table(const float* row_) : row(row_) {}
  F at(I index) const { return _mm512_i32gather_ps(index, row, 4); }
};

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
