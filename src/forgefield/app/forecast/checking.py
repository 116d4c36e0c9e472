"""What validation, saving and the end of a run cost, from doing a small part of each in memory."""

from __future__ import annotations

import copy
import hashlib
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from forgefield.app.forecast.gauge import Gauge
from forgefield.app.forecast.trial import largest_batches
from forgefield.app.tasks.steps.evaluating import as_arrays, packed, predictions_table, predictions_xyz
from forgefield.app.tasks.steps.fitting import Ordered, checking_loader
from forgefield.core.structure import Structure
from forgefield.data.loader import Loader
from forgefield.data.sizes import Sizes
from forgefield.export.prediction import predict
from forgefield.train.evaluate import evaluate, validate
from forgefield.train.loss import WeightedLoss
from forgefield.train.state import TrainState

_BATCHES = 3  # of the validation that are carried out
_FORWARDS_OF_AN_EXPORT = 10.0  # per structure of its sample: two forms, compared; a third in float64 for the physics
_SAMPLE = 3  # structures predicted one by one


@dataclass(frozen=True)
class Checking:
    """Cost of looking at a data set.

    Args:
        per_edge: of validation, s.
        judging_per_edge: of the evaluation after training, s.
        writing_per_atom: of writing predictions, s.
        bytes_per_atom: of the files of predictions.
        batches: evaluated in all.
        first_peak: memory after the largest one alone, bytes.
    """

    per_edge: float
    judging_per_edge: float
    writing_per_atom: float
    bytes_per_atom: float
    batches: int
    first_peak: int


def rehearse_checking(
    run: Ordered, state: TrainState, loader: Loader, sizes: Sizes, losses: WeightedLoss, gauge: Gauge
) -> Checking:
    """Validate the largest batches, and put their predictions into words.

    Args:
        run: settings and device.
        state: after some updates.
        loader: validation batches.
        sizes: of their structures.
        losses: of the fit.
        gauge: clock and memory.
    """
    potential = state.potential
    chosen = largest_batches(loader.places(), sizes, _BATCHES)
    part = loader.dataset.subset(chosen)
    some = checking_loader(run, potential, part)
    edges, atoms = max(1, int(sizes.edges[chosen].sum())), int(sizes.atoms[chosen].sum())
    with state.averaged():
        alone = loader.dataset.subset(largest_batches(loader.places(), sizes, 1))
        validate(potential, checking_loader(run, potential, alone), losses, amp=state.amp)
        first_peak, seconds = gauge.peak(), []
        for _ in range(2):  # the first finds the pairs, which the fit does once
            start = gauge.now()
            validate(potential, some, losses, amp=state.amp)
            seconds.append(gauge.now().wall - start.wall)
        start = gauge.now()
        evaluation = evaluate(potential, some)
        judged = gauge.now()
        text = predictions_table(evaluation.predictions, part) + predictions_xyz(evaluation.predictions, part)
        size = len(text.encode()) + len(packed(as_arrays(evaluation.predictions, part, potential)))
    return Checking(
        per_edge=seconds[1] / edges,
        judging_per_edge=(judged.wall - start.wall) / edges,
        writing_per_atom=(gauge.now().wall - judged.wall) / atoms,
        bytes_per_atom=size / atoms,
        batches=1 + 3 * len(some),
        first_peak=first_peak,
    )


def rehearse_judging(run: Ordered, state: TrainState, loader: Loader, sizes: Sizes) -> None:
    """Evaluate the largest batches of another set, for the memory that they take one after the other."""
    part = loader.dataset.subset(largest_batches(loader.places(), sizes, _BATCHES))
    evaluate(state.potential, checking_loader(run, state.potential, part))


@dataclass(frozen=True)
class Saving:
    """A checkpoint.

    Args:
        seconds: to pack, hash and write it, s.
        size: bytes on the disk.
    """

    seconds: float
    size: int


def rehearse_saving(state: TrainState, place: Path | None) -> Saving:
    """Pack a checkpoint in memory, and write as many zeros to a nameless file where the run would stand.

    Args:
        state: after at least one update, so that the optimizer's state is there.
        place: a folder that exists; None writes nothing.
    """
    start = time.perf_counter()
    tensors: dict[str, Tensor] = {f"weights.{k}": v for k, v in state.potential.state_dict().items()}
    tensors |= {f"bundle.{k}": v for k, v in state.potential.architecture.named_parameters()}
    tensors |= {f"average.{k}": v for k, v in state.average.values.items()} if state.average is not None else {}
    for number, values in enumerate(state.optimizer.state.values()):
        tensors |= {f"optimizer.{number}.{k}": v for k, v in values.items() if isinstance(v, Tensor)}
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    content = safetensors.torch.save(plain)
    hashlib.sha256(content).hexdigest()
    if place is not None:
        _write_nameless(place, len(content))
    return Saving(time.perf_counter() - start, len(content))


def _write_nameless(place: Path, size: int) -> None:
    """Write zeros to a file that has no name, in the four pieces of a checkpoint; it is gone at once."""
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            for _ in range(4):
                file.write(bytes(size // 4))
                file.flush()
                os.fsync(file.fileno())
    except OSError:
        return  # the folder may not be written; the check of run_dir says so


def rehearse_export(state: TrainState, sample: list[Structure]) -> float:
    """Return the seconds that export and its checks will take, from predicting a few structures on the CPU."""
    eager = copy.deepcopy(state.potential).cpu().eval()
    chosen = sample[:: max(1, len(sample) // _SAMPLE)][:_SAMPLE]
    with torch.no_grad():
        predict(eager, chosen[:1])
        start = time.perf_counter()
        for structure in chosen:
            predict(eager, [structure])
    return (time.perf_counter() - start) / len(chosen) * len(sample) * _FORWARDS_OF_AN_EXPORT
