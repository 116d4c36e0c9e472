// Sums over neighbours of features of the senders, weights of the pairs and harmonics, and their derivatives.
//
//   scalars        out[i, k] += a[j, k] w[p, k]
//   of a degree l  out[i, m, k] += c[j, k] w''[p, k] Y[p, m] (-1 if l is odd and the edge runs against its pair)
//                               + x[j, m, k] w'[p, k]
//
// A row of features is a, c of each degree, and, if there are states, x (2l+1, channels) of each degree; of weights: w, w'' of each
// degree, and w' of each; of sums: scalars, (2l+1, channels) of each degree. With dual numbers the same loops give directional derivatives.
#pragma once
#include <ATen/Parallel.h>

#include <algorithm>
#include <vector>

#include "dual.h"

namespace neighbour_sums {
constexpr int HIGHEST = 9;  // rows of the highest degree, l = 4
constexpr int64_t NONE = -1;

// First columns of what belongs to a degree; NONE: not there. Scalars are a degree with x alone.
struct Degree {
  int64_t rows, channels, c, x, w, u, out, y;
  bool odd;
};

struct Layout {
  std::vector<Degree> degrees;
  int64_t features, weights, out, harmonics = 0;
  Layout(int64_t width, bool state, const std::vector<std::pair<int64_t, int64_t>>& parts) : features(width), weights(width), out(width) {
    if (width) degrees.push_back({1, width, NONE, 0, NONE, 0, 0, NONE, false});
    for (const auto& [l, c] : parts) {
      degrees.push_back({2 * l + 1, c, features, NONE, weights, NONE, out, l * l, l % 2 == 1});
      features += c, weights += c, out += (2 * l + 1) * c, harmonics = std::max(harmonics, (l + 1) * (l + 1));
    }
    if (state)
      for (auto& d : degrees)
        if (d.c != NONE) d.x = features, d.u = weights, features += d.rows * d.channels, weights += d.channels;
  }
};

// Rows of atoms or pairs, with their directions.
template <class T, bool D>
struct Table {
  const T *a, *b;
  int64_t columns;
  Given<T, D> row(int64_t i) const { return {a + i * columns, D ? b + i * columns : nullptr}; }
};

template <class T, bool D>
struct Edges {
  const Layout& layout;
  int64_t atoms, pairs, slots;
  const int64_t *sender, *pair, *first, *second;
  const T* sign;
  Table<T, D> f, w, y;
};

// The harmonics of an edge; `sign` is that of its direction.
template <class T, bool D, int M>
struct Harmonics {
  Number<T, sizeof(T), D> h[M ? M : HIGHEST];
  Harmonics(const Degree& d, const Given<T, D>& y, T sign) {
    if (d.y == NONE) return;
    const T s = d.odd ? sign : T(1);
    for (int m = 0; m < (M ? M : d.rows); ++m) h[m] = y.template full<sizeof(T)>(d.y + m) * s;
  }
};

// Calls work(Bytes<B>, N, c) for blocks of N vectors of channels, then of one, then for single channels.
template <class T, int N, class F>
inline void channel_blocks(int64_t n, F&& work) {
  int64_t c = 0;
  for (; c + N * LANES<T> <= n; c += N * LANES<T>) work(Bytes<64>{}, std::integral_constant<int, N>{}, c);
  if constexpr (N > 1)
    for (; c + LANES<T> <= n; c += LANES<T>) work(Bytes<64>{}, std::integral_constant<int, 1>{}, c);
  for (; c < n; ++c) work(Bytes<sizeof(T)>{}, std::integral_constant<int, 1>{}, c);
}
template <class T, int B>
constexpr int64_t WIDE = B / int64_t(sizeof(T));

template <class T, bool D, int M, int B, int N>
inline void block_sums(const Edges<T, D>& e, const Degree& d, int64_t i, int64_t c, T* out) {
  constexpr int MOST = M ? M : HIGHEST;
  const int rows = M ? M : int(d.rows);
  Number<T, B, D> sum[MOST][N] = {};
  for (int64_t k = i * e.slots; k < (i + 1) * e.slots; ++k) {
    if (e.sign[k] == T(0)) continue;
    const auto f = e.f.row(e.sender[k]), w = e.w.row(e.pair[k]);
    const Harmonics<T, D, M> y(d, e.y.row(e.pair[k]), e.sign[k]);
    for (int v = 0; v < N; ++v) {
      const int64_t at = c + v * WIDE<T, B>;
      if (d.c != NONE) {
        const auto edge = f.template full<B>(d.c + at) * w.template full<B>(d.w + at);
        for (int m = 0; m < rows; ++m) sum[m][v] = sum[m][v] + edge * y.h[m];
      }
      if (d.x != NONE) {
        const auto by = w.template full<B>(d.u + at);
        for (int m = 0; m < rows; ++m) sum[m][v] = sum[m][v] + f.template full<B>(d.x + m * d.channels + at) * by;
      }
    }
  }
  const Wanted<T, D> to{out};
  for (int m = 0; m < rows; ++m)
    for (int v = 0; v < N; ++v) to.template put<B>(d.out + m * d.channels + c + v * WIDE<T, B>, sum[m][v]);
}

// Gradients by the features of sender j; `g` holds those by the sums, one row for each atom.
template <class T, bool D, int M, int B, int N>
inline void block_features(const Edges<T, D>& e, const Degree& d, int64_t j, int64_t c, const T* g, T* out) {
  using V = typename Vector<T, B>::type;
  constexpr int MOST = M ? M : HIGHEST;
  const int rows = M ? M : int(d.rows);
  Number<T, B, D> by_c[N] = {}, by_x[MOST][N] = {};
  for (int64_t k = j * e.slots; k < (j + 1) * e.slots; ++k) {
    if (e.sign[k] == T(0)) continue;
    const T* from = g + e.sender[k] * e.layout.out + d.out + c;  // the opposite edge, along which j sends
    const auto w = e.w.row(e.pair[k]);
    const Harmonics<T, D, M> y(d, e.y.row(e.pair[k]), -e.sign[k]);
    for (int v = 0; v < N; ++v) {
      const int64_t at = c + v * WIDE<T, B>;
      V came[MOST];
      for (int m = 0; m < rows; ++m) came[m] = *reinterpret_cast<const typename Vector<T, B>::loose*>(from + m * d.channels + v * WIDE<T, B>);
      if (d.c != NONE) {
        Number<T, B, D> along{};
        for (int m = 0; m < rows; ++m) along = along + y.h[m] * came[m];
        by_c[v] = by_c[v] + along * w.template full<B>(d.w + at);
      }
      if (d.x != NONE) {
        const auto by = w.template full<B>(d.u + at);
        for (int m = 0; m < rows; ++m) by_x[m][v] = by_x[m][v] + by * came[m];
      }
    }
  }
  const Wanted<T, D> to{out};
  for (int v = 0; v < N; ++v) {
    const int64_t at = c + v * WIDE<T, B>;
    if (d.c != NONE) to.template put<B>(d.c + at, by_c[v]);
    for (int m = 0; d.x != NONE && m < rows; ++m) to.template put<B>(d.x + m * d.channels + at, by_x[m][v]);
  }
}

// Gradients by the weights of pair p and, unless `out_y` is null, by its harmonics.
template <class T, bool D, int M>
inline void pair_degree(const Edges<T, D>& e, const Degree& d, int64_t p, const T* g, T* out_w, T* out_y) {
  constexpr int MOST = M ? M : HIGHEST;
  const int rows = M ? M : int(d.rows);
  Number<T, 64, D> whole[MOST] = {};
  Number<T, sizeof(T), D> rest[MOST] = {};
  const auto w = e.w.row(p);
  const Wanted<T, D> to{out_w};
  const int64_t ends[2] = {e.first[p], e.second[p]};
  const Harmonics<T, D, M> along(d, e.y.row(p), T(1)), against(d, e.y.row(p), T(-1));
  channel_blocks<T, 1>(d.channels, [&]<int B, int N>(Bytes<B>, std::integral_constant<int, N>, int64_t c) {
    using V = typename Vector<T, B>::type;
    Number<T, B, D> by_w{}, by_u{};
    for (int way = 0; way < 2; ++way) {
      const auto f = e.f.row(ends[way]);
      const T* from = g + ends[1 - way] * e.layout.out + d.out + c;
      V came[MOST];
      for (int m = 0; m < rows; ++m) came[m] = *reinterpret_cast<const typename Vector<T, B>::loose*>(from + m * d.channels);
      if (d.c != NONE) {
        const auto& y = way ? against : along;
        const auto own = f.template full<B>(d.c + c);
        Number<T, B, D> sum{};
        for (int m = 0; m < rows; ++m) sum = sum + y.h[m] * came[m];
        by_w = by_w + own * sum;
        if (out_y) {
          const auto edge = own * w.template full<B>(d.w + c) * (way && d.odd ? T(-1) : T(1));
          for (int m = 0; m < rows; ++m) {
            if constexpr (B == 64)
              whole[m] = whole[m] + edge * came[m];
            else
              rest[m] = rest[m] + edge * came[m];
          }
        }
      }
      if (d.x != NONE)
        for (int m = 0; m < rows; ++m) by_u = by_u + f.template full<B>(d.x + m * d.channels + c) * came[m];
    }
    if (d.c != NONE) to.template put<B>(d.w + c, by_w);
    if (d.x != NONE) to.template put<B>(d.u + c, by_u);
  });
  if (!out_y || d.c == NONE) return;
  const Wanted<T, D> to_y{out_y};
  for (int m = 0; m < rows; ++m) to_y.template put<sizeof(T)>(d.y + m, rest[m] + folded<T, 64, D>(whole[m]));
}

// Calls work(degree, M) with M = 2l+1 up to l = 2, else 0.
template <class F>
inline void over_degrees(const Layout& layout, F&& work) {
  for (const auto& d : layout.degrees) {
    if (d.rows == 1) work(d, std::integral_constant<int, 1>{});
    else if (d.rows == 3) work(d, std::integral_constant<int, 3>{});
    else if (d.rows == 5) work(d, std::integral_constant<int, 5>{});
    else work(d, std::integral_constant<int, 0>{});
  }
}

// Sums at the receivers, (N, out).
template <class T, bool D>
void sums(const Edges<T, D>& e, T* out) {
  at::parallel_for(0, e.atoms, 4, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      over_degrees(e.layout, [&]<int M>(const Degree& d, std::integral_constant<int, M>) {
        channel_blocks<T, 2>(d.channels, [&]<int B, int N>(Bytes<B>, std::integral_constant<int, N>, int64_t c) {
          block_sums<T, D, M, B, N>(e, d, i, c, out + i * e.layout.out);
        });
      });
  });
}

// Gradients by the features of the senders, (N, features), from those by the sums, g.
template <class T, bool D>
void by_features(const Edges<T, D>& e, const T* g, T* out) {
  at::parallel_for(0, e.atoms, 4, [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; ++j)
      over_degrees(e.layout, [&]<int M>(const Degree& d, std::integral_constant<int, M>) {
        channel_blocks<T, 2>(d.channels, [&]<int B, int N>(Bytes<B>, std::integral_constant<int, N>, int64_t c) {
          block_features<T, D, M, B, N>(e, d, j, c, g, out + j * e.layout.features);
        });
      });
  });
}

// Gradients by the weights, (P, weights), and by the harmonics, (P, columns of y), unless `out_y` is null.
template <class T, bool D>
void by_pairs(const Edges<T, D>& e, const T* g, T* out_w, T* out_y) {
  at::parallel_for(0, e.pairs, 16, [&](int64_t begin, int64_t end) {
    if (out_y) std::fill(out_y + begin * e.y.columns, out_y + end * e.y.columns, T(0));
    for (int64_t p = begin; p < end; ++p)
      over_degrees(e.layout, [&]<int M>(const Degree& d, std::integral_constant<int, M>) {
        pair_degree<T, D, M>(e, d, p, g, out_w + p * e.layout.weights, out_y ? out_y + p * e.y.columns : nullptr);
      });
  });
}
}  // namespace neighbour_sums
