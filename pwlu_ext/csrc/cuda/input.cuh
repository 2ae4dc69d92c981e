// What the functions are evaluated at: x itself, or z, what BatchNorms make of x and of a shortcut.
#pragma once

#include "element.cuh"

namespace pwlu::cuda {

// In a backward pass: per channel the sums of d loss / d z times the distance of a term from its mean.
template <typename T, int kMoments, int kChannels>
struct Moments {
  T totals[kMoments][kChannels];
};
template <typename T, int kChannels>
struct Moments<T, 0, kChannels> {};

// The vectors of a batch, of each term.
template <typename X, int V, int kTerms>
struct Loaded {
  Packed<X, V> terms[kTerms][kDepth<X, V>];
};

template <typename X>
struct Direct {
  const X* __restrict__ x;
  static constexpr int kTerms = 1, kMoments = 0, kChannels = 1;

  template <int V, typename Batch>
  __device__ __forceinline__ void load(const Batch& batch, Loaded<X, V, 1>* to) const {
    batch.load(x, to->terms[0]);
  }
  // Of vector `d` of the batch.
  template <int V>
  __device__ __forceinline__ void values(const Loaded<X, V, 1>& from, int d, Scalar<X> (&z)[V]) const {
    from.terms[0][d].unpack(z);
  }
  // Of element i, in column e of its vector.
  __device__ __forceinline__ Scalar<X> at(int64_t i, int) const { return widen(x[i]); }
};

// x, and a shortcut that is added to it if kTerms is 2, with their BatchNorms.
template <typename X, int kTerms>
struct Terms {
  const X* x[kTerms];
  NormPointers norms[kTerms];

  static Terms of(const TermPointers& pointers) {
    Terms terms;
    for (int term = 0; term < kTerms; ++term) {
      terms.x[term] = static_cast<const X*>(pointers.x[term]);
      terms.norms[term] = pointers.norms[term];
    }
    return terms;
  }
};

// scale * (x - mean) + bias.
template <typename T>
struct Affine {
  T scale, mean, bias;

  __device__ __forceinline__ static Affine of(const NormPointers& norm, int64_t channel) {
    if (norm.mean == nullptr)
      return {T(1), T(0), T(0)};
    const auto number = [&](const void* numbers) { return static_cast<const T*>(numbers)[channel]; };
    return {number(norm.weight) * number(norm.invstd), number(norm.mean), number(norm.bias)};
  }
};

// z of one channel, or of as many as a vector has columns.
template <typename X, int kTerms_, int kChannels_>
struct Normalized {
  using T = Scalar<X>;
  static constexpr int kTerms = kTerms_, kMoments = kTerms_, kChannels = kChannels_;
  const Terms<X, kTerms>& terms;
  Affine<T> affines[kTerms][kChannels];

  // channel_at(e): of column e.
  template <typename ChannelAt>
  __device__ __forceinline__ Normalized(const Terms<X, kTerms>& terms, const ChannelAt& channel_at)
      : terms(terms) {
#pragma unroll
    for (int e = 0; e < kChannels; ++e) {
#pragma unroll
      for (int term = 0; term < kTerms; ++term)
        affines[term][e] = Affine<T>::of(terms.norms[term], channel_at(e));
    }
  }

  template <int V, typename Batch>
  __device__ __forceinline__ void load(const Batch& batch, Loaded<X, V, kTerms>* to) const {
#pragma unroll
    for (int term = 0; term < kTerms; ++term)
      batch.load(terms.x[term], to->terms[term]);
  }
  template <int V>
  __device__ __forceinline__ void values(const Loaded<X, V, kTerms>& from, int d, T (&z)[V]) const {
    T x[kTerms][V];
#pragma unroll
    for (int term = 0; term < kTerms; ++term)
      from.terms[term][d].unpack(x[term]);
#pragma unroll
    for (int e = 0; e < V; ++e) {
      z[e] = value(0, x[0][e], e);
      if constexpr (kTerms == 2)
        z[e] += value(1, x[1][e], e);
    }
  }
  __device__ __forceinline__ T at(int64_t i, int e) const {
    const T z = value(0, widen(terms.x[0][i]), e);
    if constexpr (kTerms == 2)
      return z + value(1, widen(terms.x[1][i]), e);
    return z;
  }
  template <int V>
  __device__ __forceinline__ void add_moments(const Loaded<X, V, kTerms>& from, int d, const T (&grad_z)[V],
                                              Moments<T, kTerms, kChannels>* moments) const {
#pragma unroll
    for (int term = 0; term < kTerms; ++term) {
      T x[V];
      from.terms[term][d].unpack(x);
#pragma unroll
      for (int e = 0; e < V; ++e)
        add_moment(term, x[e], e, grad_z[e], moments);
    }
  }
  __device__ __forceinline__ void add_moments(int64_t i, int e, T grad_z,
                                              Moments<T, kTerms, kChannels>* moments) const {
#pragma unroll
    for (int term = 0; term < kTerms; ++term)
      add_moment(term, widen(terms.x[term][i]), e, grad_z, moments);
  }

 private:
  __device__ __forceinline__ T value(int term, T x, int e) const {
    const Affine<T>& affine = affines[term][e % kChannels];
    return multiply_add(x - affine.mean, affine.scale, affine.bias);
  }
  __device__ __forceinline__ void add_moment(int term, T x, int e, T grad_z,
                                             Moments<T, kTerms, kChannels>* moments) const {
    T& total = moments->totals[term][e % kChannels];
    total = multiply_add(grad_z, x - affines[term][e % kChannels].mean, total);
  }
};

}  // namespace pwlu::cuda
