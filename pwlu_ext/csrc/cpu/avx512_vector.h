// AVX-512: 16 floats a vector; a table of up to 32 numbers is looked up inside two registers. Included like
// vector_kernels.h, before it.
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
  static F min(F a, F b) { return _mm512_min_ps(a, b); }
  static F max(F a, F b) { return _mm512_max_ps(a, b); }
  static F floor(F a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
  static M less(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
  static M not_less(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_NLT_UQ); }
  static M is_zero(F a) { return _mm512_cmp_ps_mask(a, set(0), _CMP_EQ_OQ); }
  static F select(M where, F yes, F no) { return _mm512_mask_blend_ps(where, no, yes); }
  static I select_int(M where, I yes, I no) { return _mm512_mask_blend_epi32(where, no, yes); }
  static I set_int(int value) { return _mm512_set1_epi32(value); }
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

  static F look_up(const F (&table)[1], I index) { return _mm512_permutexvar_ps(index, table[0]); }
  static F look_up(const F (&table)[2], I index) { return _mm512_permutex2var_ps(table[0], index, table[1]); }
  static F gather(const float* table, I index) { return _mm512_i32gather_ps(index, table, 4); }

  struct Line {
    F start, rise;
  };
  // Sixteen 8-byte loads, put together in registers, are several times faster than two gather instructions.
  static Line look_up_pairs(const float* table, const int32_t* slot) {
    const F low = join(four_pairs(table, slot), four_pairs(table, slot + 4));
    const F high = join(four_pairs(table, slot + 8), four_pairs(table, slot + 12));
    const I even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const I odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    return {_mm512_permutex2var_ps(low, even, high), _mm512_permutex2var_ps(low, odd, high)};
  }
  static F look_up_numbers(const float* table, const int32_t* slot) {
    return join(join(load_four(table, slot), load_four(table, slot + 4)),
                join(load_four(table, slot + 8), load_four(table, slot + 12)));
  }
  static __m256 four_pairs(const float* table, const int32_t* slot) {
    return join(load_two_pairs(table, TwoSlots(slot)), load_two_pairs(table, TwoSlots(slot + 2)));
  }
  static __m256 join(__m128 low, __m128 high) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(low), high, 1);
  }
  static F join(__m256 low, __m256 high) { return _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1); }

  static void store_int(int32_t* to, I a) { _mm512_storeu_si512(to, a); }
  static void add_pairs(float* sums, const int32_t* slot, const float* pairs, int count) {
    ::pwlu::cpu::add_pairs(sums, slot, pairs, count);
  }
  static void store_pairs(float* to, F a, F b) {  // a0 b0 a1 b1 ...
    const I low = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    const I high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    _mm512_storeu_ps(to, _mm512_permutex2var_ps(a, low, b));
    _mm512_storeu_ps(to + 16, _mm512_permutex2var_ps(a, high, b));
  }
};
