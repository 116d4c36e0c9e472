// Sums over neighbours of features x radial functions, as scalars and as vectors, and their first two derivatives.
//
//   out[i, c, a g] = sum over j of f[j, a g] k[c, g],   k[0] = r[p, 0],  k[c] = r[p, 1] s u[p, c]   c = 1, 2, 3; s: the direction's sign
//
// All derivatives are the same sums with the factors k or the features replaced: k bends by dk[0] = dr[0], dk[c] = dr[1] s u + r[1] s du.
#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include <ATen/Parallel.h>

#include "vector.h"

namespace radial_sums {
#ifdef __AVX512F__
constexpr int SUMMED_FEATURES = 4, GATHERED_FEATURES = 8;  // whose sums stay in registers
#else
constexpr int SUMMED_FEATURES = 1, GATHERED_FEATURES = 2;
#endif

template <class T>
struct Edges {
  int64_t atoms, pairs, slots, features, width;  // N, P, K, A, G
  const int64_t *sender, *pair, *first, *second;
  const T* sign;
  int64_t row() const { return features * width; }
};

// Radial functions and unit vectors, or their change; of a change either part may be missing.
template <class T>
struct Field {
  const T *r, *u, *dr = nullptr, *du = nullptr;
  bool bent = false;
};

// The four factors of one directed edge for the functions from g on.
template <class R, class T>
inline void factors(const Field<T>& q, int64_t width, int64_t pair, T sign, int64_t g, R (&k)[4]) {
  const int64_t at = 2 * pair * width + g;
  const T* u = q.u + 3 * pair;
  if (!q.bent || q.dr) {
    const T* r = q.bent ? q.dr : q.r;
    const R v = R::load(r + at + width);
    k[0] = R::load(r + at);
    for (int c = 0; c < 3; ++c) k[c + 1] = v.times(sign * u[c]);
  } else {
    for (auto& x : k) x = R::zero();
  }
  if (q.bent && q.du) {
    const R v = R::load(q.r + at + width);
    for (int c = 0; c < 3; ++c) k[c + 1].add(sign * q.du[3 * pair + c], v);
  }
}

// Features and what they are multiplied by.
template <class T>
struct Product {
  const T* f;
  Field<T> field;
};

// Calls work(number of features as a constant, first feature) until all are done.
template <int M, class F>
inline void over_features(int64_t features, F&& work) {
  int64_t a = 0;
  for (; a + M <= features; a += M) work(std::integral_constant<int, M>{}, a);
  for (; a < features; ++a) work(std::integral_constant<int, 1>{}, a);
}

// Sums at the receivers, (N, 4, A G).
template <class T, class R>
void sums(const Edges<T>& e, const std::vector<Product<T>>& products, T* out) {
  const int64_t width = e.width, row = e.row();
  at::parallel_for(0, e.atoms, 8, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      for (int64_t g = 0; g < width; g += R::channels)
        over_features<SUMMED_FEATURES>(e.features, [&](auto count, int64_t a) {
          constexpr int M = decltype(count)::value;
          R sum[M][4];
          for (auto& x : sum)
            for (auto& y : x) y = R::zero();
          for (int64_t slot = i * e.slots; slot < (i + 1) * e.slots; ++slot) {
            if (e.sign[slot] == T(0)) continue;
            for (const auto& p : products) {
              R k[4];
              factors<R>(p.field, width, e.pair[slot], e.sign[slot], g, k);
              const T* f = p.f + e.sender[slot] * row + a * width + g;
              for (int m = 0; m < M; ++m) {
                const R x = R::load(f + m * width);
                for (int c = 0; c < 4; ++c) sum[m][c].add(x, k[c]);
              }
            }
          }
          T* to = out + 4 * row * i + a * width + g;
          for (int m = 0; m < M; ++m)
            for (int c = 0; c < 4; ++c) sum[m][c].store(to + c * row + m * width);
        });
  });
}

// Gradients by the features of the senders, (N, A G), from those by the sums.
template <class T, class R>
void by_features(const Edges<T>& e, const std::vector<Field<T>>& fields, const T* from, T* out) {
  const int64_t width = e.width, row = e.row();
  at::parallel_for(0, e.atoms, 8, [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; ++j)
      for (int64_t g = 0; g < width; g += R::channels)
        over_features<GATHERED_FEATURES>(e.features, [&](auto count, int64_t a) {
          constexpr int M = decltype(count)::value;
          R sum[M];
          for (auto& x : sum) x = R::zero();
          for (int64_t slot = j * e.slots; slot < (j + 1) * e.slots; ++slot) {
            if (e.sign[slot] == T(0)) continue;
            const T* given = from + 4 * row * e.sender[slot] + a * width + g;  // the opposite edge, along which j sends
            for (const auto& field : fields) {
              R k[4];
              factors<R>(field, width, e.pair[slot], -e.sign[slot], g, k);
              for (int c = 0; c < 4; ++c)
                for (int m = 0; m < M; ++m) sum[m].add(k[c], R::load(given + c * row + m * width));
            }
          }
          for (int m = 0; m < M; ++m) sum[m].store(out + row * j + (a + m) * width + g);
        });
  });
}

// Features times what arrives at the sums of a pair's two atoms, over the features: what the pair's factors k, without sign, get.
template <class R, class T>
inline void at_factors(const Edges<T>& e, const T* f, const T* from, int64_t p, int64_t g, R (&k)[4]) {
  const int64_t row = e.row(), i = e.first[p], j = e.second[p];
  R there[4], back[4];
  for (int c = 0; c < 4; ++c) there[c] = R::zero(), back[c] = R::zero();
  for (int64_t at = g; at < row; at += e.width) {
    const R a = R::load(f + i * row + at), b = R::load(f + j * row + at);
    for (int c = 0; c < 4; ++c) {
      there[c].add(a, R::load(from + (4 * j + c) * row + at));
      back[c].add(b, R::load(from + (4 * i + c) * row + at));
    }
  }
  k[0] = there[0];
  k[0].add(back[0]);
  for (int c = 1; c < 4; ++c) {
    k[c] = there[c];
    k[c].add(T(-1), back[c]);
  }
}

// Gradients by the radial functions (P, 2, G) and by the unit vectors (P, 3). `f` multiplies `bent`, and `v` the plain factors (or
// `bent` is plain, and there is no v).
template <class T, class R>
void by_pairs(const Edges<T>& e, const T* f, const T* v, const Field<T>& q, const T* from, T* out_radial, T* out_unit) {
  const int64_t width = e.width;
  const T *r_of_f = q.bent ? q.dr : q.r, *u_of_f = q.bent ? q.du : q.u;
  at::parallel_for(0, e.pairs, 16, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      T* unit = out_unit + 3 * p;
      std::fill_n(unit, 3, T(0));
      for (int64_t g = 0; g < width; g += R::channels) {
        R scalar = R::zero(), vector = R::zero();
        const auto take = [&](const T* features, const T* r, const T* u, bool with_scalar) {
          R k[4];
          at_factors<R>(e, features, from, p, g, k);
          if (with_scalar) scalar.add(k[0]);
          const R functions = r ? R::load(r + (2 * p + 1) * width + g) : R::zero();
          for (int c = 0; c < 3; ++c) {
            if (u) vector.add(u[3 * p + c], k[c + 1]);
            if (r) unit[c] += k[c + 1].times(functions).total();
          }
        };
        if (r_of_f || u_of_f) take(f, r_of_f, u_of_f, !q.bent);
        if (v) take(v, q.r, q.u, true);
        scalar.store(out_radial + 2 * width * p + g), vector.store(out_radial + 2 * width * p + width + g);
      }
    }
  });
}
}  // namespace radial_sums
