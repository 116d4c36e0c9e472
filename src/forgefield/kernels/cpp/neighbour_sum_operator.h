// Sums over neighbours as operators, with their gradients up to second order. A layout is the scalars' width, 1 with states, else 0, then l
// and channels of each degree.
#pragma once
#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>

#include <tuple>

#include "gradients.h"
#include "neighbour_sum.h"

namespace neighbour_sums {
using at::IntArrayRef;
using at::Tensor;
using Maybe = std::optional<Tensor>;
using Three = std::tuple<Tensor, Tensor, Tensor>;
using Four = std::tuple<Tensor, Tensor, Tensor, Tensor>;

inline Layout layout_of(IntArrayRef given) {
  TORCH_CHECK(given.size() >= 2 && given.size() % 2 == 0, "neighbour_sum: a layout is a width, a flag, then l and channels of each degree");
  std::vector<std::pair<int64_t, int64_t>> parts;
  for (size_t k = 2; k < given.size(); k += 2) {
    TORCH_CHECK(given[k] >= 0 && 2 * given[k] + 1 <= HIGHEST && given[k + 1] > 0, "neighbour_sum: degrees up to 4 with one channel or more");
    parts.emplace_back(given[k], given[k + 1]);
  }
  return Layout(given[0], given[1] != 0, parts);
}

// What all three operators are given, as contiguous tensors.
struct Factors {
  Layout layout;
  Tensor f, w, y, sender, pair, sign, first, second;
  Factors(const Tensor& f_, const Tensor& w_, const Tensor& y_, const Tensor& sender_, const Tensor& pair_, const Tensor& sign_,
          const Tensor& first_, const Tensor& second_, IntArrayRef layout_)
      : layout(layout_of(layout_)), f(f_.contiguous()), w(w_.contiguous()), y(y_.contiguous()), sender(sender_.contiguous()),
        pair(pair_.contiguous()), sign(sign_.contiguous()), first(first_.contiguous()), second(second_.contiguous()) {
    TORCH_CHECK(f.dim() == 2 && w.dim() == 2 && y.dim() == 2 && sender.dim() == 2, "neighbour_sum: wrong number of axes");
    TORCH_CHECK(w.size(0) == y.size(0) && first.numel() == w.size(0) && second.numel() == w.size(0) && sender.size(0) == f.size(0) &&
                    pair.sizes() == sender.sizes() && sign.sizes() == sender.sizes(), "neighbour_sum: sizes differ");
    TORCH_CHECK(f.size(1) == layout.features && w.size(1) == layout.weights && y.size(1) >= layout.harmonics,
                "neighbour_sum: columns do not fit the layout");
    TORCH_CHECK(f.scalar_type() == w.scalar_type() && f.scalar_type() == y.scalar_type() && f.scalar_type() == sign.scalar_type(),
                "neighbour_sum: types differ");
  }
  template <class T, bool D>
  Edges<T, D> edges(const Tensor& v_f = {}, const Tensor& v_w = {}, const Tensor& v_y = {}) const {
    const auto table = [](const Tensor& x, const Tensor& v) {
      return Table<T, D>{x.const_data_ptr<T>(), v.defined() ? v.const_data_ptr<T>() : nullptr, x.size(1)};
    };
    const auto whole = [](const Tensor& x) { return x.const_data_ptr<int64_t>(); };
    return {layout, f.size(0), w.size(0), sender.size(1), whole(sender), whole(pair), whole(first), whole(second), sign.const_data_ptr<T>(),
            table(f, v_f), table(w, v_w), table(y, v_y)};
  }
  Tensor sums() const { return at::empty({f.size(0), layout.out}, f.options()); }
  static Tensor like(const Tensor& x, bool need) { return at::empty({need ? x.size(0) : 0, x.size(1)}, x.options()); }
};

#define FORGEFIELD_SLOTS const Tensor &sender, const Tensor &pair, const Tensor &sign, const Tensor &first, const Tensor &second, IntArrayRef layout

inline Tensor neighbour_sum(const Tensor& f, const Tensor& w, const Tensor& y, FORGEFIELD_SLOTS) {
  const Factors in(f, w, y, sender, pair, sign, first, second, layout);
  auto out = in.sums();
  AT_DISPATCH_FLOATING_TYPES(in.f.scalar_type(), "neighbour_sum", [&] {
    sums<scalar_t, false>(in.edges<scalar_t, false>(), out.data_ptr<scalar_t>());
  });
  return out;
}

inline Three neighbour_sum_adjoint(const Tensor& g_, const Tensor& f, const Tensor& w, const Tensor& y, FORGEFIELD_SLOTS, bool need_f, bool need_y) {
  const Factors in(f, w, y, sender, pair, sign, first, second, layout);
  const auto g = g_.contiguous();
  TORCH_CHECK(g.dim() == 2 && g.size(0) == in.f.size(0) && g.size(1) == in.layout.out, "neighbour_sum: the gradient does not fit");
  auto g_f = Factors::like(in.f, need_f), g_w = Factors::like(in.w, true), g_y = Factors::like(in.y, need_y);
  AT_DISPATCH_FLOATING_TYPES(in.f.scalar_type(), "neighbour_sum_adjoint", [&] {
    using T = scalar_t;
    const auto e = in.edges<T, false>();
    if (need_f) by_features<T, false>(e, g.const_data_ptr<T>(), g_f.data_ptr<T>());
    by_pairs<T, false>(e, g.const_data_ptr<T>(), g_w.data_ptr<T>(), need_y ? g_y.data_ptr<T>() : nullptr);
  });
  return {g_f, g_w, g_y};
}

inline Four neighbour_sum_second(const Tensor& g_, const Tensor& f, const Tensor& w, const Tensor& y, const Maybe& v_f_, const Maybe& v_w_,
                                 const Maybe& v_y_, FORGEFIELD_SLOTS, bool need_f, bool need_y) {
  const Factors in(f, w, y, sender, pair, sign, first, second, layout);
  const auto direction = [](const Maybe& v, const Tensor& like) { return v ? v->contiguous() : at::zeros_like(like); };
  const auto g = g_.contiguous(), v_f = direction(v_f_, in.f), v_w = direction(v_w_, in.w), v_y = direction(v_y_, in.y);
  auto g_g = in.sums(), g_f = Factors::like(in.f, need_f), g_w = Factors::like(in.w, true), g_y = Factors::like(in.y, need_y);
  AT_DISPATCH_FLOATING_TYPES(in.f.scalar_type(), "neighbour_sum_second", [&] {
    using T = scalar_t;
    const auto e = in.edges<T, true>(v_f, v_w, v_y);
    sums<T, true>(e, g_g.data_ptr<T>());
    if (need_f) by_features<T, true>(e, g.const_data_ptr<T>(), g_f.data_ptr<T>());
    by_pairs<T, true>(e, g.const_data_ptr<T>(), g_w.data_ptr<T>(), need_y ? g_y.data_ptr<T>() : nullptr);
  });
  return {g_g, g_f, g_w, g_y};
}

// ---- gradients -----------------------------------------------------------------------------------------------

namespace recorded {
using namespace gradients;
Tensor neighbour_sum(const Tensor& f, const Tensor& w, const Tensor& y, FORGEFIELD_SLOTS);
Three neighbour_sum_adjoint(const Tensor& g, const Tensor& f, const Tensor& w, const Tensor& y,
                                                         FORGEFIELD_SLOTS, bool need_f, bool need_y);
Four neighbour_sum_second(const Tensor& g, const Tensor& f, const Tensor& w, const Tensor& y,
                                                                const Maybe& v_f, const Maybe& v_w, const Maybe& v_y, FORGEFIELD_SLOTS,
                                                                bool need_f, bool need_y);

struct Sum : Function<Sum> {
  static Tensor forward(AutogradContext* ctx, const Tensor& f, const Tensor& w, const Tensor& y, FORGEFIELD_SLOTS) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({f, w, y, sender, pair, sign, first, second});
    ctx->saved_data["layout"] = layout.vec();
    return FORGEFIELD_CALL(neighbour_sum, f, w, y, sender, pair, sign, first, second, layout);
  }
  static variable_list backward(AutogradContext* ctx, variable_list g) {
    const Quiet quiet;
    const auto s = ctx->get_saved_variables();
    const auto layout = ctx->saved_data["layout"].toIntVector();
    const bool need_f = ctx->needs_input_grad(0), need_y = ctx->needs_input_grad(2);
    const auto [g_f, g_w, g_y] =
        FORGEFIELD_CALL(neighbour_sum_adjoint, g[0], s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], layout, need_f, need_y);
    return joined(need_f ? g_f : Tensor(), g_w, need_y ? g_y : Tensor(), none(6));
  }
};

struct SumAdjoint : Function<SumAdjoint> {
  static variable_list forward(AutogradContext* ctx, const Tensor& g, const Tensor& f, const Tensor& w, const Tensor& y, FORGEFIELD_SLOTS,
                               bool need_f, bool need_y) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({g, f, w, y, sender, pair, sign, first, second});
    ctx->set_materialize_grads(false);
    ctx->saved_data["layout"] = layout.vec();
    ctx->saved_data["need_f"] = need_f;
    ctx->saved_data["need_y"] = need_y;
    const auto [g_f, g_w, g_y] =
        FORGEFIELD_CALL(neighbour_sum_adjoint, g, f, w, y, sender, pair, sign, first, second, layout, need_f, need_y);
    return {g_f, g_w, g_y};
  }
  static variable_list backward(AutogradContext* ctx, variable_list v) {
    const Quiet quiet;
    const auto s = ctx->get_saved_variables();
    const auto layout = ctx->saved_data["layout"].toIntVector();
    const bool need_f = ctx->needs_input_grad(1), need_y = ctx->needs_input_grad(3);
    const auto v_f = ctx->saved_data["need_f"].toBool() ? maybe(v[0]) : std::nullopt;
    const auto v_y = ctx->saved_data["need_y"].toBool() ? maybe(v[2]) : std::nullopt;
    const auto [g_g, g_f, g_w, g_y] = FORGEFIELD_CALL(neighbour_sum_second, s[0], s[1], s[2], s[3], v_f, maybe(v[1]), v_y, s[4], s[5], s[6],
                                                      s[7], s[8], layout, need_f, need_y);
    return joined(g_g, need_f ? g_f : Tensor(), g_w, need_y ? g_y : Tensor(), none(8));
  }
};

inline Tensor neighbour_sum(const Tensor& f, const Tensor& w, const Tensor& y, FORGEFIELD_SLOTS) {
  return Sum::apply(f, w, y, sender, pair, sign, first, second, layout);
}
inline Three neighbour_sum_adjoint(const Tensor& g, const Tensor& f, const Tensor& w, const Tensor& y,
                                                                FORGEFIELD_SLOTS, bool need_f, bool need_y) {
  const auto out = SumAdjoint::apply(g, f, w, y, sender, pair, sign, first, second, layout, need_f, need_y);
  return {out[0], out[1], out[2]};
}
}  // namespace recorded
}  // namespace neighbour_sums
