// Sums of gated messages over the edges of a graph, and their first two derivatives.
//
//   m = edge + send[source] + take[target], s = weight sigmoid(m)
//   sums[target] = (sum of s value[source], sum of s)
//
// `nodes` holds send, take and value side by side. Chunks of edges share no node, so that no two threads write to one row.
#pragma once
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "gradients.h"
#include "sigmoid.h"

namespace gates {
using at::Tensor;
using Maybe = std::optional<Tensor>;
constexpr int64_t EDGES = 1024;  // of a chunk, at least

struct Given {
  Tensor edge, nodes, weight, source, target;
  std::vector<int64_t> cuts;
  Given(const Tensor& edge_, const Tensor& nodes_, const Tensor& weight_, const Tensor& source_, const Tensor& target_)
      : edge(edge_.contiguous()), nodes(nodes_.contiguous()), weight(weight_.contiguous()), source(source_.contiguous()),
        target(target_.contiguous()) {
    TORCH_CHECK(edge.dim() == 2 && nodes.dim() == 2 && nodes.size(1) == 3 * edge.size(1), "gated_sum: widths differ");
    TORCH_CHECK(weight.numel() == edge.size(0) && source.numel() == edge.size(0) && target.numel() == edge.size(0), "gated_sum: sizes differ");
    TORCH_CHECK(edge.scalar_type() == nodes.scalar_type() && edge.scalar_type() == weight.scalar_type(), "gated_sum: types differ");
    const int64_t count = edge.size(0), n = nodes.size(0);
    const int64_t *from = source.const_data_ptr<int64_t>(), *to = target.const_data_ptr<int64_t>();
    std::vector<int64_t> last(n, -1);
    for (int64_t e = 0; e < count; ++e) {
      TORCH_CHECK(from[e] >= 0 && from[e] < n && to[e] >= 0 && to[e] < n, "gated_sum: an edge leads out of the graph");
      last[from[e]] = e, last[to[e]] = e;
    }
    cuts.push_back(0);
    for (int64_t e = 0, reach = 0; e < count; ++e) {
      reach = std::max({reach, last[from[e]], last[to[e]]});
      if (reach == e && (e + 1 - cuts.back() >= EDGES || e + 1 == count)) cuts.push_back(e + 1);
    }
  }
  int64_t width() const { return edge.size(1); }
  Tensor per_node(int64_t parts) const { return at::zeros({nodes.size(0), parts * width()}, edge.options()); }
  // Calls `work(edge, row type, first channel)` for all edges and channels.
  template <class T, class F>
  void over(F&& work) const {
    at::parallel_for(0, int64_t(cuts.size()) - 1, 1, [&](int64_t begin, int64_t end) {
      for (int64_t e = cuts[begin]; e < cuts[end]; ++e) over_channels<T, 4>(width(), [&](auto r, int64_t c) { work(e, r, c); });
    });
  }
};

template <class T>
struct View {
  int64_t c;
  const T *edge, *nodes, *weight;
  const int64_t *source, *target;
  explicit View(const Given& in)
      : c(in.width()), edge(in.edge.const_data_ptr<T>()), nodes(in.nodes.const_data_ptr<T>()), weight(in.weight.const_data_ptr<T>()),
        source(in.source.const_data_ptr<int64_t>()), target(in.target.const_data_ptr<int64_t>()) {}
  const T* send(const T* x, int64_t e) const { return x + source[e] * 3 * c; }
  const T* take(const T* x, int64_t e) const { return x + target[e] * 3 * c + c; }
  const T* value(const T* x, int64_t e) const { return x + source[e] * 3 * c + 2 * c; }
  // edge + send + take of any tensors of these forms
  template <class R>
  R joined(const T* edges, const T* rows, int64_t e, int64_t k) const {
    auto m = edges ? R::load(edges + e * c + k) : R::zero();
    if (rows) m.add(R::load(send(rows, e) + k)), m.add(R::load(take(rows, e) + k));
    return m;
  }
};

inline std::tuple<Tensor, Tensor> gated_sum(const Tensor& edge, const Tensor& nodes, const Tensor& weight, const Tensor& source,
                                            const Tensor& target, bool keep) {
  const Given in(edge, nodes, weight, source, target);
  auto sums = in.per_node(2), kept = at::empty({keep ? edge.size(0) : 0, in.width()}, edge.options());
  AT_DISPATCH_FLOATING_TYPES(edge.scalar_type(), "gated_sum", [&] {
    using T = scalar_t;
    const View<T> x(in);
    T *to = sums.data_ptr<T>(), *m_to = keep ? kept.data_ptr<T>() : nullptr;
    in.over<T>([&](int64_t e, auto r, int64_t k) {
      using R = decltype(r);
      const R m = x.template joined<R>(x.edge, x.nodes, e, k);
      const R s = sigmoid(m).times(x.weight[e]);
      T* row = to + x.target[e] * 2 * x.c + k;
      s.times(R::load(x.value(x.nodes, e) + k)).add_to(row);
      s.add_to(row + x.c);
      if (m_to) m.store(m_to + e * x.c + k);
    });
  });
  return {sums, kept};
}

inline std::tuple<Tensor, Tensor, Tensor> gated_sum_adjoint(const Tensor& g_, const Maybe& g_m_, const Tensor& edge, const Tensor& nodes,
                                                            const Tensor& weight, const Tensor& source, const Tensor& target) {
  const Given in(edge, nodes, weight, source, target);
  const auto g = g_.contiguous(), g_m = g_m_ ? g_m_->contiguous() : Tensor();
  auto g_edge = at::empty(in.edge.sizes(), edge.options()), g_nodes = in.per_node(3);
  auto g_weight = at::zeros(weight.sizes(), weight.options());
  AT_DISPATCH_FLOATING_TYPES(edge.scalar_type(), "gated_sum", [&] {
    using T = scalar_t;
    const View<T> x(in);
    const T *from = g.const_data_ptr<T>(), *m_from = g_m.defined() ? g_m.const_data_ptr<T>() : nullptr;
    T *to_edge = g_edge.data_ptr<T>(), *to_nodes = g_nodes.data_ptr<T>(), *to_weight = g_weight.data_ptr<T>();
    in.over<T>([&](int64_t e, auto r, int64_t k) {
      using R = decltype(r);
      const R s = sigmoid(x.template joined<R>(x.edge, x.nodes, e, k)), value = R::load(x.value(x.nodes, e) + k);
      const T *row = from + x.target[e] * 2 * x.c + k, w = x.weight[e];
      const R g_sum = R::load(row), g_gate = R::load(row + x.c);
      R d = m_from ? R::load(m_from + e * x.c + k) : R::zero(), of_weight, of_value;
      for (size_t i = 0; i < std::size(d.v); ++i) {
        const auto by_gate = g_sum.v[i] * value.v[i] + g_gate.v[i];
        d.v[i] += w * by_gate * s.v[i] * (T(1) - s.v[i]);
        of_weight.v[i] = by_gate * s.v[i];
        of_value.v[i] = w * s.v[i] * g_sum.v[i];
      }
      d.store(to_edge + e * x.c + k);
      d.add_to(const_cast<T*>(x.send(to_nodes, e)) + k);
      d.add_to(const_cast<T*>(x.take(to_nodes, e)) + k);
      of_value.add_to(const_cast<T*>(x.value(to_nodes, e)) + k);
      to_weight[e] += of_weight.total();
    });
  });
  return {g_edge, g_nodes, g_weight};
}

// Gradients of <v, adjoint(g)> by g, the gradient of what was kept, edge, nodes and weight.
inline std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> gated_sum_second(
    const Tensor& g_, const Tensor& edge, const Tensor& nodes, const Tensor& weight, const Maybe& v_edge_, const Maybe& v_nodes_,
    const Maybe& v_weight_, const Tensor& source, const Tensor& target, bool keep) {
  const Given in(edge, nodes, weight, source, target);
  const auto packed = [](const Maybe& t) { return t ? t->contiguous() : Tensor(); };
  const auto g = g_.contiguous(), v_edge = packed(v_edge_), v_nodes = packed(v_nodes_), v_weight = packed(v_weight_);
  auto g_g = in.per_node(2), g_m = at::empty({keep ? edge.size(0) : 0, in.width()}, edge.options());
  auto g_edge = at::empty(in.edge.sizes(), edge.options()), g_nodes = in.per_node(3);
  auto g_weight = at::zeros(weight.sizes(), weight.options());
  AT_DISPATCH_FLOATING_TYPES(edge.scalar_type(), "gated_sum", [&] {
    using T = scalar_t;
    const View<T> x(in);
    const auto at = [](const Tensor& t) { return t.defined() ? t.const_data_ptr<T>() : nullptr; };
    const T *from = at(g), *along = at(v_edge), *rows = at(v_nodes), *ahead = at(v_weight);
    T *to_g = g_g.data_ptr<T>(), *to_m = keep ? g_m.data_ptr<T>() : nullptr, *to_edge = g_edge.data_ptr<T>();
    T *to_nodes = g_nodes.data_ptr<T>(), *to_weight = g_weight.data_ptr<T>();
    in.over<T>([&](int64_t e, auto r, int64_t k) {
      using R = decltype(r);
      const R s = sigmoid(x.template joined<R>(x.edge, x.nodes, e, k)), value = R::load(x.value(x.nodes, e) + k);
      const R p = x.template joined<R>(along, rows, e, k), q = rows ? R::load(x.value(rows, e) + k) : R::zero();
      const T w = x.weight[e], u = ahead ? ahead[e] : T(0);
      const int64_t place = x.target[e] * 2 * x.c + k;
      const R g_sum = R::load(from + place), g_gate = R::load(from + place + x.c);
      R d, moved, by_sum, of_value, of_weight;
      for (size_t i = 0; i < std::size(d.v); ++i) {
        const auto slope = s.v[i] * (T(1) - s.v[i]), bend = slope * (T(1) - T(2) * s.v[i]);
        const auto by_gate = g_sum.v[i] * value.v[i] + g_gate.v[i], across = g_sum.v[i] * q.v[i];
        moved.v[i] = u * s.v[i] + w * slope * p.v[i];
        by_sum.v[i] = value.v[i] * moved.v[i] + w * s.v[i] * q.v[i];
        d.v[i] = by_gate * (u * slope + w * bend * p.v[i]) + across * w * slope;
        of_value.v[i] = g_sum.v[i] * moved.v[i];
        of_weight.v[i] = by_gate * slope * p.v[i] + across * s.v[i];
      }
      by_sum.add_to(to_g + place);
      moved.add_to(to_g + place + x.c);
      if (to_m) p.store(to_m + e * x.c + k);
      d.store(to_edge + e * x.c + k);
      d.add_to(const_cast<T*>(x.send(to_nodes, e)) + k);
      d.add_to(const_cast<T*>(x.take(to_nodes, e)) + k);
      of_value.add_to(const_cast<T*>(x.value(to_nodes, e)) + k);
      to_weight[e] += of_weight.total();
    });
  });
  return {g_g, g_m, g_edge, g_nodes, g_weight};
}

namespace recorded {
using namespace gradients;
#define FORGEFIELD_GRAPH const Tensor &edge, const Tensor &nodes, const Tensor &weight, const Tensor &source, const Tensor &target
std::tuple<Tensor, Tensor> gated_sum(FORGEFIELD_GRAPH, bool keep);
std::tuple<Tensor, Tensor, Tensor> gated_sum_adjoint(const Tensor& g, const Maybe& g_m, FORGEFIELD_GRAPH);
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> gated_sum_second(const Tensor& g, const Tensor& edge, const Tensor& nodes,
                                                                    const Tensor& weight, const Maybe& v_edge, const Maybe& v_nodes,
                                                                    const Maybe& v_weight, const Tensor& source, const Tensor& target,
                                                                    bool keep);

struct Sum : Function<Sum> {
  static variable_list forward(AutogradContext* ctx, FORGEFIELD_GRAPH, bool keep) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({edge, nodes, weight, source, target});
    ctx->saved_data["keep"] = keep;
    const auto [sums, kept] = FORGEFIELD_CALL(gated_sum, edge, nodes, weight, source, target, keep);
    return {sums, kept};
  }
  static variable_list backward(AutogradContext* ctx, variable_list g) {
    const Quiet quiet;
    const auto s = ctx->get_saved_variables();
    const Maybe g_m = ctx->saved_data["keep"].toBool() ? maybe(g[1]) : std::nullopt;
    const auto [g_edge, g_nodes, g_weight] = FORGEFIELD_CALL(gated_sum_adjoint, g[0], g_m, s[0], s[1], s[2], s[3], s[4]);
    return joined(g_edge, g_nodes, g_weight, none(3));
  }
};

struct SumAdjoint : Function<SumAdjoint> {
  static variable_list forward(AutogradContext* ctx, const Tensor& g, const Maybe& g_m, FORGEFIELD_GRAPH) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({g, edge, nodes, weight, source, target});
    ctx->saved_data["keep"] = g_m.has_value();
    ctx->set_materialize_grads(false);
    const auto [g_edge, g_nodes, g_weight] = FORGEFIELD_CALL(gated_sum_adjoint, g, g_m, edge, nodes, weight, source, target);
    return {g_edge, g_nodes, g_weight};
  }
  static variable_list backward(AutogradContext* ctx, variable_list v) {
    const Quiet quiet;
    const auto s = ctx->get_saved_variables();
    const bool keep = ctx->saved_data["keep"].toBool();
    const auto [g_g, g_m, g_edge, g_nodes, g_weight] =
        FORGEFIELD_CALL(gated_sum_second, s[0], s[1], s[2], s[3], maybe(v[0]), maybe(v[1]), maybe(v[2]), s[4], s[5], keep);
    return joined(g_g, keep ? g_m : Tensor(), g_edge, g_nodes, g_weight, none(2));
  }
};

inline std::tuple<Tensor, Tensor> gated_sum(FORGEFIELD_GRAPH, bool keep) {
  const auto out = Sum::apply(edge, nodes, weight, source, target, keep);
  return {out[0], out[1]};
}
inline std::tuple<Tensor, Tensor, Tensor> gated_sum_adjoint(const Tensor& g, const Maybe& g_m, FORGEFIELD_GRAPH) {
  const auto out = SumAdjoint::apply(g, g_m, edge, nodes, weight, source, target);
  return {out[0], out[1], out[2]};
}
}  // namespace recorded
}  // namespace gates
