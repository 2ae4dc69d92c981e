// The sums of a backward pass, over all of a tensor.
#pragma once

#include "parallel.h"

namespace pwlu::cpu {

// Per channel and bin the pair (sum_g, sum_gt), laid out (channels, num_intervals + 2, 2), and per channel
// kMoments sums of the kernel's own.
struct ChannelSums {
  std::vector<double> bins, moments;
};

// Results of several parts of the work, one behind the other.
class PartialSums {
 public:
  PartialSums(int64_t parts, int64_t channels, int64_t size)
      : parts_(parts),
        channels_(channels),
        size_(size),
        bins_(parts * channels * size),
        moments_(parts * channels * kMoments) {}

  int64_t size() const { return size_; }  // of a channel's bins
  double* bins(int64_t part, int64_t channel) { return &bins_[(part * channels_ + channel) * size_]; }
  double* moments(int64_t part, int64_t channel) {
    return &moments_[(part * channels_ + channel) * kMoments];
  }

  // Adds the parts up in order.
  ChannelSums total() const { return {total_of(bins_), total_of(moments_)}; }

 private:
  std::vector<double> total_of(const std::vector<double>& partial) const {
    const size_t size = partial.size() / parts_;
    std::vector<double> totals(size, 0.0);
    for (int64_t part = 0; part < parts_; ++part) {
      for (size_t i = 0; i < size; ++i)
        totals[i] += partial[part * size + i];
    }
    return totals;
  }

  int64_t parts_, channels_, size_;
  std::vector<double> bins_, moments_;
};

// See RunParts. add(first element, count, channel, sums, moments) calls a `run` kernel.
template <typename T, typename X, typename Add>
class RunSums {
 public:
  RunSums(const Kernels<T, X>& kernels, PartialSums& partial, const Add& add)
      : kernels_(kernels), partial_(partial), add_(add), sums_(kernels.run_replicas * partial.size()) {}

  void start(int64_t part, int64_t channel) {
    part_ = part;
    channel_ = channel;
    since_collected_ = 0;
  }
  void add(int64_t first, int64_t count) {
    add_(first, count, channel_, sums_.data(), partial_.moments(part_, channel_));
    since_collected_ += count;
    if (since_collected_ >= kCollect)
      finish();
  }
  void finish() {
    kernels_.collect(sums_.data(), kernels_.run_replicas, partial_.size(), partial_.bins(part_, channel_));
    since_collected_ = 0;
  }

 private:
  const Kernels<T, X>& kernels_;
  PartialSums& partial_;
  const Add& add_;
  std::vector<T> sums_;
  int64_t part_ = 0, channel_ = 0, since_collected_ = 0;
};

// See RowParts. add(first element, rows, first channel, channels, sums, moments) calls a `rows` kernel.
template <typename T, typename X, typename Add>
class RowSums {
 public:
  RowSums(const Kernels<T, X>& kernels, PartialSums& partial, const Add& add)
      : kernels_(kernels), partial_(partial), add_(add), sums_(kChannelBlock * partial.size()) {}

  void start(int64_t part, int64_t first_channel, int64_t channels) {
    part_ = part;
    first_channel_ = first_channel;
    channels_ = channels;
  }
  void add(int64_t first, int64_t rows) {
    add_(first, rows, first_channel_, channels_, sums_.data(), partial_.moments(part_, first_channel_));
    kernels_.collect(sums_.data(), 1, channels_ * partial_.size(), partial_.bins(part_, first_channel_));
  }
  void finish() {}

 private:
  const Kernels<T, X>& kernels_;
  PartialSums& partial_;
  const Add& add_;
  std::vector<T> sums_;
  int64_t part_ = 0, first_channel_ = 0, channels_ = 0;
};

template <typename T, typename X, typename Add>
ChannelSums sum_runs(const Layout& layout, int num_intervals, const Add& add) {
  const RunParts parts(layout);
  PartialSums partial(parts.count(), layout.channels, 2 * (num_intervals + 2));
  parts.for_each([&] { return RunSums<T, X, Add>(chosen_kernels<T, X>(), partial, add); });
  return partial.total();
}

template <typename T, typename X, typename Add>
ChannelSums sum_rows(const Layout& layout, int num_intervals, const Add& add) {
  const RowParts parts(layout);
  PartialSums partial(parts.count(), layout.channels, 2 * (num_intervals + 2));
  parts.for_each([&] { return RowSums<T, X, Add>(chosen_kernels<T, X>(), partial, add); });
  return partial.total();
}

}  // namespace pwlu::cpu
