// The kernels of the backward pass.
#include "backward_columns.cuh"
#include "backward_runs.cuh"
#include "launch_backward.cuh"

namespace pwlu::cuda {

template <>
struct SumsOf<BackwardCall> {
  template <typename X, int V>
  static const char* launch(const BackwardCall& call, const BackwardPlan& plan, Sums<Scalar<X>>* partial_sums,
                            void* stream) {
    return launch_either<X, V>(call, plan, static_cast<const X*>(call.x), backward_runs<X, V>,
                               backward_columns<X, kColumnVector<X, V>>, partial_sums, stream);
  }
};

template size_t workspace_bytes(const BackwardCall& call);
template const char* run_backward(const BackwardCall& call, void* workspace, void* stream);

}  // namespace pwlu::cuda
