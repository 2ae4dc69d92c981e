// Runs the CUDA kernels of the inference form on the CPU and compares with the plain form. Prints a line per
// failure; exits with 1 if any.
//
// Between knots the tables jump at random, so that an x in the wrong interval is seen.
#include "report.h"

// The source itself: what is tested is what nvcc compiles.
#include "../../csrc/cuda/folded.cu"

namespace pwlu::cuda::test {
namespace {

template <typename X>
struct FoldedProblem {
  using T = Scalar<X>;
  Shape shape;
  int64_t count;
  std::vector<T> left, interval, slopes, offsets;
  Guarded<X> x;

  explicit FoldedProblem(const Shape& shape);
  int64_t channel(int64_t i) const { return i / shape.layout.inner % shape.layout.channels; }
};

// Intervals of both signs; in an unusual problem some so narrow or wide that the short cut cannot serve, 0,
// infinite or NaN, and flat tails.
template <typename X>
FoldedProblem<X>::FoldedProblem(const Shape& shape)
    : shape(shape), count(numel(shape.layout)), x(count, shape.misalignment) {
  std::mt19937 random(11);
  const auto uniform = [&](double low, double high) {
    return T(std::uniform_real_distribution<double>(low, high)(random));
  };
  const T odd[] = {T(0x1p-70), T(0x1p70), T(0), T(INFINITY), T(NAN), T(0x1p-120)};
  for (int64_t c = 0; c < shape.layout.channels; ++c) {
    left.push_back(uniform(-3, -1));
    interval.push_back(uniform(0.1, 4) / shape.num_intervals * (c % 2 ? -1 : 1));
    if (shape.unusual && c % 3 == 1)
      interval[c] = odd[c / 3 % 6];
    for (int bin = 0; bin < shape.num_intervals + 2; ++bin) {
      slopes.push_back(shape.unusual && bin % (shape.num_intervals + 1) == 0 ? T(0) : uniform(-2, 2));
      offsets.push_back(uniform(-2, 2));
    }
  }
  const T rare[] = {T(NAN), T(INFINITY), T(-INFINITY), T(0), T(-0.0), T(3e38), T(-3e38)};
  for (int64_t i = 0; i < count; ++i) {
    const int64_t c = channel(i);
    const T knot = left[c] + T(i % (shape.num_intervals + 3) - 1) * interval[c];
    const T value = i % 5 == 2 ? knot : i % 5 == 3 ? std::nextafter(knot, T(0)) : uniform(-5, 5);
    narrow(i % 23 == 7 ? rare[i / 23 % 7] : value, x.data() + i);
  }
}

// pwlu/folded.py's plain form, to the multiplication and addition in double precision.
template <typename X>
double expected_value(const FoldedProblem<X>& p, int64_t i) {
  using T = Scalar<X>;
  const int64_t c = p.channel(i);
  const int last = p.shape.num_intervals;
  const T x = widen(p.x.data()[i]);
  const T position = std::floor((x - p.left[c]) / p.interval[c]);
  const int index =
      std::isnan(position) ? last : static_cast<int>(std::min<T>(last, std::max<T>(-1, position)));
  const int64_t line = c * (last + 2) + index + 1;
  const T finite = std::isinf(x) && p.slopes[line] == 0 ? T(0) : x;
  return double(finite) * double(p.slopes[line]) + double(p.offsets[line]);
}

template <typename X>
void compare(const FoldedProblem<X>& p, const Guarded<X>& y) {
  using T = Scalar<X>;
  for (int64_t i = 0; i < p.count; ++i) {
    const double got = widen(y.data()[i]), wanted = expected_value(p, i);
    X rounded;  // beyond the largest number of the type lies infinity
    narrow(T(wanted), &rounded);
    const double size = std::abs(wanted) + 10;
    if (!close(got, widen(rounded), (2 * Kind<X>::kRounding + 4 * Kind<T>::kRounding) * size)) {
      fail(p.shape, Kind<X>::kName, "folded y[%lld] = %.9g, expected %.9g at x = %.9g", (long long)i, got,
           wanted, double(widen(p.x.data()[i])));
      return;
    }
  }
  if (!y.guards_hold())
    fail(p.shape, Kind<X>::kName, "wrote outside the output");
}

template <typename X>
void check(const Shape& shape) {
  const FoldedProblem<X> p(shape);
  Guarded<X> y(p.count, shape.misalignment), again(p.count, shape.misalignment);
  FoldedCall call = {
      Kind<X>::kElement,   shape.layout,
      shape.num_intervals, {p.left.data(), p.interval.data(), p.slopes.data(), p.offsets.data()},
      p.x.data(),          y.data()};
  call.runs = call.columns = {shape.most_blocks, 150};
  emulation::shuffled = false;
  if (const char* error = run_lines(call, nullptr))
    return fail(shape, Kind<X>::kName, "%s", error);
  compare(p, y);
  emulation::shuffled = true;
  call.y = again.data();
  run_lines(call, nullptr);
  if (!y.same_bits(again))
    fail(shape, Kind<X>::kName, "the order of threads changes the result: a race");
}

void check_all() {
  // NCHW of every alignment, one function for all, channels_last, images too small to be runs; long pieces.
  constexpr Layout kLayouts[] = {
      {2, 3, 64},  {3, 2, 100},  {2, 3, 81},  {9, 1, 130}, {1, 1, 1},  {1, 1, 4096}, {70, 8, 1},
      {33, 24, 1}, {13, 100, 1}, {5, 300, 1}, {6, 16, 49}, {20, 3, 5}, {1, 8, 4104}, {1203, 24, 1},
  };
  constexpr int kIntervals[] = {16, 1, 5, 33, 64, 300};
  int index = 0;
  for (const Layout& layout : kLayouts) {
    for (int variant = 0; variant < 2; ++variant, ++index) {
      const Shape shape = {layout, kIntervals[index % 6], index % 3, variant == 1};
      check<float>(shape);
      check<double>(shape);
      check<Half>(shape);
      check<BFloat16>(shape);
    }
  }
  check<float>({{1, 1, 4000}, 7000, 0, true});  // no room for the table
}

}  // namespace
}  // namespace pwlu::cuda::test

int main() {
  pwlu::cuda::test::check_all();
  printf("%d failures\n", pwlu::cuda::test::failures);
  return pwlu::cuda::test::failures != 0;
}
