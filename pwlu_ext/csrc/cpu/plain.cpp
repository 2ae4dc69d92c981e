// Plain C++, one element at a time, for every processor; also the float64 kernels.
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <cmath>
#include <cstring>

#include "kernels.h"

namespace pwlu::cpu {
namespace {

template <class Number>
struct Plain {
  using T = Number;
  using F = Number;
  using M = bool;
  using I = int32_t;
  static constexpr int kWidth = 1, kSmallTable = 0, kLargeTable = 0;

  static F set(T value) { return value; }
  static F add(F a, F b) { return a + b; }
  static F sub(F a, F b) { return a - b; }
  static F mul(F a, F b) { return a * b; }
  static F div(F a, F b) { return a / b; }
  static F fma(F a, F b, F c) { return a * b + c; }
  static F min(F a, F b) { return a < b ? a : b; }
  static F max(F a, F b) { return a > b ? a : b; }
  static F floor(F a) { return std::floor(a); }
  static M less(F a, F b) { return a < b; }
  static M not_less(F a, F b) { return !(a < b); }
  static M is_zero(F a) { return a == 0; }
  static F select(M where, F yes, F no) { return where ? yes : no; }
  static I select_int(M where, I yes, I no) { return where ? yes : no; }
  static I set_int(int value) { return value; }
  static I to_int(F a) { return a > 0 ? static_cast<I>(a) : 0; }  // never the undefined conversion of a NaN
  static I lanes_times(int) { return 0; }
  static I add_int(I a, I b) { return a + b; }

  static F load(const T* from) { return *from; }
  static void store(T* to, F a) { *to = a; }
  static F load(const BFloat16* from) { return widen<c10::BFloat16>(from); }
  static void store(BFloat16* to, F a) { narrow<c10::BFloat16>(to, a); }
  static F load(const Half* from) { return widen<c10::Half>(from); }
  static void store(Half* to, F a) { narrow<c10::Half>(to, a); }
  template <class X>
  static F load_part(const X* from, int) {
    return load(from);
  }
  template <class X>
  static void store_part(X* to, F a, int) {
    store(to, a);
  }
  template <class Stored, class X>
  static F widen(const X* from) {
    Stored number;
    std::memcpy(&number, from, sizeof number);
    return static_cast<F>(static_cast<float>(number));
  }
  template <class Stored, class X>
  static void narrow(X* to, F a) {
    const Stored number(static_cast<float>(a));
    std::memcpy(to, &number, sizeof number);
  }

  static F gather(const T* table, I index) { return table[index]; }
  struct Line {
    F start, rise;
  };
  static Line look_up_pairs(const T* table, const int32_t* slot) {
    return {table[2 * *slot], table[2 * *slot + 1]};
  }
  static F look_up_numbers(const T* table, const int32_t* slot) { return table[*slot]; }

  static void store_int(int32_t* to, I a) { *to = a; }
  static void add_pairs(T* sums, const int32_t* slot, const T* pairs, int count) {
    for (int i = 0; i < count; ++i) {
      sums[2 * slot[i]] += pairs[2 * i];
      sums[2 * slot[i] + 1] += pairs[2 * i + 1];
    }
  }
  static void store_pairs(T* to, F a, F b) {
    to[0] = a;
    to[1] = b;
  }
};

#include "vector_kernels.h"

using S = Plain<float>;
using S64 = Plain<double>;

}  // namespace

const InstructionSet& plain() {
  static const InstructionSet set = {"plain", kernels<S, float>(), kernels<S, BFloat16>(),
                                     kernels<S, Half>()};
  return set;
}

const Kernels<double, double>& plain_float64() {
  static const Kernels<double, double> set = kernels<S64, double>();
  return set;
}

}  // namespace pwlu::cpu
