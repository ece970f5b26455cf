"""The command that runs everything on a GPU: its own logic, on the stand-in."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gpu
import gpu_launches
import gpu_recurrent
import machine
import on_gpu
import pytest
from recurrent import Configuration

pytestmark = pytest.mark.host

#: A test that passes, one that fails, and one that is skipped.
TESTS = """
import pytest

def test_right():
    pass

def test_wrong():
    assert 1 == 2

def test_left_out():
    pytest.skip("for a reason")
"""

#: A benchmark that writes its figures, and then does what its first argument says.
BENCHMARK = """
import json, os, signal, sys, time

how, _, path = sys.argv[1:]
json.dump({"table": [{"us": 1.5}]}, open(path, "w"))
print("measured")
if how == "crash":
    os.kill(os.getpid(), signal.SIGKILL)
if how == "deaf":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
if how != "end":
    time.sleep(60)
"""


def run(tmp_path: Path, parts: dict[str, on_gpu.Part], *arguments: str) -> tuple[int, Any]:
    """The exit code, and what was written."""
    path = tmp_path / "results" / "found.json"
    code = on_gpu.main(["--json", str(path), *arguments], parts)
    return code, json.loads(path.read_text(encoding="utf-8"))


def benchmark(tmp_path: Path, how: str, seconds: float = 60.0) -> on_gpu.Part:
    program = tmp_path / "benchmark.py"
    program.write_text(BENCHMARK, encoding="utf-8")
    return on_gpu.figures(seconds, str(program), how, CUPY_TF32="1")


@pytest.mark.usefixtures("cuda")
def test_a_file_tells_what_it_ran_on_and_how_each_part_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    on_the_stand_in = ("--device", "standin", "tests/engine/test_checkpoint.py")
    (tmp_path / "test_it.py").write_text(TESTS, encoding="utf-8")
    parts = {
        "passing": on_gpu.tests(60, *on_the_stand_in),
        "failing": on_gpu.tests(60, str(tmp_path / "test_it.py")),
        "figures": benchmark(tmp_path, "end"),
        "crash": benchmark(tmp_path, "crash"),
    }
    code, results = run(tmp_path, parts)
    assert code == 1
    assert results["device"] == "stand-in"
    assert {"date", "commit", "driver", "cupy", "numpy", "torch", "python"} <= results.keys()

    found = results["parts"]
    assert list(found) == list(parts)
    assert {name: part["ended"] for name, part in found.items()} == {
        "passing": "well",
        "failing": "with 1",
        "figures": "well",
        "crash": "with -9",
    }
    assert found["passing"]["passed"] > 0
    assert found["passing"]["failures"] == {}
    counted = [found["failing"][word] for word in ("passed", "failed", "skipped")]
    assert counted == [1, 1, 1]
    [(name, error)] = found["failing"]["failures"].items()
    assert name.endswith("test_it.test_wrong")
    assert error == "assert 1 == 2"
    for name in ("figures", "crash"):
        assert found[name]["figures"] == {"table": [{"us": 1.5}]}
        assert found[name]["command"].startswith("CUPY_TF32=1 python")
    assert found["crash"]["printed last"] == ["measured"]
    assert "failing: ended with 1" in capsys.readouterr().out


@pytest.mark.usefixtures("cuda")
def test_a_part_that_hangs_is_ended_and_keeps_what_it_has_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_gpu, "GRACE", 0.5)
    parts = {how: benchmark(tmp_path, how, seconds=2.0) for how in ("hang", "deaf", "end")}
    code, results = run(tmp_path, parts)
    assert code == 1
    assert [part["ended"] for part in results["parts"].values()] == ["out of time"] * 2 + ["well"]
    for part in results["parts"].values():
        assert part["figures"] == {"table": [{"us": 1.5}]}
        assert part["seconds"] < 10


@pytest.mark.usefixtures("cuda")
def test_parts_can_be_chosen(tmp_path: Path) -> None:
    parts = {name: benchmark(tmp_path, "end") for name in ("first", "second")}
    code, results = run(tmp_path, parts, "--only", "second")
    assert code == 0
    assert list(results["parts"]) == ["second"]


def test_a_report_that_was_cut_short_is_told(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("import sys; open(sys.argv[2], 'w').write('{')", encoding="utf-8")
    for read in (on_gpu.tables, on_gpu.counts):
        part = on_gpu.Part(60, [str(program)], "--report", read, {})
        assert on_gpu.outcome(part)["report"].startswith("unreadable: ")


def test_the_parts_take_less_than_eight_minutes_and_run_what_there_is() -> None:
    assert sum(part.seconds for part in on_gpu.PARTS.values()) < 8 * 60
    for part in on_gpu.PARTS.values():
        paths = [a.removeprefix("--ignore=") for a in part.arguments if "/" in a]
        assert paths
        for path in paths:
            assert (machine.ROOT / path).exists(), path


def test_results_are_named_by_date_and_device() -> None:
    path = on_gpu.default_path({"date": "2026-11-25", "device": "NVIDIA H100 80GB HBM3"})
    assert path.name == "2026-11-25-nvidia-h100-80gb-hbm3.json"
    assert path.parent == machine.ROOT / "benchmarks" / "results"


@pytest.mark.parametrize(
    "program",
    [
        lambda: on_gpu.main([]),
        lambda: gpu.main(gpu_launches.SECTIONS, "About it."),
    ],
)
def test_without_cupy_the_extra_is_named(
    program: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(sys, "argv", ["program"])
    assert program() == 2
    assert "pip install 'minigrad[cuda13]'" in capsys.readouterr().out


@pytest.mark.usefixtures("cuda")
def test_without_a_gpu_that_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.modules["cupy"], "is_available", lambda: False)
    assert on_gpu.main([]) == 2
    assert "CuPy finds no usable GPU" in capsys.readouterr().out


# --------------------------------------------------------------------------------------
# The benchmarks, as far as they do not need CUDA
# --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("cuda")
def test_layers_and_products_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = {name: Configuration("lstm", 2, 5, 3, 4, 6, "") for name in gpu_recurrent.QUICK}
    monkeypatch.setattr(gpu_recurrent, "CONFIGURATIONS", small)
    monkeypatch.setattr(gpu_recurrent, "SECONDS", 0.0)
    path = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", ["program", "--quick", "--json", str(path)])
    assert gpu.main(gpu_recurrent.SECTIONS, "About it.") == 0
    found = json.loads(path.read_text(encoding="utf-8"))
    assert [(row["name"], row["direction"]) for row in found["layers"]][-4:] == [
        (f"C4 {cell}", direction) for cell in ("gru", "rnn") for direction in ("forward", "both")
    ]
    for row in found["layers"]:
        assert row["played, ms"] > 0
        assert row["unrolled, ms"] > 0
    both = [row["played, MiB"] for row in found["layers"] if row["direction"] == "both"]
    assert min(both) > 0
    assert {row["dtype"] for row in found["products"]} == {"float32", "float16"}
    assert "h @ W" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("cuda")
def test_operations_and_the_model_are_measured_and_what_fails_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for library in ("matplotlib", "threadpoolctl", "tqdm"):
        pytest.importorskip(library)
    monkeypatch.setattr(gpu_launches, "SECONDS", 0.0)
    monkeypatch.setattr(
        sys, "argv", ["program", "--quick", "--only", "graphs", "operations", "text generation"]
    )
    assert gpu.main(gpu_launches.SECTIONS, "About it.") == 1
    printed, errors = capsys.readouterr()
    assert "RawKernel" in errors  # the stand-in has none
    assert "(8, 8)" in printed
    assert "characters per s" in printed
