"""What all tests share: one BLAS thread, hypothesis profiles, float64 helpers."""

import os

# More BLAS threads than free cores make small products hundreds of times slower.
for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import gc
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from typing import Any

import numpy as np
import pytest
import standin
from hypothesis import HealthCheck, settings

import minigrad as mg
import minigrad_rnn as rnn
from minigrad.slots import active_tape

pytest_plugins = ["pytester"]

# The same examples in every run, so that a failure is always that of a change.
# HYPOTHESIS_PROFILE=thorough draws many new ones.
settings.register_profile("quick", max_examples=15, deadline=None, derandomize=True)
# For the stand-in: whether an operation works on a device array does not depend on the numbers.
settings.register_profile("few", max_examples=4, deadline=None, derandomize=True)
settings.register_profile(
    "ci",
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("thorough", max_examples=2000, deadline=None)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "quick")
)


_DEVICE = pytest.StashKey[ExitStack]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option ``--device``."""
    parser.addoption(
        "--device",
        choices=["cpu", "cuda", "standin"],
        default="cpu",
        help="where tensors are made: on the CPU, on a GPU, or on the stand-in for one",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make tensors on the device that was asked for, those of test modules included."""
    chosen = config.getoption("--device")
    if chosen == "standin":
        sys.modules.update(standin.modules())
    # Some tests press Ctrl-C, which a shell switches off for what it starts in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.stash[_DEVICE] = ExitStack()
    if chosen != "cpu":
        config.stash[_DEVICE].enter_context(mg.device("cuda"))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave the device's scope."""
    config.stash[_DEVICE].close()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Do not repeat on a device what is about the host: tests marked so, and doctests."""
    if config.getoption("--device") == "cpu":
        return

    def of_the_host(item: pytest.Item) -> bool:
        return isinstance(item, pytest.DoctestItem) or item.get_closest_marker("host") is not None

    config.hook.pytest_deselected(items=[item for item in items if of_the_host(item)])
    items[:] = [item for item in items if not of_the_host(item)]


def pytest_collection_finish() -> None:
    """Let collections, and searches for leaks, pass over what there is before the first test.

    That is a million objects: libraries, modules of tests, and thousands of tests.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tensors are made on the stand-in for a GPU, whatever ``--device`` says."""
    for name, module in standin.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    with mg.device("cuda"):
        yield


@pytest.fixture(params=["stand-in", pytest.param("CuPy", marks=pytest.mark.gpu)])
def gpu(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tensors are made on the stand-in, and once more on a GPU where there is one."""
    if request.param == "stand-in":
        request.getfixturevalue("cuda")
    with mg.device("cuda"):
        yield


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator that gives the same numbers in every run."""
    return np.random.default_rng(2026)


@pytest.fixture
def no_collector() -> Iterator[None]:
    """The cyclic collector is off, so that only reference counting frees memory."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.fixture(autouse=True)
def _no_tape_is_left_open() -> Iterator[None]:
    """Every test ends as it began: with no tape recording."""
    assert active_tape.get() is None
    yield
    assert active_tape.get() is None


@pytest.fixture
def press_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """A function that has Ctrl-C pressed while the update of that number is made."""

    def press(update: int) -> None:
        real, updates = rnn.clip_grad_norm_, count(1)

        def clip_and_press(*args: Any, **settings: Any) -> mg.Tensor:
            if next(updates) == update:
                signal.raise_signal(signal.SIGINT)
            return real(*args, **settings)

        monkeypatch.setattr(rnn, "clip_grad_norm_", clip_and_press)

    return press
