// How the backward pass is divided, and where its partial sums lie. Host code; Partials is for the device
// too.
#pragma once

#include "plan.h"

namespace pwlu::cuda {

// A block adds its threads' sums in this many parts per bin.
constexpr int kParts = 8;

// Partial sums in the workspace: of every tile, piece of its rows, channel in the tile (slot) and bin. Runs
// are the case of one channel per tile.
struct Partials {
  int64_t width;  // elements of a row in a tile
  int64_t inner;  // element j of a row belongs to channel j / inner
  int64_t tiles;
  int pieces;
  int slots;  // most channels in a tile
  int bins;

  PWLU_HOST_DEVICE int64_t first_channel(int64_t tile) const { return tile * width / inner; }
  PWLU_HOST_DEVICE int64_t index(int64_t tile, int piece, int slot, int bin) const {
    return ((tile * pieces + piece) * slots + slot) * bins + bin;
  }
};

struct BackwardPlan {
  bool is_runs;
  int vector;   // elements per access
  int window;   // most bins that a block works on
  int windows;  // that cover all bins
  int64_t shared_bytes;
  Runs runs;        // if is_runs
  Columns columns;  // if not
  Partials partials;
};

inline int64_t partial_count(const Partials& p) {
  return p.tiles * p.pieces * p.slots * p.bins;
}

// Bins besides those of the functions: see Work::keep_moments.
inline int more_bins(const BackwardCall&) {
  return 0;
}
inline int more_bins(const NormalizedBackwardCall&) {
  return 1;
}
constexpr int kMostBins = 128, kMostDoubleBins = 64;  // for which a warp's sums fit, whatever the path
static_assert(kMostNormalizedIntervals + 2 <= kMostDoubleBins,
              "the bin behind those of a window is the next one's");
inline void* input_sums(const BackwardCall&) {
  return nullptr;
}
inline void* input_sums(const NormalizedBackwardCall& call) {
  return call.sums;
}
inline void* gradient_of_input(const BackwardCall& call) {
  return call.grad_x;
}
inline void* gradient_of_input(const NormalizedBackwardCall& call) {
  return call.grad_z;
}

// Sums of all threads, parts of their total, and a slope for each bin.
template <typename Call>
int64_t runs_shared_bytes(const Call& call, int bins, int threads) {
  return int64_t(bins) * scalar_bytes(call.element) * (2 * threads + 2 * kParts + 1);
}

// Sums of all threads and columns, and slopes of a warp's columns.
template <typename Call>
int64_t columns_shared_bytes(const Call& call, int bins, int threads, int vector) {
  return int64_t(bins) * vector * scalar_bytes(call.element) * (2 * threads + kWarp);
}

// As many threads as shared memory has room for and the elements give work to; 0 if there is no room.
template <typename Bytes>
int choose_threads(int64_t elements, const Bytes& bytes) {
  constexpr int64_t kLeastElements =
      32;  // of a thread, else clearing and adding up its sums costs more than they do
  for (int threads = kThreads; threads >= kWarp; threads /= 2) {
    const bool worth = threads == kWarp || elements >= threads * kLeastElements;
    if (worth && bytes(threads) <= kSharedBytes)
      return threads;
  }
  return 0;
}

template <typename Call>
void plan_backward_runs(const Call& call, uintptr_t addresses, BackwardPlan* plan) {
  const auto any = [](int) { return true; };
  plan->vector = plan->windows > 1 ? 1 : choose_vector(call.element, call.layout, addresses, {16, 4, 1}, any);
  const auto bytes = [&](int threads) {
    return runs_shared_bytes(call, plan->window + more_bins(call), threads);
  };
  const int threads = choose_threads(call.layout.outer * call.layout.inner, bytes);
  plan->shared_bytes = bytes(threads);
  plan->runs = plan_runs(call.layout, plan->vector, element_bytes(call.element), threads, call.runs);
  plan->partials = {call.layout.inner,
                    call.layout.inner,
                    call.layout.channels,
                    plan->runs.pieces.count,
                    1,
                    call.num_intervals + 2 + more_bins(call)};
}

// Accesses of 4 bytes: a thread has sums for each of its columns, so that wider ones would leave shared
// memory for too few threads. A warp still reads 128 bytes side by side.
template <typename Call>
void plan_backward_columns(const Call& call, uintptr_t addresses, BackwardPlan* plan) {
  const auto threads_for = [&](int vector) {
    return choose_threads(INT64_MAX, [&](int threads) {
      return columns_shared_bytes(call, plan->window + more_bins(call), threads, vector);
    });
  };
  const auto fits = [&](int vector) { return threads_for(vector) >= 2 * kWarp || vector == 1; };
  plan->vector = plan->windows > 1 ? 1 : choose_vector(call.element, call.layout, addresses, {4, 1}, fits);
  const int threads = threads_for(plan->vector);
  plan->shared_bytes = columns_shared_bytes(call, plan->window + more_bins(call), threads, plan->vector);
  plan->columns = plan_columns(call.layout, plan->vector, element_bytes(call.element), threads, call.columns);
  const int64_t width = int64_t(plan->columns.tile) * plan->vector;
  const int64_t slots =
      std::min(call.layout.channels, (width + call.layout.inner - 2) / call.layout.inner + 1);
  plan->partials = {width,
                    call.layout.inner,
                    plan->columns.tiles,
                    plan->columns.pieces.count,
                    static_cast<int>(slots),
                    call.num_intervals + 2 + more_bins(call)};
}

template <typename Call>
BackwardPlan plan_backward(const Call& call) {
  const int most_bins = call.element == Element::kDouble ? kMostDoubleBins : kMostBins;
  const int bins = call.num_intervals + 2;
  const uintptr_t addresses = address(call.grad) | input_addresses(call) | address(gradient_of_input(call));
  BackwardPlan plan = {};
  plan.is_runs = uses_runs(call.layout);
  plan.window = std::min(bins, most_bins);
  plan.windows = static_cast<int>(divide_up(bins, plan.window));
  if (plan.is_runs) {
    plan_backward_runs(call, addresses, &plan);
  } else {
    plan_backward_columns(call, addresses, &plan);
  }
  return plan;
}

}  // namespace pwlu::cuda
