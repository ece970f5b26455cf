"""What DESIGN promises about the house: who imports whom, and what it needs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import minigrad as mg

ROOT = Path(mg.__file__).parent.parent

#: The rooms of the engine, lowest first: each imports only from those before it.
FLOORS = (
    "slots",
    "arrays",
    "cuda",
    "listing",
    "containers",
    "diagnosis",
    "tensor",
    "tape",
    "primitive",
    "ops.axes",
    "ops.comparisons",
    "ops.exponentials",
    "ops.arithmetic",
    "ops.trigonometry",
    "ops.activations",
    "ops.edges",
    "ops.shapes",
    "ops.joining",
    "ops.rearranging",
    "ops.indexing",
    "ops.sorting",
    "ops.cumulative",
    "ops.reductions",
    "ops.softmax",
    "ops.matrices",
    "ops.products",
    "ops.einsum",
    "ops.linalg",
    "ops.operators",
    "ops",
    "derivatives",
    "checkpoint",
    "scanning.program",
    "scanning.blocks",
    "scanning.kernels",
    "scanning.unrolled",
    "scanning.passes",
    "scanning.stages",
    "scanning.batching",
    "scanning.scratch",
    "scanning.loop",
    "scanning.playing",
    "scanning.recording",
    "scanning.gradients",
    "scanning.pool",
    "scanning",
    "serialization",
    "nn.module",
    "nn.init",
    "nn.layers",
    "nn.containers",
    "nn.losses",
    "nn",
    "optim.optimizer",
    "optim.sgd",
    "optim.adam",
    "optim.rmsprop",
    "optim.adagrad",
    "optim.schedules",
    "optim",
    "training",
    "",
    "testing.differences",
    "testing.flattening",
    "testing.report",
    "testing.recording",
    "testing.worst",
    "testing.check",
    "testing.gradients",
    "testing.leaks",
    "testing.strategies.shapes",
    "testing.strategies.values",
    "testing.strategies.programs",
    "testing.strategies",
    "testing",
)


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """Module and name of every import that runs, those for type checkers left out."""
    for node in ast.walk(_without_typing_blocks(ast.parse(path.read_text(encoding="utf-8")))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield from ((str(node.module), alias.name) for alias in node.names)


def _without_typing_blocks(tree: ast.Module) -> ast.Module:
    tree.body = [
        node
        for node in tree.body
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    ]
    return tree


@pytest.mark.parametrize("path", modules("minigrad"), ids=name_of)
def test_imports_run_one_way(path: Path) -> None:
    own = name_of(path).removeprefix("minigrad").removeprefix(".")
    assert own in FLOORS, f"{own} has no floor yet: give it one"
    below = FLOORS[: FLOORS.index(own)]
    for module, name in imports(path):
        if module.partition(".")[0] != "minigrad":
            continue
        used = module.removeprefix("minigrad").removeprefix(".")
        inner = f"{used}.{name}".strip(".")
        assert (inner if inner in FLOORS else used) in below, f"{own} imports {module}.{name}"


@pytest.mark.parametrize("path", modules("minigrad_rnn"), ids=name_of)
def test_minigrad_rnn_stands_on_public_names(path: Path) -> None:
    for module, name in imports(path):
        if module == "minigrad":
            assert not name or name in mg.__all__, f"{name} is not public"
        else:
            assert not module.startswith("minigrad."), f"{module} is an inner room"
    text = path.read_text(encoding="utf-8")
    for name in re.findall(r"\bmg\.(\w+)", text):
        assert name in mg.__all__, f"mg.{name} is not public"


@pytest.mark.parametrize("path", modules("minigrad/ops"), ids=name_of)
def test_operations_do_not_know_numpy(path: Path) -> None:
    assert not {module.partition(".")[0] for module, _ in imports(path)} & {"numpy", "cupy"}


@pytest.mark.parametrize("package", ["minigrad", "minigrad_rnn"])
def test_cupy_is_imported_in_one_place(package: str) -> None:
    users = {name_of(path) for path in modules(package) for m, _ in imports(path) if "cupy" in m}
    assert users <= {"minigrad.arrays"}


@pytest.mark.parametrize("package", ["minigrad", "minigrad_rnn"])
def test_importing_needs_numpy_alone(package: str) -> None:
    code = (
        "import sys, numpy\n"
        "before = set(sys.modules)\n"
        f"import {package}\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(*(new - set(sys.stdlib_module_names) - {'minigrad', 'minigrad_rnn', 'numpy'}))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert run.stdout.split() == []


def test_every_public_name_exists_and_is_documented() -> None:
    for name in mg.__all__:
        assert getattr(mg, name).__doc__, name


def test_ci_runs_the_commands_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^    (python3 -m venv .*)$", readme, flags=re.MULTILINE)
    assert len(commands) == 2
    assert commands[1] in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
