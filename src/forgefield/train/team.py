"""The processes that train one model together: who has which structures, and sums over all of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from forgefield.core.errors import DeviceError

if TYPE_CHECKING:
    from forgefield.data.loader import Batch, Loader

T = TypeVar("T")


class Team:
    """One process alone, for which nothing has to be sent.

    Args:
        rank: number of this process, from 0; process 0 writes.
        size: number of processes.
        device: whose tensors are sent.
    """

    def __init__(self, rank: int = 0, size: int = 1, device: torch.device | None = None) -> None:
        self.rank, self.size, self.device = rank, size, device or torch.device("cpu")

    @property
    def leads(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0

    def batches(self, loader: Loader, epoch: int, start: int = 0) -> Iterator[Batch | None]:
        """Yield this process's share of each batch of an epoch from batch `start` on; None where it has none."""
        yield from loader.batches(epoch, start=start)

    def sum_values(self, values: Tensor) -> Tensor:
        """Return the sum over all processes, the same to the bit on each."""
        return values

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its sum over all processes."""

    def spread(self, tensors: Iterable[Tensor]) -> None:
        """Give all processes the first one's values."""

    def gather(self, payload: bytes) -> list[bytes]:
        """Return what each process gave, in their order."""
        return [payload]

    def largest(self, number: int) -> int:
        """Return the largest of the numbers that the processes gave."""
        return number

    def barrier(self) -> None:
        """Wait for all."""

    def total(self, number: int) -> int:
        """Return the sum of the numbers that the processes gave."""
        return number

    def joined(self, numbers: list[int]) -> list[int]:
        """Return the numbers that all processes gave, one after the other."""
        parts = self.gather(np.array(numbers, dtype=np.int64).tobytes())
        return [int(n) for part in parts for n in np.frombuffer(part, dtype=np.int64)]


ALONE = Team()


class Together(Team):
    """Several processes with a process group, which `joining.join` made.

    Every method must be called by all processes in the same order. A process that has ended makes the others' next call
    fail at once, not hang: its connections are closed.

    Args:
        rank: number of this process.
        size: number of processes.
        device: whose tensors are sent.
        group: the process group.
    """

    def __init__(self, rank: int, size: int, device: torch.device, group: dist.ProcessGroup) -> None:
        super().__init__(rank, size, device)
        self.group = group

    def batches(self, loader: Loader, epoch: int, start: int = 0) -> Iterator[Batch | None]:
        """Yield every `size`-th structure of each batch, counted from `rank`."""
        shares = [share_of(self, places) for places in loader.places(epoch)[start:]]
        with contextlib.closing(_generated(loader.prepared([share for share in shares if len(share)]))) as made:
            for share in shares:
                yield next(made) if len(share) else None

    def sum_values(self, values: Tensor) -> Tensor:
        """Return the sum over all processes, the same to the bit on each."""
        sent = values.detach().clone()
        self._send(lambda: dist.all_reduce(sent, group=self.group))
        return sent

    @torch.no_grad()
    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its sum over all processes; parameters without one anywhere stay so.

        All gradients of one dtype travel as one vector, behind it one number for each that says whether it is there.
        """
        by_dtype: dict[torch.dtype, list[nn.Parameter]] = {}
        for parameter in parameters:
            by_dtype.setdefault(parameter.dtype, []).append(parameter)
        for group in by_dtype.values():
            parts = [(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in group]
            there = torch.tensor([float(p.grad is not None) for p in group]).to(parts[0])
            vector = torch.cat([*parts, there])
            self._send(lambda vector=vector: dist.all_reduce(vector, group=self.group))
            *summed, there = vector.split([*(p.numel() for p in group), len(group)])
            for parameter, gradient, count in zip(group, summed, there.tolist(), strict=True):
                parameter.grad = gradient.reshape(parameter.shape).clone() if count else None

    @torch.no_grad()
    def spread(self, tensors: Iterable[Tensor]) -> None:
        """Give all processes the first one's values."""
        for tensor in tensors:
            self._send(lambda tensor=tensor: dist.broadcast(tensor, src=0, group=self.group))

    def gather(self, payload: bytes) -> list[bytes]:
        """Return what each process gave, in their order."""
        own = torch.from_numpy(np.frombuffer(payload, dtype=np.uint8).copy()).to(self.device)
        lengths = [torch.zeros(1, dtype=torch.int64, device=self.device) for _ in range(self.size)]
        self._send(lambda: dist.all_gather(lengths, torch.tensor([len(payload)], device=self.device), group=self.group))
        sizes = [int(length) for length in lengths]
        padded = torch.zeros(max(sizes), dtype=torch.uint8, device=self.device)
        padded[: len(payload)] = own
        parts = [torch.zeros_like(padded) for _ in range(self.size)]
        self._send(lambda: dist.all_gather(parts, padded, group=self.group))
        return [part[:n].cpu().numpy().tobytes() for part, n in zip(parts, sizes, strict=True)]

    def total(self, number: int) -> int:
        """Return the sum of the numbers that the processes gave."""
        return int(self.sum_values(torch.tensor(number, dtype=torch.int64, device=self.device)))

    def largest(self, number: int) -> int:
        """Return the largest of the numbers that the processes gave."""
        sent = torch.tensor(number, dtype=torch.int64, device=self.device)
        self._send(lambda: dist.all_reduce(sent, op=dist.ReduceOp.MAX, group=self.group))
        return int(sent)

    def barrier(self) -> None:
        """Wait for all."""
        self.largest(0)

    def _send(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except RuntimeError as error:
            first = str(error).strip().splitlines()[0][:200]
            what = f"process {self.rank} of {self.size} cannot reach the others; one of them has ended ({first})"
            raise DeviceError(what, fix="look at the first error of the others, mend it, and resume") from error


def _generated(items: Iterator[T]) -> Generator[T]:
    yield from items


def share_of(team: Team, places: np.ndarray) -> np.ndarray:
    """Return the places in the data set that a process has of those of a whole batch."""
    return places[team.rank :: team.size]
