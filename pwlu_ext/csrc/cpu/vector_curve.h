// Included by vector_kernels.h: see there.
// Where x lies on a channel's function, and the function itself.

// The boundaries that a vector's lanes are compared with. Tail distances are cut off at the limits.
template <class S>
struct Frame {
  typename S::F left, edge, right, interval, low_limit, high_limit;
};

// All lanes work on one channel.
template <class S>
inline Frame<S> frame_of_channel(const Curves<typename S::T>& c, int64_t channel) {
  return {S::set(c.left[channel]),     S::set(c.edge[channel]),        S::set(c.right[channel]),
          S::set(c.interval[channel]), S::set(-c.left_limit[channel]), S::set(c.right_limit[channel])};
}

// Lane j works on channel first + j; `count` lanes are in use.
template <class S>
inline Frame<S> frame_of_lanes(const Curves<typename S::T>& c, int64_t first, int count) {
  const auto lanes = [&](const typename S::T* field) { return S::load_part(field + first, count); };
  return {lanes(c.left),
          lanes(c.edge),
          lanes(c.right),
          lanes(c.interval),
          S::sub(S::set(0), lanes(c.left_limit)),
          lanes(c.right_limit)};
}

// In a backward pass every distance is bounded: see bounded() of pwlu.h.
template <class S>
inline Frame<S> bounded(Frame<S> frame) {
  frame.low_limit = S::set(-Limits<typename S::T>::kMax);
  frame.high_limit = S::set(Limits<typename S::T>::kMax);
  return frame;
}

// locate() of pwlu.h for a vector: the interval as a number in T, and the coordinate inside it.
template <class S>
struct Located {
  typename S::M below, above;
  typename S::F offset;             // x - left
  typename S::F index, coordinate;  // meaningless in lanes that are below or above
};

template <class S>
inline Located<S> locate(typename S::F x, const Frame<S>& frame, typename S::F last_interval) {
  using F = typename S::F;
  const F offset = S::sub(x, frame.left);
  // The division that defines the interval (Eq. 2) costs next to nothing: the divider works beside the other
  // units, and no branch has to look after the knots, where a product with 1 / d can be off by one interval.
  const F position = S::div(offset, frame.interval);
  const F index = S::min(S::floor(position), last_interval);
  return {S::less(x, frame.left), S::not_less(x, frame.edge), offset, index, S::sub(position, index)};
}

template <class S>
inline typename S::F distance_below(const Located<S>& at, const Frame<S>& frame) {
  return S::max(frame.low_limit, at.offset);
}

template <class S>
inline typename S::F distance_above(typename S::F x, const Frame<S>& frame) {
  return S::min(frame.high_limit, S::sub(x, frame.right));
}

// The intervals of one channel, in registers: kTable numbers each.
template <class S, int kTable>
struct Segments {
  using F = typename S::F;
  static constexpr int kParts = kTable / S::kWidth;
  F start[kParts], rise[kParts], slope[kParts];

  Segments(const typename S::T* points, int num_intervals, typename S::T inverse) {
    for (int part = 0; part < kParts; ++part) {
      const int begin = part * S::kWidth, count = part_of(num_intervals, begin, S::kWidth);
      start[part] = S::load_part(points + begin, count);
      rise[part] = S::sub(S::load_part(points + begin + 1, count), start[part]);
      slope[part] = S::mul(rise[part], S::set(inverse));
    }
  }
  F value_at(F index, F coordinate) const {
    const auto i = S::to_int(index);
    return S::fma(coordinate, S::look_up(rise, i), S::look_up(start, i));
  }
  F slope_at(F index) const { return S::look_up(slope, S::to_int(index)); }
};

// Too many for registers: read from memory.
template <class S>
struct Segments<S, 0> {
  using F = typename S::F;
  const typename S::T* points;
  F inverse;

  Segments(const typename S::T* points_, int, typename S::T inverse_)
      : points(points_), inverse(S::set(inverse_)) {}
  F value_at(F index, F coordinate) const {
    const auto i = S::to_int(S::max(index, S::set(0)));
    const F start = S::gather(points, i);
    return S::fma(coordinate, S::sub(S::gather(points + 1, i), start), start);
  }
  F slope_at(F index) const {
    const auto i = S::to_int(S::max(index, S::set(0)));
    return S::mul(S::sub(S::gather(points + 1, i), S::gather(points, i)), inverse);
  }
};

// The function of one channel.
template <class S, int kTable>
struct Run {
  using F = typename S::F;
  Frame<S> frame;
  F left_slope, right_slope, first, last, last_interval;
  Segments<S, kTable> segments;

  Run(const Curves<typename S::T>& c, int64_t channel)
      : Run(c, channel, c.points + channel * (c.num_intervals + 1)) {}

  F value(F x) const {
    const Located<S> at = locate<S>(x, frame, last_interval);
    const F below = S::fma(distance_below<S>(at, frame), left_slope, first);
    const F above = S::fma(distance_above<S>(x, frame), right_slope, last);
    return S::select(at.above, above, S::select(at.below, below, segments.value_at(at.index, at.coordinate)));
  }
  F slope(const Located<S>& at) const {
    return S::select(at.above, right_slope, S::select(at.below, left_slope, segments.slope_at(at.index)));
  }

 private:
  Run(const Curves<typename S::T>& c, int64_t channel, const typename S::T* points)
      : frame(frame_of_channel<S>(c, channel)),
        left_slope(S::set(c.left_slope[channel])),
        right_slope(S::set(c.right_slope[channel])),
        first(S::set(points[0])),
        last(S::set(points[c.num_intervals])),
        last_interval(S::set(c.num_intervals - 1)),
        segments(points, c.num_intervals, c.inverse[channel]) {}
};

// Numbers of the bins of each lane's own table: the left tail's, the first interval's, the right tail's.
template <class S>
struct Slots {
  typename S::I below, first, above;

  explicit Slots(int num_intervals)
      : below(S::lanes_times(num_intervals + 2)),
        first(S::add_int(below, S::set_int(1))),
        above(S::add_int(below, S::set_int(num_intervals + 1))) {}
  typename S::I of(const Located<S>& at) const {
    const auto inside = S::add_int(first, S::to_int(at.index));
    return S::select_int(at.above, above, S::select_int(at.below, below, inside));
  }
};

// The coordinate that belongs to the bin: inside it, or the distance from the boundary.
template <class S>
inline typename S::F coordinate_of(typename S::F x, const Located<S>& at, const Frame<S>& frame) {
  return S::select(at.above, distance_above<S>(x, frame),
                   S::select(at.below, distance_below<S>(at, frame), at.coordinate));
}
