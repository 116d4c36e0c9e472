// Polynomials of an atom's features with coefficients by element and channel: value, adjoint, second order.
// A polynomial is a list of prefixes (products of all but the last variable) in depth-first order; each holds, per
// output, the terms (last variable, coefficient): out += prefix x sum of coefficient x variable.
#pragma once
#include <omp.h>

#include <algorithm>
#include <vector>

#include "vector.h"

constexpr int MOST_ORDER = 8;

struct Prefix {
  int32_t depth, variable, first_group, end_group;
};
struct Group {
  int32_t output, first_term, end_term;  // terms are coefficients in order; `last` names their variables
};

struct Polynomials {
  int n_variables, n_outputs, n_prefixes, n_groups, n_terms;
  const Prefix* prefixes;
  const Group* groups;
  const int32_t* last;
  explicit Polynomials(const int32_t* p) {
    n_variables = p[0], n_outputs = p[1], n_prefixes = p[2], n_groups = p[3], n_terms = p[4];
    p += 5;
    prefixes = reinterpret_cast<const Prefix*>(p), p += 4 * n_prefixes;
    groups = reinterpret_cast<const Group*>(p), p += 3 * n_groups;
    last = p;
  }
};

template <class T>
struct Atoms {
  int64_t count, channels;
  const int64_t* set;  // row of coefficients of each atom
  const T *features, *coefficients;
};

// Rows of one atom and one block of channels, gathered so that they lie side by side.
template <class T, class R>
inline void gather(T* to, const T* from, int64_t rows, int64_t channels) {
  for (int64_t i = 0; i < rows; ++i) R::load(from + i * channels).store(to + i * R::channels);
}

template <class T, class R>
inline void value_of(const Polynomials& p, const T* a, const T* coefficients, int64_t channels, T* out) {
  R prefix[MOST_ORDER];
  for (int q = 0; q < p.n_prefixes; ++q) {
    const Prefix& node = p.prefixes[q];
    const int d = node.depth;
    if (d) {
      const R x = R::load(a + node.variable * R::channels);
      prefix[d] = d > 1 ? prefix[d - 1].times(x) : x;
    }
    for (int k = node.first_group; k < node.end_group; ++k) {
      const Group& group = p.groups[k];
      R sum = R::zero();
      for (int t = group.first_term; t < group.end_term; ++t)
        sum.add(R::load(coefficients + t * channels), R::load(a + p.last[t] * R::channels));
      (d ? prefix[d].times(sum) : sum).add_to(out + group.output * R::channels);
    }
  }
}

// Gradient by the features added to `g_a`; by the coefficients added to `g_c` if wanted.
template <class T, class R, bool C>
inline void adjoint_of(const Polynomials& p, const T* a, const T* coefficients, const T* g, int64_t channels, T* g_a, T* g_c) {
  R prefix[MOST_ORDER], slope[MOST_ORDER];
  int variable[MOST_ORDER], depth = 0;
  const auto leave = [&](int to) {
    for (; depth > to; --depth) {
      const R x = R::load(a + variable[depth] * R::channels);
      T* at = g_a + variable[depth] * R::channels;
      if (depth > 1) {
        slope[depth - 1].add(slope[depth], x);
        slope[depth].times(prefix[depth - 1]).add_to(at);
      } else {
        slope[depth].add_to(at);
      }
    }
  };
  for (int q = 0; q < p.n_prefixes; ++q) {
    const Prefix& node = p.prefixes[q];
    const int d = node.depth;
    if (d) {
      leave(d - 1);
      const R x = R::load(a + node.variable * R::channels);
      prefix[d] = d > 1 ? prefix[d - 1].times(x) : x;
      slope[d] = R::zero();
      variable[d] = node.variable, depth = d;
    }
    for (int k = node.first_group; k < node.end_group; ++k) {
      const Group& group = p.groups[k];
      const R from = R::load(g + group.output * R::channels);
      const R scaled = d ? from.times(prefix[d]) : from;
      R sum = R::zero();
      for (int t = group.first_term; t < group.end_term; ++t) {
        const R c = R::load(coefficients + t * channels);
        T* at = g_a + p.last[t] * R::channels;
        const R x = R::load(a + p.last[t] * R::channels);
        sum.add(c, x);
        R to = R::load(at);
        to.add(scaled, c);
        to.store(at);
        if constexpr (C) {
          R gradient = R::load(g_c + t * channels);
          gradient.add(scaled, x);
          gradient.store(g_c + t * channels);
        }
      }
      if (d) slope[d].add(from, sum);
    }
  }
  leave(0);
}

// With direction b at the adjoint's output: gradients by g (`g_g`), features (`g_a`) and coefficients (`g_c`), all added.
template <class T, class R>
inline void second_of(const Polynomials& p, const T* a, const T* b, const T* coefficients, const T* g, int64_t channels, T* g_g,
                      T* g_a, T* g_c) {
  R prefix[MOST_ORDER], moved[MOST_ORDER], slope[MOST_ORDER], bent[MOST_ORDER];
  int variable[MOST_ORDER], depth = 0;
  const auto leave = [&](int to) {
    for (; depth > to; --depth) {
      const int64_t at = variable[depth] * R::channels;
      const R x = R::load(a + at), v = R::load(b + at);
      if (depth > 1) {
        slope[depth - 1].add(slope[depth], x);
        bent[depth - 1].add(bent[depth], x);
        bent[depth - 1].add(slope[depth], v);
        R sum = bent[depth].times(prefix[depth - 1]);
        sum.add(slope[depth], moved[depth - 1]);
        sum.add_to(g_a + at);
      } else {
        bent[depth].add_to(g_a + at);
      }
    }
  };
  for (int q = 0; q < p.n_prefixes; ++q) {
    const Prefix& node = p.prefixes[q];
    const int d = node.depth;
    if (d) {
      leave(d - 1);
      const R x = R::load(a + node.variable * R::channels), v = R::load(b + node.variable * R::channels);
      prefix[d] = d > 1 ? prefix[d - 1].times(x) : x;
      moved[d] = v;
      if (d > 1) {
        moved[d] = prefix[d - 1].times(v);
        moved[d].add(moved[d - 1], x);
      }
      slope[d] = bent[d] = R::zero();
      variable[d] = node.variable, depth = d;
    }
    for (int k = node.first_group; k < node.end_group; ++k) {
      const Group& group = p.groups[k];
      const R from = R::load(g + group.output * R::channels);
      const R scaled = d ? from.times(prefix[d]) : from;
      const R turned = d ? from.times(moved[d]) : R::zero();
      R sum = R::zero(), change = R::zero();
      for (int t = group.first_term; t < group.end_term; ++t) {
        const R c = R::load(coefficients + t * channels);
        const int64_t at = p.last[t] * R::channels;
        const R x = R::load(a + at), v = R::load(b + at);
        sum.add(c, x);
        change.add(c, v);
        if (d) {
          R to = R::load(g_a + at);
          to.add(turned, c);
          to.store(g_a + at);
        }
        R gradient = R::load(g_c + t * channels);
        gradient.add(scaled, v);
        if (d) gradient.add(turned, x);
        gradient.store(g_c + t * channels);
      }
      R out = change;
      if (d) {
        out = prefix[d].times(change);
        out.add(moved[d], sum);
        slope[d].add(from, sum);
        bent[d].add(from, change);
      }
      out.add_to(g_g + group.output * R::channels);
    }
  }
  leave(0);
}

// Atoms are handled in chunks whose bounds depend on the sizes alone; each chunk has its own sum of gradients by the
// coefficients, and the sums are added in order: the result does not depend on the number of threads.
struct Chunks {
  std::vector<int64_t> start, set;
  Chunks(int64_t atoms, const int64_t* sets, int64_t at_most) {
    const int64_t size = std::max<int64_t>(8, (atoms + at_most - 1) / at_most);
    for (int64_t n = 0; n < atoms; ++n)
      if (start.empty() || n - start.back() == size || sets[n] != set.back()) start.push_back(n), set.push_back(sets[n]);
    start.push_back(atoms);
  }
  int64_t count() const { return int64_t(start.size()) - 1; }
};

template <class T, int N>
void contraction_value(const Polynomials& p, const Atoms<T>& atoms, T* out) {
  const int64_t C = atoms.channels;
#pragma omp parallel
  {
    Scratch<T> a(p.n_variables * N * 64 / sizeof(T)), o(p.n_outputs * N * 64 / sizeof(T));
#pragma omp for schedule(static, 4)
    for (int64_t n = 0; n < atoms.count; ++n)
      over_channels<T, N>(C, [&](auto shape, int64_t c) {
        using R = decltype(shape);
        gather<T, R>(a.data(), atoms.features + n * p.n_variables * C + c, p.n_variables, C);
        std::fill_n(o.data(), p.n_outputs * R::channels, T(0));
        value_of<T, R>(p, a.data(), atoms.coefficients + atoms.set[n] * p.n_terms * C + c, C, o.data());
        for (int i = 0; i < p.n_outputs; ++i) R::load(o.data() + i * R::channels).store(out + (n * p.n_outputs + i) * C + c);
      });
  }
}

// b null: adjoint with g; else second order, where g_g takes the gradient by g. g_c null: not wanted (adjoint only).
template <class T, int N>
void contraction_gradients(const Polynomials& p, const Atoms<T>& atoms, const T* g, const T* b, const Chunks& chunks, T* g_g,
                           T* g_a, T* g_c) {
  const int64_t C = atoms.channels, wide = N * 64 / sizeof(T), rows = p.n_variables, outs = p.n_outputs;
#pragma omp parallel
  {
    Scratch<T> a(rows * wide), v(rows * wide), r(rows * wide), from(outs * wide), o(outs * wide);
#pragma omp for schedule(dynamic, 1)
    for (int64_t k = 0; k < chunks.count(); ++k)
      for (int64_t n = chunks.start[k]; n < chunks.start[k + 1]; ++n)
        over_channels<T, N>(C, [&](auto shape, int64_t c) {
          using R = decltype(shape);
          gather<T, R>(a.data(), atoms.features + n * rows * C + c, rows, C);
          gather<T, R>(from.data(), g + n * outs * C + c, outs, C);
          std::fill_n(r.data(), rows * R::channels, T(0));
          const T* coefficients = atoms.coefficients + atoms.set[n] * p.n_terms * C + c;
          T* own = g_c ? g_c + k * p.n_terms * C + c : nullptr;
          if (b) {
            gather<T, R>(v.data(), b + n * rows * C + c, rows, C);
            std::fill_n(o.data(), p.n_outputs * R::channels, T(0));
            second_of<T, R>(p, a.data(), v.data(), coefficients, from.data(), C, o.data(), r.data(), own);
            for (int i = 0; i < outs; ++i) R::load(o.data() + i * R::channels).store(g_g + (n * outs + i) * C + c);
          } else if (own) {
            adjoint_of<T, R, true>(p, a.data(), coefficients, from.data(), C, r.data(), own);
          } else {
            adjoint_of<T, R, false>(p, a.data(), coefficients, from.data(), C, r.data(), own);
          }
          for (int i = 0; i < rows; ++i) R::load(r.data() + i * R::channels).store(g_a + (n * rows + i) * C + c);
        });
  }
}
