// The kernels, written once over a vector type. Each instruction set's .cpp includes this file inside an
// anonymous namespace, after defining a struct `S` of vector operations: every copy is private to its file,
// so that the linker can never hand code for one instruction set to a machine that has only another. For the
// same reason nothing here calls a template or inline function of the standard library.
//
// S provides: T (float or double), F (vector of T), M (mask), I (vector of int32), kWidth, and the functions
// used below.

// The functions of the channels a vector works on. Run: one channel for all lanes, tables in registers where
// they fit.
template <class S, int kTable>
struct Run {
  using F = typename S::F;
  F left, right, edge, interval, inverse, left_slope, right_slope, left_limit, right_limit, first, last;
  typename S::template Table<kTable> start, rise;

  Run(const Curves<typename S::T>& c, int64_t channel)
      : left(S::set(c.left[channel])),
        right(S::set(c.right[channel])),
        edge(S::set(c.edge[channel])),
        interval(S::set(c.interval[channel])),
        inverse(S::set(c.inverse[channel])),
        left_slope(S::set(c.left_slope[channel])),
        right_slope(S::set(c.right_slope[channel])),
        left_limit(S::set(c.left_limit[channel])),
        right_limit(S::set(c.right_limit[channel])),
        first(S::set(c.first[channel])),
        last(S::set(c.last[channel])),
        start(c.start + channel * c.row_length),
        rise(c.rise + channel * c.row_length) {}

  F rise_at(typename S::I index) const { return rise.at(index); }
  F interpolate(typename S::I index, F coordinate) const {
    return S::fma(coordinate, rise.at(index), start.at(index));
  }
};

// Row: lane j works on channel first + j.
template <class S>
struct Row {
  using F = typename S::F;
  F left, right, edge, interval, inverse, left_slope, right_slope, left_limit, right_limit, first, last;
  typename S::Rows start_rise;

  Row(const Curves<typename S::T>& c, int64_t channel, int count)
      : left(S::load_part(c.left + channel, count)),
        right(S::load_part(c.right + channel, count)),
        edge(S::load_part(c.edge + channel, count)),
        interval(S::load_part(c.interval + channel, count)),
        inverse(S::load_part(c.inverse + channel, count)),
        left_slope(S::load_part(c.left_slope + channel, count)),
        right_slope(S::load_part(c.right_slope + channel, count)),
        left_limit(S::load_part(c.left_limit + channel, count)),
        right_limit(S::load_part(c.right_limit + channel, count)),
        first(S::load_part(c.first + channel, count)),
        last(S::load_part(c.last + channel, count)),
        start_rise(c.start_rise + 2 * channel * c.row_length, c.row_length) {}

  F rise_at(typename S::I index) const { return start_rise.at(index).rise; }
  F interpolate(typename S::I index, F coordinate) const {
    const auto entry = start_rise.at(index);
    return S::fma(coordinate, entry.rise, entry.start);
  }
};

// locate() of pwlu.h for a vector: the interval as a number in T, and the coordinate inside it.
template <class S>
struct Located {
  typename S::M below, above;
  typename S::F index, coordinate;  // meaningless in lanes that are below or above
};

// Multiplying by 1 / d is much cheaper than the division that defines the interval (Eq. 2) and differs from
// it only next to a knot. So: multiply, and divide the vectors that have a lane next to a knot. |position| <=
// num_intervals is off by less than 3 units in its last place, i.e. by less than num_intervals * 2^-22 (2^-51
// in float64).
template <class S, class P>
inline Located<S> locate(typename S::F x, const P& p, typename S::F last_interval, typename S::F tolerance) {
  using F = typename S::F;
  const F offset = S::sub(x, p.left);
  F position = S::mul(offset, p.inverse);
  F index = S::floor(position);
  const F fraction = S::sub(position, index);
  if (S::any(S::either(S::less(fraction, tolerance), S::less(S::sub(S::set(1), tolerance), fraction)))) {
    position = S::div(offset, p.interval);
    index = S::floor(position);
  }
  index = S::min(S::max(index, S::set(0)),
                 last_interval);  // and a NaN becomes 0: see the order of S::max's operands
  return {S::less(x, p.left), S::not_less(x, p.edge), index, S::sub(position, index)};
}

template <class S, class P>
inline typename S::F value(typename S::F x, const P& p, typename S::F last_interval,
                           typename S::F tolerance) {
  using F = typename S::F;
  const Located<S> at = locate<S>(x, p, last_interval, tolerance);
  const F inside = p.interpolate(S::to_int(at.index), at.coordinate);
  // min and max return their second operand where one is a NaN
  const F below = S::fma(S::max(S::neg(p.left_limit), S::sub(x, p.left)), p.left_slope, p.first);
  const F above = S::fma(S::min(p.right_limit, S::sub(x, p.right)), p.right_slope, p.last);
  return S::select(at.above, above, S::select(at.below, below, inside));
}

// grad_x, and what each lane adds to the two sums of its bin.
template <class S>
struct Contribution {
  typename S::F grad_x, moment;
  typename S::I bin;
};

template <class S, class P>
inline Contribution<S> contribution(typename S::F grad, typename S::F x, const P& p,
                                    typename S::F last_interval, typename S::F tolerance) {
  using F = typename S::F;
  const Located<S> at = locate<S>(x, p, last_interval, tolerance);
  const F inside = S::mul(p.rise_at(S::to_int(at.index)), p.inverse);
  const F slope = S::select(at.above, p.right_slope, S::select(at.below, p.left_slope, inside));
  const F largest = S::set(Limits<typename S::T>::kMax);
  F coordinate = S::select(at.below, S::sub(x, p.left), at.coordinate);
  coordinate = S::select(at.above, S::sub(x, p.right), coordinate);
  coordinate = S::min(largest, S::max(S::neg(largest), coordinate));
  F bin = S::select(at.below, S::set(0), S::add(at.index, S::set(1)));
  bin = S::select(at.above, S::add(last_interval, S::set(2)), bin);
  return {S::mul(grad, slope), S::mul(grad, coordinate), S::to_int(bin)};
}

template <class T>
inline T tolerance_of(int num_intervals) {
  return T(num_intervals) * (sizeof(T) == 4 ? T(0x1p-22) : T(0x1p-51));
}

template <class S, class X, int kTable>
void forward_run_with(const X* x, X* y, int64_t n, const Curves<typename S::T>& curves, int64_t channel) {
  const Run<S, kTable> p(curves, channel);
  const auto last = S::set(curves.num_intervals - 1);
  const auto tolerance = S::set(tolerance_of<typename S::T>(curves.num_intervals));
  int64_t i = 0;
  for (; i + S::kWidth <= n; i += S::kWidth)
    S::store(y + i, value<S>(S::load(x + i), p, last, tolerance));
  const int rest = static_cast<int>(n - i);
  if (rest > 0)
    S::store_part(y + i, value<S>(S::load_part(x + i, rest), p, last, tolerance), rest);
}

template <class S, class X>
void forward_rows(const X* x, X* y, int64_t rows, int64_t stride, int64_t first, int64_t count,
                  const Curves<typename S::T>& curves) {
  const auto last = S::set(curves.num_intervals - 1);
  const auto tolerance = S::set(tolerance_of<typename S::T>(curves.num_intervals));
  for (int64_t lane = 0; lane < count; lane += S::kWidth) {
    const int lanes = static_cast<int>(count - lane < S::kWidth ? count - lane : S::kWidth);
    const Row<S> p(curves, first + lane, lanes);
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t i = row * stride + lane;
      if (lanes == S::kWidth) {
        S::store(y + i, value<S>(S::load(x + i), p, last, tolerance));
      } else {
        S::store_part(y + i, value<S>(S::load_part(x + i, lanes), p, last, tolerance), lanes);
      }
    }
  }
}

// The scatter of a backward pass: sums[slot] += (grad, moment), element by element. It is put off until
// kStage elements have been computed: reading small pieces of a vector that was stored a moment ago would
// stall the processor.
template <class S>
struct Stage {
  static constexpr int kStage = 512;
  alignas(64) int32_t slot[kStage];
  alignas(64) typename S::T pairs[2 * kStage];

  void put(int at, typename S::I slots, typename S::F grad, typename S::F moment) {
    S::store_int(slot + at, slots);
    S::store_pairs(pairs + 2 * at, grad, moment);
  }
  void add_to(typename S::T* sums, int count) const { S::add_to(sums, slot, pairs, count); }
};

// One vector of the backward pass: grad_x is written, the sums' share is staged.
template <class S, class X, class P>
inline void backward_vector(const X* grad, const X* x, X* grad_x, int count, const P& p, typename S::F last,
                            typename S::F tolerance, typename S::I first_slot, Stage<S>& stage, int at) {
  const bool whole = count == S::kWidth;
  const auto g = whole ? S::load(grad) : S::load_part(grad, count);
  const Contribution<S> c =
      contribution<S>(g, whole ? S::load(x) : S::load_part(x, count), p, last, tolerance);
  if (whole) {
    S::store(grad_x, c.grad_x);
  } else {
    S::store_part(grad_x, c.grad_x, count);
  }
  stage.put(at, S::add_int(first_slot, c.bin), g, c.moment);
}

template <class S, class X, int kTable>
void backward_run_with(const X* grad, const X* x, X* grad_x, int64_t n, const Curves<typename S::T>& curves,
                       int64_t channel, typename S::T* sums) {
  const Run<S, kTable> p(curves, channel);
  const auto last = S::set(curves.num_intervals - 1);
  const auto tolerance = S::set(tolerance_of<typename S::T>(curves.num_intervals));
  const auto first_slot = S::lanes_times(curves.num_intervals + 2);
  Stage<S> stage;
  for (int64_t begin = 0; begin < n; begin += Stage<S>::kStage) {
    const int staged = static_cast<int>(n - begin < Stage<S>::kStage ? n - begin : Stage<S>::kStage);
    for (int at = 0; at < staged; at += S::kWidth) {
      const int64_t i = begin + at;
      const int count = staged - at < S::kWidth ? staged - at : S::kWidth;
      backward_vector<S>(grad + i, x + i, grad_x + i, count, p, last, tolerance, first_slot, stage, at);
    }
    stage.add_to(sums, staged);
  }
}

template <class S, class X>
void backward_rows(const X* grad, const X* x, X* grad_x, int64_t rows, int64_t stride, int64_t first,
                   int64_t count, const Curves<typename S::T>& curves, typename S::T* sums) {
  constexpr int64_t kRows = Stage<S>::kStage / S::kWidth;
  const auto last = S::set(curves.num_intervals - 1);
  const auto tolerance = S::set(tolerance_of<typename S::T>(curves.num_intervals));
  const int bins = curves.num_intervals + 2;
  const auto first_slot = S::lanes_times(bins);
  Stage<S> stage;
  for (int64_t lane = 0; lane < count; lane += S::kWidth) {
    const int lanes = static_cast<int>(count - lane < S::kWidth ? count - lane : S::kWidth);
    const Row<S> p(curves, first + lane, lanes);
    const int64_t rows_at_once =
        lanes == S::kWidth ? kRows : 1;  // a partial vector leaves gaps among the staged ones
    for (int64_t begin = 0; begin < rows; begin += rows_at_once) {
      const int64_t end = begin + rows_at_once < rows ? begin + rows_at_once : rows;
      for (int64_t row = begin; row < end; ++row) {
        const int64_t i = row * stride + lane;
        const int at = static_cast<int>(row - begin) * S::kWidth;
        backward_vector<S>(grad + i, x + i, grad_x + i, lanes, p, last, tolerance, first_slot, stage, at);
      }
      stage.add_to(sums + 2 * bins * lane, static_cast<int>(end - begin) * lanes);
    }
  }
}

// The smallest register table that holds a row; kTable = 0 reads it from memory.
template <class S, class X>
void forward_run(const X* x, X* y, int64_t n, const Curves<typename S::T>& curves, int64_t channel) {
  if (curves.num_intervals <= S::kSmallTable)
    return forward_run_with<S, X, S::kSmallTable>(x, y, n, curves, channel);
  if (curves.num_intervals <= S::kLargeTable)
    return forward_run_with<S, X, S::kLargeTable>(x, y, n, curves, channel);
  forward_run_with<S, X, 0>(x, y, n, curves, channel);
}

template <class S, class X>
void backward_run(const X* grad, const X* x, X* grad_x, int64_t n, const Curves<typename S::T>& curves,
                  int64_t channel, typename S::T* sums) {
  if (curves.num_intervals <= S::kSmallTable) {
    return backward_run_with<S, X, S::kSmallTable>(grad, x, grad_x, n, curves, channel, sums);
  }
  if (curves.num_intervals <= S::kLargeTable) {
    return backward_run_with<S, X, S::kLargeTable>(grad, x, grad_x, n, curves, channel, sums);
  }
  backward_run_with<S, X, 0>(grad, x, grad_x, n, curves, channel, sums);
}

template <class S, class X>
constexpr Kernels<typename S::T, X> kernels() {
  return {&forward_run<S, X>, &forward_rows<S, X>, &backward_run<S, X>, &backward_rows<S, X>, S::kWidth};
}
