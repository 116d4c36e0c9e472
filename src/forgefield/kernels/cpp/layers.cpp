// The operators of networks' layers and of sums over neighbours, in a unit of their own: both are compiled at the same time.
#include <torch/library.h>

#include "atom_steps_operator.h"
#include "dense_operator.h"
#include "gated_layer_operator.h"
#include "gated_sum.h"
#include "interpolate.h"
#include "lengths.h"
#include "neighbour_sum_operator.h"
#include "norm_silu.h"
#include "radial_sum.h"

TORCH_LIBRARY_IMPL(forgefield, CPU, m) {
  m.impl("radial_sum", radial_sums::radial_sum);
  m.impl("radial_sum_adjoint", radial_sums::radial_sum_adjoint);
  m.impl("radial_sum_second", radial_sums::radial_sum_second);
  m.impl("dense", dense::dense);
  m.impl("dense_adjoint", dense::dense_adjoint);
  m.impl("dense_backward", dense::dense_backward);
  m.impl("dense_second", dense::dense_second);
  m.impl("lengths", lengths::lengths);
  m.impl("lengths_adjoint", lengths::lengths_adjoint);
  m.impl("lengths_backward", lengths::lengths_backward);
  m.impl("lengths_second", lengths::lengths_second);
  m.impl("norm_silu", norms::norm_silu);
  m.impl("norm_silu_adjoint", norms::norm_silu_adjoint);
  m.impl("norm_silu_second", norms::norm_silu_second);
  m.impl("gated_sum", gates::gated_sum);
  m.impl("gated_sum_adjoint", gates::gated_sum_adjoint);
  m.impl("gated_sum_second", gates::gated_sum_second);
  m.impl("gated_layer", layers::gated_layer);
  m.impl("gated_layer_adjoint", layers::gated_layer_adjoint);
  m.impl("gated_layer_second", layers::gated_layer_second);
  m.impl("interpolate", tables::interpolate);
  m.impl("interpolate_adjoint", tables::interpolate_adjoint);
  m.impl("interpolate_second", tables::interpolate_second);
  m.impl("neighbour_sum", neighbour_sums::neighbour_sum);
  m.impl("neighbour_sum_adjoint", neighbour_sums::neighbour_sum_adjoint);
  m.impl("neighbour_sum_second", neighbour_sums::neighbour_sum_second);
  m.impl("atom_step", steps::atom_step);
  m.impl("atom_step_adjoint", steps::atom_step_adjoint);
  m.impl("atom_step_second", steps::atom_step_second);
}

TORCH_LIBRARY_IMPL(forgefield, AutogradCPU, m) {
  m.impl("radial_sum", radial_sums::recorded::radial_sum);
  m.impl("radial_sum_adjoint", radial_sums::recorded::radial_sum_adjoint);
  m.impl("dense", dense::recorded::dense);
  m.impl("dense_adjoint", dense::recorded::dense_adjoint);
  m.impl("lengths", lengths::recorded::lengths);
  m.impl("lengths_adjoint", lengths::recorded::lengths_adjoint);
  m.impl("norm_silu", norms::recorded::norm_silu);
  m.impl("norm_silu_adjoint", norms::recorded::norm_silu_adjoint);
  m.impl("gated_sum", gates::recorded::gated_sum);
  m.impl("gated_sum_adjoint", gates::recorded::gated_sum_adjoint);
  m.impl("gated_layer", layers::recorded::gated_layer);
  m.impl("gated_layer_adjoint", layers::recorded::gated_layer_adjoint);
  m.impl("interpolate", tables::recorded::interpolate);
  m.impl("interpolate_adjoint", tables::recorded::interpolate_adjoint);
  m.impl("neighbour_sum", neighbour_sums::recorded::neighbour_sum);
  m.impl("neighbour_sum_adjoint", neighbour_sums::recorded::neighbour_sum_adjoint);
  m.impl("atom_step", steps::recorded::atom_step);
  m.impl("atom_step_adjoint", steps::recorded::atom_step_adjoint);
}
