// Runs the CUDA kernels of PWLUs behind a BatchNorm on the CPU and compares with the specification. Prints a
// line per failure; exits with 1 if any.
#include "compare.h"

// The sources themselves: what is tested is what nvcc compiles.
#include "../../csrc/cuda/normalized.cu"
#include "../../csrc/cuda/normalized_backward.cu"

namespace pwlu::cuda::test {
namespace {

// A term's BatchNorm: plain in every third channel, so that some z are knots; a weight is 0, some are
// negative.
template <typename T>
struct NormNumbers {
  std::vector<T> mean, invstd, weight, bias;

  NormNumbers(int64_t channels, std::mt19937* random) {
    const auto uniform = [&](double low, double high) {
      return T(std::uniform_real_distribution<double>(low, high)(*random));
    };
    for (int64_t c = 0; c < channels; ++c) {
      const bool plain = c % 3 == 0;
      mean.push_back(plain ? T(0) : uniform(-1, 1));
      invstd.push_back(plain ? T(1) : uniform(0.5, 2));
      weight.push_back(plain ? T(1) : c % 3 == 1 ? uniform(-2, 2) : T(c % 2));
      bias.push_back(plain ? T(0) : uniform(-1, 1));
    }
  }
  NormPointers pointers() const { return {mean.data(), invstd.data(), weight.data(), bias.data()}; }
  T value(T x, int64_t c) const {
    return std::fma(x - mean[c], weight[c] * invstd[c], bias[c]);
  }
};

// terms: 1, or 2, where the shortcut has a BatchNorm if has_second_norm.
template <typename X>
struct NormalizedProblem : Problem<X> {
  using T = Scalar<X>;
  int terms;
  bool has_second_norm;
  std::mt19937 random;
  NormNumbers<T> first, second;
  Guarded<X> shortcut;

  NormalizedProblem(const Shape& shape, int terms, bool has_second_norm)
      : Problem<X>(shape, 7),
        terms(terms),
        has_second_norm(has_second_norm),
        random(5),
        first(shape.layout.channels, &random),
        second(shape.layout.channels, &random),
        shortcut(this->count, shape.misalignment) {
    std::uniform_real_distribution<double> uniform(-1, 1);
    for (int64_t i = 0; i < this->count; ++i) {
      narrow(T(i % 4 == 0 ? 0 : uniform(random)), shortcut.data() + i);
      const int64_t c = this->channel(i);
      const T s = widen(shortcut.data()[i]);
      this->z[i] = first.value(widen(this->x.data()[i]), c);
      if (terms == 2)
        this->z[i] += has_second_norm ? second.value(s, c) : s;
    }
  }
  TermPointers pointers() const {
    return {terms,
            {this->x.data(), shortcut.data()},
            {first.pointers(), has_second_norm ? second.pointers() : NormPointers{}}};
  }
};

template <typename X>
const char* run(const NormalizedProblem<X>& p, Answer<X>* answer, std::vector<Scalar<X>>* sums) {
  NormalizedCall forward = {Kind<X>::kElement, p.shape.layout, p.shape.num_intervals,
                            p.parameters(),    p.pointers(),   answer->y.data()};
  NormalizedBackwardCall backward = {Kind<X>::kElement,
                                     p.shape.layout,
                                     p.shape.num_intervals,
                                     p.parameters(),
                                     p.pointers(),
                                     p.g.data(),
                                     answer->grad_x.data(),
                                     sums->data(),
                                     {answer->left.data(), answer->right.data(), answer->points.data(),
                                      answer->left_slope.data(), answer->right_slope.data()}};
  forward.runs = forward.columns = backward.runs = backward.columns = {p.shape.most_blocks, 150};
  if (const char* error = run_lines(forward, nullptr))
    return error;
  Guarded<double> workspace((workspace_bytes(backward) + 7) / 8, 0);
  const char* error = run_backward(backward, workspace.data(), nullptr);
  return error || workspace.guards_hold() ? error : "wrote outside the workspace";
}

// The sums of d loss / d z, and of its products with the distances of x and of the shortcut from their means.
template <typename X>
void compare_sums(const NormalizedProblem<X>& p, const std::vector<Scalar<X>>& got) {
  using T = Scalar<X>;
  const int64_t channels = p.shape.layout.channels;
  std::vector<double> wanted(3 * channels, 0.0), size(3 * channels, 1.0);
  for (int64_t i = 0; i < p.count; ++i) {
    const int64_t c = p.channel(i);
    const Curve<T> curve = p.curve(c);
    const Location<T> at = locate(p.z[i], curve, p.shape.num_intervals);
    const double grad =
        double(widen(p.g.data()[i])) * slope_at(at.bin, curve, p.points_of(c), p.shape.num_intervals);
    const double x = double(widen(p.x.data()[i])) - p.first.mean[c];
    const double s = double(widen(p.shortcut.data()[i])) - (p.has_second_norm ? p.second.mean[c] : 0);
    const double summands[] = {grad, grad * x, p.terms == 2 ? grad * s : 0};
    for (int sum = 0; sum < 3; ++sum) {
      wanted[sum * channels + c] += summands[sum];
      size[sum * channels + c] += std::abs(summands[sum]);
    }
  }
  for (size_t i = 0; i < wanted.size(); ++i) {
    const double tolerance = 64 * Kind<T>::kRounding * (std::isfinite(size[i]) ? size[i] : 1);
    if (!close(got[i], wanted[i], tolerance)) {
      fail(p.shape, Kind<X>::kName, "%d terms: sum[%zu] = %.9g, expected %.9g", p.terms, i, double(got[i]),
           wanted[i]);
      return;
    }
  }
}

template <typename X>
void check(const Shape& shape, int terms, bool has_second_norm) {
  const NormalizedProblem<X> p(shape, terms, has_second_norm);
  Answer<X> answer(p), again(p);
  std::vector<Scalar<X>> sums(3 * shape.layout.channels), sums_again(sums);
  emulation::shuffled = false;
  if (const char* error = run(p, &answer, &sums))
    return fail(shape, Kind<X>::kName, "%s", error);
  compare(p, answer, Expected<X>(p));
  compare_sums(p, sums);
  if (!answer.y.guards_hold() || !answer.grad_x.guards_hold())
    fail(shape, Kind<X>::kName, "wrote outside an output");
  emulation::shuffled = true;
  run(p, &again, &sums_again);
  if (!same_bits(answer, again) || memcmp(sums.data(), sums_again.data(), sums.size() * sizeof(sums[0])) != 0)
    fail(shape, Kind<X>::kName, "the order of threads changes the result: a race");
}

void check_all(const Shape& shape, int terms, bool has_second_norm) {
  check<float>(shape, terms, has_second_norm);
  check<double>(shape, terms, has_second_norm);
  check<Half>(shape, terms, has_second_norm);
  check<BFloat16>(shape, terms, has_second_norm);
}

// As in emulation_test.cpp: NCHW of every alignment, one channel, channels_last, images too small to be runs.
constexpr Layout kLayouts[] = {
    {2, 3, 64},  {3, 2, 100},  {2, 3, 81}, {1, 2, 66}, {9, 1, 130}, {1, 1, 1},   {1, 1, 4096}, {70, 8, 1},
    {33, 24, 1}, {13, 100, 1}, {11, 3, 1}, {40, 2, 1}, {5, 300, 1}, {6, 16, 49}, {8, 6, 2},    {3, 37, 4},
};

void check_layouts() {
  constexpr int kIntervals[] = {16, 1, 5, 33, 60};
  int index = 0;
  for (const Layout& layout : kLayouts) {
    check_all({layout, kIntervals[index % 5], index % 3, false}, 1, false);
    check_all({layout, kIntervals[(index + 1) % 5], 0, false}, 2, false);
    check_all({layout, kIntervals[(index + 2) % 5], index % 2, false}, 2, true);
    ++index;
  }
  check_all({{1, 8, 4104}, 16, 0, false, 1}, 2, true);
  check_all({{1203, 24, 1}, 16, 0, false, 1}, 2, true);
}

// Collapsed and degenerate functions, whose elements take the specification's way; and what is not finite.
void check_unusual() {
  for (const Layout& layout : {Layout{2, 16, 70}, Layout{40, 16, 1}}) {
    check_all({layout, 8, 0, true}, 1, false);
    check_all({layout, 8, 0, true}, 2, false);
  }
}

}  // namespace
}  // namespace pwlu::cuda::test

int main() {
  using namespace pwlu::cuda::test;
  check_layouts();
  check_unusual();
  printf("%d failures\n", failures);
  return failures != 0;
}
