// How forward and backward are divided among threads. Results never depend on the number of threads: the
// pieces of the backward pass, whose sums are added up in a fixed order, depend on the shape alone.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <vector>

#include "dispatch.h"
#include "division.h"

namespace pwlu::cpu {

constexpr int64_t kCollect = 16384;   // additions after which float sums move on to double
constexpr int64_t kWantedTasks = 32;  // pieces of a backward pass, if there are not more channels

constexpr int64_t rounded_up(int64_t value, int64_t step) {
  return divide_up(value, step) * step;
}

// torch's threads, as division.h asks for them.
struct TorchThreads {
  template <typename Piece>
  void operator()(int64_t count, int64_t grain, const Piece& piece) const {
    torch::stable::parallel_for(0, count, grain, piece);
  }
};

template <typename Run>
void for_runs(const Layout& layout, const Run& run) {
  for_runs(TorchThreads{}, layout, run);
}
template <typename Run>
void for_rows(const Layout& layout, const Run& run, int64_t channel_block = kChannelBlock) {
  for_rows(TorchThreads{}, layout, run, channel_block);
}

// Where something is added up over each channel: the runs' parts. Calls worker() once per thread, and for
// each part of a channel start(part, channel), add(first element, count <= kCollect) and finish() of what
// it returned.
class RunParts {
 public:
  explicit RunParts(const Layout& layout)
      : layout_(layout),
        inner_parts_(divide_up(layout.inner, 4 * kCollect)),
        outer_parts_(std::min(layout.outer, divide_up(kWantedTasks, layout.channels * inner_parts_))),
        inner_step_(rounded_up(divide_up(layout.inner, inner_parts_), kWidestVector)),
        outer_step_(divide_up(layout.outer, outer_parts_)) {}

  int64_t count() const { return inner_parts_ * outer_parts_; }

  template <typename MakeWorker>
  void for_each(const MakeWorker& make_worker) const {
    const int64_t per_task = divide_up(layout_.outer * layout_.inner, count());
    const int64_t tasks = count() * layout_.channels;
    torch::stable::parallel_for(0, tasks, divide_up(kGrain, per_task), [&](int64_t begin, int64_t end) {
      auto worker = make_worker();
      for (int64_t task = begin; task < end; ++task) {
        const int64_t part = task / layout_.channels, channel = task % layout_.channels;
        worker.start(part, channel);
        walk(part, channel, worker);
        worker.finish();
      }
    });
  }

 private:
  template <typename Worker>
  void walk(int64_t part, int64_t channel, Worker& worker) const {
    const int64_t first = (part % inner_parts_) * inner_step_;
    const int64_t length = std::min(inner_step_, layout_.inner - first);
    const int64_t outer_first = (part / inner_parts_) * outer_step_;
    const int64_t outer_last = std::min(outer_first + outer_step_, layout_.outer);
    for (int64_t outer = outer_first; outer < outer_last && length > 0; ++outer) {
      const int64_t row = (outer * layout_.channels + channel) * layout_.inner + first;
      for (int64_t done = 0; done < length; done += kCollect)
        worker.add(row + done, std::min(kCollect, length - done));
    }
  }

  Layout layout_;
  int64_t inner_parts_, outer_parts_, inner_step_, outer_step_;
};

// The same for rows: start(part, first channel, channels), add(first element, rows <= kRowsAtOnce).
class RowParts {
 public:
  static constexpr int64_t kRowsAtOnce = 1024;

  explicit RowParts(const Layout& layout)
      : layout_(layout),
        blocks_(divide_up(layout.channels, kChannelBlock)),
        count_(std::min(divide_up(kWantedTasks, blocks_), divide_up(layout.outer, 256))),
        step_(divide_up(layout.outer, count_)) {}

  int64_t count() const { return count_; }

  template <typename MakeWorker>
  void for_each(const MakeWorker& make_worker) const {
    const int64_t per_task = step_ * std::min(layout_.channels, kChannelBlock);
    const int64_t tasks = count_ * blocks_;
    torch::stable::parallel_for(0, tasks, divide_up(kGrain, per_task), [&](int64_t begin, int64_t end) {
      auto worker = make_worker();
      for (int64_t task = begin; task < end; ++task) {
        const int64_t part = task / blocks_, first = (task % blocks_) * kChannelBlock;
        const int64_t last = std::min((part + 1) * step_, layout_.outer);
        worker.start(part, first, std::min(kChannelBlock, layout_.channels - first));
        for (int64_t row = part * step_; row < last; row += kRowsAtOnce)
          worker.add(row * layout_.channels + first, std::min(kRowsAtOnce, last - row));
        worker.finish();
      }
    });
  }

 private:
  Layout layout_;
  int64_t blocks_, count_, step_;
};

}  // namespace pwlu::cpu
