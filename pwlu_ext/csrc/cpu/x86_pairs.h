// Included like vector_kernels.h: a private copy inside the anonymous namespace of each x86 instruction set.

inline __m128 load_pair(const float* from) {
  return _mm_castsi128_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
}

// sums[slot] += pair for `count` pairs. Any four consecutive slots of a stage differ (they belong to
// different lanes), so four are read before the first is written: a read never waits for the write just
// before it.
inline void add_pairs(float* sums, const int32_t* slot, const float* pairs, int count) {
  int i = 0;
  for (; i + 4 <= count; i += 4) {
    float* to[4];
    __m128 sum[4];
    for (int j = 0; j < 4; ++j)
      to[j] = sums + 2 * slot[i + j];
    for (int j = 0; j < 4; ++j)
      sum[j] = _mm_add_ps(load_pair(to[j]), load_pair(pairs + 2 * (i + j)));
    for (int j = 0; j < 4; ++j)
      _mm_storel_pi(reinterpret_cast<__m64*>(to[j]), sum[j]);
  }
  for (; i < count; ++i) {
    float* to = sums + 2 * slot[i];
    _mm_storel_pi(reinterpret_cast<__m64*>(to), _mm_add_ps(load_pair(to), load_pair(pairs + 2 * i)));
  }
}
