"""Everything that can be known about a run before it starts; nothing is written."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

import torch

from forgefield.app.baseline.looking import look_at_baseline
from forgefield.app.baseline.rules import settled
from forgefield.app.findings import Finding, Findings
from forgefield.app.machine_check import look_at_device, look_at_disk, look_at_folder
from forgefield.app.portrait import Portrait, look_at, warnings
from forgefield.app.run import RunConfig
from forgefield.app.run_rules import PREDICTING, TRAINING
from forgefield.app.tasks.steps.aims import aims_of, judges_unseen, unseen_elements, with_spreads
from forgefield.app.tasks.steps.datasets import check_heads, check_some_label, heads_of, open_asked, trained_quantities
from forgefield.app.tasks.steps.examining import look_at_training_data
from forgefield.app.tasks.steps.models import (
    ToMeasure,
    check_asked_files,
    check_base,
    cutoff_of,
    find_bundle,
    load_start,
)
from forgefield.app.tasks.steps.xequinet_files import check_tested
from forgefield.app.tuning_check import look_at_start
from forgefield.core.elements import symbol
from forgefield.core.errors import ForgeError
from forgefield.core.quantities import ALWAYS
from forgefield.data.checks import check_elements, check_labels
from forgefield.data.dataset import Dataset
from forgefield.data.parts import TrainingData, open_part, open_training, reference_setting
from forgefield.data.statistics import Statistics
from forgefield.models.potential import Potential, build_potential
from forgefield.models.targets import Aims


class Checkup(Findings):
    """Examines one run, topic by topic; a topic that fails does not stop the others that can still be examined.

    Args:
        config: the run.
        made_before: folders that earlier runs of the same file will make.
    """

    def __init__(self, config: RunConfig, made_before: Collection[Path] = ()) -> None:
        super().__init__()
        self.config = config
        self.made_before = tuple(made_before)
        self.weights = 0  # bytes of the model, once it is known

    def examine(self) -> list[Finding]:
        """Return all findings."""
        config = self.config
        self.add("settings", "ok", f"run {config.name!r}: task {config.task}, every key is known and fits")
        self.attempt("device", lambda: look_at_device(config, self))
        model = self._start() if config.start is not None else None
        if config.task in TRAINING:
            self._training(model)
        elif config.task in PREDICTING:
            self._predicting(model)
        self.attempt("run_dir", lambda: look_at_folder(config, self))
        self.attempt("disk", lambda: look_at_disk(config, self.weights, self))
        return self.findings

    # -------------------------------------------------------------------------------------------------- model

    def _start(self) -> Potential | None:
        """Load the model that the run starts from."""
        start = self.config.start
        assert start is not None
        if not start.exists() and any(start.is_relative_to(folder) for folder in self.made_before):
            self.add("model", "note", f"{start} will be made by an earlier run of this file")
            return None
        with self.guard("model"):
            potential = load_start(self.config, torch.device("cpu"))
            head = self.config.model.head
            if head is not None and head not in potential.heads:
                raise ForgeError(f"no head {head!r}", str(start), f"the model's heads: {', '.join(potential.heads)}")
            self._weigh(potential)
            self.add("model", "ok", f"{find_bundle(start)}: {_described(potential)}")
            return potential
        return None

    def _new_model(self, statistics: Statistics, heads: list[str], aims: Aims) -> None:
        """Build the model that training would begin with."""
        config, given = self.config, self.config.model_json
        assert config.backend is not None
        assert config.model.settings is not None
        check_base(config.model.fidelity.base, heads, aims.energy)
        elements = list(given.elements) if given is not None else statistics.elements
        potential = build_potential(
            config.backend,
            config.model.settings,
            elements=elements,
            heads=heads,
            reference_energies={head: dict.fromkeys(elements, 0.0) for head in heads},
            avg_num_neighbors=statistics.avg_num_neighbors,
            physics=config.model.physics,
            fidelity=config.model.fidelity,
            aims=aims,
            seed=config.train.seed,
        )
        self._weigh(potential)
        self.add("model", "ok", _described(potential))
        if potential.jumps:
            self.add("model", "warn", potential.jumps)
        self.attempt("export", lambda: check_asked_files(config, potential))

    def _weigh(self, potential: Potential) -> None:
        count = sum(parameter.numel() for parameter in potential.parameters())
        self.weights = count * (8 if self.config.dtype == "float64" else 4)

    # --------------------------------------------------------------------------------------------------- data

    def _training(self, start: Potential | None) -> None:
        try:
            data = open_training(self.config.data)
        except ForgeError as error:
            self.add("data.train", "error", str(error))
            return
        needed = trained_quantities(self.config.train)
        self._portray("data.train", data.train, needed)
        if data.val is not None:
            how = f"seed {self.config.data.split_seed}"
            if data.split is not None and data.split.method.startswith(("as ", "indices")):
                how = data.split.method
            split = "" if self.config.data.val else f" (taken from data.train, {how})"
            self._portray("data.val", data.val, needed, split)
        else:
            self.add("data.val", "warn", "no validation data: the best epoch is chosen on the training data")
        if self.config.task != "resume":
            self.attempt("doctor", lambda: self._doctor(data))
        with self.guard("baseline"):
            self.findings += [Finding("baseline", *row) for row in look_at_baseline(self.config, data)]
        known = data.train.elements() if start is None else start.elements
        owner = "the training data" if start is None else "the model"
        if start is not None and self.config.task == "finetune":
            self._finetuning(data)
            return
        if start is not None:
            self.attempt("elements", lambda: check_elements(data.train, known, owner))
        if data.val is not None:
            if not judges_unseen(self.config):
                drawn = not self.config.data.val
                self.attempt("elements", lambda: check_elements(data.val, known, owner, drawn=drawn))  # type: ignore[arg-type]
            known = [*known, *unseen_elements(self.config, data)]
        self._test(data, known, owner)
        if start is not None or self.config.task == "train":
            self.attempt("statistics", lambda: self._measure(data, start))

    def _doctor(self, data: TrainingData) -> None:
        """Look for what would poison the model, as the run will before it trains."""
        result = look_at_training_data(data, self.config.data.accept)
        for text in result.remarks:
            self.add("doctor", "note", text)
        for text in result.warnings:
            self.add("doctor", "warn", text)
        result.check()
        if not result.warnings:
            self.add("doctor", "ok", f"nothing that would spoil the model in {result.looked_at:,} structures")

    def _finetuning(self, data: TrainingData) -> None:
        """Make the model that fine-tuning would begin with, and measure the data as the task would."""
        with self.guard("start"):
            begun, rows = look_at_start(self.config)
            self.findings += [Finding(topic, state, text) for topic, state, text in rows]
            self._test(data, begun.potential.elements, "the model")
            asked = ToMeasure(begun.potential.cutoff, begun.e0, begun.heads, begun.potential.aims)
            self._neighbours(asked.of(data))

    def _neighbours(self, found: Statistics) -> None:
        text = f"{found.avg_num_neighbors:.1f} on average within {found.cutoff:g} Å, at most {found.max_num_neighbors}"
        many = found.avg_num_neighbors > 150
        self.add("neighbours", "warn" if many else "ok", text + ("; a smaller cutoff is faster" if many else ""))

    def _measure(self, data: TrainingData, start: Potential | None) -> None:
        """Measure reference energies and neighbours as the task would."""
        config = self.config
        if start is not None:
            cutoff, heads, aims = start.cutoff, start.heads, start.aims
            if len(heads) > 1 and config.train.head_key is None:
                check_heads(data.train, heads, "train.head_key")
        else:
            assert config.backend is not None
            assert config.model.settings is not None
            aims = aims_of(config, data.train)
            cutoff = cutoff_of(config.backend, config.model.settings, aims)
            given = config.model_json
            heads = list(given.heads) if given is not None else _heads(data.train, config.train.head_key)
        statistics = ToMeasure(cutoff, reference_setting(config.data), heads, aims).of(data)
        self._references(statistics)
        self._neighbours(statistics)
        if start is None:
            self._new_model(statistics, heads, with_spreads(aims, statistics))

    def _references(self, statistics: Statistics) -> None:
        if self.config.model_json is not None and self.config.model_json.reference_energies is not None:
            self.add("E0s", "ok", "from model.json")
            return
        if settled(self.config) is not None:
            self.add("E0s", "note", "measured on label minus base, when training begins")
            return
        for head, table in statistics.reference_energies.items():
            if not any(table.values()) and statistics.reference_source.startswith("none"):
                continue
            shown = ", ".join(f"{symbol(z)} {energy:.3f}" for z, energy in table.items())
            name = f"head {head}: " if len(statistics.reference_energies) > 1 else ""
            self.add("E0s", "ok", f"{statistics.reference_source}: {name}{shown} eV")
        for note in statistics.notes:
            self.add("E0s", "note", note)

    def _test(self, data: TrainingData, known: list[int], owner: str) -> None:
        self.attempt("export.files_of", lambda: check_tested(self.config, data))
        if data.test is not None:
            self._portray("data.split.test", data.test, (), " (a part of data.train)")
            self.attempt("data.split.test", lambda: check_elements(data.test, known, owner, drawn=True))  # type: ignore[arg-type]
        if not self.config.data.test:
            return
        with self.guard("data.test"):
            test = open_part(self.config.data, "test")
            check_some_label(test)
            self._portray("data.test", test, ())
            check_elements(test, known, owner)
            shared = len(_shapes(data.train) & _shapes(test))
            if shared:
                self.add("data.test", "warn", f"{shared} structures are in the training data too")

    def _predicting(self, model: Potential | None) -> None:
        topic = "data.lmdb" if self.config.data.lmdb else "data.test"
        with self.guard(topic):
            dataset, _ = open_asked(self.config.data, self.config.model.head)
            if self.config.task == "evaluate":
                check_some_label(dataset)
            self._portray(topic, dataset, ())
            if model is not None:
                check_elements(dataset, model.elements, "the model")
                check_heads(dataset, model.heads, "model.head")
                self.add("elements", "ok", "the model knows all of them")

    def _portray(self, topic: str, dataset: Dataset, needed: Collection[str], note: str = "") -> None:
        """Say what a data set holds, and check the labels that the loss needs."""
        with self.guard(topic):
            portrait = look_at(dataset)
            check_labels(dataset, needed, some=self.config.train.missing_labels == "mask")
            self.add(topic, "ok", _summary(portrait) + note)
            for text in warnings(portrait):
                if {*ALWAYS} & {*needed} or "no frame has" not in text:
                    self.add(topic, "warn", text)


def _summary(portrait: Portrait) -> str:
    if portrait.n_structures == 0:
        return f"{len(portrait.isolated)} frames of one free atom"
    small, large = int(portrait.sizes.min()), int(portrait.sizes.max())
    atoms = f"{small}" if small == large else f"{small} to {large}"
    labels = ", ".join(name for name, count in portrait.labels.items() if count)
    text = f"{portrait.n_structures} structures of {atoms} atoms; {portrait.names()}; labels: {labels or 'none'}"
    return text if portrait.force_rms is None else f"{text}; forces RMS {portrait.force_rms:.3f} eV/Å"


def _described(potential: Potential) -> str:
    count = sum(parameter.numel() for parameter in potential.parameters())
    elements = " ".join(symbol(z) for z in potential.elements)
    return f"{potential.backend}, {count:,} weights, cutoff {potential.cutoff:g} Å; elements: {elements}"


def _heads(dataset: Dataset, filled: str | None) -> list[str]:
    """Return the heads of a new model; structures without one belong to `filled`."""
    if filled is None:
        return heads_of(dataset)
    return sorted({structure.level or filled for structure in dataset})


def _shapes(dataset: Dataset) -> set[bytes]:
    """Return a hash of elements, positions (to 1e-6 Å) and cell of every structure."""
    found = set()
    for structure in dataset:
        digest = hashlib.sha256(structure.numbers.tobytes())
        digest.update((structure.positions.round(6) + 0.0).tobytes())
        digest.update((structure.cell.round(6) + 0.0).tobytes())
        found.add(digest.digest())
    return found
