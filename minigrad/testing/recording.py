"""A function on a tape at one point: its derivatives in both modes.

Next to them stands what is wrong with them by itself: a rule that writes to what it is given,
a gradient of another shape or dtype, or one that is another when it is computed again.

All inputs are looked at as one vector x of n elements, and all outputs as one of m elements,
so that there is one Jacobian J, (m, n). Directions v have n elements, covectors u have m.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy
from numpy.typing import NDArray

from minigrad.arrays import Array, namespace, to_numpy
from minigrad.derivatives import jvp
from minigrad.ops import reshape
from minigrad.tape import Tape
from minigrad.tensor import TapeError, Tensor, asarray, describe
from minigrad.testing.differences import Vector
from minigrad.testing.flattening import FlatFunction, flat, shaped
from minigrad.testing.report import GradientError

Matrix: TypeAlias = "NDArray[numpy.float64]"


class Recording:
    """What a tape knows of a function at the arrays ``points``.

    Attributes:
        outs: the outputs, by name.
        connected: for each input, whether the tape found a path from it in the last
            :meth:`pull`.
    """

    def __init__(self, function: FlatFunction, points: list[Array]) -> None:
        self.function = function
        self.points = points
        self.leaves = [asarray(point, requires_grad=True) for point in points]
        self.connected = [False] * len(points)
        with numpy.errstate(all="ignore"), Tape() as self.tape:
            # An output that is an input itself is at a slot of its own, too.
            outs = function.named([reshape(leaf, leaf.shape) for leaf in self.leaves])
            # Whose gradient is the covector as the rules of f leave it behind.
            self.seeds = [
                asarray(namespace(out.array).zeros_like(out.array), requires_grad=True)
                for out in outs.values()
            ]
            pairs = zip(outs.items(), self.seeds, strict=True)
            self.outs = {name: out + seed for (name, out), seed in pairs}

    def pull(self, covectors: Matrix) -> Matrix:
        """u J  for every u in the rows of ``covectors``, (k, n)."""
        self.function.place(self.leaves)
        self.connected = [False] * len(self.leaves)
        rows = numpy.zeros((len(covectors), sum(point.size for point in self.points)))
        outs = list(self.outs.values())
        for row, u in zip(rows, covectors, strict=True):
            parts = shaped(u, [out.array for out in outs])
            for out, seed, part in zip(outs, self.seeds, parts, strict=True):
                row += self.gradient(out, seed, part)
        return rows

    def gradient(self, out: Tensor, seed: Tensor, covector: Array) -> Vector:
        """The gradient of one output, (n,), checked to be of the inputs' shapes and dtypes."""
        given = covector.copy()
        try:
            with numpy.errstate(all="ignore"):
                *found, left = self.tape.gradient(
                    out, [*self.leaves, seed], covector, retain=True, unconnected="none"
                )
        except TapeError as error:
            raise GradientError(f"the gradient of {self.function.name} fails: {error}") from error
        if not numpy.array_equal(left.numpy(), to_numpy(given)):
            raise GradientError(
                f"a rule of {self.function.name} writes to the gradient that it is given: compute "
                "a new array instead"
            )
        parts = []
        for i, (point, part) in enumerate(zip(self.points, found, strict=True)):
            if part is None:
                parts.append(numpy.zeros(point.size))
            else:
                self.connected[i] = True
                check_fits(self.function, i, part.array, point)
                parts.append(part.array)
        return flat(parts)

    def push(self, direction: Vector) -> Vector:
        """J v  for a direction v, (m,)."""
        moved = tuple(shaped(direction, self.points))
        try:
            with numpy.errstate(all="ignore"):
                _, pushed = jvp(lambda *xs: self.function(xs), tuple(self.points), moved)
        except TapeError as error:
            raise GradientError(
                f"the derivative of {self.function.name} in forward mode fails: {error}"
            ) from error
        return flat([part.array for part in pushed])


def check_fits(function: FlatFunction, place: int, gradient: Array, point: Array) -> None:
    """Raise unless a gradient has the shape and dtype of its input."""
    if gradient.shape != point.shape or gradient.dtype != point.dtype:
        raise GradientError(
            f"the gradient of {function.name} for {function.inputs[place]} is "
            f"{describe(gradient)}, and the input is {describe(point)}"
        )
