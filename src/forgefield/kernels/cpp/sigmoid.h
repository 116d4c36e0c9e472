// The logistic function on whole vectors, to the last digit or two of its precision; not a number stays one.
#pragma once
#include <cmath>
#include <cstdint>

#include "vector.h"

template <class T>
struct Float;
template <>
struct Float<float> {
  using Int = int32_t;
  static constexpr int bits = 23, bias = 127, order = 7;
  static constexpr float furthest = 87.0f, high = 0.693359375f, low = -2.12194440e-4f, shift = 12582912.0f;  // high + low = ln 2
};
template <>
struct Float<double> {
  using Int = int64_t;
  static constexpr int bits = 52, bias = 1023, order = 13;
  static constexpr double furthest = 708.0, high = 0.693147180369123816490, low = 1.90821492927058770002e-10, shift = 6755399441055744.0;
};

// exp(x) = 2^n exp(r) with |r| <= ln 2 / 2; beyond `furthest` the argument is cut off.
template <class T, int B>
inline typename Vector<T, B>::type exponential(typename Vector<T, B>::type x) {
  using V = typename Vector<T, B>::type;
  if constexpr (B == sizeof(T)) {
    return std::exp(x);
  } else {
    using F = Float<T>;
    typedef typename F::Int Ints __attribute__((vector_size(B)));
    const V most = V{} + F::furthest;
    x = x < -most ? -most : x;
    x = x > most ? most : x;
    const V n = (x * T(1.4426950408889634) + F::shift) - F::shift;
    const V r = (x - n * F::high) - n * F::low;
    V sum = V{} + T(1);
#pragma GCC unroll 16
    for (int k = F::order; k > 0; --k) sum = sum * r * (T(1) / T(k)) + T(1);
    const Ints power = (__builtin_convertvector(n, Ints) + F::bias) << F::bits;
    V scale;
    std::memcpy(&scale, &power, B);
    return sum * scale;
  }
}

template <class T, int B, int N>
inline Row<T, B, N> sigmoid(const Row<T, B, N>& x) {
  Row<T, B, N> s;
  for (int i = 0; i < N; ++i) s.v[i] = T(1) / (T(1) + exponential<T, B>(-x.v[i]));
  return s;
}
