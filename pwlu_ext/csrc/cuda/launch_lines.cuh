// Chooses and launches a kernel that looks up one line per element: of the forward pass or its folded form.
#pragma once

#include "dispatch.cuh"
#include "plan.h"

namespace pwlu::cuda {

// The kernels that serve a Call: table<X>(call), any<X>(), runs<X, V>() and columns<X, V>().
template <typename Call>
struct KernelsOf;

template <typename Call>
const char* run_lines(const Call& call, void* stream) {
  using Kernels = KernelsOf<Call>;
  return with_element(call.element, [&](auto element) {
    using X = decltype(element);
    const auto table = Kernels::template table<X>(call);
    const X* x = static_cast<const X*>(call.x);
    X* y = static_cast<X*>(call.y);
    const int vector = line_vector(call);
    if (vector == 0) {
      const int64_t count = numel(call.layout);
      const int64_t blocks = std::min<int64_t>(divide_up(count, kThreads), call.runs.most_blocks);
      return launch(Kernels::template any<X>(), dim3(static_cast<unsigned>(blocks)), kThreads, 0, stream, x,
                    y, table, call.layout, count);
    }
    return with_vector<X>(vector, [&](auto width) {
      constexpr int V = decltype(width)::value;
      const int64_t lines = line_bytes(call);
      if (uses_runs(call.layout)) {
        const Runs runs = plan_runs(call.layout, V, sizeof(X), kThreads, call.runs);
        const dim3 blocks(static_cast<unsigned>(call.layout.channels * runs.pieces.count));
        return launch(Kernels::template runs<X, V>(), blocks, kThreads, lines, stream, x, y, table, runs);
      }
      const Columns columns = plan_columns(call.layout, V, sizeof(X), kThreads, call.columns);
      const dim3 blocks(static_cast<unsigned>(columns.tiles * columns.pieces.count));
      return launch(Kernels::template columns<X, V>(), blocks, kThreads, lines * V * kWarp, stream, x, y,
                    table, columns);
    });
  });
}

}  // namespace pwlu::cuda
