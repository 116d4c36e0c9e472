// Small networks as operators, with their gradients. `hidden` are z and s of each layer but the last, in turns.
#pragma once
#include <ATen/ops/zeros_like.h>

#include "gradients.h"
#include "network.h"
#include "parts.h"

namespace networks {
using at::Tensor;
using at::TensorList;
using gradients::Maybe;

using parts::Parts;
using parts::read;
using parts::write;
using Sum = std::tuple<Tensor, Parts>;
using Bent = std::tuple<Tensor, Parts, Parts>;

// A network's tensors, contiguous and of one type.
struct Net {
  Parts weights, z, s;
  int64_t rows;
  double gain;
  at::TensorOptions options;
  Net(int64_t rows_, TensorList given, TensorList hidden, double gain_, const Tensor& like, bool fresh = false)
      : rows(rows_), gain(gain_), options(like.options()) {
    TORCH_CHECK(!given.empty() && (fresh || hidden.size() == 2 * (given.size() - 1)), "network: wrong number of layers");
    for (size_t k = 0; k < given.size(); ++k) {
      TORCH_CHECK(given[k].dim() == 2 && given[k].scalar_type() == like.scalar_type() && (!k || given[k].size(0) == given[k - 1].size(1)),
                  "network: the matrices do not fit");
      weights.push_back(given[k].contiguous());
    }
    for (size_t k = 0; k < hidden.size(); ++k) {
      TORCH_CHECK(hidden[k].dim() == 2 && hidden[k].size(0) == rows && hidden[k].size(1) == given[k / 2].size(1) &&
                      hidden[k].scalar_type() == like.scalar_type(),
                  "network: hidden features do not fit");
      (k % 2 ? s : z).push_back(hidden[k].contiguous());
    }
  }
  template <class T>
  Layers<T> layers() const {
    Layers<T> net{rows, {weights[0].size(0)}, {}, T(gain)};
    for (const auto& w : weights) net.width.push_back(w.size(1)), net.weights.push_back(w.const_data_ptr<T>());
    return net;
  }
  Parts blank() const {  // one tensor for each layer but the last
    Parts found;
    for (size_t k = 0; k + 1 < weights.size(); ++k) found.push_back(at::empty({rows, weights[k].size(1)}, options));
    return found;
  }
  Parts matrices() const {
    Parts found;
    for (const auto& w : weights) found.push_back(at::empty(w.sizes(), options));
    return found;
  }
  Tensor input() const { return at::empty({rows, weights[0].size(0)}, options); }
  Tensor output() const { return at::empty({rows, weights.back().size(1)}, options); }
  void check(const Tensor& x, int64_t width) const {
    TORCH_CHECK(x.dim() == 2 && x.size(0) == rows && x.size(1) == width && x.scalar_type() == weights[0].scalar_type(),
                "network: rows and matrices do not fit");
  }
};

inline Parts network(const Tensor& x_, TensorList weights, double gain) {
  const auto x = x_.contiguous();
  const Net net(x.size(0), weights, {}, gain, x, true);
  net.check(x, net.weights[0].size(0));
  auto y = net.output();
  auto z = net.blank(), s = net.blank();
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "network", [&] {
    value<scalar_t>(net.layers<scalar_t>(), x.const_data_ptr<scalar_t>(), y.data_ptr<scalar_t>(), write<scalar_t>(z), write<scalar_t>(s));
  });
  Parts all{y};
  for (size_t k = 0; k < z.size(); ++k) all.push_back(z[k]), all.push_back(s[k]);
  return all;
}

// The gradient by x, then what arrives at the output of each silu.
inline Parts network_adjoint(const Tensor& g_, TensorList hidden, TensorList weights, double gain) {
  const auto g = g_.contiguous();
  const Net net(g.size(0), weights, hidden, gain, g);
  net.check(g, net.weights.back().size(1));
  auto g_x = net.input();
  auto t = net.blank();
  AT_DISPATCH_FLOATING_TYPES(g.scalar_type(), "network_adjoint", [&] {
    using T = scalar_t;
    adjoint<T>(net.layers<T>(), g.const_data_ptr<T>(), read<T>(net.z), read<T>(net.s), g_x.data_ptr<T>(), write<T>(t));
  });
  t.insert(t.begin(), g_x);
  return t;
}

// Gradients by x (if needed) and the matrices from those by y (or none) and by each z (or an empty list).
inline Sum network_backward(const Maybe& g_, TensorList g_z_, const Tensor& x_, TensorList hidden, TensorList weights, double gain,
                            bool need_x) {
  const auto x = x_.contiguous();
  const Net net(x.size(0), weights, hidden, gain, x);
  net.check(x, net.weights[0].size(0));
  const Tensor g = g_ ? g_->contiguous() : at::zeros({net.rows, net.weights.back().size(1)}, net.options);
  net.check(g, net.weights.back().size(1));
  TORCH_CHECK(g_z_.empty() || g_z_.size() == net.z.size(), "network: wrong number of gradients");
  Parts g_z;
  for (const auto& part : g_z_) g_z.push_back(part.contiguous());
  auto g_x = need_x ? net.input() : at::empty({0}, net.options);
  auto a = net.blank(), d = net.blank(), found = net.matrices();
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "network_backward", [&] {
    using T = scalar_t;
    const auto layers = net.layers<T>();
    auto given = read<T>(g_z);
    given.resize(net.z.size(), nullptr);
    const T* by_y = g.const_data_ptr<T>();
    backward<T>(layers, g_ ? by_y : nullptr, given, read<T>(net.z), read<T>(net.s), need_x ? g_x.data_ptr<T>() : nullptr, write<T>(a),
                write<T>(d));
    for (int64_t k = 0; k < layers.count(); ++k)
      weights_gradient<T>(layers, k, k ? a[k - 1].const_data_ptr<T>() : x.const_data_ptr<T>(),
                          k + 1 < layers.count() ? d[k].const_data_ptr<T>() : by_y, found[k].data_ptr<T>());
  });
  return {g_x, found};
}

// Gradients of the adjoint by g, each z and the matrices from direction v at its output; t is from the adjoint.
inline Bent network_second(const Tensor& v_, const Tensor& g_, TensorList hidden, TensorList t_, TensorList weights, double gain) {
  const auto v = v_.contiguous(), g = g_.contiguous();
  const Net net(g.size(0), weights, hidden, gain, g);
  net.check(g, net.weights.back().size(1));
  net.check(v, net.weights[0].size(0));
  TORCH_CHECK(t_.size() == net.z.size(), "network: wrong number of layers");
  Parts t;
  for (const auto& part : t_) t.push_back(part.contiguous());
  auto g_g = net.output();
  auto g_z = net.blank(), p = net.blank(), u = net.blank(), found = net.matrices();
  AT_DISPATCH_FLOATING_TYPES(g.scalar_type(), "network_second", [&] {
    using T = scalar_t;
    const auto layers = net.layers<T>();
    second<T>(layers, v.const_data_ptr<T>(), read<T>(net.z), read<T>(net.s), read<T>(t), g_g.data_ptr<T>(), write<T>(g_z), write<T>(p),
              write<T>(u));
    for (int64_t k = 0; k < layers.count(); ++k)
      weights_gradient<T>(layers, k, k ? p[k - 1].const_data_ptr<T>() : v.const_data_ptr<T>(),
                          k + 1 < layers.count() ? u[k].const_data_ptr<T>() : g.const_data_ptr<T>(), found[k].data_ptr<T>());
  });
  return {g_g, g_z, found};
}

// ---- gradients -----------------------------------------------------------------------------------------------

namespace recorded {
using namespace gradients;
Parts network(const Tensor& x, TensorList weights, double gain);
Parts network_adjoint(const Tensor& g, TensorList hidden, TensorList weights, double gain);
Sum network_backward(const Maybe& g, TensorList g_z, const Tensor& x, TensorList hidden, TensorList weights, double gain, bool need_x);
Bent network_second(const Tensor& v, const Tensor& g, TensorList hidden, TensorList t, TensorList weights, double gain);


struct Network : Function<Network> {
  static variable_list forward(AutogradContext* ctx, const Tensor& x, TensorList weights, double gain) {
    at::AutoDispatchBelowADInplaceOrView below;
    const auto out = FORGEFIELD_CALL(network, x, weights, gain);
    ctx->save_for_backward(joined(x, weights, part(out, 1, out.size())));
    variable_list sigmoids;
    for (size_t k = 2; k < out.size(); k += 2) sigmoids.push_back(out[k]);
    ctx->mark_non_differentiable(sigmoids);
    ctx->set_materialize_grads(false);
    ctx->saved_data["gain"] = gain;
    return out;
  }
  static variable_list backward(AutogradContext* ctx, variable_list g) {
    const Quiet quiet;
    const auto s = ctx->get_saved_variables();
    const size_t n = (s.size() - 1 + 2) / 3;  // x, n matrices, 2 (n - 1) hidden
    const auto weights = part(s, 1, n + 1), hidden = part(s, n + 1, s.size());
    variable_list g_z;
    bool any = false;
    for (size_t k = 1; k < g.size(); k += 2) g_z.push_back(g[k]), any = any || g[k].defined();
    for (size_t k = 0; k < g_z.size(); ++k)
      if (any && !g_z[k].defined()) g_z[k] = at::zeros_like(hidden[2 * k]);
    if (!any) g_z.clear();
    const bool need = ctx->needs_input_grad(0);
    const auto [g_x, g_w] = FORGEFIELD_CALL(network_backward, maybe(g[0]), g_z, s[0], hidden, weights, ctx->saved_data["gain"].toDouble(), need);
    return joined(need ? g_x : Tensor(), g_w, none(1));
  }
};

struct NetworkAdjoint : Function<NetworkAdjoint> {
  static variable_list forward(AutogradContext* ctx, const Tensor& g, TensorList hidden, TensorList weights, double gain) {
    at::AutoDispatchBelowADInplaceOrView below;
    const auto out = FORGEFIELD_CALL(network_adjoint, g, hidden, weights, gain);
    const auto t = part(out, 1, out.size());
    ctx->save_for_backward(joined(g, hidden, weights, t));
    ctx->mark_non_differentiable(t);
    ctx->set_materialize_grads(false);
    ctx->saved_data["gain"] = gain;
    return out;
  }
  static variable_list backward(AutogradContext* ctx, variable_list v) {
    const Quiet quiet;
    const auto s = ctx->get_saved_variables();
    const size_t n = (s.size() + 2) / 4;  // g, 2 (n - 1) hidden, n matrices, n - 1 of t
    if (!v[0].defined()) return none(3 * n);
    const auto hidden = part(s, 1, 2 * n - 1), weights = part(s, 2 * n - 1, 3 * n - 1), t = part(s, 3 * n - 1, s.size());
    const auto [g_g, g_z, g_w] = FORGEFIELD_CALL(network_second, v[0], s[0], hidden, t, weights, ctx->saved_data["gain"].toDouble());
    variable_list by_hidden;
    for (const auto& x : g_z) by_hidden.push_back(x), by_hidden.emplace_back();
    return joined(g_g, by_hidden, g_w, none(1));
  }
};

inline Parts network(const Tensor& x, TensorList weights, double gain) { return Network::apply(x, weights, gain); }
inline Parts network_adjoint(const Tensor& g, TensorList hidden, TensorList weights, double gain) {
  return NetworkAdjoint::apply(g, hidden, weights, gain);
}
}  // namespace recorded
}  // namespace networks
