// Sums over neighbours of features x radial functions, as scalars and as vectors, and their first two derivatives.
//
//   out[i, 0, a g] = sum of f[j, a g] r[p, 0, g]
//   out[i, c, a g] = sum of f[j, a g] r[p, 1, g] s u[p, c]        c = 1, 2, 3; s: the direction's sign
//
// All derivatives are sums of the same products with one factor replaced; a `Product` names the factors of one.
#pragma once
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <optional>
#include <tuple>
#include <vector>

#include "gradients.h"
#include "vector.h"

namespace radial_sums {
using at::Tensor;
using Maybe = std::optional<Tensor>;

template <class T>
struct Product {
  const T *f, *r, *u;
  bool scalar;  // whether the scalar part has it too
};

template <class T>
struct Edges {
  int64_t atoms, pairs, slots, features, width;  // N, P, K, A, G
  const int64_t *sender, *pair, *first, *second;
  const T* sign;
  int64_t row() const { return features * width; }
};

// The unit vector of a directed edge.
template <class T>
struct Arrow {
  T x, y, z;
  Arrow(const T* u, T sign) : x(sign * u[0]), y(sign * u[1]), z(sign * u[2]) {}
};

// Sums at the receivers, (N, 4, A G). A block of channels of R stays in registers while the neighbours are visited.
template <class T, class R>
void sums(const Edges<T>& e, const std::vector<Product<T>>& products, T* out) {
  const int64_t width = e.width, row = e.row();
  at::parallel_for(0, e.atoms, 8, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      for (int64_t c = 0; c < row; c += R::channels) {
        const int64_t g = c % width;
        R scalar = R::zero(), x = R::zero(), y = R::zero(), z = R::zero();
        for (int64_t k = i * e.slots; k < (i + 1) * e.slots; ++k) {
          if (e.sign[k] == T(0)) continue;
          for (const auto& p : products) {
            const T* r = p.r + e.pair[k] * 2 * width + g;
            const R f = R::load(p.f + e.sender[k] * row + c), w = f.times(R::load(r + width));
            const Arrow<T> u(p.u + e.pair[k] * 3, e.sign[k]);
            if (p.scalar) scalar.add(f, R::load(r));
            x.add(u.x, w), y.add(u.y, w), z.add(u.z, w);
          }
        }
        T* to = out + 4 * row * i + c;
        scalar.store(to), x.store(to + row), y.store(to + 2 * row), z.store(to + 3 * row);
      }
  });
}

// What the vectors of a receiver give along an arrow.
template <class R, class T>
inline R along(const T* g, int64_t row, const Arrow<T>& u) {
  R sum = R::load(g + row).times(u.x);
  sum.add(u.y, R::load(g + 2 * row)), sum.add(u.z, R::load(g + 3 * row));
  return sum;
}

// Gradients by the features of the senders, (N, A G), from those by the sums.
template <class T, class R>
void by_features(const Edges<T>& e, const std::vector<Product<T>>& products, const T* from, T* out) {
  const int64_t width = e.width, row = e.row();
  at::parallel_for(0, e.atoms, 8, [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; ++j)
      for (int64_t c = 0; c < row; c += R::channels) {
        R sum = R::zero();
        for (int64_t k = j * e.slots; k < (j + 1) * e.slots; ++k) {
          if (e.sign[k] == T(0)) continue;
          const T* g = from + 4 * row * e.sender[k] + c;  // the opposite edge, along which j sends
          for (const auto& p : products) {
            const T* r = p.r + e.pair[k] * 2 * width + c % width;
            if (p.scalar) sum.add(R::load(r), R::load(g));
            sum.add(R::load(r + width), along<R>(g, row, Arrow<T>(p.u + e.pair[k] * 3, -e.sign[k])));
          }
        }
        sum.store(out + row * j + c);
      }
  });
}

// Gradients by the radial functions (P, 2, G), from `of_radial`, and by the unit vectors (P, 3), from `of_unit`.
template <class T, class R>
void by_pairs(const Edges<T>& e, const std::vector<Product<T>>& of_radial, const std::vector<Product<T>>& of_unit, const T* from,
              T* out_radial, T* out_unit) {
  const int64_t width = e.width, row = e.row();
  at::parallel_for(0, e.pairs, 16, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      T* to_unit = out_unit + 3 * p;
      to_unit[0] = to_unit[1] = to_unit[2] = T(0);
      for (int64_t g = 0; g < width; g += R::channels) {
        R scalar = R::zero(), vector = R::zero(), x = R::zero(), y = R::zero(), z = R::zero();
        for (const bool forward : {true, false}) {
          const int64_t sender = forward ? e.first[p] : e.second[p], receiver = forward ? e.second[p] : e.first[p];
          const T sign = forward ? T(1) : T(-1);
          for (int64_t c = g; c < row; c += width) {
            const T* at = from + 4 * row * receiver + c;
            for (const auto& a : of_radial) {
              const R f = R::load(a.f + sender * row + c);
              if (a.scalar) scalar.add(f, R::load(at));
              vector.add(f, along<R>(at, row, Arrow<T>(a.u + 3 * p, sign)));
            }
            for (const auto& a : of_unit) {
              const R w = R::load(a.f + sender * row + c).times(R::load(a.r + (2 * p + 1) * width + g)).times(sign);
              x.add(w, R::load(at + row)), y.add(w, R::load(at + 2 * row)), z.add(w, R::load(at + 3 * row));
            }
          }
        }
        scalar.store(out_radial + 2 * width * p + g), vector.store(out_radial + 2 * width * p + width + g);
        to_unit[0] += x.total(), to_unit[1] += y.total(), to_unit[2] += z.total();
      }
    }
  });
}

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
    sums<T, decltype(w)>(e, {{in.f.const_data_ptr<T>(), in.r.const_data_ptr<T>(), in.u.const_data_ptr<T>(), true}}, out.template data_ptr<T>());
  });
  return out;
}

inline std::tuple<Tensor, Tensor, Tensor> radial_sum_adjoint(const Tensor& g_, const Tensor& f, const Tensor& r, const Tensor& u,
                                                             FORGEFIELD_TABLE, bool need_f) {
  const Given in(f, r, u, sender, pair, sign, first, second);
  const auto g = g_.contiguous();
  auto g_f = at::empty({need_f ? f.size(0) : 0, f.size(1)}, f.options());
  auto g_r = at::empty(r.sizes(), r.options()), g_u = at::empty(u.sizes(), u.options());
  dispatch(in, [&](const auto& e, auto w) {
    using T = std::decay_t<decltype(*e.sign)>;
    const std::vector<Product<T>> all{{in.f.const_data_ptr<T>(), in.r.const_data_ptr<T>(), in.u.const_data_ptr<T>(), true}};
    const T* from = g.const_data_ptr<T>();
    if (need_f) by_features<T, decltype(w)>(e, all, from, g_f.template data_ptr<T>());
    by_pairs<T, decltype(w)>(e, all, all, from, g_r.template data_ptr<T>(), g_u.template data_ptr<T>());
  });
  return {g_f, g_r, g_u};
}

inline std::tuple<Tensor, Tensor, Tensor, Tensor> radial_sum_second(const Tensor& g_, const Tensor& f, const Tensor& r, const Tensor& u,
                                                                    const Maybe& v_f_, const Maybe& v_r_, const Maybe& v_u_,
                                                                    FORGEFIELD_TABLE, bool need_f) {
  const Given in(f, r, u, sender, pair, sign, first, second);
  const auto packed = [](const Maybe& x) { return x ? x->contiguous() : Tensor(); };
  const auto g = g_.contiguous(), v_f = packed(v_f_), v_r = packed(v_r_), v_u = packed(v_u_);
  auto g_g = at::empty({f.size(0), 4, f.size(1)}, f.options()), g_f = at::empty({need_f ? f.size(0) : 0, f.size(1)}, f.options());
  auto g_r = at::empty(r.sizes(), r.options()), g_u = at::empty(u.sizes(), u.options());
  dispatch(in, [&](const auto& e, auto w) {
    using T = std::decay_t<decltype(*e.sign)>;
    using W = decltype(w);
    const T *f0 = in.f.const_data_ptr<T>(), *r0 = in.r.const_data_ptr<T>(), *u0 = in.u.const_data_ptr<T>();
    std::vector<Product<T>> whole, features, radial, unit;
    if (v_f.defined()) {
      const T* d = v_f.const_data_ptr<T>();
      whole.push_back({d, r0, u0, true}), radial.push_back({d, nullptr, u0, true}), unit.push_back({d, r0, nullptr, false});
    }
    if (v_r.defined()) {
      const T* d = v_r.const_data_ptr<T>();
      whole.push_back({f0, d, u0, true}), features.push_back({nullptr, d, u0, true}), unit.push_back({f0, d, nullptr, false});
    }
    if (v_u.defined()) {
      const T* d = v_u.const_data_ptr<T>();
      whole.push_back({f0, r0, d, false}), features.push_back({nullptr, r0, d, false}), radial.push_back({f0, nullptr, d, false});
    }
    const T* from = g.const_data_ptr<T>();
    sums<T, W>(e, whole, g_g.template data_ptr<T>());
    if (need_f) by_features<T, W>(e, features, from, g_f.template data_ptr<T>());
    by_pairs<T, W>(e, radial, unit, from, g_r.template data_ptr<T>(), g_u.template data_ptr<T>());
  });
  return {g_g, g_f, g_r, g_u};
}

// ---- gradients -----------------------------------------------------------------------------------------------

namespace recorded {
using namespace gradients;
Tensor radial_sum(const Tensor& f, const Tensor& r, const Tensor& u, FORGEFIELD_TABLE);
std::tuple<Tensor, Tensor, Tensor> radial_sum_adjoint(const Tensor& g, const Tensor& f, const Tensor& r, const Tensor& u, FORGEFIELD_TABLE,
                                                      bool need_f);
std::tuple<Tensor, Tensor, Tensor, Tensor> radial_sum_second(const Tensor& g, const Tensor& f, const Tensor& r, const Tensor& u,
                                                             const Maybe& v_f, const Maybe& v_r, const Maybe& v_u, FORGEFIELD_TABLE,
                                                             bool need_f);

struct Sum : Function<Sum> {
  static Tensor forward(AutogradContext* ctx, const Tensor& f, const Tensor& r, const Tensor& u, FORGEFIELD_TABLE) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({f, r, u, sender, pair, sign, first, second});
    return FORGEFIELD_CALL(radial_sum, f, r, u, sender, pair, sign, first, second);
  }
  static variable_list backward(AutogradContext* ctx, variable_list g) {
    const Quiet quiet;
    const auto s = ctx->get_saved_variables();
    const bool need = ctx->needs_input_grad(0);
    const auto [g_f, g_r, g_u] = FORGEFIELD_CALL(radial_sum_adjoint, g[0], s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], need);
    return joined(need ? g_f : Tensor(), g_r, g_u, none(5));
  }
};

struct SumAdjoint : Function<SumAdjoint> {
  static variable_list forward(AutogradContext* ctx, const Tensor& g, const Tensor& f, const Tensor& r, const Tensor& u, FORGEFIELD_TABLE,
                               bool need_f) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({g, f, r, u, sender, pair, sign, first, second});
    ctx->set_materialize_grads(false);
    ctx->saved_data["need_f"] = need_f;
    const auto [g_f, g_r, g_u] = FORGEFIELD_CALL(radial_sum_adjoint, g, f, r, u, sender, pair, sign, first, second, need_f);
    return {g_f, g_r, g_u};
  }
  static variable_list backward(AutogradContext* ctx, variable_list v) {
    const Quiet quiet;
    const auto s = ctx->get_saved_variables();
    const bool need = ctx->needs_input_grad(1);
    const auto v_f = ctx->saved_data["need_f"].toBool() ? maybe(v[0]) : std::nullopt;
    const auto [g_g, g_f, g_r, g_u] = FORGEFIELD_CALL(radial_sum_second, s[0], s[1], s[2], s[3], v_f, maybe(v[1]), maybe(v[2]), s[4], s[5],
                                                      s[6], s[7], s[8], need);
    return joined(g_g, need ? g_f : Tensor(), g_r, g_u, none(6));
  }
};

inline Tensor radial_sum(const Tensor& f, const Tensor& r, const Tensor& u, FORGEFIELD_TABLE) {
  return Sum::apply(f, r, u, sender, pair, sign, first, second);
}
inline std::tuple<Tensor, Tensor, Tensor> radial_sum_adjoint(const Tensor& g, const Tensor& f, const Tensor& r, const Tensor& u,
                                                             FORGEFIELD_TABLE, bool need_f) {
  const auto out = SumAdjoint::apply(g, f, r, u, sender, pair, sign, first, second, need_f);
  return {out[0], out[1], out[2]};
}
}  // namespace recorded
}  // namespace radial_sums
