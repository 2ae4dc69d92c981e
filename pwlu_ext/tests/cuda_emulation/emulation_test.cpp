// Runs the CUDA kernels on the CPU and compares with the specification. Prints a line per failure; exits with
// 1 if any.
//
// Also checked: nothing is written outside the outputs and all of them is; and the order in which the threads
// of a block run between two barriers does not change a bit (it would if there were a race).
#include "compare.h"

// The sources themselves: what is tested is what nvcc compiles.
#include "../../csrc/cuda/backward.cu"
#include "../../csrc/cuda/forward.cu"

namespace pwlu::cuda::test {
namespace {

template <typename X>
const char* run(const Problem<X>& p, Answer<X>* answer) {
  ForwardCall forward_call = {Kind<X>::kElement, p.shape.layout, p.shape.num_intervals,
                              p.parameters(),    p.x.data(),     answer->y.data()};
  BackwardCall call = {Kind<X>::kElement,
                       p.shape.layout,
                       p.shape.num_intervals,
                       p.parameters(),
                       p.g.data(),
                       p.x.data(),
                       answer->grad_x.data(),
                       {answer->left.data(), answer->right.data(), answer->points.data(),
                        answer->left_slope.data(), answer->right_slope.data()}};
  forward_call.runs = forward_call.columns = call.runs = call.columns = {p.shape.most_blocks, 150};
  const char* error = run_lines(forward_call, nullptr);
  if (error)
    return error;
  Guarded<double> workspace((workspace_bytes(call) + 7) / 8, 0);
  error = run_backward(call, workspace.data(), nullptr);
  return error || workspace.guards_hold() ? error : "wrote outside the workspace";
}

template <typename X>
void check(const Shape& shape) {
  const Problem<X> p(shape, 7);
  Answer<X> answer(p);
  emulation::shuffled = false;
  if (const char* error = run(p, &answer))
    return fail(shape, Kind<X>::kName, "%s", error);
  const Expected<X> expected(p);
  compare(p, answer, expected);
  if (!answer.y.guards_hold() || !answer.grad_x.guards_hold())
    fail(shape, Kind<X>::kName, "wrote outside an output");

  Answer<X> again(p);
  emulation::shuffled = true;
  run(p, &again);
  if (!same_bits(answer, again))
    fail(shape, Kind<X>::kName, "the order of threads changes the result: a race");
}

void check_all_types(const Shape& shape) {
  check<float>(shape);
  check<double>(shape);
  check<Half>(shape);
  check<BFloat16>(shape);
}

// {outer, channels, inner}: NCHW with images of every alignment, one function for a whole tensor,
// channels_last from one channel to several tiles, and images too small to be runs.
constexpr Layout kLayouts[] = {
    {2, 3, 64},  {3, 2, 100}, {2, 3, 81},  {1, 2, 66},   {9, 1, 130}, {1, 1, 1},  {1, 1, 7},  {1, 1, 4096},
    {70, 8, 1},  {33, 24, 1}, {50, 40, 1}, {13, 100, 1}, {9, 1, 64},  {11, 3, 1}, {40, 2, 1}, {5, 300, 1},
    {6, 16, 49}, {7, 5, 49},  {8, 6, 2},   {20, 3, 5},   {3, 37, 4},  {2, 2, 63}, {1, 9, 1},  {17, 33, 3},
};

void check_layouts() {
  constexpr int kIntervals[] = {16, 1, 5, 33};
  int index = 0;
  for (const Layout& layout : kLayouts) {
    check_all_types({layout, kIntervals[index % 4], 0, index % 2 == 0});
    check_all_types({layout, kIntervals[(index + 2) % 4], index % 3, index % 2 == 1});
    ++index;
  }
}

// Pieces in which a thread has several batches of vectors, and the last of them is not full.
void check_long_pieces() {
  check_all_types({{1, 8, 4104}, 16, 0, true, 1});
  check_all_types({{3, 9, 1032}, 5, 1, true, 1});
  check_all_types({{1203, 24, 1}, 16, 0, true, 1});
  check_all_types({{405, 5, 13}, 3, 0, true, 1});
}

// From one interval to tables that do not fit into shared memory, in both shapes of work.
void check_numbers_of_intervals() {
  for (const int intervals : {1, 2, 3, 4, 8, 20, 21, 22, 46, 47, 64, 65, 94, 127, 200, 300}) {
    check_all_types({{5, 2, 96}, intervals, 0, true});
    check_all_types({{60, 16, 1}, intervals, 0, false});
  }
  check_all_types({{1, 1, 4000}, 3500, 0, false});
  check_all_types({{1, 1, 4000}, 7000, 0, true});
}

// locate_quickly must equal the specification to the bit, above all where x is next to a knot.
template <typename T>
void check_location() {
  std::mt19937 random(3);
  const auto uniform = [&](double low, double high) {
    return std::uniform_real_distribution<double>(low, high)(random);
  };
  for (int trial = 0; trial < 20000; ++trial) {
    const int intervals = 1 + trial % 64;
    const T left = T(uniform(-4, 2) * std::exp2(uniform(-30, 30)));
    const T right = left + T(uniform(0, 4) * std::exp2(uniform(-30, 30)));
    const Curve<T> curve = make_curve(left, right, T(0), T(1), intervals);
    if (!is_plain(curve))
      continue;
    for (int knot = 0; knot <= intervals; ++knot) {
      T x = knot == intervals ? right : left + T(knot) * curve.interval;
      if (knot % 2)
        x = T(uniform(double(left), double(right)));
      for (const T near : {x, std::nextafter(x, left), std::nextafter(x, right), -x, 3 * x}) {
        const Location<T> wanted = locate(near, curve, intervals);
        const Place<T> got = locate_quickly(near, curve, intervals);
        if (got.interval == wanted.bin - 1 && got.coordinate == wanted.coordinate)
          continue;
        fail({{}, intervals, 0, false}, Kind<T>::kName,
             "located %.17g in [%.17g, %.17g]: %d, %.17g; expected %d, %.17g", double(near), double(left),
             double(right), got.interval, double(got.coordinate), wanted.bin - 1, double(wanted.coordinate));
        return;
      }
    }
  }
}

}  // namespace
}  // namespace pwlu::cuda::test

int main() {
  using namespace pwlu::cuda::test;
  check_location<float>();
  check_location<double>();
  check_layouts();
  check_long_pieces();
  check_numbers_of_intervals();
  printf("%d failures\n", failures);
  return failures != 0;
}
