// A layer of edge-gated messages, a few edges at a time from gates to features, and its first two derivatives.
//
//   m = z + send[source] + take[target], s = weight sigmoid(m)
//   sums[target] = (sum of s value[source], sum of s), y' = y + silu(norm(m))
//
// z = y matrix^T + bias, row by row of the edges; or y and z stand side by side in rows that several edges share (`place`).
// Nothing as long as the edges is kept but y and y': m is computed anew in each derivative, while its block is in the cache.
// `nodes` holds send, take and value side by side.
#pragma once
#include <cmath>
#include <cstdint>

#include "linear.h"
#include "sigmoid.h"

namespace layers {
constexpr double EPS = 1e-5;
constexpr int64_t BLOCK = 48;  // edges at a time

// Layer norm of one row in registers, its slope's projection, and SiLU's derivatives.
template <class R, class T>
struct Normed {
  R n;
  T inverse;
  explicit Normed(const R& x) {
    const T mean = x.total() / T(R::channels);
    n = x;
    for (auto& v : n.v) v -= mean;
    inverse = T(1) / std::sqrt(n.times(n).total() / T(R::channels) + T(EPS));
    n = n.times(inverse);
  }
  R project(const R& u) const {  // inverse (u - mean(u) - n mean(u n))
    const T mean = u.total() / T(R::channels), along = u.times(n).total() / T(R::channels);
    R to;
    for (size_t k = 0; k < std::size(to.v); ++k) to.v[k] = inverse * (u.v[k] - mean - along * n.v[k]);
    return to;
  }
};

template <class T>
struct Layer {
  int64_t c;
  bool joined;  // rows of `in` hold y and z
  const T *in, *bias, *nodes, *weight, *norm_weight, *norm_bias, *forward, *backward;  // the last two: the matrix, packed
  const int64_t *source, *target, *place;
  const char* fresh;  // whether an edge is the first with its place

  const T* send(const T* x, int64_t e) const { return x + source[e] * 3 * c; }
  const T* take(const T* x, int64_t e) const { return x + target[e] * 3 * c + c; }
  const T* value(const T* x, int64_t e) const { return x + source[e] * 3 * c + 2 * c; }
  const T* features(const T* rows, int64_t e) const { return joined ? rows + place[e] * 2 * c : rows + e * c; }
  // What rows like y, or like (y, z), bring to the gates of n edges from e on, without the bias.
  void gates(const T* rows, int64_t e, int64_t n, T* to) const {
    if (!joined) return map_block<T>(n, rows + e * c, c, forward, c, to, T(1));
    for (int64_t i = 0; i < n; ++i) std::copy_n(rows + place[e + i] * 2 * c + c, c, to + i * c);
  }
  template <class R>
  R before(const T* z, int64_t e) const {
    R m = R::load(z);
    if (!joined) m.add(R::load(bias));
    m.add(R::load(send(nodes, e)));
    m.add(R::load(take(nodes, e)));
    return m;
  }
  template <class R>
  R affine(const R& n) const {
    R a = R::load(norm_bias);
    a.add(n, R::load(norm_weight));
    return a;
  }
  // Adds to a row that edges share; the first of them sets it.
  template <class R>
  void put(const R& d, int64_t e, T* rows, int64_t column) const {
    T* to = rows + place[e] * 2 * c + column;
    if (fresh[e])
      d.store(to);
    else
      d.add_to(to);
  }
  // to (c, c) += sum over n rows of a^T b
  void outer(const T* a, const T* b, int64_t n, T* to) const {
    for (int64_t column = 0; column < c; column += PANEL<T>)
      for (int64_t row = 0; row < c; row += TALL) {
        Tile<T> tile;
        tile.rows = int(std::min<int64_t>(TALL, c - row));
        for (int t = 0; t < tile.rows; ++t) tile.from[t] = a + row + t, tile.to[t] = to + (row + t) * c + column;
        multiply(tile, n, c, b + column, c, T(1), false, c - column);
      }
  }
};

// Sums over edges of what belongs to the parameters: (c, c), then three rows; or nothing.
template <class T>
struct Shares {
  T *matrix, *bias, *norm_weight, *norm_bias;
  Shares(T* at, int64_t c) : matrix(at), bias(at + c * c), norm_weight(bias + c), norm_bias(norm_weight + c) {}
};

template <class T, class R>
void forward(const Layer<T>& x, int64_t begin, int64_t end, T* sums, T* kept) {
  const int64_t c = x.c;
  Scratch<T> z(BLOCK * c);
  for (int64_t first = begin; first < end; first += BLOCK) {
    const int64_t n = std::min(BLOCK, end - first);
    x.gates(x.in, first, n, z.data());
    for (int64_t e = first; e < first + n; ++e) {
      const R m = x.template before<R>(z.data() + (e - first) * c, e), s = sigmoid(m).times(x.weight[e]);
      T* row = sums + x.target[e] * 2 * c;
      s.times(R::load(x.value(x.nodes, e))).add_to(row);
      s.add_to(row + c);
      if (!kept) continue;
      const R a = x.affine(Normed<R, T>(m).n);
      R y = R::load(x.features(x.in, e));
      y.add(a, sigmoid(a));
      y.store(kept + e * c);
    }
  }
}

template <class T>
struct AdjointTo {
  T *in, *nodes, *weight, *shares;  // shares: null if not wanted
};

template <class T, class R>
void adjoint(const Layer<T>& x, const T* g, const T* g_kept, int64_t begin, int64_t end, const AdjointTo<T>& to) {
  const int64_t c = x.c;
  const Shares<T> shares(to.shares, c);
  Scratch<T> z(BLOCK * c);
  for (int64_t first = begin; first < end; first += BLOCK) {
    const int64_t n = std::min(BLOCK, end - first);
    x.gates(x.in, first, n, z.data());
    for (int64_t e = first; e < first + n; ++e) {
      T* own = z.data() + (e - first) * c;
      const R m = x.template before<R>(own, e), s = sigmoid(m), value = R::load(x.value(x.nodes, e));
      const T *row = g + x.target[e] * 2 * c, w = x.weight[e];
      const R g_sum = R::load(row), g_gate = R::load(row + c);
      R d, of_weight, of_value;
      for (size_t k = 0; k < std::size(d.v); ++k) {
        const auto by_gate = (g_sum.v[k] * value.v[k] + g_gate.v[k]) * s.v[k];
        d.v[k] = w * by_gate * (T(1) - s.v[k]);
        of_weight.v[k] = by_gate;
        of_value.v[k] = w * s.v[k] * g_sum.v[k];
      }
      of_value.add_to(const_cast<T*>(x.value(to.nodes, e)));
      to.weight[e] = of_weight.total();
      if (g_kept) {
        const Normed<R, T> norm(m);
        const R a = x.affine(norm.n), t = sigmoid(a);
        R u = R::load(g_kept + e * c);
        if (x.joined) x.put(u, e, to.in, 0);
        for (size_t k = 0; k < std::size(u.v); ++k) u.v[k] *= t.v[k] * (T(1) + a.v[k] * (T(1) - t.v[k]));
        if (to.shares) u.times(norm.n).add_to(shares.norm_weight), u.add_to(shares.norm_bias);
        d.add(norm.project(u.times(R::load(x.norm_weight))));
      }
      d.add_to(const_cast<T*>(x.send(to.nodes, e)));
      d.add_to(const_cast<T*>(x.take(to.nodes, e)));
      if (x.joined) {
        x.put(d, e, to.in, c);
        if (!g_kept) x.put(R::zero(), e, to.in, 0);
      } else if (to.shares)
        d.add_to(shares.bias);
      d.store(own);
    }
    if (x.joined) continue;
    map_block<T>(n, z.data(), c, x.backward, c, to.in + first * c, T(1));
    if (g_kept)
      for (int64_t k = first * c; k < (first + n) * c; ++k) to.in[k] += g_kept[k];
    if (to.shares) x.outer(z.data(), x.in + first * c, n, shares.matrix);
  }
}

template <class T>
struct Along {  // a direction of (in, nodes, weight); any may be missing
  const T *in, *nodes, *weight;
};

template <class T>
struct SecondTo {
  T *g, *g_kept, *in, *nodes, *weight, *shares;
};

// What the norm of one row adds to the gradients of <v, adjoint>: p is the direction of m, u the gradient by y'.
template <class T, class R>
void second_of_norm(const Layer<T>& x, const R& m, const R& p, const R& u, const Shares<T>& shares, R& d, R& d_p, R& of_kept) {
  const T width = T(R::channels);
  const Normed<R, T> norm(m);
  const R w = R::load(x.norm_weight), a = x.affine(norm.n), t = sigmoid(a), tangent = norm.project(p);
  R of_weight, of_bias, first, bent;
  for (size_t k = 0; k < std::size(a.v); ++k) {
    const auto rest = T(1) - t.v[k], slope = t.v[k] * (T(1) + a.v[k] * rest);
    const auto bend = t.v[k] * rest * (T(2) + a.v[k] * (rest - t.v[k]));
    of_kept.v[k] = slope * w.v[k] * tangent.v[k];
    of_bias.v[k] = u.v[k] * bend * w.v[k] * tangent.v[k];
    of_weight.v[k] = u.v[k] * slope * tangent.v[k] + of_bias.v[k] * norm.n.v[k];
    first.v[k] = u.v[k] * slope * w.v[k];
    bent.v[k] = of_bias.v[k] * w.v[k];
  }
  of_weight.add_to(shares.norm_weight), of_bias.add_to(shares.norm_bias);
  const T whole = norm.inverse * first.times(tangent).total() / width;
  bent.add(-norm.inverse * first.times(norm.n).total() / width, p);
  bent.add(-norm.inverse * p.times(norm.n).total() / width, first);
  d.add(norm.project(bent));
  d.add(-whole, norm.n);
  d_p.add(norm.project(first));
}

template <class T, class R>
void second(const Layer<T>& x, const T* g, const T* g_kept, const Along<T>& v, int64_t begin, int64_t end, const SecondTo<T>& to) {
  const int64_t c = x.c;
  const Shares<T> shares(to.shares, c);
  Scratch<T> z(BLOCK * c), along(BLOCK * c);
  if (!v.in) std::fill_n(along.data(), BLOCK * c, T(0));
  for (int64_t first = begin; first < end; first += BLOCK) {
    const int64_t n = std::min(BLOCK, end - first);
    x.gates(x.in, first, n, z.data());
    if (v.in) x.gates(v.in, first, n, along.data());
    else std::fill_n(along.data(), n * c, T(0));
    for (int64_t e = first; e < first + n; ++e) {
      T *own = z.data() + (e - first) * c, *ahead = along.data() + (e - first) * c;
      const R m = x.template before<R>(own, e), s = sigmoid(m), value = R::load(x.value(x.nodes, e));
      R p = R::load(ahead), q = R::zero();
      if (v.nodes) p.add(R::load(x.send(v.nodes, e))), p.add(R::load(x.take(v.nodes, e))), q = R::load(x.value(v.nodes, e));
      const T w = x.weight[e], u = v.weight ? v.weight[e] : T(0);
      const int64_t place = x.target[e] * 2 * c;
      const R g_sum = R::load(g + place), g_gate = R::load(g + place + c);
      R d, d_p, moved, by_sum, of_value, of_weight;
      for (size_t k = 0; k < std::size(d.v); ++k) {
        const auto slope = s.v[k] * (T(1) - s.v[k]), bend = slope * (T(1) - T(2) * s.v[k]);
        const auto by_gate = g_sum.v[k] * value.v[k] + g_gate.v[k], across = g_sum.v[k] * q.v[k];
        moved.v[k] = u * s.v[k] + w * slope * p.v[k];
        by_sum.v[k] = value.v[k] * moved.v[k] + w * s.v[k] * q.v[k];
        d.v[k] = by_gate * (u * slope + w * bend * p.v[k]) + across * w * slope;
        d_p.v[k] = w * slope * by_gate;
        of_value.v[k] = g_sum.v[k] * moved.v[k];
        of_weight.v[k] = by_gate * slope * p.v[k] + across * s.v[k];
      }
      by_sum.add_to(to.g + place);
      moved.add_to(to.g + place + c);
      of_value.add_to(const_cast<T*>(x.value(to.nodes, e)));
      to.weight[e] = of_weight.total();
      if (g_kept) {
        R of_kept;
        second_of_norm<T, R>(x, m, p, R::load(g_kept + e * c), shares, d, d_p, of_kept);
        if (v.in) of_kept.add(R::load(x.features(v.in, e)));
        of_kept.store(to.g_kept + e * c);
      }
      d.add_to(const_cast<T*>(x.send(to.nodes, e)));
      d.add_to(const_cast<T*>(x.take(to.nodes, e)));
      if (x.joined)
        x.put(d, e, to.in, c), x.put(R::zero(), e, to.in, 0);
      else
        d.add_to(shares.bias);
      d.store(own), d_p.store(ahead);
    }
    if (x.joined) continue;
    map_block<T>(n, z.data(), c, x.backward, c, to.in + first * c, T(1));
    x.outer(z.data(), x.in + first * c, n, shares.matrix);
    if (v.in) x.outer(along.data(), v.in + first * c, n, shares.matrix);
  }
}
}  // namespace layers
