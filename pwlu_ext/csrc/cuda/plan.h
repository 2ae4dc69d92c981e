// How a tensor is divided among vectors, threads and blocks. Host code without CUDA.
//
// Two shapes of work:
// * runs: the elements of a channel lie in long runs (NCHW, or one function for the whole tensor). A block
// works on a
//   piece of one channel.
// * columns: they do not (channels_last, tiny images in NCHW). The tensor is a matrix of `outer` rows of
//   channels * inner elements; a thread keeps to one group of V neighbouring columns and walks down the rows,
//   so that its channels stay the same.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include "kernels.h"

namespace pwlu::cuda {

constexpr int kWarp = 32;
constexpr int kThreads = 256;
// Any GPU grants a block 48 KiB of shared memory without asking; larger blocks would not raise the occupancy.
constexpr int64_t kSharedBytes = 48 * 1024;
// Runs shorter than this leave too many threads of a warp in different runs.
constexpr int64_t kShortestRun = 64;

constexpr int64_t divide_up(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

constexpr int element_bytes(Element element) {
  return element == Element::kDouble ? 8 : element == Element::kFloat ? 4 : 2;
}

// Bytes of a number in the arithmetic.
constexpr int scalar_bytes(Element element) {
  return element == Element::kDouble ? 8 : 4;
}

constexpr int64_t numel(const Layout& layout) {
  return layout.outer * layout.channels * layout.inner;
}

constexpr bool uses_runs(const Layout& layout) {
  return layout.channels == 1 || layout.inner >= kShortestRun;
}

inline uintptr_t address(const void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer);
}

// All bits of the addresses that a call reads elements from.
template <typename Call>
uintptr_t input_addresses(const Call& call) {
  return address(call.x);
}
inline uintptr_t input_addresses(const TermPointers& terms) {
  return address(terms.x[0]) | (terms.count == 2 ? address(terms.x[1]) : 0);
}
inline uintptr_t input_addresses(const NormalizedCall& call) {
  return input_addresses(call.terms);
}
inline uintptr_t input_addresses(const NormalizedBackwardCall& call) {
  return input_addresses(call.terms);
}

// Elements per access: of the access widths `bytes` (descending) the first that the addresses and the length
// of a row allow and for which fits(elements) holds; else 0. A width below an element's stands for a single
// element.
template <typename Fits>
int choose_vector(Element element, const Layout& layout, uintptr_t addresses,
                  std::initializer_list<int> bytes, const Fits& fits) {
  const int64_t row = uses_runs(layout) ? layout.inner : layout.channels * layout.inner;
  for (const int width : bytes) {
    const int vector = std::max(1, width / element_bytes(element));
    const bool aligned = addresses % (vector * element_bytes(element)) == 0;
    if (aligned && row % vector == 0 && fits(vector))
      return vector;
  }
  return 0;
}

// How many pieces a channel's (or tile's) `length` units are cut into.
struct Pieces {
  int64_t size;  // units in a piece; the last piece may be shorter
  int count;
};

inline Pieces cut(int64_t length, int64_t elements_per_unit, int64_t all_elements, const Split& split) {
  const int64_t elements = std::max(split.least_elements, divide_up(all_elements, split.most_blocks));
  const int64_t count = std::max<int64_t>(1, length * elements_per_unit / elements);
  const int64_t size = divide_up(length, count);
  return {size, static_cast<int>(divide_up(length, size))};
}

// Further ahead than any piece is long: what lies there need not be known exactly, which keeps it in 32 bits.
constexpr int64_t kFar = int64_t(1) << 30;

// Lengths are in vectors of V elements.
struct Runs {
  int64_t run;           // of one run
  int64_t row;           // from a run of a channel to the channel's next
  int64_t length;        // of all the runs of a channel
  Pieces pieces;         // of a channel
  int near_run;          // run, but at most kFar
  int threads;           // of a block: a thread's step in its channel,
  int columns;           // which goes this far within the run
  int64_t offset_bytes;  // and this far in memory,
  int64_t gap_bytes;     // and over this gap if it ends in one more run
  int vector_bytes;
};

inline Runs plan_runs(const Layout& layout, int vector, int bytes, int threads, const Split& split) {
  Runs runs;
  runs.run = layout.inner / vector;
  runs.row = layout.channels * runs.run;
  runs.length = layout.outer * runs.run;
  runs.pieces = cut(runs.length, vector, numel(layout), split);
  runs.near_run = static_cast<int>(std::min(runs.run, kFar));
  runs.threads = threads;
  runs.columns = static_cast<int>(threads % runs.run);
  runs.vector_bytes = vector * bytes;
  runs.offset_bytes = (threads / runs.run * runs.row + runs.columns) * runs.vector_bytes;
  runs.gap_bytes = (runs.row - runs.run) * runs.vector_bytes;
  return runs;
}

struct Columns {
  int64_t inner;   // column j belongs to channel j / inner
  int64_t groups;  // of V columns each
  int64_t rows;
  int tile;           // groups in a tile, which a warp covers side by side
  int rows_per_warp;  // that a warp covers at once: kWarp / tile
  int64_t tiles;
  Pieces pieces;  // of the rows
  int threads;    // of a block
  int vector_bytes;
};

// The width of a tile that leaves the fewest lanes of a warp idle. Below 64 bytes, rows would be read in bits
// and pieces, unless the tile is the whole row, when one row's end is the next one's beginning.
inline int choose_tile(int64_t groups, int vector_bytes) {
  int best = static_cast<int>(std::min<int64_t>(groups, kWarp));
  double best_use = 0;
  for (int tile = kWarp; tile >= 1; --tile) {
    if (tile != groups && (tile > groups || tile * vector_bytes < 64))
      continue;
    const double lanes = double(kWarp / tile * tile) / kWarp;
    const double use = lanes * groups / (divide_up(groups, tile) * tile);
    if (use > best_use) {
      best = tile;
      best_use = use;
    }
  }
  return best;
}

inline Columns plan_columns(const Layout& layout, int vector, int bytes, int threads, const Split& split) {
  Columns columns;
  columns.inner = layout.inner;
  columns.groups = layout.channels * layout.inner / vector;
  columns.rows = layout.outer;
  columns.tile = choose_tile(columns.groups, vector * bytes);
  columns.rows_per_warp = kWarp / columns.tile;
  columns.tiles = divide_up(columns.groups, columns.tile);
  columns.pieces = cut(layout.outer, int64_t(columns.tile) * vector, numel(layout), split);
  columns.threads = threads;
  columns.vector_bytes = vector * bytes;
  return columns;
}

// A line of the forward pass is two numbers; a channel has one for each interval and tail.
template <typename Call>
int64_t line_bytes(const Call& call) {
  return int64_t(call.num_intervals + 2) * 2 * scalar_bytes(call.element);
}

// Elements per access, of at most `widest` bytes, of the forward pass or its folded form, or 0 if a table
// does not fit into shared memory.
template <typename Call>
int line_vector(const Call& call, int widest = 16) {
  const uintptr_t addresses = input_addresses(call) | address(call.y);
  const bool runs = uses_runs(call.layout);
  return choose_vector(call.element, call.layout, addresses, {16, 4, 1}, [&](int vector) {
    return vector * element_bytes(call.element) <= std::max(widest, element_bytes(call.element)) &&
           line_bytes(call) * (runs ? 1 : vector * kWarp) <= kSharedBytes;
  });
}

}  // namespace pwlu::cuda
