"""Inductor as a fit needs it: results that do not change from run to run, kept between runs by the code they are of."""

from __future__ import annotations

import contextlib
import hashlib
import os
import warnings
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import torch

MOST_GRAPHS = 4  # compiled in one run; batches that fit none of them are computed eagerly


def cache_folder() -> Path:
    """Where compiled code is kept between runs: TORCHINDUCTOR_CACHE_DIR, else a folder in the user's cache."""
    given = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "forgefield" / "inductor"


def source_tag() -> str:
    """Hash of the code that operators may be made of: cached results of other versions are not taken."""
    root = Path(__file__).parent.parent
    digest = hashlib.sha256((root / "train" / "compiled.py").read_bytes() + Path(__file__).read_bytes())
    for room in ("graph", "models", "kernels"):
        for path in sorted((root / room).rglob("*")):
            if path.suffix in (".py", ".cpp", ".h", ".cu"):
                digest.update(path.read_bytes())
    return "forgefield-" + digest.hexdigest()[:16]


@contextlib.contextmanager
def compiler_settings() -> Generator[None]:
    """Settings of `torch.compile` under which results are the same in every process.

    Random numbers are drawn as eagerly. Sums by index stay eager operators: those that Inductor writes itself add with
    atomic operations, in an order that changes from run to run.
    """
    import torch._dynamo.config as dynamo
    import torch._functorch.config as aot
    import torch._inductor.config as inductor
    import torch.compiler.config as compiler_config

    compiler: Any = compiler_config
    with (
        dynamo.patch(automatic_dynamic_shapes=False, specialize_float=True, recompile_limit=2 * MOST_GRAPHS),
        inductor.patch(fallback_random=True, fx_graph_cache=True),
        aot.patch(enable_autograd_cache=True, autograd_cache_allow_custom_autograd_functions=True),
        compiler.patch(cache_key_tag=_tag()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


_TAGS: list[str] = []


def _tag() -> str:
    if not _TAGS:
        _TAGS.append(source_tag())
    return _TAGS[0]


def compile_graph(module: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
    """Compile with Inductor; index_add is left to its eager operator."""
    from torch._inductor.compile_fx import compile_fx
    from torch._inductor.decomposition import decompositions

    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache_folder())
    operator = torch.ops.aten.index_add.default
    held = decompositions.pop(operator, None)
    try:
        with _symbolic_strides():
            code: Any = compile_fx(module, inputs)
            return code
    finally:
        if held is not None:
            decompositions[operator] = held


@contextlib.contextmanager
def _symbolic_strides() -> Generator[None]:
    """Keep the strides of saved tensors as functions of the sizes.

    torch 2.13 tells the backward pass those of the first batch as numbers, and batches of other sizes then fail
    (pytorch/pytorch pull request 194420). The switch used here makes it keep the symbols.
    """
    import torch._inductor.output_code as place
    from torch._guards import TracingContext

    name = "set_tracing_context_output_strides"
    original = getattr(place, name, None)
    if original is None:
        yield
        return

    def symbolic(inputs: Any, graph: Any) -> None:
        context: Any = TracingContext.try_get()
        if context is None:
            return
        before, context.fakify_first_call = context.fakify_first_call, True
        try:
            original(inputs, graph)
        finally:
            context.fakify_first_call = before

    setattr(place, name, symbolic)
    try:
        yield
    finally:
        setattr(place, name, original)


def brief(error: BaseException) -> str:
    """First line of an error, with its kind."""
    while type(error).__module__.startswith("torch._dynamo") and getattr(error, "inner_exception", None) is not None:
        error = error.inner_exception  # pyright: ignore
    lines = [line for line in str(error).splitlines() if line.strip()] or [""]
    return f"{type(error).__name__}: {lines[0].strip()[:200]}"
