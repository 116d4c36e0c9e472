// Rows of a table of double precision between its nodes: polynomials of degree 7 through eight of them, and two derivatives.
//
//   f(x) = sum_k b_k(t) table[i + k], t = (x - low) rate - i
//
// Beyond the nodes the outermost polynomial is followed.
#pragma once
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <tuple>
#include <vector>

#include "gradients.h"
#include "vector.h"

namespace tables {
using at::Tensor;
using Maybe = std::optional<Tensor>;
constexpr int POINTS = 8;
constexpr int64_t PARTS = 4, FEW = 256;  // parts of the nodes, each with sums of its own; numbers that are one part
constexpr int64_t BLOCK = 32;            // numbers whose weights are held at once
#ifdef __AVX512F__
constexpr int BYTES = 64;
#else
constexpr int BYTES = 32;  // the compiler keeps wider sums in memory
#endif

// Coefficients of t^d in the k-th polynomial, [d][k]: it is 1 at t = k - 3 and 0 at the other seven.
inline const std::array<std::array<double, POINTS>, POINTS>& coefficients() {
  static const auto found = [] {
    std::array<std::array<double, POINTS>, POINTS> all{};
    for (int k = 0; k < POINTS; ++k) {
      std::array<double, POINTS> p{1.0};
      for (int j = 0; j < POINTS; ++j) {
        if (j == k) continue;
        for (int d = POINTS - 1; d >= 0; --d) p[d] = ((d ? p[d - 1] : 0.0) - (j - 3) * p[d]) / (k - j);
      }
      for (int d = 0; d < POINTS; ++d) all[d][k] = p[d];
    }
    return all;
  }();
  return found;
}

// First of the eight nodes around x.
inline int64_t first_node(double x, double low, double rate, int64_t nodes) {
  const double at = (x - low) * rate;
  const int64_t cell = at >= 0.0 && at < double(nodes) ? int64_t(at) : (at > 0.0 ? nodes : 0);  // not a number: 0
  return std::clamp<int64_t>(cell - 3, 0, nodes - POINTS);
}

// Factors of the eight rows in f, f' and f''.
struct Weights {
  double b[POINTS], slope[POINTS], bend[POINTS];
  void set(double t, double rate) {
    const auto& c = coefficients();
    for (int k = 0; k < POINTS; ++k) b[k] = c[POINTS - 1][k], slope[k] = bend[k] = 0.0;
    for (int d = POINTS - 2; d >= 0; --d)
      for (int k = 0; k < POINTS; ++k) {
        bend[k] = bend[k] * t + 2.0 * slope[k];
        slope[k] = slope[k] * t + b[k];
        b[k] = b[k] * t + c[d][k];
      }
    for (int k = 0; k < POINTS; ++k) slope[k] *= rate, bend[k] *= rate * rate;
  }
};

using Block = std::array<Weights, BLOCK>;

// Numbers T as a row of double precision, and back.
template <class R, class T>
inline R widened(const T* p) {
  if constexpr (sizeof(T) == sizeof(double)) {
    return R::load(p);
  } else if constexpr (R::channels == 1) {
    return R{{double(*p)}};
  } else {
    using Narrow = typename Vector<T, R::channels * sizeof(T)>::loose;
    return R{{__builtin_convertvector(*reinterpret_cast<const Narrow*>(p), typename R::V)}};
  }
}
template <class R, class T>
inline void narrowed(const R& row, T* p) {
  if constexpr (sizeof(T) == sizeof(double)) {
    row.store(p);
  } else if constexpr (R::channels == 1) {
    *p = T(row.v[0]);
  } else {
    using Narrow = typename Vector<T, R::channels * sizeof(T)>::loose;
    *reinterpret_cast<Narrow*>(p) = __builtin_convertvector(row.v[0], Narrow);
  }
}

// Calls `work` with a row type and the first column of each vector, then of each column that is left over.
template <class F>
inline void over_columns(int64_t width, F&& work) {
  constexpr int64_t lanes = BYTES / sizeof(double);
  int64_t c = 0;
  for (; c + lanes <= width; c += lanes) work(Row<double, BYTES, 1>{}, c);
  for (; c < width; ++c) work(Row<double, sizeof(double), 1>{}, c);
}

// Eight rows of a table, one vector of each.
template <class R>
struct Nodes {
  R row[POINTS];
  Nodes(const double* p, int64_t width) {
    for (int k = 0; k < POINTS; ++k) row[k] = R::load(p + k * width);
  }
  Nodes() {
    for (int k = 0; k < POINTS; ++k) row[k] = R::zero();
  }
  inline void mix_into(R& sum, const double (&weights)[POINTS]) const {
    for (int k = 0; k < POINTS; ++k) sum.add(weights[k], row[k]);
  }
  inline void take(const double (&weights)[POINTS], const R& g) {
    for (int k = 0; k < POINTS; ++k) row[k].add(weights[k], g);
  }
  inline void add_to(double* p, int64_t width) const {
    for (int k = 0; k < POINTS; ++k) row[k].add_to(p + k * width);
  }
};

// A sum over columns for each number of a block, vector by vector.
struct Totals {
  alignas(64) double lanes[BLOCK][BYTES / sizeof(double)] = {};
  template <class R>
  inline void add(int64_t i, const R& a, const R& b) {
    auto sum = R::load(lanes[i]);
    sum.add(a, b);
    sum.store(lanes[i]);
  }
  double of(int64_t i) const { return Row<double, BYTES, 1>::load(lanes[i]).total(); }
};

// Numbers that lie between the same two nodes, at most BLOCK of them, with the weights of the eight rows around them.
struct Same {
  int64_t first, part;  // node
  const int64_t* places;
  int64_t n;
  const Block& weights;
};

struct Given {
  Tensor x, table;
  double low, rate;
  int64_t count, nodes, c, parts;
  std::vector<int64_t> begin, places, cuts;  // of the numbers by their first nodes: where each node begins; nodes of each part
  Given(const Tensor& x_, const Tensor& table_, double low_, double rate_)
      : x(x_.contiguous()), table(table_.contiguous()), low(low_), rate(rate_), count(x.numel()), nodes(table.size(0)), c(table.size(1)),
        parts(std::clamp<int64_t>(count / FEW, 1, PARTS)), begin(nodes + 1, 0), places(count) {
    TORCH_CHECK(table.scalar_type() == at::kDouble && nodes >= POINTS, "interpolate: the table must hold eight rows of double precision");
    AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "interpolate", [&] { sort(x.const_data_ptr<scalar_t>()); });
  }
  // Calls `work` with each block; parts have the same nodes with any number of threads.
  template <class T, class F>
  void run(F&& work) const {
    const T* at = x.const_data_ptr<T>();
    at::parallel_for(0, parts, 1, [&](int64_t from, int64_t to) {
      Block weights;
      for (int64_t part = from; part < to; ++part)
        for (int64_t node = cuts[part]; node < cuts[part + 1]; ++node)
          for (int64_t k = begin[node]; k < begin[node + 1]; k += BLOCK) {
            const int64_t n = std::min(BLOCK, begin[node + 1] - k);
            for (int64_t i = 0; i < n; ++i) weights[i].set((double(at[places[k + i]]) - low) * rate - double(node + 3), rate);
            work(Same{node, part, places.data() + k, n, weights});
          }
    });
  }
  const double* rows(const Tensor& t, const Same& s) const { return t.const_data_ptr<double>() + s.first * c; }
  // Sums of rows of the table: each part has its own, POINTS rows more than it has nodes.
  Tensor sums() const { return at::zeros({nodes + PARTS * POINTS, c}, table.options()); }
  double* rows_of_part(double* sums, const Same& s) const { return sums + (s.first + s.part * POINTS) * c; }
  Tensor joined(const Tensor& sums) const {
    auto all = at::zeros({nodes, c}, table.options());
    const double* from = sums.const_data_ptr<double>();
    double* to = all.data_ptr<double>();
    for (int64_t part = 0; part < parts; ++part) {
      const int64_t end = std::min(cuts[part + 1] + POINTS - 1, nodes);
      for (int64_t k = cuts[part] * c; k < end * c; ++k) to[k] += from[k + part * POINTS * c];
    }
    return all;
  }

 private:
  template <class T>
  void sort(const T* at) {
    std::vector<int64_t> node(count);
    for (int64_t i = 0; i < count; ++i) ++begin[1 + (node[i] = first_node(double(at[i]), low, rate, nodes))];
    for (int64_t k = 0; k < nodes; ++k) begin[k + 1] += begin[k];
    auto next = begin;
    for (int64_t i = 0; i < count; ++i) places[next[node[i]]++] = i;
    for (int64_t part = 0; part <= parts; ++part)
      cuts.push_back(part == parts ? nodes : std::lower_bound(begin.begin(), begin.end() - 1, part * count / parts) - begin.begin());
  }
};

inline Tensor interpolate(const Tensor& x, const Tensor& table, double low, double rate) {
  const Given in(x, table, low, rate);
  auto y = at::empty({in.count, in.c}, x.options());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "interpolate", [&] {
    scalar_t* to = y.data_ptr<scalar_t>();
    in.run<scalar_t>([&](const Same& s) {
      over_columns(in.c, [&](auto row, int64_t c) {
        using R = decltype(row);
        const Nodes<R> table(in.rows(in.table, s) + c, in.c);
        for (int64_t i = 0; i < s.n; ++i) {
          auto sum = R::zero();
          table.mix_into(sum, s.weights[i].b);
          narrowed(sum, to + s.places[i] * in.c + c);
        }
      });
    });
  });
  return y;
}

inline std::tuple<Tensor, Tensor> interpolate_adjoint(const Tensor& g_, const Tensor& x, const Tensor& table, double low, double rate,
                                                      bool need) {
  const Given in(x, table, low, rate);
  const auto g = g_.contiguous();
  auto g_x = at::empty_like(in.x);
  const auto sums = need ? in.sums() : Tensor();
  double* all = need ? sums.data_ptr<double>() : nullptr;
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "interpolate", [&] {
    const scalar_t* seed = g.const_data_ptr<scalar_t>();
    scalar_t* to = g_x.data_ptr<scalar_t>();
    in.run<scalar_t>([&](const Same& s) {
      Totals slopes;
      over_columns(in.c, [&](auto row, int64_t c) {
        using R = decltype(row);
        const Nodes<R> table(in.rows(in.table, s) + c, in.c);
        Nodes<R> taken;
        for (int64_t i = 0; i < s.n; ++i) {
          const auto own = widened<R>(seed + s.places[i] * in.c + c);
          auto slope = R::zero();
          table.mix_into(slope, s.weights[i].slope);
          slopes.add(i, slope, own);
          if (need) taken.take(s.weights[i].b, own);
        }
        if (need) taken.add_to(in.rows_of_part(all, s) + c, in.c);
      });
      for (int64_t i = 0; i < s.n; ++i) to[s.places[i]] = scalar_t(slopes.of(i));
    });
  });
  return {g_x, need ? in.joined(sums) : at::zeros({in.nodes, in.c}, in.table.options())};
}

// Gradients of <v, adjoint(g)> by g, x and the table. M: the table has a part in v.
template <class T, bool M>
void second_block(const Given& in, const Same& s, const T* seed, const T* ahead, const double* along, T* to_g, T* to, double* all) {
  Block moved;  // weights of v f'
  for (int64_t i = 0; i < s.n; ++i)
    for (int k = 0; k < POINTS; ++k) {
      const double v = double(ahead[s.places[i]]);
      moved[i].slope[k] = v * s.weights[i].slope[k], moved[i].bend[k] = v * s.weights[i].bend[k];
    }
  Totals bends;
  over_columns(in.c, [&](auto row, int64_t c) {
    using R = decltype(row);
    const Nodes<R> table(in.rows(in.table, s) + c, in.c), direction = M ? Nodes<R>(along + s.first * in.c + c, in.c) : Nodes<R>();
    Nodes<R> taken;
    for (int64_t i = 0; i < s.n; ++i) {
      const int64_t at = s.places[i] * in.c + c;
      const auto own = widened<R>(seed + at);
      auto change = R::zero(), bend = R::zero();
      table.mix_into(change, moved[i].slope);
      table.mix_into(bend, moved[i].bend);
      if constexpr (M) direction.mix_into(change, s.weights[i].b), direction.mix_into(bend, s.weights[i].slope);
      narrowed(change, to_g + at);
      bends.add(i, bend, own);
      taken.take(moved[i].slope, own);
    }
    taken.add_to(in.rows_of_part(all, s) + c, in.c);
  });
  for (int64_t i = 0; i < s.n; ++i) to[s.places[i]] = T(bends.of(i));
}

inline std::tuple<Tensor, Tensor, Tensor> interpolate_second(const Tensor& g_, const Tensor& x, const Tensor& table, const Maybe& v_x_,
                                                             const Maybe& v_table_, double low, double rate) {
  const Given in(x, table, low, rate);
  const auto g = g_.contiguous(), v_x = v_x_ ? v_x_->contiguous() : at::zeros(in.x.sizes(), in.x.options());
  const auto v_table = v_table_ ? v_table_->contiguous() : Tensor();
  auto g_g = at::empty(g.sizes(), g.options()), g_x = at::empty_like(in.x), sums = in.sums();
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "interpolate", [&] {
    using T = scalar_t;
    const T *seed = g.const_data_ptr<T>(), *ahead = v_x.const_data_ptr<T>();
    const double* along = v_table_ ? v_table.const_data_ptr<double>() : nullptr;
    T *to_g = g_g.data_ptr<T>(), *to = g_x.data_ptr<T>();
    double* all = sums.data_ptr<double>();
    in.run<T>([&](const Same& s) {
      (along ? second_block<T, true> : second_block<T, false>)(in, s, seed, ahead, along, to_g, to, all);
    });
  });
  return {g_g, g_x, in.joined(sums)};
}

namespace recorded {
using namespace gradients;
Tensor interpolate(const Tensor& x, const Tensor& table, double low, double rate);
std::tuple<Tensor, Tensor> interpolate_adjoint(const Tensor& g, const Tensor& x, const Tensor& table, double low, double rate, bool need);
std::tuple<Tensor, Tensor, Tensor> interpolate_second(const Tensor& g, const Tensor& x, const Tensor& table, const Maybe& v_x,
                                                      const Maybe& v_table, double low, double rate);

struct Forward : Function<Forward> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& table, double low, double rate) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({x, table});
    ctx->saved_data["low"] = low, ctx->saved_data["rate"] = rate;
    return FORGEFIELD_CALL(interpolate, x, table, low, rate);
  }
  static variable_list backward(AutogradContext* ctx, variable_list g) {
    const Quiet quiet;
    const auto s = ctx->get_saved_variables();
    const double low = ctx->saved_data["low"].toDouble(), rate = ctx->saved_data["rate"].toDouble();
    const bool need = ctx->needs_input_grad(1);
    const auto [g_x, g_table] = FORGEFIELD_CALL(interpolate_adjoint, g[0], s[0], s[1], low, rate, need);
    return joined(g_x, need ? g_table : Tensor(), none(2));
  }
};

struct Adjoint : Function<Adjoint> {
  static variable_list forward(AutogradContext* ctx, const Tensor& g, const Tensor& x, const Tensor& table, double low, double rate,
                               bool need) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({g, x, table});
    ctx->saved_data["low"] = low, ctx->saved_data["rate"] = rate;
    ctx->set_materialize_grads(false);
    const auto [g_x, g_table] = FORGEFIELD_CALL(interpolate_adjoint, g, x, table, low, rate, need);
    return {g_x, g_table};
  }
  static variable_list backward(AutogradContext* ctx, variable_list v) {
    const Quiet quiet;
    if (!v[0].defined() && !v[1].defined()) return none(6);
    const auto s = ctx->get_saved_variables();
    const double low = ctx->saved_data["low"].toDouble(), rate = ctx->saved_data["rate"].toDouble();
    const auto [g_g, g_x, g_table] = FORGEFIELD_CALL(interpolate_second, s[0], s[1], s[2], maybe(v[0]), maybe(v[1]), low, rate);
    return joined(g_g, g_x, g_table, none(3));
  }
};

inline Tensor interpolate(const Tensor& x, const Tensor& table, double low, double rate) { return Forward::apply(x, table, low, rate); }
inline std::tuple<Tensor, Tensor> interpolate_adjoint(const Tensor& g, const Tensor& x, const Tensor& table, double low, double rate,
                                                      bool need) {
  const auto out = Adjoint::apply(g, x, table, low, rate, need);
  return {out[0], out[1]};
}
}  // namespace recorded
}  // namespace tables
