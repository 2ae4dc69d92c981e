// Included by vector_kernels.h: see there.

// y for `rows` rows of `count` channels from `first` on, whose functions lie in tables of lines, one of
// `line_count` lines per channel. group_at(channel, count) gives what puts the vectors of the channels from
// `channel` on into the stage (put) and evaluates the lines that were looked up for them (value).
template <class S, class X, class Inputs, class GroupAt>
inline void apply_rows(const Inputs& inputs, X* y, int64_t rows, int64_t stride, int64_t first, int64_t count,
                       const typename S::T* lines, int64_t line_count, const GroupAt& group_at) {
  constexpr int kRows = RowStage<S>::kRows;
  RowStage<S> stage;
  for (int64_t begin = 0; begin < rows; begin += kRows) {
    const int staged = at_most(rows - begin, kRows);
    for_vectors<S>(count, [&](int64_t channel, auto lanes) {
      const int width = at_most(count - channel, S::kWidth);
      const auto group = group_at(first + channel, width);
      const auto input = inputs.of_lanes(first + channel, width);
      for (int row = 0; row < staged; ++row) {
        const int64_t i = (begin + row) * stride + channel, ahead = i + 2 * kRows * stride;
        input.prefetch(ahead);
        prefetch_write(y + ahead);
        group.put(stage, stage.place_of(channel, row), input.at(i, lanes));
      }
    });
    for_vectors<S>(count, [&](int64_t channel, auto lanes) {
      using Group = decltype(group_at(channel, 0));
      const auto* own_lines = lines + 2 * line_count * (first + channel);
      for (int row = 0; row < staged; ++row) {
        const int place = stage.place_of(channel, row);
        const auto line = S::look_up_pairs(own_lines, stage.slot + place);
        const auto value = Group::value(line, S::load(stage.numbers + place));
        store<S>(y + (begin + row) * stride + channel, value, lanes);
      }
    });
  }
}

template <class S, class X, class Input>
inline void evaluate_run(const Input& input, X* y, int64_t n, const Curves<typename S::T>& curves,
                         int64_t channel) {
  with_table<S>(curves.num_intervals, [&](auto table) {
    const Run<S, table.value> run(curves, channel);
    for_vectors<S>(n, [&](int64_t i, auto lanes) { store<S>(y + i, run.value(input.at(i, lanes)), lanes); });
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

template <class S, class X, class Inputs>
inline void evaluate_rows(const Inputs& inputs, X* y, int64_t rows, int64_t stride, int64_t first,
                          int64_t count, const Curves<typename S::T>& curves) {
  apply_rows<S>(inputs, y, rows, stride, first, count, curves.bins, curves.num_intervals + 2,
                [&](int64_t channel, int n) { return Group<S>(curves, channel, n); });
}

// By one function for all channels, in registers.
template <class S, class X, class Inputs>
inline void evaluate_rows_by_one(const Inputs& inputs, X* y, int64_t rows, int64_t stride, int64_t first,
                                 int64_t count, const Curves<typename S::T>& curves) {
  with_table<S>(curves.num_intervals, [&](auto table) {
    const Run<S, table.value> run(curves, 0);
    for (int64_t row = 0; row < rows; ++row) {  // in the order of memory
      for_vectors<S>(count, [&](int64_t channel, auto lanes) {
        const auto input = inputs.of_lanes(first + channel, count_of<S>(lanes));
        const int64_t i = row * stride + channel;
        store<S>(y + i, run.value(input.at(i, lanes)), lanes);
      });
    }
  });
}

template <class S, class X>
void forward_run(const X* x, X* y, int64_t n, const Curves<typename S::T>& curves, int64_t channel) {
  evaluate_run<S>(Direct<S, X>{x}, y, n, curves, channel);
}

template <class S, class X>
void forward_rows(const X* x, X* y, int64_t rows, int64_t stride, int64_t first, int64_t count,
                  const Curves<typename S::T>& curves) {
  evaluate_rows<S>(Direct<S, X>{x}, y, rows, stride, first, count, curves);
}
