// Sums over neighbours of features x weights of the pair x harmonics, channel by channel, and their first two derivatives.
//
//   out[i, o + c] += f[j, a + c] w[p, b + c] h        c < width
//
// for each term (o, a, b, y, odd, width): h is 1 for y < 0, else Y[p, y], times the direction's sign if odd. Terms may share
// rows: one feature times all harmonics of a degree, one weight for all components of a feature.
// All derivatives are sums of the same products with one factor replaced; a `Product` names the factors of one.
#pragma once
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

#include "gradients.h"
#include "vector.h"

namespace neighbour_sums {
using at::IntArrayRef;
using at::Tensor;
using Maybe = std::optional<Tensor>;

struct Term {
  int64_t out, feature, weight, y, odd, width;
};
constexpr int64_t TERM = 6;

template <class T>
struct Product {
  const T *f, *w, *y;
  bool plain;  // whether the terms without a harmonic have it too
};

template <class T>
struct Edges {
  int64_t atoms, pairs, slots, n_features, n_weights, n_harmonics, n_out;
  const int64_t *sender, *pair, *first, *second;
  const T* sign;
  const std::vector<Term>& terms;
};

template <class T>
inline T harmonic(const Term& t, const T* y, T sign) {
  return t.y < 0 ? T(1) : t.odd ? sign * y[t.y] : y[t.y];
}

// Calls `each` for all channels of a term: in whole vectors, then one by one.
template <class T, class Each>
inline void blocks(int64_t width, Each&& each) {
  int64_t c = 0;
  for (; c + LANES<T> <= width; c += LANES<T>) each(c, Row<T, 64, 1>{});
  for (; c < width; ++c) each(c, Row<T, sizeof(T), 1>{});
}

// Sums at the receivers, (N, O).
template <class T>
void sums(const Edges<T>& e, const std::vector<Product<T>>& products, T* out) {
  at::parallel_for(0, e.atoms, 4, [&](int64_t begin, int64_t end) {
    std::fill(out + begin * e.n_out, out + end * e.n_out, T(0));
    for (int64_t i = begin; i < end; ++i)
      for (int64_t k = i * e.slots; k < (i + 1) * e.slots; ++k) {
        if (e.sign[k] == T(0)) continue;
        const int64_t j = e.sender[k], p = e.pair[k];
        for (const auto& product : products) {
          const T *f = product.f + j * e.n_features, *w = product.w + p * e.n_weights, *y = product.y + p * e.n_harmonics;
          for (const auto& t : e.terms) {
            if (t.y < 0 && !product.plain) continue;
            const T h = harmonic(t, y, e.sign[k]);
            T* to = out + i * e.n_out + t.out;
            blocks<T>(t.width, [&](int64_t c, auto r) {
              using R = decltype(r);
              R sum = R::load(to + c);
              sum.add(h, R::load(f + t.feature + c).times(R::load(w + t.weight + c)));
              sum.store(to + c);
            });
          }
        }
      }
  });
}

// Gradients by the features of the senders, (N, F), from those by the sums.
template <class T>
void by_features(const Edges<T>& e, const std::vector<Product<T>>& products, const T* from, T* out) {
  at::parallel_for(0, e.atoms, 4, [&](int64_t begin, int64_t end) {
    std::fill(out + begin * e.n_features, out + end * e.n_features, T(0));
    for (int64_t j = begin; j < end; ++j)
      for (int64_t k = j * e.slots; k < (j + 1) * e.slots; ++k) {
        if (e.sign[k] == T(0)) continue;
        const int64_t p = e.pair[k];
        const T* g = from + e.sender[k] * e.n_out;  // the opposite edge, along which j sends
        for (const auto& product : products) {
          const T *w = product.w + p * e.n_weights, *y = product.y + p * e.n_harmonics;
          for (const auto& t : e.terms) {
            if (t.y < 0 && !product.plain) continue;
            const T h = harmonic(t, y, -e.sign[k]);
            T* to = out + j * e.n_features + t.feature;
            blocks<T>(t.width, [&](int64_t c, auto r) {
              using R = decltype(r);
              R sum = R::load(to + c);
              sum.add(h, R::load(g + t.out + c).times(R::load(w + t.weight + c)));
              sum.store(to + c);
            });
          }
        }
      }
  });
}

// Gradients by the weights (P, W), from `of_weights`, and by the harmonics (P, Y), from `of_harmonics`.
template <class T>
void by_pairs(const Edges<T>& e, const std::vector<Product<T>>& of_weights, const std::vector<Product<T>>& of_harmonics, const T* from,
              T* out_w, T* out_y) {
  at::parallel_for(0, e.pairs, 16, [&](int64_t begin, int64_t end) {
    std::fill(out_w + begin * e.n_weights, out_w + end * e.n_weights, T(0));
    if (out_y) std::fill(out_y + begin * e.n_harmonics, out_y + end * e.n_harmonics, T(0));
    for (int64_t p = begin; p < end; ++p)
      for (const bool forward : {true, false}) {
        const int64_t j = forward ? e.first[p] : e.second[p], i = forward ? e.second[p] : e.first[p];
        const T sign = forward ? T(1) : T(-1);
        const T* g = from + i * e.n_out;
        for (const auto& t : e.terms) {
          for (const auto& product : of_weights) {
            if (t.y < 0 && !product.plain) continue;
            const T h = harmonic(t, product.y + p * e.n_harmonics, sign);
            const T* f = product.f + j * e.n_features + t.feature;
            T* to = out_w + p * e.n_weights + t.weight;
            blocks<T>(t.width, [&](int64_t c, auto r) {
              using R = decltype(r);
              R sum = R::load(to + c);
              sum.add(h, R::load(g + t.out + c).times(R::load(f + c)));
              sum.store(to + c);
            });
          }
          if (!out_y || t.y < 0) continue;
          T total = 0;
          for (const auto& product : of_harmonics) {
            const T *f = product.f + j * e.n_features + t.feature, *w = product.w + p * e.n_weights + t.weight;
            auto whole = Row<T, 64, 1>::zero();
            int64_t c = 0;
            for (; c + LANES<T> <= t.width; c += LANES<T>) {
              using R = Row<T, 64, 1>;
              whole.add(R::load(f + c).times(R::load(w + c)), R::load(g + t.out + c));
            }
            for (; c < t.width; ++c) total += f[c] * w[c] * g[t.out + c];
            total += whole.total();
          }
          out_y[p * e.n_harmonics + t.y] += t.odd ? sign * total : total;
        }
      }
  });
}

// What all three operators are given, as contiguous tensors.
struct Given {
  Tensor f, w, y, sender, pair, sign, first, second;
  std::vector<Term> terms;
  int64_t n_out = 0;
  Given(const Tensor& f_, const Tensor& w_, const Tensor& y_, const Tensor& sender_, const Tensor& pair_, const Tensor& sign_,
        const Tensor& first_, const Tensor& second_, IntArrayRef terms_)
      : f(f_.contiguous()), w(w_.contiguous()), y(y_.contiguous()), sender(sender_.contiguous()), pair(pair_.contiguous()),
        sign(sign_.contiguous()), first(first_.contiguous()), second(second_.contiguous()) {
    TORCH_CHECK(f.dim() == 2 && w.dim() == 2 && y.dim() == 2 && sender.dim() == 2, "neighbour_sum: wrong number of axes");
    TORCH_CHECK(w.size(0) == y.size(0) && first.numel() == w.size(0) && second.numel() == w.size(0) && sender.size(0) == f.size(0) &&
                    pair.sizes() == sender.sizes() && sign.sizes() == sender.sizes(), "neighbour_sum: sizes differ");
    TORCH_CHECK(f.scalar_type() == w.scalar_type() && f.scalar_type() == y.scalar_type() && f.scalar_type() == sign.scalar_type(),
                "neighbour_sum: types differ");
    TORCH_CHECK(terms_.size() % TERM == 0, "neighbour_sum: a term is six numbers");
    for (size_t k = 0; k < terms_.size(); k += TERM) {
      const Term t{terms_[k], terms_[k + 1], terms_[k + 2], terms_[k + 3], terms_[k + 4], terms_[k + 5]};
      TORCH_CHECK(t.out >= 0 && t.feature >= 0 && t.weight >= 0 && t.width > 0 && t.feature + t.width <= f.size(1) &&
                      t.weight + t.width <= w.size(1) && t.y < y.size(1), "neighbour_sum: a term reaches beyond its rows");
      n_out = std::max(n_out, t.out + t.width);
      terms.push_back(t);
    }
  }
  template <class T>
  Edges<T> edges() const {
    return {f.size(0), w.size(0), sender.size(1), f.size(1), w.size(1), y.size(1), n_out, sender.const_data_ptr<int64_t>(),
            pair.const_data_ptr<int64_t>(), first.const_data_ptr<int64_t>(), second.const_data_ptr<int64_t>(), sign.const_data_ptr<T>(),
            terms};
  }
};

template <class Run>
void dispatch(const Given& in, Run&& run) {
  AT_DISPATCH_FLOATING_TYPES(in.f.scalar_type(), "neighbour_sum", [&] { run(in.edges<scalar_t>(), scalar_t{}); });
}

#define FORGEFIELD_SLOTS const Tensor &sender, const Tensor &pair, const Tensor &sign, const Tensor &first, const Tensor &second, IntArrayRef terms

inline Tensor neighbour_sum(const Tensor& f, const Tensor& w, const Tensor& y, FORGEFIELD_SLOTS) {
  const Given in(f, w, y, sender, pair, sign, first, second, terms);
  auto out = at::empty({f.size(0), in.n_out}, f.options());
  dispatch(in, [&](const auto& e, auto zero) {
    using T = decltype(zero);
    sums<T>(e, {{in.f.const_data_ptr<T>(), in.w.const_data_ptr<T>(), in.y.const_data_ptr<T>(), true}}, out.template data_ptr<T>());
  });
  return out;
}

inline std::tuple<Tensor, Tensor, Tensor> neighbour_sum_adjoint(const Tensor& g_, const Tensor& f, const Tensor& w, const Tensor& y,
                                                                FORGEFIELD_SLOTS, bool need_f, bool need_y) {
  const Given in(f, w, y, sender, pair, sign, first, second, terms);
  const auto g = g_.contiguous();
  auto g_f = at::empty({need_f ? f.size(0) : 0, f.size(1)}, f.options());
  auto g_w = at::empty(w.sizes(), w.options()), g_y = at::empty({need_y ? y.size(0) : 0, y.size(1)}, y.options());
  dispatch(in, [&](const auto& e, auto zero) {
    using T = decltype(zero);
    const std::vector<Product<T>> all{{in.f.const_data_ptr<T>(), in.w.const_data_ptr<T>(), in.y.const_data_ptr<T>(), true}};
    const T* from = g.const_data_ptr<T>();
    if (need_f) by_features<T>(e, all, from, g_f.template data_ptr<T>());
    by_pairs<T>(e, all, all, from, g_w.template data_ptr<T>(), need_y ? g_y.template data_ptr<T>() : nullptr);
  });
  return {g_f, g_w, g_y};
}

inline std::tuple<Tensor, Tensor, Tensor, Tensor> neighbour_sum_second(const Tensor& g_, const Tensor& f, const Tensor& w, const Tensor& y,
                                                                       const Maybe& v_f_, const Maybe& v_w_, const Maybe& v_y_,
                                                                       FORGEFIELD_SLOTS, bool need_f, bool need_y) {
  const Given in(f, w, y, sender, pair, sign, first, second, terms);
  const auto packed = [](const Maybe& x) { return x ? x->contiguous() : Tensor(); };
  const auto g = g_.contiguous(), v_f = packed(v_f_), v_w = packed(v_w_), v_y = packed(v_y_);
  auto g_g = at::empty({f.size(0), in.n_out}, f.options()), g_f = at::empty({need_f ? f.size(0) : 0, f.size(1)}, f.options());
  auto g_w = at::empty(w.sizes(), w.options()), g_y = at::empty({need_y ? y.size(0) : 0, y.size(1)}, y.options());
  dispatch(in, [&](const auto& e, auto zero) {
    using T = decltype(zero);
    const T *f0 = in.f.const_data_ptr<T>(), *w0 = in.w.const_data_ptr<T>(), *y0 = in.y.const_data_ptr<T>();
    std::vector<Product<T>> whole, features, weights, harmonics;
    if (v_f.defined()) {
      const T* d = v_f.const_data_ptr<T>();
      whole.push_back({d, w0, y0, true}), weights.push_back({d, nullptr, y0, true}), harmonics.push_back({d, w0, nullptr, false});
    }
    if (v_w.defined()) {
      const T* d = v_w.const_data_ptr<T>();
      whole.push_back({f0, d, y0, true}), features.push_back({nullptr, d, y0, true}), harmonics.push_back({f0, d, nullptr, false});
    }
    if (v_y.defined()) {
      const T* d = v_y.const_data_ptr<T>();
      whole.push_back({f0, w0, d, false}), features.push_back({nullptr, w0, d, false}), weights.push_back({f0, nullptr, d, false});
    }
    const T* from = g.const_data_ptr<T>();
    sums<T>(e, whole, g_g.template data_ptr<T>());
    if (need_f) by_features<T>(e, features, from, g_f.template data_ptr<T>());
    by_pairs<T>(e, weights, harmonics, from, g_w.template data_ptr<T>(), need_y ? g_y.template data_ptr<T>() : nullptr);
  });
  return {g_g, g_f, g_w, g_y};
}

// ---- gradients -----------------------------------------------------------------------------------------------

namespace recorded {
using namespace gradients;
Tensor neighbour_sum(const Tensor& f, const Tensor& w, const Tensor& y, FORGEFIELD_SLOTS);
std::tuple<Tensor, Tensor, Tensor> neighbour_sum_adjoint(const Tensor& g, const Tensor& f, const Tensor& w, const Tensor& y,
                                                         FORGEFIELD_SLOTS, bool need_f, bool need_y);
std::tuple<Tensor, Tensor, Tensor, Tensor> neighbour_sum_second(const Tensor& g, const Tensor& f, const Tensor& w, const Tensor& y,
                                                                const Maybe& v_f, const Maybe& v_w, const Maybe& v_y, FORGEFIELD_SLOTS,
                                                                bool need_f, bool need_y);

struct Sum : Function<Sum> {
  static Tensor forward(AutogradContext* ctx, const Tensor& f, const Tensor& w, const Tensor& y, FORGEFIELD_SLOTS) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({f, w, y, sender, pair, sign, first, second});
    ctx->saved_data["terms"] = terms.vec();
    return FORGEFIELD_CALL(neighbour_sum, f, w, y, sender, pair, sign, first, second, terms);
  }
  static variable_list backward(AutogradContext* ctx, variable_list g) {
    const Quiet quiet;
    const auto s = ctx->get_saved_variables();
    const auto terms = ctx->saved_data["terms"].toIntVector();
    const bool need_f = ctx->needs_input_grad(0), need_y = ctx->needs_input_grad(2);
    const auto [g_f, g_w, g_y] =
        FORGEFIELD_CALL(neighbour_sum_adjoint, g[0], s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], terms, need_f, need_y);
    return joined(need_f ? g_f : Tensor(), g_w, need_y ? g_y : Tensor(), none(6));
  }
};

struct SumAdjoint : Function<SumAdjoint> {
  static variable_list forward(AutogradContext* ctx, const Tensor& g, const Tensor& f, const Tensor& w, const Tensor& y, FORGEFIELD_SLOTS,
                               bool need_f, bool need_y) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({g, f, w, y, sender, pair, sign, first, second});
    ctx->set_materialize_grads(false);
    ctx->saved_data["terms"] = terms.vec();
    ctx->saved_data["need_f"] = need_f;
    ctx->saved_data["need_y"] = need_y;
    const auto [g_f, g_w, g_y] =
        FORGEFIELD_CALL(neighbour_sum_adjoint, g, f, w, y, sender, pair, sign, first, second, terms, need_f, need_y);
    return {g_f, g_w, g_y};
  }
  static variable_list backward(AutogradContext* ctx, variable_list v) {
    const Quiet quiet;
    const auto s = ctx->get_saved_variables();
    const auto terms = ctx->saved_data["terms"].toIntVector();
    const bool need_f = ctx->needs_input_grad(1), need_y = ctx->needs_input_grad(3);
    const auto v_f = ctx->saved_data["need_f"].toBool() ? maybe(v[0]) : std::nullopt;
    const auto v_y = ctx->saved_data["need_y"].toBool() ? maybe(v[2]) : std::nullopt;
    const auto [g_g, g_f, g_w, g_y] = FORGEFIELD_CALL(neighbour_sum_second, s[0], s[1], s[2], s[3], v_f, maybe(v[1]), v_y, s[4], s[5], s[6],
                                                      s[7], s[8], terms, need_f, need_y);
    return joined(g_g, need_f ? g_f : Tensor(), g_w, need_y ? g_y : Tensor(), none(8));
  }
};

inline Tensor neighbour_sum(const Tensor& f, const Tensor& w, const Tensor& y, FORGEFIELD_SLOTS) {
  return Sum::apply(f, w, y, sender, pair, sign, first, second, terms);
}
inline std::tuple<Tensor, Tensor, Tensor> neighbour_sum_adjoint(const Tensor& g, const Tensor& f, const Tensor& w, const Tensor& y,
                                                                FORGEFIELD_SLOTS, bool need_f, bool need_y) {
  const auto out = SumAdjoint::apply(g, f, w, y, sender, pair, sign, first, second, terms, need_f, need_y);
  return {out[0], out[1], out[2]};
}
}  // namespace recorded
}  // namespace neighbour_sums
