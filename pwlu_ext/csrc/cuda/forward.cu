// Chooses and launches the kernel of the forward pass.
#include "dispatch.cuh"
#include "forward.cuh"
#include "plan.h"

namespace pwlu::cuda {
namespace {

template <typename X>
const char* launch_any(const ForwardCall& call, void* stream) {
  const int64_t count = numel(call.layout);
  const int64_t blocks = std::min<int64_t>(divide_up(count, kThreads), call.runs.most_blocks);
  return launch(forward_any<X>, dim3(static_cast<unsigned>(blocks)), kThreads, 0, stream,
                static_cast<const X*>(call.x), static_cast<X*>(call.y),
                Table<Scalar<X>>::of(call.parameters, call.num_intervals), call.layout, count);
}

template <typename X, int V>
const char* launch_vectors(const ForwardCall& call, void* stream) {
  const auto table = Table<Scalar<X>>::of(call.parameters, call.num_intervals);
  const X* x = static_cast<const X*>(call.x);
  X* y = static_cast<X*>(call.y);
  const int64_t lines = line_bytes(call);
  if (uses_runs(call.layout)) {
    const Runs runs = plan_runs(call.layout, V, sizeof(X), kThreads, call.runs);
    const dim3 blocks(static_cast<unsigned>(call.layout.channels * runs.pieces.count));
    return launch(forward_runs<X, V>, blocks, kThreads, lines, stream, x, y, table, runs);
  }
  const Columns columns = plan_columns(call.layout, V, sizeof(X), kThreads, call.columns);
  const dim3 blocks(static_cast<unsigned>(columns.tiles * columns.pieces.count));
  return launch(forward_columns<X, V>, blocks, kThreads, lines * V * kWarp, stream, x, y, table, columns);
}

}  // namespace

const char* run_forward(const ForwardCall& call, void* stream) {
  return with_element(call.element, [&](auto element) {
    using X = decltype(element);
    switch (forward_vector(call)) {
      case 0:
        return launch_any<X>(call, stream);
      case 1:
        return launch_vectors<X, 1>(call, stream);
      case 16 / sizeof(X):
        return launch_vectors<X, 16 / sizeof(X)>(call, stream);
      default:
        return launch_vectors<X, kShortVector<X>>(call, stream);
    }
  });
}

}  // namespace pwlu::cuda
