"""A new level as a correction to the loaded model, and what may be trained of a base that stays as it is."""

from __future__ import annotations

from forgefield.app.run import RunConfig
from forgefield.app.tasks.steps.fitting import Ordered, checking_loader
from forgefield.core.errors import ConfigError, ModelError
from forgefield.data.parts import TrainingData
from forgefield.models.correcting import as_correction, inventory_of_correction
from forgefield.models.potential import Potential
from forgefield.models.widening import Growth, TensorRow, inventory
from forgefield.train.evaluate import evaluate


def with_correction(run: Ordered, before: Potential, data: TrainingData, growth: Growth) -> Potential:
    """Return the model with a correction of the new head, in units of what the old one lacks on the training data.

    Args:
        run: settings and device.
        before: widened by the new head, its reference energies settled.
        data: the new data.
        growth: with that head.

    Raises:
        ModelError: the loaded model cannot be a base.
    """
    ((head, base),) = growth.heads.items()
    rest = [name for name in before.heads if name not in (head, base)]
    if rest:
        fix = f"leave the others behind: finetune.drop_heads: [{', '.join(rest)}]"
        raise ModelError(f"one level is corrected, the loaded model has {len(rest) + 1}", "finetune.correction", fix)
    found = evaluate(before, checking_loader(run, before, data.train)).metrics["all"]
    lacking = found.get("forces_rmse") or found.get("energy_rmse_per_atom") or 0.0  # type: ignore[union-attr]
    unit = before.scale[before.heads.index(base)].item()
    scale = float(f"{lacking / unit:.4g}") if lacking else 1.0
    return as_correction(before, base, scale, run.config.train.seed)


def inventory_of(loaded: Potential, potential: Potential, growth: Growth) -> list[TensorRow]:
    """Return where every number of the model comes from, tensor by tensor."""
    added = potential.context.fidelity.base is not None and loaded.context.fidelity.base is None
    return (inventory_of_correction if added else inventory)(loaded, potential, growth)


def check_trained_part(config: RunConfig, potential: Potential, data: TrainingData) -> None:
    """Refuse data and weights in the loss that would train nothing, since the base stays as it is.

    Raises:
        ConfigError: there are some.
    """
    base = potential.context.fidelity.base
    if config.train.freeze != "base" or base is None:
        return
    if base in data.train.heads():
        what = f"are partly of level {base!r}, which stays as it is: they would train nothing"
        raise ConfigError(what, "data.train", "take them out, or train both with train.freeze: null")
    replayed = [] if data.replay is None else data.replay.train.heads() or potential.heads[:1]
    if base in replayed:
        what = f"are partly of level {base!r}, which stays as it is and forgets nothing"
        raise ConfigError(what, "finetune.replay.data", "remove it, or train both with train.freeze: null")
    idle = sorted(config.train.trained_labels() & set(potential.architecture.extra_quantities()))
    if idle:
        what = f"asks for {idle[0]}, which the base predicts, and that stays as it is"
        raise ConfigError(what, "train.targets", "give it no weight, or train both with train.freeze: null")
