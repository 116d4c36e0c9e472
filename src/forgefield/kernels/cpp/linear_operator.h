// The linear maps as operators, with their gradients: each is the other's, so that any order of derivative is there.
#pragma once
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <optional>
#include <tuple>
#include <vector>

#include "gradients.h"
#include "linear.h"

namespace linear_maps {
using at::IntArrayRef;
using at::Tensor;

// blocks = [rows of the output, then width, first row of the input, first row of the output of each block].
inline Maps maps(const Tensor& x, IntArrayRef blocks, const Tensor& counts, int64_t sets, int64_t columns) {
  TORCH_CHECK((x.dim() == 2 || x.dim() == 3) && blocks.size() % 3 == 1, "linear: wrong number of axes");
  Maps m{x.size(0), x.dim() == 3 ? x.size(1) : 1, blocks[0], x.size(-1), columns, {}, {0}};
  for (size_t k = 1; k < blocks.size(); k += 3) {
    m.blocks.push_back({blocks[k], blocks[k + 1], blocks[k + 2]});
    TORCH_CHECK(m.blocks.back().in + m.blocks.back().width <= m.rows_in && m.blocks.back().out + m.blocks.back().width <= m.rows_out,
                "linear: a block lies outside");
  }
  if (sets == 1) {
    m.first.push_back(m.atoms);
    return m;
  }
  TORCH_CHECK(counts.is_cpu() && counts.scalar_type() == at::kLong && counts.numel() == sets, "linear: bad counts");
  const auto n = counts.contiguous();
  for (int64_t z = 0; z < sets; ++z) m.first.push_back(m.first.back() + n.const_data_ptr<int64_t>()[z]);
  TORCH_CHECK(m.first.back() == m.atoms, "linear: counts do not add up to the atoms");
  return m;
}

inline std::vector<int64_t> swapped(IntArrayRef blocks, int64_t rows) {
  std::vector<int64_t> found{rows};
  for (size_t k = 1; k < blocks.size(); k += 3) found.insert(found.end(), {blocks[k], blocks[k + 2], blocks[k + 1]});
  return found;
}

// Asks for this one size alone: a compiler that follows sizes as symbols takes each one that is asked for as fixed.
inline int64_t rows_of(const Tensor& x) { return x.dim() == 3 ? x.sym_size(1).guard_int(__FILE__, __LINE__) : 1; }

inline Tensor rows_like(const Tensor& x, int64_t rows, int64_t columns, bool blank) {
  const auto shape = x.dim() == 3 ? std::vector<int64_t>{x.size(0), rows, columns} : std::vector<int64_t>{x.size(0), columns};
  return blank ? at::zeros(shape, x.options()) : at::empty(shape, x.options());
}

// Writes the mapped rows into `out`.
inline void map_into(const Tensor& x_, const Tensor& weights, const Maps& m, double scale, bool transpose, Tensor& out) {
  const auto x = x_.contiguous(), w = weights.contiguous();
  const int64_t depth = w.size(transpose ? -1 : -2), columns = w.size(transpose ? -2 : -1), n = w.numel() / (depth * columns);
  TORCH_CHECK(x.size(-1) == depth && x.scalar_type() == w.scalar_type(), "linear: input and weights do not fit");
  TORCH_CHECK(n == int64_t(m.blocks.size()) * m.sets(), "linear: one matrix per block and set is needed");
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "linear", [&] {
    Scratch<scalar_t> packed(n * packed_size<scalar_t>(depth, columns));
    pack_matrices<scalar_t>(m, w.const_data_ptr<scalar_t>(), transpose ? 1 : columns, transpose ? depth : 1, packed.data());
    map_rows<scalar_t>(m, x.const_data_ptr<scalar_t>(), packed.data(), out.data_ptr<scalar_t>(), scalar_t(scale));
  });
}

inline void map_one(const Tensor& x, const Tensor& w, IntArrayRef blocks, double scale, bool transpose, Tensor& out) {
  TORCH_CHECK(w.dim() == 2 && out.size(-1) == w.size(transpose ? 0 : 1), "linear: wrong shape of weights");
  map_into(x, w, maps(x, blocks, {}, 1, w.size(transpose ? 0 : 1)), scale, transpose, out);
}

inline Tensor linear(const Tensor& x, const Tensor& w, const Tensor& counts, IntArrayRef blocks, double scale, bool transpose) {
  const int64_t columns = w.size(transpose ? -2 : -1);
  const auto m = maps(x, blocks, counts, w.dim() == 4 ? w.size(1) : 1, columns);
  int64_t filled = 0;
  for (const auto& b : m.blocks) filled += b.width;
  auto out = rows_like(x, m.rows_out, columns, filled < m.rows_out);
  map_into(x, w, m, scale, transpose, out);
  return out;
}

// Sum over rows of x^T g (transposed: g^T x), in the shape of the weights.
inline Tensor linear_weights(const Tensor& x_, const Tensor& g_, const Tensor& counts, IntArrayRef blocks, double scale, bool transpose,
                             IntArrayRef shape) {
  const auto x = x_.contiguous(), g = g_.contiguous();
  TORCH_CHECK(x.scalar_type() == g.scalar_type() && x.size(0) == g.size(0) && rows_of(g) == blocks[0], "linear: gradient does not fit");
  const auto turned = swapped(blocks, rows_of(x));
  const int64_t sets = shape.size() == 4 ? shape[1] : 1;
  const auto &left = transpose ? g : x, &right = transpose ? x : g;
  const auto m = maps(left, transpose ? IntArrayRef(turned) : blocks, counts, sets, right.size(-1));
  auto out = at::empty(shape, x.options());
  TORCH_CHECK(out.numel() == int64_t(m.blocks.size()) * sets * m.depth * m.columns, "linear: wrong shape of weights");
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "linear_weights", [&] {
    sum_outer<scalar_t>(m, left.const_data_ptr<scalar_t>(), right.const_data_ptr<scalar_t>(), out.data_ptr<scalar_t>(), scalar_t(scale));
  });
  return out;
}

// -- gradients ------------------------------------------------------------------------------------------------

inline Tensor call_linear(const Tensor& x, const Tensor& w, const Tensor& counts, IntArrayRef blocks, double scale, bool transpose) {
  const gradients::Quiet quiet;
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("forgefield::linear", "").typed<decltype(linear)>();
  return op.call(x, w, counts, blocks, scale, transpose);
}

inline Tensor call_weights(const Tensor& x, const Tensor& g, const Tensor& counts, IntArrayRef blocks, double scale, bool transpose,
                           IntArrayRef shape) {
  const gradients::Quiet quiet;
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("forgefield::linear_weights", "").typed<decltype(linear_weights)>();
  return op.call(x, g, counts, blocks, scale, transpose, shape);
}

using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

struct Linear : torch::autograd::Function<Linear> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& w, const Tensor& counts, std::vector<int64_t> blocks,
                        double scale, bool transpose) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({x, w, counts});
    ctx->saved_data["blocks"] = blocks;
    ctx->saved_data["scale"] = scale;
    ctx->saved_data["transpose"] = transpose;
    return call_linear(x, w, counts, blocks, scale, transpose);
  }
  static tensor_list backward(AutogradContext* ctx, tensor_list grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &w = saved[1], &counts = saved[2], &g = grads[0];
    const auto blocks = ctx->saved_data["blocks"].toIntVector();
    const double scale = ctx->saved_data["scale"].toDouble();
    const bool transpose = ctx->saved_data["transpose"].toBool();
    Tensor g_x, g_w;
    if (ctx->needs_input_grad(0)) g_x = call_linear(g, w, counts, swapped(blocks, rows_of(x)), scale, !transpose);
    if (ctx->needs_input_grad(1)) g_w = call_weights(x, g, counts, blocks, scale, transpose, C10_AS_INTARRAYREF_SLOW(w.sym_sizes()));
    return {g_x, g_w, Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

struct LinearWeights : torch::autograd::Function<LinearWeights> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& g, const Tensor& counts, std::vector<int64_t> blocks,
                        double scale, bool transpose, std::vector<int64_t> shape) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({x, g, counts});
    ctx->saved_data["blocks"] = blocks;
    ctx->saved_data["scale"] = scale;
    ctx->saved_data["transpose"] = transpose;
    return call_weights(x, g, counts, blocks, scale, transpose, shape);
  }
  static tensor_list backward(AutogradContext* ctx, tensor_list grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &g = saved[1], &counts = saved[2], &v = grads[0];
    const auto blocks = ctx->saved_data["blocks"].toIntVector();
    const double scale = ctx->saved_data["scale"].toDouble();
    const bool transpose = ctx->saved_data["transpose"].toBool();
    Tensor g_x, g_g;
    if (ctx->needs_input_grad(0)) g_x = call_linear(g, v, counts, swapped(blocks, rows_of(x)), scale, !transpose);
    if (ctx->needs_input_grad(1)) g_g = call_linear(x, v, counts, blocks, scale, transpose);
    return {g_x, g_g, Tensor(), Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

inline Tensor linear_autograd(const Tensor& x, const Tensor& w, const Tensor& counts, IntArrayRef blocks, double scale, bool transpose) {
  return Linear::apply(x, w, counts, blocks.vec(), scale, transpose);
}

inline Tensor weights_autograd(const Tensor& x, const Tensor& g, const Tensor& counts, IntArrayRef blocks, double scale, bool transpose,
                               IntArrayRef shape) {
  return LinearWeights::apply(x, g, counts, blocks.vec(), scale, transpose, shape.vec());
}
}  // namespace linear_maps
