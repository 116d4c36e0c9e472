// The sums of radial_core.h as operators, with their gradients up to second order.
#pragma once
#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>

#include <optional>
#include <tuple>
#include <vector>

#include "gradients.h"
#include "radial_core.h"

namespace radial_sums {
using at::Tensor;
using Maybe = std::optional<Tensor>;

// What all three operators are given, as contiguous tensors.
struct Given {
  Tensor f, r, u, sender, pair, sign, first, second;
  Given(const Tensor& f_, const Tensor& r_, const Tensor& u_, const Tensor& sender_, const Tensor& pair_, const Tensor& sign_,
        const Tensor& first_, const Tensor& second_)
      : f(f_.contiguous()), r(r_.contiguous()), u(u_.contiguous()), sender(sender_.contiguous()), pair(pair_.contiguous()),
        sign(sign_.contiguous()), first(first_.contiguous()), second(second_.contiguous()) {
    TORCH_CHECK(f.dim() == 2 && r.dim() == 3 && u.dim() == 2 && sender.dim() == 2 && r.size(1) == 2 && u.size(1) == 3,
                "radial_sum: wrong number of axes");
    TORCH_CHECK(r.size(2) > 0 && f.size(1) % r.size(2) == 0, "radial_sum: features do not go with the functions");
    TORCH_CHECK(r.size(0) == u.size(0) && first.numel() == u.size(0) && second.numel() == u.size(0) && sender.size(0) == f.size(0) &&
                    pair.sizes() == sender.sizes() && sign.sizes() == sender.sizes(), "radial_sum: sizes differ");
    TORCH_CHECK(f.scalar_type() == r.scalar_type() && f.scalar_type() == u.scalar_type() && f.scalar_type() == sign.scalar_type(),
                "radial_sum: types differ");
  }
  template <class T>
  Edges<T> edges() const {
    return {f.size(0), r.size(0), sender.size(1), f.size(1) / r.size(2), r.size(2), sender.const_data_ptr<int64_t>(),
            pair.const_data_ptr<int64_t>(), first.const_data_ptr<int64_t>(), second.const_data_ptr<int64_t>(), sign.const_data_ptr<T>()};
  }
  template <class T>
  Field<T> field() const {
    return {r.const_data_ptr<T>(), u.const_data_ptr<T>()};
  }
  std::tuple<Tensor, Tensor, Tensor> gradients(bool need_f, bool need_pairs) const {  // room for them; no rows where not needed
    return {at::empty({need_f ? f.size(0) : 0, f.size(1)}, f.options()), at::empty({need_pairs ? r.size(0) : 0, 2, r.size(2)}, r.options()),
            at::empty({need_pairs ? u.size(0) : 0, 3}, u.options())};
  }
};

template <class Run>
void dispatch(const Given& in, Run&& run) {
  AT_DISPATCH_FLOATING_TYPES(in.f.scalar_type(), "radial_sum", [&] {
    const auto e = in.edges<scalar_t>();
    e.width % LANES<scalar_t> == 0 ? run(e, Row<scalar_t, 64, 1>{}) : run(e, Row<scalar_t, sizeof(scalar_t), 1>{});
  });
}

#define FORGEFIELD_TABLE const Tensor &sender, const Tensor &pair, const Tensor &sign, const Tensor &first, const Tensor &second

inline Tensor radial_sum(const Tensor& f, const Tensor& r, const Tensor& u, FORGEFIELD_TABLE) {
  const Given in(f, r, u, sender, pair, sign, first, second);
  auto out = at::empty({f.size(0), 4, f.size(1)}, f.options());
  dispatch(in, [&](const auto& e, auto w) {
    using T = std::decay_t<decltype(*e.sign)>;
    sums<T, decltype(w)>(e, {{in.f.const_data_ptr<T>(), in.field<T>()}}, out.template data_ptr<T>());
  });
  return out;
}

inline std::tuple<Tensor, Tensor, Tensor> radial_sum_adjoint(const Tensor& g_, const Tensor& f, const Tensor& r, const Tensor& u,
                                                             FORGEFIELD_TABLE, bool need_f, bool need_pairs) {
  const Given in(f, r, u, sender, pair, sign, first, second);
  const auto g = g_.contiguous();
  TORCH_CHECK(g.numel() == 4 * f.numel(), "radial_sum: gradient does not fit");
  auto [g_f, g_r, g_u] = in.gradients(need_f, need_pairs);
  dispatch(in, [&, &g_f = g_f, &g_r = g_r, &g_u = g_u](const auto& e, auto w) {
    using T = std::decay_t<decltype(*e.sign)>;
    const T *features = in.f.const_data_ptr<T>(), *from = g.const_data_ptr<T>();
    const auto field = in.field<T>();
    if (need_f) by_features<T, decltype(w)>(e, {field}, from, g_f.template data_ptr<T>());
    if (need_pairs)
      by_pairs<T, decltype(w)>(e, features, nullptr, field, from, g_r.template data_ptr<T>(), g_u.template data_ptr<T>());
  });
  return {g_f, g_r, g_u};
}

inline std::tuple<Tensor, Tensor, Tensor, Tensor> radial_sum_second(const Tensor& g_, const Tensor& f, const Tensor& r, const Tensor& u,
                                                                    const Maybe& v_f_, const Maybe& v_r_, const Maybe& v_u_,
                                                                    FORGEFIELD_TABLE, bool need_f, bool need_pairs) {
  const Given in(f, r, u, sender, pair, sign, first, second);
  const auto packed = [](const Maybe& x) { return x ? x->contiguous() : Tensor(); };
  const auto g = g_.contiguous(), v_f = packed(v_f_), v_r = packed(v_r_), v_u = packed(v_u_);
  auto g_g = at::empty({f.size(0), 4, f.size(1)}, f.options());
  auto [g_f, g_r, g_u] = in.gradients(need_f, need_pairs);
  dispatch(in, [&, &g_f = g_f, &g_r = g_r, &g_u = g_u](const auto& e, auto w) {
    using T = std::decay_t<decltype(*e.sign)>;
    using W = decltype(w);
    const auto pointer = [](const Tensor& x) { return x.defined() ? x.const_data_ptr<T>() : nullptr; };
    const auto field = in.field<T>();
    const Field<T> bent{field.r, field.u, pointer(v_r), pointer(v_u), true};
    const T *features = in.f.const_data_ptr<T>(), *moved = pointer(v_f), *from = g.const_data_ptr<T>();
    std::vector<Product<T>> whole;
    std::vector<Field<T>> fields;
    if (moved) whole.push_back({moved, field});
    if (bent.dr || bent.du) whole.push_back({features, bent}), fields.push_back(bent);
    sums<T, W>(e, whole, g_g.template data_ptr<T>());
    if (need_f) by_features<T, W>(e, fields, from, g_f.template data_ptr<T>());
    if (need_pairs) by_pairs<T, W>(e, features, moved, bent, from, g_r.template data_ptr<T>(), g_u.template data_ptr<T>());
  });
  return {g_g, g_f, g_r, g_u};
}

// ---- gradients -----------------------------------------------------------------------------------------------

namespace recorded {
using namespace gradients;
Tensor radial_sum(const Tensor& f, const Tensor& r, const Tensor& u, FORGEFIELD_TABLE);
std::tuple<Tensor, Tensor, Tensor> radial_sum_adjoint(const Tensor& g, const Tensor& f, const Tensor& r, const Tensor& u, FORGEFIELD_TABLE,
                                                      bool need_f, bool need_pairs);
std::tuple<Tensor, Tensor, Tensor, Tensor> radial_sum_second(const Tensor& g, const Tensor& f, const Tensor& r, const Tensor& u,
                                                             const Maybe& v_f, const Maybe& v_r, const Maybe& v_u, FORGEFIELD_TABLE,
                                                             bool need_f, bool need_pairs);

struct Sum : Function<Sum> {
  static Tensor forward(AutogradContext* ctx, const Tensor& f, const Tensor& r, const Tensor& u, FORGEFIELD_TABLE) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({f, r, u, sender, pair, sign, first, second});
    return FORGEFIELD_CALL(radial_sum, f, r, u, sender, pair, sign, first, second);
  }
  static variable_list backward(AutogradContext* ctx, variable_list g) {
    const Quiet quiet;
    const auto s = ctx->get_saved_variables();
    const bool need = ctx->needs_input_grad(0), pairs = ctx->needs_input_grad(1) || ctx->needs_input_grad(2);
    const auto [g_f, g_r, g_u] = FORGEFIELD_CALL(radial_sum_adjoint, g[0], s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], need, pairs);
    return joined(need ? g_f : Tensor(), pairs ? g_r : Tensor(), pairs ? g_u : Tensor(), none(5));
  }
};

struct SumAdjoint : Function<SumAdjoint> {
  static variable_list forward(AutogradContext* ctx, const Tensor& g, const Tensor& f, const Tensor& r, const Tensor& u, FORGEFIELD_TABLE,
                               bool need_f, bool need_pairs) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({g, f, r, u, sender, pair, sign, first, second});
    ctx->set_materialize_grads(false);
    ctx->saved_data["need_f"] = need_f;
    ctx->saved_data["need_pairs"] = need_pairs;
    const auto [g_f, g_r, g_u] = FORGEFIELD_CALL(radial_sum_adjoint, g, f, r, u, sender, pair, sign, first, second, need_f, need_pairs);
    return {g_f, g_r, g_u};
  }
  static variable_list backward(AutogradContext* ctx, variable_list v) {
    const Quiet quiet;
    const auto s = ctx->get_saved_variables();
    const bool need = ctx->needs_input_grad(1), pairs = ctx->needs_input_grad(2) || ctx->needs_input_grad(3);
    const auto given = [&](const char* name, int k) { return ctx->saved_data[name].toBool() ? maybe(v[k]) : std::nullopt; };
    const auto [g_g, g_f, g_r, g_u] = FORGEFIELD_CALL(radial_sum_second, s[0], s[1], s[2], s[3], given("need_f", 0), given("need_pairs", 1),
                                                      given("need_pairs", 2), s[4], s[5], s[6], s[7], s[8], need, pairs);
    return joined(g_g, need ? g_f : Tensor(), pairs ? g_r : Tensor(), pairs ? g_u : Tensor(), none(7));
  }
};

inline Tensor radial_sum(const Tensor& f, const Tensor& r, const Tensor& u, FORGEFIELD_TABLE) {
  return Sum::apply(f, r, u, sender, pair, sign, first, second);
}
inline std::tuple<Tensor, Tensor, Tensor> radial_sum_adjoint(const Tensor& g, const Tensor& f, const Tensor& r, const Tensor& u,
                                                             FORGEFIELD_TABLE, bool need_f, bool need_pairs) {
  const auto out = SumAdjoint::apply(g, f, r, u, sender, pair, sign, first, second, need_f, need_pairs);
  return {out[0], out[1], out[2]};
}
}  // namespace recorded
}  // namespace radial_sums
