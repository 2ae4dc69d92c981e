// Included by vector_kernels.h: see there.
// Loads, stores and table look-ups of vectors.

// How many lanes of a vector are in use: all of them, or `count`.
struct Whole {};
struct Part {
  int count;
};

template <class S, class X>
inline typename S::F load(const X* from, Whole) {
  return S::load(from);
}
template <class S, class X>
inline typename S::F load(const X* from, Part part) {
  return S::load_part(from, part.count);
}
template <class S, class X>
inline void store(X* to, typename S::F values, Whole) {
  S::store(to, values);
}
template <class S, class X>
inline void store(X* to, typename S::F values, Part part) {
  S::store_part(to, values, part.count);
}

template <class S>
inline int count_of(Whole) {
  return S::kWidth;
}
template <class S>
inline int count_of(Part part) {
  return part.count;
}

// The numbers of the lanes in use, and 0 in the others.
template <class S>
inline typename S::F only(typename S::F values, Whole) {
  return values;
}
template <class S>
inline typename S::F only(typename S::F values, Part part) {
  typename S::T numbers[S::kWidth];
  S::store(numbers, values);
  return S::load_part(numbers, part.count);
}

// Calls step(i, lanes) for the vectors that cover n elements.
template <class S, class Step>
inline void for_vectors(int64_t n, const Step& step) {
  int64_t i = 0;
  for (; i + S::kWidth <= n; i += S::kWidth)
    step(i, Whole{});
  if (i < n)
    step(i, Part{static_cast<int>(n - i)});
}

inline int at_most(int64_t value, int limit) {
  return value < limit ? static_cast<int>(value) : limit;
}

// How many of `count` numbers are in the `width` from `begin` on.
inline int part_of(int count, int begin, int width) {
  return count <= begin ? 0 : at_most(count - begin, width);
}

// Numbers of one channel in registers, looked up by a vector of indices.
template <class S, int kTable>
struct Registers {
  static constexpr int kParts = kTable / S::kWidth;
  typename S::F part[kParts];

  Registers(const typename S::T* numbers, int count) {
    for (int i = 0; i < kParts; ++i)
      part[i] = S::load_part(numbers + i * S::kWidth, part_of(count, i * S::kWidth, S::kWidth));
  }
  typename S::F at(typename S::I index) const { return S::look_up(part, index); }
};

// Too many for registers: read from memory.
template <class S>
struct Registers<S, 0> {
  const typename S::T* numbers;
  Registers(const typename S::T* numbers_, int) : numbers(numbers_) {}
  typename S::F at(typename S::I index) const { return S::gather(numbers, index); }
};

// A constant as an argument.
template <int kValue>
struct TableSize {
  static constexpr int value = kValue;
};

// Calls f with the size of the smallest register table that holds `count` numbers, 0 if none does: then they
// are read from memory.
template <class S, class F>
inline void with_table(int count, const F& f) {
  if (count <= S::kSmallTable)
    return f(TableSize<S::kSmallTable>{});
  if (count <= S::kLargeTable)
    return f(TableSize<S::kLargeTable>{});
  f(TableSize<0>{});
}

// What the stage after the next will read and write is asked for while this one is computed, because the
// accesses to the bins in between hide the pattern from the processor's own prefetching. Into the
// second-level cache: the first has not enough misses in flight for a whole stage.
inline void prefetch_read(const void* from) {
  __builtin_prefetch(from, 0, 2);
}
inline void prefetch_write(void* to) {
  __builtin_prefetch(to, 1, 2);
}

// Bins that are used lane by lane are written here first and read when kStage elements are there: reading
// small pieces of a vector that was stored a moment ago would stall the processor.
template <class S>
struct Stage {
  static constexpr int kStage = 512;
  alignas(64) int32_t slot[kStage];
  alignas(64) typename S::T numbers[2 * kStage];

  void put(int64_t at, typename S::I slots, typename S::F coordinate) {
    S::store_int(slot + at, slots);
    S::store(numbers + at, coordinate);
  }
  void put_pairs(int64_t at, typename S::I slots, typename S::F grad, typename S::F moment) {
    S::store_int(slot + at, slots);
    S::store_pairs(numbers + 2 * at, grad, moment);
  }
};

// A stage of the `rows` kernels: kRows rows of up to kChannelBlock channels, one vector's
// channels after another.
template <class S>
struct RowStage : Stage<S> {
  static constexpr int kRows = Stage<S>::kStage / kChannelBlock;
  static int place_of(int64_t channel, int row) {
    return static_cast<int>(channel) * kRows + row * S::kWidth;
  }
};
