"""The rules of docs/architecture.md, checked on every file."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SOURCE = ROOT / "src" / "forgefield"
FILES = sorted(SOURCE.rglob("*.py"))
ROOMS = {
    "core": set(),
    "graph": {"core"},
    "data": {"core", "graph"},
    "kernels": {"core"},
    "models": {"core", "graph", "kernels"},
    "train": {"core", "graph", "data", "models"},
    "export": {"core", "graph", "kernels", "models"},
    "engines": {"core", "data"},
    "app": {"core", "graph", "data", "kernels", "models", "train", "export", "engines"},
}
BANNED = {"utils", "misc", "helpers", "common", "base", "tools"}
LONG_FILE, LONG_FUNCTION, DEEP = 500, 80, 4
PLUGINS = [
    "data/readers",
    "data/writers",
    "data/doctor/checks",
    "models/architectures",
    "models/physics",
    "train/losses",
    "train/optimizers",
    "train/schedules",
    "train/records",
    "export/targets",
    "app/translate",
]


def name_of(path):
    return str(path.relative_to(SOURCE))


def room_of(path):
    parts = path.relative_to(SOURCE).parts
    return parts[0] if len(parts) > 1 else None


def imports(path):
    """All modules of ours that a file imports, lazy ones too, as (line, module)."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno}: use the full path, not a relative import"
            if (node.module or "").split(".")[0] == "forgefield":
                yield node.lineno, node.module
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "forgefield":
                    yield node.lineno, alias.name


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_rooms_import_only_what_they_may(path):
    room = room_of(path)
    if room is None:
        return
    allowed = set(ROOMS[room]) | {room}
    relative = name_of(path)
    if relative.startswith("engines/backends/"):
        allowed |= {"models", "train", "export", "graph"}
    if relative.startswith("engines/workers/"):
        allowed = set()
    for line, module in imports(path):
        parts = module.split(".")
        target = parts[1] if len(parts) > 1 else "(package)"
        assert target in allowed, f"{relative}:{line}: {room} may not import {module}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_sizes_and_names(path):
    text = path.read_text()
    assert path.stem not in BANNED, f"{name_of(path)}: say what it holds"
    assert len(text.splitlines()) <= LONG_FILE, f"{name_of(path)}: longer than {LONG_FILE} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = node.end_lineno - node.lineno + 1
            assert length <= LONG_FUNCTION, f"{name_of(path)}:{node.lineno}: {node.name} has {length} lines"
            assert depth(node) <= DEEP, f"{name_of(path)}:{node.lineno}: {node.name} nests too deep"


def depth(node):
    """Deepest nesting of blocks inside a function."""
    blocks = (ast.For, ast.While, ast.If, ast.With, ast.Try)
    best = 0
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.ClassDef | ast.Lambda):
            continue
        below = depth(child)
        is_elif = isinstance(node, ast.If) and isinstance(child, ast.If) and node.orelse == [child]
        best = max(best, below + (1 if isinstance(child, blocks) and not is_elif else 0))
    return best


@pytest.mark.parametrize("folder", PLUGINS)
def test_every_plugin_has_an_entry(folder):
    files = [p for p in (SOURCE / folder).iterdir() if p.stem != "__init__" and not p.name.startswith("_")]
    assert files, f"{folder} is empty"
    for path in files:
        source = path / "__init__.py" if path.is_dir() else path
        names = {
            target.id
            for node in ast.parse(source.read_text()).body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        assert "ENTRY" in names, f"{name_of(source)}: a plug-in defines ENTRY"


def test_architectures_and_physics_are_strangers():
    for group in ("architectures", "physics"):
        for path in (SOURCE / "models" / group).rglob("*.py"):
            own = ".".join(path.relative_to(SOURCE).with_suffix("").parts[:3])
            for line, module in imports(path):
                inside = module.startswith(("forgefield.models.architectures", "forgefield.models.physics"))
                assert not inside or module.startswith(f"forgefield.{own}"), f"{name_of(path)}:{line}: {module}"


def test_core_is_free_of_torch():
    for path in (SOURCE / "core").rglob("*.py"):
        assert "import torch" not in path.read_text(), name_of(path)


def test_nothing_unpickles():
    """torch.load and pickle.load appear nowhere but in the restricted reader and the foreign workers.

    With `weights_only=True` torch's own restricted reader is meant.
    """
    allowed = {"data/restricted_pickle.py", "engines/workers/mace_torch.py", "engines/workers/aimnet.py"}
    for path in FILES:
        if name_of(path) in allowed:
            continue
        nodes = list(ast.walk(ast.parse(path.read_text())))
        safe = {
            node.func
            for node in nodes
            if isinstance(node, ast.Call) and "weights_only=True" in map(ast.unparse, node.keywords)
        }
        for node in nodes:
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node not in safe:
                call = f"{node.value.id}.{node.attr}"
                assert call not in {"torch.load", "pickle.load", "pickle.loads"}, f"{name_of(path)}:{node.lineno}"


def test_public_names_are_few_and_there():
    import forgefield

    assert len(forgefield.__all__) <= 15
    for name in forgefield.__all__:
        assert getattr(forgefield, name) is not None
