// A thread's group of columns, which it keeps to while it walks down the rows of its piece.
#pragma once

#include "device.cuh"
#include "plan.h"

namespace pwlu::cuda {

struct ColumnCursor {
  int64_t group;     // of V columns
  int64_t position;  // of the thread's next vector in the tensor, in bytes
  int64_t step;      // from there to the one after it, in bytes
  int left;  // rows to the end of the piece, the next one included; <= 0 past the end and for an idle lane
  int rows_at_once;  // of a block: how far the thread steps

  __device__ __forceinline__ ColumnCursor(const Columns& columns, int64_t tile, int64_t piece) {
    const int lane = threadIdx.x % kWarp;
    const int row_in_warp = lane / columns.tile;
    group = tile * columns.tile + lane % columns.tile;
    rows_at_once = columns.threads / kWarp * columns.rows_per_warp;
    const int64_t row =
        piece * columns.pieces.size + threadIdx.x / kWarp * columns.rows_per_warp + row_in_warp;
    const int64_t end = (piece + 1) * columns.pieces.size;
    left = static_cast<int>((end < columns.rows ? end : columns.rows) - row);
    if (row_in_warp >= columns.rows_per_warp || group >= columns.groups) {
      left = 0;
      group = 0;  // reads of its channels' parameters stay in bounds
    }
    position = (row * columns.groups + group) * columns.vector_bytes;
    step = rows_at_once * columns.groups * columns.vector_bytes;
  }

  // By how much `left` shrinks with each advance.
  __device__ __forceinline__ int stride() const { return rows_at_once; }

  __device__ __forceinline__ void advance() {
    position += step;
    left -= rows_at_once;
  }
};

// The channel of column `e` of a group of V.
__device__ __forceinline__ int64_t channel_of(const Columns& columns, int64_t group, int e, int vector) {
  return divide(group * vector + e, columns.inner);
}

}  // namespace pwlu::cuda
