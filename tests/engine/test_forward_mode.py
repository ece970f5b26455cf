"""Jacobian-vector products of every operation, which no rule was written for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from operation_table import TABLE, Array, Row
from transfer import to_host

import minigrad as mg
from minigrad import Tensor

#: Central differences with a step of 6e-6 err by about 1e-10 of the values' size.
STEP = 6e-6
TOLERANCE = 1e-7


def flat(out: Any) -> tuple[Any, ...]:
    """The results of a call, be there one or several."""
    return tuple(out) if isinstance(out, tuple | list) else (out,)


@pytest.mark.parametrize("row", [r for r in TABLE if r.differentiable and r.exact], ids=str)
def test_jvp_agrees_with_differences_and_with_vjp(row: Row) -> None:
    inputs = row.values(row.example, seed=1)
    rng = np.random.default_rng(2)
    v = tuple(rng.uniform(-1.0, 1.0, x.shape) for x in inputs)

    def function(*xs: Tensor) -> tuple[Tensor, ...]:
        return flat(row.call(*xs))

    values, pushed = mg.jvp(function, tuple(inputs), v)
    u = tuple(rng.uniform(-1.0, 1.0, value.shape) for value in values)
    _, pull = mg.vjp(function, *inputs)

    def inner(xs: Any, ys: Any) -> float:
        return float(sum(np.sum(to_host(x) * y) for x, y in zip(xs, ys, strict=True)))

    # u . (J v) = (u J) . v
    forward, backward = inner(pushed, u), inner(pull(u), v)
    assert forward == pytest.approx(backward, rel=1e-11, abs=1e-11)

    def at(step: float) -> list[Array]:
        moved = [mg.tensor(x + step * d) for x, d in zip(inputs, v, strict=True)]
        return [value.numpy() for value in function(*moved)]

    for found, above, below in zip(pushed, at(STEP), at(-STEP), strict=True):
        numeric = (above - below) / (2 * STEP)
        scale = max(1.0, np.abs(numeric).max(initial=0.0), np.abs(above).max(initial=0.0))
        np.testing.assert_allclose(found.numpy(), numeric, rtol=0.0, atol=TOLERANCE * scale)
