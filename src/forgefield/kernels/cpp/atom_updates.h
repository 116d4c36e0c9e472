// The steps of an update of atoms: what goes into its network, and what comes of it. `mixed` are parts with 2c channels, U and V.
#pragma once
#include "atom_steps.h"

namespace steps {
// U or V (second = c) of channel c, with the bias of scalars.
template <class T, bool D, int B>
inline Number<T, B, D> mixed_at(const Shape& s, size_t k, int64_t r, int64_t c, bool second, const std::vector<Given<T, D>>& rows, size_t first,
                                const std::vector<Given<T, D>>& p) {
  const int64_t n = s.parts[k].second, column = (second ? n : 0) + c;
  const auto found = rows[first + k].template at<B>(2 * r * n + column);
  return !k && s.scalars() ? found + p[0].template at<B>(column) : found;
}

inline std::vector<int64_t> mixed_bias(const Shape& s) {
  return s.scalars() ? std::vector<int64_t>{2 * s.parts[0].second} : std::vector<int64_t>{};
}

//   rows: scalars, mixed.  parameters: bias of the mixed scalars.  out: scalars and lengths sqrt(V.V + e^2) - e; products U.V.
template <class T, bool D>
struct Products {
  using In = std::vector<Given<T, D>>;
  using Out = std::vector<Wanted<T, D>>;
  static Extents rows(const Shape& s) { return of_parts(s, {{1, s.width}}, 2); }
  static Extents out(const Shape& s) { return {{1, s.width + s.count()}, {1, s.count()}}; }
  static std::vector<int64_t> parameters(const Shape& s) { return mixed_bias(s); }

  static void value(const Shape& s, T softness, const In& rows, const In& p, const Out& out) {
    columns<T>(s.width, [&]<int B>(int64_t c, Bytes<B>) { out[0].template put<B>(c, rows[0].template at<B>(c)); });
    int64_t channel = 0;
    for (size_t k = 0; k < s.parts.size(); ++k) {
      const auto [m, n] = s.parts[k];
      columns<T>(n, [&]<int B>(int64_t c, Bytes<B>) {
        Number<T, B, D> dots{}, squares = wide<T, B, D>(constant<T, D>(softness * softness));
        for (int64_t r = 0; r < m; ++r) {
          const auto u = mixed_at<T, D, B>(s, k, r, c, false, rows, 1, p), v = mixed_at<T, D, B>(s, k, r, c, true, rows, 1, p);
          dots = dots + u * v, squares = squares + v * v;
        }
        out[0].template put<B>(s.width + channel + c, root<T, B>(squares) - wide<T, B, D>(constant<T, D>(softness)));
        out[1].template put<B>(channel + c, dots);
      });
      channel += n;
    }
  }

  static void adjoint(const Shape& s, T softness, const In& g, const In& rows, const In& p, const Out& g_rows, const Out& g_p) {
    columns<T>(s.width, [&]<int B>(int64_t c, Bytes<B>) { g_rows[0].template put<B>(c, g[0].template at<B>(c)); });
    int64_t channel = 0;
    for (size_t k = 0; k < s.parts.size(); ++k) {
      const auto [m, n] = s.parts[k];
      columns<T>(n, [&]<int B>(int64_t c, Bytes<B>) {
        auto squares = wide<T, B, D>(constant<T, D>(softness * softness));
        for (int64_t r = 0; r < m; ++r) {
          const auto v = mixed_at<T, D, B>(s, k, r, c, true, rows, 1, p);
          squares = squares + v * v;
        }
        const auto by_length = g[0].template at<B>(s.width + channel + c) / root<T, B>(squares), by_dot = g[1].template at<B>(channel + c);
        for (int64_t r = 0; r < m; ++r) {
          const auto u = mixed_at<T, D, B>(s, k, r, c, false, rows, 1, p), v = mixed_at<T, D, B>(s, k, r, c, true, rows, 1, p);
          const auto g_u = by_dot * v, g_v = by_dot * u + by_length * v;
          g_rows[1 + k].template put<B>(2 * r * n + c, g_u), g_rows[1 + k].template put<B>((2 * r + 1) * n + c, g_v);
          if (!k && s.scalars()) g_p[0].template add<B>(c, g_u), g_p[0].template add<B>(n + c, g_v);
        }
      });
      channel += n;
    }
  }
};

//   rows: h (scalars, features), net (b, c, gates), dotted (as wide as the scalars), mixed.  parameters: bias of the mixed scalars.
//   out: scalars + b dotted + c, features + U gates.
template <class T, bool D>
struct Update {
  using In = std::vector<Given<T, D>>;
  using Out = std::vector<Wanted<T, D>>;
  static Extents rows(const Shape& s) {
    return of_parts(s, {{1, s.width + s.size()}, {1, 2 * s.width + s.count()}, {1, s.width}}, 2);
  }
  static Extents out(const Shape& s) { return {{1, s.width + s.size()}}; }
  static std::vector<int64_t> parameters(const Shape& s) { return mixed_bias(s); }

  static void value(const Shape& s, T, const In& rows, const In& p, const Out& out) {
    const int64_t w = s.width;
    columns<T>(w, [&]<int B>(int64_t c, Bytes<B>) {
      out[0].template put<B>(c, rows[0].template at<B>(c) + rows[1].template at<B>(c) * rows[2].template at<B>(c) + rows[1].template at<B>(w + c));
    });
    int64_t at = w, gate = 2 * w;
    for (size_t k = 0; k < s.parts.size(); ++k) {
      const auto [m, n] = s.parts[k];
      for (int64_t r = 0; r < m; ++r, at += n)
        columns<T>(n, [&]<int B>(int64_t c, Bytes<B>) {
          const auto moved = mixed_at<T, D, B>(s, k, r, c, false, rows, 3, p) * rows[1].template at<B>(gate + c);
          out[0].template put<B>(at + c, rows[0].template at<B>(at + c) + moved);
        });
      gate += n;
    }
  }

  static void adjoint(const Shape& s, T, const In& g, const In& rows, const In& p, const Out& g_rows, const Out& g_p) {
    const int64_t w = s.width;
    columns<T>(w, [&]<int B>(int64_t c, Bytes<B>) {
      const auto from = g[0].template at<B>(c);
      g_rows[0].template put<B>(c, from), g_rows[1].template put<B>(w + c, from);
      g_rows[1].template put<B>(c, from * rows[2].template at<B>(c)), g_rows[2].template put<B>(c, from * rows[1].template at<B>(c));
    });
    int64_t at = w, gate = 2 * w;
    for (size_t k = 0; k < s.parts.size(); ++k) {
      const auto [m, n] = s.parts[k];
      columns<T>(n, [&]<int B>(int64_t c, Bytes<B>) {
        const auto by = rows[1].template at<B>(gate + c);
        Number<T, B, D> sum{};
        for (int64_t r = 0; r < m; ++r) {
          const auto from = g[0].template at<B>(at + r * n + c), back = from * by;
          sum = sum + from * mixed_at<T, D, B>(s, k, r, c, false, rows, 3, p);
          g_rows[0].template put<B>(at + r * n + c, from);
          g_rows[3 + k].template put<B>(2 * r * n + c, back), g_rows[3 + k].template put<B>((2 * r + 1) * n + c, Number<T, B, D>{});
          if (!k && s.scalars()) g_p[0].template add<B>(c, back);
        }
        g_rows[1].template put<B>(gate + c, sum);
      });
      at += m * n, gate += n;
    }
  }
};
}  // namespace steps
