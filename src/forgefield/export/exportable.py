"""The potential as a function of plain tensors in which every size may vary: what `torch.export` records.

Sizes must follow from the sizes of the inputs, and nothing can be raised from inside. So the graph is built without
dropping anything, and input that cannot be right turns every output into NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

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
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
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

        Returns:
            energy (S,), eV, float64; forces (N, 3), eV/Å; stress (S, 3, 3), eV/Å^3; atom_energies (N,), eV, float64.
            All of it NaN if the input cannot be right.
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
        graph = Graph(
            positions.index_select(0, order),
            numbers.index_select(0, order),
            structure.index_select(0, order).clamp(0, cell.shape[0] - 1),
            order,
            inverse,
            cell.to(dtype),
            torch.ones(cell.shape[0], 3, dtype=torch.bool, device=cell.device),
            head.clamp(0, n_heads - 1),
            first,
            second,
            shift,
            *table,
            *nothing_more(cell.to(dtype)),
            *triplets_of(self.potential.needs, positions, order, (first, second, shift), table),
        )
        outputs = self.potential(graph)
        good = valid & halves & fits
        return tuple(torch.where(good, t, torch.full_like(t, torch.nan)) for t in outputs[:4])  # type: ignore[return-value]


def nothing_more(cell: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Charges 0, multiplicities 1, no far pairs, no features: the last fields of `Graph`, for models without them."""
    charge, empty = torch.zeros_like(cell[:, 0, 0]), torch.zeros(0, dtype=torch.long, device=cell.device)
    return charge, torch.ones_like(charge), empty, empty, cell.new_zeros(0, 3, dtype=torch.float64), cell[:, 0, :0]


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
