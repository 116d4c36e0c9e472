// SiLU of a layer norm, by rows, and its first two derivatives.
//
//   n = (x - mean) / sqrt(var + eps), a = n w + b, y = silu(a)
//
// Along a direction v of x: n' = r P(v) with P(v) = v - mean(v) - n mean(v n); P is its own transpose.
#pragma once
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <tuple>

#include "gradients.h"
#include "sigmoid.h"

namespace norms {
using at::Tensor;
using Maybe = std::optional<Tensor>;
constexpr double EPS = 1e-5;
constexpr int64_t ROWS = 512, MOST = 64;  // rows of a chunk at least; chunks at most: sums repeat with any number of threads

template <class T>
struct Rows {
  int64_t count, width;
  const T *x, *w, *b;
  // Calls `work(row type, first channel)` for all channels.
  template <class F>
  void over(F&& work) const { over_channels<T, 4>(width, work); }
  // Normalised row into n, its inverse deviation returned.
  T normalise(int64_t i, T* n) const {
    const T* from = x + i * width;
    T sum(0), squares(0);
    over([&](auto r, int64_t c) { sum += decltype(r)::load(from + c).total(); });
    const T mean = sum / T(width);
    over([&](auto r, int64_t c) {
      auto d = decltype(r)::load(from + c);
      for (auto& v : d.v) v -= mean;
      d.store(n + c);
      squares += d.times(d).total();
    });
    const T inverse = T(1) / std::sqrt(squares / T(width) + T(EPS));
    over([&](auto r, int64_t c) { decltype(r)::load(n + c).times(inverse).store(n + c); });
    return inverse;
  }
};

// to = r (u - mean(u) - n mean(u n))
template <class T>
void project(const Rows<T>& rows, const T* u, const T* n, T inverse, T* to) {
  T mean(0), along(0);
  rows.over([&](auto r, int64_t c) {
    const auto a = decltype(r)::load(u + c);
    mean += a.total();
    along += a.times(decltype(r)::load(n + c)).total();
  });
  mean /= T(rows.width), along /= T(rows.width);
  rows.over([&](auto r, int64_t c) {
    auto a = decltype(r)::load(u + c);
    const auto b = decltype(r)::load(n + c);
    for (size_t k = 0; k < std::size(a.v); ++k) a.v[k] = inverse * (a.v[k] - mean - along * b.v[k]);
    a.store(to + c);
  });
}

template <class T>
void forward(const Rows<T>& rows, T* y) {
  at::parallel_for(0, rows.count, ROWS, [&](int64_t begin, int64_t end) {
    Scratch<T> n(rows.width);
    for (int64_t i = begin; i < end; ++i) {
      rows.normalise(i, n.data());
      rows.over([&](auto r, int64_t c) {
        using R = decltype(r);
        auto a = R::load(rows.b + c);
        a.add(R::load(n.data() + c), R::load(rows.w + c));
        a.times(sigmoid(a)).store(y + i * rows.width + c);
      });
    }
  });
}

// Chunks of rows whose sums over rows go to a place of their own.
template <class F>
void in_chunks(int64_t count, F&& work) {
  const int64_t chunks = std::max<int64_t>(1, std::min(MOST, count / ROWS));
  at::parallel_for(0, chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) work(k, k * count / chunks, (k + 1) * count / chunks);
  });
}

// Derivatives of silu: slope and curvature at a with s = sigmoid(a).
template <class T>
void adjoint(const Rows<T>& rows, const T* g, T* g_x, T* parts) {  // parts (MOST, 2, width) or null
  in_chunks(rows.count, [&](int64_t chunk, int64_t begin, int64_t end) {
    Scratch<T> n(rows.width), u(rows.width);
    T* sums = parts ? parts + chunk * 2 * rows.width : nullptr;
    for (int64_t i = begin; i < end; ++i) {
      const T inverse = rows.normalise(i, n.data());
      rows.over([&](auto r, int64_t c) {
        using R = decltype(r);
        const auto w = R::load(rows.w + c), m = R::load(n.data() + c);
        auto a = R::load(rows.b + c);
        a.add(m, w);
        const auto s = sigmoid(a);
        auto d = R::load(g + i * rows.width + c);
        for (size_t k = 0; k < std::size(d.v); ++k) d.v[k] *= s.v[k] * (T(1) + a.v[k] * (T(1) - s.v[k]));
        if (sums) d.times(m).add_to(sums + c), d.add_to(sums + rows.width + c);
        d.times(w).store(u.data() + c);
      });
      project(rows, u.data(), n.data(), inverse, g_x + i * rows.width);
    }
  });
}

// Gradients of <v, adjoint(g)> by g, x, w, b.
template <class T>
void second(const Rows<T>& rows, const T* g, const T* v, T* g_g, T* g_x, T* parts) {
  in_chunks(rows.count, [&](int64_t chunk, int64_t begin, int64_t end) {
    Scratch<T> n(rows.width), t(rows.width), e(rows.width), u(rows.width);
    T* sums = parts + chunk * 2 * rows.width;
    const T width(rows.width);
    for (int64_t i = begin; i < end; ++i) {
      const T inverse = rows.normalise(i, n.data());
      const T* direction = v + i * rows.width;
      project(rows, direction, n.data(), inverse, t.data());
      T whole(0), along_e(0), along_v(0);
      rows.over([&](auto r, int64_t c) {
        using R = decltype(r);
        const auto w = R::load(rows.w + c), m = R::load(n.data() + c), tangent = R::load(t.data() + c);
        auto a = R::load(rows.b + c);
        a.add(m, w);
        const auto s = sigmoid(a);
        const auto from = R::load(g + i * rows.width + c);
        R to, weight, bias, first, second_;
        for (size_t k = 0; k < std::size(to.v); ++k) {
          const auto rest = T(1) - s.v[k];
          const auto slope = s.v[k] * (T(1) + a.v[k] * rest);
          const auto bend = s.v[k] * rest * (T(2) + a.v[k] * (rest - s.v[k]));
          to.v[k] = slope * w.v[k] * tangent.v[k];
          bias.v[k] = from.v[k] * bend * w.v[k] * tangent.v[k];
          weight.v[k] = from.v[k] * slope * tangent.v[k] + bias.v[k] * m.v[k];
          first.v[k] = from.v[k] * slope * w.v[k];
          second_.v[k] = bias.v[k] * w.v[k];
        }
        to.store(g_g + i * rows.width + c);
        weight.add_to(sums + c), bias.add_to(sums + rows.width + c);
        first.store(e.data() + c), second_.store(u.data() + c);
        whole += first.times(tangent).total();
        along_e += first.times(m).total();
        along_v += R::load(direction + c).times(m).total();
      });
      const T k_e = inverse * along_e / width, k_v = inverse * along_v / width;
      rows.over([&](auto r, int64_t c) {
        using R = decltype(r);
        auto sum = R::load(u.data() + c);
        sum.add(-k_e, R::load(direction + c));
        sum.add(-k_v, R::load(e.data() + c));
        sum.store(u.data() + c);
      });
      T* to = g_x + i * rows.width;
      project(rows, u.data(), n.data(), inverse, to);
      rows.over([&](auto r, int64_t c) {
        using R = decltype(r);
        auto sum = R::load(to + c);
        sum.add(-inverse * whole / width, R::load(n.data() + c));
        sum.store(to + c);
      });
    }
  });
}

struct Given {
  Tensor x, w, b;
  Given(const Tensor& x_, const Tensor& w_, const Tensor& b_) : x(x_.contiguous()), w(w_.contiguous()), b(b_.contiguous()) {
    TORCH_CHECK(x.dim() == 2 && w.dim() == 1 && b.dim() == 1 && w.size(0) == x.size(1) && b.size(0) == x.size(1), "norm_silu: sizes differ");
    TORCH_CHECK(x.scalar_type() == w.scalar_type() && x.scalar_type() == b.scalar_type(), "norm_silu: types differ");
  }
  template <class T>
  Rows<T> rows() const {
    return {x.size(0), x.size(1), x.const_data_ptr<T>(), w.const_data_ptr<T>(), b.const_data_ptr<T>()};
  }
};

inline Tensor norm_silu(const Tensor& x, const Tensor& w, const Tensor& b) {
  const Given in(x, w, b);
  auto y = at::empty_like(in.x);
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "norm_silu", [&] { forward<scalar_t>(in.rows<scalar_t>(), y.data_ptr<scalar_t>()); });
  return y;
}

inline std::tuple<Tensor, Tensor, Tensor> norm_silu_adjoint(const Tensor& g_, const Tensor& x, const Tensor& w, const Tensor& b, bool need) {
  const Given in(x, w, b);
  const auto g = g_.contiguous();
  auto g_x = at::empty_like(in.x), parts = at::zeros({need ? MOST : 0, 2, x.size(1)}, x.options());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "norm_silu", [&] {
    adjoint<scalar_t>(in.rows<scalar_t>(), g.const_data_ptr<scalar_t>(), g_x.data_ptr<scalar_t>(), need ? parts.data_ptr<scalar_t>() : nullptr);
  });
  const auto sums = parts.sum(0);
  return {g_x, sums.select(0, 0).clone(), sums.select(0, 1).clone()};
}

inline std::tuple<Tensor, Tensor, Tensor, Tensor> norm_silu_second(const Tensor& g_, const Tensor& x, const Tensor& w, const Tensor& b,
                                                                   const Tensor& v_) {
  const Given in(x, w, b);
  const auto g = g_.contiguous(), v = v_.contiguous();
  auto g_g = at::empty_like(in.x), g_x = at::empty_like(in.x), parts = at::zeros({MOST, 2, x.size(1)}, x.options());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "norm_silu", [&] {
    second<scalar_t>(in.rows<scalar_t>(), g.const_data_ptr<scalar_t>(), v.const_data_ptr<scalar_t>(), g_g.data_ptr<scalar_t>(),
                     g_x.data_ptr<scalar_t>(), parts.data_ptr<scalar_t>());
  });
  const auto sums = parts.sum(0);
  return {g_g, g_x, sums.select(0, 0).clone(), sums.select(0, 1).clone()};
}

namespace recorded {
using namespace gradients;
Tensor norm_silu(const Tensor& x, const Tensor& w, const Tensor& b);
std::tuple<Tensor, Tensor, Tensor> norm_silu_adjoint(const Tensor& g, const Tensor& x, const Tensor& w, const Tensor& b, bool need);
std::tuple<Tensor, Tensor, Tensor, Tensor> norm_silu_second(const Tensor& g, const Tensor& x, const Tensor& w, const Tensor& b,
                                                            const Tensor& v);

struct Norm : Function<Norm> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& w, const Tensor& b) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({x, w, b});
    return FORGEFIELD_CALL(norm_silu, x, w, b);
  }
  static variable_list backward(AutogradContext* ctx, variable_list g) {
    const Quiet quiet;
    const auto s = ctx->get_saved_variables();
    const bool need = ctx->needs_input_grad(1) || ctx->needs_input_grad(2);
    const auto [g_x, g_w, g_b] = FORGEFIELD_CALL(norm_silu_adjoint, g[0], s[0], s[1], s[2], need);
    return {g_x, need ? g_w : Tensor(), need ? g_b : Tensor()};
  }
};

struct NormAdjoint : Function<NormAdjoint> {
  static variable_list forward(AutogradContext* ctx, const Tensor& g, const Tensor& x, const Tensor& w, const Tensor& b, bool need) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({g, x, w, b});
    ctx->set_materialize_grads(false);
    const auto [g_x, g_w, g_b] = FORGEFIELD_CALL(norm_silu_adjoint, g, x, w, b, need);
    return {g_x, g_w, g_b};
  }
  static variable_list backward(AutogradContext* ctx, variable_list v) {
    const Quiet quiet;
    TORCH_CHECK(!v[1].defined() && !v[2].defined(), "norm_silu: no derivative of the gradients by its parameters");
    if (!v[0].defined()) return none(5);
    const auto s = ctx->get_saved_variables();
    const auto [g_g, g_x, g_w, g_b] = FORGEFIELD_CALL(norm_silu_second, s[0], s[1], s[2], s[3], v[0]);
    return joined(g_g, g_x, g_w, g_b, none(1));
  }
};

inline Tensor norm_silu(const Tensor& x, const Tensor& w, const Tensor& b) { return Norm::apply(x, w, b); }
inline std::tuple<Tensor, Tensor, Tensor> norm_silu_adjoint(const Tensor& g, const Tensor& x, const Tensor& w, const Tensor& b, bool need) {
  const auto out = NormAdjoint::apply(g, x, w, b, need);
  return {out[0], out[1], out[2]};
}
}  // namespace recorded
}  // namespace norms
