// The inference form of section 4.3 for a whole tensor. Nothing here includes a torch header: ONNX Runtime's
// library has it too.
#pragma once

#include <memory>

#include "dispatch.h"
#include "division.h"

namespace pwlu::cpu {

// O and S of every column side by side, with room for the channels after the last that a vector may cover.
template <typename T>
std::unique_ptr<T[]> lines_of(const FoldedCurves<T>& curves) {
  const int64_t columns = curves.num_intervals + 2;
  // Not cleared, as a vector's would be: where there are few rows that would take as long as all else.
  std::unique_ptr<T[]> lines(new T[2 * columns * (curves.channels + kWidestVector)]);
  for (int64_t i = 0; i < curves.channels * columns; ++i) {
    lines[2 * i] = curves.offsets[i];
    lines[2 * i + 1] = curves.slopes[i];
  }
  return lines;
}

// threads: see division.h. curves.lines is set here.
template <typename T, typename X, typename Threads>
void evaluate_folded(const Threads& threads, const X* x, X* y, const Layout& layout, FoldedCurves<T> curves) {
  const auto& kernels = chosen_kernels<T, X>();
  if (is_rows(layout)) {
    const std::unique_ptr<T[]> lines = lines_of(curves);
    curves.lines = lines.get();
    const auto run = [&](int64_t i, int64_t rows, int64_t first, int64_t count) {
      kernels.folded_rows(x + i, y + i, rows, layout.channels, first, count, curves);
    };
    for_rows(threads, layout, run, kChannelBlock);
  } else {
    for_runs(threads, layout, [&](int64_t i, int64_t count, int64_t channel) {
      kernels.folded_run(x + i, y + i, count, curves, channel);
    });
  }
}

}  // namespace pwlu::cpu
