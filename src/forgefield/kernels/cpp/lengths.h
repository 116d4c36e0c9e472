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

#ifdef __AVX512F__
constexpr int TOGETHER = 4;  // atoms
#else
constexpr int TOGETHER = 1;
#endif

// Copies a few numbers, without a call.
template <class T, int B = 64>
inline void copy(const T* from, int64_t n, T* to) {
  constexpr int64_t lanes = B / sizeof(T);
  for (; n >= lanes; n -= lanes, from += lanes, to += lanes) Row<T, B, 1>::load(from).store(to);
  if constexpr (lanes > 1) copy<T, B / 2>(from, n, to);
}
template <class T>
inline void clear(T* to, int64_t n) {
  int64_t k = 0;
  for (; k + LANES<T> <= n; k += LANES<T>) Row<T, 64, 1>::zero().store(to + k);
  for (; k < n; ++k) to[k] = T(0);
}

// The matrix of a feature and its transpose, rows filled up with zeros to whole vectors, and vectors times them: those of M atoms,
// `atom` apart, whose components are `component` apart.
template <class T>
struct Mixer {
  using R = Row<T, 64, 1>;
  const Sizes& n;
  const int64_t wide, tall;  // H and G' in whole vectors
  Scratch<T> matrix, turned;
  explicit Mixer(const Sizes& n_)
      : n(n_), wide(whole<T>(n.mixed)), tall(whole<T>(n.vectors)), matrix(n.vectors * wide), turned(n.mixed * tall) {}
  void load(const T* w) {
    clear(matrix.data(), n.vectors * wide), clear(turned.data(), n.mixed * tall);
    for (int64_t g = 0; g < n.vectors; ++g)
      for (int64_t h = 0; h < n.mixed; ++h) matrix[g * wide + h] = turned[h * tall + g] = w[g * n.mixed + h];
  }
  // to (M, 3, step) = vectors x m (depth, step)
  template <int M>
  static inline void map(const T* from, int64_t atom, int64_t component, int64_t depth, const T* m, int64_t step, T* to) {
    for (int64_t c = 0; c < step; c += LANES<T>) {
      R sum[3 * M];
      for (auto& x : sum) x = R::zero();
      for (int64_t k = 0; k < depth; ++k) {
        const R w = R::load(m + k * step + c);
        for (int i = 0; i < 3 * M; ++i) sum[i].add(from[i / 3 * atom + i % 3 * component + k], w);
      }
      for (int i = 0; i < 3 * M; ++i) sum[i].store(to + i * step + c);
    }
  }
  template <int M>
  inline void mix(const T* vectors, T* to) {
    map<M>(vectors, 4 * n.row(), n.row(), n.vectors, matrix.data(), wide, to);
  }
  // The reverse: the vectors of a feature in the sums, from (M, 3, wide).
  template <int M>
  inline void unmix(const T* given, T* room, T* to) {
    map<M>(given, 3 * wide, wide, n.mixed, turned.data(), tall, room);
    for (int i = 0; i < 3 * M; ++i) {
      T* row = to + (i / 3 * 4 + i % 3) * n.row();
      copy(room + i * tall, n.vectors, row), clear(row + n.vectors, n.width - n.vectors);
    }
  }
  // sum (G', wide) += vectors^T given (M, 3, wide)
  template <int M>
  inline void add_outer(const T* vectors, const T* given, T* sum) const {
    for (int64_t c = 0; c < wide; c += LANES<T>) {
      R all[3 * M];
      for (int i = 0; i < 3 * M; ++i) all[i] = R::load(given + i * wide + c);
      for (int64_t g = 0; g < n.vectors; ++g) {
        R found = R::load(sum + g * wide + c);
        for (int i = 0; i < 3 * M; ++i) found.add(vectors[(i / 3 * 4 + i % 3) * n.row() + g], all[i]);
        found.store(sum + g * wide + c);
      }
    }
  }
};

// What is read and written; what is null is not wanted.
template <class T>
struct Data {
  const T *sums, *mix, *g = nullptr, *v = nullptr;
  T *out = nullptr, *by_sums = nullptr, *by_mix = nullptr;
};

// One feature of M atoms. Without g: the value. With g: gradients by the sums and the matrix. With g and v: those of the gradient by
// the sums, in direction v, `out` being that by g.
template <int M, class T>
void some(Mixer<T>& mixer, const Data<T>& d, int64_t atom, int64_t a, T* room, T* sum) {
  using R = Row<T, 64, 1>;
  const Sizes& n = mixer.n;
  const int64_t wide = mixer.wide, all = 3 * M * wide, vectors = (4 * atom + 1) * n.row() + a * n.width;
  T *m = room, *moved = room + all, *z = room + 2 * all, *more = room + 3 * all, *scratch = room + 4 * all, *line = scratch + 3 * M * mixer.tall;
  mixer.template mix<M>(d.sums + vectors, m);
  const T* other = d.v ? moved : m;  // m itself, or its change along v
  if (d.v) mixer.template mix<M>(d.v + vectors, moved);
  for (int i = 0; i < M; ++i) {
    const int64_t sums = 4 * (atom + i) * n.row() + a * n.width, scalars = (atom + i) * n.result() + a * n.scalars;
    const int64_t squares = (atom + i) * n.result() + n.features * n.scalars + a * n.mixed, at = 3 * i * wide;
    if (d.out) {
      copy((d.v ? d.v : d.sums) + sums, n.scalars, d.out + scalars);
      for (int64_t c = 0; c < wide; c += LANES<T>) {
        R total = R::zero();
        for (int x = 0; x < 3; ++x) total.add(R::load(m + at + x * wide + c), R::load(other + at + x * wide + c));
        total.times(d.v ? 2 : 1).store(line + c);
      }
      copy(line, n.mixed, d.out + squares);
    }
    if (!d.g) continue;
    clear(line, wide), copy(d.g + squares, n.mixed, line);
    for (int64_t c = 0; c < wide; c += LANES<T>) {
      const R twice = R::load(line + c).times(2);
      for (int x = 0; x < 3; ++x) {
        const int64_t k = at + x * wide + c;
        twice.times(R::load(other + k)).store(z + k);
        if (d.v && d.by_mix) twice.times(R::load(m + k)).store(more + k);
      }
    }
    if (!d.by_sums) continue;
    clear(d.by_sums + sums, n.width);
    if (!d.v) copy(d.g + scalars, n.scalars, d.by_sums + sums);
  }
  if (d.g && d.by_sums) mixer.template unmix<M>(z, scratch, d.by_sums + vectors);
  if (!d.by_mix) return;
  mixer.template add_outer<M>(d.sums + vectors, z, sum);
  if (d.v) mixer.template add_outer<M>(d.v + vectors, more, sum);
}

// All of them; a thread takes some of the features, whose matrices' gradients are its own.
template <class T>
void all(const Sizes& n, const Data<T>& d) {
  at::parallel_for(0, n.features, n.atoms < 16 ? n.features : 1, [&](int64_t begin, int64_t end) {
    Mixer<T> mixer(n);
    Scratch<T> room(TOGETHER * (12 * mixer.wide + 3 * mixer.tall) + mixer.wide), sum(n.vectors * mixer.wide);
    for (int64_t a = begin; a < end; ++a) {
      mixer.load(d.mix + a * n.vectors * n.mixed);
      clear(sum.data(), n.vectors * mixer.wide);
      int64_t i = 0;
      for (; i + TOGETHER <= n.atoms; i += TOGETHER) some<TOGETHER>(mixer, d, i, a, room.data(), sum.data());
      for (; i < n.atoms; ++i) some<1>(mixer, d, i, a, room.data(), sum.data());
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
