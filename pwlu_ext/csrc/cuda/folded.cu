// The kernels of the inference form.
#include "folded.cuh"
#include "launch_lines.cuh"

namespace pwlu::cuda {
namespace {

struct FoldedKernels {
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

}  // namespace

const char* run_folded(const FoldedCall& call, void* stream) {
  return launch_lines<FoldedKernels>(call, stream);
}

}  // namespace pwlu::cuda
