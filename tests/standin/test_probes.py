"""The stand-in does what the table of probes says, and so does CuPy, wherever there is a GPU."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import numpy as np
import pytest

import standin
from standin.collect import collect
from standin.offered import TABLE
from standin.probes import PROBES, Probe, names, outcome

EVERY = pytest.mark.parametrize("probe", PROBES, ids=[probe.expression for probe in PROBES])


@pytest.mark.host
@EVERY
def test_the_stand_in_does_what_the_table_says(
    probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = standin.modules()
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    known = names(modules["cupy"])
    with standin.waits() as waits:
        value = eval_without_reading(probe.expression, known)
    assert bool(waits) == probe.waits, waits
    del value
    assert_outcome(outcome(probe.expression, known), probe.refused or probe.outcome)


@pytest.mark.gpu
@EVERY
def test_cupy_does_what_the_table_says(probe: Probe) -> None:
    assert_outcome(outcome(probe.expression, names(real_cupy())), probe.outcome)


def test_the_table_of_names_is_that_of_the_installed_cupy() -> None:
    """It needs CuPy, but no GPU."""
    cupy = real_cupy()
    if not cupy.__version__.startswith("14.2."):
        pytest.skip(f"the table is that of CuPy 14.2, and CuPy {cupy.__version__} is installed")
    assert {**collect(), "version": TABLE["version"]} == TABLE


def real_cupy() -> Any:
    cupy = pytest.importorskip("cupy")
    if cupy is standin.modules()["cupy"]:
        pytest.skip("this is the stand-in")
    return import_module("cupy")


def eval_without_reading(expression: str, known: dict[str, Any]) -> Any:
    try:
        return eval(expression, dict(known))
    except Exception as error:
        return error


def assert_outcome(found: Any, expected: Any) -> None:
    if isinstance(expected, type):
        assert isinstance(found, type), f"it is {found!r}, and no error"
        assert issubclass(found, expected)
    elif isinstance(expected, float):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    elif isinstance(expected, tuple | list):
        assert len(found) == len(expected), f"it is {found!r}"
        for f, e in zip(found, expected, strict=True):
            assert_outcome(f, e)
    else:
        assert found == expected
