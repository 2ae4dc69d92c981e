// How forward and backward are divided among threads. Results never depend on the number of threads: the
// pieces of the backward pass, whose sums are added up in a fixed order, depend on the shape alone.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <vector>

#include "dispatch.h"

namespace pwlu::cpu {

constexpr int64_t kGrain = 32768;     // elements worth a thread of their own
constexpr int64_t kBlock = 16384;     // elements that stay in the first cache levels
constexpr int64_t kCollect = 16384;   // additions after which float sums move on to double
constexpr int64_t kWantedTasks = 32;  // pieces of a backward pass, if there are not more channels

constexpr int64_t divide_up(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}
constexpr int64_t rounded_up(int64_t value, int64_t step) {
  return divide_up(value, step) * step;
}

// A run: consecutive elements of one channel (NCHW). Calls run(first element, count, channel) for each.
template <typename Run>
void for_runs(const Layout& layout, const Run& run) {
  const int64_t numel = layout.outer * layout.channels * layout.inner;
  torch::stable::parallel_for(0, numel, kGrain, [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t row = begin / layout.inner;
      const int64_t stop = std::min(end, (row + 1) * layout.inner);
      run(begin, stop - begin, row % layout.channels);
      begin = stop;
    }
  });
}

// Rows: one element of each channel after the other (channels_last). Calls
// run(first element, rows, first channel, channels) for blocks of at most kChannelBlock channels.
template <typename Run>
void for_rows(const Layout& layout, const Run& run) {
  const int64_t channels = layout.channels;
  const int64_t block = divide_up(kBlock, channels);
  torch::stable::parallel_for(0, layout.outer, divide_up(kGrain, channels), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row += block) {
      for (int64_t first = 0; first < channels; first += kChannelBlock) {
        run(row * channels + first, std::min(block, end - row), first,
            std::min(kChannelBlock, channels - first));
      }
    }
  });
}

// Per channel and bin the pair (sum_g, sum_gt), laid out (channels, num_intervals + 2, 2); several partial
// results behind one another, added up in order.
inline std::vector<double> add_up(const std::vector<double>& partial, int64_t parts, int64_t size) {
  std::vector<double> totals(size, 0.0);
  for (int64_t part = 0; part < parts; ++part) {
    for (int64_t i = 0; i < size; ++i)
      totals[i] += partial[part * size + i];
  }
  return totals;
}

template <typename T, typename X>
std::vector<double> backward_runs(const X* grad, const X* x, X* grad_x, const Layout& layout,
                                  const Curves<T>& curves) {
  const auto& kernels = chosen_kernels<T, X>();
  const int64_t size = 2 * (curves.num_intervals + 2);
  const int64_t channels = layout.channels;
  const int64_t inner_parts = divide_up(layout.inner, 4 * kCollect);
  const int64_t outer_parts = std::min(layout.outer, divide_up(kWantedTasks, channels * inner_parts));
  const int64_t inner_step = rounded_up(divide_up(layout.inner, inner_parts), kWidestVector);
  const int64_t outer_step = divide_up(layout.outer, outer_parts);
  const int64_t parts = inner_parts * outer_parts;
  const int64_t per_task = divide_up(layout.outer * layout.inner, parts);
  std::vector<double> partial(parts * channels * size, 0.0);

  torch::stable::parallel_for(
      0, parts * channels, divide_up(kGrain, per_task), [&](int64_t begin, int64_t end) {
        std::vector<T> sums(kernels.run_replicas * size, T(0));
        for (int64_t task = begin; task < end; ++task) {
          const int64_t channel = task % channels, part = task / channels;
          const int64_t first = (part % inner_parts) * inner_step;
          const int64_t length = std::min(inner_step, layout.inner - first);
          const int64_t outer_first = (part / inner_parts) * outer_step;
          const int64_t outer_last = std::min(outer_first + outer_step, layout.outer);
          int64_t since_collected = 0;
          for (int64_t outer = outer_first; outer < outer_last && length > 0; ++outer) {
            const int64_t row = (outer * channels + channel) * layout.inner + first;
            for (int64_t done = 0; done < length; done += kCollect) {
              const int64_t n = std::min(kCollect, length - done), i = row + done;
              kernels.backward_run(grad + i, x + i, grad_x + i, n, curves, channel, sums.data());
              since_collected += n;
              if (since_collected >= kCollect) {
                kernels.collect(sums.data(), kernels.run_replicas, size, &partial[task * size]);
                since_collected = 0;
              }
            }
          }
          kernels.collect(sums.data(), kernels.run_replicas, size, &partial[task * size]);
        }
      });
  return add_up(partial, parts, channels * size);
}

template <typename T, typename X>
std::vector<double> backward_rows(const X* grad, const X* x, X* grad_x, const Layout& layout,
                                  const Curves<T>& curves) {
  const auto& kernels = chosen_kernels<T, X>();
  const int64_t size = 2 * (curves.num_intervals + 2);
  const int64_t channels = layout.channels;
  const int64_t blocks = divide_up(channels, kChannelBlock);
  const int64_t parts = std::min(divide_up(kWantedTasks, blocks), divide_up(layout.outer, 256));
  const int64_t step = divide_up(layout.outer, parts);
  std::vector<double> partial(parts * channels * size, 0.0);

  const int64_t per_task = step * std::min(channels, kChannelBlock);
  torch::stable::parallel_for(
      0, parts * blocks, divide_up(kGrain, per_task), [&](int64_t begin, int64_t end) {
        std::vector<T> sums(kChannelBlock * size, T(0));
        for (int64_t task = begin; task < end; ++task) {
          const int64_t first = (task % blocks) * kChannelBlock, part = task / blocks;
          const int64_t count = std::min(kChannelBlock, channels - first);
          const int64_t last = std::min((part + 1) * step, layout.outer);
          for (int64_t row = part * step; row < last; row += 1024) {
            const int64_t rows = std::min<int64_t>(1024, last - row), i = row * channels + first;
            kernels.backward_rows(grad + i, x + i, grad_x + i, rows, channels, first, count, curves,
                                  sums.data());
            kernels.collect(sums.data(), 1, count * size, &partial[(part * channels + first) * size]);
          }
        }
      });
  return add_up(partial, parts, channels * size);
}

}  // namespace pwlu::cpu
