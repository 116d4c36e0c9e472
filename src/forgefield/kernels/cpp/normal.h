// The normal distribution on whole vectors: its cumulative function and density, to the last digits of the precision.
#pragma once
#include "sigmoid.h"

// Upper tail Q(x) = exp(-x^2 / 2) P(t) / (x + M) with t = (x - M) / (x + M) for x >= 0; the coefficients of P are those of its
// Chebyshev series, found with 50 digits.
template <class T>
struct Tail;
template <>
struct Tail<float> {
  static constexpr float middle = 4.5f;
  static constexpr float series[] = {0.763230533f,     -0.640257766f,  0.446452191f,     -0.253141632f,     0.111386465f,     -0.0338727017f,
                                     0.00420667617f, 0.00175370794f, -0.000883616948f, -2.21679253e-6f, 7.88959909e-5f, -8.25168695e-6f};
};
template <>
struct Tail<double> {
  static constexpr double middle = 4.5;
  static constexpr double series[] = {
      0.763230528970203151,     -0.640257760252617006,    0.446452517055673269,     -0.253141799950977611,    0.111382596570432227,
      -0.0338713261768355199,   0.00422361337679949326,   0.00174883056270414257,   -0.000917746477339223299, 6.38119722627660822e-6,
      0.000112042607192143562,  -0.0000159333285409162549, -0.0000142357123663851391, 3.19101486080364231e-6,  2.14267598050838015e-6,
      -5.01947627789602395e-7,  -3.79260719954665549e-7,  6.40433017783026091e-8,   7.06021286522291207e-8,   -4.76120266980759347e-9,
      -1.12512927247079965e-8,  -2.97638983380287907e-10, 1.04402520368199988e-9,   9.80638365158013416e-11};
};

template <class R>
struct Normal {
  R share, density;  // Phi(x), phi(x)
};

template <class T, int B, int N>
inline Normal<Row<T, B, N>> normal(const Row<T, B, N>& x) {
  using V = typename Vector<T, B>::type;
  using F = Tail<T>;
  constexpr int order = sizeof(F::series) / sizeof(T) - 1;
  Normal<Row<T, B, N>> found;
  for (int i = 0; i < N; ++i) {
    const V z = x.v[i], far = z < T(0) ? -z : z, part = T(1) / (far + F::middle), t = (far - F::middle) * part;
    V sum = V{} + F::series[order];
#pragma GCC unroll 32
    for (int k = order - 1; k >= 0; --k) sum = sum * t + F::series[k];
    const V bell = exponential<T, B>(far * far * T(-0.5)), tail = bell * sum * part;
    found.share.v[i] = z < T(0) ? tail : T(1) - tail;
    found.density.v[i] = bell * T(0.39894228040143267794);
  }
  return found;
}

// GELU, x Phi(x), with its first and second derivative; `known` is what all three need.
struct Gelu {
  template <class R>
  static auto known(const R& x) {
    return normal(x);
  }
  template <class R>
  static R value(const R& x, const Normal<R>& n) {
    return x.times(n.share);
  }
  template <class R>
  static R slope(const R& x, const Normal<R>& n) {
    R sum = n.share;
    sum.add(x, n.density);
    return sum;
  }
  template <class R>
  static R bend(const R& x, const Normal<R>& n) {
    R rest = n.density.times(2);
    rest.add(x.times(-1), x.times(n.density));
    return rest;
  }
};

// SiLU, x / (1 + exp(-x)), likewise.
struct Silu {
  template <class R>
  static R known(const R& x) {
    return sigmoid(x);
  }
  template <class R>
  static R value(const R& x, const R& s) {
    return x.times(s);
  }
  template <class R>
  static R slope(const R& x, const R& s) {
    R sum = s;
    sum.add(x, rate(s));
    return sum;
  }
  template <class R>
  static R bend(const R& x, const R& s) {
    const R change = rate(s);
    R sum = change.times(2), rest = x;
    rest.add(x.times(-2), s);
    sum.add(change, rest);
    return sum;
  }

 private:
  template <class R>
  static R rate(const R& s) {  // s (1 - s)
    R found = s;
    found.add(s.times(-1), s);
    return found;
  }
};
