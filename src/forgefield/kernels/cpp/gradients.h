// Gradients of the operators on the CPU, up to second order; other devices take those that Python registers.
#pragma once
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/add.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <optional>
#include <tuple>
#include <type_traits>
#include <vector>

namespace gradients {
using at::IntArrayRef;
using at::Tensor;
using at::TensorList;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

// Goes past the registration of gradients where none are recorded: it costs more than it says.
struct Quiet {
  std::optional<at::AutoDispatchBelowADInplaceOrView> below;
  Quiet() {
    if (!at::GradMode::is_enabled()) below.emplace();
  }
};

// Calls an operator through the dispatcher, so that compilers and tracers see it.
#define FORGEFIELD_CALL(name, ...)                                                                                          \
  [&] {                                                                                                                     \
    static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("forgefield::" #name, "").typed<decltype(name)>(); \
    return op.call(__VA_ARGS__);                                                                                            \
  }()

// The operators' signatures; those with gradients are defined below, as what records them.
using Maybe = std::optional<Tensor>;
std::vector<Tensor> edge_product(const Tensor& w, const Tensor& h, const Tensor& y, const Tensor& sender, const Tensor& pair,
                                 const Tensor& sign, const Tensor& visit, const Tensor& plan, const Tensor& values, IntArrayRef degrees,
                                 int64_t max_degree);
std::tuple<Tensor, Tensor, Tensor> edge_product_adjoint(TensorList g, const Tensor& w, const Tensor& h, const Tensor& y,
                                                        const Tensor& sender, const Tensor& pair, const Tensor& sign, const Tensor& visit,
                                                        const Tensor& plan, const Tensor& values, IntArrayRef degrees, int64_t max_degree,
                                                        bool need_h, bool need_y);
std::tuple<std::vector<Tensor>, Tensor, Tensor, Tensor> edge_product_second(
    TensorList g, const Tensor& w, const Tensor& h, const Tensor& y, const Maybe& v_w, const Maybe& v_h, const Maybe& v_y,
    const Tensor& sender, const Tensor& pair, const Tensor& sign, const Tensor& visit, const Tensor& plan, const Tensor& values,
    IntArrayRef degrees, int64_t max_degree, bool need_h, bool need_y);
Tensor contraction(const Tensor& a, const Tensor& c, const Tensor& set, const Tensor& plan, int64_t n_outputs);
std::tuple<Tensor, Tensor> contraction_adjoint(const Tensor& g, const Tensor& a, const Tensor& c, const Tensor& set, const Tensor& plan,
                                               bool need);
std::tuple<Tensor, Tensor, Tensor> contraction_second(const Tensor& g, const Tensor& a, const Tensor& c, const Tensor& v,
                                                      const Tensor& set, const Tensor& plan);
std::tuple<Tensor, Tensor, Tensor> gated(const Tensor& x, double gain);
Tensor gated_backward(const Maybe& g_value, const Maybe& g_slope, const Tensor& x, const Tensor& sigmoid, double gain);

inline Maybe maybe(const Tensor& x) { return x.defined() ? Maybe(x) : std::nullopt; }

template <class... More>
variable_list joined(More&&... parts) {
  variable_list all;
  const auto add = [&](const auto& part) {
    if constexpr (std::is_convertible_v<decltype(part), TensorList> && !std::is_convertible_v<decltype(part), Tensor>)
      for (const Tensor& x : TensorList(part)) all.push_back(x);
    else
      all.push_back(part);
  };
  (add(parts), ...);
  return all;
}

inline variable_list none(size_t n) { return variable_list(n); }
inline variable_list part(const variable_list& all, size_t begin, size_t end) { return {all.begin() + begin, all.begin() + end}; }

// ---- edge product --------------------------------------------------------------------------------------------

struct EdgeProduct : Function<EdgeProduct> {
  static variable_list forward(AutogradContext* ctx, const Tensor& w, const Tensor& h, const Tensor& y, const Tensor& sender,
                               const Tensor& pair, const Tensor& sign, const Tensor& visit, const Tensor& plan, const Tensor& values,
                               std::vector<int64_t> degrees, int64_t max_degree) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({w, h, y, sender, pair, sign, visit, plan, values});
    ctx->saved_data["degrees"] = degrees;
    ctx->saved_data["max_degree"] = max_degree;
    return FORGEFIELD_CALL(edge_product, w, h, y, sender, pair, sign, visit, plan, values, degrees, max_degree);
  }
  static variable_list backward(AutogradContext* ctx, variable_list g) {
    const Quiet quiet;
    const auto s = ctx->get_saved_variables();
    const auto degrees = ctx->saved_data["degrees"].toIntVector();
    const bool need_h = ctx->needs_input_grad(1), need_y = ctx->needs_input_grad(2);
    const auto [g_w, g_h, g_y] = FORGEFIELD_CALL(edge_product_adjoint, g, s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], s[8], degrees,
                                                 ctx->saved_data["max_degree"].toInt(), need_h, need_y);
    return joined(g_w, need_h ? g_h : Tensor(), need_y ? g_y : Tensor(), none(8));
  }
};

struct EdgeAdjoint : Function<EdgeAdjoint> {
  static variable_list forward(AutogradContext* ctx, TensorList g, const Tensor& w, const Tensor& h, const Tensor& y, const Tensor& sender,
                               const Tensor& pair, const Tensor& sign, const Tensor& visit, const Tensor& plan, const Tensor& values,
                               std::vector<int64_t> degrees, int64_t max_degree, bool need_h, bool need_y) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward(joined(g, w, h, y, sender, pair, sign, visit, plan, values));
    ctx->set_materialize_grads(false);
    ctx->saved_data["degrees"] = degrees;
    ctx->saved_data["max_degree"] = max_degree;
    ctx->saved_data["need_h"] = need_h;
    ctx->saved_data["need_y"] = need_y;
    const auto [g_w, g_h, g_y] =
        FORGEFIELD_CALL(edge_product_adjoint, g, w, h, y, sender, pair, sign, visit, plan, values, degrees, max_degree, need_h, need_y);
    return {g_w, g_h, g_y};
  }
  static variable_list backward(AutogradContext* ctx, variable_list v) {
    const Quiet quiet;
    const auto saved = ctx->get_saved_variables();
    const size_t n = saved.size() - 9;
    const auto *s = saved.data() + n;
    const auto degrees = ctx->saved_data["degrees"].toIntVector();
    const bool need_h = ctx->needs_input_grad(n + 1), need_y = ctx->needs_input_grad(n + 2);
    const auto v_h = ctx->saved_data["need_h"].toBool() ? maybe(v[1]) : std::nullopt;
    const auto v_y = ctx->saved_data["need_y"].toBool() ? maybe(v[2]) : std::nullopt;
    const auto [g_g, g_w, g_h, g_y] =
        FORGEFIELD_CALL(edge_product_second, TensorList(saved.data(), n), s[0], s[1], s[2], maybe(v[0]), v_h, v_y, s[3], s[4], s[5], s[6],
                        s[7], s[8], degrees, ctx->saved_data["max_degree"].toInt(), need_h, need_y);
    return joined(g_g, g_w, need_h ? g_h : Tensor(), need_y ? g_y : Tensor(), none(10));
  }
};

inline std::vector<Tensor> edge_product(const Tensor& w, const Tensor& h, const Tensor& y, const Tensor& sender, const Tensor& pair,
                                        const Tensor& sign, const Tensor& visit, const Tensor& plan, const Tensor& values,
                                        IntArrayRef degrees, int64_t max_degree) {
  return EdgeProduct::apply(w, h, y, sender, pair, sign, visit, plan, values, degrees.vec(), max_degree);
}

inline std::tuple<Tensor, Tensor, Tensor> edge_product_adjoint(TensorList g, const Tensor& w, const Tensor& h, const Tensor& y,
                                                               const Tensor& sender, const Tensor& pair, const Tensor& sign,
                                                               const Tensor& visit, const Tensor& plan, const Tensor& values,
                                                               IntArrayRef degrees, int64_t max_degree, bool need_h, bool need_y) {
  const auto out = EdgeAdjoint::apply(g, w, h, y, sender, pair, sign, visit, plan, values, degrees.vec(), max_degree, need_h, need_y);
  return {out[0], out[1], out[2]};
}

// ---- contraction ---------------------------------------------------------------------------------------------

struct Contraction : Function<Contraction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& a, const Tensor& c, const Tensor& set, const Tensor& plan, int64_t n_outputs) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({a, c, set, plan});
    return FORGEFIELD_CALL(contraction, a, c, set, plan, n_outputs);
  }
  static variable_list backward(AutogradContext* ctx, variable_list g) {
    const Quiet quiet;
    const auto s = ctx->get_saved_variables();
    const bool need = ctx->needs_input_grad(1);
    const auto [g_a, g_c] = FORGEFIELD_CALL(contraction_adjoint, g[0], s[0], s[1], s[2], s[3], need);
    return joined(g_a, need ? g_c : Tensor(), none(3));
  }
};

struct ContractionAdjoint : Function<ContractionAdjoint> {
  static variable_list forward(AutogradContext* ctx, const Tensor& g, const Tensor& a, const Tensor& c, const Tensor& set,
                               const Tensor& plan, bool need) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({g, a, c, set, plan});
    ctx->saved_data["need"] = need;
    const auto [g_a, g_c] = FORGEFIELD_CALL(contraction_adjoint, g, a, c, set, plan, need);
    return {g_a, g_c};
  }
  static variable_list backward(AutogradContext* ctx, variable_list v) {
    const Quiet quiet;
    const auto s = ctx->get_saved_variables();
    auto [g_g, g_a, g_c] = FORGEFIELD_CALL(contraction_second, s[0], s[1], s[2], v[0], s[3], s[4]);
    if (ctx->saved_data["need"].toBool()) {
      const int64_t outputs = s[0].sym_size(1).guard_int(__FILE__, __LINE__);
      g_g = at::add(g_g, FORGEFIELD_CALL(contraction, s[1], v[1], s[3], s[4], outputs));
      g_a = at::add(g_a, std::get<0>(FORGEFIELD_CALL(contraction_adjoint, s[0], s[1], v[1], s[3], s[4], false)));
    }
    return joined(g_g, g_a, g_c, none(3));
  }
};

inline Tensor contraction(const Tensor& a, const Tensor& c, const Tensor& set, const Tensor& plan, int64_t n_outputs) {
  return Contraction::apply(a, c, set, plan, n_outputs);
}

inline std::tuple<Tensor, Tensor> contraction_adjoint(const Tensor& g, const Tensor& a, const Tensor& c, const Tensor& set,
                                                      const Tensor& plan, bool need) {
  const auto out = ContractionAdjoint::apply(g, a, c, set, plan, need);
  return {out[0], out[1]};
}

// ---- silu with slope -----------------------------------------------------------------------------------------

struct Gated : Function<Gated> {
  static variable_list forward(AutogradContext* ctx, const Tensor& x, double gain) {
    at::AutoDispatchBelowADInplaceOrView below;
    const auto [value, slope, sigmoid] = FORGEFIELD_CALL(gated, x, gain);
    ctx->save_for_backward({x, sigmoid});
    ctx->mark_non_differentiable({sigmoid});
    ctx->set_materialize_grads(false);
    ctx->saved_data["gain"] = gain;
    return {value, slope, sigmoid};
  }
  static variable_list backward(AutogradContext* ctx, variable_list g) {
    const Quiet quiet;
    const auto s = ctx->get_saved_variables();
    return {FORGEFIELD_CALL(gated_backward, maybe(g[0]), maybe(g[1]), s[0], s[1], ctx->saved_data["gain"].toDouble()), Tensor()};
  }
};

inline std::tuple<Tensor, Tensor, Tensor> gated(const Tensor& x, double gain) {
  const auto out = Gated::apply(x, gain);
  return {out[0], out[1], out[2]};
}
}  // namespace gradients
