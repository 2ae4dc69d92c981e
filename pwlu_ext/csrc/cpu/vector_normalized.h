// Included by vector_kernels.h: see there.
// The kernels of a PWLU behind a BatchNorm.

// There may be a single function for all channels.
template <class T>
inline int64_t function_of(const Curves<T>& curves, int64_t channel) {
  return curves.channels == 1 ? 0 : channel;
}

template <class S, class X>
void normalized_run(const Normalized<typename S::T, X>& inputs, X* y, int64_t n,
                    const Curves<typename S::T>& curves, int64_t channel) {
  with_terms<S>(inputs, [&](const auto& terms) {
    evaluate_run<S>(terms.of_channel(channel), y, n, curves, function_of(curves, channel));
  });
}

template <class S, class X>
void normalized_rows(const Normalized<typename S::T, X>& inputs, X* y, int64_t rows, int64_t stride,
                     int64_t first, int64_t count, const Curves<typename S::T>& curves) {
  with_terms<S>(inputs, [&](const auto& terms) {
    if (curves.channels > 1)
      return evaluate_rows<S>(terms, y, rows, stride, first, count, curves);
    evaluate_rows_by_one<S>(terms, y, rows, stride, first, count, curves);
  });
}

template <class S, class X>
void normalized_backward_run(const X* grad, const Normalized<typename S::T, X>& inputs, X* grad_z, int64_t n,
                             const Curves<typename S::T>& curves, int64_t channel, typename S::T* sums,
                             double* moments) {
  with_terms<S>(inputs, [&](const auto& terms) {
    const auto input = terms.of_channel(channel);
    StoreAndMoments<S, X, decltype(input)> sink{grad_z, input, {S::set(0), S::set(0)}};
    add_run<S>(grad, input, sink, n, curves, function_of(curves, channel), sums);
    for (int term = 0; term < kMoments; ++term)
      moments[term] += static_cast<double>(sum_of_lanes<S>(sink.totals[term]));
  });
}

template <class S, class X>
void normalized_backward_rows(const X* grad, const Normalized<typename S::T, X>& inputs, X* grad_z,
                              int64_t rows, int64_t stride, int64_t first, int64_t count,
                              const Curves<typename S::T>& curves, typename S::T* sums, double* moments) {
  using T = typename S::T;
  T totals[kMoments][kChannelBlock] = {};
  with_terms<S>(inputs, [&](const auto& terms) {
    using Input = decltype(terms.of_lanes(0, 0));
    const auto sink_at = [&](int64_t channel, int width) {
      return StoreAndMoments<S, X, Input>{
          grad_z,
          terms.of_lanes(first + channel, width),
          {S::load_part(totals[0] + channel, width), S::load_part(totals[1] + channel, width)}};
    };
    const auto done = [&](int64_t channel, auto lanes, const auto& sink) {
      for (int term = 0; term < kMoments; ++term)
        store<S>(totals[term] + channel, sink.totals[term], lanes);
    };
    if (curves.channels > 1)
      return add_rows<S>(grad, terms, rows, stride, first, count, curves, sums, sink_at, done);
    add_rows_by_one<S>(grad, terms, rows, stride, first, count, curves, sums, sink_at, done);
  });
  for (int64_t channel = 0; channel < count; ++channel) {
    for (int term = 0; term < kMoments; ++term)
      moments[kMoments * channel + term] += static_cast<double>(totals[term][channel]);
  }
}

// The numbers of a channel, or of a vector's lanes.
template <class S>
struct CombinationNumbers {
  typename S::F scale, mean_grad, of_x, mean;
};

template <class S, class X, class Lanes>
inline void combine(const Combination<typename S::T, X>& c, int64_t i, Lanes lanes,
                    const CombinationNumbers<S>& n) {
  const auto centred = S::sub(load<S>(c.grad + i, lanes), n.mean_grad);
  const auto distance = S::sub(load<S>(c.x + i, lanes), n.mean);
  store<S>(c.to + i, S::mul(n.scale, S::fma(distance, n.of_x, centred)), lanes);
}

template <class S, class X>
void combination_run(const Combination<typename S::T, X>& c, int64_t n, int64_t channel) {
  const CombinationNumbers<S> numbers = {S::set(c.scale[channel]), S::set(c.mean_grad[channel]),
                                         S::set(c.of_x[channel]), S::set(c.mean[channel])};
  for_vectors<S>(n, [&](int64_t i, auto lanes) { combine<S>(c, i, lanes, numbers); });
}

template <class S, class X>
void combination_rows(const Combination<typename S::T, X>& c, int64_t rows, int64_t stride, int64_t first,
                      int64_t count) {
  for (int64_t row = 0; row < rows; ++row) {
    for_vectors<S>(count, [&](int64_t channel, auto lanes) {
      const auto of_lanes = [&](const typename S::T* numbers) {
        return load<S>(numbers + first + channel, lanes);
      };
      combine<S>(c, row * stride + channel, lanes,
                 {of_lanes(c.scale), of_lanes(c.mean_grad), of_lanes(c.of_x), of_lanes(c.mean)});
    });
  }
}
