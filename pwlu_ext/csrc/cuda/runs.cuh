// A thread's way through a piece of a channel whose elements lie in runs.
#pragma once

#include "device.cuh"
#include "plan.h"

namespace pwlu::cuda {

struct RunCursor {
  int64_t position;  // in the tensor, in bytes
  int ahead;         // vectors to the end of the run, this one included, but at most kFar
  int left;          // vectors to the end of the piece, this one included; <= 0 past the end
  const Runs& runs;

  __device__ __forceinline__ RunCursor(const Runs& runs, int64_t channel, int64_t piece) : runs(runs) {
    const int64_t begin = piece * runs.pieces.size + threadIdx.x;
    const int64_t end = (piece + 1) * runs.pieces.size;
    const int64_t run = divide(begin, runs.run);
    const int64_t column = begin - run * runs.run;
    position = (run * runs.row + channel * runs.run + column) * runs.vector_bytes;
    ahead = static_cast<int>(runs.run - column < kFar ? runs.run - column : kFar);
    left = static_cast<int>((end < runs.length ? end : runs.length) - begin);
  }

  // By how much `left` shrinks with each advance.
  __device__ __forceinline__ int stride() const { return runs.threads; }

  // To the vector that is runs.threads further on in the channel.
  __device__ __forceinline__ void advance() {
    left -= runs.threads;
    ahead -= runs.columns;
    position += runs.offset_bytes;
    if (ahead <= 0) {
      ahead += runs.near_run;
      position += runs.gap_bytes;
    }
  }
};

}  // namespace pwlu::cuda
