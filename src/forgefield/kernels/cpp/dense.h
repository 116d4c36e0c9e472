// Networks of rows with biases and GELU or SiLU, a_k = gelu(z_k), z_k = a_(k-1) W_k + b_k, walked through layer by layer by a part of the rows:
// value, adjoint, gradient of the value and gradient of the adjoint. Only the z are kept; what GELU needs is computed anew from them.
#pragma once
#include <omp.h>

#include <vector>

#include "linear.h"
#include "normal.h"

namespace dense {
constexpr int64_t MOST_ROWS = 144;  // that are walked through at a time; a whole number of tiles

template <class T>
struct Layers {
  int64_t rows;
  int64_t first;               // inputs that come from a table, the first ones
  std::vector<int64_t> width;  // of the input, without the table's, and of each layer's output
  std::vector<const T*> weights;
  bool activated;  // GELU follows the last layer too
  bool silu;       // and is SiLU
  int64_t count() const { return int64_t(weights.size()); }
  int64_t bent() const { return count() - !activated; }  // layers that GELU follows
  int64_t widest() const { return *std::max_element(width.begin(), width.end()); }
  const T* matrix(int64_t k) const { return k ? weights[k] : weights[0] + first * width[1]; }
  double work() const {
    double sum = 0;
    for (int64_t k = 0; k < count(); ++k) sum += 2.0 * double(rows) * double(width[k]) * double(width[k + 1]);
    return sum;
  }
};

// All matrices in panels, or all transposed matrices.
template <class T>
struct Panels {
  std::vector<int64_t> start{0};
  std::unique_ptr<Scratch<T>> memory;
  Panels(const Layers<T>& net, bool transpose) {
    std::vector<std::pair<int64_t, int64_t>> tasks;
    for (int64_t k = 0; k < net.count(); ++k) {
      const int64_t in = net.width[k], out = net.width[k + 1];
      start.push_back(start.back() + (transpose ? packed_size<T>(out, in) : packed_size<T>(in, out)));
      for (int64_t c = 0; c < (transpose ? in : out); c += PANEL<T>) tasks.emplace_back(k, c);
    }
    memory = std::make_unique<Scratch<T>>(start.back());
#pragma omp parallel for schedule(dynamic, 1) if (start.back() > 20000)
    for (int64_t t = 0; t < int64_t(tasks.size()); ++t) {
      const auto [k, c] = tasks[t];
      const int64_t in = net.width[k], out = net.width[k + 1], depth = transpose ? out : in, row = transpose ? 1 : out, column = transpose ? out : 1;
      pack_panel<T>(memory->data() + start[k] + c * depth, net.matrix(k) + c * column, depth, row, column, (transpose ? in : out) - c);
    }
  }
  const T* of(int64_t k) const { return memory->data() + start[k]; }
};

// Calls work(first row, rows, scratch of these rows of the widest layer) until all rows are done.
template <class T, class F>
void over_rows(const Layers<T>& net, F&& work) {
  const bool alone = net.work() < FEW_OPERATIONS;
  const int64_t threads = alone ? 1 : omp_get_max_threads(), parts = threads * std::max<int64_t>(1, (net.rows + threads * MOST_ROWS - 1) / (threads * MOST_ROWS));
  const int64_t some = ((net.rows + parts - 1) / parts + TALL - 1) / TALL * TALL, widest = net.widest();
#pragma omp parallel if (!alone)
  {
    Scratch<T> block(some * widest);
#pragma omp for schedule(dynamic, 1)
    for (int64_t row = 0; row < net.rows; row += some) work(row, std::min(some, net.rows - row), block.data());
  }
}

// Rows x packed matrix.
template <class T>
void product(int64_t rows, const T* in, int64_t depth, const T* packed, int64_t columns, T* out) {
  Tile<T> tiles[MOST_ROWS / TALL];
  int n_tiles = 0;
  for (int64_t r = 0; r < rows; r += TALL, ++n_tiles) {
    Tile<T>& tile = tiles[n_tiles];
    tile.rows = int(std::min<int64_t>(TALL, rows - r));
    for (int i = 0; i < tile.rows; ++i) tile.from[i] = in + (r + i) * depth, tile.to[i] = out + (r + i) * columns;
  }
  multiply_tiles(tiles, n_tiles, depth, columns, packed, T(1));
}

template <class T, class F>
inline void each(int64_t n, F&& work) {
  over_channels<T, 1>(n, work);
}
// Calls work(row type, place, curve) with GELU or SiLU as the curve.
template <class T, class F>
inline void each_bent(const Layers<T>& net, int64_t n, F&& work) {
  if (net.silu)
    over_channels<T, 1>(n, [&](auto shape, int64_t i) { work(shape, i, Silu{}); });
  else
    over_channels<T, 1>(n, [&](auto shape, int64_t i) { work(shape, i, Gelu{}); });
}

// to += row
template <class T>
inline void add_row(const T* row, int64_t n, T* to) {
  for (int64_t c = 0; c < n; ++c) to[c] += row[c];
}

// The value; `start` is what is added to each row of the first layer: one row for all, or that of the table that `place` names.
template <class T>
void value(const Layers<T>& net, const T* x, const T* start, const int64_t* place, const std::vector<const T*>& bias, T* y,
           const std::vector<T*>& z) {
  const Panels<T> panels(net, false);
  const int64_t last = net.count() - 1;
  over_rows(net, [&](int64_t row, int64_t n, T* block) {
    const T* from = x + row * net.width[0];
    for (int64_t k = 0; k <= last; ++k) {
      const int64_t wide = net.width[k + 1];
      T* to = (k < net.bent() ? z[k] : y) + row * wide;
      product(n, from, net.width[k], panels.of(k), wide, to);
      for (int64_t r = 0; r < n; ++r)
        add_row(k ? bias[k] : start + (place ? place[row + r] * wide : 0), wide, to + r * wide);
      if (k == net.bent()) break;
      T* active = k < last ? block : y + row * wide;
      each_bent(net, n * wide, [&](auto shape, int64_t i, auto curve) {
        const auto in = decltype(shape)::load(to + i);
        curve.value(in, curve.known(in)).store(active + i);
      });
      from = active;
    }
  });
}

// to = from x slope of GELU at z
template <class T>
inline void through_slope(const Layers<T>& net, int64_t n, const T* z, const T* from, T* to) {
  each_bent(net, n, [&](auto shape, int64_t i, auto curve) {
    using R = decltype(shape);
    const R in = R::load(z + i);
    R::load(from + i).times(curve.slope(in, curve.known(in))).store(to + i);
  });
}

// Gradient by x from that by y, and t: what arrives at the output of each GELU but that of the last layer, whose is g.
template <class T>
void adjoint(const Layers<T>& net, const T* g, const std::vector<const T*>& z, T* g_x, const std::vector<T*>& t) {
  const Panels<T> panels(net, true);
  over_rows(net, [&](int64_t row, int64_t n, T* block) {
    const T* from = g + row * net.width.back();
    for (int64_t k = net.count() - 1; k >= 0; --k) {
      const int64_t wide = net.width[k + 1];
      if (k < net.bent()) {
        through_slope(net, n * wide, z[k] + row * wide, from, block);
        from = block;
      }
      T* to = (k ? t[k - 1] : g_x) + row * net.width[k];
      product(n, from, wide, panels.of(k), net.width[k], to);
      from = to;
    }
  });
}

// Gradient of the value. g (by y) and g_z (by z) may be null. Gives a, the outputs of the GELUs between layers, and d, the gradients
// by the results of the products; d of a last layer without GELU is g and not written.
template <class T>
void backward(const Layers<T>& net, const T* g, const std::vector<const T*>& g_z, const std::vector<const T*>& z, T* g_x,
              const std::vector<T*>& a, const std::vector<T*>& d) {
  const Panels<T> panels(net, true);
  over_rows(net, [&](int64_t row, int64_t n, T* block) {
    const T* from = g ? g + row * net.width.back() : nullptr;
    for (int64_t k = net.count() - 1; k >= 0; --k) {
      const int64_t wide = net.width[k + 1], at = row * wide;
      if (k < net.bent()) {
        each_bent(net, n * wide, [&](auto shape, int64_t i, auto curve) {
          using R = decltype(shape);
          const R in = R::load(z[k] + at + i);
          const auto known = curve.known(in);
          R sum = g_z[k] ? R::load(g_z[k] + at + i) : R::zero();
          if (from) sum.add(R::load(from + i), curve.slope(in, known));
          sum.store(d[k] + at + i);
          if (a[k]) curve.value(in, known).store(a[k] + at + i);
        });
        from = d[k] + at;
      }
      if (!k && !g_x) break;
      T* to = k ? block : g_x + row * net.width[0];
      if (from)
        product(n, from, wide, panels.of(k), net.width[k], to);
      else
        std::fill_n(to, n * net.width[k], T(0));
      from = to;
    }
  });
}

// Gradient of the adjoint with direction v at its output: by g and by z, and what the matrices' gradients are sums of: p, before each
// matrix (that of the first is v), and u, behind it (without GELU that of the last is g).
template <class T>
void second(const Layers<T>& net, const T* v, const T* g, const std::vector<const T*>& z, const std::vector<const T*>& t, T* g_g,
            const std::vector<T*>& g_z, const std::vector<T*>& p, const std::vector<T*>& u) {
  const Panels<T> panels(net, false);
  const int64_t last = net.count() - 1;
  over_rows(net, [&](int64_t row, int64_t n, T* block) {
    const T* from = v + row * net.width[0];
    for (int64_t k = 0; k <= last; ++k) {
      const int64_t wide = net.width[k + 1], at = row * wide;
      if (k == net.bent()) {
        product(n, from, net.width[k], panels.of(k), wide, g_g + at);
        break;
      }
      product(n, from, net.width[k], panels.of(k), wide, block);
      const T* arrived = (k < last ? t[k] : g) + at;
      T* to = (k < last ? p[k] : g_g) + at;
      each_bent(net, n * wide, [&](auto shape, int64_t i, auto curve) {
        using R = decltype(shape);
        const R in = R::load(z[k] + at + i), came = R::load(arrived + i), moved = R::load(block + i);
        const auto known = curve.known(in);
        const R slope = curve.slope(in, known);
        moved.times(came).times(curve.bend(in, known)).store(g_z[k] + at + i);
        moved.times(slope).store(to + i);
        came.times(slope).store(u[k] + at + i);
      });
      from = to;
    }
  });
}

// Sum over rows of left^T right: the gradient of a matrix, or of a part of its rows.
template <class T>
void outer(int64_t rows, const T* left, int64_t depth, const T* right, int64_t columns, T* out) {
  sum_outer<T>(Maps{rows, 1, 1, depth, columns, {{1, 0, 0}}, {0, rows}}, left, right, out, T(1));
}

// Sums over all rows, or over those of each place: (places, columns).
template <class T>
void sum_rows(int64_t rows, const T* from, int64_t columns, const int64_t* place, int64_t places, T* out) {
  std::fill_n(out, places * columns, T(0));
  for (int64_t r = 0; r < rows; ++r) add_row(from + r * columns, columns, out + (place ? place[r] * columns : 0));
}
}  // namespace dense
