"""The potential as a function of plain tensors in which every size may vary: what `torch.export` records.

Sizes must follow from the sizes of the inputs, and nothing can be raised from inside. So the graph is built without
dropping anything, and input that cannot be right turns every output into NaN.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from forgefield.export.package_inputs import Asked
from forgefield.export.triplet_table import padded_triplets
from forgefield.graph.graph import Graph
from forgefield.graph.needs import Needs
from forgefield.models.potential import Potential

SAME = 1e-4  # components of translations smaller than this count as zero, Å
ROUNDING = 1e-6  # an edge may be so much longer than the cutoff, relative
SHORTEST = 1e-6  # Å


class ExportablePotential(nn.Module):
    """Builds the graph of a batch from directed edges, and predicts it.

    Args:
        potential: the model.
    """

    known: Tensor

    def __init__(self, potential: Potential) -> None:
        super().__init__()
        self.potential = potential
        self.asked = Asked.by(potential.heads, potential.needs)
        known = torch.zeros(119, dtype=torch.bool)
        known[potential.elements] = True
        self.register_buffer("known", known)

    def forward(
        self,
        positions: Tensor,
        numbers: Tensor,
        structure: Tensor,
        cell: Tensor,
        head: Tensor,
        edge_index: Tensor,
        shifts: Tensor,
        slots: Tensor,
        *further: Tensor,
    ) -> tuple[Tensor, ...]:
        """Predict a batch of structures.

        Args:
            positions: (N, 3), Å, float64.
            numbers: atomic numbers, (N,), int64.
            structure: index of each atom's structure, (N,), int64.
            cell: rows are lattice vectors, (S, 3, 3), Å, float64; zeros for a molecule.
            head: index of each structure's head, (S,), int64.
            edge_index: sender and receiver of every edge, both directions of each pair, (2, E), int64.
            shifts: lattice translation of the edge, (E, 3), Å, float64: vector = x[receiver] - x[sender] + shift.
            slots: (K,), int64; only its length counts: the largest number of neighbours of an atom, or more.
            further: what the model needs besides, as `Asked.further` names it: total charge and multiplicity (S,),
                far_edge_index (2, F) and far_shifts (F, 3) as the edges, but up to the far cutoff; features (S, X);
                atom_charges (N,), e.

        Returns:
            energy (S,), eV, float64; forces (N, 3), eV/Å; stress (S, 3, 3), eV/Å^3; atom_energies (N,), eV, float64;
            then what else is predicted. All of it NaN if the input cannot be right.
        """
        dtype, n_heads = self.potential.dtype, len(self.potential.heads)
        known = self.known.index_select(0, numbers.clamp(0, 118)) & (numbers < 119) & (numbers > 0)
        placed = (structure >= 0) & (structure < cell.shape[0])
        valid = known.all() & placed.all() & ((head >= 0) & (head < n_heads)).all()
        numbers = torch.where(known, numbers, torch.full_like(numbers, self.potential.elements[0]))
        sent, received = (positions.index_select(0, edge_index[k]) for k in (0, 1))
        squares = (received - sent + shifts).square().sum(1)
        valid = valid & edges_valid(squares, structure, edge_index, self.potential.cutoff)
        first, second, shift, halves = half_of(edge_index, shifts, squares, positions.shape[0])
        key = numbers
        if self.potential.needs.by_head:
            key = numbers * n_heads + head.index_select(0, structure.clamp(0, cell.shape[0] - 1)).clamp(0, n_heads - 1)
        order = torch.argsort(key, stable=True)
        inverse = torch.argsort(order)
        first, second = inverse.index_select(0, first), inverse.index_select(0, second)
        table, fits = neighbour_table(first, second, positions.shape[0], slots.shape[0], dtype)
        more = dict(zip(self.asked.further, further, strict=True))
        far, far_valid = self._far_pairs(positions, structure, more, squares)
        graph = Graph(
            positions.index_select(0, order),
            numbers.index_select(0, order),
            structure.index_select(0, order).clamp(0, cell.shape[0] - 1),
            order,
            inverse,
            cell.to(dtype),
            has_volume(cell).unsqueeze(1).expand(-1, 3),
            head.clamp(0, n_heads - 1),
            first,
            second,
            shift,
            *table,
            *(stated(more, name, cell.to(dtype)) for name in ("charge", "multiplicity")),
            inverse.index_select(0, far[0]),
            inverse.index_select(0, far[1]),
            far[2],
            more["features"].to(dtype) if "features" in more else cell.to(dtype)[:, 0, :0],
            *triplets_of(self.potential.needs, positions, order, (first, second, shift), table),
            more["atom_charges"].to(dtype).index_select(0, order)
            if self.asked.atom_charges
            else cell.to(dtype)[:0, 0, 0],
        )
        outputs = self.potential(graph)
        good = valid & halves & fits & far_valid & self._at_home(cell)
        found = (*outputs[:4], *(outputs.extra[name] for name in self.potential.targets.quantities))
        return tuple(torch.where(good, t, torch.full_like(t, torch.nan)) for t in found)

    def _at_home(self, cell: Tensor) -> Tensor:
        """Whether the physics terms are meant for these cells (S, 3, 3), ()."""
        lattices = has_volume(cell)
        right = torch.ones((), dtype=torch.bool, device=cell.device)
        right = right if self.potential.takes([True] * 3) else right & ~lattices.any()
        return right if self.potential.takes([False] * 3) else right & lattices.all()

    def _far_pairs(
        self, positions: Tensor, structure: Tensor, more: dict[str, Tensor], near: Tensor
    ) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        """First and second atom (F / 2,) and shift (F / 2, 3) of the far pairs, and whether the list can be right, ().

        Args:
            positions: (N, 3), Å.
            structure: index of each atom's structure, (N,).
            more: the further inputs.
            near: squared lengths of the edges, (E,), Å^2: the far list must hold those edges too.
        """
        if not self.asked.far_cutoff:
            empty = structure[:0]
            return (empty, empty, positions[:0]), torch.ones((), dtype=torch.bool, device=positions.device)
        edges, shifts = more["far_edge_index"], more["far_shifts"]
        sent, received = (positions.index_select(0, edges[k]) for k in (0, 1))
        squares = (received - sent + shifts).square().sum(1)
        valid = edges_valid(squares, structure, edges, math.inf)
        if math.isinf(self.asked.far_cutoff):
            valid = valid & (shifts == 0).all() & all_pairs(structure, edges)
        else:
            limits = [(self.asked.cutoff * (1.0 + sign * ROUNDING)) ** 2 for sign in (-1, 1)]
            least, most = ((squares < limit).sum() for limit in limits)
            valid = valid & (least <= near.shape[0]) & ((near < limits[0]).sum() <= most)
        *found, halves = half_of(edges, shifts, squares, positions.shape[0])
        return (found[0], found[1], found[2]), valid & halves


def stated(more: dict[str, Tensor], name: str, cell: Tensor) -> Tensor:
    """Charge or multiplicity of each structure, (S,), in the type of the cell; 0 and 1 for models without them."""
    if name in more:
        return more[name].to(cell.dtype)
    nothing = torch.zeros_like(cell[:, 0, 0])
    return nothing if name == "charge" else nothing + 1.0


def has_volume(cell: Tensor) -> Tensor:
    """Whether lattice vectors (S, 3, 3) span a volume, (S,): what there is to know of periodicity."""
    a, b, c = cell.unbind(1)
    return (a * torch.linalg.cross(b, c)).sum(1).abs() > 0


def all_pairs(structure: Tensor, edges: Tensor) -> Tensor:
    """Whether there are as many edges (2, F) as pairs of atoms (N,) of one structure, both directions, ()."""
    ones = torch.ones_like(structure)
    sizes = torch.zeros_like(structure).index_add(0, structure.clamp(min=0, max=structure.shape[0] - 1), ones)
    return (sizes * (sizes - 1)).sum() == edges.shape[1]


def triplets_of(
    needs: Needs, positions: Tensor, order: Tensor, pairs: tuple[Tensor, Tensor, Tensor], table: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Triplets with padding, each with an angle of its own, the last fields of `Graph`; none where none are asked for.

    Args:
        needs: of the model.
        positions: (N, 3), Å.
        order: sorted row -> original row, (N,).
        pairs: first and second atom, sorted rows, (P,), and shift, (P, 3), Å.
        table: neighbour table.
    """
    first, second, shift = pairs
    if not needs.triplets:
        return first[:0], first[:0], first[:0], first[:0], table[2].new_zeros(0)
    rows = positions.index_select(0, order)
    vectors = rows.index_select(0, second) - rows.index_select(0, first) + shift
    limits = needs.triplets, needs.opposite, needs.backtracking
    entering, leaving, there = padded_triplets(vectors, table[1], table[2], *limits)
    angles = torch.arange(there.shape[0], device=there.device)
    return entering, leaving, angles, angles, there.to(table[2].dtype)


def edges_valid(squares: Tensor, structure: Tensor, edges: Tensor, cutoff: float) -> Tensor:
    """Whether all edges, of squared length (E,), are within the cutoff, longer than nothing, in one structure, ()."""
    lengths_fit = (squares > SHORTEST**2) & (squares < (cutoff * (1.0 + ROUNDING)) ** 2)
    together = structure.index_select(0, edges[0]) == structure.index_select(0, edges[1])
    return (lengths_fit & together).all()


def half_of(edges: Tensor, shifts: Tensor, squares: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Keep one of the two directions of each edge.

    Between different atoms the edge whose sender has the lower index is kept; of an atom and its own image the one
    whose translation is positive in its first component that is not zero.

    Args:
        edges: sender and receiver, (2, E).
        shifts: (E, 3), Å.
        squares: squared lengths, (E,), Å^2.
        n: number of atoms.

    Returns:
        First and second atom of each pair (E / 2,), (E / 2,), its shift (E / 2, 3), Å, and whether the list holds
        both directions of every pair, ().
    """
    sender, receiver = edges[0], edges[1]
    half = sender.shape[0] // 2
    step = torch.where(shifts.abs() < SAME, torch.zeros_like(shifts), torch.sign(shifts))
    sense = 9.0 * step[:, 0] + 3.0 * step[:, 1] + step[:, 2]
    kept = (sender < receiver) | ((sender == receiver) & (sense > 0))
    order = torch.argsort((~kept).to(torch.long), stable=True)
    rows, others = order.narrow(0, 0, half), order.narrow(0, half, half)
    key = torch.minimum(sender, receiver) * n + torch.maximum(sender, receiver)
    same_atoms = (torch.sort(key.index_select(0, rows))[0] == torch.sort(key.index_select(0, others))[0]).all()
    total, other_total = squares.index_select(0, rows).sum(), squares.index_select(0, others).sum()
    balanced = (total - other_total).abs() <= 1e-4 * (1.0 + total)
    as_many = kept.sum() == (~kept).sum()
    found = sender.index_select(0, rows), receiver.index_select(0, rows), shifts.index_select(0, rows)
    return *found, as_many & same_atoms & balanced


def neighbour_table(
    first: Tensor, second: Tensor, n: int, width: int, dtype: torch.dtype
) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Lay both directions of all pairs out by receiver, in rows of a given width.

    Args:
        first: first atom of each pair, (P,).
        second: second atom, (P,).
        n: number of atoms.
        width: slots per atom, K.
        dtype: of the signs.

    Returns:
        table_sender, table_pair, table_sign (N, K), reverse (N K,), slot_forward and slot_backward (P,), as `Graph`;
        and whether every atom's neighbours fit, ().
    """
    p, device = first.shape[0], first.device
    receiver, sender = torch.cat([second, first]), torch.cat([first, second])
    degree = torch.zeros(n, dtype=torch.long, device=device).index_add(0, receiver, torch.ones_like(receiver))
    by_receiver = torch.argsort(receiver, stable=True)
    start = torch.cumsum(degree, 0) - degree
    place = torch.arange(2 * p, device=device) - start.index_select(0, receiver.index_select(0, by_receiver))
    rank = torch.zeros_like(receiver).index_copy(0, by_receiver, place)
    slot = receiver * width + rank.clamp(max=width - 1)
    forward_slot, backward_slot = slot.narrow(0, 0, p), slot.narrow(0, p, p)
    index = torch.arange(p, device=device)
    empty = torch.zeros(n * width, dtype=torch.long, device=device)
    ones = torch.ones(p, dtype=dtype, device=device)
    signs = torch.zeros(n * width, dtype=dtype, device=device)
    other = torch.cat([backward_slot, forward_slot])
    table = (
        empty.index_copy(0, slot, sender).reshape(n, width),
        empty.index_copy(0, slot, torch.cat([index, index])).reshape(n, width),
        signs.index_copy(0, slot, torch.cat([ones, -ones])).reshape(n, width),
        torch.arange(n * width, device=device).index_copy(0, slot, other),
        forward_slot,
        backward_slot,
    )
    return table, (rank < width).all()
