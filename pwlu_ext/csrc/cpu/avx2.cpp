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
  static F min(F a, F b) { return _mm256_min_ps(a, b); }
  static F max(F a, F b) { return _mm256_max_ps(a, b); }
  static F floor(F a) { return _mm256_floor_ps(a); }
  static M less(F a, F b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
  static M not_less(F a, F b) { return _mm256_cmp_ps(a, b, _CMP_NLT_UQ); }
  static M is_zero(F a) { return _mm256_cmp_ps(a, set(0), _CMP_EQ_OQ); }
  static F select(M where, F yes, F no) { return _mm256_blendv_ps(no, yes, where); }
  static I select_int(M where, I yes, I no) {
    return _mm256_blendv_epi8(no, yes, _mm256_castps_si256(where));
  }
  static I set_int(int value) { return _mm256_set1_epi32(value); }
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

  static F look_up(const F (&table)[1], I index) { return _mm256_permutevar8x32_ps(table[0], index); }
  static F look_up(const F (&table)[2], I index) {  // bit 3 of the index, moved to the sign, chooses
    const F in_high = _mm256_castsi256_ps(_mm256_slli_epi32(index, 28));
    return select(in_high, _mm256_permutevar8x32_ps(table[1], index),
                  _mm256_permutevar8x32_ps(table[0], index));
  }
  static F gather(const float* table, I index) { return _mm256_i32gather_ps(table, index, 4); }

  struct Line {
    F start, rise;
  };
  // Eight 8-byte loads, put together in registers, are faster than two gather instructions.
  static Line look_up_pairs(const float* table, const int32_t* slot) {
    const auto two = [&](int lane) { return load_two_pairs(table, TwoSlots(slot + lane)); };
    // lanes 0 1 4 5 and 2 3 6 7, because shuffle_ps works inside each half
    const F low = join(two(0), two(4)), high = join(two(2), two(6));
    return {_mm256_shuffle_ps(low, high, _MM_SHUFFLE(2, 0, 2, 0)),
            _mm256_shuffle_ps(low, high, _MM_SHUFFLE(3, 1, 3, 1))};
  }
  static F look_up_numbers(const float* table, const int32_t* slot) {
    return join(load_four(table, slot), load_four(table, slot + 4));
  }
  static F join(__m128 low, __m128 high) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(low), high, 1);
  }

  static void store_int(int32_t* to, I a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), a); }
  static void add_pairs(float* sums, const int32_t* slot, const float* pairs, int count) {
    ::pwlu::cpu::add_pairs(sums, slot, pairs, count);
  }
  static void store_pairs(float* to, F a, F b) {  // a0 b0 a1 b1 ...; unpack works inside each half
    const F low = _mm256_unpacklo_ps(a, b);
    const F high = _mm256_unpackhi_ps(a, b);
    _mm256_storeu_ps(to, _mm256_permute2f128_ps(low, high, 0x20));
    _mm256_storeu_ps(to + 8, _mm256_permute2f128_ps(low, high, 0x31));
  }
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
