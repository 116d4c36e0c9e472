"""The part of a TorchScript file that takes dense batches of molecules as a dictionary.

Everything here is compiled by `torch.jit.script`: plain tensor operations, typed, no Python objects.
"""

# `from __future__ import annotations` is left out: TorchScript reads the annotations themselves.
import torch
from torch import Tensor, nn

from forgefield.export.scriptable import ScriptablePotential
from forgefield.graph.needs import Needs


class DictionaryPotential(nn.Module):
    """Finds the neighbours of each molecule of a dense batch and predicts it.

    Args:
        single: predicts one structure from its edges.
        needs: the graph that the model is fed.
    """

    cutoff: float
    cutoff_lr: float

    def __init__(self, single: ScriptablePotential, needs: Needs) -> None:
        super().__init__()
        self.single = single
        self.cutoff, self.cutoff_lr = float(needs.cutoff), float(needs.far_cutoff)
        self.asks_charge, self.asks_mult = "charge" in needs.electrons, "multiplicity" in needs.electrons

    def forward(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        """Predict a batch of molecules.

        Args:
            data: coord (B, N, 3), Å; numbers (B, N), 0 where a molecule has fewer atoms; charge (B,), e;
                mult (B,), 2S + 1. One molecule may come without the first axis.

        Returns:
            energy (B,), eV; forces (B, N, 3), eV/Å; atom_energies (B, N), eV; what else the model predicts, such as
            charges (B, N) and spin_charges (B, N), e. Zero where there is no atom.
        """
        for name in data.keys():  # noqa: SIM118
            if name not in ["coord", "numbers", "charge", "mult"]:
                raise RuntimeError(f"unknown input {name}: give coord, numbers, charge, mult")
        coord, numbers = data["coord"], data["numbers"]
        if coord.dim() == 2:
            coord, numbers = coord.unsqueeze(0), numbers.unsqueeze(0)
        charge = self.stated(data, "charge", self.asks_charge, 0.0, coord.size(0))
        mult = self.stated(data, "mult", self.asks_mult, 1.0, coord.size(0))
        found: dict[str, list[Tensor]] = {}
        for k in range(coord.size(0)):
            rows = torch.nonzero(numbers[k] > 0).squeeze(1)
            one = self.molecule(coord[k].index_select(0, rows), numbers[k].index_select(0, rows), charge[k], mult[k])
            for name, value in one.items():
                if value.dim() > 0 and name not in self.single.whole:
                    shape = [numbers.size(1)] + value.shape[1:]  # noqa: RUF005
                    value = torch.zeros(shape, dtype=value.dtype, device=value.device).index_copy(0, rows, value)
                if name not in found:
                    found[name] = []
                found[name].append(value)
        return {name: torch.stack(values) for name, values in found.items()}

    def molecule(self, x: Tensor, numbers: Tensor, charge: float, mult: float) -> dict[str, Tensor]:
        """Predict one molecule, from all pairs of its atoms that are near enough."""
        vectors = x.unsqueeze(0) - x.unsqueeze(1)
        square = (vectors * vectors).sum(2)
        reach = self.single.cutoff
        near = (square < reach * reach) & ~torch.eye(x.size(0), dtype=torch.bool, device=x.device)
        edges = torch.nonzero(near).t()
        none = torch.zeros([edges.size(1), 3], dtype=x.dtype, device=x.device)
        cell = torch.zeros([3, 3], dtype=x.dtype, device=x.device)
        found = self.single(x, numbers, cell, edges, none, 0, charge, mult)
        found.pop("stress")
        return found

    def stated(self, data: dict[str, Tensor], name: str, asked: bool, usual: float, count: int) -> list[float]:
        """Return one number for each molecule."""
        if name not in data:
            if asked:
                raise RuntimeError(f"this model needs the input {name}, one number for each molecule")
            return [usual] * count
        values = data[name].reshape(-1)
        if values.size(0) != count:
            raise RuntimeError(f"{name} has {values.size(0)} numbers for {count} molecules")
        found: list[float] = []
        for k in range(count):
            found.append(float(values[k]))
        return found
