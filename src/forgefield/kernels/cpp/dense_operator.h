// Networks with biases and GELU, or SiLU (`silu`), as operators, with their gradients. The first inputs may come from a table (T, F) whose rows are
// repeated: x then lacks them, and `row` names the table's row of each row of x. `z` are the inputs of the GELUs.
#pragma once
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include "dense.h"
#include "gradients.h"
#include "parts.h"

namespace dense {
using at::Tensor;
using at::TensorList;
using gradients::Maybe;

using parts::packed;
using parts::Parts;
using parts::read;
using parts::write;
using Whole = std::tuple<Tensor, Tensor, Parts, Parts>;
using Bent = std::tuple<Tensor, Parts, Parts>;

// A network's matrices and z, contiguous and of one type.
struct Net {
  Parts weights, z;
  int64_t rows, first;
  bool activated, silu;
  at::TensorOptions options;
  Net(int64_t rows_, TensorList weights_, TensorList z_, bool activated_, bool silu_, int64_t first_, const Tensor& like, bool fresh = false)
      : weights(packed(weights_)), z(packed(z_)), rows(rows_), first(first_), activated(activated_), silu(silu_), options(like.options()) {
    TORCH_CHECK(!weights.empty() && (fresh || int64_t(z.size()) == bent()), "dense: wrong number of layers");
    for (size_t k = 0; k < weights.size(); ++k)
      TORCH_CHECK(weights[k].dim() == 2 && weights[k].scalar_type() == like.scalar_type() && (!k || weights[k].size(0) == weights[k - 1].size(1)),
                  "dense: the matrices do not fit");
    TORCH_CHECK(first >= 0 && first < weights[0].size(0), "dense: the table does not fit");
    for (size_t k = 0; k < z.size(); ++k) check(z[k], weights[k].size(1));
  }
  int64_t bent() const { return int64_t(weights.size()) - !activated; }
  int64_t inputs() const { return weights[0].size(0) - first; }
  int64_t outputs() const { return weights.back().size(1); }
  void check(const Tensor& x, int64_t width) const {
    TORCH_CHECK(x.dim() == 2 && x.size(0) == rows && x.size(1) == width && x.scalar_type() == weights[0].scalar_type(),
                "dense: rows and matrices do not fit");
  }
  template <class T>
  Layers<T> layers() const {
    Layers<T> net{rows, first, {inputs()}, read<T>(weights), activated, silu};
    for (const auto& w : weights) net.width.push_back(w.size(1));
    return net;
  }
  Tensor blank(int64_t width) const { return at::empty({rows, width}, options); }
  Parts between(int64_t n) const {  // room behind each of the first n layers
    Parts found;
    for (int64_t k = 0; k < n; ++k) found.push_back(blank(weights[k].size(1)));
    return found;
  }
  Parts matrices() const {
    Parts found;
    for (const auto& w : weights) found.push_back(at::empty(w.sizes(), options));
    return found;
  }
};

// The product of a table with the first rows of the first matrix, as a network of its own.
template <class T>
Layers<T> of_table(const Layers<T>& net, int64_t rows) {
  return {rows, 0, {net.first, net.width[1]}, {net.weights[0]}, false, net.silu};
}

inline void check_places(const Tensor& row, const Tensor& table, int64_t rows) {
  TORCH_CHECK(table.dim() == 2 && row.dim() == 1 && row.scalar_type() == at::kLong && row.numel() == rows, "dense: one row of the table for each row is needed");
  const int64_t* place = row.const_data_ptr<int64_t>();
  for (int64_t r = 0; r < rows; ++r) TORCH_CHECK(place[r] >= 0 && place[r] < table.size(0), "dense: no such row of the table");
}

// y, then each z.
inline Parts dense(const Tensor& x_, const Tensor& table_, const Tensor& row_, TensorList weights, TensorList biases_, bool activated, bool silu) {
  const auto x = x_.contiguous(), table = table_.contiguous(), row = row_.contiguous();
  const auto biases = packed(biases_);
  const Net net(x.size(0), weights, {}, activated, silu, table.size(1), x, true);
  net.check(x, net.inputs());
  TORCH_CHECK(biases.size() == net.weights.size(), "dense: one bias for each layer is needed");
  for (size_t k = 0; k < biases.size(); ++k)
    TORCH_CHECK(biases[k].numel() == net.weights[k].size(1) && biases[k].scalar_type() == x.scalar_type(), "dense: the biases do not fit");
  if (net.first) check_places(row, table, net.rows);
  auto y = net.blank(net.outputs());
  auto z = net.between(net.bent());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "dense", [&] {
    using T = scalar_t;
    const auto layers = net.layers<T>();
    const auto bias = read<T>(biases);
    const int64_t kinds = net.first ? table.size(0) : 0;
    Scratch<T> start(kinds * layers.width[1]);
    if (net.first) value<T>(of_table(layers, kinds), table.const_data_ptr<T>(), bias[0], nullptr, {}, start.data(), {});
    value<T>(layers, x.const_data_ptr<T>(), net.first ? start.data() : bias[0], net.first ? row.const_data_ptr<int64_t>() : nullptr, bias,
             y.data_ptr<T>(), write<T>(z));
  });
  z.insert(z.begin(), y);
  return z;
}

// The gradient by x, then what arrives at the output of each GELU but that of the last layer.
inline Parts dense_adjoint(const Tensor& g_, TensorList z, TensorList weights, bool activated, bool silu, int64_t first) {
  const auto g = g_.contiguous();
  const Net net(g.size(0), weights, z, activated, silu, first, g);
  net.check(g, net.outputs());
  auto g_x = net.blank(net.inputs());
  auto t = net.between(int64_t(net.weights.size()) - 1);
  AT_DISPATCH_FLOATING_TYPES(g.scalar_type(), "dense_adjoint", [&] {
    adjoint<scalar_t>(net.layers<scalar_t>(), g.const_data_ptr<scalar_t>(), read<scalar_t>(net.z), g_x.data_ptr<scalar_t>(), write<scalar_t>(t));
  });
  t.insert(t.begin(), g_x);
  return t;
}

// Gradients by x (if needed), table, matrices and biases from those by y (or none) and by each z (or an empty list).
inline Whole dense_backward(const Maybe& g_, TensorList g_z_, const Tensor& x_, const Tensor& table_, const Tensor& row_, TensorList z,
                            TensorList weights, bool activated, bool silu, bool need_x) {
  const auto x = x_.contiguous(), table = table_.contiguous(), row = row_.contiguous();
  const Net net(x.size(0), weights, z, activated, silu, table.size(1), x);
  net.check(x, net.inputs());
  if (net.first) check_places(row, table, net.rows);
  const int64_t last = int64_t(net.weights.size()) - 1;
  const Tensor g = g_ ? g_->contiguous() : activated ? Tensor() : at::zeros({net.rows, net.outputs()}, net.options);
  if (g.defined()) net.check(g, net.outputs());
  TORCH_CHECK(g_z_.empty() || g_z_.size() == net.z.size(), "dense: wrong number of gradients");
  const auto g_z = packed(g_z_);
  for (size_t k = 0; k < g_z.size(); ++k) net.check(g_z[k], net.weights[k].size(1));
  auto g_x = need_x ? net.blank(net.inputs()) : at::empty({0}, net.options), g_table = at::empty(table.sizes(), net.options);
  auto a = net.between(last), d = net.between(net.bent()), g_w = net.matrices();
  Parts g_b;
  for (const auto& w : net.weights) g_b.push_back(at::empty({w.size(1)}, net.options));
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "dense_backward", [&] {
    using T = scalar_t;
    const auto layers = net.layers<T>();
    auto given = read<T>(g_z);
    given.resize(net.z.size(), nullptr);
    auto between = write<T>(a);
    between.push_back(nullptr);
    const T* by_y = g.defined() ? g.const_data_ptr<T>() : nullptr;
    backward<T>(layers, by_y, given, read<T>(net.z), need_x ? g_x.data_ptr<T>() : nullptr, between, write<T>(d));
    for (int64_t k = 0; k <= last; ++k) {
      const int64_t wide = layers.width[k + 1];
      const T *right = k < net.bent() ? d[k].const_data_ptr<T>() : by_y, *left = k ? a[k - 1].const_data_ptr<T>() : x.const_data_ptr<T>();
      outer<T>(net.rows, left, layers.width[k], right, wide, g_w[k].data_ptr<T>() + (k ? 0 : net.first * wide));
      if (k || !net.first) {
        sum_rows<T>(net.rows, right, wide, nullptr, 1, g_b[k].data_ptr<T>());
        continue;
      }
      const int64_t kinds = table.size(0);
      Scratch<T> by_start(kinds * wide);
      sum_rows<T>(net.rows, right, wide, row.const_data_ptr<int64_t>(), kinds, by_start.data());
      sum_rows<T>(kinds, by_start.data(), wide, nullptr, 1, g_b[0].data_ptr<T>());
      outer<T>(kinds, table.const_data_ptr<T>(), net.first, by_start.data(), wide, g_w[0].data_ptr<T>());
      adjoint<T>(of_table(layers, kinds), by_start.data(), {}, g_table.data_ptr<T>(), {});
    }
  });
  return {g_x, g_table, g_w, g_b};
}

// Gradients of the adjoint by g, each z and the matrices from direction v at its output; t is from the adjoint.
inline Bent dense_second(const Tensor& v_, const Tensor& g_, TensorList z, TensorList t_, TensorList weights, bool activated, bool silu, int64_t first) {
  const auto v = v_.contiguous(), g = g_.contiguous();
  const Net net(g.size(0), weights, z, activated, silu, first, g);
  net.check(g, net.outputs());
  net.check(v, net.inputs());
  const auto t = packed(t_);
  TORCH_CHECK(t.size() + 1 == net.weights.size(), "dense: wrong number of layers");
  auto g_g = net.blank(net.outputs());
  const int64_t last = int64_t(net.weights.size()) - 1;
  auto g_z = net.between(net.bent()), p = net.between(last), u = net.between(net.bent()), g_w = net.matrices();
  if (first) g_w[0].narrow(0, 0, first).zero_();
  AT_DISPATCH_FLOATING_TYPES(g.scalar_type(), "dense_second", [&] {
    using T = scalar_t;
    const auto layers = net.layers<T>();
    second<T>(layers, v.const_data_ptr<T>(), g.const_data_ptr<T>(), read<T>(net.z), read<T>(t), g_g.data_ptr<T>(), write<T>(g_z),
              write<T>(p), write<T>(u));
    for (int64_t k = 0; k <= last; ++k) {
      const int64_t wide = layers.width[k + 1];
      outer<T>(net.rows, k ? p[k - 1].const_data_ptr<T>() : v.const_data_ptr<T>(), layers.width[k],
               k < net.bent() ? u[k].const_data_ptr<T>() : g.const_data_ptr<T>(), wide, g_w[k].data_ptr<T>() + (k ? 0 : first * wide));
    }
  });
  return {g_g, g_z, g_w};
}

// ---- gradients -----------------------------------------------------------------------------------------------

namespace recorded {
using namespace gradients;
Parts dense(const Tensor& x, const Tensor& table, const Tensor& row, TensorList weights, TensorList biases, bool activated, bool silu);
Parts dense_adjoint(const Tensor& g, TensorList z, TensorList weights, bool activated, bool silu, int64_t first);
Whole dense_backward(const Maybe& g, TensorList g_z, const Tensor& x, const Tensor& table, const Tensor& row, TensorList z, TensorList weights,
                     bool activated, bool silu, bool need_x);
Bent dense_second(const Tensor& v, const Tensor& g, TensorList z, TensorList t, TensorList weights, bool activated, bool silu, int64_t first);


struct Dense : Function<Dense> {
  static variable_list forward(AutogradContext* ctx, const Tensor& x, const Tensor& table, const Tensor& row, TensorList weights,
                               TensorList biases, bool activated, bool silu) {
    at::AutoDispatchBelowADInplaceOrView below;
    const auto out = FORGEFIELD_CALL(dense, x, table, row, weights, biases, activated, silu);
    ctx->save_for_backward(joined(x, table, row, weights, part(out, 1, out.size())));
    ctx->set_materialize_grads(false);
    ctx->saved_data["activated"] = activated;
    ctx->saved_data["silu"] = silu;
    ctx->saved_data["layers"] = int64_t(weights.size());
    return out;
  }
  // Where only x is asked for this is the adjoint, which has gradients again.
  static variable_list backward(AutogradContext* ctx, variable_list g) {
    const Quiet quiet;
    const auto s = ctx->get_saved_variables();
    const size_t n = size_t(ctx->saved_data["layers"].toInt());
    const bool activated = ctx->saved_data["activated"].toBool(), silu = ctx->saved_data["silu"].toBool();
    const auto weights = part(s, 3, n + 3), z = part(s, n + 3, s.size());
    bool curved = false, trained = ctx->needs_input_grad(1);
    for (size_t k = 1; k < g.size(); ++k) curved = curved || g[k].defined();
    for (size_t k = 3; k < 3 + 2 * n; ++k) trained = trained || ctx->needs_input_grad(k);
    const bool need_x = ctx->needs_input_grad(0);
    if (!curved && !trained) {
      const auto found = g[0].defined() ? FORGEFIELD_CALL(dense_adjoint, g[0], z, weights, activated, silu, s[1].sym_size(1).guard_int(__FILE__, __LINE__)) : none(1);
      return joined(found[0], none(2 * n + 4));
    }
    variable_list g_z;
    for (size_t k = 0; curved && k < z.size(); ++k) g_z.push_back(g[k + 1].defined() ? g[k + 1] : at::zeros_like(z[k]));
    const auto [g_x, g_table, g_w, g_b] = FORGEFIELD_CALL(dense_backward, maybe(g[0]), g_z, s[0], s[1], s[2], z, weights, activated, silu, need_x);
    return joined(need_x ? g_x : Tensor(), ctx->needs_input_grad(1) ? g_table : Tensor(), none(1), g_w, g_b, none(2));
  }
};

struct DenseAdjoint : Function<DenseAdjoint> {
  static variable_list forward(AutogradContext* ctx, const Tensor& g, TensorList z, TensorList weights, bool activated, bool silu, int64_t first) {
    at::AutoDispatchBelowADInplaceOrView below;
    const auto out = FORGEFIELD_CALL(dense_adjoint, g, z, weights, activated, silu, first);
    const auto t = part(out, 1, out.size());
    ctx->save_for_backward(joined(g, z, weights, t));
    ctx->mark_non_differentiable(t);
    ctx->set_materialize_grads(false);
    ctx->saved_data["activated"] = activated;
    ctx->saved_data["silu"] = silu;
    ctx->saved_data["first"] = first;
    ctx->saved_data["layers"] = int64_t(weights.size());
    return out;
  }
  static variable_list backward(AutogradContext* ctx, variable_list v) {
    const Quiet quiet;
    const auto s = ctx->get_saved_variables();
    const size_t n = size_t(ctx->saved_data["layers"].toInt());
    const bool activated = ctx->saved_data["activated"].toBool(), silu = ctx->saved_data["silu"].toBool();
    const size_t bent = n - !activated;
    if (!v[0].defined()) return none(1 + bent + n + 3);
    const auto z = part(s, 1, 1 + bent), weights = part(s, 1 + bent, 1 + bent + n), t = part(s, 1 + bent + n, s.size());
    const auto [g_g, g_z, g_w] = FORGEFIELD_CALL(dense_second, v[0], s[0], z, t, weights, activated, silu, ctx->saved_data["first"].toInt());
    return joined(g_g, g_z, g_w, none(3));
  }
};

inline Parts dense(const Tensor& x, const Tensor& table, const Tensor& row, TensorList weights, TensorList biases, bool activated, bool silu) {
  return Dense::apply(x, table, row, weights, biases, activated, silu);
}
inline Parts dense_adjoint(const Tensor& g, TensorList z, TensorList weights, bool activated, bool silu, int64_t first) {
  return DenseAdjoint::apply(g, z, weights, activated, silu, first);
}
}  // namespace recorded
}  // namespace dense
