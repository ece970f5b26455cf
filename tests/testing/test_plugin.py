"""The pytest plugin, in runs of pytest of their own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

import minigrad as mg

CUPY = importlib.util.find_spec("cupy") is not None
#: Where this checkout is used without being installed, the plugin is named to pytest.
LOADED = [] if entry_points(group="pytest11", name="minigrad") else ["-p", "minigrad_pytest"]


def run(pytester: pytest.Pytester, source: str, *arguments: str) -> pytest.RunResult:
    """A run of tests where every warning and every unknown marker is an error."""
    pytester.makepyfile(source)
    return pytester.runpytest(*LOADED, "-W", "error", "--strict-markers", *arguments)


def test_importing_it_imports_pytest_alone() -> None:
    code = (
        "import sys, pytest, random\n"
        "before = set(sys.modules)\n"
        "import minigrad_pytest\n"
        "print(*(set(sys.modules) - before - {'minigrad_pytest'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_what_it_brings_is_told_by_pytest(pytester: pytest.Pytester) -> None:
    fixtures = run(pytester, "", "--fixtures").stdout.str()
    for name in ("tape", "array_library", "assert_no_leak", "seed", "rng"):
        assert f"\n{name} -- " in fixtures
    markers = run(pytester, "", "--markers").stdout
    markers.fnmatch_lines(["@pytest.mark.gpu: needs a GPU*"])


def test_the_tape_records_until_the_end_of_the_test(pytester: pytest.Pytester) -> None:
    source = """
        import minigrad as mg

        tapes = []

        def test_recording(tape):
            x = mg.tensor(3.0, requires_grad=True)
            assert tape.gradient(x * x, x).item() == 6.0
            tapes.append(tape)

        def test_afterwards():
            with mg.Tape() as other:  # which refuses to be the second one
                assert other is not tapes[0]
    """
    run(pytester, source).assert_outcomes(passed=2)


def test_the_array_library_is_numpy_and_cupy_where_there_is_a_gpu(
    pytester: pytest.Pytester,
) -> None:
    source = """
        import minigrad as mg

        def test_sum(array_library):
            assert mg.sum(array_library.ones(3)).item() == 3.0
    """
    result = run(pytester, source, "-v", "-rs")
    result.stdout.fnmatch_lines(["*test_sum?numpy? PASSED*"])
    if not CUPY:
        result.assert_outcomes(passed=1, skipped=1)
        result.stdout.fnmatch_lines(["SKIPPED*needs a GPU, and CuPy is not installed*"])


GPU_TEST = """
    import pytest

    @pytest.mark.gpu
    def test_it():
        pass
"""


@pytest.mark.skipif(CUPY, reason="there may be a GPU here")
def test_the_marker_skips_where_there_is_no_gpu(pytester: pytest.Pytester) -> None:
    result = run(pytester, GPU_TEST, "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*needs a GPU, and CuPy is not installed*cuda13*"])


def test_the_marker_skips_where_cupy_finds_no_gpu(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(cupy="def is_available(): return False")
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    result = run(pytester, GPU_TEST, "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*CuPy finds none that it can use"])


@pytest.mark.parametrize("place", ["ini", "conftest"])
def test_a_marker_that_the_project_registers_keeps_its_meaning(
    pytester: pytest.Pytester, place: str
) -> None:
    if place == "ini":
        pytester.makeini("[pytest]\nmarkers =\n    gpu(memory): runs on our machine")
    else:
        pytester.makeconftest(
            "def pytest_configure(config):\n"
            "    config.addinivalue_line('markers', 'gpu: runs on our machine')"
        )
    run(pytester, GPU_TEST).assert_outcomes(passed=1)


DRAW = """
    def test_draw(rng):
        print(f"drawn: {rng.integers(1 << 60)}")
        assert False
"""


def drawn(result: pytest.RunResult) -> str:
    return next(line for line in result.outlines if line.startswith("drawn:"))


def test_the_seed_of_a_failure_is_told_and_repeats_it(pytester: pytest.Pytester) -> None:
    first = run(pytester, DRAW)
    (told,) = [line for line in first.outlines if "--minigrad-seed=" in line]
    option = told.split()[-1]
    assert drawn(run(pytester, DRAW, option)) == drawn(first)
    assert drawn(run(pytester, DRAW)) != drawn(first)


def test_a_distributed_run_tells_the_seed(pytester: pytest.Pytester) -> None:
    pytest.importorskip("xdist")
    first = run(pytester, DRAW, "-n", "1")
    (told,) = [line for line in first.outlines if "--minigrad-seed=" in line]
    assert drawn(run(pytester, DRAW, told.split()[-1])) == drawn(first)


def test_the_seed_can_be_given(pytester: pytest.Pytester) -> None:
    source = """
        import numpy as np

        def test_both(seed, rng):
            assert seed == 7
            assert rng.random() == np.random.default_rng(7).random()
    """
    result = run(pytester, source, "--minigrad-seed=7")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*--minigrad-seed*")


def test_no_seed_is_told_of_a_failure_without_one(pytester: pytest.Pytester) -> None:
    source = """
        import pytest

        @pytest.fixture
        def seed():
            return 5

        def test_own(seed):
            assert seed == 6

        def test_none():
            assert False
    """
    result = run(pytester, source)
    result.assert_outcomes(failed=2)
    result.stdout.no_fnmatch_line("*--minigrad-seed*")


def test_fixtures_of_the_project_take_precedence(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        "import pytest\n"
        "for name in ('tape', 'array_library', 'assert_no_leak', 'seed', 'rng'):\n"
        "    globals()[name] = pytest.fixture(name=name)(lambda: 'ours')\n"
    )
    source = """
        def test_all(tape, array_library, assert_no_leak, seed, rng):
            assert [tape, array_library, assert_no_leak, seed, rng] == ["ours"] * 5
    """
    run(pytester, source).assert_outcomes(passed=1)


def test_a_leak_fails_and_an_array_replaced_does_not(pytester: pytest.Pytester) -> None:
    source = """
        import minigrad as mg
        import numpy as np

        def test_replaced(assert_no_leak):
            x = mg.tensor(np.ones(1000), requires_grad=True)
            with assert_no_leak():
                x.rebind(mg.tensor(np.zeros(1000)))

        def test_leak(assert_no_leak):
            kept = []
            with assert_no_leak():
                kept.append(mg.tensor(np.ones(1000)))
    """
    on_cpu = mg.tensor(0.0).device == "cpu"
    memory = "8,000 bytes of arrays" if on_cpu else "8,192 bytes of arrays on the GPU"
    result = run(pytester, source)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "E*AssertionError: the block left behind",
            "E*+1 minigrad.tensor.Tensor",
            f"E*+{memory}",
            "E*test_a_leak*.py:*  kept.append(mg.tensor(np.ones(1000)))",
        ]
    )


def test_it_can_be_switched_off(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_tape(tape): pass")
    result = pytester.runpytest("-p", "no:minigrad", "-W", "error")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*fixture 'tape' not found*"])
