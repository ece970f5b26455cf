"""Mistakes that run on NumPy, and not on a GPU or not well: the stand-in makes them fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minigrad as mg
import standin
from minigrad.arrays import Array, namespace
from minigrad.optim.sgd import SGD

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("cuda")]


@mg.primitive
def calls_numpy(x: Any, /) -> Any:
    return np.tanh(x)


@mg.primitive
def converts(x: Any, /) -> Any:
    return x * np.asarray(x)


@mg.primitive
def gives_a_keyword_of_numpy(x: Any, /) -> Any:
    return namespace(x).add(x, 1.0, out=x.copy(), where=x > 0)


@mg.primitive
def gives_a_setting_of_numpys_reductions(x: Any, /) -> Any:
    return x.max(initial=0.0)


@mg.primitive
def calls_what_cupy_lacks(x: Any, /) -> Any:
    return namespace(x).logaddexp.reduce(x)


@mg.primitive
def mixes_with_the_host(x: Any, /) -> Any:
    return x * np.ones(x.shape)


@mg.primitive
def reads_by_an_index_of_the_host(x: Any, /) -> Any:
    return x[np.array([0, 1])]


@mg.primitive
def writes_a_position_twice(x: Any, /) -> Any:
    out = x.copy()
    out[namespace(x).array([0, 0])] = x
    return out


REFUSED: list[tuple[Callable[..., Any], str]] = [
    (calls_numpy, "numpy.tanh was called on a device array"),
    (converts, "Implicit conversion to a NumPy array"),
    (gives_a_keyword_of_numpy, "unexpected keyword argument 'where'"),
    (gives_a_setting_of_numpys_reductions, "unexpected keyword argument 'initial'"),
    (calls_what_cupy_lacks, "`reduce` is not supported for logaddexp"),
    (mixes_with_the_host, "Unsupported type <class 'numpy.ndarray'>"),
    (reads_by_an_index_of_the_host, "an index on a device is a device array"),
    (writes_a_position_twice, "names a position twice"),
]


@pytest.mark.parametrize(("mistake", "message"), REFUSED, ids=[f.__name__ for f, _ in REFUSED])
def test_what_does_not_run_on_a_gpu_is_refused(mistake: Callable[..., Any], message: str) -> None:
    assert np.isfinite(np.asarray(mistake(np.array([1.0, 2.0])))).all()  # it does run on NumPy
    with pytest.raises((TypeError, NotImplementedError, AssertionError), match=message):
        mistake(mg.tensor([1.0, 2.0]))


def test_operands_of_host_and_device_are_both_named() -> None:
    x = mg.tensor([1.0, 2.0])
    for mixed in (lambda: x * np.ones(2), lambda: np.ones(2) * x, lambda: x + x.to("cpu")):
        with pytest.raises(TypeError, match="different devices, cpu and cuda:0; move them"):
            mixed()


class ReadsTheGradient(SGD):
    """An optimizer that looks at its gradient, to leave out a step that is too large."""

    def update(self, array: Array, gradient: Array, *rest: Any, **settings: Any) -> Array:
        if float(abs(gradient).max()) > 1e3:
            return array
        return super().update(array, gradient, *rest, **settings)


class BranchesOnTheGradient(SGD):
    """An optimizer with a branch on a value of the device."""

    def update(self, array: Array, gradient: Array, *rest: Any, **settings: Any) -> Array:
        if (gradient == 0).all():
            return array
        return super().update(array, gradient, *rest, **settings)


def reads_a_mask(x: mg.Tensor) -> mg.Tensor:
    return x[x > 1.0]


def asks_where(x: mg.Tensor) -> Any:
    return namespace(x.array).where(x.array > 1.0)


def prints(x: mg.Tensor) -> str:
    return f"{x}"


@pytest.mark.parametrize(
    ("kind", "waits"), [(SGD, []), (ReadsTheGradient, ["float"]), (BranchesOnTheGradient, ["bool"])]
)
def test_an_optimizer_that_looks_at_values_is_found_out(kind: type[SGD], waits: list[str]) -> None:
    w = mg.tensor([1.0, 2.0], requires_grad=True)
    w.grad = mg.tensor([1.0, 1.0])
    optimizer = kind([w], lr=0.1)
    with standin.waits() as counted:
        optimizer.step()
    assert counted == waits


@pytest.mark.parametrize(
    ("mistake", "waits"),
    [
        (reads_a_mask, ["boolean index"]),
        (asks_where, ["where"]),
        (bool, ["item"]),
        (float, ["item"]),
        (mg.Tensor.tolist, ["tolist"]),
        (prints, ["get"]),
    ],
)
def test_every_look_at_a_value_is_counted(
    mistake: Callable[[mg.Tensor], Any], waits: list[str]
) -> None:
    x = mg.tensor([2.0])
    with standin.waits() as counted:
        mistake(x)
    assert counted == waits
