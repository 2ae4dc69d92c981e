// From partial sums to the gradients of the parameters: one block per channel adds up and applies the closed
// form.
#pragma once

#include "sums.cuh"

namespace pwlu::cuda {

constexpr int kFinishThreads = 512;

template <typename T>
struct GradientTable {
  T* left;
  T* right;
  T* points;
  T* left_slope;
  T* right_slope;

  static GradientTable of(const ParameterGradients& g) {
    const auto typed = [](void* pointer) { return static_cast<T*>(pointer); };
    return {typed(g.left), typed(g.right), typed(g.points), typed(g.left_slope), typed(g.right_slope)};
  }
};

// The sum of a bin of `channel` over every `step`-th piece of the tiles that have elements of it.
template <typename T>
__device__ __forceinline__ Sums<double> add_pieces(const Sums<T>* partial_sums, const Partials& partials,
                                                   int64_t channel, int bin, int first, int step) {
  Sums<double> total = {0, 0};
  const int64_t last_tile = ((channel + 1) * partials.inner - 1) / partials.width;
  for (int64_t tile = channel * partials.inner / partials.width; tile <= last_tile; ++tile) {
    const int slot = static_cast<int>(channel - partials.first_channel(tile));
#pragma unroll 8
    for (int piece = first; piece < partials.pieces; piece += step) {
      add(partial_sums[partials.index(tile, piece, slot, bin)], &total);
    }
  }
  return total;
}

// Fills sum_g and sum_gt, for each bin of the channel. Threads side by side have bins side by side; the
// pieces are shared among as many rows of such threads as there are.
template <typename T>
__device__ __forceinline__ void add_up(const Sums<T>* partial_sums, const Partials& partials, int64_t channel,
                                       Sums<double>* scratch, double* sum_g, double* sum_gt) {
  const int width = partials.bins < kFinishThreads ? partials.bins : kFinishThreads;
  const int rows = kFinishThreads / width;
  const int row = threadIdx.x / width;
  for (int first = 0; first < partials.bins; first += width) {
    const int bin = first + threadIdx.x % width;
    const bool active = row < rows && bin < partials.bins;
    if (active)
      scratch[threadIdx.x] = add_pieces(partial_sums, partials, channel, bin, row, rows);
    __syncthreads();
    if (active && row == 0) {
      Sums<double> total = scratch[threadIdx.x];
      for (int other = 1; other < rows; ++other)
        add(scratch[other * width + threadIdx.x], &total);
      sum_g[bin] = total.g;
      sum_gt[bin] = total.gt;
    }
    __syncthreads();
  }
}

// The sum over all threads of the block, on its first thread.
__device__ __forceinline__ BoundaryGradient<double> add_over_block(BoundaryGradient<double> own,
                                                                   BoundaryGradient<double>* scratch) {
  scratch[threadIdx.x] = own;
  for (int half = kFinishThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < half) {
      scratch[threadIdx.x].left += scratch[threadIdx.x + half].left;
      scratch[threadIdx.x].right += scratch[threadIdx.x + half].right;
    }
  }
  return scratch[0];
}

// all_sums: workspace for 2 * bins numbers per channel. input_sums: see NormalizedBackwardCall; else nullptr.
template <typename T>
__global__ void __launch_bounds__(kFinishThreads)
    finish(const Sums<T>* __restrict__ partial_sums, double* all_sums, Table<T> table, Partials partials,
           GradientTable<T> gradients, T* input_sums) {
  PWLU_SHARED_BYTES(shared);
  Sums<double>* scratch = reinterpret_cast<Sums<double>*>(shared);
  const int64_t channel = blockIdx.x;
  const int num_intervals = table.num_intervals;
  double* sum_g = all_sums + 2 * partials.bins * channel;
  double* sum_gt = sum_g + partials.bins;
  add_up(partial_sums, partials, channel, scratch, sum_g, sum_gt);

  T* points = gradients.points + channel * (num_intervals + 1);
  for (int knot = threadIdx.x; knot <= num_intervals; knot += kFinishThreads) {
    points[knot] = point_gradient<T>(sum_g, sum_gt, knot, num_intervals);
  }
  const Curve<T> curve = table.curve(channel);
  BoundaryGradient<double> inside = {0, 0};
  for (int i = threadIdx.x; i < num_intervals; i += kFinishThreads) {
    const auto share =
        boundary_gradient_of_interval(sum_g, sum_gt, curve, table.points_of(channel), i, num_intervals);
    inside = {inside.left + share.left, inside.right + share.right};
  }
  inside = add_over_block(inside, reinterpret_cast<BoundaryGradient<double>*>(scratch));
  if (threadIdx.x != 0)
    return;
  const auto gradient = with_tails(inside, sum_g, sum_gt, curve, num_intervals);
  gradients.left[channel] = gradient.left;
  gradients.right[channel] = gradient.right;
  gradients.left_slope[channel] = gradient.left_slope;
  gradients.right_slope[channel] = gradient.right_slope;
  if (input_sums == nullptr)
    return;
  // Of d loss / d z; its moments are behind the last bin.
  const double total = sum_of_input_gradient([&](int bin) { return sum_g[bin]; }, curve,
                                             table.points_of(channel), num_intervals);
  const int64_t channels = gridDim.x;
  input_sums[channel] = T(total);
  input_sums[channels + channel] = T(sum_g[num_intervals + 2]);
  input_sums[2 * channels + channel] = T(sum_gt[num_intervals + 2]);
}

}  // namespace pwlu::cuda
