// The kernels of a PWLU behind a BatchNorm, forward.
#include "dispatch.cuh"
#include "forward.cuh"

namespace pwlu::cuda {
namespace {

template <typename X, int V, int kTerms>
__global__ void __launch_bounds__(kThreads, 3)
    normalized_runs(const __grid_constant__ Terms<X, kTerms> terms, X* __restrict__ y,
                    const __grid_constant__ Table<Scalar<X>> table, const __grid_constant__ Runs runs) {
  evaluate_runs<X, V>(y, table, runs, [&](int64_t channel) {
    return Normalized<X, kTerms, 1>(terms, [&](int) { return channel; });
  });
}

template <typename X, int V, int kTerms>
__global__ void __launch_bounds__(kThreads, 3)
    normalized_columns(const __grid_constant__ Terms<X, kTerms> terms, X* __restrict__ y,
                       const __grid_constant__ Table<Scalar<X>> table,
                       const __grid_constant__ Columns columns) {
  evaluate_columns<X, V>(y, table, columns,
                         [&](const auto& channel_at) { return Normalized<X, kTerms, V>(terms, channel_at); });
}

template <typename X, int kTerms>
const char* run(const NormalizedCall& call, void* stream) {
  const auto terms = Terms<X, kTerms>::of(call.terms);
  const auto table = Table<Scalar<X>>::of(call.parameters, call.num_intervals);
  X* y = static_cast<X*>(call.y);
  const int64_t lines = line_bytes(call);
  const bool runs = uses_runs(call.layout);
  // A thread keeps numbers of each of its columns in registers.
  return with_vector<X>(line_vector(call, runs ? 16 : 4), [&](auto width) -> const char* {
    constexpr int V = decltype(width)::value;
    if (runs) {
      const Runs plan = plan_runs(call.layout, V, sizeof(X), kThreads, call.runs);
      const dim3 blocks(static_cast<unsigned>(call.layout.channels * plan.pieces.count));
      return launch(normalized_runs<X, V, kTerms>, blocks, kThreads, lines, stream, terms, y, table, plan);
    }
    if constexpr (V <= kShortVector<X>) {
      const Columns columns = plan_columns(call.layout, V, sizeof(X), kThreads, call.columns);
      const dim3 blocks(static_cast<unsigned>(columns.tiles * columns.pieces.count));
      return launch(normalized_columns<X, V, kTerms>, blocks, kThreads, lines * V * kWarp, stream, terms, y,
                    table, columns);
    }
    return "pwlu: no kernel of this access width";
  });
}

}  // namespace

template <>
const char* run_lines(const NormalizedCall& call, void* stream) {
  return with_element(call.element, [&](auto element) {
    using X = decltype(element);
    return call.terms.count == 1 ? run<X, 1>(call, stream) : run<X, 2>(call, stream);
  });
}

}  // namespace pwlu::cuda
