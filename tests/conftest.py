"""What all tests share: one BLAS thread, hypothesis profiles, float64 helpers."""

import os

# More BLAS threads than free cores make small products hundreds of times slower.
for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import gc
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from minigrad.slots import active_tape

pytest_plugins = ["pytester"]

# The same examples in every run, so that a failure is always that of a change.
# HYPOTHESIS_PROFILE=thorough draws many new ones.
settings.register_profile("quick", max_examples=15, deadline=None, derandomize=True)
settings.register_profile(
    "ci",
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("thorough", max_examples=2000, deadline=None)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "quick")
)


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
