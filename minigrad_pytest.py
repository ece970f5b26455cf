"""The pytest plugin, active where minigrad is installed; ``-p no:minigrad`` switches it off.

It brings fixtures (``tape``, ``array_library``, ``assert_no_leak``, ``seed``, ``rng``), the
marker ``gpu``, and the option ``--minigrad-seed``. A project's own fixtures of these names
take precedence, and so does a marker ``gpu`` that it registers.

It stands outside the package because pytest imports it in every run, also in those of other
projects: nothing but pytest is imported here until a fixture is asked for.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import numpy as np

    import minigrad as mg

_SEED = pytest.StashKey[int]()
_GPU_IS_OURS = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option ``--minigrad-seed``."""
    parser.getgroup("minigrad").addoption(
        "--minigrad-seed",
        type=int,
        metavar="N",
        help="the seed of the fixtures seed and rng; by default another one in every run",
    )


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Choose the seed, and register the marker ``gpu`` unless the project has one."""
    given = config.getoption("--minigrad-seed")
    config.stash[_SEED] = random.SystemRandom().getrandbits(32) if given is None else given
    registered = [line.partition(":")[0].partition("(")[0] for line in config.getini("markers")]
    config.stash[_GPU_IS_OURS] = "gpu" not in map(str.strip, registered)
    if config.stash[_GPU_IS_OURS]:
        config.addinivalue_line(
            "markers", "gpu: needs a GPU that CuPy can use, and is skipped where there is none"
        )


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what is marked ``gpu`` where there is none."""
    if item.config.stash[_GPU_IS_OURS] and item.get_closest_marker("gpu"):
        _skip_without_gpu()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tell the seed of a test that failed with it."""
    report = yield
    if report.failed and _SEED in item.stash:
        report.sections.append(
            ("minigrad", f"the same random numbers: --minigrad-seed={item.stash[_SEED]}")
        )
    return report


def _skip_without_gpu() -> None:
    try:
        cupy = import_module("cupy")
    except ImportError:
        pytest.skip("needs a GPU, and CuPy is not installed: minigrad[cuda13] or minigrad[cuda12]")
    if not cupy.is_available():
        pytest.skip("needs a GPU, and CuPy finds none that it can use")


@pytest.fixture
def tape() -> Iterator[mg.Tape]:
    """A tape that is recording until the end of the test."""
    from minigrad import Tape

    with Tape() as opened:
        yield opened


@pytest.fixture(params=["numpy", "cupy"])
def array_library(request: pytest.FixtureRequest) -> Any:
    """NumPy, and once more CuPy; the latter is skipped where there is no GPU."""
    if request.param == "cupy":
        _skip_without_gpu()
    return import_module(request.param)


@pytest.fixture
def assert_no_leak() -> Iterator[Callable[..., Any]]:
    """``minigrad.testing.assert_no_leak``, told of all that the test makes before it, too."""
    from minigrad.testing.leaks import assert_no_leak, tracing

    with tracing():
        yield assert_no_leak


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """A number that is another in every run, or that of ``--minigrad-seed``.

    It is told when the test fails.
    """
    value = request.config.stash[_SEED]
    request.node.stash[_SEED] = value
    return value


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    """A generator of NumPy with that ``seed``."""
    from numpy.random import default_rng

    return default_rng(seed)
