// The operators of the namespace `forgefield` for the CPU; their schemas are defined in Python.
#include <ATen/core/Tensor.h>
#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/zeros.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <optional>
#include <tuple>

#include "contraction.h"
#include "edge_gradients.h"
#include "edge_product.h"
#include "gradients.h"
#include "linear_operator.h"
#include "mix_operator.h"
#include "network_operator.h"

namespace {
using at::Tensor;
using Maybe = std::optional<Tensor>;

template <class T>
const T* pointer(const Tensor& x) {
  return x.const_data_ptr<T>();
}
template <class T>
const T* pointer(const Maybe& x) {
  return x ? x->const_data_ptr<T>() : nullptr;
}
Maybe packed(const Maybe& x) { return x ? Maybe(x->contiguous()) : x; }

// Rows of 4 or 2 vectors, whichever leaves the outer products of an atom in the first-level cache.
bool narrow(const EdgePlan& plan, int64_t channels, size_t item) {
  return plan.n_outer > 96 || channels * int64_t(item) < 256;
}

struct Inputs {  // contiguous copies that the pointers below point into
  Tensor weights, features, harmonics, sender, pair, sign, visit, plan, values;
  EdgePlan edges;
  std::vector<int64_t> degree;  // slots of each atom up to its last edge
  std::optional<Tour> tour;
  Inputs(const Tensor& w, const Tensor& h, const Tensor& y, const Tensor& sender_, const Tensor& pair_, const Tensor& sign_,
         const Tensor& visit_, const Tensor& plan_, const Tensor& values_)
      : weights(w.contiguous()), features(h.contiguous()), harmonics(y.contiguous()), sender(sender_.contiguous()),
        pair(pair_.contiguous()), sign(sign_.contiguous()), visit(visit_.contiguous()), plan(plan_.contiguous()),
        values(values_.to(at::kDouble).contiguous()),
        edges(pointer<int32_t>(plan), pointer<double>(values)) {
    TORCH_CHECK(w.dim() == 3 && h.dim() == 3 && y.dim() == 2 && sender.dim() == 2, "edge_product: wrong number of axes");
    TORCH_CHECK(w.size(1) == edges.n_paths && w.size(2) == h.size(2) && w.size(0) == y.size(0), "edge_product: sizes differ");
    TORCH_CHECK(w.scalar_type() == h.scalar_type() && w.scalar_type() == y.scalar_type() && w.scalar_type() == sign.scalar_type(),
                "edge_product: types differ");
    TORCH_CHECK(plan.is_cpu() && plan.scalar_type() == at::kInt, "edge_product: bad plan");
    TORCH_CHECK(visit.numel() == h.size(0), "edge_product: every atom must be visited");
    const int64_t atoms = sender.size(0), slots = sender.size(1);
    degree.resize(atoms);
    AT_DISPATCH_FLOATING_TYPES(sign.scalar_type(), "edge_product", [&] {
      const auto* s = pointer<scalar_t>(sign);
      for (int64_t n = 0; n < atoms; ++n)
        for (int64_t k = 0; k < slots; ++k)
          if (s[n * slots + k] != scalar_t(0)) degree[n] = k + 1;
    });
    tour.emplace(pointer<int64_t>(visit), pointer<int64_t>(sender), atoms, slots, degree.data());
  }
  template <class T>
  Edges<T> view() const {
    return {features.size(0), sender.size(1), features.size(2), weights.size(1), features.size(1), harmonics.size(1),
            pointer<int64_t>(sender), pointer<int64_t>(pair), degree.data(), pointer<T>(sign), pointer<T>(weights), pointer<T>(features),
            pointer<T>(harmonics)};
  }
  std::vector<int64_t> rows() const {  // of one atom, per degree
    std::vector<int64_t> n(edges.n_degrees, 0);
    for (int r = 0; r < edges.n_rows; ++r) {
      auto& most = n[edges.row_degree[r]];
      most = std::max<int64_t>(most, edges.row_offset[r] + 1);
    }
    return n;
  }
  std::vector<Tensor> messages() const {
    std::vector<Tensor> out;
    const auto n = rows();
    for (int l = 0; l < edges.n_degrees; ++l)
      out.push_back(at::empty({features.size(0), 2 * l + 1, n[l] / (2 * l + 1) * features.size(2)}, features.options()));
    return out;
  }
  template <class T>
  Blocks<T> blocks(const std::vector<Tensor>& parts) const {
    Blocks<T> b;
    b.stride = rows();
    for (const auto& part : parts) b.data.push_back(const_cast<T*>(pointer<T>(part)));
    return b;
  }
};

std::vector<Tensor> packed(const std::vector<Tensor>& parts) {
  std::vector<Tensor> out;
  for (const auto& part : parts) out.push_back(part.contiguous());
  return out;
}

std::vector<Tensor> edge_product(const Tensor& w, const Tensor& h, const Tensor& y, const Tensor& sender, const Tensor& pair,
                                 const Tensor& sign, const Tensor& visit, const Tensor& plan, const Tensor& values, at::IntArrayRef, int64_t) {
  const Inputs in(w, h, y, sender, pair, sign, visit, plan, values);
  auto out = in.messages();
  AT_DISPATCH_FLOATING_TYPES(w.scalar_type(), "edge_product", [&] {
    const auto edges = in.view<scalar_t>();
    const auto blocks = in.blocks<scalar_t>(out);
    if (narrow(in.edges, edges.channels, sizeof(scalar_t)))
      edge_value<scalar_t, 2>(in.edges, edges, *in.tour, blocks);
    else
      edge_value<scalar_t, 4>(in.edges, edges, *in.tour, blocks);
  });
  return out;
}

// Gradients by features: one sum, or, where threads share atoms, one per thread, added in their order.
Tensor per_thread(const Tensor& h, const Tour& tour, bool wanted) {
  if (!wanted) return at::empty({0}, h.options());
  return at::zeros({tour.apart ? 1 : tour.parts(), h.size(0), h.size(1), h.size(2)}, h.options());
}

Tensor over_threads(const Tensor& sums, bool wanted) {
  if (!wanted) return sums;
  return sums.size(0) == 1 ? sums.squeeze(0) : sums.sum(0);
}

std::tuple<Tensor, Tensor, Tensor> edge_product_adjoint(at::TensorList g_, const Tensor& w, const Tensor& h, const Tensor& y,
                                                        const Tensor& sender, const Tensor& pair, const Tensor& sign,
                                                        const Tensor& visit, const Tensor& plan, const Tensor& values, at::IntArrayRef, int64_t,
                                                        bool need_features, bool need_harmonics) {
  const Inputs in(w, h, y, sender, pair, sign, visit, plan, values);
  const auto g = packed(g_.vec());
  auto g_w = at::empty_like(in.weights);
  auto g_h = per_thread(in.features, *in.tour, need_features);
  auto g_y = at::empty({need_harmonics ? y.size(0) : 0, y.size(1)}, y.options());
  AT_DISPATCH_FLOATING_TYPES(w.scalar_type(), "edge_product_adjoint", [&] {
    using T = scalar_t;
    const auto edges = in.view<T>();
    const auto blocks = in.blocks<T>(g);
    const EdgeGradients<T> out{g_w.data_ptr<T>(), need_features ? g_h.data_ptr<T>() : nullptr,
                               need_harmonics ? g_y.data_ptr<T>() : nullptr};
    const Directions<T> no{nullptr, nullptr, nullptr};
    if (need_harmonics)
      edge_gradients<T, 2, true, false>(in.edges, edges, *in.tour, blocks, no, {}, out);
    else if (narrow(in.edges, edges.channels, sizeof(T)))
      edge_gradients<T, 2, false, false>(in.edges, edges, *in.tour, blocks, no, {}, out);
    else
      edge_gradients<T, 4, false, false>(in.edges, edges, *in.tour, blocks, no, {}, out);
  });
  return {g_w, over_threads(g_h, need_features), g_y};
}

std::tuple<std::vector<Tensor>, Tensor, Tensor, Tensor> edge_product_second(
    at::TensorList g_, const Tensor& w, const Tensor& h, const Tensor& y, const Maybe& v_w_, const Maybe& v_h_, const Maybe& v_y_,
    const Tensor& sender, const Tensor& pair, const Tensor& sign, const Tensor& visit, const Tensor& plan, const Tensor& values, at::IntArrayRef, int64_t,
    bool need_features, bool need_harmonics) {
  const Inputs in(w, h, y, sender, pair, sign, visit, plan, values);
  const auto g = packed(g_.vec());
  const auto v_w = packed(v_w_), v_h = packed(v_h_), v_y = packed(v_y_);
  auto g_g = in.messages();
  auto g_w = at::empty_like(in.weights);
  auto g_h = per_thread(in.features, *in.tour, need_features);
  auto g_y = at::empty({need_harmonics ? y.size(0) : 0, y.size(1)}, y.options());
  AT_DISPATCH_FLOATING_TYPES(w.scalar_type(), "edge_product_second", [&] {
    using T = scalar_t;
    const auto edges = in.view<T>();
    const auto blocks = in.blocks<T>(g), out_blocks = in.blocks<T>(g_g);
    const Directions<T> v{pointer<T>(v_w), pointer<T>(v_h), pointer<T>(v_y)};
    const EdgeGradients<T> out{g_w.data_ptr<T>(), need_features ? g_h.data_ptr<T>() : nullptr,
                               need_harmonics ? g_y.data_ptr<T>() : nullptr};
    if (need_harmonics)
      edge_gradients<T, 2, true, true>(in.edges, edges, *in.tour, blocks, v, out_blocks, out);
    else
      edge_gradients<T, 2, false, true>(in.edges, edges, *in.tour, blocks, v, out_blocks, out);
  });
  return {g_g, g_w, over_threads(g_h, need_features), g_y};
}

// ---- contraction ---------------------------------------------------------------------------------------------

struct Polynomial {
  Tensor features, coefficients, set, plan;
  Polynomials terms;
  Polynomial(const Tensor& a, const Tensor& c, const Tensor& s, const Tensor& p)
      : features(a.contiguous()), coefficients(c.contiguous()), set(s.contiguous()), plan(p.contiguous()),
        terms(pointer<int32_t>(plan)) {
    TORCH_CHECK(a.dim() == 3 && c.dim() == 3 && a.size(1) == terms.n_variables && c.size(1) == terms.n_terms,
                "contraction: wrong sizes");
    TORCH_CHECK(a.size(2) == c.size(2) && a.scalar_type() == c.scalar_type() && s.size(0) == a.size(0), "contraction: sizes differ");
  }
  template <class T>
  Atoms<T> view() const {
    return {features.size(0), features.size(2), pointer<int64_t>(set), pointer<T>(features), pointer<T>(coefficients)};
  }
  Tensor outputs() const { return at::empty({features.size(0), terms.n_outputs, features.size(2)}, features.options()); }
};

Tensor contraction(const Tensor& a, const Tensor& c, const Tensor& set, const Tensor& plan, int64_t) {
  const Polynomial in(a, c, set, plan);
  auto out = in.outputs();
  AT_DISPATCH_FLOATING_TYPES(a.scalar_type(), "contraction", [&] {
    contraction_value<scalar_t, 4>(in.terms, in.view<scalar_t>(), out.data_ptr<scalar_t>());
  });
  return out;
}

// Adds the sums of the chunks to their rows of coefficients, in order.
Tensor over_chunks(const Tensor& parts, const Chunks& chunks, const Tensor& like) {
  auto sum = at::zeros(like.sizes(), like.options());
  AT_DISPATCH_FLOATING_TYPES(like.scalar_type(), "contraction", [&] {
    const int64_t size = like.size(1) * like.size(2);
    auto* to = sum.data_ptr<scalar_t>();
    const auto* from = pointer<scalar_t>(parts);
    at::parallel_for(0, size, 4096, [&](int64_t begin, int64_t end) {
      for (int64_t k = 0; k < chunks.count(); ++k)
        for (int64_t i = begin; i < end; ++i) to[chunks.set[k] * size + i] += from[k * size + i];
    });
  });
  return sum;
}

constexpr int64_t MOST_CHUNKS = 64;

std::tuple<Tensor, Tensor> contraction_adjoint(const Tensor& g_, const Tensor& a, const Tensor& c, const Tensor& set,
                                               const Tensor& plan, bool need_coefficients) {
  const Polynomial in(a, c, set, plan);
  const auto g = g_.contiguous();
  const Chunks chunks(a.size(0), pointer<int64_t>(in.set), need_coefficients ? MOST_CHUNKS : a.size(0));
  auto g_a = at::empty_like(in.features);
  auto parts = at::zeros({need_coefficients ? chunks.count() : 0, c.size(1), c.size(2)}, c.options());
  AT_DISPATCH_FLOATING_TYPES(a.scalar_type(), "contraction_adjoint", [&] {
    using T = scalar_t;
    contraction_gradients<T, 4>(in.terms, in.view<T>(), pointer<T>(g), nullptr, chunks, nullptr, g_a.data_ptr<T>(),
                                need_coefficients ? parts.data_ptr<T>() : nullptr);
  });
  return {g_a, need_coefficients ? over_chunks(parts, chunks, in.coefficients) : parts};
}

std::tuple<Tensor, Tensor, Tensor> contraction_second(const Tensor& g_, const Tensor& a, const Tensor& c, const Tensor& v_,
                                                      const Tensor& set, const Tensor& plan) {
  const Polynomial in(a, c, set, plan);
  const auto g = g_.contiguous(), v = v_.contiguous();
  const Chunks chunks(a.size(0), pointer<int64_t>(in.set), MOST_CHUNKS);
  auto g_a = at::empty_like(in.features);
  auto g_g = in.outputs();
  auto parts = at::zeros({chunks.count(), c.size(1), c.size(2)}, c.options());
  AT_DISPATCH_FLOATING_TYPES(a.scalar_type(), "contraction_second", [&] {
    using T = scalar_t;
    contraction_gradients<T, 4>(in.terms, in.view<T>(), pointer<T>(g), pointer<T>(v), chunks, g_g.data_ptr<T>(), g_a.data_ptr<T>(),
                                parts.data_ptr<T>());
  });
  return {g_g, g_a, over_chunks(parts, chunks, in.coefficients)};
}

// ---- silu with slope -----------------------------------------------------------------------------------------

// value = gain x sigma(x), slope = its derivative; both with the sigmoid itself for the backward pass.
std::tuple<Tensor, Tensor, Tensor> gated(const Tensor& x_, double gain) {
  const auto x = x_.contiguous();
  auto s = at::sigmoid(x);
  auto value = at::empty_like(x), slope = at::empty_like(x);
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "gated", [&] {
    const auto *px = pointer<scalar_t>(x), *ps = pointer<scalar_t>(s);
    auto *pv = value.data_ptr<scalar_t>(), *pd = slope.data_ptr<scalar_t>();
    const scalar_t k(gain);
    at::parallel_for(0, x.numel(), 16384, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const scalar_t v = px[i] * ps[i];
        pv[i] = k * v;
        pd[i] = k * (ps[i] + v * (scalar_t(1) - ps[i]));
      }
    });
  });
  return {value, slope, s};
}

Tensor gated_backward(const Maybe& g_value_, const Maybe& g_slope_, const Tensor& x_, const Tensor& s_, double gain) {
  const auto x = x_.contiguous(), s = s_.contiguous();
  const auto g_value = packed(g_value_), g_slope = packed(g_slope_);
  auto g = at::empty_like(x);
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "gated_backward", [&] {
    using T = scalar_t;
    const T *px = pointer<T>(x), *ps = pointer<T>(s), *gv = pointer<T>(g_value), *gs = pointer<T>(g_slope);
    T* to = g.data_ptr<T>();
    const T k(gain);
    at::parallel_for(0, x.numel(), 16384, [&](int64_t begin, int64_t end) {
      if (gv && gs)
        for (int64_t i = begin; i < end; ++i) {
          const T d = ps[i] * (T(1) - ps[i]);
          to[i] = k * (gv[i] * (ps[i] + px[i] * d) + gs[i] * d * (T(2) + px[i] * (T(1) - T(2) * ps[i])));
        }
      else if (gv)
        for (int64_t i = begin; i < end; ++i) to[i] = k * gv[i] * (ps[i] + px[i] * ps[i] * (T(1) - ps[i]));
      else
        for (int64_t i = begin; i < end; ++i) {
          const T d = ps[i] * (T(1) - ps[i]);
          to[i] = gs ? k * gs[i] * d * (T(2) + px[i] * (T(1) - T(2) * ps[i])) : T(0);
        }
    });
  });
  return g;
}
}  // namespace

TORCH_LIBRARY_IMPL(forgefield, CPU, m) {
  m.impl("edge_product", edge_product);
  m.impl("edge_product_adjoint", edge_product_adjoint);
  m.impl("edge_product_second", edge_product_second);
  m.impl("contraction", contraction);
  m.impl("contraction_adjoint", contraction_adjoint);
  m.impl("contraction_second", contraction_second);
  m.impl("gated", gated);
  m.impl("gated_backward", gated_backward);
  m.impl("linear", linear_maps::linear);
  m.impl("linear_weights", linear_maps::linear_weights);
  m.impl("mix", mixing::mix);
  m.impl("mix_adjoint", mixing::mix_adjoint);
  m.impl("mix_weights", mixing::mix_weights);
  m.impl("network", networks::network);
  m.impl("network_adjoint", networks::network_adjoint);
  m.impl("network_backward", networks::network_backward);
  m.impl("network_second", networks::network_second);
}

TORCH_LIBRARY_IMPL(forgefield, AutogradCPU, m) {
  m.impl("edge_product", gradients::edge_product);
  m.impl("edge_product_adjoint", gradients::edge_product_adjoint);
  m.impl("contraction", gradients::contraction);
  m.impl("contraction_adjoint", gradients::contraction_adjoint);
  m.impl("gated", gradients::gated);
  m.impl("linear", linear_maps::linear_autograd);
  m.impl("linear_weights", linear_maps::weights_autograd);
  m.impl("mix", mixing::recorded::mix);
  m.impl("mix_adjoint", mixing::recorded::mix_adjoint);
  m.impl("mix_weights", mixing::recorded::mix_weights);
  m.impl("network", networks::recorded::network);
  m.impl("network_adjoint", networks::recorded::network_adjoint);
}
