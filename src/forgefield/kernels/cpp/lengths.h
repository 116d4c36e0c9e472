// What a convolution makes of sums over neighbours, s[n, 0] and vectors s[n, x], x = 1, 2, 3: the scalars, and squared lengths of
// mixed vectors, with their derivatives.
//
//   out[n] = (s[n, 0, a g] for g < G,  sum over x of m[n, x, a h]^2),   m[n, x, a h] = sum over g < G' of s[n, x, a g] W[a, g, h]
#pragma once
#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>

#include <tuple>

#include "gradients.h"
#include "vector.h"

namespace lengths {
using at::Tensor;

struct Sizes {
  int64_t atoms, features, width, scalars, vectors, mixed;  // N, A, numbers of a feature in the sums, G, G', H
  int64_t row() const { return features * width; }
  int64_t result() const { return features * (scalars + mixed); }
};

template <class T>
int64_t whole(int64_t n) {
  return (n + LANES<T> - 1) / LANES<T> * LANES<T>;
}

// The matrix of a feature and its transpose, rows filled up with zeros to whole vectors; and room for what is made with them.
template <class T>
struct Mixer {
  const Sizes& n;
  const int64_t wide, tall;  // H and G' in whole vectors
  Scratch<T> matrix, turned;
  explicit Mixer(const Sizes& n_)
      : n(n_), wide(whole<T>(n.mixed)), tall(whole<T>(n.vectors)), matrix(n.vectors * wide), turned(n.mixed * tall) {}
  void load(const T* w) {
    std::fill_n(matrix.data(), n.vectors * wide, T(0));
    std::fill_n(turned.data(), n.mixed * tall, T(0));
    for (int64_t g = 0; g < n.vectors; ++g)
      for (int64_t h = 0; h < n.mixed; ++h) matrix[g * wide + h] = turned[h * tall + g] = w[g * n.mixed + h];
  }
  // to (3, step) = vectors (3, from_step) x m, of which `depth` rows are given
  static void map(const T* from, int64_t from_step, int64_t depth, T* m, int64_t step, T* to) {
    using R = Row<T, 64, 1>;
    for (int64_t c = 0; c < step; c += LANES<T>) {
      R x = R::zero(), y = R::zero(), z = R::zero();
      for (int64_t k = 0; k < depth; ++k) {
        const R w = R::load(m + k * step + c);
        x.add(from[k], w), y.add(from[from_step + k], w), z.add(from[2 * from_step + k], w);
      }
      x.store(to + c), y.store(to + step + c), z.store(to + 2 * step + c);
    }
  }
  void mix(const T* vectors, T* to) { map(vectors, n.row(), n.vectors, matrix.data(), wide, to); }
  // The reverse: the vectors of a feature, (3, row), from (3, wide).
  void unmix(const T* given, T* scratch, T* to) {
    map(given, wide, n.mixed, turned.data(), tall, scratch);
    for (int x = 0; x < 3; ++x) {
      std::copy_n(scratch + x * tall, n.vectors, to + x * n.row());
      std::fill_n(to + x * n.row() + n.vectors, n.width - n.vectors, T(0));
    }
  }
  // sum (vectors, wide) += vectors (3, row)^T given (3, wide)
  void add_outer(const T* vectors, const T* given, T* sum) const {
    using R = Row<T, 64, 1>;
    for (int64_t c = 0; c < wide; c += LANES<T>)
      for (int64_t g = 0; g < n.vectors; ++g) {
        R all = R::load(sum + g * wide + c);
        for (int x = 0; x < 3; ++x) all.add(vectors[x * n.row() + g], R::load(given + x * wide + c));
        all.store(sum + g * wide + c);
      }
  }
};

// What is read and written; what is null is not wanted.
template <class T>
struct Data {
  const T *sums, *mix, *g = nullptr, *v = nullptr;
  T *out = nullptr, *by_sums = nullptr, *by_mix = nullptr;
};

// One atom's feature. Without g: the value. With g: gradients by the sums and the matrix. With g and v: those of the gradient by the
// sums, in direction v, `out` being that by g.
template <class T>
void one(Mixer<T>& mixer, const Data<T>& d, int64_t atom, int64_t a, T* room, T* sum) {
  const Sizes& n = mixer.n;
  const int64_t at = 4 * n.row() * atom + a * n.width, wide = mixer.wide;
  const int64_t scalars = n.result() * atom + a * n.scalars, squares = n.result() * atom + n.features * n.scalars + a * n.mixed;
  T *m = room, *moved = room + 3 * wide, *z = room + 6 * wide, *more = room + 9 * wide, *scratch = room + 12 * wide;
  mixer.mix(d.sums + at + n.row(), m);
  const T* other = m;  // m itself, or its change along v
  if (d.v) {
    mixer.mix(d.v + at + n.row(), moved);
    other = moved;
  }
  if (d.out) {
    const T factor = d.v ? T(2) : T(1);
    std::copy_n((d.v ? d.v : d.sums) + at, n.scalars, d.out + scalars);
    for (int64_t h = 0; h < n.mixed; ++h)
      d.out[squares + h] = factor * (m[h] * other[h] + m[wide + h] * other[wide + h] + m[2 * wide + h] * other[2 * wide + h]);
  }
  if (!d.g) return;
  std::fill_n(z, 6 * wide, T(0));
  for (int x = 0; x < 3; ++x)
    for (int64_t h = 0; h < n.mixed; ++h) z[x * wide + h] = 2 * d.g[squares + h] * other[x * wide + h];
  if (d.by_sums) {
    if (d.v) {
      std::fill_n(d.by_sums + at, n.width, T(0));
    } else {
      std::copy_n(d.g + scalars, n.scalars, d.by_sums + at);
      std::fill_n(d.by_sums + at + n.scalars, n.width - n.scalars, T(0));
    }
    mixer.unmix(z, scratch, d.by_sums + at + n.row());
  }
  if (!d.by_mix) return;
  mixer.add_outer(d.sums + at + n.row(), z, sum);
  if (!d.v) return;
  for (int x = 0; x < 3; ++x)
    for (int64_t h = 0; h < n.mixed; ++h) more[x * wide + h] = 2 * d.g[squares + h] * m[x * wide + h];
  mixer.add_outer(d.v + at + n.row(), more, sum);
}

// All of them; a thread takes some of the features, whose matrices' gradients are its own.
template <class T>
void all(const Sizes& n, const Data<T>& d) {
  at::parallel_for(0, n.features, n.atoms < 16 ? n.features : 1, [&](int64_t begin, int64_t end) {
    Mixer<T> mixer(n);
    Scratch<T> room(12 * mixer.wide + 3 * mixer.tall), sum(n.vectors * mixer.wide);
    for (int64_t a = begin; a < end; ++a) {
      mixer.load(d.mix + a * n.vectors * n.mixed);
      std::fill_n(sum.data(), n.vectors * mixer.wide, T(0));
      for (int64_t i = 0; i < n.atoms; ++i) one(mixer, d, i, a, room.data(), sum.data());
      for (int64_t g = 0; d.by_mix && g < n.vectors; ++g)
        std::copy_n(sum.data() + g * mixer.wide, n.mixed, d.by_mix + (a * n.vectors + g) * n.mixed);
    }
  });
}

// Sums and matrices, contiguous.
struct Given {
  Tensor sums, mix;
  Sizes n;
  Given(const Tensor& sums_, const Tensor& mix_, int64_t scalars) : sums(sums_.contiguous()), mix(mix_.contiguous()) {
    TORCH_CHECK(sums.dim() == 3 && sums.size(1) == 4 && mix.dim() == 3 && sums.size(2) % mix.size(0) == 0, "lengths: wrong shapes");
    n = {sums.size(0), mix.size(0), sums.size(2) / mix.size(0), scalars, mix.size(1), mix.size(2)};
    TORCH_CHECK(scalars <= n.width && n.vectors <= n.width && sums.scalar_type() == mix.scalar_type(), "lengths: sums and matrices do not fit");
  }
  Tensor packed(const Tensor& x, int64_t size) const {
    TORCH_CHECK(x.numel() == size && x.scalar_type() == sums.scalar_type(), "lengths: gradient does not fit");
    return x.contiguous();
  }
  Tensor result() const { return at::empty({n.atoms, n.result()}, sums.options()); }
  template <class T>
  Data<T> data() const {
    return {sums.const_data_ptr<T>(), mix.const_data_ptr<T>()};
  }
};

inline Tensor lengths(const Tensor& sums, const Tensor& mix, int64_t scalars) {
  const Given in(sums, mix, scalars);
  auto out = in.result();
  AT_DISPATCH_FLOATING_TYPES(in.sums.scalar_type(), "lengths", [&] {
    auto d = in.data<scalar_t>();
    d.out = out.data_ptr<scalar_t>();
    all(in.n, d);
  });
  return out;
}

// Gradients by the sums and, if asked for, the matrices.
inline std::tuple<Tensor, Tensor> lengths_gradients(const Tensor& g_, const Given& in, bool need_mix) {
  const auto g = in.packed(g_, in.n.atoms * in.n.result());
  auto g_sums = at::empty(in.sums.sizes(), in.sums.options()), g_mix = need_mix ? at::empty(in.mix.sizes(), in.mix.options()) : Tensor();
  AT_DISPATCH_FLOATING_TYPES(g.scalar_type(), "lengths_adjoint", [&] {
    auto d = in.data<scalar_t>();
    d.g = g.const_data_ptr<scalar_t>(), d.by_sums = g_sums.data_ptr<scalar_t>();
    if (need_mix) d.by_mix = g_mix.data_ptr<scalar_t>();
    all(in.n, d);
  });
  return {g_sums, g_mix};
}
inline Tensor lengths_adjoint(const Tensor& g, const Tensor& sums, const Tensor& mix, int64_t scalars) {
  return std::get<0>(lengths_gradients(g, Given(sums, mix, scalars), false));
}
inline std::tuple<Tensor, Tensor> lengths_backward(const Tensor& g, const Tensor& sums, const Tensor& mix, int64_t scalars) {
  return lengths_gradients(g, Given(sums, mix, scalars), true);
}

// Gradients of the adjoint by g, the sums and the matrices from direction v at its output.
inline std::tuple<Tensor, Tensor, Tensor> lengths_second(const Tensor& g_, const Tensor& sums, const Tensor& mix, const Tensor& v_,
                                                         int64_t scalars) {
  const Given in(sums, mix, scalars);
  const auto g = in.packed(g_, in.n.atoms * in.n.result()), v = in.packed(v_, in.sums.numel());
  auto g_g = in.result(), g_sums = at::empty(in.sums.sizes(), in.sums.options()), g_mix = at::empty(in.mix.sizes(), in.mix.options());
  AT_DISPATCH_FLOATING_TYPES(g.scalar_type(), "lengths_second", [&] {
    auto d = in.data<scalar_t>();
    d.g = g.const_data_ptr<scalar_t>(), d.v = v.const_data_ptr<scalar_t>();
    d.out = g_g.data_ptr<scalar_t>(), d.by_sums = g_sums.data_ptr<scalar_t>(), d.by_mix = g_mix.data_ptr<scalar_t>();
    all(in.n, d);
  });
  return {g_g, g_sums, g_mix};
}

// ---- gradients -----------------------------------------------------------------------------------------------

namespace recorded {
using namespace gradients;
Tensor lengths(const Tensor& sums, const Tensor& mix, int64_t scalars);
Tensor lengths_adjoint(const Tensor& g, const Tensor& sums, const Tensor& mix, int64_t scalars);
std::tuple<Tensor, Tensor> lengths_backward(const Tensor& g, const Tensor& sums, const Tensor& mix, int64_t scalars);
std::tuple<Tensor, Tensor, Tensor> lengths_second(const Tensor& g, const Tensor& sums, const Tensor& mix, const Tensor& v, int64_t scalars);

struct Lengths : Function<Lengths> {
  static Tensor forward(AutogradContext* ctx, const Tensor& sums, const Tensor& mix, int64_t scalars) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({sums, mix});
    ctx->saved_data["scalars"] = scalars;
    return FORGEFIELD_CALL(lengths, sums, mix, scalars);
  }
  static variable_list backward(AutogradContext* ctx, variable_list g) {
    const Quiet quiet;
    const auto s = ctx->get_saved_variables();
    const int64_t scalars = ctx->saved_data["scalars"].toInt();
    if (!ctx->needs_input_grad(1)) return {FORGEFIELD_CALL(lengths_adjoint, g[0], s[0], s[1], scalars), Tensor(), Tensor()};
    const auto [g_sums, g_mix] = FORGEFIELD_CALL(lengths_backward, g[0], s[0], s[1], scalars);
    return {g_sums, g_mix, Tensor()};
  }
};

struct LengthsAdjoint : Function<LengthsAdjoint> {
  static Tensor forward(AutogradContext* ctx, const Tensor& g, const Tensor& sums, const Tensor& mix, int64_t scalars) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({g, sums, mix});
    ctx->saved_data["scalars"] = scalars;
    return FORGEFIELD_CALL(lengths_adjoint, g, sums, mix, scalars);
  }
  static variable_list backward(AutogradContext* ctx, variable_list v) {
    const Quiet quiet;
    const auto s = ctx->get_saved_variables();
    const auto [g_g, g_sums, g_mix] = FORGEFIELD_CALL(lengths_second, s[0], s[1], s[2], v[0], ctx->saved_data["scalars"].toInt());
    return {g_g, g_sums, g_mix, Tensor()};
  }
};

inline Tensor lengths(const Tensor& sums, const Tensor& mix, int64_t scalars) { return Lengths::apply(sums, mix, scalars); }
inline Tensor lengths_adjoint(const Tensor& g, const Tensor& sums, const Tensor& mix, int64_t scalars) {
  return LengthsAdjoint::apply(g, sums, mix, scalars);
}
}  // namespace recorded
}  // namespace lengths
