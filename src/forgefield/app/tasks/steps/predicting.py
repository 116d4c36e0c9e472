"""Running a loaded model over all structures of a data set."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from forgefield.app.run import RunConfig
from forgefield.app.tasks.steps.asking import Question
from forgefield.app.tasks.steps.outcome import say
from forgefield.data.dataset import Dataset
from forgefield.data.loader import make_loader
from forgefield.train.evaluate import Evaluation, evaluate
from forgefield.train.measured import measured_in_evaluation


def predict_all(config: RunConfig, question: Question, dataset: Dataset, console: Console) -> Evaluation:
    """Predict a data set, with a progress bar on a terminal, and say what was done differently than asked.

    Raises:
        ForgeError: a prediction is not finite, or a structure does not fit into memory.
    """
    potential, size = question.potential, config.data.batch_size
    loader = make_loader(
        dataset,
        potential.needs,
        batch_size=config.data.unmeasured_batch,
        heads=potential.heads,
        dtype=potential.dtype,
        device=question.device,
    )
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("structures"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=len(dataset))
        found = evaluate(
            potential,
            loader,
            energy_only=config.eval.energy_only,
            amp=config.eval.amp,
            matmul=config.eval.matmul,
            memory=config.eval.memory_share if size == "auto" else None,
            progress=lambda n: bar.advance(task, n),
            measured=measured_in_evaluation(potential, free_atoms=config.eval.free_atoms),
            whole=potential.baseline is not None and not config.eval.correction_alone,
        )
    for note in found.notes:
        say(console, f"note: {note}")
    return found
