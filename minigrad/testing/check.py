"""The check of one order of derivative: gradients on the one side, differences on the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, NoReturn

import numpy
from numpy.typing import NDArray

from minigrad.arrays import Array, to_numpy
from minigrad.derivatives import vjp
from minigrad.tensor import TapeError, Tensor, asarray, describe
from minigrad.testing.differences import EPS, Derivative, Method, Vector, differentiate
from minigrad.testing.flattening import FlatFunction, element, flat, shaped
from minigrad.testing.recording import Matrix, Recording, check_fits
from minigrad.testing.report import Entry, GradientError, KinkError, Mismatch
from minigrad.testing.worst import worst_entry

Mode = Literal["vjp", "jvp"]

#: The rounding of a gradient in float64, relative to its terms.
ROUNDING: Final = 16.0 * EPS
#: How far from the inputs the noise of a gradient is measured, relative to them.
NEAR: Final = 2.0**-45
#: Below this size all values of an output may be nothing but rounding, of inputs near 1.
SMALL: Final = 1e-3
#: The square of a number below this is not a normal number any more.
VANISHING: Final = float(numpy.finfo(numpy.float64).tiny) ** 0.5

#: What to look for if the tape does not know of an input, in the first and in higher orders.
UNCONNECTED: Final = (
    "the tape finds no path from {} to the outputs: look for .detach(), .numpy() and .array, and "
    "for what is computed without minigrad's operations",
    "the tape finds no path from {} to the gradient: a rule leaves the tape, by .array, .numpy() "
    "or detach(); it is to use operators and minigrad's functions alone",
)
NOT_FINITE: Final = (
    "the values are finite, and the gradient is not: a rule divides by 0, or the branch that "
    "where() does not choose has no derivative; let both branches compute with safe numbers"
)
NONLINEAR: Final = (
    "every entry by itself is right: a rule is not linear in the gradient g that it is given"
)


@dataclass
class Look:
    """What differences found along one direction."""

    direction: Vector
    found: Derivative


@dataclass
class Claim:
    """What gradients say of the derivatives along the direction of a look.

    Attributes:
        mode: how they were computed.
        values: the derivatives of all elements of the outputs, or of what ``weights`` make of
            them.
        rounding: how far off they may be for being computed in floats.
        weights: (k, m), or ``None``.
    """

    mode: Mode
    values: Vector
    rounding: Vector
    weights: Matrix | None = None

    def excess(self, found: Derivative) -> Vector:
        """By how much each of them is outside of what differences allow, or 0."""
        value, error = found.value, found.error
        if self.weights is not None:
            value, error = self.weights @ value, numpy.abs(self.weights) @ error
        off = numpy.abs(self.values - value)
        return numpy.where(off <= error + self.rounding, 0.0, numpy.nan_to_num(off, nan=numpy.inf))


class Check:
    """The check of one order of derivative.

    Attributes:
        function: what is checked: f, or a gradient of it.
        level: the order.
        points: its inputs in float64, and their ``scales``.
        recording: the function at these; ``None`` if its gradients were given.
        outs: the arrays of its outputs, of m elements in all, and their names ``outputs``.
        terms: (m,), the size of f where this is a gradient of f, or 0. Terms of that size may
            have cancelled in the values, and left their rounding.
        small: (m,), the size below which values may be nothing but rounding.
        sizes: (m,), the size of the output that each element is of, or of its terms.
        covectors: (k, m), the vectors u that the outputs are weighed by.
        pulled: (k, n), the gradients u J.
    """

    def __init__(
        self,
        function: FlatFunction,
        level: int,
        rng: numpy.random.Generator,
        method: Method,
        jacobian: bool = False,
        size: float = 0.0,
        small: float = SMALL,
    ) -> None:
        """A gradient of f is told the size of f, and below which f may be nothing but rounding."""
        self.function = function
        self.what = function.name
        self.level = level
        self.rng = rng
        self.method = method
        self.jacobian = jacobian
        self.size_of_f, self.small_for_f = size, small
        self.points = [point.astype("float64", copy=False) for point in function.points]
        self.scales = [_scale(point) for point in self.points]
        self.recording: Recording | None = None
        self.watched = [*self.points, *function.points, *function.constants]
        self.before = [to_numpy(array).copy() for array in self.watched]

    # ---------------------------------------------------------------- the steps of a check

    def run(self, modes: Sequence[Mode]) -> Check:
        """Check, and return the check of the next order."""
        try:
            self.recording = Recording(self.function, self.points)
        except TapeError as error:
            if self.level == 1:
                raise
            raise GradientError(f"{self.what} could not be recorded: {error}") from error
        self.look_at(self.recording.outs)
        # With which all outputs count alike, however large they are.
        covector = self.random(self.sizes.size) / numpy.maximum(self.sizes, self.small)
        self.covectors = numpy.eye(covector.size) if self.jacobian else covector[None]
        # f is called elsewhere before the gradient is asked for: what it keeps outside of the
        # tape is stale by then.
        looks = self.looks()
        if "vjp" in modes:
            self.pulled = self.pulled_twice(self.recording)
        for look in looks:
            for mode in modes:
                self.compare(look, mode)
        if "vjp" in modes and self.level == 1:
            self.compare_dtypes()
        return self.next_check(covector)

    def compare_with(self, gradients: list[Array]) -> None:
        """Check gradients that were given."""
        self.look_at(self.function.named([asarray(point) for point in self.points]))
        if self.sizes.size != 1:
            raise ValueError(f"{self.what} is to return one number, not {self.sizes.size}")
        for i, (gradient, point) in enumerate(zip(gradients, self.function.points, strict=True)):
            check_fits(self.function, i, gradient, point)
        self.covectors = numpy.ones((1, 1))
        self.pulled = flat(gradients)[None]
        for look in self.looks():
            self.compare(look, "vjp", half_of(*[g.dtype for g in gradients]))

    def next_check(self, covector: Vector) -> Check:
        """The check of the gradient  x -> u J,  with one output for each input."""
        function = self.function

        def gradient(tensors: Sequence[Tensor]) -> Any:
            value, pull = vjp(lambda *xs: function(xs), *tensors)
            return pull(shaped(covector, [out.array for out in value]))

        following = replace(function, name=f"the gradient of {function.name}", call=gradient)
        size = _largest(covector * self.sizes)
        small = _largest(covector * self.small) or SMALL
        # Of what computes a gradient, complex numbers have no derivative.
        method = "central" if self.method == "complex" else self.method
        return Check(following, self.level + 1, self.rng, method, self.jacobian, size, small)

    # ---------------------------------------------------------------- values

    def look_at(self, outs: dict[str, Tensor]) -> None:
        """Learn the outputs; check that they are finite, and the same when computed again."""
        if not outs:
            raise TypeError(f"{self.what} returns no Tensor of floats, so it has no derivative")
        self.outs = [out.array for out in outs.values()]
        self.outputs = list(outs)
        bases = [1.0] * len(outs)
        if self.level > 1:
            self.outputs = [f"(the gradient for {name})" for name in self.function.inputs]
            bases = [1.0 / scale for scale in self.scales]
        first = flat(self.outs)
        if not numpy.isfinite(first).all():
            place = int(numpy.argmin(numpy.isfinite(first)))
            raise GradientError(
                f"{self.what} is {first[place]} at {self.output(place)}: check it where its values "
                "are finite"
            )
        base = self.for_each_element(bases)
        self.terms, self.small = self.size_of_f * base, self.small_for_f * base
        largest = self.for_each_element([_largest(out) for out in self.outs])
        self.sizes = numpy.maximum(self.terms, largest)
        again = self.values(self.points)
        self.check_unchanged(self.what)
        units = numpy.maximum(self.sizes, self.small)
        if not _same(first / units, again / units):
            place = int(numpy.abs((first - again) / units).argmax())
            raise GradientError(
                f"{self.what} gives two values for the same inputs: {first[place]:.17g} and "
                f"{again[place]:.17g} at {self.output(place)}. If it draws random numbers, let it "
                "make its generator anew in every call, from a seed"
            )

    def values(self, points: Iterable[Array]) -> NDArray[Any]:
        """All elements of all outputs, (m,)."""
        with numpy.errstate(all="ignore"):
            outs = self.function([Tensor(point) for point in points])
        shapes, expected = [out.shape for out in outs], [out.shape for out in self.outs]
        if shapes != expected:
            raise GradientError(
                f"{self.what} returns {shapes} at a point beside the inputs, and {expected} at "
                "the inputs themselves"
            )
        return flat([out.array for out in outs])

    def for_each_element(self, numbers: Sequence[float]) -> Vector:
        """(m,), of one number for each output."""
        return numpy.repeat(numbers, [out.size for out in self.outs])

    def check_unchanged(self, who: str) -> None:
        """Raise if an input was written to."""
        names = [*self.function.inputs * 2, *["a constant"] * len(self.function.constants)]
        for name, now, before in zip(names, self.watched, self.before, strict=True):
            if not numpy.array_equal(to_numpy(now), before, equal_nan=before.dtype.kind == "f"):
                raise GradientError(
                    f"{who} wrote to {name}: compute a new array instead, since the tape and the "
                    "caller rely on the old one"
                )

    # ---------------------------------------------------------------- differences

    def random(self, size: int) -> Vector:
        """Numbers of random sign, none of them small."""
        return self.rng.choice([-1.0, 1.0], size) * self.rng.uniform(0.5, 1.5, size)

    def looks(self) -> list[Look]:
        """Differences along every direction."""
        found = [Look(v, self.differences(v)) for v in self.directions() if v.any()]
        for look in found:
            if look.found.trouble:
                self.look_again(look)
        return found

    def directions(self) -> Iterable[Vector]:
        """One direction in each input; in higher orders, one in all of them.

        The step in an input is a part of the size of that input.
        """
        scales = numpy.repeat(self.scales, [point.size for point in self.points])
        if self.jacobian:
            return numpy.diag(scales)
        whole = scales * self.random(scales.size)
        return self.parts(whole) if self.level == 1 else [whole]

    def parts(self, direction: Vector) -> list[Vector]:
        """A direction in each input, of one in all of them."""
        inputs = numpy.repeat(numpy.arange(len(self.points)), [point.size for point in self.points])
        return [numpy.where(inputs == i, direction, 0.0) for i in range(len(self.points))]

    def differences(self, direction: Vector, *, careful: bool = False) -> Derivative:
        """The derivative of all outputs along a direction."""
        moved = shaped(direction, self.points)
        # An output is compared with itself, and not with others that are larger.
        units = numpy.where(self.sizes > VANISHING, self.sizes, self.small)

        def along(t: Any) -> NDArray[Any]:
            points = [x + t * v for x, v in zip(self.points, moved, strict=True)]
            return self.values(points) / units

        found = differentiate(
            along, self.method, careful=careful, terms=self.terms / units, small=self.small / units
        )
        return replace(
            found,
            value=found.value * units,
            error=found.error * units,
            slopes=[slope * units for slope in found.slopes],
        )

    def look_again(self, look: Look) -> None:
        """Take the differences of ``look`` anew, carefully; raise if there are none."""
        look.found = found = self.differences(look.direction, careful=True)
        if found.digits is not None:
            raise GradientError(
                f"the values of {self.what} have about {found.digits:.0f} digits, where float64 "
                "has 16: it computes in a smaller dtype somewhere, or loses them to cancellation"
            )
        if found.trouble:
            raise KinkError(
                f"{self.what} seems to have no derivative at this sample: {found.trouble}, in "
                f"{self.output(found.where)} along a direction in {self.subject(look)}. Draw "
                "values away from its kinks and jumps; in a test of hypothesis kinks='reject' "
                "draws another sample"
            )

    # ---------------------------------------------------------------- gradients

    def pulled_twice(self, recording: Recording) -> Matrix:
        """u J  for all covectors; check that it is the same when computed again."""
        pulled, again = recording.pull(self.covectors), recording.pull(self.covectors)
        self.check_unchanged(f"a rule of {self.what}")
        if not _same(pulled, again):
            place = int(numpy.abs(pulled - again).max(axis=0).argmax())
            raise GradientError(
                f"the gradient of {self.what} for {self.input(place)} is another one when it is "
                "computed again: a rule writes to an array that the tape saved, or keeps a state"
            )
        return pulled

    def claim(self, direction: Vector, mode: Mode, precision: float) -> Claim:
        """What gradients say of the derivatives along a direction, and how precisely."""
        cancelled = ROUNDING * self.sizes
        if mode == "jvp":
            assert self.recording is not None
            pushed = self.recording.push(direction)
            return Claim(mode, pushed, precision * numpy.abs(pushed) + cancelled)
        with numpy.errstate(all="ignore"):
            products = _along(self.pulled, direction)
            rounding = precision * _along(numpy.abs(self.pulled), numpy.abs(direction))
            rounding += numpy.abs(self.covectors) @ cancelled
        return Claim(mode, products, numpy.nan_to_num(rounding), self.covectors)

    def products(self, covectors: Matrix, direction: Vector, mode: Mode) -> Vector:
        """U J v  by gradients, (k,)."""
        if self.recording is None:
            return _along(covectors @ self.pulled, direction)
        if mode == "jvp":
            return covectors @ self.recording.push(direction)
        return _along(self.recording.pull(covectors), direction)

    def noise(self, claim: Claim, direction: Vector) -> Vector:
        """How much a claim changes next to the inputs: what terms that cancel have left in it."""
        changes = []
        for sign in (-1.0, 1.0):
            beside = Recording(
                self.function, [point * (1.0 + sign * NEAR) for point in self.points]
            )
            if claim.mode == "jvp":
                values = beside.push(direction)
            else:
                values = _along(beside.pull(self.covectors), direction)
            changes.append(numpy.abs(values - claim.values))
        return 4.0 * numpy.maximum(*changes)

    # ---------------------------------------------------------------- comparing

    def compare(self, look: Look, mode: Mode, precision: float = ROUNDING) -> None:
        """Compare the derivatives along a direction: (u J) . v,  or all elements of  J v."""
        claim = self.claim(look.direction, mode, precision)
        if self.wrong(look, claim):
            for part in self.narrowed(look):
                self.compare(part, mode, precision)
            self.fail(look, claim)

    def wrong(self, look: Look, claim: Claim) -> bool:
        """Whether a claim is wrong for certain.

        If it looks wrong, the differences are taken once more, carefully. If it still does, the
        noise of the gradient is measured, too.
        """
        if not claim.excess(look.found).any():
            return False
        self.look_again(look)
        if claim.excess(look.found).any() and self.recording is not None:
            claim.rounding = numpy.maximum(claim.rounding, self.noise(claim, look.direction))
        return bool(claim.excess(look.found).any())

    def narrowed(self, look: Look) -> list[Look]:
        """A look at each input by itself, if there are several in the direction."""
        parts = [part for part in self.parts(look.direction) if part.any()]
        return [Look(part, self.differences(part)) for part in parts] if len(parts) > 1 else []

    def compare_dtypes(self) -> None:
        """Compare gradients in the inputs' own dtypes with those in float64."""
        dtypes = [point.dtype for point in self.function.points]
        if all(dtype == "float64" for dtype in dtypes):
            return
        own = Recording(self.function, self.function.points).pull(self.covectors)
        off = numpy.abs(own - self.pulled)
        start = 0
        for point in self.points:
            part = slice(start, start + point.size)
            start += point.size
            size = _largest(point)
            least = _largest(self.covectors * self.sizes) / size if size else 0.0
            scale = numpy.abs(self.pulled[:, part]).max(initial=least)
            wrong = ~(off[:, part] <= half_of(*dtypes) * scale)
            if wrong.any():
                k, j = numpy.argwhere(wrong)[0]
                j += part.start
                raise GradientError(
                    f"the gradient of {self.what} for {self.input(j)} is off by {off[k, j]:.3g} "
                    f"from {self.pulled[k, j]:.9g}, which it is in float64, as differences "
                    f"confirm; the inputs are of "
                    f"{', '.join(sorted({str(dtype) for dtype in dtypes}))}"
                )

    # ---------------------------------------------------------------- reporting

    def fail(self, look: Look, claim: Claim) -> NoReturn:
        """Raise the error that says all that is known."""
        k = int(claim.excess(look.found).argmax())
        if claim.weights is None:
            u, what = _unit(k, claim.values.size), f"J v  at {self.output(k)}"
        else:
            u, what = claim.weights[k], "(u J) . v"
        worst = worst_entry(
            lambda covectors, direction: self.products(covectors, direction, claim.mode),
            self.differences,
            look.direction,
            u,
        )
        entry = None
        if worst is not None:
            name = f"d {self.output(worst.row)} / d {self.input(worst.column)}"
            entry = Entry(name, worst.gradient, worst.differences, worst.factor)
        inputs = self.inputs_of(look)
        direction = shaped(look.direction, self.points)[inputs[0]]
        raise GradientError(
            str(
                Mismatch(
                    function=self.what,
                    subject=self.subject(look, described=True),
                    how=f"order {self.level}, {claim.mode if self.recording else 'given'}:  {what}",
                    gradient=float(claim.values[k]),
                    differences=float(u @ look.found.value),
                    error=float(numpy.abs(u) @ look.found.error + claim.rounding[k]),
                    steps=look.found.steps,
                    slopes=[float(u @ slope) for slope in look.found.slopes],
                    direction=look.direction if len(inputs) > 1 else to_numpy(direction),
                    entry=entry,
                    advice=self.advice(look, claim.mode, u),
                )
            )
        )

    def advice(self, look: Look, mode: Mode, u: Vector) -> str:
        """What is the cause of a failure, if that can be told."""
        if self.recording is None or mode == "jvp":
            return ""
        inputs = self.inputs_of(look)
        if len(inputs) == 1 and not self.recording.connected[inputs[0]]:
            return UNCONNECTED[self.level > 1].format(self.function.inputs[inputs[0]])
        once, more = self.recording.pull(numpy.stack([u, -3.0 * u]))
        if not numpy.isfinite(once).all():
            return NOT_FINITE
        return "" if _same(-3.0 * once, more) else NONLINEAR

    def inputs_of(self, look: Look) -> list[int]:
        """The inputs that a direction moves."""
        return [i for i, part in enumerate(self.parts(look.direction)) if part.any()]

    def subject(self, look: Look, described: bool = False) -> str:
        """The name of the input that a direction moves; with shape and dtype if it is wished."""
        inputs = self.inputs_of(look)
        if len(inputs) > 1:
            return "all inputs together"
        (i,) = inputs
        name = self.function.inputs[i]
        return f"{name}, {describe(self.function.points[i])}," if described else name

    def input(self, place: int) -> str:
        """The name of an element of all inputs."""
        return element(place, self.function.inputs, self.points)

    def output(self, place: int) -> str:
        """The name of an element of all outputs."""
        return element(place, self.outputs, self.outs)


def half_of(*dtypes: Any) -> float:
    """The relative error that leaves half of the digits of the smallest dtype."""
    eps = max([float(numpy.finfo(dtype).eps) for dtype in dtypes])
    return max(eps**0.5 if eps > EPS else 0.0, ROUNDING)


def _same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Whether two arrays are equal but for the order in which sums were taken."""
    off = numpy.abs(a - b) <= 16.0 * EPS * numpy.max(numpy.abs(a), initial=0.0)
    return bool((off | (a == b) | (numpy.isnan(a) & numpy.isnan(b))).all())


def _along(rows: Matrix, direction: Vector) -> Vector:
    """The product of the two; what is not finite counts only where the direction leads."""
    moved = direction != 0.0
    return rows[:, moved] @ direction[moved]


def _largest(array: Array) -> float:
    """The size of the largest element, or 0."""
    return float(abs(array).max()) if array.size else 0.0


def _scale(point: Array) -> float:
    """The size of the largest element; 1 if all are 0, or have squares that are."""
    largest = _largest(point)
    return largest if VANISHING < largest < numpy.inf else 1.0


def _unit(place: int, size: int) -> Vector:
    unit = numpy.zeros(size)
    unit[place] = 1.0
    return unit
