// Steps of atoms as operators, with their gradients up to second order. A layout is the scalars' width, then l and channels of each degree.
#pragma once
#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>
#include <omp.h>

#include "atom_updates.h"
#include "gradients.h"
#include "parts.h"

namespace steps {
using at::IntArrayRef;
using at::Tensor;
using at::TensorList;
using parts::packed;
using parts::Parts;
using parts::read;
using parts::write;
using Name = c10::string_view;
constexpr int64_t FEW_ATOMS = 32, MOST_CHUNKS = 16, FEW_NUMBERS = 8000;

template <template <class, bool> class S>
struct Tag {
  template <class T, bool D>
  using of = S<T, D>;
};

template <class F>
void with_step(Name step, F&& f) {
  if (step == "norm") return f(Tag<Norm>{});
  if (step == "gate") return f(Tag<Gate>{});
  if (step == "products") return f(Tag<Products>{});
  if (step == "update") return f(Tag<Update>{});
  TORCH_CHECK(false, "atom_step: no such step");
}


// What a step is given, contiguous and checked.
struct Call {
  Shape shape;
  Parts rows, parameters;
  Extents of_rows, of_out;
  int64_t atoms;
  double softness;
  template <class S>
  Call(S, TensorList rows_, TensorList parameters_, IntArrayRef layout, double softness_)
      : rows(packed(rows_)), parameters(packed(parameters_)), softness(softness_) {
    TORCH_CHECK(!rows.empty() && layout.size() % 2 == 1, "atom_step: rows, and an odd number of sizes, are needed");
    shape.width = layout[0];
    for (size_t k = 1; k < layout.size(); k += 2) shape.parts.emplace_back(2 * layout[k] + 1, layout[k + 1]);
    using Step = typename S::template of<float, false>;
    of_rows = Step::rows(shape), of_out = Step::out(shape), atoms = rows[0].size(0);
    const auto widths = Step::parameters(shape);
    TORCH_CHECK(rows.size() == of_rows.size() && parameters.size() == widths.size(), "atom_step: wrong number of tensors");
    check(rows, of_rows);
    for (size_t k = 0; k < widths.size(); ++k)
      TORCH_CHECK(parameters[k].numel() == widths[k] && parameters[k].scalar_type() == rows[0].scalar_type(), "atom_step: a parameter does not fit");
  }
  void check(const Parts& given, const Extents& extents) const {
    TORCH_CHECK(given.size() == extents.size(), "atom_step: wrong number of tensors");
    for (size_t k = 0; k < given.size(); ++k)
      TORCH_CHECK(given[k].numel() == atoms * extents[k].rows * extents[k].columns && given[k].scalar_type() == rows[0].scalar_type(),
                  "atom_step: rows do not fit");
  }
  Parts blank(const Extents& extents) const {
    Parts found;
    for (const auto& [m, c] : extents) found.push_back(at::empty({atoms * m, c}, rows[0].options()));
    return found;
  }
  Parts blank_parameters() const {
    Parts found;
    for (const auto& p : parameters) found.push_back(at::empty(p.sizes(), p.options()));
    return found;
  }
};

// Rows of several tensors; `b`, their directions, may be empty.
template <class T>
struct Tensors {
  std::vector<const T*> a, b;
  Tensors(const Parts& values, const Parts& directions = {}) : a(read<T>(values)), b(read<T>(directions)) { b.resize(a.size(), nullptr); }
  template <bool D>
  void at(int64_t i, const Extents& extents, std::vector<Given<T, D>>& found) const {
    for (size_t k = 0; k < a.size(); ++k) {
      const int64_t offset = i * extents[k].rows * extents[k].columns;
      found[k] = {a[k] + offset, b[k] ? b[k] + offset : nullptr};
    }
  }
  template <bool D>
  std::vector<Given<T, D>> fixed() const {
    std::vector<Given<T, D>> found;
    for (size_t k = 0; k < a.size(); ++k) found.push_back({a[k], b[k]});
    return found;
  }
};

template <class T, bool D>
void place(const std::vector<T*>& to, int64_t i, const Extents& extents, std::vector<Wanted<T, D>>& found) {
  for (size_t k = 0; k < to.size(); ++k) found[k] = {to[k] + i * extents[k].rows * extents[k].columns};
}

// Calls work(chunk, first atom, end) for chunks that do not depend on the number of threads, so that sums over them do not either.
inline int64_t chunks_of(int64_t atoms) { return std::max<int64_t>(1, std::min(MOST_CHUNKS, (atoms + FEW_ATOMS - 1) / FEW_ATOMS)); }
template <class F>
void over_chunks(const Call& call, F&& work) {
  const int64_t chunks = chunks_of(call.atoms), some = (call.atoms + chunks - 1) / chunks;
  const bool alone = chunks == 1 || call.atoms * (call.shape.width + call.shape.size()) < FEW_NUMBERS;
#pragma omp parallel for schedule(static) if (!alone)
  for (int64_t k = 0; k < chunks; ++k) work(k, k * some, std::min(call.atoms, (k + 1) * some));
}

template <class Step, class T, bool D>
void values(const Call& call, const Tensors<T>& rows, const Tensors<T>& parameters, const std::vector<T*>& out) {
  over_chunks(call, [&](int64_t, int64_t begin, int64_t end) {
    std::vector<Given<T, D>> given(rows.a.size());
    const auto p = parameters.template fixed<D>();
    std::vector<Wanted<T, D>> to(out.size());
    for (int64_t i = begin; i < end; ++i) {
      rows.template at<D>(i, call.of_rows, given), place<T, D>(out, i, call.of_out, to);
      Step::value(call.shape, T(call.softness), given, p, to);
    }
  });
}

// Gradients by rows, and by parameters unless `g_p` is empty.
template <class Step, class T, bool D>
void adjoints(const Call& call, const Tensors<T>& g, const Tensors<T>& rows, const Tensors<T>& parameters, const std::vector<T*>& g_rows,
              const std::vector<T*>& g_p) {
  const auto widths = Step::parameters(call.shape);
  int64_t room = 0;
  for (const auto w : widths) room += (w + LANES<T> - 1) / LANES<T> * LANES<T>;
  const int64_t chunks = chunks_of(call.atoms);
  Scratch<T> sums(g_p.empty() ? 0 : chunks * room);
  over_chunks(call, [&](int64_t chunk, int64_t begin, int64_t end) {
    std::vector<Given<T, D>> given(rows.a.size()), from(g.a.size());
    const auto p = parameters.template fixed<D>();
    std::vector<Wanted<T, D>> to(g_rows.size()), by(widths.size());
    if (!g_p.empty()) {
      T* at = sums.data() + chunk * room;
      std::fill_n(at, room, T(0));
      for (size_t k = 0; k < by.size(); ++k) by[k] = {at}, at += (widths[k] + LANES<T> - 1) / LANES<T> * LANES<T>;
    }
    for (int64_t i = begin; i < end; ++i) {
      rows.template at<D>(i, call.of_rows, given), g.template at<D>(i, call.of_out, from), place<T, D>(g_rows, i, call.of_rows, to);
      Step::adjoint(call.shape, T(call.softness), from, given, p, to, by);
    }
  });
  int64_t at = 0;
  for (size_t k = 0; k < g_p.size(); ++k) {
    std::fill_n(g_p[k], widths[k], T(0));
    for (int64_t chunk = 0; chunk < chunks; ++chunk)
      for (int64_t c = 0; c < widths[k]; ++c) g_p[k][c] += sums[chunk * room + at + c];
    at += (widths[k] + LANES<T> - 1) / LANES<T> * LANES<T>;
  }
}

inline Parts both(Parts first, const Parts& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

inline Parts atom_step(TensorList rows, TensorList parameters, Name step, IntArrayRef layout, double softness) {
  Parts out;
  with_step(step, [&](auto tag) {
    const Call call(tag, rows, parameters, layout, softness);
    out = call.blank(call.of_out);
    AT_DISPATCH_FLOATING_TYPES(call.rows[0].scalar_type(), "atom_step", [&] {
      using T = scalar_t;
      values<typename decltype(tag)::template of<T, false>, T, false>(call, call.rows, call.parameters, write<T>(out));
    });
  });
  return out;
}

// Gradients by the rows, then, if needed, by the parameters.
inline Parts atom_step_adjoint(TensorList g_, TensorList rows, TensorList parameters, Name step, IntArrayRef layout, double softness, bool need) {
  Parts found;
  with_step(step, [&](auto tag) {
    const Call call(tag, rows, parameters, layout, softness);
    const auto g = packed(g_);
    call.check(g, call.of_out);
    auto g_rows = call.blank(call.of_rows), g_p = need ? call.blank_parameters() : Parts{};
    AT_DISPATCH_FLOATING_TYPES(call.rows[0].scalar_type(), "atom_step_adjoint", [&] {
      using T = scalar_t;
      adjoints<typename decltype(tag)::template of<T, false>, T, false>(call, g, call.rows, call.parameters, write<T>(g_rows), write<T>(g_p));
    });
    found = both(g_rows, g_p);
  });
  return found;
}

// Gradients of the adjoint by g, rows and parameters, from directions at its outputs: for all rows, and for all parameters or none.
inline Parts atom_step_second(TensorList g_, TensorList rows, TensorList parameters, TensorList v_, TensorList v_parameters_, Name step,
                              IntArrayRef layout, double softness) {
  Parts found;
  with_step(step, [&](auto tag) {
    const Call call(tag, rows, parameters, layout, softness);
    const auto g = packed(g_), v = packed(v_), v_parameters = packed(v_parameters_);
    call.check(g, call.of_out), call.check(v, call.of_rows);
    TORCH_CHECK(v_parameters.empty() || v_parameters.size() == call.parameters.size(), "atom_step: wrong number of directions");
    auto g_g = call.blank(call.of_out), g_rows = call.blank(call.of_rows), g_p = call.blank_parameters();
    AT_DISPATCH_FLOATING_TYPES(call.rows[0].scalar_type(), "atom_step_second", [&] {
      using T = scalar_t;
      using Step = typename decltype(tag)::template of<T, true>;
      const Tensors<T> given(call.rows, v), p(call.parameters, v_parameters);
      values<Step, T, true>(call, given, p, write<T>(g_g));
      adjoints<Step, T, true>(call, g, given, p, write<T>(g_rows), write<T>(g_p));
    });
    found = both(both(g_g, g_rows), g_p);
  });
  return found;
}

// ---- gradients -----------------------------------------------------------------------------------------------

namespace recorded {
using namespace gradients;
Parts atom_step(TensorList rows, TensorList parameters, Name step, IntArrayRef layout, double softness);
Parts atom_step_adjoint(TensorList g, TensorList rows, TensorList parameters, Name step, IntArrayRef layout, double softness, bool need);
Parts atom_step_second(TensorList g, TensorList rows, TensorList parameters, TensorList v, TensorList v_parameters, Name step,
                       IntArrayRef layout, double softness);


struct Step : Function<Step> {
  static variable_list forward(AutogradContext* ctx, TensorList rows, TensorList parameters, std::string step, std::vector<int64_t> layout,
                               double softness) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward(joined(rows, parameters));
    ctx->saved_data["rows"] = int64_t(rows.size());
    ctx->saved_data["step"] = step;
    ctx->saved_data["layout"] = layout;
    ctx->saved_data["softness"] = softness;
    return FORGEFIELD_CALL(atom_step, rows, parameters, step, layout, softness);
  }
  static variable_list backward(AutogradContext* ctx, variable_list g) {
    const Quiet quiet;
    const auto s = ctx->get_saved_variables();
    const size_t n = size_t(ctx->saved_data["rows"].toInt());
    bool need = false;
    for (size_t k = n; k < s.size(); ++k) need = need || ctx->needs_input_grad(k);
    auto found = FORGEFIELD_CALL(atom_step_adjoint, g, part(s, 0, n), part(s, n, s.size()), ctx->saved_data["step"].toStringView(),
                                 ctx->saved_data["layout"].toIntVector(), ctx->saved_data["softness"].toDouble(), need);
    return joined(found, none(need ? 0 : s.size() - n), none(3));
  }
};

struct StepAdjoint : Function<StepAdjoint> {
  static variable_list forward(AutogradContext* ctx, TensorList g, TensorList rows, TensorList parameters, std::string step,
                               std::vector<int64_t> layout, double softness, bool need) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward(joined(g, rows, parameters));
    ctx->saved_data["out"] = int64_t(g.size());
    ctx->saved_data["rows"] = int64_t(rows.size());
    ctx->saved_data["step"] = step;
    ctx->saved_data["layout"] = layout;
    ctx->saved_data["softness"] = softness;
    return FORGEFIELD_CALL(atom_step_adjoint, g, rows, parameters, step, layout, softness, need);
  }
  static variable_list backward(AutogradContext* ctx, variable_list v) {
    const Quiet quiet;
    const auto s = ctx->get_saved_variables();
    const size_t out = size_t(ctx->saved_data["out"].toInt()), n = size_t(ctx->saved_data["rows"].toInt());
    const auto found = FORGEFIELD_CALL(atom_step_second, part(s, 0, out), part(s, out, out + n), part(s, out + n, s.size()), part(v, 0, n),
                                       part(v, n, v.size()), ctx->saved_data["step"].toStringView(),
                                       ctx->saved_data["layout"].toIntVector(), ctx->saved_data["softness"].toDouble());
    return joined(found, none(4));
  }
};

inline Parts atom_step(TensorList rows, TensorList parameters, Name step, IntArrayRef layout, double softness) {
  return Step::apply(rows, parameters, std::string(step), layout.vec(), softness);
}
inline Parts atom_step_adjoint(TensorList g, TensorList rows, TensorList parameters, Name step, IntArrayRef layout, double softness, bool need) {
  return StepAdjoint::apply(g, rows, parameters, std::string(step), layout.vec(), softness, need);
}
}  // namespace recorded
}  // namespace steps
