// Elements of x: their conversion to the type of the arithmetic, and accesses to V of them at once.
#pragma once

#include <cstring>

#include "device.cuh"

namespace pwlu::cuda {

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

// The type of the arithmetic, and of the parameters, for elements of type X.
template <typename X>
struct Arithmetic {
  using Type = float;
};
template <>
struct Arithmetic<double> {
  using Type = double;
};
template <typename X>
using Scalar = typename Arithmetic<X>::Type;

__device__ __forceinline__ float widen(float value) {
  return value;
}
__device__ __forceinline__ double widen(double value) {
  return value;
}
__device__ __forceinline__ float widen(Half value) {
  return __half2float(__ushort_as_half(value.bits));
}
__device__ __forceinline__ float widen(BFloat16 value) {
  return __uint_as_float(uint32_t(value.bits) << 16);
}

__device__ __forceinline__ void narrow(float value, float* to) {
  *to = value;
}
__device__ __forceinline__ void narrow(double value, double* to) {
  *to = value;
}
__device__ __forceinline__ void narrow(float value, Half* to) {
  to->bits = __half_as_ushort(__float2half_rn(value));
}
__device__ __forceinline__ void narrow(float value, BFloat16* to) {
  to->bits = __bfloat16_as_ushort(__float2bfloat16_rn(value));
}

// Two neighbours at once: half the instructions for the types of 16 bits.
template <typename X>
__device__ __forceinline__ void widen_pair(const X* from, Scalar<X>* values) {
  values[0] = widen(from[0]);
  values[1] = widen(from[1]);
}
template <>
__device__ __forceinline__ void widen_pair<Half>(const Half* from, float* values) {
  __half2 pair;
  memcpy(&pair, from, sizeof(pair));
  const float2 both = __half22float2(pair);
  values[0] = both.x;
  values[1] = both.y;
}
template <>
__device__ __forceinline__ void widen_pair<BFloat16>(const BFloat16* from, float* values) {
  uint32_t pair;
  memcpy(&pair, from, sizeof(pair));
  values[0] = __uint_as_float(pair << 16);
  values[1] = __uint_as_float(pair & 0xffff0000u);
}

template <typename X>
__device__ __forceinline__ void narrow_pair(const Scalar<X>* values, X* to) {
  narrow(values[0], to);
  narrow(values[1], to + 1);
}
template <>
__device__ __forceinline__ void narrow_pair<Half>(const float* values, Half* to) {
  const __half2 pair = __floats2half2_rn(values[0], values[1]);
  memcpy(to, &pair, sizeof(pair));
}
template <>
__device__ __forceinline__ void narrow_pair<BFloat16>(const float* values, BFloat16* to) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(values[0], values[1]);
  memcpy(to, &pair, sizeof(pair));
}

// The type that moves `Bytes` bytes in one instruction.
template <int Bytes>
struct Word;
template <>
struct Word<2> {
  using Type = uint16_t;
};
template <>
struct Word<4> {
  using Type = uint32_t;
};
template <>
struct Word<8> {
  using Type = uint2;
};
template <>
struct Word<16> {
  using Type = uint4;
};

// V elements as they lie in memory.
template <typename X, int V>
struct Packed {
  using Bits = typename Word<int(sizeof(X)) * V>::Type;
  Bits bits;

  // `position` is in bytes, which saves instructions in the computation of addresses.
  __device__ __forceinline__ void load(const X* from, int64_t position) {
    bits = *reinterpret_cast<const Bits*>(reinterpret_cast<const char*>(from) + position);
  }
  __device__ __forceinline__ void store(X* to, int64_t position) const {
    *reinterpret_cast<Bits*>(reinterpret_cast<char*>(to) + position) = bits;
  }

  __device__ __forceinline__ void unpack(Scalar<X> (&values)[V]) const {
    X items[V];
    memcpy(items, &bits, sizeof(bits));
    if constexpr (V == 1) {
      values[0] = widen(items[0]);
    } else {
#pragma unroll
      for (int e = 0; e < V; e += 2)
        widen_pair<X>(items + e, values + e);
    }
  }
  __device__ __forceinline__ void pack(const Scalar<X> (&values)[V]) {
    X items[V];
    if constexpr (V == 1) {
      narrow(values[0], items);
    } else {
#pragma unroll
      for (int e = 0; e < V; e += 2)
        narrow_pair<X>(values + e, items + e);
    }
    memcpy(&bits, items, sizeof(bits));
  }
};

// Vectors that a thread loads before it uses the first, of each tensor: 32 bytes, but no more than 8 vectors.
template <typename X, int V>
constexpr int kDepth = sizeof(X) * V >= 4 ? 32 / (int(sizeof(X)) * V) : 8;

// Vectors that it works on side by side, 8 elements at most: their latencies overlap.
template <typename X, int V>
constexpr int kGroup = kDepth<X, V> * V <= 8 ? kDepth<X, V>
                       : V >= 8              ? 1
                                             : 8 / V;

// The next kDepth vectors on the way of a cursor (see RunCursor and ColumnCursor). kFull: none is past the
// end.
template <typename X, int V, bool kFull>
struct Batch {
  int64_t position[kDepth<X, V>];  // of each vector, in bytes from the start of its tensor
  bool valid[kDepth<X, V>];        // false past the end

  template <typename Cursor>
  __device__ __forceinline__ explicit Batch(Cursor* cursor) {
#pragma unroll
    for (int d = 0; d < kDepth<X, V>; ++d, cursor->advance()) {
      position[d] = cursor->position;
      valid[d] = kFull || cursor->left > 0;
    }
  }
  // Past the end, elements are 0.
  __device__ __forceinline__ void load(const X* from, Packed<X, V> (&packed)[kDepth<X, V>]) const {
#pragma unroll
    for (int d = 0; d < kDepth<X, V>; ++d) {
      if (!kFull)
        packed[d].bits = {};
      if (valid[d])
        packed[d].load(from, position[d]);
    }
  }
};

// Calls step(batch, start) for the batches that cover the cursor's way; `start` is the cursor at the batch.
template <typename X, int V, typename Cursor, typename Step>
__device__ __forceinline__ void for_batches(Cursor cursor, const Step& step) {
  while (cursor.left > (kDepth<X, V> - 1) * cursor.stride()) {
    const Cursor start = cursor;
    step(Batch<X, V, true>(&cursor), start);
  }
  if (cursor.left > 0) {
    const Cursor start = cursor;
    step(Batch<X, V, false>(&cursor), start);
  }
}

}  // namespace pwlu::cuda
