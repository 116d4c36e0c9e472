// Adjoint of the edge product, and the adjoint's gradient. Edges of an atom that go the same way are walked through two at
// a time, so that its outer products are read, and its sums written, half as often.
#pragma once
#include "edge_product.h"

template <class T>
struct EdgeGradients {  // by radial weights (pairs), features (one copy per thread), harmonics (pairs); null: not wanted
  T *weights, *features, *harmonics;
};

// Directions: what arrives at the adjoint's outputs. Null where nothing arrives.
template <class T>
struct Directions {
  const T *weights, *features, *harmonics;
};

template <class T>
struct Edge {  // one directed edge at one block of channels
  int64_t slot;
  const T *y, *u, *w, *h, *v_w, *v_h;
  T *g_w, *rows;  // rows null: the gradient by features is not wanted
};

// Adds each harmonic's gradient over the channels of a row: as vectors to `lanes`, or as single numbers to `sums`.
template <class T, class R>
inline void gather_harmonic(const R& x, T* lanes, T* sums, int i) {
  if constexpr (R::channels >= LANES<T>)
    x.folded().store(lanes + i * LANES<T>);
  else
    sums[i] += x.total();
}

template <class R, class T>
inline void store_weight(const R& x, T* to, bool fresh) {
  if (fresh)
    x.store(to);
  else
    x.add_to(to);
}

// Calls visit(first edge, E as a type) for the edges of one atom and pass, two by two, then the one that is left.
template <int E, class F>
inline void in_groups(int64_t n, F&& visit) {
  int64_t i = 0;
  if constexpr (E > 1)
    for (; i + E <= n; i += E) visit(i, std::integral_constant<int, E>{});
  for (; i < n; ++i) visit(i, std::integral_constant<int, 1>{});
}

// Adds the rows of one edge's gradient by features to the thread's own sum.
template <class T, class R>
inline void add_rows(const T* rows, T* to, int64_t n, int64_t channels) {
  for (int64_t f = 0; f < n; ++f) R::load(rows + f * R::channels).add_to(to + f * channels);
}

// Writes, or adds to, the gradient by a pair's harmonics.
template <class T>
inline void add_harmonics(const T* g, T* turned, T sign, const T* parity, T* to, int64_t n, bool fresh) {
  direct(turned, g, sign, parity, n);
  for (int64_t i = 0; i < n; ++i) to[i] = fresh ? turned[i] : to[i] + turned[i];
}

// Sorts out the edges of an atom that are visited at a time.
template <class T>
inline void edges_of(const Edges<T>& e, const Tour& tour, int64_t atom, bool late, Thread<T>& mine) {
  mine.fresh.clear(), mine.more.clear();
  for (int64_t slot = atom * e.slots; slot < atom * e.slots + e.degree[atom]; ++slot) {
    if (e.sign[slot] == T(0)) continue;
    const auto turn = tour.turn(atom, e.sender[slot], e.sign[slot] > T(0));
    if (turn.late == late) (turn.fresh ? mine.fresh : mine.more).push_back(slot);
  }
}

// ---- adjoint -------------------------------------------------------------------------------------------------

template <class T, class R, int L, bool H, int E>
inline void adjoint_rows(const Path& p, const Edge<T>* e, int64_t channels, const T* z, bool fresh, R (&g_y)[2 * L + 1]) {
  R weight[E], g_weight[E];
  for (int i = 0; i < E; ++i) weight[i] = R::load(e[i].w + p.weight * channels), g_weight[i] = R::zero();
  const int width = 2 * p.feature + 1;
  for (int m1 = 0; m1 < width; ++m1) {
    const int f = p.first + m1;
    R feature[E], x[E], g[E];
    for (int i = 0; i < E; ++i) {
      feature[i] = R::load(e[i].h + f * channels), g[i] = R::zero();
      if constexpr (H) x[i] = weight[i].times(feature[i]);
    }
    for (int m2 = 0; m2 <= 2 * L; ++m2) {
      const R from = R::load(z + int64_t(p.row + m2 * width + m1) * R::channels);
      for (int i = 0; i < E; ++i) g[i].add(e[i].y[L * L + m2], from);
      if constexpr (H) g_y[m2].add(x[0], from);
    }
    for (int i = 0; i < E; ++i) {
      g_weight[i].add(g[i], feature[i]);
      if (e[i].rows) g[i].times(weight[i]).add_to(e[i].rows + f * R::channels);
    }
  }
  for (int i = 0; i < E; ++i) store_weight(g_weight[i], e[i].g_w + p.weight * channels, fresh);
}

template <class T, class R, bool H, int E, int L = 0>
inline void adjoint_all(const EdgePlan& plan, int q, const Edge<T>* e, int64_t channels, const T* z, bool fresh, T* lanes, T* sums) {
  R g_y[2 * L + 1];
  if constexpr (H)
    for (int m = 0; m <= 2 * L; ++m) g_y[m] = R::zero();
  const int before = q;
  for (; q < plan.n_paths && plan.paths[q].harmonic == L; ++q) adjoint_rows<T, R, L, H, E>(plan.paths[q], e, channels, z, fresh, g_y);
  if constexpr (H)
    if (q > before)
      for (int m = 0; m <= 2 * L; ++m) gather_harmonic(g_y[m], lanes, sums, L * L + m);
  if constexpr (L < MOST_DEGREE)
    if (q < plan.n_paths) adjoint_all<T, R, H, E, L + 1>(plan, q, e, channels, z, fresh, lanes, sums);
}

// ---- second order --------------------------------------------------------------------------------------------

template <class T, class R, int L, bool H, int E>
inline void second_rows(const Path& p, const Edge<T>* e, int64_t channels, const T* z, T* g_z, bool fresh, R (&g_y)[2 * L + 1]) {
  R weight[E], d_weight[E], g_weight[E];
  for (int i = 0; i < E; ++i) {
    weight[i] = R::load(e[i].w + p.weight * channels), g_weight[i] = R::zero();
    d_weight[i] = e[i].v_w ? R::load(e[i].v_w + p.weight * channels) : R::zero();
  }
  const int width = 2 * p.feature + 1;
  for (int m1 = 0; m1 < width; ++m1) {
    const int f = p.first + m1;
    R x[E], dx[E], g[E], dg[E];
    for (int i = 0; i < E; ++i) {
      const R feature = R::load(e[i].h + f * channels);
      x[i] = weight[i].times(feature), dx[i] = d_weight[i].times(feature);
      if (e[i].v_h) dx[i].add(weight[i], R::load(e[i].v_h + f * channels));
      g[i] = dg[i] = R::zero();
    }
    for (int m2 = 0; m2 <= 2 * L; ++m2) {
      const int64_t row = int64_t(p.row + m2 * width + m1) * R::channels;
      const R from = R::load(z + row);
      R to = R::load(g_z + row);
      for (int i = 0; i < E; ++i) {
        const T y = e[i].y[L * L + m2], u = e[i].u[L * L + m2];
        g[i].add(y, from);
        dg[i].add(u, from);
        to.add(u, x[i]);
        to.add(y, dx[i]);
      }
      to.store(g_z + row);
      if constexpr (H) g_y[m2].add(dx[0], from);
    }
    for (int i = 0; i < E; ++i) {
      g_weight[i].add(dg[i], R::load(e[i].h + f * channels));
      if (e[i].v_h) g_weight[i].add(g[i], R::load(e[i].v_h + f * channels));
      if (e[i].rows) {
        R g_feature = dg[i].times(weight[i]);
        g_feature.add(g[i], d_weight[i]);
        g_feature.add_to(e[i].rows + f * R::channels);
      }
    }
  }
  for (int i = 0; i < E; ++i) store_weight(g_weight[i], e[i].g_w + p.weight * channels, fresh);
}

template <class T, class R, bool H, int E, int L = 0>
inline void second_all(const EdgePlan& plan, int q, const Edge<T>* e, int64_t channels, const T* z, T* g_z, bool fresh, T* lanes, T* sums) {
  R g_y[2 * L + 1];
  if constexpr (H)
    for (int m = 0; m <= 2 * L; ++m) g_y[m] = R::zero();
  const int before = q;
  for (; q < plan.n_paths && plan.paths[q].harmonic == L; ++q) second_rows<T, R, L, H, E>(plan.paths[q], e, channels, z, g_z, fresh, g_y);
  if constexpr (H)
    if (q > before)
      for (int m = 0; m <= 2 * L; ++m) gather_harmonic(g_y[m], lanes, sums, L * L + m);
  if constexpr (L < MOST_DEGREE)
    if (q < plan.n_paths) second_all<T, R, H, E, L + 1>(plan, q, e, channels, z, g_z, fresh, lanes, sums);
}

// ---- both ----------------------------------------------------------------------------------------------------

// Walks through all edges. SECOND: the adjoint's gradient, where g_g takes that by g; else the adjoint.
template <class T, int N, bool H, bool SECOND>
void edge_gradients(const EdgePlan& plan, const Edges<T>& e, const Tour& tour, const Blocks<T>& g, const Directions<T>& v,
                    const Blocks<T>& g_g, const EdgeGradients<T>& out) {
  const int64_t C = e.channels, size = e.n_features * C, n_y = e.n_harmonics;
  const Thread<T> blank(plan, N * 64 / sizeof(T), e.n_features, n_y);
  each_part(tour, blank, [&](int64_t n, bool late, Thread<T>& mine, int64_t copy) {
    edges_of(e, tour, n, late, mine);
    if ((!SECOND || late) && mine.fresh.empty() && mine.more.empty()) return;
    T* sum = out.features ? out.features + copy * e.atoms * size : nullptr;
    over_channels<T, N>(C, [&](auto shape, int64_t c) {
      using R = decltype(shape);
      uncouple<T, R>(plan, mine.outer.data(), g, n, c, C);
      if constexpr (SECOND) std::fill_n(mine.second.data(), plan.n_outer * R::channels, T(0));
      const auto walk = [&](const std::vector<int64_t>& slots, bool fresh) {
        in_groups<H ? 1 : 2>(int64_t(slots.size()), [&](int64_t first, auto count) {
          constexpr int E = decltype(count)::value;
          Edge<T> edges[E];
          for (int i = 0; i < E; ++i) {
            if (first + E + i < int64_t(slots.size())) {
              const int64_t next = slots[first + E + i], at = e.pair[next] * e.n_weights * C + c;
              fetch_edge<R>(e, next, c);
              fetch<R>(out.weights + at, e.n_weights, C);
              if (SECOND && v.weights) fetch<R>(v.weights + at, e.n_weights, C);
            }
            const int64_t slot = slots[first + i], p = e.pair[slot], s = e.sender[slot], at = p * e.n_weights * C + c;
            T *y = mine.y.data() + i * n_y, *u = mine.u.data() + i * n_y;
            T* rows = sum ? mine.rows.data() + i * e.n_features * R::channels : nullptr;
            direct(y, e.harmonics + p * n_y, e.sign[slot], mine.parity.data(), n_y);
            if (SECOND && v.harmonics) direct(u, v.harmonics + p * n_y, e.sign[slot], mine.parity.data(), n_y);
            if (rows) std::fill_n(rows, e.n_features * R::channels, T(0));
            edges[i] = {slot, y, u, e.weights + at, e.features + s * size + c, v.weights ? v.weights + at : nullptr,
                        v.features ? v.features + s * size + c : nullptr, out.weights + at, rows};
          }
          T *g_y = mine.g_y.data(), *lanes = mine.lanes.data();
          if (H && R::channels < LANES<T>) std::fill_n(g_y, n_y, T(0));
          if constexpr (SECOND)
            second_all<T, R, H, E>(plan, 0, edges, C, mine.outer.data(), mine.second.data(), fresh, lanes, g_y);
          else
            adjoint_all<T, R, H, E>(plan, 0, edges, C, mine.outer.data(), fresh, lanes, g_y);
          for (int i = 0; i < E; ++i)
            if (edges[i].rows) add_rows<T, R>(edges[i].rows, sum + e.sender[edges[i].slot] * size + c, e.n_features, C);
          if constexpr (H) {
            if constexpr (R::channels >= LANES<T>) total_lanes<T>(lanes, g_y, n_y);
            const int64_t slot = edges[0].slot;
            add_harmonics(g_y, mine.sent.data(), e.sign[slot], mine.parity.data(), out.harmonics + e.pair[slot] * n_y, n_y, fresh && !c);
          }
        });
      };
      walk(mine.fresh, true);
      walk(mine.more, false);
      if constexpr (SECOND) couple<T, R>(plan, mine.second.data(), g_g, n, c, C, !late);
    });
  });
}
