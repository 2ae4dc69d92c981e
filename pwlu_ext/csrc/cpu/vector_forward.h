// Included by vector_kernels.h: see there.

// y for `rows` rows of `count` channels, whose functions lie in tables of lines, one of `line_count` lines
// per channel. group_at(channel, count) gives what puts the vectors of the channels from `channel` on into
// the stage (put) and evaluates the lines that were looked up for them (value).
template <class S, class X, class GroupAt>
inline void apply_rows(const X* x, X* y, int64_t rows, int64_t stride, int64_t count,
                       const typename S::T* lines, int64_t line_count, const GroupAt& group_at) {
  constexpr int kRows = RowStage<S>::kRows;
  RowStage<S> stage;
  for (int64_t begin = 0; begin < rows; begin += kRows) {
    const int staged = at_most(rows - begin, kRows);
    const X* from = x + begin * stride;
    X* to = y + begin * stride;
    for_vectors<S>(count, [&](int64_t channel, auto lanes) {
      const auto group = group_at(channel, at_most(count - channel, S::kWidth));
      for (int row = 0; row < staged; ++row) {
        const int64_t i = row * stride + channel;
        prefetch(from + i, to + i, 2 * kRows * stride);
        group.put(stage, stage.place_of(channel, row), load<S>(from + i, lanes));
      }
    });
    for_vectors<S>(count, [&](int64_t channel, auto lanes) {
      using Group = decltype(group_at(channel, 0));
      for (int row = 0; row < staged; ++row) {
        const int place = stage.place_of(channel, row);
        const auto line = S::look_up_pairs(lines + 2 * line_count * channel, stage.slot + place);
        store<S>(to + row * stride + channel, Group::value(line, S::load(stage.numbers + place)), lanes);
      }
    });
  }
}

template <class S, class X>
void forward_run(const X* x, X* y, int64_t n, const Curves<typename S::T>& curves, int64_t channel) {
  with_table<S>(curves.num_intervals, [&](auto table) {
    const Run<S, table.value> run(curves, channel);
    for_vectors<S>(n,
                   [&](int64_t i, auto lanes) { store<S>(y + i, run.value(load<S>(x + i, lanes)), lanes); });
  });
}

// Lane j works on channel first + j.
template <class S>
struct Group {
  Frame<S> frame;
  typename S::F last_interval;
  Slots<S> slots;

  Group(const Curves<typename S::T>& c, int64_t first, int count)
      : frame(frame_of_lanes<S>(c, first, count)),
        last_interval(S::set(c.num_intervals - 1)),
        slots(c.num_intervals) {}
  void put(RowStage<S>& stage, int place, typename S::F x) const {
    const Located<S> at = locate<S>(x, frame, last_interval);
    stage.put(place, slots.of(at), coordinate_of<S>(x, at, frame));
  }
  static typename S::F value(typename S::Line line, typename S::F coordinate) {
    return S::fma(coordinate, line.rise, line.start);
  }
};

template <class S, class X>
void forward_rows(const X* x, X* y, int64_t rows, int64_t stride, int64_t first, int64_t count,
                  const Curves<typename S::T>& curves) {
  const int64_t bins = curves.num_intervals + 2;
  apply_rows<S>(x, y, rows, stride, count, curves.bins + 2 * bins * first, bins,
                [&](int64_t channel, int n) { return Group<S>(curves, first + channel, n); });
}
