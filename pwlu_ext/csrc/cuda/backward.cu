// Launches the two kernels of the backward pass: sums by block, then their total and the closed form.
#include "backward_columns.cuh"
#include "backward_runs.cuh"
#include "dispatch.cuh"
#include "finish.cuh"

namespace pwlu::cuda {
namespace {

// The workspace: total sums of all channels as double, then the partial sums.
int64_t total_bytes(const BackwardCall& call) {
  return call.layout.channels * (call.num_intervals + 2) * static_cast<int64_t>(sizeof(Sums<double>));
}

template <typename X, int V>
const char* launch_sums(const BackwardCall& call, const BackwardPlan& plan, Sums<Scalar<X>>* partial_sums,
                        void* stream) {
  const auto table = Table<Scalar<X>>::of(call.parameters, call.num_intervals);
  const Streams<X> streams = {static_cast<const X*>(call.grad), static_cast<const X*>(call.x),
                              static_cast<X*>(call.grad_x)};
  const dim3 blocks(static_cast<unsigned>(plan.partials.tiles * plan.partials.pieces), plan.windows);
  if (plan.is_runs) {
    return launch(backward_runs<X, V>, blocks, plan.runs.threads, plan.shared_bytes, stream, streams, table,
                  plan.runs, plan.window, plan.partials, partial_sums);
  }
  if constexpr (V <= kShortVector<X>) {
    return launch(backward_columns<X, V>, blocks, plan.columns.threads, plan.shared_bytes, stream, streams,
                  table, plan.columns, plan.window, plan.partials, partial_sums);
  }
  return "pwlu: no kernel of this access width";
}

template <typename T>
const char* launch_finish(const BackwardCall& call, const BackwardPlan& plan, const Sums<T>* partial_sums,
                          double* totals, void* stream) {
  const dim3 blocks(static_cast<unsigned>(call.layout.channels));
  return launch(finish<T>, blocks, kFinishThreads, kFinishThreads * sizeof(Sums<double>), stream,
                partial_sums, totals, Table<T>::of(call.parameters, call.num_intervals), plan.partials,
                GradientTable<T>::of(call.gradients));
}

}  // namespace

size_t workspace_bytes(const BackwardCall& call) {
  return total_bytes(call) + partial_count(plan_backward(call).partials) * 2 * scalar_bytes(call.element);
}

const char* run_backward(const BackwardCall& call, void* workspace, void* stream) {
  const BackwardPlan plan = plan_backward(call);
  return with_element(call.element, [&](auto element) {
    using X = decltype(element);
    using T = Scalar<X>;
    double* totals = static_cast<double*>(workspace);
    auto* partial_sums = reinterpret_cast<Sums<T>*>(static_cast<char*>(workspace) + total_bytes(call));
    const char* error = with_vector<X>(plan.vector, [&](auto width) {
      return launch_sums<X, decltype(width)::value>(call, plan, partial_sums, stream);
    });
    return error ? error : launch_finish<T>(call, plan, partial_sums, totals, stream);
  });
}

}  // namespace pwlu::cuda
