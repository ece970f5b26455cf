"""Gradients against central differences, in float64, to first and second order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import minigrad as mg
from minigrad.slots import active_tape

#: Central differences of a smooth function err by about h^2 |f'''| + eps |f| / h. With
#: h = 6e-6 (the cube root of eps) both are near 1e-10 for values and derivatives of order 1;
#: the factor left over is for those that are larger.
STEP = 6e-6
TOLERANCE = 1e-7


def check_gradients(
    function: Callable[..., mg.Tensor],
    inputs: Sequence[np.ndarray],
    *,
    order: int = 2,
    seed: int = 0,
    tolerance: float = TOLERANCE,
) -> None:
    """Compare gradients of ``function`` with central differences in random directions.

    ``function`` maps float64 Tensors to one Tensor of any shape. Its inner product with a
    random weight is differentiated in a random direction. For the second order the same is
    done with its first directional derivative, recorded by ``create_graph``.
    """
    rng = np.random.default_rng(seed)
    inputs = [np.asarray(x, dtype=np.float64) for x in inputs]
    weight = rng.uniform(0.5, 1.5, function(*map(mg.tensor, inputs)).shape)

    def scalar(*xs: Any) -> mg.Tensor:
        return (function(*xs) * weight).sum()

    _check(scalar, inputs, rng, order, tolerance)


def _check(
    scalar: Callable[..., mg.Tensor],
    inputs: list[np.ndarray],
    rng: np.random.Generator,
    order: int,
    tolerance: float,
) -> None:
    directions = [rng.choice([-1.0, 1.0], x.shape) * rng.uniform(0.5, 1.5, x.shape) for x in inputs]
    leaves = [mg.tensor(x, requires_grad=True) for x in inputs]
    with mg.Tape() as tape:
        value = scalar(*leaves)
    gradients = tape.gradient(value, leaves, unconnected="zero")
    for gradient, leaf in zip(gradients, leaves, strict=True):
        assert gradient.shape == leaf.shape
        assert gradient.dtype == leaf.dtype
    analytic = sum(float(np.sum(g.numpy() * d)) for g, d in zip(gradients, directions, strict=True))

    def at(step: float) -> float:
        return _value(scalar, [x + step * d for x, d in zip(inputs, directions, strict=True)])

    numeric = (at(STEP) - at(-STEP)) / (2 * STEP)
    scale = max(1.0, abs(analytic), abs(numeric), abs(at(0.0)))
    assert abs(analytic - numeric) <= tolerance * scale, (analytic, numeric)

    if order > 1:

        def slope(*xs: Any) -> mg.Tensor:
            tape = active_tape.get()
            assert tape is not None
            parts = tape.gradient(scalar(*xs), list(xs), create_graph=True, unconnected="zero")
            total = mg.tensor(0.0, dtype="float64")
            for part, direction in zip(parts, directions, strict=True):
                total = total + (part * direction).sum()
            return total

        _check(slope, inputs, rng, order - 1, tolerance)


def _value(scalar: Callable[..., mg.Tensor], inputs: list[np.ndarray]) -> float:
    leaves = [mg.tensor(x, requires_grad=True) for x in inputs]
    with mg.Tape():
        return float(scalar(*leaves))
