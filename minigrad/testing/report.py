"""What a failed check says: which input, along which direction, both numbers, the worst entry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy


class GradientError(AssertionError):
    """A gradient is not the derivative of the function that it was computed for."""


class KinkError(ValueError):
    """A function has no derivative at a sample, so that the sample can check nothing."""


@dataclass(frozen=True)
class Entry:
    """One entry of the Jacobian, found wrong.

    Attributes:
        name: ``d output[0] / d inputs[0][1]``.
        gradient, differences: its value by either.
        factor: by what all entries of this input are off, if it is the same for all.
    """

    name: str
    gradient: float
    differences: float
    factor: float | None = None


@dataclass(frozen=True)
class Mismatch:
    """All that is known of a wrong gradient; its text is what the error says.

    Attributes:
        function, subject: the names of the function and of the input, with shape and dtype.
        how: order, mode and output.
        gradient, differences, error: the derivative in the direction by the gradient, by
            differences, and how far off these may be.
        steps, slopes: the differences at each step.
        direction: along which they were taken.
        entry: the worst entry of the Jacobian; ``None`` if each by itself is right.
        advice: what is usually the cause.
    """

    function: str
    subject: str
    how: str
    gradient: float
    differences: float
    error: float
    steps: Sequence[float]
    slopes: Sequence[float]
    direction: Any
    entry: Entry | None
    advice: str = ""

    def __str__(self) -> str:
        lines = [
            f"the gradient of {self.function} with respect to {self.subject} is wrong",
            "",
            f"  {self.how}",
            *_both(self.gradient, self.differences, f"  (to within {self.error:.1g})"),
        ]
        if self.entry is not None:
            lines += [
                "",
                f"  worst entry: {self.entry.name}",
                *_both(self.entry.gradient, self.entry.differences),
            ]
            if self.entry.factor is not None and not self.advice:
                lines += [f"    every entry is {self.entry.factor:.6g} times what it should be"]
        if self.advice:
            lines += ["", f"  {self.advice}"]
        lines += ["", "  step      differences      relative error of the gradient"]
        for step, slope in zip(self.steps, self.slopes, strict=True):
            off = relative(self.gradient, slope)
            lines += [f"  {step:<8.1e}  {slope:<15.9g}  {off:.2g}"]
        shown = numpy.array2string(
            numpy.asarray(self.direction),
            precision=4,
            threshold=20,
            separator=", ",
            prefix=" " * 14,
        )
        return "\n".join([*lines, "", f"  direction:  {shown}"])


def relative(a: float, b: float) -> float:
    """|a - b|,  as a part of the larger of the two."""
    largest = max(abs(a), abs(b))
    return abs(a - b) / largest if largest else 0.0


def _both(gradient: float, differences: float, note: str = "") -> list[str]:
    return [
        f"    by the gradient   {gradient:.9g}",
        f"    by differences    {differences:.9g}{note}",
    ]
