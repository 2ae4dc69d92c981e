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

// Of a BatchNorm, (G,): see Norm of checks_normalized.h; nullptr where there is none.
struct NormPointers {
  const void *mean, *invstd, *weight, *bias;
};

// x and, where `count` is 2, a shortcut.
struct TermPointers {
  int count;
  const void* x[2];
  NormPointers norms[2];
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

// Functions of what BatchNorms make of the terms. At most kMostNormalizedIntervals of them.
struct NormalizedCall {
  Element element;
  Layout layout;  // at least one element
  int num_intervals;
  Parameters parameters;
  TermPointers terms;
  void* y;
  Split runs = {4096, 8192};
  Split columns = {2048, 8192};
};

constexpr int kMostNormalizedIntervals = 60;

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

// The gradients of a NormalizedCall. grad_z: d loss / d z; sums: (3, G), of grad_z, and of its products with
// each term's distance from its mean.
struct NormalizedBackwardCall {
  Element element;
  Layout layout;  // at least one element
  int num_intervals;
  Parameters parameters;
  TermPointers terms;
  const void* grad;
  void* grad_z;
  void* sums;
  ParameterGradients gradients;
  Split runs = {4096, 12288};
  Split columns = {2048, 12288};
};

// Runs a ForwardCall, FoldedCall or NormalizedCall, whose y is a line in x (or z) on each interval, on
// `stream` (a cudaStream_t) of the current device. Returns nullptr, or CUDA's message if a launch failed.
template <typename Call>
const char* run_lines(const Call& call, void* stream);

// The same for a BackwardCall or NormalizedBackwardCall. `workspace`: workspace_bytes(call) bytes of device
// memory, aligned to 16; it need not be initialised.
template <typename Call>
size_t workspace_bytes(const Call& call);
template <typename Call>
const char* run_backward(const Call& call, void* workspace, void* stream);

}  // namespace pwlu::cuda
