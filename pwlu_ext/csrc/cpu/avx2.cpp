// AVX2: 8 floats a vector; a table of up to 16 numbers is looked up inside two registers.
#if defined(__x86_64__)

#include <immintrin.h>

#include "kernels.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif

namespace pwlu::cpu {
namespace {

#include "x86_pairs.h"

struct S {
  using T = float;
  using F = __m256;
  using M = __m256;  // all bits of a lane set, or none
  using I = __m256i;
  static constexpr int kWidth = 8, kSmallTable = 8, kLargeTable = 16;

  static F set(float value) { return _mm256_set1_ps(value); }
  static F add(F a, F b) { return _mm256_add_ps(a, b); }
  static F sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F div(F a, F b) { return _mm256_div_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F neg(F a) { return _mm256_xor_ps(a, set(-0.0F)); }
  static F min(F a, F b) { return _mm256_min_ps(a, b); }
  static F max(F a, F b) { return _mm256_max_ps(a, b); }
  static F floor(F a) { return _mm256_floor_ps(a); }
  static M less(F a, F b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
  static M not_less(F a, F b) { return _mm256_cmp_ps(a, b, _CMP_NLT_UQ); }
  static M either(M a, M b) { return _mm256_or_ps(a, b); }
  static bool any(M a) { return _mm256_movemask_ps(a) != 0; }
  static F select(M where, F yes, F no) { return _mm256_blendv_ps(no, yes, where); }
  static I to_int(F a) { return _mm256_cvttps_epi32(a); }
  static I lane_numbers() { return _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0); }
  static I lanes_times(int step) { return _mm256_mullo_epi32(lane_numbers(), _mm256_set1_epi32(step)); }
  static I add_int(I a, I b) { return _mm256_add_epi32(a, b); }

  static I part(int count) { return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), lane_numbers()); }
  static F load(const float* from) { return _mm256_loadu_ps(from); }
  static void store(float* to, F a) { _mm256_storeu_ps(to, a); }
  static F load_part(const float* from, int count) { return _mm256_maskload_ps(from, part(count)); }
  static void store_part(float* to, F a, int count) { _mm256_maskstore_ps(to, part(count), a); }

  static F widen(BFloat16, __m128i bits) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }
  static F widen(Half, __m128i bits) { return _mm256_cvtph_ps(bits); }
  static __m128i narrow(BFloat16, F a) {  // to nearest, ties to even; a NaN stays one
    const I bits = _mm256_castps_si256(a);
    const I odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    I rounded =
        _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF))), 16);
    const I nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
    rounded = _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7FC0), nan);
    return _mm_packus_epi32(_mm256_castsi256_si128(rounded), _mm256_extracti128_si256(rounded, 1));
  }
  static __m128i narrow(Half, F a) { return _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT); }

  template <class X>
  static F load(const X* from) {
    return widen(X{}, _mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  template <class X>
  static void store(X* to, F a) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), narrow(X{}, a));
  }
  template <class X>  // there is no masked access to 16-bit elements
  static F load_part(const X* from, int count) {
    X whole[kWidth] = {};
    for (int lane = 0; lane < count; ++lane)
      whole[lane] = from[lane];
    return load(whole);
  }
  template <class X>
  static void store_part(X* to, F a, int count) {
    X whole[kWidth];
    store(whole, a);
    for (int lane = 0; lane < count; ++lane)
      to[lane] = whole[lane];
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
    // Eight 8-byte loads, put together in registers, are faster than two gather instructions.
    Entry at(I index) const {
      alignas(32) int32_t slot[8];
      _mm256_store_si256(reinterpret_cast<__m256i*>(slot), _mm256_add_epi32(lane_start, index));
      // lanes 0 1 4 5 and 2 3 6 7, because shuffle_ps works inside each half
      const __m256 low = _mm256_insertf128_ps(_mm256_castps128_ps256(two(slot)), two(slot + 4), 1);
      const __m256 high = _mm256_insertf128_ps(_mm256_castps128_ps256(two(slot + 2)), two(slot + 6), 1);
      return {_mm256_shuffle_ps(low, high, _MM_SHUFFLE(2, 0, 2, 0)),
              _mm256_shuffle_ps(low, high, _MM_SHUFFLE(3, 1, 3, 1))};
    }
    const double* entry(int32_t slot) const { return reinterpret_cast<const double*>(table) + slot; }
    __m128 two(const int32_t* slot) const {
      return _mm_castpd_ps(_mm_loadh_pd(_mm_load_sd(entry(slot[0])), entry(slot[1])));
    }
  };

  static void store_int(int32_t* to, I a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), a); }
  static void add_to(float* sums, const int32_t* slot, const float* pairs, int count) {
    add_pairs(sums, slot, pairs, count);
  }
  static void store_pairs(float* to, F a, F b) {  // a0 b0 a1 b1 ...; unpack works inside each half
    const F low = _mm256_unpacklo_ps(a, b);
    const F high = _mm256_unpackhi_ps(a, b);
    _mm256_storeu_ps(to, _mm256_permute2f128_ps(low, high, 0x20));
    _mm256_storeu_ps(to + 8, _mm256_permute2f128_ps(low, high, 0x31));
  }
};

template <>
struct S::Table<8> {
  F numbers;
  explicit Table(const float* row) : numbers(_mm256_loadu_ps(row)) {}
  F at(I index) const { return _mm256_permutevar8x32_ps(numbers, index); }
};
template <>
struct S::Table<16> {
  F low, high;
  explicit Table(const float* row) : low(_mm256_loadu_ps(row)), high(_mm256_loadu_ps(row + 8)) {}
  F at(I index) const {  // bit 3 of the index, moved to the sign, chooses the register
    const F in_high = _mm256_castsi256_ps(_mm256_slli_epi32(index, 28));
    return select(in_high, _mm256_permutevar8x32_ps(high, index), _mm256_permutevar8x32_ps(low, index));
  }
};
template <>
struct S::Table<0> {
  const float* row;
  explicit Table(const float* row_) : row(row_) {}
  F at(I index) const { return _mm256_i32gather_ps(row, index, 4); }
};

#include "vector_kernels.h"

}  // namespace

const InstructionSet& avx2() {
  static const InstructionSet set = {"avx2", kernels<S, float>(), kernels<S, BFloat16>(), kernels<S, Half>()};
  return set;
}

}  // namespace pwlu::cpu

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif  // __x86_64__
