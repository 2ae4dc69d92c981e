// Chooses and launches the kernel of what looks up one line per element: the forward pass and its folded
// form.
#pragma once

#include "dispatch.cuh"
#include "plan.h"

namespace pwlu::cuda {

// Kernels names the kernels of a pass; it has table<X>(call), any<X>(), runs<X, V>() and columns<X, V>().
template <typename Kernels, typename X, typename Call>
const char* launch_any(const Call& call, void* stream) {
  const int64_t count = numel(call.layout);
  const int64_t blocks = std::min<int64_t>(divide_up(count, kThreads), call.runs.most_blocks);
  return launch(Kernels::template any<X>(), dim3(static_cast<unsigned>(blocks)), kThreads, 0, stream,
                static_cast<const X*>(call.x), static_cast<X*>(call.y), Kernels::template table<X>(call),
                call.layout, count);
}

template <typename Kernels, typename X, int V, typename Call>
const char* launch_vectors(const Call& call, void* stream) {
  const auto table = Kernels::template table<X>(call);
  const X* x = static_cast<const X*>(call.x);
  X* y = static_cast<X*>(call.y);
  const int64_t lines = line_bytes(call);
  if (uses_runs(call.layout)) {
    const Runs runs = plan_runs(call.layout, V, sizeof(X), kThreads, call.runs);
    const dim3 blocks(static_cast<unsigned>(call.layout.channels * runs.pieces.count));
    return launch(Kernels::template runs<X, V>(), blocks, kThreads, lines, stream, x, y, table, runs);
  }
  const Columns columns = plan_columns(call.layout, V, sizeof(X), kThreads, call.columns);
  const dim3 blocks(static_cast<unsigned>(columns.tiles * columns.pieces.count));
  return launch(Kernels::template columns<X, V>(), blocks, kThreads, lines * V * kWarp, stream, x, y, table,
                columns);
}

template <typename Kernels, typename Call>
const char* launch_lines(const Call& call, void* stream) {
  return with_element(call.element, [&](auto element) {
    using X = decltype(element);
    switch (line_vector(call)) {
      case 0:
        return launch_any<Kernels, X>(call, stream);
      case 1:
        return launch_vectors<Kernels, X, 1>(call, stream);
      case 16 / sizeof(X):
        return launch_vectors<Kernels, X, 16 / sizeof(X)>(call, stream);
      default:
        return launch_vectors<Kernels, X, kShortVector<X>>(call, stream);
    }
  });
}

}  // namespace pwlu::cuda
