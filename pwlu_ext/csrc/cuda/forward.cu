// The kernels of the forward pass.
#include "forward.cuh"
#include "launch_lines.cuh"

namespace pwlu::cuda {

template <>
struct KernelsOf<ForwardCall> {
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

template const char* run_lines(const ForwardCall& call, void* stream);

}  // namespace pwlu::cuda
