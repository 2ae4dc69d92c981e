// Launches the two kernels of a backward pass: sums by block, then their total and the closed form.
#pragma once

#include "dispatch.cuh"
#include "finish.cuh"
#include "plan_backward.h"

namespace pwlu::cuda {

// The workspace: total sums of all channels as double, then the partial sums.
inline int64_t total_bytes(const BackwardPlan& plan, int64_t channels) {
  return channels * plan.partials.bins * static_cast<int64_t>(sizeof(Sums<double>));
}

// Launches `runs` or `columns`, kernels that take grad, x (or the terms), the input's gradient and the rest.
template <typename X, int V, typename Call, typename Input, typename RunsKernel, typename ColumnsKernel>
const char* launch_either(const Call& call, const BackwardPlan& plan, const Input& input, RunsKernel runs,
                          ColumnsKernel columns, Sums<Scalar<X>>* partial_sums, void* stream) {
  const auto table = Table<Scalar<X>>::of(call.parameters, call.num_intervals);
  const X* grad = static_cast<const X*>(call.grad);
  X* to = static_cast<X*>(gradient_of_input(call));
  const dim3 blocks(static_cast<unsigned>(plan.partials.tiles * plan.partials.pieces), plan.windows);
  if (plan.is_runs) {
    return launch(runs, blocks, plan.runs.threads, plan.shared_bytes, stream, grad, input, to, table,
                  plan.runs, plan.window, plan.partials, partial_sums);
  }
  return launch(columns, blocks, plan.columns.threads, plan.shared_bytes, stream, grad, input, to, table,
                plan.columns, plan.window, plan.partials, partial_sums);
}

// Columns are read in short vectors only.
template <typename X, int V>
constexpr int kColumnVector = V <= kShortVector<X> ? V : 1;

// What launches the first kernel of a Call: launch<X, V>(call, plan, partial_sums, stream).
template <typename Call>
struct SumsOf;

template <typename T, typename Call>
const char* launch_finish(const Call& call, const BackwardPlan& plan, const Sums<T>* partial_sums,
                          double* totals, void* stream) {
  const dim3 blocks(static_cast<unsigned>(call.layout.channels));
  return launch(finish<T>, blocks, kFinishThreads, kFinishThreads * sizeof(Sums<double>), stream,
                partial_sums, totals, Table<T>::of(call.parameters, call.num_intervals), plan.partials,
                GradientTable<T>::of(call.gradients), static_cast<T*>(input_sums(call)));
}

template <typename Call>
size_t workspace_bytes(const Call& call) {
  const BackwardPlan plan = plan_backward(call);
  return total_bytes(plan, call.layout.channels) +
         partial_count(plan.partials) * 2 * scalar_bytes(call.element);
}

template <typename Call>
const char* run_backward(const Call& call, void* workspace, void* stream) {
  const BackwardPlan plan = plan_backward(call);
  return with_element(call.element, [&](auto element) {
    using X = decltype(element);
    using T = Scalar<X>;
    double* totals = static_cast<double*>(workspace);
    auto* partial_sums =
        reinterpret_cast<Sums<T>*>(static_cast<char*>(workspace) + total_bytes(plan, call.layout.channels));
    const char* error = with_vector<X>(plan.vector, [&](auto width) {
      return SumsOf<Call>::template launch<X, decltype(width)::value>(call, plan, partial_sums, stream);
    });
    return error ? error : launch_finish<T>(call, plan, partial_sums, totals, stream);
  });
}

}  // namespace pwlu::cuda
