"""Which quantities' errors are reported, and of which atoms: those that the loss compares."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from forgefield.core.quantities import ALWAYS, DERIVED, QUANTITIES, Quantity
from forgefield.train.values import AtomChoice

if TYPE_CHECKING:
    from forgefield.models.potential import Potential
    from forgefield.train.keys.loss import LossKeys
    from forgefield.train.settings import TrainSettings

STANDARD = tuple(QUANTITIES[name] for name in ALWAYS)


class Measured(NamedTuple):
    """What errors are computed of.

    Args:
        quantities: energy, forces and stress, then further ones.
        choice: which atoms' forces count; None = all that are labelled.
        energy: the model predicts energy, forces and stress.
    """

    quantities: tuple[Quantity, ...] = STANDARD
    choice: AtomChoice | None = None
    energy: bool = True

    @property
    def further(self) -> tuple[Quantity, ...]:
        """The quantities beside energy, forces and stress."""
        return self.quantities[len(STANDARD) :]

    def choice_of(self, quantity: Quantity) -> AtomChoice | None:
        """Which atoms count for a quantity."""
        return self.choice if quantity.name == "forces" else None


def chosen_atoms(settings: LossKeys) -> AtomChoice | None:
    """Return which atoms' forces are trained on, and judged; None = all that are labelled."""
    if not (settings.train_on_free_atoms or settings.tag_weights):
        return None
    return AtomChoice(settings.train_on_free_atoms, tuple(settings.tag_weights.items()))


def measured_in_training(settings: TrainSettings, potential: Potential) -> Measured:
    """Return what a fit is judged by: energy, forces, stress, and all of `targets` that the model predicts."""
    known = {**DERIVED, **potential.architecture.extra_quantities()}
    further = tuple(known[name] for name in settings.targets if name in known)
    return Measured((*STANDARD, *further), chosen_atoms(settings), potential.context.energy)


def measured_in_evaluation(
    potential: Potential, settings: TrainSettings | None = None, *, free_atoms: bool = False
) -> Measured:
    """Return what a model is judged by: all that it predicts.

    Args:
        potential: the model.
        settings: of the fit that it comes from, if that is known: its atoms count, and the virial if it is a target.
        free_atoms: leave atoms that are held fixed out of the errors of forces.
    """
    own = dict(potential.architecture.extra_quantities())
    choice = AtomChoice(free_only=True) if free_atoms else None
    if settings is not None:
        own |= {name: DERIVED[name] for name in settings.targets if name in DERIVED}
        choice = chosen_atoms(settings)
    return Measured((*STANDARD, *own.values()), choice, potential.context.energy)
