// The kernels of the inference form.
#include "folded.cuh"
#include "launch_lines.cuh"

namespace pwlu::cuda {

template <>
struct KernelsOf<FoldedCall> {
  template <typename X>
  static FoldedTable<Scalar<X>> table(const FoldedCall& call) {
    return FoldedTable<Scalar<X>>::of(call.tables, call.num_intervals);
  }
  template <typename X>
  static auto any() {
    return folded_any<X>;
  }
  template <typename X, int V>
  static auto runs() {
    return folded_runs<X, V>;
  }
  template <typename X, int V>
  static auto columns() {
    return folded_columns<X, V>;
  }
};

template const char* run_lines(const FoldedCall& call, void* stream);

}  // namespace pwlu::cuda
