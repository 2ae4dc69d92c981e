// The kernels of the forward pass.
#include "forward.cuh"
#include "launch_lines.cuh"

namespace pwlu::cuda {
namespace {

struct ForwardKernels {
  template <typename X>
  static Table<Scalar<X>> table(const ForwardCall& call) {
    return Table<Scalar<X>>::of(call.parameters, call.num_intervals);
  }
  template <typename X>
  static auto any() {
    return forward_any<X>;
  }
  template <typename X, int V>
  static auto runs() {
    return forward_runs<X, V>;
  }
  template <typename X, int V>
  static auto columns() {
    return forward_columns<X, V>;
  }
};

}  // namespace

const char* run_forward(const ForwardCall& call, void* stream) {
  return launch_lines<ForwardKernels>(call, stream);
}

}  // namespace pwlu::cuda
