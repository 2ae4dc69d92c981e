// Included by vector_kernels.h: see there.
// The sums of a backward pass, with what else is made of d loss / d z = grad * slope on the way.

// d loss / d z = grad * slope is written.
template <class S, class X>
struct Store {
  X* to;

  template <class Lanes>
  void take(int64_t i, Lanes lanes, typename S::F grad, typename S::F slope) {
    store<S>(to + i, S::mul(grad, slope), lanes);
  }
  void prefetch(int64_t i) const { prefetch_write(to + i); }
};

// It is also added up, in each lane, times each of the input's terms.
template <class S, class X, class Input>
struct StoreAndMoments {
  X* to;
  Input input;
  typename S::F totals[kMoments];

  template <class Lanes>
  void take(int64_t i, Lanes lanes, typename S::F grad, typename S::F slope) {
    const auto grad_z = S::mul(grad, slope);
    store<S>(to + i, grad_z, lanes);
    input.add_moments(i, lanes, grad_z, totals);
  }
  void prefetch(int64_t i) const { prefetch_write(to + i); }
};

template <class X, class Input, class Sink>
inline void prefetch(const X* grad, const Input& input, const Sink& sink, int64_t i) {
  prefetch_read(grad + i);
  input.prefetch(i);
  sink.prefetch(i);
}

// Puts what vector i of a gradient adds to its bins into the stage; returns where z lies.
template <class S, class Input, class Lanes>
inline Located<S> put_sums(Stage<S>& stage, int64_t at, typename S::F grad, const Input& input, int64_t i,
                           Lanes lanes, const Frame<S>& frame, typename S::F last_interval,
                           const Slots<S>& slots) {
  const auto z = input.at(i, lanes);
  const Located<S> place = locate<S>(z, frame, last_interval);
  stage.put_pairs(at, slots.of(place), grad, S::mul(grad, coordinate_of<S>(z, place, frame)));
  return place;
}

// See Kernels::backward_run.
template <class S, class X, class Input, class Sink>
inline void add_run(const X* grad, const Input& input, Sink& sink, int64_t n,
                    const Curves<typename S::T>& curves, int64_t channel, typename S::T* sums) {
  with_table<S>(curves.num_intervals, [&](auto table) {
    const Run<S, table.value> run(curves, channel);
    const Frame<S> frame = bounded<S>(run.frame);
    const Slots<S> slots(curves.num_intervals);
    Stage<S> stage;
    for (int64_t begin = 0; begin < n; begin += Stage<S>::kStage) {
      const int staged = at_most(n - begin, Stage<S>::kStage);
      for_vectors<S>(staged, [&](int64_t at, auto lanes) {
        const int64_t i = begin + at;
        prefetch(grad, input, sink, i + 2 * Stage<S>::kStage);
        const auto g = load<S>(grad + i, lanes);
        const auto place = put_sums<S>(stage, at, g, input, i, lanes, frame, run.last_interval, slots);
        sink.take(i, lanes, g, run.slope(place));
      });
      S::add_pairs(sums, stage.slot, stage.numbers, staged);
    }
  });
}

// See Kernels::backward_rows. Lanes beyond `count` add zeros to spare tables, for which `sums` has room.
// sink_at(channel, count): that of the vector of the channels from `channel` on; done(channel, lanes, sink)
// gets it back when the rows have passed.
template <class S, class X, class Inputs, class SinkAt, class Done>
inline void add_rows(const X* grad, const Inputs& inputs, int64_t rows, int64_t stride, int64_t first,
                     int64_t count, const Curves<typename S::T>& curves, typename S::T* sums,
                     const SinkAt& sink_at, const Done& done) {
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
      const auto input = inputs.of_lanes(first + channel, width);
      const auto sink = sink_at(channel, width);
      for (int row = 0; row < staged; ++row) {
        const int64_t i = (begin + row) * stride + channel;
        prefetch(grad, input, sink, i + 2 * kRows * stride);
        put_sums<S>(stage, stage.place_of(channel, row), load<S>(grad + i, lanes), input, i, lanes, frame,
                    last_interval, slots);
      }
    });
    for_vectors<S>(count, [&](int64_t channel, auto lanes) {
      const auto* slopes = curves.slopes + bins * (first + channel);
      auto sink = sink_at(channel, at_most(count - channel, S::kWidth));
      for (int row = 0; row < staged; ++row) {
        const int64_t i = (begin + row) * stride + channel;
        const auto slope = S::look_up_numbers(slopes, stage.slot + stage.place_of(channel, row));
        sink.take(i, lanes, load<S>(grad + i, lanes), slope);
      }
      done(channel, lanes, sink);
      const int place = stage.place_of(channel, 0);
      S::add_pairs(sums + 2 * bins * channel, stage.slot + place, stage.numbers + 2 * place,
                   staged * S::kWidth);
    });
  }
}

// The same by one function for all channels, in registers; the sums are still by channel.
template <class S, class X, class Inputs, class SinkAt, class Done>
inline void add_rows_by_one(const X* grad, const Inputs& inputs, int64_t rows, int64_t stride, int64_t first,
                            int64_t count, const Curves<typename S::T>& curves, typename S::T* sums,
                            const SinkAt& sink_at, const Done& done) {
  constexpr int kRows = RowStage<S>::kRows;
  const int64_t bins = curves.num_intervals + 2;
  with_table<S>(curves.num_intervals, [&](auto table) {
    const Run<S, table.value> run(curves, 0);
    const Frame<S> frame = bounded<S>(run.frame);
    const Slots<S> slots(curves.num_intervals);
    RowStage<S> stage;
    for (int64_t begin = 0; begin < rows; begin += kRows) {
      const int staged = at_most(rows - begin, kRows);
      for_vectors<S>(count, [&](int64_t channel, auto lanes) {
        const auto input = inputs.of_lanes(first + channel, count_of<S>(lanes));
        auto sink = sink_at(channel, count_of<S>(lanes));
        for (int row = 0; row < staged; ++row) {
          const int64_t i = (begin + row) * stride + channel;
          prefetch(grad, input, sink, i + 2 * kRows * stride);
          const auto g = load<S>(grad + i, lanes);
          const auto place = put_sums<S>(stage, stage.place_of(channel, row), g, input, i, lanes, frame,
                                         run.last_interval, slots);
          sink.take(i, lanes, g, run.slope(place));
        }
        done(channel, lanes, sink);
      });
      for_vectors<S>(count, [&](int64_t channel, auto) {
        const int place = stage.place_of(channel, 0);
        S::add_pairs(sums + 2 * bins * channel, stage.slot + place, stage.numbers + 2 * place,
                     staged * S::kWidth);
      });
    }
  });
}

template <class S, class X>
void backward_run(const X* grad, const X* x, X* grad_x, int64_t n, const Curves<typename S::T>& curves,
                  int64_t channel, typename S::T* sums) {
  Store<S, X> sink{grad_x};
  add_run<S>(grad, Direct<S, X>{x}, sink, n, curves, channel, sums);
}

template <class S, class X>
void backward_rows(const X* grad, const X* x, X* grad_x, int64_t rows, int64_t stride, int64_t first,
                   int64_t count, const Curves<typename S::T>& curves, typename S::T* sums) {
  add_rows<S>(
      grad, Direct<S, X>{x}, rows, stride, first, count, curves, sums,
      [&](int64_t, int) { return Store<S, X>{grad_x}; }, [](int64_t, auto, const auto&) {});
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
