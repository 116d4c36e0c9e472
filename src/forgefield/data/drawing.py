"""Structures drawn from several sources in shares that are the user's weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

_GOLDEN = 0.6180339887498949  # its multiples fall evenly into the unit interval


def deal(n: int, first: int, count: int, seed_of: Callable[[int], Sequence[int]]) -> np.ndarray:
    """Return the cards number `first` to `first + count` of an endless row of shuffled decks of n cards, (count,).

    Args:
        n: cards of a deck.
        first: number of the first card, from 0.
        count: cards.
        seed_of: number of a deck -> seed of its order.
    """
    rounds, places = np.divmod(np.arange(first, first + count), n)
    found = np.empty(count, dtype=np.int64)
    for number in np.unique(rounds).tolist():
        deck = np.random.default_rng(seed_of(number)).permutation(n)
        found[rounds == number] = deck[places[rounds == number]]
    return found


def weave(counts: Sequence[int], random: np.random.Generator) -> np.ndarray:
    """Return an order of groups of things that stand one after the other in which each group is spread evenly.

    Any run of it holds its share of each group to within one or two.
    """
    keys = [(np.arange(n) + random.random()) / n if n else np.zeros(0) for n in counts]
    return np.argsort(np.concatenate(keys), kind="stable")


@dataclass(frozen=True, eq=False)
class WeightedDraws:
    """Draws from several sources; an epoch is a number of draws, not a pass over the data.

    Without replacement each source is a deck that goes on from epoch to epoch: none of its structures comes again
    before all others of it have come. With replacement each draw is independent of all others.

    Args:
        sources: places of the structures of each source in the data set.
        shares: of each source in the draws; their sum is 1.
        n_drawn: draws of an epoch.
        seed: of the draws.
        replacement: whether a structure may come again at once.
    """

    sources: tuple[np.ndarray, ...]
    shares: tuple[float, ...]
    n_drawn: int
    seed: int
    replacement: bool = False

    def order(self, epoch: int) -> np.ndarray:
        """Places in the data set in the order of an epoch, (n_drawn,): every source is spread evenly over it."""
        table = self.counts(np.arange(epoch + 1))
        counts, first = table[-1], table[:-1].sum(axis=0)
        random = np.random.default_rng([self.seed, epoch, 2])
        order = weave(counts.tolist(), random)
        drawn = [self._of(k, int(first[k]), int(counts[k]), random) for k in range(len(self.sources))]
        return np.concatenate(drawn)[order]

    def counts(self, epochs: np.ndarray) -> np.ndarray:
        """Return the draws from each source in some epochs, (n_epochs, n_sources).

        They are its share of the draws to within one, and over many epochs exactly its share.
        """
        start = np.random.default_rng([self.seed, 3]).random()
        borders = self.n_drawn * np.cumsum([0.0, *self.shares])
        borders[-1] = self.n_drawn
        offsets = (start + epochs * _GOLDEN) % 1.0
        return np.diff(np.ceil(borders - offsets[:, None]), axis=1).astype(np.int64)

    def _of(self, source: int, first: int, count: int, random: np.random.Generator) -> np.ndarray:
        places = self.sources[source]
        if self.replacement:
            return places[random.integers(len(places), size=count)]
        return places[deal(len(places), first, count, lambda number: [self.seed, number, 4, source])]

    def describe(self, names: Sequence[str]) -> str:
        """Return the shares in one sentence."""
        parts = [
            f"{name} {100 * share:.3g} % ({share * self.n_drawn / len(places):.3g} times each)"
            for name, share, places in zip(names, self.shares, self.sources, strict=True)
        ]
        how = "with" if self.replacement else "without"
        return f"{self.n_drawn} draws per epoch, {how} replacement: {', '.join(parts)}"
