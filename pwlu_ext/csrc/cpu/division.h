// How the elements of x are divided among threads, whoever has them: threads(count, grain, piece) calls
// piece(begin, end) for parts of [0, count), each but the last of at least `grain`.
#pragma once

#include <algorithm>

#include "kernels.h"

namespace pwlu::cpu {

constexpr int64_t kGrain = 32768;  // elements worth a thread of their own
constexpr int64_t kBlock = 16384;  // elements that stay in the first cache levels

constexpr int64_t divide_up(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// inner == 1 puts neighbouring elements into different channels (channels_last); otherwise they share theirs.
inline bool is_rows(const Layout& layout) {
  return layout.inner == 1 && layout.channels > 1;
}

// A run: consecutive elements of one channel (NCHW). Calls run(first element, count, channel) for each.
template <typename Threads, typename Run>
void for_runs(const Threads& threads, const Layout& layout, const Run& run) {
  const int64_t numel = layout.outer * layout.channels * layout.inner;
  threads(numel, kGrain, [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t row = begin / layout.inner;
      const int64_t stop = std::min(end, (row + 1) * layout.inner);
      run(begin, stop - begin, row % layout.channels);
      begin = stop;
    }
  });
}

// Rows: one element of each channel after the other (channels_last). Calls
// run(first element, rows, first channel, channels) for blocks of at most `channel_block` channels.
template <typename Threads, typename Run>
void for_rows(const Threads& threads, const Layout& layout, const Run& run, int64_t channel_block) {
  const int64_t channels = layout.channels;
  const int64_t block = divide_up(kBlock, channels);
  threads(layout.outer, divide_up(kGrain, channels), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row += block) {
      for (int64_t first = 0; first < channels; first += channel_block) {
        run(row * channels + first, std::min(block, end - row), first,
            std::min(channel_block, channels - first));
      }
    }
  });
}

}  // namespace pwlu::cpu
