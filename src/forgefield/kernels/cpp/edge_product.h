// Sum over neighbours of radial weight x sender's feature x harmonic, coupled to all degrees: value, adjoint, second order.
// Receivers are split over the threads. Gradients by what belongs to a pair are stored at the end that is visited first and
// added to at the other; if that is another thread's, it does so after all threads have met. So no two threads write to one
// place at a time and the result does not depend on timing.
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

// Harmonics of one directed edge: odd degrees change sign with the direction. `parity` is -1 for those, else 1.
template <class T>
inline void direct(T* out, const T* values, T sign, const T* parity, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = sign < T(0) ? parity[i] * values[i] : values[i];
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

// The order in which receivers are visited, cut into parts, each of which is one thread's own: where no pair crosses
// (islands), or, without enough of those, into one part per thread with as many edges each.
struct Tour {
  const int64_t* visit;
  int64_t atoms;
  std::vector<int64_t> place;  // of each atom in the order
  std::vector<int64_t> start;  // of the parts
  std::vector<int32_t> part;   // of each place
  bool apart = true;           // no pair crosses from part to part
  Tour(const int64_t* visit_, const int64_t* sender, int64_t atoms_, int64_t slots, const int64_t* degree)
      : visit(visit_), atoms(atoms_), place(atoms_), part(atoms_) {
    for (int64_t k = 0; k < atoms; ++k) place[visit[k]] = k;
    int64_t reach = 0, edges = 0;  // reach: furthest place that an atom seen so far is paired with
    for (int64_t k = 0; k < atoms; ++k) {
      if (k >= reach) start.push_back(k);
      reach = std::max(reach, k + 1);
      const int64_t* from = sender + visit[k] * slots;
      for (int64_t i = 0; i < degree[visit[k]]; ++i) reach = std::max(reach, place[from[i]] + 1);
      edges += degree[visit[k]];
    }
    const int64_t threads = omp_get_max_threads();
    if (threads > 1 && int64_t(start.size()) < 2 * threads) divide(degree, edges, threads);
    start.push_back(atoms);
    for (int64_t p = 0; p < parts(); ++p) std::fill(part.begin() + start[p], part.begin() + start[p + 1], int32_t(p));
  }
  int64_t parts() const { return int64_t(start.size()) - 1; }
  // When a directed edge is visited, and whether its pair's gradients are stored then (not added). Of the pairs that cross, every
  // other one is stored at its later part, so that all threads have as much to do before they meet as after.
  struct Turn {
    bool late, fresh;
  };
  Turn turn(int64_t atom, int64_t sender, bool forward) const {
    const int64_t a = place[atom], b = place[sender];
    if (part[a] == part[b]) return {false, a == b ? forward : a < b};
    const bool first = ((a + b) & 1) ? a < b : a > b;
    return {!first, first};
  }

 private:
  void divide(const int64_t* degree, int64_t edges, int64_t threads) {
    apart = false;
    start.clear();
    for (int64_t k = 0, seen = 0; k < atoms; seen += degree[visit[k++]])
      if (int64_t(start.size()) < threads && seen * threads >= edges * int64_t(start.size())) start.push_back(k);
  }
};

// Calls work(atom, late, scratch, copy) for every atom, and once more, late, where pairs cross between threads; `copy` says
// which sum by senders it may add to.
template <class S, class F>
void each_part(const Tour& tour, const S& blank, F&& work) {
#pragma omp parallel
  {
    S scratch(blank);
    if (tour.apart) {
#pragma omp for schedule(dynamic, 1)
      for (int64_t p = 0; p < tour.parts(); ++p)
        for (int64_t k = tour.start[p]; k < tour.start[p + 1]; ++k) work(tour.visit[k], false, scratch, 0);
    } else {
      for (int late = 0; late < 2; ++late) {
#pragma omp for schedule(static, 1)
        for (int64_t p = 0; p < tour.parts(); ++p)
          for (int64_t k = tour.start[p]; k < tour.start[p + 1]; ++k) work(tour.visit[k], bool(late), scratch, p);
      }
    }
  }
}

template <class T>
struct Thread {  // scratch of one thread
  int64_t n_harmonics;
  Scratch<T> outer, second, rows, y, u, parity, g_y, sent, lanes;
  std::vector<int64_t> fresh, more;  // slots of an atom's edges whose pairs' gradients are stored, and added to
  Thread(const EdgePlan& plan, int64_t row_size, int64_t n_features, int64_t n)
      : n_harmonics(n), outer(plan.n_outer * row_size), second(plan.n_outer * row_size), rows(2 * n_features * row_size), y(4 * n),
        u(2 * n), parity(n), g_y(n + LANES<T>), sent(n), lanes((n + LANES<T>) * LANES<T>) {
    clear();
  }
  Thread(const Thread& other)
      : n_harmonics(other.n_harmonics), outer(other.outer), second(other.second), rows(other.rows), y(other.y), u(other.u),
        parity(other.parity), g_y(other.g_y), sent(other.sent), lanes(other.lanes) {
    clear();
  }
  void clear() {
    std::fill_n(u.data(), 2 * n_harmonics, T(0));
    std::fill_n(lanes.data(), (n_harmonics + LANES<T>) * LANES<T>, T(0));
    for (int64_t l = 0, i = 0; i < n_harmonics; ++l)
      for (int64_t m = 0; m <= 2 * l; ++m, ++i) parity[i] = l & 1 ? T(-1) : T(1);
  }
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
          direct(direction, e.harmonics + e.pair[slot] * e.n_harmonics, e.sign[slot], mine.parity.data(), e.n_harmonics);
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
