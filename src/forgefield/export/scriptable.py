"""The part of a TorchScript file that turns a directed edge list into the model's graph.

Everything here is compiled by `torch.jit.script`: plain tensor operations, typed, no Python objects.
"""

# `from __future__ import annotations` is left out: TorchScript reads the annotations themselves.
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from forgefield.export.triplet_table import padded_triplets
from forgefield.graph.needs import Needs


class ScriptablePotential(nn.Module):
    """Checks its inputs, builds the graph and calls the traced model.

    Args:
        core: the traced model; takes the tensors of `Graph` in their order.
        elements: atomic numbers the model knows.
        heads: names of its heads.
        needs: the graph it is fed.
        dtype: of its weights.
        whole: names of further predictions that belong to the structure, not to its atoms.
        takes: whether it is meant for molecules, and for crystals.
    """

    elements: list[int]
    heads: list[str]
    whole: list[str]
    n_features: int
    cutoff: float
    near: float
    far: float
    triplets: float
    opposite: float
    backtracking: bool
    asks_charges: bool
    takes_molecules: bool
    takes_crystals: bool

    def __init__(
        self,
        core: nn.Module,
        elements: Sequence[int],
        heads: Sequence[str],
        needs: Needs,
        dtype: torch.dtype,
        whole: Sequence[str] = (),
        takes: tuple[bool, bool] = (True, True),
    ) -> None:
        super().__init__()
        self.core = core
        self.elements, self.heads = list(elements), list(heads)
        self.n_features = sum(length for _, length in needs.features)
        self.near, self.far = float(needs.cutoff), float(needs.far_cutoff)
        self.cutoff = max(self.near, self.far)
        self.triplets, self.opposite = float(needs.triplets), float(needs.opposite)
        self.backtracking, self.asks_charges = bool(needs.backtracking), bool(needs.atom_charges)
        self.takes_molecules, self.takes_crystals = takes
        known = torch.zeros(119, dtype=torch.bool)
        known[self.elements] = True
        self.register_buffer("known", known)
        self.register_buffer("like", torch.zeros((), dtype=dtype))
        self.whole = ["energy", "stress", *whole]

    def forward(
        self,
        positions: Tensor,
        numbers: Tensor,
        cell: Tensor,
        edge_index: Tensor,
        shifts: Tensor,
        head: int = 0,
        charge: float = 0.0,
        multiplicity: float = 1.0,
        features: Tensor | None = None,
        charges: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Predict one structure.

        Args:
            positions: (N, 3), Å.
            numbers: atomic numbers, (N,).
            cell: rows are lattice vectors, (3, 3), Å; zeros for a molecule.
            edge_index: sender and receiver of every edge up to `cutoff`, both directions of each pair, (2, E).
            shifts: lattice translation of the edge, (E, 3), Å: vector = x[receiver] - x[sender] + shift.
            head: index into `heads`.
            charge: total charge, e; for models that need it.
            multiplicity: 2S + 1; for models that need it.
            features: further inputs of the structure, (X,), in the order of the metadata's `features`.
            charges: of the atoms, (N,), e; for models that need them.

        Returns:
            energy (), eV, float64; forces (N, 3), eV/Å; stress (3, 3), eV/Å^3; atom_energies (N,), eV; and what else
            the model predicts, by name.
        """
        like = self.like
        x = positions.to(device=like.device, dtype=torch.float64)
        numbers = numbers.to(device=like.device, dtype=torch.long)
        edges = edge_index.to(device=like.device, dtype=torch.long)
        shift = shifts.to(device=like.device, dtype=x.dtype)
        box = cell.to(device=like.device, dtype=like.dtype).reshape(1, 3, 3)
        self.check_inputs(x, numbers, edges, shift, head)
        crystal = self.is_crystal(box)
        n = x.size(0)

        first, second, pair_shift = half_of(x, edges, shift, self.near, self.cutoff)
        order = torch.argsort(numbers, stable=True)
        inverse = torch.argsort(order)
        first, second = inverse.index_select(0, first), inverse.index_select(0, second)
        far_first, far_second, far_shift = self.far_pairs(x, edges, shift, inverse)
        sender, pair, sign, reverse, forward_slot, backward_slot = neighbour_table(first, second, n, like)
        entering, leaving = self.triplets_of(x.index_select(0, order), first, second, pair_shift, pair, sign)
        found: dict[str, Tensor] = self.core(
            x.index_select(0, order),
            numbers.index_select(0, order),
            torch.zeros_like(numbers),
            order,
            inverse,
            box,
            crystal.reshape(1, 1).expand(1, 3),
            torch.full([1], head, dtype=torch.long, device=like.device),
            first,
            second,
            pair_shift,
            sender,
            pair,
            sign,
            reverse,
            forward_slot,
            backward_slot,
            torch.full([1], charge, dtype=like.dtype, device=like.device),
            torch.full([1], multiplicity, dtype=like.dtype, device=like.device),
            far_first,
            far_second,
            far_shift,
            self.row_of(features),
            entering,
            leaving,
            torch.arange(entering.size(0), device=like.device),
            torch.arange(entering.size(0), device=like.device),
            torch.ones(entering.size(0), dtype=like.dtype, device=like.device),
            self.charges_of(charges, order),
        )
        return {name: value[0] if name in self.whole else value for name, value in found.items()}

    def far_pairs(self, x: Tensor, edges: Tensor, shift: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return first and second row (F,) and shift (F, 3) of the pairs within the far cutoff; none without one."""
        if self.far == 0.0:
            return edges[0, :0], edges[0, :0], shift[:0]
        first, second, found = half_of(x, edges, shift, self.far, self.cutoff)
        return inverse.index_select(0, first), inverse.index_select(0, second), found

    def triplets_of(
        self, x: Tensor, first: Tensor, second: Tensor, shift: Tensor, pair: Tensor, sign: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the edges that enter and leave each triplet's middle atom, (T,) and (T,)."""
        if self.triplets == 0.0:
            return first[:0], first[:0]
        vectors = x.index_select(0, second) - x.index_select(0, first) + shift
        found = padded_triplets(vectors, pair, sign, self.triplets, self.opposite, self.backtracking)
        entering, leaving, there = found
        return entering[there], leaving[there]

    def row_of(self, features: Tensor | None) -> Tensor:
        """Return the further inputs as one row, (1, X)."""
        given = torch.zeros([0]) if features is None else features
        if given.numel() != self.n_features:
            raise RuntimeError(f"features must be ({self.n_features},), not {given.shape}")
        return given.to(device=self.like.device, dtype=self.like.dtype).reshape(1, self.n_features)

    def charges_of(self, charges: Tensor | None, order: Tensor) -> Tensor:
        """Return the charges of the atoms in the order of the rows, (N,); (0,) for models without them."""
        if charges is None:
            if self.asks_charges:
                raise RuntimeError("this model needs the charges of the atoms, (N,), e")
            return torch.zeros(0, dtype=self.like.dtype, device=self.like.device)
        if not self.asks_charges:
            raise RuntimeError("this model takes no charges of atoms")
        if charges.numel() != order.size(0):
            raise RuntimeError(f"charges must be ({order.size(0)},), not {charges.shape}")
        return charges.reshape(-1).to(device=self.like.device, dtype=self.like.dtype).index_select(0, order)

    def is_crystal(self, box: Tensor) -> Tensor:
        """Return whether lattice vectors (1, 3, 3) span a volume, (1,); raise if the model is not meant for that."""
        found = torch.det(box).abs() > 0
        crystal = bool(found)
        if crystal and not self.takes_crystals:
            raise RuntimeError("this model is for molecules: its cell must be zeros")
        if not crystal and not self.takes_molecules:
            raise RuntimeError("this model is for crystals: it needs three lattice vectors that span a volume")
        return found

    def check_inputs(self, x: Tensor, numbers: Tensor, edges: Tensor, shift: Tensor, head: int) -> None:
        """Raise on shapes, elements, indices or heads that do not fit."""
        n = x.size(0)
        if n == 0 or x.dim() != 2 or x.size(1) != 3:
            raise RuntimeError(f"positions must be (N, 3) with N > 0, not {x.shape}")
        if numbers.dim() != 1 or numbers.size(0) != n:
            raise RuntimeError(f"numbers must be ({n},), not {numbers.shape}")
        if edges.dim() != 2 or edges.size(0) != 2:
            raise RuntimeError(f"edge_index must be (2, E), not {edges.shape}")
        if shift.dim() != 2 or shift.size(0) != edges.size(1) or shift.size(1) != 3:
            raise RuntimeError(f"shifts must be ({edges.size(1)}, 3), not {shift.shape}")
        unknown = ~self.known.index_select(0, numbers.clamp(0, 118)) | (numbers > 118)
        if bool(unknown.any()):
            first = int(numbers[unknown][0])
            raise RuntimeError(f"unknown element: atomic number {first}; the model knows {self.elements}")
        if edges.size(1) > 0 and (int(edges.min()) < 0 or int(edges.max()) >= n):
            raise RuntimeError(f"edge_index points outside the {n} atoms")
        if head < 0 or head >= len(self.heads):
            raise RuntimeError(f"head {head} does not exist; the model has {len(self.heads)}: {self.heads}")


def half_of(
    x: Tensor, edges: Tensor, shift: Tensor, cutoff: float, longest: float, same: float = 1e-4
) -> tuple[Tensor, Tensor, Tensor]:
    """Keep one of the two directions of each edge, and only those shorter than the cutoff.

    Between different atoms the edge whose sender has the lower index is kept; of an atom and its own image the
    one whose translation is positive in its first component that is not zero.

    Args:
        x: positions, (N, 3), Å.
        edges: sender and receiver, (2, E).
        shift: (E, 3), Å.
        cutoff: Å.
        longest: of all edges that may be given, Å.
        same: components of translations smaller than this count as zero, Å.

    Returns:
        First and second atom of each pair (P,), (P,) and its shift (P, 3), Å.
    """
    vectors = x.index_select(0, edges[1]) - x.index_select(0, edges[0]) + shift
    squares = (vectors * vectors).sum(1)
    if bool((squares < 1e-12).any()):
        raise RuntimeError("an edge has zero length: two atoms coincide, or an atom is its own neighbour")
    translated = shift.abs().amax(1) > same
    if bool((translated & (squares > 4.0 * longest * longest)).any()):
        raise RuntimeError(
            "an edge is longer than twice the cutoff: use edge_index = [sender, receiver] and "
            "shifts with vector = x[receiver] - x[sender] + shift"
        )
    near = torch.nonzero(squares < cutoff * cutoff).squeeze(1)
    sender, receiver = edges[0].index_select(0, near), edges[1].index_select(0, near)
    shift, squares = shift.index_select(0, near), squares.index_select(0, near)
    step = torch.where(shift.abs() < same, torch.zeros_like(shift), torch.sign(shift))
    sense = 9.0 * step[:, 0] + 3.0 * step[:, 1] + step[:, 2]
    kept = (sender < receiver) | ((sender == receiver) & (sense > 0))
    rows, others = torch.nonzero(kept).squeeze(1), torch.nonzero(~kept).squeeze(1)
    n = x.size(0)
    key = torch.sort(sender.index_select(0, rows) * n + receiver.index_select(0, rows))[0]
    other_key = torch.sort(receiver.index_select(0, others) * n + sender.index_select(0, others))[0]
    total, other_total = squares.index_select(0, rows).sum(), squares.index_select(0, others).sum()
    balanced = bool((total - other_total).abs() <= 1e-4 * (1.0 + total))
    if key.size(0) != other_key.size(0) or not bool((key == other_key).all()) or not balanced:
        raise RuntimeError("the edge list must hold both directions of every pair (a full neighbour list)")
    return sender.index_select(0, rows), receiver.index_select(0, rows), shift.index_select(0, rows)


def neighbour_table(
    first: Tensor, second: Tensor, n: int, like: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Lay both directions of all pairs out by receiver, padded to the largest number of neighbours.

    Args:
        first: first atom of each pair, (P,).
        second: second atom, (P,).
        n: number of atoms.
        like: a tensor of the model's dtype and device.

    Returns:
        table_sender, table_pair, table_sign (N, K), reverse (N K,), slot_forward and slot_backward (P,), as `Graph`.
    """
    p = first.size(0)
    receiver, sender = torch.cat([second, first]), torch.cat([first, second])
    degree = torch.zeros(n, dtype=torch.long, device=like.device).index_add(0, receiver, torch.ones_like(receiver))
    width = int(degree.max()) if p > 0 else 0
    by_receiver = torch.argsort(receiver, stable=True)
    start = torch.cumsum(degree, 0) - degree
    place = torch.arange(2 * p, device=like.device) - start.index_select(0, receiver.index_select(0, by_receiver))
    rank = torch.zeros_like(receiver).index_copy(0, by_receiver, place)
    slot = receiver * width + rank
    forward_slot, backward_slot = slot[:p], slot[p:]
    index = torch.arange(p, device=like.device)
    empty = torch.zeros(n * width, dtype=torch.long, device=like.device)
    ones = torch.ones(p, dtype=like.dtype, device=like.device)
    signs = torch.zeros(n * width, dtype=like.dtype, device=like.device)
    other = torch.cat([backward_slot, forward_slot])
    reverse = torch.arange(n * width, device=like.device).index_copy(0, slot, other)
    return (
        empty.index_copy(0, slot, sender).reshape(n, width),
        empty.index_copy(0, slot, torch.cat([index, index])).reshape(n, width),
        signs.index_copy(0, slot, torch.cat([ones, -ones])).reshape(n, width),
        reverse,
        forward_slot,
        backward_slot,
    )
