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
#: The largest step, and by how much each is smaller than the one before. No power of 2: what is
#: rounded to multiples of a power of 2 may have one and the same wrong slope at such steps.
FIRST_STEP: Final = 2.0**-8
RATIO: Final = 7.7
MOST_STEPS: Final = 10
#: An error this small, relative to value and derivative, needs no further step.
SETTLED: Final = 1e-9
#: A derivative that is not known to this part of the largest is not known.
KNOWN: Final = 1e-6
#: Values that scatter by more than this part of the largest were not computed in float64.
PRECISE: Final = 1e-9
#: A second look does not tell derivatives apart that differ by this part of the largest one.
NEGLIGIBLE: Final = 1e-10
#: Between the values whose scatter is measured; from some two roundings of float32 on.
SPACINGS: Final = (2.0**-25, 2.0**-22)
#: Where these values are. Equally spaced ones may all be rounded alike.
PLACES: Final = numpy.arange(-6, 7) + 0.4 * numpy.sin(numpy.arange(13.0) ** 2)
#: The median of the absolute value of normal noise of deviation 1.
MEDIAN: Final = 0.6745
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
    terms: Vector | float = 0.0,
    small: Vector | float = 1e-3,
) -> Derivative:
    """The derivative at 0 of ``values``, which maps a number to a vector of floats.

    A careful look measures the noise of the values instead of assuming that they are rounded
    once, takes other steps, and leaves more room. It is for what a first look has found
    suspicious, so that a mistake is reported only if both have seen it. ``terms`` says how large
    what the values were computed from is, if it is larger than they are; ``small``, below which
    size values may be nothing but rounding, so that it does not matter whether their differences
    settle.

    >>> import numpy as np
    >>> found = differentiate(lambda t: np.exp(np.array([t, 2.0 * t])))
    >>> bool((abs(found.value - [1.0, 2.0]) <= found.error).all()), found.trouble
    (True, '')
    """
    centre = values(0.0)
    size = numpy.abs(centre)
    rounded_size = numpy.maximum(size, terms)
    room, rounding, first = (2.0, 8.0, 0.7 * FIRST_STEP) if careful else (4.0, 4.0, FIRST_STEP)
    scatter = _scatter(values) if careful else [numpy.zeros_like(centre)]
    noise = numpy.maximum(numpy.max(scatter, axis=0), numpy.mean(scatter) if centre.size else 0.0)
    if careful:
        noise = numpy.maximum(noise, _quantum(values, centre, first, small))

    value = numpy.zeros_like(centre)
    error = numpy.full_like(centre, numpy.inf)
    gap = numpy.zeros_like(centre)  # between the slopes on the two sides, where they differ
    steps: list[float] = []
    slopes: list[Vector] = []
    bend_before = numpy.zeros_like(centre)
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
            straight = numpy.maximum(numpy.abs(bend_before) / 3.0, 4.0 * unsure)
            bends_now = numpy.abs(bend) > straight
            # What looked like a kink may have been one beside the sample.
            cleared = (gap > 0.0) & ~bends_now & (found <= _fine(size, slope))
            better = (found < error) | cleared
            value = numpy.where(better, slope, value)
            error = numpy.where(better, found, error)
            gap = numpy.where(better, numpy.where(bends_now, numpy.abs(bend), 0.0), gap)
            rounded = rounded + 1 if not better.any() and (unsure > change).all() else 0
        steps.append(step)
        slopes.append(slope)
        bend_before = bend
        if rounded == 2 or ((error <= _fine(size, value)) & (gap == 0.0)).all():
            break

    largest = max(numpy.max(size, initial=0.0), numpy.max(numpy.abs(value), initial=0.0))
    scale = numpy.maximum(numpy.maximum(largest, terms), small)
    digits = _digits(scatter[0] / scale, scatter[-1] / scale)
    trouble, where = "", 0
    if not (error <= KNOWN * scale).all():
        trouble = "differences do not settle as the step gets smaller, or its values are too rough"
        where = int((error / scale).argmax())
    elif (gap > KNOWN * scale).any():
        trouble = "the slopes on the two sides differ"
        where = int((gap / scale).argmax())
    error = error + gap
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


def _scatter(values: Callable[[float], Vector]) -> list[Vector]:
    """How much the values scatter: fourth differences, in which a smooth curve vanishes.

    Of nine, at most four straddle a kink or a jump, and so the median sees neither.
    """
    found = []
    for spacing in SPACINGS:
        near = numpy.stack([values(place * spacing) for place in PLACES])
        fourth = [abs(_fourth_difference(PLACES[i : i + 5]) @ near[i : i + 5]) for i in range(9)]
        median = numpy.median(fourth, axis=0) / MEDIAN
        found.append(numpy.nan_to_num(median, nan=0.0, posinf=0.0))
    return found


def _fourth_difference(places: Vector) -> Vector:
    """(5,), the weights of length 1 with which values of any cubic polynomial sum up to 0."""
    apart = places[:, None] - places + numpy.eye(5)
    weights = 1.0 / apart.prod(axis=1)
    return numpy.asarray(weights / numpy.linalg.norm(weights))


def _quantum(
    values: Callable[[float], Vector], centre: Vector, first: float, small: Vector | float
) -> Vector:
    """The smallest change of each value by a step, where a smaller step changes nothing; or 0.

    That is the rounding of a value so flat that :func:`_scatter` finds it to be a constant. A
    larger change than a rounding in float64 is that of a kink or jump beside the sample.
    """
    smallest, still = numpy.full_like(centre, numpy.inf), numpy.zeros(centre.shape, dtype=bool)
    for k in range(MOST_STEPS):
        for step in (first / RATIO**k, -first / RATIO**k):
            change = numpy.abs(values(step) - centre)
            still |= change == 0.0
            smallest = numpy.where(change > 0.0, numpy.fmin(smallest, change), smallest)
    size = numpy.maximum(numpy.max(numpy.abs(centre), initial=0.0), small)
    return numpy.where(still & (smallest <= PRECISE * size), smallest, 0.0)


def _digits(fine: Vector, coarse: Vector) -> float | None:
    """How many digits the values have, if their noise, relative to them, says that it is too few.

    What comes from a curve instead, of a wave much shorter than the steps, is 4096 times
    larger at 8 times the spacing.
    """
    most = fine.max(initial=0.0)
    if most <= PRECISE or coarse.max() > 64.0 * most:
        return None
    return float(-numpy.log10(most))
