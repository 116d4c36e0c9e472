// Steps that treat each atom's row alone: norms, gates, products of scalars and equivariant features. A step is its value and its
// adjoint; the derivative of the adjoint comes from both with dual numbers: d/dx (v . J(x)^T g) = d/de J(x + e v)^T g, and J v for g.
//
// Equivariant features lie degree after degree, 2l+1 rows of c channels each; "parts" are one tensor (N (2l+1), c) for each degree.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "dual.h"

namespace steps {
struct Shape {
  int64_t width;                                  // of the scalars
  std::vector<std::pair<int64_t, int64_t>> parts;  // rows and channels of each degree
  int64_t count() const {
    int64_t sum = 0;
    for (const auto& [m, c] : parts) sum += c;
    return sum;
  }
  int64_t size() const {
    int64_t sum = 0;
    for (const auto& [m, c] : parts) sum += m * c;
    return sum;
  }
  bool scalars() const { return !parts.empty() && parts[0].first == 1; }  // among the equivariant features
};

// Rows and columns that an atom has of a tensor.
struct Extent {
  int64_t rows, columns;
};
using Extents = std::vector<Extent>;

inline Extents of_parts(const Shape& s, Extents first, int64_t times) {
  for (const auto& [m, c] : s.parts) first.push_back({m, times * c});
  return first;
}

constexpr double LAYER = 1e-5;  // what layer norm adds to the variance

// Layer norm of the scalars; of the features: scalars' mean taken off, all divided by the root of their mean squared length.
//   rows: h (scalars, features).  parameters: weight and bias of the scalars, weight of the features' channels, bias of their scalars.
//   out: scalars, parts.
template <class T, bool D>
struct Norm {
  using In = std::vector<Given<T, D>>;
  using Out = std::vector<Wanted<T, D>>;
  using One = Number<T, sizeof(T), D>;
  static Extents rows(const Shape& s) { return {{1, s.width + s.size()}}; }
  static Extents out(const Shape& s) { return of_parts(s, {{1, s.width}}, 1); }
  static std::vector<int64_t> parameters(const Shape& s) {
    if (s.parts.empty()) return {s.width, s.width};
    if (!s.scalars()) return {s.width, s.width, s.count()};
    return {s.width, s.width, s.count(), s.parts[0].second};
  }

  struct Scalars {
    One mean, factor;
  };
  static Scalars scalars(const Shape& s, const Given<T, D>& h) {
    const T share = T(1) / T(s.width);
    const One mean = summed<T, D>(s.width, [&]<int B>(int64_t c, Bytes<B>) { return h.template at<B>(c); }) * share;
    const One variance = summed<T, D>(s.width, [&]<int B>(int64_t c, Bytes<B>) {
                           const auto x = h.template at<B>(c) - wide<T, B, D>(mean);
                           return x * x;
                         }) * share;
    return {mean, constant<T, D>(1) / root<T, sizeof(T)>(variance + constant<T, D>(T(LAYER)))};
  }
  // Feature c of degree k without the scalars' mean.
  template <int B>
  static Number<T, B, D> centred(const Shape& s, size_t k, const Given<T, D>& x, int64_t c, const One& mean) {
    const auto found = x.template at<B>(c);
    return !k && s.scalars() ? found - wide<T, B, D>(mean) : found;
  }
  static Scalars features(const Shape& s, const Given<T, D>& h, T softness) {
    One mean = constant<T, D>(0), squares = constant<T, D>(0);
    const auto v = h.from(s.width);
    if (s.scalars()) {
      const int64_t n = s.parts[0].second;
      mean = summed<T, D>(n, [&]<int B>(int64_t c, Bytes<B>) { return v.template at<B>(c); }) * (T(1) / T(n));
    }
    int64_t at = 0;
    for (size_t k = 0; k < s.parts.size(); ++k) {
      const int64_t n = s.parts[k].first * s.parts[k].second;
      squares = squares + summed<T, D>(n, [&]<int B>(int64_t c, Bytes<B>) {
                  const auto x = centred<B>(s, k, v.from(at), c, mean);
                  return x * x;
                });
      at += n;
    }
    squares = squares * (T(1) / T(s.count()));
    return {mean, constant<T, D>(1) / root<T, sizeof(T)>(squares + constant<T, D>(softness * softness))};
  }

  static void value(const Shape& s, T softness, const In& rows, const In& p, const Out& out) {
    const auto& h = rows[0];
    const auto [mean, factor] = scalars(s, h);
    columns<T>(s.width, [&]<int B>(int64_t c, Bytes<B>) {
      const auto x = (h.template at<B>(c) - wide<T, B, D>(mean)) * factor;
      out[0].template put<B>(c, x * p[0].template at<B>(c) + p[1].template at<B>(c));
    });
    if (s.parts.empty()) return;
    const auto [middle, scale] = features(s, h, softness);
    int64_t at = s.width, channel = 0;
    for (size_t k = 0; k < s.parts.size(); ++k) {
      const auto [m, n] = s.parts[k];
      for (int64_t r = 0; r < m; ++r, at += n)
        columns<T>(n, [&]<int B>(int64_t c, Bytes<B>) {
          auto x = centred<B>(s, k, h.from(at), c, middle) * scale * p[2].template at<B>(channel + c);
          if (!k && s.scalars()) x = x + p[3].template at<B>(c);
          out[1 + k].template put<B>(r * n + c, x);
        });
      channel += n;
    }
  }

  static void adjoint(const Shape& s, T softness, const In& g, const In& rows, const In& p, const Out& g_rows, const Out& g_p) {
    const auto& h = rows[0];
    const auto [mean, factor] = scalars(s, h);
    const auto normed = [&]<int B>(int64_t c, Bytes<B>) { return (h.template at<B>(c) - wide<T, B, D>(mean)) * factor; };
    const auto back = [&]<int B>(int64_t c, Bytes<B>) { return g[0].template at<B>(c) * p[0].template at<B>(c); };
    const T share = T(1) / T(s.width);
    const One plain = summed<T, D>(s.width, back) * share;
    const One along = summed<T, D>(s.width, [&](int64_t c, auto b) { return back(c, b) * normed(c, b); }) * share;
    columns<T>(s.width, [&]<int B>(int64_t c, Bytes<B> b) {
      const auto x = normed(c, b), from = g[0].template at<B>(c);
      g_p[0].template add<B>(c, from * x), g_p[1].template add<B>(c, from);
      g_rows[0].template put<B>(c, (back(c, b) - wide<T, B, D>(plain) - x * along) * factor);
    });
    if (!s.parts.empty()) features_adjoint(s, softness, g, h, p, g_rows[0], g_p);
  }

  static void features_adjoint(const Shape& s, T softness, const In& g, const Given<T, D>& h, const In& p, const Wanted<T, D>& g_h,
                               const Out& g_p) {
    const auto [mean, factor] = features(s, h, softness);
    One along = constant<T, D>(0), plain = constant<T, D>(0);
    int64_t at = s.width, channel = 0;
    for (size_t k = 0; k < s.parts.size(); ++k) {
      const auto [m, n] = s.parts[k];
      for (int64_t r = 0; r < m; ++r, at += n) {
        along = along + summed<T, D>(n, [&]<int B>(int64_t c, Bytes<B>) {
                  return g[1 + k].template at<B>(r * n + c) * p[2].template at<B>(channel + c) * centred<B>(s, k, h.from(at), c, mean);
                });
      }
      channel += n;
    }
    along = along * factor * factor * factor * (T(1) / T(s.count()));
    at = s.width, channel = 0;
    for (size_t k = 0; k < s.parts.size(); ++k) {
      const auto [m, n] = s.parts[k];
      const auto back = [&]<int B>(int64_t r, int64_t c, int64_t from, Bytes<B>) {
        return g[1 + k].template at<B>(r * n + c) * p[2].template at<B>(channel + c) * factor - centred<B>(s, k, h.from(from), c, mean) * along;
      };
      if (!k && s.scalars()) plain = summed<T, D>(n, [&](int64_t c, auto b) { return back(0, c, at, b); }) * (T(1) / T(n));
      for (int64_t r = 0; r < m; ++r, at += n)
        columns<T>(n, [&]<int B>(int64_t c, Bytes<B> b) {
          const auto from = g[1 + k].template at<B>(r * n + c);
          auto x = back(r, c, at, b);
          g_p[2].template add<B>(channel + c, from * centred<B>(s, k, h.from(at), c, mean) * factor);
          if (!k && s.scalars()) g_p[3].template add<B>(c, from), x = x - wide<T, B, D>(plain);
          g_h.template put<B>(at + c, x);
        });
      channel += n;
    }
  }
};

// Features times gates of their channels, behind other columns.
//   rows: net (width columns, gates), parts.  out: the columns, gated features.
template <class T, bool D>
struct Gate {
  using In = std::vector<Given<T, D>>;
  using Out = std::vector<Wanted<T, D>>;
  static Extents rows(const Shape& s) { return of_parts(s, {{1, s.width + s.count()}}, 1); }
  static Extents out(const Shape& s) { return {{1, s.width + s.size()}}; }
  static std::vector<int64_t> parameters(const Shape&) { return {}; }

  static void value(const Shape& s, T, const In& rows, const In&, const Out& out) {
    columns<T>(s.width, [&]<int B>(int64_t c, Bytes<B>) { out[0].template put<B>(c, rows[0].template at<B>(c)); });
    int64_t at = s.width, gate = s.width;
    for (size_t k = 0; k < s.parts.size(); ++k) {
      const auto [m, n] = s.parts[k];
      for (int64_t r = 0; r < m; ++r, at += n)
        columns<T>(n, [&]<int B>(int64_t c, Bytes<B>) {
          out[0].template put<B>(at + c, rows[1 + k].template at<B>(r * n + c) * rows[0].template at<B>(gate + c));
        });
      gate += n;
    }
  }

  static void adjoint(const Shape& s, T, const In& g, const In& rows, const In&, const Out& g_rows, const Out&) {
    columns<T>(s.width, [&]<int B>(int64_t c, Bytes<B>) { g_rows[0].template put<B>(c, g[0].template at<B>(c)); });
    int64_t at = s.width, gate = s.width;
    for (size_t k = 0; k < s.parts.size(); ++k) {
      const auto [m, n] = s.parts[k];
      columns<T>(n, [&]<int B>(int64_t c, Bytes<B>) {
        const auto by = rows[0].template at<B>(gate + c);
        Number<T, B, D> sum{};
        for (int64_t r = 0; r < m; ++r) {
          const auto from = g[0].template at<B>(at + r * n + c);
          sum = sum + from * rows[1 + k].template at<B>(r * n + c);
          g_rows[1 + k].template put<B>(r * n + c, from * by);
        }
        g_rows[0].template put<B>(gate + c, sum);
      });
      at += m * n, gate += n;
    }
  }
};
}  // namespace steps
