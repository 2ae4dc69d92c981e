// A thread's way through a piece of a channel whose elements lie in runs.
#pragma once

#include "device.cuh"
#include "plan.h"

namespace pwlu::cuda {

// Everything in vectors of V elements.
struct RunCursor {
  int64_t position;  // in the tensor
  int64_t column;    // in the run
  int left;          // to the end of the piece, this one included; <= 0 past the end

  __device__ __forceinline__ RunCursor(const Runs& runs, int64_t channel, int64_t piece) {
    const int64_t begin = piece * runs.pieces.size + threadIdx.x;
    const int64_t end = (piece + 1) * runs.pieces.size;
    left = static_cast<int>((end < runs.length ? end : runs.length) - begin);
    const int64_t run = divide(begin, runs.run);
    column = begin - run * runs.run;
    position = run * runs.row + channel * runs.run + column;
  }

  // To the vector that is runs.threads further on in the channel.
  __device__ __forceinline__ void advance(const Runs& runs) {
    left -= runs.threads;
    column += runs.columns;
    position += runs.offset;
    if (column >= runs.run) {
      column -= runs.run;
      position += runs.row - runs.run;
    }
  }
};

}  // namespace pwlu::cuda
