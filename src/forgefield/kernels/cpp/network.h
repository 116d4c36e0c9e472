// Small networks of rows, y = silu(silu(x W1) W2) ... WK, walked through layer by layer while a few rows lie in the cache:
// value, adjoint, gradient of the value and gradient of the adjoint. z: inputs of the silus, s: their sigmoids.
#pragma once
#include <omp.h>

#include <cmath>
#include <vector>

#include "linear.h"
#include "sigmoid.h"

namespace networks {
constexpr int64_t SOME = 48;  // rows that are walked through at a time

template <class T>
struct Layers {
  int64_t rows;
  std::vector<int64_t> width;  // of the input and of each layer's output
  std::vector<const T*> weights;
  T gain;
  int64_t count() const { return int64_t(weights.size()); }
  T scale(int64_t k) const { return T(1) / std::sqrt(T(width[k])); }
  int64_t widest() const { return *std::max_element(width.begin(), width.end()); }
};

// All matrices in panels, or all transposed matrices.
template <class T>
struct Panels {
  std::vector<int64_t> start{0};
  Scratch<T> memory;
  Panels(const Layers<T>& net, bool transpose) : start(starts(net, transpose)), memory(start.back()) {
    std::vector<std::pair<int64_t, int64_t>> tasks;
    for (int64_t k = 0; k < net.count(); ++k)
      for (int64_t c = 0; c < net.width[transpose ? k : k + 1]; c += PANEL<T>) tasks.emplace_back(k, c);
#pragma omp parallel for schedule(static) if (start.back() > 20000)
    for (int64_t t = 0; t < int64_t(tasks.size()); ++t) {
      const auto [k, c] = tasks[t];
      const int64_t in = net.width[k], out = net.width[k + 1], depth = transpose ? out : in, row = transpose ? 1 : out, column = transpose ? out : 1;
      pack_panel<T>(memory.data() + start[k] + c * depth, net.weights[k] + c * column, depth, row, column, (transpose ? in : out) - c);
    }
  }
  T* of(int64_t k) { return memory.data() + start[k]; }

 private:
  static std::vector<int64_t> starts(const Layers<T>& net, bool transpose) {
    std::vector<int64_t> found{0};
    for (int64_t k = 0; k < net.count(); ++k) {
      const int64_t in = net.width[k], out = net.width[k + 1];
      found.push_back(found.back() + (transpose ? packed_size<T>(out, in) : packed_size<T>(in, out)));
    }
    return found;
  }
};

// Calls work(first row, rows, scratch of these rows of the widest layer) until all rows are done.
template <class T, class F>
void over_rows(const Layers<T>& net, F&& work) {
  const int64_t widest = net.widest();
#pragma omp parallel if (net.rows > SOME)
  {
    Scratch<T> block(SOME * widest);
#pragma omp for schedule(dynamic, 1)
    for (int64_t r = 0; r < net.rows; r += SOME) work(r, std::min(SOME, net.rows - r), block.data());
  }
}

// Calls work(row type, place) for each vector of a block of numbers.
template <class T, class F>
inline void each(int64_t n, F&& work) {
  over_channels<T, 1>(n, std::forward<F>(work));
}

template <class R, class T>
inline R slope(const R& z, const R& s, T gain) {
  R d;
  for (int i = 0; i < 1; ++i) d.v[i] = gain * (s.v[i] + z.v[i] * s.v[i] * (T(1) - s.v[i]));
  return d;
}
template <class R, class T>
inline R bend(const R& z, const R& s, T gain) {  // the second derivative
  R d;
  for (int i = 0; i < 1; ++i) d.v[i] = gain * s.v[i] * (T(1) - s.v[i]) * (T(2) + z.v[i] * (T(1) - T(2) * s.v[i]));
  return d;
}

// y; z and s of the layers but the last.
template <class T>
void value(const Layers<T>& net, const T* x, T* y, const std::vector<T*>& z, const std::vector<T*>& s) {
  Panels<T> panels(net, false);
  const int64_t last = net.count() - 1;
  over_rows(net, [&](int64_t row, int64_t n, T* block) {
    const T* from = x + row * net.width[0];
    for (int64_t k = 0; k <= last; ++k) {
      const int64_t wide = net.width[k + 1];
      T* to = (k < last ? z[k] : y) + row * wide;
      map_block(n, from, net.width[k], panels.of(k), wide, to, net.scale(k));
      if (k == last) break;
      each<T>(n * wide, [&](auto shape, int64_t i) {
        using R = decltype(shape);
        const R in = R::load(to + i), sigma = sigmoid(in);
        sigma.store(s[k] + row * wide + i);
        in.times(sigma).times(net.gain).store(block + i);
      });
      from = block;
    }
  });
}

// Gradient by x from that by y, and t: what arrives at the output of each silu.
template <class T>
void adjoint(const Layers<T>& net, const T* g, const std::vector<const T*>& z, const std::vector<const T*>& s, T* g_x,
             const std::vector<T*>& t) {
  Panels<T> panels(net, true);
  over_rows(net, [&](int64_t row, int64_t n, T* block) {
    const T* from = g + row * net.width.back();
    for (int64_t k = net.count() - 1; k >= 0; --k) {
      const int64_t wide = net.width[k], at = row * wide;
      T* to = (k ? t[k - 1] : g_x) + at;
      map_block(n, from, net.width[k + 1], panels.of(k), wide, to, net.scale(k));
      if (!k) break;
      each<T>(n * wide, [&](auto shape, int64_t i) {
        using R = decltype(shape);
        R::load(to + i).times(slope(R::load(z[k - 1] + at + i), R::load(s[k - 1] + at + i), net.gain)).store(block + i);
      });
      from = block;
    }
  });
}

// Gradient of the value. g (by y) and g_z (by z) may be null. Gives a, the outputs of the silus, and d, the gradients by z.
template <class T>
void backward(const Layers<T>& net, const T* g, const std::vector<const T*>& g_z, const std::vector<const T*>& z,
              const std::vector<const T*>& s, T* g_x, const std::vector<T*>& a, const std::vector<T*>& d) {
  Panels<T> panels(net, true);
  over_rows(net, [&](int64_t row, int64_t n, T* block) {
    const T* from = g ? g + row * net.width.back() : nullptr;
    for (int64_t k = net.count() - 1; k >= 0; --k) {
      const int64_t wide = net.width[k], at = row * wide;
      if (!k && !g_x) break;
      T* to = k ? block : g_x + at;
      if (from)
        map_block(n, from, net.width[k + 1], panels.of(k), wide, to, net.scale(k));
      else
        std::fill_n(to, n * wide, T(0));
      if (!k) break;
      T* found = d[k - 1] + at;
      each<T>(n * wide, [&](auto shape, int64_t i) {
        using R = decltype(shape);
        const R in = R::load(z[k - 1] + at + i), sigma = R::load(s[k - 1] + at + i);
        R sum = R::load(to + i).times(slope(in, sigma, net.gain));
        if (g_z[k - 1]) sum.add(R::load(g_z[k - 1] + at + i));
        sum.store(found + i);
        in.times(sigma).times(net.gain).store(a[k - 1] + at + i);
      });
      from = found;
    }
  });
}

// Gradient of the adjoint with direction v at its output: by g and by z, and what the weights' gradients are sums of,
// p (before each matrix; p of the first is v) and u (behind it, but the last, which is g).
template <class T>
void second(const Layers<T>& net, const T* v, const std::vector<const T*>& z, const std::vector<const T*>& s,
            const std::vector<const T*>& t, T* g_g, const std::vector<T*>& g_z, const std::vector<T*>& p, const std::vector<T*>& u) {
  Panels<T> panels(net, false);
  const int64_t last = net.count() - 1;
  over_rows(net, [&](int64_t row, int64_t n, T* block) {
    const T* from = v + row * net.width[0];
    for (int64_t k = 0; k <= last; ++k) {
      const int64_t wide = net.width[k + 1], at = row * wide;
      T* to = k < last ? block : g_g + at;
      map_block(n, from, net.width[k], panels.of(k), wide, to, net.scale(k));
      if (k == last) break;
      each<T>(n * wide, [&](auto shape, int64_t i) {
        using R = decltype(shape);
        const R in = R::load(z[k] + at + i), sigma = R::load(s[k] + at + i), arrived = R::load(t[k] + at + i), moved = R::load(to + i);
        const R rate = slope(in, sigma, net.gain);
        moved.times(arrived).times(bend(in, sigma, net.gain)).store(g_z[k] + at + i);
        moved.times(rate).store(p[k] + at + i);
        arrived.times(rate).store(u[k] + at + i);
      });
      from = p[k] + at;
    }
  });
}

// Gradient of one matrix: sum over rows of left^T right.
template <class T>
void weights_gradient(const Layers<T>& net, int64_t k, const T* left, const T* right, T* out) {
  const Maps m{net.rows, 1, 1, net.width[k], net.width[k + 1], {{1, 0, 0}}, {0, net.rows}};
  sum_outer<T>(m, left, right, out, net.scale(k));
}
}  // namespace networks
