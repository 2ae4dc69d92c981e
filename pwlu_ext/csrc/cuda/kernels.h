// What the host asks of the kernels: plain structs and pointers, so that the .cu files need no torch header.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../pwlu.h"

namespace pwlu::cuda {

enum class Element { kFloat, kDouble, kHalf, kBFloat16 };

// How work is divided among blocks: at most about `most_blocks`, each with at least `least_elements`. It
// depends on the shape alone and never on the GPU, so that sums are added in the same order everywhere.
struct Split {
  int64_t most_blocks;
  int64_t least_elements;
};

// Device pointers to contiguous float (double for Element::kDouble) arrays: (G,), and (G, num_intervals + 1)
// for points.
struct Parameters {
  const void* left;
  const void* right;
  const void* points;
  const void* left_slope;
  const void* right_slope;
};

struct ParameterGradients {
  void* left;
  void* right;
  void* points;
  void* left_slope;
  void* right_slope;
};

struct ForwardCall {
  Element element;
  Layout layout;  // at least one element
  int num_intervals;
  Parameters parameters;
  const void* x;
  void* y;
  Split runs = {4096, 8192};
  Split columns = {2048, 8192};  // fewer blocks: each fills a table for all the columns of its tile
};

// Device pointers to contiguous float or double arrays: (G,), and (G, num_intervals + 2) for slopes and
// offsets.
struct FoldedTables {
  const void* left;
  const void* interval;
  const void* slopes;
  const void* offsets;
};

struct FoldedCall {
  Element element;
  Layout layout;  // at least one element
  int num_intervals;
  FoldedTables tables;
  const void* x;
  void* y;
  Split runs = {4096, 8192};
  Split columns = {2048, 8192};
};

struct BackwardCall {
  Element element;
  Layout layout;  // at least one element
  int num_intervals;
  Parameters parameters;
  const void* grad;
  const void* x;
  void* grad_x;
  ParameterGradients gradients;
  Split runs = {4096, 12288};
  Split columns = {2048, 12288};  // fewer blocks: each writes sums for all the channels of its tile
};

// Runs a ForwardCall or a FoldedCall, whose y is a line in x on each interval, on `stream` (a cudaStream_t)
// of the current device. Returns nullptr, or CUDA's message if a launch failed.
template <typename Call>
const char* run_lines(const Call& call, void* stream);

// The same for a BackwardCall. `workspace`: workspace_bytes(call) bytes of device memory, aligned to 16; it
// need not be initialised.
size_t workspace_bytes(const BackwardCall& call);
const char* run_backward(const BackwardCall& call, void* workspace, void* stream);

}  // namespace pwlu::cuda
