// Owns the per-channel tables that the vector kernels read.
#pragma once

#include <vector>

#include "launch.h"

namespace pwlu::cpu {

// Which kernels' table of bins is needed.
enum class Bins { kNone, kLines, kSlopes };

template <typename T>
class CurveTable {
 public:
  CurveTable(const T* left, const T* right, const T* points, const T* left_slope, const T* right_slope,
             int64_t channels, int num_intervals, Bins bins)
      : view_{}, fields_(kFields * channels) {
    point_view_at_fields();
    view_.channels = channels;
    view_.num_intervals = num_intervals;
    view_.points = points;
    for (int64_t c = 0; c < channels; ++c) {
      const Curve<T> curve = make_curve(left[c], right[c], left_slope[c], right_slope[c], num_intervals);
      const T values[kFields] = {curve.left,        curve.right,      curve.left_slope,
                                 curve.right_slope, curve.edge,       curve.interval,
                                 curve.inverse,     curve.left_limit, curve.right_limit};
      for (int field = 0; field < kFields; ++field)
        fields_[field * channels + c] = values[field];
    }
    if (bins != Bins::kNone)
      fill_bins(bins);
  }
  CurveTable(const CurveTable&) = delete;
  CurveTable& operator=(const CurveTable&) = delete;

  const Curves<T>& view() const { return view_; }

 private:
  static constexpr int kFields = 9;

  void point_view_at_fields() {
    const T** slots[kFields] = {&view_.left,        &view_.right,      &view_.left_slope,
                                &view_.right_slope, &view_.edge,       &view_.interval,
                                &view_.inverse,     &view_.left_limit, &view_.right_limit};
    const int64_t channels = static_cast<int64_t>(fields_.size()) / kFields;
    for (int field = 0; field < kFields; ++field)
      *slots[field] = fields_.data() + field * channels;
  }

  // A vector that covers the last channels only in part also reads the tables of the channels after them.
  void fill_bins(Bins bins) {
    const int64_t length = view_.num_intervals + 2;
    const int numbers = bins == Bins::kLines ? 2 : 1;
    bins_.resize((view_.channels + kWidestVector) * length * numbers);
    (bins == Bins::kLines ? view_.bins : view_.slopes) = bins_.data();
    for (int64_t c = 0; c < view_.channels; ++c) {
      const T* y = view_.points + c * (view_.num_intervals + 1);
      T* to = bins_.data() + c * length * numbers;
      for (int bin = 0; bin < length; ++bin, to += numbers) {
        const bool below = bin == 0, above = bin == length - 1;
        const T rise = below ? view_.left_slope[c] : above ? view_.right_slope[c] : y[bin] - y[bin - 1];
        if (bins == Bins::kLines) {
          to[0] = y[below ? 0 : bin - 1];
          to[1] = rise;
        } else {
          to[0] = below || above ? rise : rise * view_.inverse[c];
        }
      }
    }
  }

  Curves<T> view_;
  std::vector<T> fields_, bins_;
};

template <typename T>
CurveTable<T> curve_table(const Problem& p, Bins bins) {
  return {read<T>(p.left),        read<T>(p.right),  read<T>(p.points), read<T>(p.left_slope),
          read<T>(p.right_slope), p.layout.channels, p.num_intervals,   bins};
}

}  // namespace pwlu::cpu
