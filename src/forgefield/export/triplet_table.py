"""Triplets from the neighbour table by tensor operations alone, for exported files."""

# `from __future__ import annotations` is left out: TorchScript reads the annotations themselves.
import torch
from torch import Tensor


def padded_triplets(
    vectors: Tensor, pair: Tensor, sign: Tensor, longest: float, opposite: float, backtracking: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """All pairs of slots of an atom, in the order of `Graph`'s triplets, with padding.

    Args:
        vectors: of the pairs, (P, 3), Å.
        pair: pair of each slot, (N, K).
        sign: +1 at a pair's second atom, -1 at its first, 0 in empty slots, (N, K).
        longest: edges up to this length, Å.
        opposite: outer atoms up to this distance from each other, Å.
        backtracking: whether an edge goes with its own reverse.

    Returns:
        Incoming and outgoing edge, and whether there is such a triplet, (N K K,) each.
    """
    n, k, p = pair.size(0), pair.size(1), vectors.size(0)
    padded = torch.cat([vectors, vectors.new_zeros(1, 3)])
    incoming = torch.where(sign > 0, pair, pair + p)
    outgoing = torch.where(sign > 0, pair + p, pair)
    reach = padded.index_select(0, pair.reshape(-1).clamp(max=p)).reshape(n, k, 3) * sign.unsqueeze(2)
    valid = (sign != 0) & (reach.square().sum(2) < longest * longest)
    there = valid.unsqueeze(1) & valid.unsqueeze(2)
    across = reach.unsqueeze(1) - reach.unsqueeze(2)  # from the sender of the incoming edge to the outgoing one's end
    there = there & (across.square().sum(3) < opposite * opposite)
    if not backtracking:
        slots = torch.arange(k, device=pair.device)
        there = there & (slots.unsqueeze(0) != slots.unsqueeze(1)).unsqueeze(0)
    entering = incoming.unsqueeze(1).expand(n, k, k).reshape(-1)
    leaving = outgoing.unsqueeze(2).expand(n, k, k).reshape(-1)
    filled = there.reshape(-1)
    nowhere = torch.zeros_like(entering)
    return torch.where(filled, entering, nowhere), torch.where(filled, leaving, nowhere), filled
