// Access to tables element by element, at slots that a vector instruction has stored. Included like
// vector_kernels.h: a private copy inside the anonymous namespace of each x86 instruction set.

// Two neighbouring slots with one read; they are never negative.
struct TwoSlots {
  uint64_t low, high;
  explicit TwoSlots(const int32_t* slot) {
    uint64_t both;
    __builtin_memcpy(&both, slot, sizeof both);
    low = both & 0xFFFFFFFFU;
    high = both >> 32;
  }
};

inline __m128 load_pair(const float* from) {
  return _mm_castsi128_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
}
inline void store_pair(float* to, __m128 pair) {
  _mm_storel_pi(reinterpret_cast<__m64*>(to), pair);
}

// The pairs at two slots.
inline __m128 load_two_pairs(const float* table, TwoSlots slot) {
  return _mm_loadh_pi(load_pair(table + 2 * slot.low), reinterpret_cast<const __m64*>(table + 2 * slot.high));
}
inline void store_two_pairs(float* table, TwoSlots slot, __m128 pairs) {
  store_pair(table + 2 * slot.low, pairs);
  _mm_storeh_pi(reinterpret_cast<__m64*>(table + 2 * slot.high), pairs);
}

// The numbers at four slots.
inline __m128 load_four(const float* table, const int32_t* slot) {
  const TwoSlots a(slot), b(slot + 2);
  __m128 four = _mm_load_ss(table + a.low);
  four = _mm_insert_ps(four, _mm_load_ss(table + a.high), 0x10);
  four = _mm_insert_ps(four, _mm_load_ss(table + b.low), 0x20);
  return _mm_insert_ps(four, _mm_load_ss(table + b.high), 0x30);
}

// sums[slot] += pair for `count` pairs. Any four consecutive slots of a stage differ (they belong to
// different lanes), so four are read before the first is written: a read never waits for the write just
// before it. The limit is one write per element and cycle.
inline void add_pairs(float* sums, const int32_t* slot, const float* pairs, int count) {
  const int32_t* const end = slot + count;
  for (; slot + 4 <= end; slot += 4, pairs += 8) {
    const TwoSlots a(slot), b(slot + 2);
    const __m128 sum_a = _mm_add_ps(load_two_pairs(sums, a), _mm_loadu_ps(pairs));
    const __m128 sum_b = _mm_add_ps(load_two_pairs(sums, b), _mm_loadu_ps(pairs + 4));
    store_two_pairs(sums, a, sum_a);
    store_two_pairs(sums, b, sum_b);
  }
  for (; slot < end; ++slot, pairs += 2)
    store_pair(sums + 2 * *slot, _mm_add_ps(load_pair(sums + 2 * *slot), load_pair(pairs)));
}
