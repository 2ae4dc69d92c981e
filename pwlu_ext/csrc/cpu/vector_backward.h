// Included by vector_kernels.h: see there.

template <class S, class X>
void backward_run(const X* grad, const X* x, X* grad_x, int64_t n, const Curves<typename S::T>& curves,
                  int64_t channel, typename S::T* sums) {
  with_table<S>(curves.num_intervals, [&](auto table) {
    const Run<S, table.value> run(curves, channel);
    const Frame<S> frame = bounded<S>(run.frame);
    const Slots<S> slots(curves.num_intervals);
    Stage<S> stage;
    for (int64_t begin = 0; begin < n; begin += Stage<S>::kStage) {
      const int staged = at_most(n - begin, Stage<S>::kStage);
      for_vectors<S>(staged, [&](int64_t at, auto lanes) {
        const int64_t i = begin + at;
        prefetch(grad + i, x + i, grad_x + i, 2 * Stage<S>::kStage);
        const auto g = load<S>(grad + i, lanes), numbers = load<S>(x + i, lanes);
        const Located<S> place = locate<S>(numbers, frame, run.last_interval);
        store<S>(grad_x + i, S::mul(g, run.slope(place)), lanes);
        stage.put_pairs(at, slots.of(place), g, S::mul(g, coordinate_of<S>(numbers, place, frame)));
      });
      S::add_pairs(sums, stage.slot, stage.numbers, staged);
    }
  });
}

// Lanes beyond `count` add zeros to spare tables, for which `sums` has room.
template <class S, class X>
void backward_rows(const X* grad, const X* x, X* grad_x, int64_t rows, int64_t stride, int64_t first,
                   int64_t count, const Curves<typename S::T>& curves, typename S::T* sums) {
  constexpr int kRows = RowStage<S>::kRows;
  const int64_t bins = curves.num_intervals + 2;
  const auto last_interval = S::set(curves.num_intervals - 1);
  const Slots<S> slots(curves.num_intervals);
  RowStage<S> stage;
  for (int64_t begin = 0; begin < rows; begin += kRows) {
    const int staged = at_most(rows - begin, kRows);
    for_vectors<S>(count, [&](int64_t channel, auto lanes) {
      const int width = at_most(count - channel, S::kWidth);
      const Frame<S> frame = bounded<S>(frame_of_lanes<S>(curves, first + channel, width));
      for (int row = 0; row < staged; ++row) {
        const int64_t i = (begin + row) * stride + channel;
        prefetch(grad + i, x + i, grad_x + i, 2 * kRows * stride);
        const auto g = load<S>(grad + i, lanes), numbers = load<S>(x + i, lanes);
        const Located<S> at = locate<S>(numbers, frame, last_interval);
        const auto moment = S::mul(g, coordinate_of<S>(numbers, at, frame));
        stage.put_pairs(stage.place_of(channel, row), slots.of(at), g, moment);
      }
    });
    for_vectors<S>(count, [&](int64_t channel, auto lanes) {
      const auto* slopes = curves.slopes + bins * (first + channel);
      for (int row = 0; row < staged; ++row) {
        const int64_t i = (begin + row) * stride + channel;
        const auto slope = S::look_up_numbers(slopes, stage.slot + stage.place_of(channel, row));
        store<S>(grad_x + i, S::mul(load<S>(grad + i, lanes), slope), lanes);
      }
      const int place = stage.place_of(channel, 0);
      S::add_pairs(sums + 2 * bins * channel, stage.slot + place, stage.numbers + 2 * place,
                   staged * S::kWidth);
    });
  }
}

// See Kernels::collect.
template <class T>
void collect(T* sums, int64_t tables, int64_t size, double* totals) {
  for (int64_t table = 1; table < tables; ++table) {
    for (int64_t i = 0; i < size; ++i)
      sums[i] += sums[table * size + i];
  }
  for (int64_t i = 0; i < size; ++i)
    totals[i] += static_cast<double>(sums[i]);
  __builtin_memset(sums, 0, tables * size * sizeof(T));
}
