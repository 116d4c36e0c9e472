// Layers of edge-gated messages as operators: tensors, tasks for the threads, and gradients.
#pragma once
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "gated_layer.h"
#include "gradients.h"

namespace layers {
using at::Tensor;
using Maybe = std::optional<Tensor>;
constexpr int64_t TASKS = 16, COPIES = 8, MANY = 2048;  // tasks at most; of them with sums of their own; edges worth that

#define FORGEFIELD_LAYER                                                                                                  \
  const Tensor &in, const Tensor &matrix, const Tensor &bias, const Tensor &nodes, const Tensor &weight,                  \
      const Tensor &norm_weight, const Tensor &norm_bias, const Tensor &source, const Tensor &target, const Tensor &place
#define FORGEFIELD_LAYER_NAMES in, matrix, bias, nodes, weight, norm_weight, norm_bias, source, target, place

struct Given {
  Tensor in, matrix, bias, nodes, weight, norm_weight, norm_bias, source, target, place;
  bool joined, alone = true;  // alone: tasks share no row of sums, of nodes or of `in`
  int64_t count, n, c, touched = 0;  // touched: rows of `in` that some edge has
  std::vector<int64_t> cuts;
  std::vector<char> fresh;

  explicit Given(FORGEFIELD_LAYER)
      : in(in.contiguous()), matrix(matrix.contiguous()), bias(bias.contiguous()), nodes(nodes.contiguous()),
        weight(weight.contiguous()), norm_weight(norm_weight.contiguous()), norm_bias(norm_bias.contiguous()),
        source(source.contiguous()), target(target.contiguous()), place(place.contiguous()), joined(matrix.numel() == 0),
        count(source.numel()), n(nodes.size(0)), c(nodes.size(1) / 3) {
    TORCH_CHECK(nodes.dim() == 2 && nodes.size(1) == 3 * c && in.dim() == 2, "gated_layer: wrong number of axes");
    TORCH_CHECK(target.numel() == count && weight.numel() == count, "gated_layer: numbers of edges differ");
    TORCH_CHECK(norm_weight.numel() == c && norm_bias.numel() == c, "gated_layer: widths differ");
    TORCH_CHECK(!joined || (in.size(1) == 2 * c && place.numel() == count), "gated_layer: shared rows must hold features and gates");
    TORCH_CHECK(joined || (in.size(0) == count && in.size(1) == c && matrix.numel() == c * c && bias.numel() == c),
                "gated_layer: widths differ");
    for (const auto* t : {&this->matrix, &this->bias, &this->nodes, &this->weight, &this->norm_weight, &this->norm_bias})
      TORCH_CHECK(t->scalar_type() == in.scalar_type(), "gated_layer: types differ");
    divide();
  }

  // Tasks are runs of edges whose sources, targets and places no other run has; if there are none, each has its own sums.
  void divide() {
    const int64_t *from = source.const_data_ptr<int64_t>(), *to = target.const_data_ptr<int64_t>();
    const int64_t* at = joined ? place.const_data_ptr<int64_t>() : nullptr;
    const int64_t rows = joined ? in.size(0) : 0;
    std::vector<int64_t> last(2 * n + rows, -1);
    fresh.assign(at ? count : 0, 0);
    for (int64_t e = 0; e < count; ++e) {
      TORCH_CHECK(from[e] >= 0 && from[e] < n && to[e] >= 0 && to[e] < n, "gated_layer: an edge leads out of the graph");
      TORCH_CHECK(!at || (at[e] >= 0 && at[e] < rows), "gated_layer: an edge has no features");
      last[from[e]] = e, last[n + to[e]] = e;
      if (!at) continue;
      if (last[2 * n + at[e]] < 0) fresh[e] = 1, ++touched;
      last[2 * n + at[e]] = e;
    }
    const int64_t share = std::max<int64_t>(BLOCK, (count + TASKS - 1) / TASKS);
    cuts.push_back(0);
    for (int64_t e = 0, reach = 0; e < count; ++e) {
      reach = std::max({reach, last[from[e]], last[n + to[e]], at ? last[2 * n + at[e]] : 0});
      if (reach == e && (e + 1 - cuts.back() >= share || e + 1 == count)) cuts.push_back(e + 1);
    }
    if (joined || cuts.size() > 4 || count < MANY) return;
    alone = false;
    cuts.resize(COPIES + 1);
    for (int64_t k = 0; k <= COPIES; ++k) cuts[k] = k * count / COPIES;
  }

  int64_t tasks() const { return int64_t(cuts.size()) - 1; }
  Tensor per_node(int64_t parts) const {
    if (alone) return at::zeros({n, parts * c}, in.options());
    return at::zeros({COPIES, n, parts * c}, in.options());
  }
  Tensor added(const Tensor& t) const { return alone ? t : t.sum(0); }
  Tensor rows() const {
    return joined && touched < in.size(0) ? at::zeros(in.sizes(), in.options()) : at::empty(in.sizes(), in.options());
  }
  Tensor shares(bool need) const { return at::zeros({need ? std::max<int64_t>(tasks(), 1) : 0, c * (c + 3)}, in.options()); }
  Tensor kept(bool keep) const { return at::empty({keep ? count : 0, c}, in.options()); }

  // Calls `work(row type, layer, task, first edge, last edge)`.
  template <class T, class F>
  void run(F&& work) const {
    switch (c / LANES<T>) {
      case 1: return run<T, 1>(work);
      case 2: return run<T, 2>(work);
      case 4: return run<T, 4>(work);
      case 8: return run<T, 8>(work);
      default: return run<T, 16>(work);
    }
  }
  template <class T, int N, class F>
  void run(F&& work) const {
    TORCH_CHECK(c == N * LANES<T>, "gated_layer: ", c, " features are not 1, 2, 4, 8 or 16 vectors");
    const int64_t size = joined ? 0 : packed_size<T>(c, c);
    Scratch<T> packed(2 * size + 1);
    const T* w = matrix.const_data_ptr<T>();
    if (!joined)
      for (int64_t k = 0; k < c; k += PANEL<T>) {
        pack_panel<T>(packed.data() + k * c, w + k * c, c, 1, c, c - k);
        pack_panel<T>(packed.data() + size + k * c, w + k, c, c, 1, c - k);
      }
    const Layer<T> layer{c, joined, in.const_data_ptr<T>(), bias.const_data_ptr<T>(), nodes.const_data_ptr<T>(),
                         weight.const_data_ptr<T>(), norm_weight.const_data_ptr<T>(), norm_bias.const_data_ptr<T>(), packed.data(),
                         packed.data() + size, source.const_data_ptr<int64_t>(), target.const_data_ptr<int64_t>(),
                         joined ? place.const_data_ptr<int64_t>() : nullptr, fresh.data()};
    at::parallel_for(0, tasks(), 1, [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k) work(Row<T, 64, N>{}, layer, alone ? 0 : k, k, cuts[k], cuts[k + 1]);
    });
  }
  // Gradients by matrix, bias and the norm's parameters.
  std::tuple<Tensor, Tensor, Tensor, Tensor> parameters(const Tensor& shares) const {
    const auto sum = shares.sum(0);
    const auto part = [&](int64_t at, int64_t size) { return sum.narrow(0, at, size).clone(); };
    const bool own = !joined && shares.size(0) > 0;
    const auto by_matrix = own ? part(0, c * c).view({c, c}) : at::zeros(matrix.sizes(), in.options());
    const auto by_bias = own ? part(c * c, c) : at::zeros(bias.sizes(), in.options());
    return {by_matrix, by_bias, part(c * (c + 1), c), part(c * (c + 2), c)};
  }
};

template <class T>
T* pointer(const Tensor& t) {
  return t.defined() && t.numel() ? const_cast<T*>(t.const_data_ptr<T>()) : nullptr;
}
inline Tensor packed(const Maybe& t) { return t ? t->contiguous() : Tensor(); }

inline std::tuple<Tensor, Tensor> gated_layer(FORGEFIELD_LAYER, bool keep) {
  const Given x(FORGEFIELD_LAYER_NAMES);
  const auto sums = x.per_node(2), kept = x.kept(keep);
  AT_DISPATCH_FLOATING_TYPES(in.scalar_type(), "gated_layer", [&] {
    using T = scalar_t;
    x.run<T>([&](auto r, const Layer<T>& layer, int64_t copy, int64_t, int64_t begin, int64_t end) {
      forward<T, decltype(r)>(layer, begin, end, pointer<T>(sums) + copy * x.n * 2 * x.c, pointer<T>(kept));
    });
  });
  return {x.added(sums), kept};
}

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;  // in the order of the inputs
inline Gradients gated_layer_adjoint(const Tensor& g_, const Maybe& g_kept_, FORGEFIELD_LAYER, bool need) {
  const Given x(FORGEFIELD_LAYER_NAMES);
  const auto g = g_.contiguous(), g_kept = packed(g_kept_);
  const auto g_in = x.rows(), g_nodes = x.per_node(3), g_weight = at::empty(weight.sizes(), in.options()), shares = x.shares(need);
  AT_DISPATCH_FLOATING_TYPES(in.scalar_type(), "gated_layer", [&] {
    using T = scalar_t;
    x.run<T>([&](auto r, const Layer<T>& layer, int64_t copy, int64_t task, int64_t begin, int64_t end) {
      T* own = need ? pointer<T>(shares) + task * x.c * (x.c + 3) : nullptr;
      const AdjointTo<T> to{pointer<T>(g_in), pointer<T>(g_nodes) + copy * x.n * 3 * x.c, pointer<T>(g_weight), own};
      adjoint<T, decltype(r)>(layer, pointer<T>(g), pointer<T>(g_kept), begin, end, to);
    });
  });
  const auto [by_matrix, by_bias, by_norm, by_shift] = x.parameters(shares);
  return {g_in, by_matrix, by_bias, x.added(g_nodes), g_weight, by_norm, by_shift};
}

// Gradients of <v, adjoint(g)> by g, by the gradient of y', and by the inputs.
using Seconds = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;
inline Seconds gated_layer_second(const Tensor& g_, const Maybe& g_kept_, FORGEFIELD_LAYER, const Maybe& v_in_, const Maybe& v_nodes_,
                                  const Maybe& v_weight_) {
  const Given x(FORGEFIELD_LAYER_NAMES);
  const auto g = g_.contiguous(), g_kept = packed(g_kept_), v_in = packed(v_in_), v_nodes = packed(v_nodes_), v_weight = packed(v_weight_);
  const auto g_g = x.per_node(2), g_g_kept = x.kept(g_kept.defined()), g_in = x.rows(), g_nodes = x.per_node(3);
  const auto g_weight = at::empty(weight.sizes(), in.options()), shares = x.shares(true);
  AT_DISPATCH_FLOATING_TYPES(in.scalar_type(), "gated_layer", [&] {
    using T = scalar_t;
    x.run<T>([&](auto r, const Layer<T>& layer, int64_t copy, int64_t task, int64_t begin, int64_t end) {
      const SecondTo<T> to{pointer<T>(g_g) + copy * x.n * 2 * x.c,     pointer<T>(g_g_kept), pointer<T>(g_in),
                           pointer<T>(g_nodes) + copy * x.n * 3 * x.c, pointer<T>(g_weight), pointer<T>(shares) + task * x.c * (x.c + 3)};
      const Along<T> v{pointer<T>(v_in), pointer<T>(v_nodes), pointer<T>(v_weight)};
      second<T, decltype(r)>(layer, pointer<T>(g), pointer<T>(g_kept), v, begin, end, to);
    });
  });
  const auto [by_matrix, by_bias, by_norm, by_shift] = x.parameters(shares);
  return {x.added(g_g), g_g_kept, g_in, by_matrix, by_bias, x.added(g_nodes), g_weight, by_norm, by_shift};
}

namespace recorded {
using namespace gradients;
std::tuple<Tensor, Tensor> gated_layer(FORGEFIELD_LAYER, bool keep);
Gradients gated_layer_adjoint(const Tensor& g, const Maybe& g_kept, FORGEFIELD_LAYER, bool need);
Seconds gated_layer_second(const Tensor& g, const Maybe& g_kept, FORGEFIELD_LAYER, const Maybe& v_in, const Maybe& v_nodes,
                           const Maybe& v_weight);
#define FORGEFIELD_SAVED(s, k) s[k], s[k + 1], s[k + 2], s[k + 3], s[k + 4], s[k + 5], s[k + 6], s[k + 7], s[k + 8], s[k + 9]

struct Forward : Function<Forward> {
  static variable_list forward(AutogradContext* ctx, FORGEFIELD_LAYER, bool keep) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({FORGEFIELD_LAYER_NAMES});
    ctx->saved_data["keep"] = keep;
    const auto [sums, kept] = FORGEFIELD_CALL(gated_layer, FORGEFIELD_LAYER_NAMES, keep);
    return {sums, kept};
  }
  static variable_list backward(AutogradContext* ctx, variable_list g) {
    const Quiet quiet;
    const auto s = ctx->get_saved_variables();
    const Maybe g_kept = ctx->saved_data["keep"].toBool() ? maybe(g[1]) : std::nullopt;
    const bool need = ctx->needs_input_grad(1) || ctx->needs_input_grad(2) || ctx->needs_input_grad(5) || ctx->needs_input_grad(6);
    const auto [by_in, by_matrix, by_bias, by_nodes, by_weight, by_norm, by_shift] =
        FORGEFIELD_CALL(gated_layer_adjoint, g[0], g_kept, FORGEFIELD_SAVED(s, 0), need);
    if (!need) return {by_in, Tensor(), Tensor(), by_nodes, by_weight, Tensor(), Tensor(), Tensor(), Tensor(), Tensor(), Tensor()};
    return joined(by_in, by_matrix, by_bias, by_nodes, by_weight, by_norm, by_shift, none(4));
  }
};

struct Adjoint : Function<Adjoint> {
  static variable_list forward(AutogradContext* ctx, const Tensor& g, const Maybe& g_kept, FORGEFIELD_LAYER, bool need) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({g, g_kept ? *g_kept : Tensor(), FORGEFIELD_LAYER_NAMES});
    ctx->set_materialize_grads(false);
    const auto [by_in, by_matrix, by_bias, by_nodes, by_weight, by_norm, by_shift] =
        FORGEFIELD_CALL(gated_layer_adjoint, g, g_kept, FORGEFIELD_LAYER_NAMES, need);
    return {by_in, by_matrix, by_bias, by_nodes, by_weight, by_norm, by_shift};
  }
  static variable_list backward(AutogradContext* ctx, variable_list v) {
    const Quiet quiet;
    for (const int k : {1, 2, 5, 6}) TORCH_CHECK(!v[k].defined(), "gated_layer: no derivative of the gradients by its parameters");
    if (!v[0].defined() && !v[3].defined() && !v[4].defined()) return none(13);
    const auto s = ctx->get_saved_variables();
    const auto [by_g, by_g_kept, by_in, by_matrix, by_bias, by_nodes, by_weight, by_norm, by_shift] =
        FORGEFIELD_CALL(gated_layer_second, s[0], maybe(s[1]), FORGEFIELD_SAVED(s, 2), maybe(v[0]), maybe(v[3]), maybe(v[4]));
    return joined(by_g, s[1].defined() ? by_g_kept : Tensor(), by_in, by_matrix, by_bias, by_nodes, by_weight, by_norm, by_shift, none(4));
  }
};

inline std::tuple<Tensor, Tensor> gated_layer(FORGEFIELD_LAYER, bool keep) {
  const auto out = Forward::apply(FORGEFIELD_LAYER_NAMES, keep);
  return {out[0], out[1]};
}
inline Gradients gated_layer_adjoint(const Tensor& g, const Maybe& g_kept, FORGEFIELD_LAYER, bool need) {
  const auto out = Adjoint::apply(g, g_kept, FORGEFIELD_LAYER_NAMES, need);
  return {out[0], out[1], out[2], out[3], out[4], out[5], out[6]};
}
}  // namespace recorded
}  // namespace layers
