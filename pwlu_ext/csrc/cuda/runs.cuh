// A thread's way through a piece of a channel whose elements lie in runs.
#pragma once

#include "device.cuh"
#include "plan.h"

namespace pwlu::cuda {

// Everything in vectors of V elements.
struct RunCursor {
  int64_t position;  // in the tensor
  int ahead;         // to the end of the run, this one included, but at most kFar
  int left;          // to the end of the piece, this one included; <= 0 past the end
  const Runs& runs;

  __device__ __forceinline__ RunCursor(const Runs& runs, int64_t channel, int64_t piece) : runs(runs) {
    const int64_t begin = piece * runs.pieces.size + threadIdx.x;
    const int64_t end = (piece + 1) * runs.pieces.size;
    const int64_t run = divide(begin, runs.run);
    const int64_t column = begin - run * runs.run;
    position = run * runs.row + channel * runs.run + column;
    ahead = static_cast<int>(runs.run - column < kFar ? runs.run - column : kFar);
    left = static_cast<int>((end < runs.length ? end : runs.length) - begin);
  }

  // To the vector that is runs.threads further on in the channel.
  __device__ __forceinline__ void advance() {
    left -= runs.threads;
    ahead -= runs.columns;
    position += runs.offset;
    if (ahead <= 0) {
      ahead += runs.near_run;
      position += runs.gap;
    }
  }
};

}  // namespace pwlu::cuda
