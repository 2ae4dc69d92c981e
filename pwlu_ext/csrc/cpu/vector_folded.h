// Included by vector_kernels.h: see there.
// The inference form of section 4.3: y = x * S[i] + O[i].

// The line that a lane's x is on, as a column of the tables.
template <class S>
inline typename S::I column_of(typename S::F x, typename S::F left, typename S::F interval,
                               typename S::F num_intervals) {
  const auto position = S::floor(S::div(S::sub(x, left), interval));
  // a NaN goes to the right tail: see the order of S::min's operands
  return S::to_int(S::add(S::max(S::min(position, num_intervals), S::set(-1)), S::set(1)));
}

// An infinite x on a flat line is cut off: 0 * inf would be a NaN. (A NaN stays one.)
template <class S>
inline typename S::F multiply_add(typename S::F x, typename S::F slope, typename S::F offset) {
  const auto largest = S::set(Limits<typename S::T>::kMax);
  const auto finite = S::min(largest, S::max(S::sub(S::set(0), largest), x));
  return S::fma(S::select(S::is_zero(slope), finite, x), slope, offset);
}

// The function of one channel.
template <class S, int kTable>
struct FoldedRun {
  using F = typename S::F;
  F left, interval, num_intervals;
  Registers<S, kTable> slopes, offsets;

  FoldedRun(const FoldedCurves<typename S::T>& c, int64_t channel)
      : left(S::set(c.left[channel])),
        interval(S::set(c.interval[channel])),
        num_intervals(S::set(c.num_intervals)),
        slopes(c.slopes + channel * (c.num_intervals + 2), c.num_intervals + 2),
        offsets(c.offsets + channel * (c.num_intervals + 2), c.num_intervals + 2) {}
  F value(F x) const {
    const auto column = column_of<S>(x, left, interval, num_intervals);
    return multiply_add<S>(x, slopes.at(column), offsets.at(column));
  }
};

// Lane j works on channel first + j.
template <class S>
struct FoldedGroup {
  using F = typename S::F;
  F left, interval, num_intervals;
  typename S::I first_slot;

  FoldedGroup(const FoldedCurves<typename S::T>& c, int64_t first, int count)
      : left(S::load_part(c.left + first, count)),
        interval(S::load_part(c.interval + first, count)),
        num_intervals(S::set(c.num_intervals)),
        first_slot(S::lanes_times(c.num_intervals + 2)) {}
  void put(RowStage<S>& stage, int place, F x) const {
    stage.put(place, S::add_int(first_slot, column_of<S>(x, left, interval, num_intervals)), x);
  }
  static F value(typename S::Line line, F x) { return multiply_add<S>(x, line.rise, line.start); }
};

template <class S, class X>
void folded_run(const X* x, X* y, int64_t n, const FoldedCurves<typename S::T>& curves, int64_t channel) {
  with_table<S>(curves.num_intervals + 2, [&](auto table) {
    const FoldedRun<S, table.value> run(curves, channel);
    for_vectors<S>(n,
                   [&](int64_t i, auto lanes) { store<S>(y + i, run.value(load<S>(x + i, lanes)), lanes); });
  });
}

template <class S, class X>
void folded_rows(const X* x, X* y, int64_t rows, int64_t stride, int64_t first, int64_t count,
                 const FoldedCurves<typename S::T>& curves) {
  const int64_t columns = curves.num_intervals + 2;
  apply_rows<S>(Direct<S, X>{x}, y, rows, stride, first, count, curves.lines, columns,
                [&](int64_t channel, int n) { return FoldedGroup<S>(curves, channel, n); });
}
