// Owns the per-channel tables that the vector kernels read.
#pragma once

#include <vector>

#include "kernels.h"

namespace pwlu::cpu {

constexpr int kWidestVector = 16;

constexpr int64_t rounded_up(int64_t value, int64_t step) {
  return (value + step - 1) / step * step;
}

template <typename T>
class CurveTable {
 public:
  CurveTable(const T* left, const T* right, const T* points, const T* left_slope, const T* right_slope,
             int64_t channels, int num_intervals)
      : view_{}, fields_(11 * channels), row_length_(rounded_up(num_intervals, kWidestVector)) {
    // A vector that covers the last channels only in part also forms addresses for the channels after them.
    const int64_t rows = channels + kWidestVector;
    start_.resize(rows * row_length_);
    rise_.resize(rows * row_length_);
    start_rise_.resize(rows * row_length_ * 2);
    point_view_at_fields(channels, num_intervals);
    for (int64_t c = 0; c < channels; ++c) {
      const Curve<T> curve = make_curve(left[c], right[c], left_slope[c], right_slope[c], num_intervals);
      const T* y = points + c * (num_intervals + 1);
      const T values[] = {curve.left,        curve.right,    curve.left_slope, curve.right_slope,
                          curve.edge,        curve.interval, curve.inverse,    curve.left_limit,
                          curve.right_limit, y[0],           y[num_intervals]};
      for (int field = 0; field < 11; ++field)
        fields_[field * channels + c] = values[field];
      for (int i = 0; i < num_intervals; ++i) {
        const int64_t entry = c * row_length_ + i;
        start_[entry] = start_rise_[2 * entry] = y[i];
        rise_[entry] = start_rise_[2 * entry + 1] = y[i + 1] - y[i];
      }
    }
  }
  CurveTable(const CurveTable&) = delete;
  CurveTable& operator=(const CurveTable&) = delete;

  const Curves<T>& view() const { return view_; }

 private:
  void point_view_at_fields(int64_t channels, int num_intervals) {
    const T** slots[] = {&view_.left,        &view_.right,    &view_.left_slope, &view_.right_slope,
                         &view_.edge,        &view_.interval, &view_.inverse,    &view_.left_limit,
                         &view_.right_limit, &view_.first,    &view_.last};
    for (int field = 0; field < 11; ++field)
      *slots[field] = fields_.data() + field * channels;
    view_.start = start_.data();
    view_.rise = rise_.data();
    view_.start_rise = start_rise_.data();
    view_.channels = channels;
    view_.num_intervals = num_intervals;
    view_.row_length = static_cast<int>(row_length_);
  }

  Curves<T> view_;
  std::vector<T> fields_, start_, rise_, start_rise_;
  int64_t row_length_;
};

}  // namespace pwlu::cpu
