// Included by vector_kernels.h: see there.
// Sums of distances from a number near the mean and of their squares, in one pass: the number is the first
// element. Where that turns out to be too far off for float, there is a second pass with a better one.

template <class S>
inline typename S::T sum_of_lanes(typename S::F values) {
  typename S::T numbers[S::kWidth];
  S::store(numbers, values);
  typename S::T sum = 0;
  for (int lane = 0; lane < S::kWidth; ++lane)
    sum += numbers[lane];
  return sum;
}

// Whether little cancels in squares - sum^2 / n.
template <class T>
inline bool is_near_mean(const BlockMoments<T>& block, int64_t n) {
  const T excess = block.sum * block.sum / static_cast<T>(n);
  return excess <= T(16) * (block.squares - excess);
}

template <class S, class X>
inline BlockMoments<typename S::T> moments_around(typename S::T center, const X* x, int64_t n) {
  constexpr int kChains = 4;
  typename S::F sums[kChains], squares[kChains];
  for (int chain = 0; chain < kChains; ++chain)
    sums[chain] = squares[chain] = S::set(0);
  const auto centers = S::set(center);
  const auto add = [&](int64_t i, auto lanes, int chain) {
    const auto distance = only<S>(S::sub(load<S>(x + i, lanes), centers), lanes);
    sums[chain] = S::add(sums[chain], distance);
    squares[chain] = S::fma(distance, distance, squares[chain]);
  };
  int64_t i = 0;
  for (; i + kChains * S::kWidth <= n; i += kChains * S::kWidth) {
    for (int chain = 0; chain < kChains; ++chain)
      add(i + chain * S::kWidth, Whole{}, chain);
  }
  for_vectors<S>(n - i, [&](int64_t rest, auto lanes) { add(i + rest, lanes, 0); });
  const auto total = [](const typename S::F* parts) {
    return sum_of_lanes<S>(S::add(S::add(parts[0], parts[1]), S::add(parts[2], parts[3])));
  };
  return {center, total(sums), total(squares)};
}

template <class S, class X>
void moments_run(const X* x, int64_t n, BlockMoments<typename S::T>* to) {
  typename S::T first[S::kWidth];
  S::store(first, load<S>(x, Part{1}));
  *to = moments_around<S>(first[0], x, n);
  if (!is_near_mean(*to, n))
    *to = moments_around<S>(to->center + to->sum / static_cast<typename S::T>(n), x, n);
}

// Of the channels of kVectors neighbouring vectors. centers: a number for each.
template <class S, int kVectors, class X, class Lanes>
inline void row_moments_around(const typename S::F (&centers)[kVectors], const X* x, int64_t rows,
                               int64_t stride, Lanes lanes, BlockMoments<typename S::T>* to) {
  typename S::F sums[kVectors], squares[kVectors];
  for (int vector = 0; vector < kVectors; ++vector)
    sums[vector] = squares[vector] = S::set(0);
  for (int64_t row = 0; row < rows; ++row) {
    for (int vector = 0; vector < kVectors; ++vector) {
      const auto distance = S::sub(load<S>(x + row * stride + vector * S::kWidth, lanes), centers[vector]);
      sums[vector] = S::add(sums[vector], distance);
      squares[vector] = S::fma(distance, distance, squares[vector]);
    }
  }
  for (int vector = 0; vector < kVectors; ++vector) {
    typename S::T numbers[3][S::kWidth];
    S::store(numbers[0], centers[vector]);
    S::store(numbers[1], sums[vector]);
    S::store(numbers[2], squares[vector]);
    for (int lane = 0; lane < count_of<S>(lanes); ++lane)
      to[vector * S::kWidth + lane] = {numbers[0][lane], numbers[1][lane], numbers[2][lane]};
  }
}

template <class S, int kVectors, class X, class Lanes>
inline void moments_of_vectors(const X* x, int64_t rows, int64_t stride, Lanes lanes,
                               BlockMoments<typename S::T>* to) {
  typename S::F centers[kVectors];
  for (int vector = 0; vector < kVectors; ++vector)
    centers[vector] = load<S>(x + vector * S::kWidth, lanes);
  row_moments_around<S, kVectors>(centers, x, rows, stride, lanes, to);
  for (int vector = 0; vector < kVectors; ++vector) {
    auto* own = to + vector * S::kWidth;
    typename S::T better[S::kWidth] = {};
    bool near = true;
    for (int lane = 0; lane < count_of<S>(lanes); ++lane) {
      near = near && is_near_mean(own[lane], rows);
      better[lane] = own[lane].center + own[lane].sum / static_cast<typename S::T>(rows);
    }
    if (!near) {
      const typename S::F one[1] = {S::load(better)};
      row_moments_around<S, 1>(one, x + vector * S::kWidth, rows, stride, lanes, own);
    }
  }
}

template <class S, class X>
void moments_rows(const X* x, int64_t rows, int64_t stride, int64_t count, BlockMoments<typename S::T>* to) {
  constexpr int kVectors = 4;
  int64_t channel = 0;
  for (; channel + kVectors * S::kWidth <= count; channel += kVectors * S::kWidth)
    moments_of_vectors<S, kVectors>(x + channel, rows, stride, Whole{}, to + channel);
  for_vectors<S>(count - channel, [&](int64_t rest, auto lanes) {
    moments_of_vectors<S, 1>(x + channel + rest, rows, stride, lanes, to + channel + rest);
  });
}
