// Sum over neighbours of radial weight x sender's feature x harmonic, coupled to all degrees: value, adjoint, second order.
// Receivers are split over the threads; each pair's two directed edges are visited in two passes, so no two threads
// write to one place and the result does not depend on timing.
#pragma once
#include <omp.h>

#include <algorithm>
#include <vector>

#include "vector.h"

constexpr int MOST_DEGREE = 6;
constexpr int64_t AHEAD = 1;  // edges between asking for memory and using it

struct Path {
  int32_t feature, first, harmonic, weight, row;  // degree and first row of the feature, degree of the harmonic, index of
                                                  // the radial weight, first row of the outer product
};
// The integer plan: [paths, outer rows, message rows, degrees of messages], paths (5 each, sorted by harmonic degree),
// per message row (degree, offset in units of C), then two sparse matrices as (start, column) lists.
struct EdgePlan {
  int n_paths, n_outer, n_rows, n_degrees, n_terms;
  const Path* paths;
  const int32_t *row_degree, *row_offset;
  const int32_t *couple_start, *couple_column, *uncouple_start, *uncouple_column;
  const double *couple_value, *uncouple_value;
  EdgePlan(const int32_t* p, const double* values) {
    n_paths = p[0], n_outer = p[1], n_rows = p[2], n_degrees = p[3], n_terms = p[4];
    p += 5;
    paths = reinterpret_cast<const Path*>(p), p += 5 * n_paths;
    row_degree = p, p += n_rows;
    row_offset = p, p += n_rows;
    couple_start = p, p += n_rows + 1;
    couple_column = p, p += n_terms;
    uncouple_start = p, p += n_outer + 1;
    uncouple_column = p;
    couple_value = values, uncouple_value = values + n_terms;
  }
};

template <class T>
struct Edges {
  int64_t atoms, slots, channels, n_weights, n_features, n_harmonics;  // per row of the tensors below
  const int64_t *sender, *pair, *degree;
  const T *sign, *weights, *features, *harmonics;
};

template <class T>
struct Blocks {  // per degree of the message: (atoms, rows of one atom, C)
  std::vector<T*> data;
  std::vector<int64_t> stride;
  T* at(const EdgePlan& plan, int row, int64_t atom, int64_t channels) const {
    const int d = plan.row_degree[row];
    return data[d] + (atom * stride[d] + plan.row_offset[row]) * channels;
  }
};

// Harmonics of one directed edge: odd degrees change sign with the direction.
template <class T>
inline void direct(T* out, const T* values, T sign, int64_t n) {
  int64_t i = 0;
  for (int l = 0; i < n; ++l)
    for (int m = 0; m <= 2 * l; ++m, ++i) out[i] = (l & 1) ? sign * values[i] : values[i];
}

// Couples an atom's sums of outer products to messages, stored or (not fresh) added.
template <class T, class R>
inline void couple(const EdgePlan& plan, const T* outer, const Blocks<T>& out, int64_t atom, int64_t c, int64_t channels,
                         bool fresh) {
  for (int r = 0; r < plan.n_rows; ++r) {
    R value = R::zero();
    for (int k = plan.couple_start[r]; k < plan.couple_start[r + 1]; ++k)
      value.add(T(plan.couple_value[k]), R::load(outer + int64_t(plan.couple_column[k]) * R::channels));
    T* to = out.at(plan, r, atom, channels) + c;
    if (fresh)
      value.store(to);
    else
      value.add_to(to);
  }
}

template <class T, class R>
void uncouple(const EdgePlan& plan, T* outer, const Blocks<T>& g, int64_t atom, int64_t c, int64_t channels) {
  for (int z = 0; z < plan.n_outer; ++z) {
    R sum = R::zero();
    for (int k = plan.uncouple_start[z]; k < plan.uncouple_start[z + 1]; ++k)
      sum.add(T(plan.uncouple_value[k]), R::load(g.at(plan, plan.uncouple_column[k], atom, channels) + c));
    sum.store(outer + int64_t(z) * R::channels);
  }
}

// Asks for the factors of a directed edge.
template <class R, class T>
inline void fetch_edge(const Edges<T>& e, int64_t slot, int64_t c) {
  fetch<R>(e.weights + e.pair[slot] * e.n_weights * e.channels + c, e.n_weights, e.channels);
  fetch<R>(e.features + e.sender[slot] * e.n_features * e.channels + c, e.n_features, e.channels);
  __builtin_prefetch(e.harmonics + e.pair[slot] * e.n_harmonics);
}

// ---- value ---------------------------------------------------------------------------------------------------

template <class T, class R, int E, int L>
inline void outer_rows(const Path& p, const T* const* y, const T* const* w, const T* const* h, int64_t channels, T* z) {
  R weight[E];
  for (int e = 0; e < E; ++e) weight[e] = R::load(w[e] + p.weight * channels);
  const int width = 2 * p.feature + 1;
  for (int m1 = 0; m1 < width; ++m1) {
    R x[E];
    for (int e = 0; e < E; ++e) x[e] = weight[e].times(R::load(h[e] + (p.first + m1) * channels));
    for (int m2 = 0; m2 <= 2 * L; ++m2) {
      T* to = z + int64_t(p.row + m2 * width + m1) * R::channels;
      R sum = R::load(to);
      for (int e = 0; e < E; ++e) sum.add(y[e][L * L + m2], x[e]);
      sum.store(to);
    }
  }
}

template <class T, class R, int E>
inline void outer_all(const EdgePlan& plan, const T* const* y, const T* const* w, const T* const* h, int64_t channels, T* z) {
  for (int q = 0; q < plan.n_paths; ++q) {
    const Path& p = plan.paths[q];
    switch (p.harmonic) {
      case 0: outer_rows<T, R, E, 0>(p, y, w, h, channels, z); break;
      case 1: outer_rows<T, R, E, 1>(p, y, w, h, channels, z); break;
      case 2: outer_rows<T, R, E, 2>(p, y, w, h, channels, z); break;
      case 3: outer_rows<T, R, E, 3>(p, y, w, h, channels, z); break;
      case 4: outer_rows<T, R, E, 4>(p, y, w, h, channels, z); break;
      case 5: outer_rows<T, R, E, 5>(p, y, w, h, channels, z); break;
      default: outer_rows<T, R, E, 6>(p, y, w, h, channels, z);
    }
  }
}

// The order in which receivers are visited, cut where no pair crosses: each island is one thread's own, from its first
// pass to its second. Without enough islands all threads share all atoms, with a barrier between the passes.
struct Tour {
  const int64_t* visit;
  int64_t atoms;
  std::vector<int64_t> start;  // of the islands
  Tour(const int64_t* visit_, const int64_t* sender, int64_t atoms_, int64_t slots, const int64_t* degree) : visit(visit_), atoms(atoms_) {
    std::vector<int64_t> place(atoms);
    for (int64_t k = 0; k < atoms; ++k) place[visit[k]] = k;
    int64_t reach = 0;  // furthest place that an atom seen so far is paired with
    for (int64_t k = 0; k < atoms; ++k) {
      if (k >= reach) start.push_back(k);
      reach = std::max(reach, k + 1);
      const int64_t* from = sender + visit[k] * slots;
      for (int64_t i = 0; i < degree[visit[k]]; ++i) reach = std::max(reach, place[from[i]] + 1);
    }
    start.push_back(atoms);
  }
  int64_t islands() const { return int64_t(start.size()) - 1; }
  bool enough() const { return islands() >= 2 * omp_get_max_threads(); }
};

// Calls work(atom, pass, scratch, copy) for every atom and both passes; `copy` says which sum by senders it may add to.
template <class S, class F>
void both_passes(const Tour& tour, const S& blank, F&& work) {
#pragma omp parallel
  {
    S scratch(blank);
    if (tour.enough()) {
#pragma omp for schedule(dynamic, 1)
      for (int64_t i = 0; i < tour.islands(); ++i)
        for (int pass = 0; pass < 2; ++pass)
          for (int64_t k = tour.start[i]; k < tour.start[i + 1]; ++k) work(tour.visit[k], pass, scratch, 0);
    } else {
      for (int pass = 0; pass < 2; ++pass) {
#pragma omp for schedule(static, 4)
        for (int64_t k = 0; k < tour.atoms; ++k) work(tour.visit[k], pass, scratch, omp_get_thread_num());
      }
    }
  }
}

template <class T>
struct Thread {  // scratch of one thread
  Scratch<T> outer, second, rows, y, u, g_y, sent;
  Thread(const EdgePlan& plan, int64_t row_size, int64_t n_features, int64_t n_harmonics)
      : outer(plan.n_outer * row_size), second(plan.n_outer * row_size), rows(n_features * row_size),
        y(4 * n_harmonics), u(n_harmonics), g_y(n_harmonics), sent(n_harmonics) {}
};

template <class T, int N>
void edge_value(const EdgePlan& plan, const Edges<T>& e, const Tour& tour, const Blocks<T>& out) {
  const int64_t C = e.channels;
#pragma omp parallel
  {
    Thread<T> mine(plan, N * 64 / sizeof(T), 0, e.n_harmonics);
#pragma omp for schedule(dynamic, 8)
    for (int64_t place = 0; place < e.atoms; ++place) {
      const int64_t n = tour.visit[place], first = n * e.slots, degree = e.degree[n];
      over_channels<T, N>(C, [&](auto shape, int64_t c) {
        using R = decltype(shape);
        T* z = mine.outer.data();
        std::fill_n(z, plan.n_outer * R::channels, T(0));
        const T *y[4], *w[4], *h[4];
        int ready = 0;
        for (int64_t slot = first; slot < first + degree; ++slot) {
          if (e.sign[slot] == T(0)) continue;
          if (slot + 4 * AHEAD < first + degree) fetch_edge<R>(e, slot + 4 * AHEAD, c);
          T* direction = mine.y.data() + ready * e.n_harmonics;
          direct(direction, e.harmonics + e.pair[slot] * e.n_harmonics, e.sign[slot], e.n_harmonics);
          y[ready] = direction;
          w[ready] = e.weights + e.pair[slot] * e.n_weights * C + c;
          h[ready] = e.features + e.sender[slot] * e.n_features * C + c;
          if (++ready < 4) continue;
          outer_all<T, R, 4>(plan, y, w, h, C, z);
          ready = 0;
        }
        for (int i = 0; i < ready; ++i) outer_all<T, R, 1>(plan, y + i, w + i, h + i, C, z);
        couple<T, R>(plan, z, out, n, c, C, true);
      });
    }
  }
}

// ---- adjoint -------------------------------------------------------------------------------------------------

template <class T>
struct EdgeGradients {  // by radial weights (pairs), features (one copy per thread), harmonics (pairs); null: not wanted
  T *weights, *features, *harmonics;
};

template <class T, class R, int L, bool H>
inline void adjoint_rows(const Path& p, const T* y, const T* w, const T* h, int64_t channels, const T* z, T* g_w, bool fresh,
                         T* g_rows, R (&g_y)[2 * L + 1]) {
  const R weight = R::load(w + p.weight * channels);
  R g_weight = R::zero();
  const int width = 2 * p.feature + 1;
  for (int m1 = 0; m1 < width; ++m1) {
    const int f = p.first + m1;
    const R feature = R::load(h + f * channels);
    const R x = weight.times(feature);
    R g = R::zero();
    for (int m2 = 0; m2 <= 2 * L; ++m2) {
      const R from = R::load(z + int64_t(p.row + m2 * width + m1) * R::channels);
      g.add(y[L * L + m2], from);
      if constexpr (H) g_y[m2].add(x, from);
    }
    g_weight.add(g, feature);
    if (g_rows) g.times(weight).add_to(g_rows + f * R::channels);
  }
  T* to = g_w + p.weight * channels;
  if (fresh)
    g_weight.store(to);
  else
    g_weight.add_to(to);
}

template <class T, class R, int L, bool H>
inline int adjoint_degree(const EdgePlan& plan, int q, const T* y, const T* w, const T* h, int64_t channels, const T* z,
                          T* g_w, bool fresh, T* g_rows, T* g_harmonics) {
  R g_y[2 * L + 1];
  if constexpr (H)
    for (int m = 0; m <= 2 * L; ++m) g_y[m] = R::zero();
  for (; q < plan.n_paths && plan.paths[q].harmonic == L; ++q)
    adjoint_rows<T, R, L, H>(plan.paths[q], y, w, h, channels, z, g_w, fresh, g_rows, g_y);
  if constexpr (H)
    for (int m = 0; m <= 2 * L; ++m) g_harmonics[L * L + m] += g_y[m].total();
  return q;
}

template <class T, class R, bool H, int L = 0>
inline void adjoint_all(const EdgePlan& plan, int q, const T* y, const T* w, const T* h, int64_t channels, const T* z, T* g_w,
                        bool fresh, T* g_rows, T* g_harmonics) {
  q = adjoint_degree<T, R, L, H>(plan, q, y, w, h, channels, z, g_w, fresh, g_rows, g_harmonics);
  if constexpr (L < MOST_DEGREE)
    if (q < plan.n_paths) adjoint_all<T, R, H, L + 1>(plan, q, y, w, h, channels, z, g_w, fresh, g_rows, g_harmonics);
}

// Adds the rows of one edge's gradient by features to the thread's own sum.
template <class T, class R>
inline void add_rows(const T* rows, T* to, int64_t n, int64_t channels) {
  for (int64_t f = 0; f < n; ++f) R::load(rows + f * R::channels).add_to(to + f * channels);
}

// Writes, or adds to, the gradient by a pair's harmonics.
template <class T>
inline void add_harmonics(const T* g, T* turned, T sign, T* to, int64_t n, bool fresh) {
  direct(turned, g, sign, n);
  for (int64_t i = 0; i < n; ++i) to[i] = fresh ? turned[i] : to[i] + turned[i];
}

template <class T, int N, bool H>
void edge_adjoint(const EdgePlan& plan, const Edges<T>& e, const Tour& tour, const Blocks<T>& g, const EdgeGradients<T>& out) {
  const int64_t C = e.channels, size = e.n_features * C;
  const Thread<T> blank(plan, N * 64 / sizeof(T), e.n_features, e.n_harmonics);
  both_passes(tour, blank, [&](int64_t n, int pass, Thread<T>& mine, int copy) {
    const int64_t first = n * e.slots, degree = e.degree[n];
    T* sum = out.features ? out.features + copy * e.atoms * size : nullptr;
    over_channels<T, N>(C, [&](auto shape, int64_t c) {
      using R = decltype(shape);
      bool ready = false;
      for (int64_t slot = first; slot < first + degree; ++slot) {
        if (e.sign[slot] == T(0) || (e.sign[slot] < T(0)) != bool(pass)) continue;
        if (!ready) uncouple<T, R>(plan, mine.outer.data(), g, n, c, C);
        ready = true;
        if (slot + AHEAD < first + degree) {
          fetch_edge<R>(e, slot + AHEAD, c);
          fetch<R>(out.weights + e.pair[slot + AHEAD] * e.n_weights * C + c, e.n_weights, C);
        }
        const int64_t p = e.pair[slot], s = e.sender[slot];
        direct(mine.y.data(), e.harmonics + p * e.n_harmonics, e.sign[slot], e.n_harmonics);
        T* g_y = mine.g_y.data();
        std::fill_n(g_y, e.n_harmonics, T(0));
        T* rows = sum ? mine.rows.data() : nullptr;
        if (rows) std::fill_n(rows, e.n_features * R::channels, T(0));
        adjoint_all<T, R, H>(plan, 0, mine.y.data(), e.weights + p * e.n_weights * C + c, e.features + s * size + c, C,
                             mine.outer.data(), out.weights + p * e.n_weights * C + c, pass == 0, rows, g_y);
        if (rows) add_rows<T, R>(rows, sum + s * size + c, e.n_features, C);
        if constexpr (H)
          add_harmonics(g_y, mine.sent.data(), e.sign[slot], out.harmonics + p * e.n_harmonics, e.n_harmonics, !pass && !c);
      }
    });
  });
}

// ---- second order --------------------------------------------------------------------------------------------

// Directions: what arrives at the adjoint's outputs. Null where nothing arrives.
template <class T>
struct Directions {
  const T *weights, *features, *harmonics;
};

template <class T, class R, int L, bool H>
inline void second_rows(const Path& p, const T* y, const T* u, const T* w, const T* h, const T* v_w, const T* v_h,
                        int64_t channels, const T* z, T* g_z, T* g_w, bool fresh, T* g_rows, R (&g_y)[2 * L + 1]) {
  const R weight = R::load(w + p.weight * channels);
  const R d_weight = v_w ? R::load(v_w + p.weight * channels) : R::zero();
  R g_weight = R::zero();
  const int width = 2 * p.feature + 1;
  for (int m1 = 0; m1 < width; ++m1) {
    const int f = p.first + m1;
    const R feature = R::load(h + f * channels);
    const R d_feature = v_h ? R::load(v_h + f * channels) : R::zero();
    const R x = weight.times(feature);
    R dx = d_weight.times(feature);
    dx.add(weight, d_feature);
    R g = R::zero(), dg = R::zero();
    for (int m2 = 0; m2 <= 2 * L; ++m2) {
      const int64_t row = int64_t(p.row + m2 * width + m1) * R::channels;
      const R from = R::load(z + row);
      g.add(y[L * L + m2], from);
      dg.add(u[L * L + m2], from);
      R to = R::load(g_z + row);
      to.add(u[L * L + m2], x);
      to.add(y[L * L + m2], dx);
      to.store(g_z + row);
      if constexpr (H) g_y[m2].add(dx, from);
    }
    g_weight.add(dg, feature);
    g_weight.add(g, d_feature);
    if (g_rows) {
      R g_feature = dg.times(weight);
      g_feature.add(g, d_weight);
      g_feature.add_to(g_rows + f * R::channels);
    }
  }
  T* to = g_w + p.weight * channels;
  if (fresh)
    g_weight.store(to);
  else
    g_weight.add_to(to);
}

template <class T, class R, bool H, int L = 0>
inline void second_all(const EdgePlan& plan, int q, const T* y, const T* u, const T* w, const T* h, const T* v_w, const T* v_h,
                       int64_t channels, const T* z, T* g_z, T* g_w, bool fresh, T* g_rows, T* g_harmonics) {
  R g_y[2 * L + 1];
  if constexpr (H)
    for (int m = 0; m <= 2 * L; ++m) g_y[m] = R::zero();
  for (; q < plan.n_paths && plan.paths[q].harmonic == L; ++q)
    second_rows<T, R, L, H>(plan.paths[q], y, u, w, h, v_w, v_h, channels, z, g_z, g_w, fresh, g_rows, g_y);
  if constexpr (H)
    for (int m = 0; m <= 2 * L; ++m) g_harmonics[L * L + m] += g_y[m].total();
  if constexpr (L < MOST_DEGREE)
    if (q < plan.n_paths)
      second_all<T, R, H, L + 1>(plan, q, y, u, w, h, v_w, v_h, channels, z, g_z, g_w, fresh, g_rows, g_harmonics);
}

template <class T, int N, bool H>
void edge_second(const EdgePlan& plan, const Edges<T>& e, const Tour& tour, const Blocks<T>& g, const Directions<T>& v,
                 const Blocks<T>& g_g, const EdgeGradients<T>& out) {
  const int64_t C = e.channels, size = e.n_features * C;
  const Thread<T> blank(plan, N * 64 / sizeof(T), e.n_features, e.n_harmonics);
  both_passes(tour, blank, [&](int64_t n, int pass, Thread<T>& mine, int copy) {
    const int64_t first = n * e.slots, degree = e.degree[n];
    T* sum = out.features ? out.features + copy * e.atoms * size : nullptr;
    over_channels<T, N>(C, [&](auto shape, int64_t c) {
      using R = decltype(shape);
      uncouple<T, R>(plan, mine.outer.data(), g, n, c, C);
      std::fill_n(mine.second.data(), plan.n_outer * R::channels, T(0));
      for (int64_t slot = first; slot < first + degree; ++slot) {
        if (e.sign[slot] == T(0) || (e.sign[slot] < T(0)) != bool(pass)) continue;
        const int64_t p = e.pair[slot], s = e.sender[slot], at = p * e.n_weights * C + c;
        if (slot + AHEAD < first + degree) {
          const int64_t next = e.pair[slot + AHEAD] * e.n_weights * C + c;
          fetch_edge<R>(e, slot + AHEAD, c);
          fetch<R>(out.weights + next, e.n_weights, C);
          if (v.weights) fetch<R>(v.weights + next, e.n_weights, C);
        }
        direct(mine.y.data(), e.harmonics + p * e.n_harmonics, e.sign[slot], e.n_harmonics);
        if (v.harmonics)
          direct(mine.u.data(), v.harmonics + p * e.n_harmonics, e.sign[slot], e.n_harmonics);
        else
          std::fill_n(mine.u.data(), e.n_harmonics, T(0));
        T* g_y = mine.g_y.data();
        std::fill_n(g_y, e.n_harmonics, T(0));
        T* rows = sum ? mine.rows.data() : nullptr;
        if (rows) std::fill_n(rows, e.n_features * R::channels, T(0));
        second_all<T, R, H>(plan, 0, mine.y.data(), mine.u.data(), e.weights + at, e.features + s * size + c,
                            v.weights ? v.weights + at : nullptr, v.features ? v.features + s * size + c : nullptr, C,
                            mine.outer.data(), mine.second.data(), out.weights + at, pass == 0, rows, g_y);
        if (rows) add_rows<T, R>(rows, sum + s * size + c, e.n_features, C);
        if constexpr (H)
          add_harmonics(g_y, mine.sent.data(), e.sign[slot], out.harmonics + p * e.n_harmonics, e.n_harmonics, !pass && !c);
      }
      couple<T, R>(plan, mine.second.data(), g_g, n, c, C, pass == 0);
    });
  });
}
