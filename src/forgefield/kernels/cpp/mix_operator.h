// Joins the degrees of an atom, each times a matrix of its own, as operators; each gradient is another of the three.
#pragma once
#include <cmath>

#include "gradients.h"
#include "linear_operator.h"

namespace mixing {
using at::IntArrayRef;
using at::Tensor;
using at::TensorList;
using Parts = std::vector<Tensor>;

inline double scale(const Tensor& w, double factor) { return factor / std::sqrt(double(w.size(0))); }

// Parts (N, rows of a degree, its numbers) x matrices (numbers, C) -> (N, all rows, C), over the root of each depth.
inline Tensor mix(TensorList parts, TensorList weights, double factor) {
  TORCH_CHECK(!parts.empty() && parts.size() == weights.size(), "mix: one matrix per part is needed");
  int64_t rows = 0, first = 0;
  for (const auto& x : parts) {
    TORCH_CHECK(x.dim() == 3 && x.size(0) == parts[0].size(0), "mix: parts must be of the same atoms");
    rows += x.size(1);
  }
  auto out = at::empty({parts[0].size(0), rows, weights[0].size(1)}, parts[0].options());
  for (size_t k = 0; k < parts.size(); first += parts[k++].size(1))
    linear_maps::map_one(parts[k], weights[k], {rows, parts[k].size(1), 0, first}, scale(weights[k], factor), false, out);
  return out;
}

inline Parts mix_adjoint(const Tensor& g, TensorList weights, IntArrayRef rows, double factor) {
  TORCH_CHECK(g.dim() == 3 && rows.size() == weights.size(), "mix: wrong gradient");
  Parts found;
  int64_t first = 0;
  for (size_t k = 0; k < weights.size(); first += rows[k++]) {
    found.push_back(at::empty({g.size(0), rows[k], weights[k].size(0)}, g.options()));
    linear_maps::map_one(g, weights[k], {rows[k], rows[k], first, 0}, scale(weights[k], factor), true, found.back());
  }
  return found;
}

inline Parts mix_weights(TensorList parts, const Tensor& g_, double factor) {
  const auto g = g_.contiguous();
  Parts found;
  int64_t first = 0;
  for (const auto& part : parts) {
    const int64_t width = part.size(1);
    TORCH_CHECK(part.dim() == 3 && g.dim() == 3 && part.size(0) == g.size(0) && first + width <= g.size(1) && part.scalar_type() == g.scalar_type(),
                "mix: gradient does not fit");
    const auto x = part.contiguous();
    found.push_back(at::empty({x.size(2), g.size(2)}, g.options()));
    const Maps m{x.size(0), width, g.size(1), x.size(2), g.size(2), {{width, 0, first}}, {0, x.size(0)}};
    AT_DISPATCH_FLOATING_TYPES(g.scalar_type(), "mix_weights", [&] {
      sum_outer<scalar_t>(m, x.const_data_ptr<scalar_t>(), g.const_data_ptr<scalar_t>(), found.back().data_ptr<scalar_t>(),
                          scalar_t(scale(found.back(), factor)));
    });
    first += width;
  }
  return found;
}

// ---- gradients -----------------------------------------------------------------------------------------------

namespace recorded {
using namespace gradients;
Tensor mix(TensorList parts, TensorList weights, double factor);
Parts mix_adjoint(const Tensor& g, TensorList weights, IntArrayRef rows, double factor);
Parts mix_weights(TensorList parts, const Tensor& g, double factor);

inline std::vector<int64_t> rows_of(TensorList parts) {
  std::vector<int64_t> found;
  for (const auto& x : parts) found.push_back(linear_maps::rows_of(x));
  return found;
}
inline bool any(AutogradContext* ctx, size_t begin, size_t end) {
  for (size_t k = begin; k < end; ++k)
    if (ctx->needs_input_grad(k)) return true;
  return false;
}

struct Mix : Function<Mix> {
  static Tensor forward(AutogradContext* ctx, TensorList parts, TensorList weights, double factor) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward(joined(parts, weights));
    ctx->saved_data["factor"] = factor;
    return FORGEFIELD_CALL(mix, parts, weights, factor);
  }
  static variable_list backward(AutogradContext* ctx, variable_list g) {
    const Quiet quiet;
    const auto s = ctx->get_saved_variables();
    const size_t n = s.size() / 2;
    const TensorList parts(s.data(), n), weights(s.data() + n, n);
    const double factor = ctx->saved_data["factor"].toDouble();
    variable_list g_parts(n), g_weights(n);
    if (any(ctx, 0, n)) g_parts = FORGEFIELD_CALL(mix_adjoint, g[0], weights, rows_of(parts), factor);
    if (any(ctx, n, 2 * n)) g_weights = FORGEFIELD_CALL(mix_weights, parts, g[0], factor);
    return joined(g_parts, g_weights, none(1));
  }
};

struct MixAdjoint : Function<MixAdjoint> {
  static variable_list forward(AutogradContext* ctx, const Tensor& g, TensorList weights, std::vector<int64_t> rows, double factor) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward(joined(g, weights));
    ctx->saved_data["factor"] = factor;
    return FORGEFIELD_CALL(mix_adjoint, g, weights, rows, factor);
  }
  static variable_list backward(AutogradContext* ctx, variable_list v) {
    const Quiet quiet;
    const auto s = ctx->get_saved_variables();
    const size_t n = v.size();
    const double factor = ctx->saved_data["factor"].toDouble();
    Tensor g_g;
    variable_list g_weights(n);
    if (ctx->needs_input_grad(0)) g_g = FORGEFIELD_CALL(mix, v, TensorList(s.data() + 1, n), factor);
    if (any(ctx, 1, n + 1)) g_weights = FORGEFIELD_CALL(mix_weights, v, s[0], factor);
    return joined(g_g, g_weights, none(2));
  }
};

struct MixWeights : Function<MixWeights> {
  static variable_list forward(AutogradContext* ctx, TensorList parts, const Tensor& g, double factor) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward(joined(parts, g));
    ctx->saved_data["factor"] = factor;
    return FORGEFIELD_CALL(mix_weights, parts, g, factor);
  }
  static variable_list backward(AutogradContext* ctx, variable_list v) {
    const Quiet quiet;
    const auto s = ctx->get_saved_variables();
    const size_t n = v.size();
    const TensorList parts(s.data(), n);
    const double factor = ctx->saved_data["factor"].toDouble();
    variable_list g_parts(n);
    Tensor g_g;
    if (any(ctx, 0, n)) g_parts = FORGEFIELD_CALL(mix_adjoint, s[n], v, rows_of(parts), factor);
    if (ctx->needs_input_grad(n)) g_g = FORGEFIELD_CALL(mix, parts, v, factor);
    return joined(g_parts, g_g, none(1));
  }
};

inline Tensor mix(TensorList parts, TensorList weights, double factor) { return Mix::apply(parts, weights, factor); }
inline Parts mix_adjoint(const Tensor& g, TensorList weights, IntArrayRef rows, double factor) {
  return MixAdjoint::apply(g, weights, rows.vec(), factor);
}
inline Parts mix_weights(TensorList parts, const Tensor& g, double factor) { return MixWeights::apply(parts, g, factor); }
}  // namespace recorded
}  // namespace mixing
