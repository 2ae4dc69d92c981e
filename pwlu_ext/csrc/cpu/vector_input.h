// Included by vector_kernels.h: see there.
// What a kernel evaluates the functions at: x itself, or what a BatchNorm makes of it.

// x itself.
template <class S, class X>
struct Direct {
  const X* x;

  Direct of_channel(int64_t) const { return *this; }
  Direct of_lanes(int64_t, int) const { return *this; }
  template <class Lanes>
  typename S::F at(int64_t i, Lanes lanes) const {
    return load<S>(x + i, lanes);
  }
  void prefetch(int64_t i) const { prefetch_read(x + i); }
};

// What a BatchNorm makes of x, in one channel or in those of a vector's lanes.
template <class S, class X>
struct AffineTerm {
  const X* x;
  typename S::F scale, mean, bias;

  AffineTerm(const Term<typename S::T, X>& term, int64_t channel)
      : x(term.x),
        scale(S::set(term.scale[channel])),
        mean(S::set(term.mean[channel])),
        bias(S::set(term.bias[channel])) {}
  AffineTerm(const Term<typename S::T, X>& term, int64_t first, int count)
      : x(term.x),
        scale(S::load_part(term.scale + first, count)),
        mean(S::load_part(term.mean + first, count)),
        bias(S::load_part(term.bias + first, count)) {}

  template <class Lanes>
  typename S::F at(int64_t i, Lanes lanes) const {
    return S::fma(from_mean(i, lanes), scale, bias);
  }
  template <class Lanes>
  typename S::F from_mean(int64_t i, Lanes lanes) const {
    return S::sub(load<S>(x + i, lanes), mean);
  }
};

// One term or, in the specialisation, two.
template <class S, class X, bool kShortcut>
struct Terms {
  AffineTerm<S, X> x;

  template <class... Channels>
  Terms(const Normalized<typename S::T, X>& input, Channels... channels) : x(input.x, channels...) {}

  template <class Lanes>
  typename S::F at(int64_t i, Lanes lanes) const {
    return x.at(i, lanes);
  }
  template <class Lanes>
  void add_moments(int64_t i, Lanes lanes, typename S::F grad, typename S::F* totals) const {
    totals[0] = S::fma(grad, x.from_mean(i, lanes), totals[0]);
  }
  void prefetch(int64_t i) const { prefetch_read(x.x + i); }
};

template <class S, class X>
struct Terms<S, X, true> {
  AffineTerm<S, X> x, shortcut;

  template <class... Channels>
  Terms(const Normalized<typename S::T, X>& input, Channels... channels)
      : x(input.x, channels...), shortcut(input.shortcut, channels...) {}

  template <class Lanes>
  typename S::F at(int64_t i, Lanes lanes) const {
    return S::add(x.at(i, lanes), shortcut.at(i, lanes));
  }
  template <class Lanes>
  void add_moments(int64_t i, Lanes lanes, typename S::F grad, typename S::F* totals) const {
    totals[0] = S::fma(grad, x.from_mean(i, lanes), totals[0]);
    totals[1] = S::fma(grad, shortcut.from_mean(i, lanes), totals[1]);
  }
  void prefetch(int64_t i) const {
    prefetch_read(x.x + i);
    prefetch_read(shortcut.x + i);
  }
};

// The terms of all channels.
template <class S, class X, bool kShortcut>
struct AllTerms {
  const Normalized<typename S::T, X>& input;

  Terms<S, X, kShortcut> of_channel(int64_t channel) const { return {input, channel}; }
  Terms<S, X, kShortcut> of_lanes(int64_t first, int count) const { return {input, first, count}; }
};

// Calls f with AllTerms of `input`.
template <class S, class X, class F>
inline void with_terms(const Normalized<typename S::T, X>& input, const F& f) {
  if (input.shortcut.x == nullptr)
    return f(AllTerms<S, X, false>{input});
  f(AllTerms<S, X, true>{input});
}
