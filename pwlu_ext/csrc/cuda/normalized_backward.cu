// The kernels of a PWLU behind a BatchNorm, backward.
#include "backward_columns.cuh"
#include "backward_runs.cuh"
#include "launch_backward.cuh"

namespace pwlu::cuda {

template <>
struct SumsOf<NormalizedBackwardCall> {
  template <typename X, int V>
  static const char* launch(const NormalizedBackwardCall& call, const BackwardPlan& plan,
                            Sums<Scalar<X>>* partial_sums, void* stream) {
    return call.terms.count == 1 ? launch<X, V, 1>(call, plan, partial_sums, stream)
                                 : launch<X, V, 2>(call, plan, partial_sums, stream);
  }

 private:
  template <typename X, int V, int kTerms>
  static const char* launch(const NormalizedBackwardCall& call, const BackwardPlan& plan,
                            Sums<Scalar<X>>* partial_sums, void* stream) {
    return launch_either<X, V>(
        call, plan, Terms<X, kTerms>::of(call.terms), normalized_backward_runs<X, V, kTerms>,
        normalized_backward_columns<X, kColumnVector<X, V>, kTerms>, partial_sums, stream);
  }
};

template size_t workspace_bytes(const NormalizedBackwardCall& call);
template const char* run_backward(const NormalizedBackwardCall& call, void* workspace, void* stream);

}  // namespace pwlu::cuda
