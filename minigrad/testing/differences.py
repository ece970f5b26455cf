"""Derivatives by differences, with a bound on how wrong they are, taken from the values alone.

The derivative of  F(t)  at t = 0 is computed at a falling series of steps. Two errors move in
opposite ways: truncation, which falls with the step and shows as the change from one step to
the next, and rounding, which grows as  eps |F| / step. Every element takes the step at which
the sum of the two is smallest, so that nobody has to choose a step or a tolerance.

A derivative that does not exist shows as well: at a kink the slopes to the left and to the
right differ by as much at a small step as at a large one, and at a jump or a pole the
differences never settle.

Dennis and Schnabel, Numerical Methods for Unconstrained Optimization and Nonlinear Equations,
1983, on steps; Moré and Wild, Estimating derivatives of noisy simulations, 2012, on noise;
Squire and Trapp, Using complex variables to estimate derivatives of real functions, 1998.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import numpy
from numpy.typing import NDArray

Vector: TypeAlias = "NDArray[numpy.float64]"
Method = Literal["central", "five-point", "complex"]

EPS: Final = float(numpy.finfo(numpy.float64).eps)
#: The largest step, and by how much each is smaller than the one before.
FIRST_STEP: Final = 2.0**-8
RATIO: Final = 8.0
MOST_STEPS: Final = 10
#: An error this small, relative to value and derivative, needs no further step.
SETTLED: Final = 1e-9
#: A derivative that is not known to this relative error is not known.
KNOWN: Final = 1e-6
#: Values that scatter by more than this part of their size were not computed in float64.
PRECISE: Final = 1e-9
#: A second look does not tell derivatives apart that differ by this part of the largest one.
NEGLIGIBLE: Final = 1e-10
#: Below this size values and derivatives are compared absolutely when it is asked whether the
#: differences have settled; a gradient is always compared to within their error.
SMALL: Final = 1e-3
#: Between the values whose scatter is measured; some two roundings of float32.
SPACING: Final = 2.0**-25
COMPLEX_STEP: Final = 2.0**-100


@dataclass(frozen=True)
class Derivative:
    """The derivative of a vector F(t) at t = 0.

    Attributes:
        value, error: (m,), the derivative and how far off it may be.
        steps, slopes: every step, and the difference quotients (m,) found with it.
        trouble: why there is no derivative, or ``""``.
        where: the element that is in trouble, if there is one.
        digits: how many digits the values have, if it is fewer than float64 gives.
    """

    value: Vector
    error: Vector
    steps: list[float]
    slopes: list[Vector]
    trouble: str = ""
    where: int = 0
    digits: float | None = None


def differentiate(
    values: Callable[[Any], NDArray[Any]],
    method: Method = "central",
    *,
    careful: bool = False,
    terms: float = 0.0,
) -> Derivative:
    """The derivative at 0 of ``values``, which maps a number to a vector of floats.

    A careful look measures the noise of the values instead of assuming that they are rounded
    once, takes other steps, and leaves more room. It is for what a first look has found
    suspicious, so that a mistake is reported only if both have seen it. ``terms`` says how large
    what the values were computed from is, if it is larger than they are.

    >>> import numpy as np
    >>> found = differentiate(lambda t: np.exp(np.array([t, 2.0 * t])))
    >>> bool((abs(found.value - [1.0, 2.0]) <= found.error).all()), found.trouble
    (True, '')
    """
    centre = values(0.0)
    size = numpy.abs(centre)
    rounded_size = numpy.maximum(size, terms)
    fine, coarse = _noise(values) if careful else [numpy.zeros_like(centre)] * 2
    noise = numpy.maximum(numpy.maximum(fine, coarse), numpy.mean([*fine, *coarse] or [0.0]))
    room, rounding = (2.0, 8.0) if careful else (4.0, 4.0)
    first = FIRST_STEP * (0.7 if careful else 1.0)

    value = numpy.zeros_like(centre)
    error = numpy.full_like(centre, numpy.inf)
    bent = numpy.zeros(centre.shape, dtype=bool)
    steps: list[float] = []
    slopes: list[Vector] = []
    bends: list[Vector] = []
    rounded = 0
    for k in range(MOST_STEPS):
        step = first / RATIO**k
        slope, bend = _quotients(values, centre, step, method)
        # The last term is for the even part of F, which cancels in the slope.
        unsure = (rounding * EPS * (rounded_size + numpy.abs(slope)) + 4.0 * noise) / step
        unsure += rounding * EPS * numpy.abs(bend)
        if slopes:
            change = numpy.abs(slope - slopes[-1]) / room
            found = numpy.nan_to_num(unsure + change, nan=numpy.inf)
            straight = numpy.maximum(numpy.abs(bends[-1]) / 3.0, 4.0 * unsure)
            bends_now = numpy.abs(bend) > straight
            # What looked like a kink may have been one beside the sample.
            cleared = bent & ~bends_now & (found <= _fine(size, slope))
            better = (found < error) | cleared
            value = numpy.where(better, slope, value)
            error = numpy.where(better, found, error)
            bent = numpy.where(better, bends_now, bent)
            rounded = rounded + 1 if not better.any() and (unsure > change).all() else 0
        steps.append(step)
        slopes.append(slope)
        bends.append(bend)
        if rounded == 2 or ((error <= _fine(size, value)) & ~bent).all():
            break

    largest = max(numpy.max(size, initial=0.0), numpy.max(numpy.abs(value), initial=0.0))
    settled = KNOWN * max(largest, SMALL)
    digits = _digits(fine, coarse, max(largest, SMALL))
    trouble, where = "", 0
    if not (error <= settled).all():
        trouble = "differences do not settle as the step gets smaller, or its values are too rough"
        where = int(error.argmax())
    elif bent.any():
        trouble = "the slopes on the two sides differ"
        where = int(bent.argmax())
    if careful:
        error = error + NEGLIGIBLE * largest
    if method == "complex" and not trouble:
        exact = values(1j * COMPLEX_STEP).imag / COMPLEX_STEP
        if not (numpy.abs(exact - value) <= error + 1e-4 * largest).all():
            raise ValueError(
                "method='complex' needs a function that is analytic, and this one is not: its "
                "complex step and its differences disagree (abs, conj and comparisons do that); "
                "use method='central'"
            )
        # Im F(ih) / h  is no difference of close numbers, and so has no rounding but its own.
        value = exact
        error = (1024.0 if careful else 64.0) * EPS * (size + numpy.abs(exact) + largest)
    return Derivative(value, error, steps, slopes, trouble, where, digits)


def _fine(size: Vector, value: Vector) -> Vector:
    """The error of each element at which no further step is needed."""
    scale = size + numpy.abs(value)
    return numpy.maximum(SETTLED * scale, 0.1 * SETTLED * scale.max(initial=0.0))


def _quotients(
    values: Callable[[float], Vector], centre: Vector, step: float, method: Method
) -> tuple[Vector, Vector]:
    """The slope  (F(h) - F(-h)) / 2h,  and by how much it differs from left to right."""
    above, below = values(step), values(-step)
    slope = (above - below) / (2.0 * step)
    bend = (above - 2.0 * centre + below) / step
    if method == "five-point":
        wide = (values(2.0 * step) - values(-2.0 * step)) / (4.0 * step)
        slope = (4.0 * slope - wide) / 3.0
    return slope, bend


def _noise(values: Callable[[float], Vector]) -> list[Vector]:
    """How much the values scatter: fourth differences, in which a smooth curve vanishes.

    Of nine, at most four straddle a kink or a jump, and so the median sees neither. It is
    taken over two spacings, since values very close to each other may be rounded alike.
    """
    found = []
    for spacing in (SPACING, 8.0 * SPACING):
        near = [values(i * spacing) for i in range(-6, 7)]
        fourth = numpy.abs(numpy.diff(near, n=4, axis=0)) / 70.0**0.5  # of noise of deviation 1
        found.append(numpy.nan_to_num(numpy.median(fourth, axis=0), nan=0.0, posinf=0.0))
    return found


def _digits(fine: Vector, coarse: Vector, largest: float) -> float | None:
    """How many digits the values have, if their noise says that it is too few.

    What comes from a curve instead, of a wave much shorter than the steps, is 4096 times
    larger at 8 times the spacing.
    """
    most = fine.max(initial=0.0)
    if most <= PRECISE * largest or coarse.max() > 64.0 * most:
        return None
    return float(-numpy.log10(most / largest))
