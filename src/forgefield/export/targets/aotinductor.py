"""AOTInductor: the model compiled to machine code, in one file that torch alone loads, from Python or C++."""

from __future__ import annotations

import copy
import json
import logging
import os
import sys
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from forgefield.core.catalog import Entry
from forgefield.core.errors import DeviceError, ForgeError
from forgefield.core.settings import Settings
from forgefield.core.structure import Structure
from forgefield.export.exportable import ExportablePotential
from forgefield.export.package_inputs import DYNAMIC, INPUTS, SHAPES, Asked, pack
from forgefield.export.prediction import Candidate, Prediction
from forgefield.export.target import METADATA, BatchedCandidate, Target, describe
from forgefield.kernels.choice import kernels
from forgefield.models.potential import Potential

OUTPUTS = ("energy (S)", "forces (N,3)", "stress (S,3,3)", "atom_energies (N)")
"""What every package gives."""


class AOTInductorSettings(Settings):
    """Settings of the AOTInductor package.

    Args:
        device: what it is compiled for; it runs nowhere else.
    """

    device: Literal["cpu", "cuda"] = "cpu"


class AOTInductorTarget(Target):
    """Writes and reads the AOTInductor package.

    Args:
        settings: of the package.
    """

    format = "aotinductor"

    def __init__(self, settings: AOTInductorSettings | None = None) -> None:
        self.settings = settings or AOTInductorSettings()
        self.filename = "model.pt2" if self.settings.device == "cpu" else f"model.{self.settings.device}.pt2"

    def write(self, potential: Potential, path: Path, sample: Structure) -> None:
        """Record the model on the sample with sizes that may vary, compile it, and save it.

        Raises:
            DeviceError: there is no such device.
            ForgeError: there is no C++ compiler, the compilation fails, or the file takes tensors of a wrong type.
        """
        if self.settings.device == "cuda" and not torch.cuda.is_available():
            raise DeviceError("no CUDA device to compile for", path.name, "export where there is one, or leave it out")
        require_compiler(path)
        require_energy(potential, path)
        core = copy.deepcopy(potential).to(self.settings.device).eval().requires_grad_(False)
        asked = Asked.by(core.heads, core.needs)
        inputs = pack([sample, sample], asked, self.settings.device)
        about = describe(core) | asked.to_json() | further_outputs(core)
        about |= {
            "inputs": ", ".join(f"{name} {SHAPES[name]}" for name in asked.names) + "; integers are int64",
            "device": self.settings.device,
            "instructions": torch.backends.cpu.get_cpu_capability(),
        }
        with quiet():
            self._compile(ExportablePotential(core), inputs, asked.names, path, about)
            require_refusal(path, inputs)

    def _compile(
        self,
        module: ExportablePotential,
        inputs: tuple[Tensor, ...],
        names: Sequence[str],
        path: Path,
        about: dict[str, object],
    ) -> None:
        from torch._inductor import aoti_compile_and_package  # slow to import
        from torch._inductor.exc import CppCompileError, InductorError
        from torch.export import Dim
        from torch.fx.experimental import _config as symbols

        axes = tuple({DYNAMIC.get(name, 0): Dim.AUTO} for name in names)
        further = axes[len(INPUTS) :]  # one argument of `forward`
        shapes = (*axes[: len(INPUTS)], further) if further else axes
        configs = {"aot_inductor.metadata": {METADATA: json.dumps(about)}, "aot_inductor.check_lowerbound": False}
        module = module.to(inputs[0].device)
        with torch.no_grad(), kernels("plain"):
            module(*inputs)  # architectures that are traced have their trace from here
        try:
            # A size of 0 or 1 (a lone atom, no pair) must not become a special case of the program.
            with torch.no_grad(), symbols.patch(backed_size_oblivious=True), checked_inputs():
                program = torch.export.export(module, inputs, dynamic_shapes=shapes, strict=False)
                aoti_compile_and_package(program, package_path=str(path), inductor_configs=configs)
        except CppCompileError as error:
            last = str(error).strip().splitlines()[-1]
            raise ForgeError(f"the C++ compiler failed ({last})", path.name, "try a newer g++") from error
        except InductorError as error:
            first = str(error).strip().splitlines()[0]
            raise ForgeError(f"torch cannot compile the model ({first})", path.name, "please report it") from error

    def read(self, path: Path) -> Candidate:
        """Load the file; the function returned finds the neighbours and calls it."""
        batched = self.read_batched(path)
        return lambda structure: batched([structure])[0]

    def read_batched(self, path: Path) -> BatchedCandidate:
        """Load the file; the function returned predicts several structures at once."""
        from torch._inductor import aoti_load_package  # slow to import

        with quiet():
            model = aoti_load_package(str(path))
        about = json.loads(model.get_metadata()[METADATA])

        asked = Asked.from_json(about)

        def candidate(structures: Sequence[Structure]) -> list[Prediction]:
            tensors = pack(structures, asked, about["device"])
            with torch.no_grad():
                energy, forces, stress, atoms, *rest = (t.double().cpu().numpy() for t in model(*tensors))
            further = dict(zip(about["further"], rest, strict=True))
            ends = np.cumsum([len(s) for s in structures])
            parts = [slice(end - len(s), end) for s, end in zip(structures, ends, strict=True)]
            of = lambda k, rows: {n: v[rows if about["further"][n] == "atom" else k] for n, v in further.items()}  # noqa: E731
            return [Prediction(float(energy[k]), forces[p], stress[k], atoms[p], of(k, p)) for k, p in enumerate(parts)]

        return candidate


def further_outputs(potential: Potential) -> dict[str, object]:
    """Return, for the metadata, what the package gives: all in words, and whether further ones are per atom."""
    quantities = potential.targets.quantities
    words = [
        f"{name} ({','.join(map(str, ('N' if q.per == 'atom' else 'S', *q.shape)))})" for name, q in quantities.items()
    ]
    return {"outputs": ", ".join((*OUTPUTS, *words)), "further": {name: q.per for name, q in quantities.items()}}


def require_energy(potential: Potential, path: Path) -> None:
    """Raise if the model predicts no energy.

    Raises:
        ForgeError: it does not.
    """
    if not potential.context.energy:
        what = "an AOTInductor package gives energies, which this model does not predict"
        raise ForgeError(what, path.name, "export to torchscript")


def require_compiler(path: Path) -> None:
    """Raise if there is no C++ compiler that Inductor can use.

    Raises:
        ForgeError: none is found.
    """
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, RuntimeError, OSError) as error:
        fix = "install g++ (or name another in the environment variable CXX), or leave the target aotinductor out"
        raise ForgeError("a C++ compiler is needed to make this file, and none was found", path.name, fix) from error


@contextmanager
def checked_inputs() -> Generator[None]:
    """Make the compiled program check types, strides and device of its inputs at every call.

    Inductor writes these checks into every program, but runs them only where an environment variable is set; without
    them float32 positions are read as if they were float64. Whether this worked is found out by `require_refusal`.
    """
    from torch._inductor.codegen.cpp_wrapper_cpu import CppWrapperCpu

    write_checks = CppWrapperCpu.generate_input_output_runtime_checks

    def write_unconditional(self: CppWrapperCpu) -> None:
        add = getattr(self.prefix, "splice_aot", None) or self.prefix.splice
        add('#define getenv(name) "1"')
        write_checks(self)
        add("#undef getenv")

    CppWrapperCpu.generate_input_output_runtime_checks = write_unconditional
    try:
        yield
    finally:
        CppWrapperCpu.generate_input_output_runtime_checks = write_checks


def require_refusal(path: Path, inputs: tuple[Tensor, ...]) -> None:
    """Raise unless the file refuses positions of a wrong type.

    Raises:
        ForgeError: it takes them.
    """
    from torch._inductor import aoti_load_package

    model, positions = aoti_load_package(str(path)), inputs[0]
    double_length = torch.cat([positions, positions]).float()  # as many bytes as float64 would have
    with quiet_stderr():
        try:
            model(double_length[: len(positions)], *inputs[1:])
        except RuntimeError:
            return
    raise ForgeError(
        "the compiled file does not check the types of its inputs", path.name, "use the version of torch we test with"
    )


@contextmanager
def quiet_stderr() -> Generator[None]:
    """Silence the process's standard error, which the C++ library writes to past Python."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


@contextmanager
def quiet() -> Generator[None]:
    """Silence what Inductor says of its own calls and of operations it hands to the general library."""
    loggers = [logging.getLogger(name) for name in ("torch._inductor", "torch._export", "torch.export")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


ENTRY = Entry(
    settings=AOTInductorSettings, build=AOTInductorTarget, summary="machine code for aoti_load_package, for CPUs"
)
