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

namespace tables {
using at::Tensor;
using Maybe = std::optional<Tensor>;
constexpr int POINTS = 8;
constexpr int64_t PARTS = 4, FEW = 256;  // parts of the rows, each with sums of its own; rows that are one part

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

struct Weights {
  int64_t first;  // node
  double b[POINTS], slope[POINTS], bend[POINTS];
  Weights(double x, double low, double rate, int64_t nodes) {
    first = first_node(x, low, rate, nodes);
    const double t = (x - low) * rate - double(first + 3);
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

// <g, f'(x)>
template <class T>
double steepness(const Weights& w, const double* from, const T* g, int64_t width) {
  double total = 0.0;
#pragma omp simd reduction(+ : total)
  for (int64_t c = 0; c < width; ++c) {
    double sum = 0.0;
    for (int k = 0; k < POINTS; ++k) sum += w.slope[k] * from[k * width + c];
    total += sum * double(g[c]);
  }
  return total;
}

// How f moves along v of x and a direction of the table, into `to`; the slope of its product with g is returned.
template <class T>
double change(const Weights& w, const double* from, const double* along, double v, const T* g, T* to, int64_t width) {
  double total = 0.0;
#pragma omp simd reduction(+ : total)
  for (int64_t c = 0; c < width; ++c) {
    double moved = 0.0, bent = 0.0;
    for (int k = 0; k < POINTS; ++k) {
      const double row = from[k * width + c], direction = along[k * width + c];
      moved += v * w.slope[k] * row + w.b[k] * direction;
      bent += v * w.bend[k] * row + w.slope[k] * direction;
    }
    to[c] = T(moved);
    total += bent * double(g[c]);
  }
  return total;
}

struct Given {
  Tensor x, table;
  double low, rate;
  int64_t count, nodes, c;
  Given(const Tensor& x_, const Tensor& table_, double low_, double rate_)
      : x(x_.contiguous()), table(table_.contiguous()), low(low_), rate(rate_), count(x.numel()), nodes(table.size(0)), c(table.size(1)) {
    TORCH_CHECK(table.scalar_type() == at::kDouble && nodes >= POINTS, "interpolate: the table must hold eight rows of double precision");
  }
  // The rows in the order of their nodes, so that those of the table that are used stay in the first-level cache.
  template <class T>
  std::vector<int64_t> order() const {
    const T* at = x.const_data_ptr<T>();
    std::vector<int64_t> place(count), begin(nodes + 1, 0), found(count);
    for (int64_t i = 0; i < count; ++i) ++begin[1 + (place[i] = first_node(double(at[i]), low, rate, nodes))];
    for (int64_t k = 0; k < nodes; ++k) begin[k + 1] += begin[k];
    for (int64_t i = 0; i < count; ++i) found[begin[place[i]]++] = i;
    return found;
  }
  // Calls `work(row, weights, part)`: parts have the same rows with any number of threads.
  template <class T, class F>
  void run(F&& work) const {
    const int64_t parts = std::clamp<int64_t>(count / FEW, 1, PARTS);
    const auto rows = order<T>();
    const T* at = x.const_data_ptr<T>();
    at::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
      for (int64_t part = begin; part < end; ++part)
        for (int64_t k = part * count / parts; k < (part + 1) * count / parts; ++k)
          work(rows[k], Weights(at[rows[k]], low, rate, nodes), part);
    });
  }
  const double* rows(const Tensor& t, const Weights& w) const { return t.const_data_ptr<double>() + w.first * c; }
  Tensor sums() const { return at::zeros({PARTS, nodes, c}, table.options()); }
};

inline Tensor interpolate(const Tensor& x, const Tensor& table, double low, double rate) {
  const Given in(x, table, low, rate);
  auto y = at::empty({in.count, in.c}, x.options());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "interpolate", [&] {
    using T = scalar_t;
    T* to = y.data_ptr<T>();
    in.run<T>([&](int64_t i, const Weights& w, int64_t) {
      const double* from = in.rows(in.table, w);
      for (int64_t c = 0; c < in.c; ++c) {
        double sum = 0.0;
        for (int k = 0; k < POINTS; ++k) sum += w.b[k] * from[k * in.c + c];
        to[i * in.c + c] = T(sum);
      }
    });
  });
  return y;
}

inline std::tuple<Tensor, Tensor> interpolate_adjoint(const Tensor& g_, const Tensor& x, const Tensor& table, double low, double rate,
                                                      bool need) {
  const Given in(x, table, low, rate);
  const auto g = g_.contiguous();
  auto g_x = at::empty_like(in.x), sums = need ? in.sums() : at::zeros({1, in.nodes, in.c}, in.table.options());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "interpolate", [&] {
    using T = scalar_t;
    const T* seed = g.const_data_ptr<T>();
    T* to = g_x.data_ptr<T>();
    double* all = sums.data_ptr<double>();
    in.run<T>([&](int64_t i, const Weights& w, int64_t part) {
      const double* from = in.rows(in.table, w);
      const T* own = seed + i * in.c;
      to[i] = T(steepness(w, from, own, in.c));
      if (!need) return;
      double* row = all + (part * in.nodes + w.first) * in.c;
      for (int k = 0; k < POINTS; ++k, row += in.c)
        for (int64_t c = 0; c < in.c; ++c) row[c] += w.b[k] * double(own[c]);
    });
  });
  return {g_x, sums.sum(0)};
}

// Gradients of <v, adjoint(g)> by g, x and the table.
inline std::tuple<Tensor, Tensor, Tensor> interpolate_second(const Tensor& g_, const Tensor& x, const Tensor& table, const Maybe& v_x_,
                                                             const Maybe& v_table_, double low, double rate) {
  const Given in(x, table, low, rate);
  const auto g = g_.contiguous(), v_x = v_x_ ? v_x_->contiguous() : at::zeros(in.x.sizes(), in.x.options());
  const auto v_table = v_table_ ? v_table_->contiguous() : at::zeros(in.table.sizes(), in.table.options());
  auto g_g = at::empty(g.sizes(), g.options()), g_x = at::empty_like(in.x), sums = in.sums();
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "interpolate", [&] {
    using T = scalar_t;
    const T *seed = g.const_data_ptr<T>(), *ahead = v_x.const_data_ptr<T>();
    T *to_g = g_g.data_ptr<T>(), *to = g_x.data_ptr<T>();
    double* all = sums.data_ptr<double>();
    in.run<T>([&](int64_t i, const Weights& w, int64_t part) {
      const double *from = in.rows(in.table, w), *along = in.rows(v_table, w), v = double(ahead[i]);
      const T* own = seed + i * in.c;
      to[i] = T(change(w, from, along, v, own, to_g + i * in.c, in.c));
      double* row = all + (part * in.nodes + w.first) * in.c;
      for (int k = 0; k < POINTS; ++k, row += in.c) {
        const double factor = v * w.slope[k];
        for (int64_t c = 0; c < in.c; ++c) row[c] += factor * double(own[c]);
      }
    });
  });
  return {g_g, g_x, sums.sum(0)};
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
