"""Things of several sizes spread evenly over a number of bins, none filled beyond its capacity."""

from __future__ import annotations

import heapq
import math

import numpy as np

FINENESS = (2.0, 8.0, 32.0)  # size classes per factor of 2 within which the order is random, coarsest first
SLACK = 1.02  # bins given for a random order, relative to the fewest
_LOOKED_AT = 8  # emptiest bins that are tried for one thing


def spread(
    sizes: np.ndarray,
    capacity: np.ndarray,
    n_bins: int,
    random: np.random.Generator,
    later: np.ndarray | None = None,
) -> np.ndarray:
    """Put things into bins, each into the emptiest one, large things first.

    The order is random as far as the space allows: among things of about one size, at last of exactly one size.

    Args:
        sizes: size of each thing in each of D measures, (n, D), whole numbers.
        capacity: of a bin in each measure, (D,).
        n_bins: number of bins.
        random: decides the order.
        later: things that come after the others of about their size, (n,) bool: the others are then spread evenly,
            about as many into each bin.

    Returns:
        Bin of each thing, (n,); -1 for things that found no room, which happens only below `fewest_bins`.
    """
    keys = random.random(len(sizes))
    keys = keys if later is None else keys + later
    shares = (sizes / capacity).max(axis=1)
    for fineness in FINENESS:
        classes = np.floor(np.log2(shares) * fineness)
        found = _fill(sizes, capacity, n_bins, np.lexsort((keys, -classes)), partly=False)
        if found is not None:
            return found
    found = _fill(sizes, capacity, n_bins, _by_size(sizes, shares, keys), partly=True)
    assert found is not None
    return found


def fewest_bins(sizes: np.ndarray, capacity: np.ndarray) -> int:
    """Return a number of bins that suffices whatever the order, close to the smallest there is.

    It depends on which sizes there are, not on their order.

    Args:
        sizes: size of each thing in each of D measures, (n, D), none above the capacity.
        capacity: of a bin in each measure, (D,).
    """
    if not len(sizes):
        return 0
    shares = (sizes / capacity).max(axis=1)
    order = _by_size(sizes, shares, np.zeros(len(sizes)))
    n_bins = max(math.ceil(total / room) for total, room in zip(sizes.sum(0).tolist(), capacity.tolist(), strict=True))
    while _fill(sizes, capacity, n_bins, order, partly=False) is None:
        n_bins = min(len(sizes), max(n_bins + 1, math.ceil(1.005 * n_bins)))
    return n_bins


def roomy_bins(sizes: np.ndarray, capacity: np.ndarray) -> int:
    """Return the number of bins for things that are spread again and again: a little more where that lets them mix.

    Args:
        sizes: size of each thing in each of D measures, (n, D), none above the capacity.
        capacity: of a bin in each measure, (D,).
    """
    fewest = fewest_bins(sizes, capacity)
    if fewest <= 1:
        return fewest
    shares = (sizes / capacity).max(axis=1)
    classes = np.floor(np.log2(shares) * FINENESS[0])
    for n_bins in sorted({fewest, math.floor((1 + SLACK) / 2 * fewest), math.floor(SLACK * fewest)}):
        order = np.lexsort((np.random.default_rng(n_bins).random(len(sizes)), -classes))
        if _fill(sizes, capacity, n_bins, order, partly=False) is not None:
            return n_bins
    return fewest


def _by_size(sizes: np.ndarray, shares: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Largest first; only things that are equal in every measure are ordered by their keys."""
    return np.lexsort((keys, *(-sizes).T, -shares))


def _fill(
    sizes: np.ndarray, capacity: np.ndarray, n_bins: int, order: np.ndarray, *, partly: bool
) -> np.ndarray | None:
    """Put things into bins in this order; None if one finds no room, unless a part is enough."""
    room = capacity.tolist()
    loads = [[0] * len(room) for _ in range(n_bins)]
    heap = [(0.0, k) for k in range(n_bins)]
    found = np.full(len(sizes), -1, dtype=np.int64)
    for place, size in zip(order.tolist(), sizes[order].tolist(), strict=True):
        passed: list[tuple[float, int]] = []
        while heap and len(passed) < _LOOKED_AT:
            level, chosen = heapq.heappop(heap)
            load = [a + b for a, b in zip(loads[chosen], size, strict=True)]
            if all(a <= b for a, b in zip(load, room, strict=True)):
                loads[chosen], found[place] = load, chosen
                heapq.heappush(heap, (max(a / b for a, b in zip(load, room, strict=True)), chosen))
                break
            passed.append((level, chosen))
        for item in passed:
            heapq.heappush(heap, item)
        if found[place] < 0 and not partly:
            return None
    return found
