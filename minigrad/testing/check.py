"""The check of one order of derivative: gradients on the one side, differences on the other.

All inputs are looked at as one vector x of n elements, and all outputs as one of m elements,
so that there is one Jacobian J, (m, n). Directions v have n elements, covectors u have m.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, NoReturn, TypeAlias

import numpy
from numpy.typing import NDArray

from minigrad.arrays import Array, namespace, to_numpy
from minigrad.derivatives import jvp, vjp
from minigrad.ops import reshape
from minigrad.tape import Tape
from minigrad.tensor import TapeError, Tensor, asarray, describe
from minigrad.testing.differences import EPS, Derivative, Method, Vector, differentiate
from minigrad.testing.flattening import FlatFunction
from minigrad.testing.report import Entry, GradientError, KinkError, Mismatch

Matrix: TypeAlias = "NDArray[numpy.float64]"
Mode = Literal["vjp", "jvp"]

#: The Jacobian is computed in full to find its worst entry if it has no more entries.
FULL: Final = 400
#: The rounding of a gradient in float64, relative to its terms.
ROUNDING: Final = 16.0 * EPS

#: How far from the inputs the noise of a gradient is measured, relative to them.
NEAR: Final = 2.0**-45

#: The square of a number below this is not a normal number any more.
VANISHING: Final = float(numpy.finfo(numpy.float64).tiny) ** 0.5

#: What to look for if the tape does not know of an input, in the first and in higher orders.
UNCONNECTED: Final = (
    "the tape finds no path from {} to the outputs: look for .detach(), .numpy() and .array, and "
    "for what is computed without minigrad's operations",
    "the tape finds no path from {} to the gradient: a rule leaves the tape, by .array, .numpy() "
    "or detach(); it is to use operators and minigrad's functions alone",
)
NONLINEAR: Final = (
    "every entry by itself is right: a rule is not linear in the gradient g that it is given"
)


@dataclass
class Look:
    """What differences found along one direction."""

    direction: Vector
    found: Derivative


class Check:
    """The check of one order of derivative.

    Attributes:
        function: what is checked: f, or a gradient of it.
        level: the order.
        points: its inputs in float64.
        outputs: a name for each output, and their ``shapes`` and ``sizes``.
        covectors: (k, m), the vectors u that the outputs are weighed by.
        connected: for each input, whether the tape knows that the outputs depend on it.
        terms: the size of f, or of a gradient that led to this one. Terms of that size may
            have cancelled in the values, and left their rounding.
        given: gradients from elsewhere, (1, n), in place of those of the tape.
    """

    given: Matrix | None = None

    def __init__(
        self,
        function: FlatFunction,
        level: int,
        rng: numpy.random.Generator,
        method: Method,
        jacobian: bool = False,
        terms: float = 0.0,
    ) -> None:
        self.function = function
        self.what = function.name
        self.level = level
        self.rng = rng
        self.method = method
        self.jacobian = jacobian
        self.terms = terms
        self.points = [point.astype("float64", copy=False) for point in function.points]
        self.ends = numpy.cumsum([point.size for point in self.points])
        self.scales = [_scale(point) for point in self.points]
        self.connected = [True] * len(self.points)
        self.watched = [*self.points, *function.points, *function.constants]
        self.before = [to_numpy(array).copy() for array in self.watched]

    # ---------------------------------------------------------------- the steps of a check

    def run(self, modes: Sequence[Mode]) -> FlatFunction:
        """Check, and return the function whose check is that of the next order."""
        self.record(self.points)
        self.look_at(self.outs)
        size = sum(self.sizes)
        self.covector = self.random(size)
        self.covectors = numpy.eye(size) if self.jacobian else self.covector[None]
        # f is called elsewhere before the gradient is asked for: what it keeps outside of the
        # tape is stale by then.
        looks = self.looks()
        pulled = self.pulled_twice() if "vjp" in modes else None
        for look in looks:
            if pulled is not None:
                self.compare_pulled(look, pulled)
            if "jvp" in modes:
                self.compare_pushed(look)
        if pulled is not None and self.level == 1:
            self.compare_dtypes(pulled)
        return self.next_function()

    def compare_with(self, gradients: list[Array]) -> None:
        """Check gradients that were given."""
        self.look_at(self.function.named([asarray(point) for point in self.points]))
        if sum(self.sizes) != 1:
            raise ValueError(f"{self.what} is to return one number, not {sum(self.sizes)}")
        for name, gradient, point in zip(
            self.function.inputs, gradients, self.function.points, strict=True
        ):
            self.check_fits(name, gradient, point)
        self.covectors = numpy.ones((1, 1))
        self.given = _flat(gradients)[None]
        for look in self.looks():
            self.compare_pulled(look, self.given, half_of(*[g.dtype for g in gradients]))

    # ---------------------------------------------------------------- values

    def record(self, points: list[Array]) -> None:
        """Compute the outputs at ``points`` on a tape."""
        self.leaves = [asarray(point, requires_grad=True) for point in points]
        try:
            with numpy.errstate(all="ignore"), Tape() as self.tape:
                # An output that is an input itself is at a slot of its own, too.
                outs = self.function.named([reshape(x, x.shape) for x in self.leaves])
                # Whose gradient is the covector as the rules of f leave it behind.
                self.seeds = [
                    asarray(namespace(out.array).zeros_like(out.array), requires_grad=True)
                    for out in outs.values()
                ]
                pairs = zip(outs.items(), self.seeds, strict=True)
                self.outs = {name: out + seed for (name, out), seed in pairs}
        except TapeError as error:
            if self.level == 1:
                raise
            raise GradientError(f"{self.what} could not be recorded: {error}") from error

    def values(self, points: Iterable[Array]) -> NDArray[Any]:
        """All elements of all outputs, (m,)."""
        with numpy.errstate(all="ignore"):
            outs = self.function([Tensor(point) for point in points])
        shapes = [out.shape for out in outs]
        if shapes != self.shapes:
            raise GradientError(
                f"{self.what} returns {shapes} at a point beside the inputs, and {self.shapes} at "
                "the inputs themselves"
            )
        return _flat([out.array for out in outs])

    def look_at(self, outs: dict[str, Tensor]) -> None:
        """Learn the outputs; check that they are finite, and the same when computed again."""
        if not outs:
            raise TypeError(f"{self.what} returns no Tensor of floats, so it has no derivative")
        self.outputs = list(outs)
        if self.level > 1:
            self.outputs = [f"(the gradient for {name})" for name in self.function.inputs]
        self.shapes = [out.shape for out in outs.values()]
        self.sizes = [out.size for out in outs.values()]
        first = _flat([out.array for out in outs.values()])
        if not numpy.isfinite(first).all():
            place = int(numpy.argmin(numpy.isfinite(first)))
            raise GradientError(
                f"{self.what} is {first[place]} at {self.output(place)}: check it where its values "
                "are finite"
            )
        self.largest = float(numpy.abs(first).max(initial=0.0))
        again = self.values(self.points)
        self.check_unchanged(self.what)
        if not _same(first, again):
            place = int(numpy.abs(first - again).argmax())
            raise GradientError(
                f"{self.what} gives two values for the same inputs: {first[place]:.17g} and "
                f"{again[place]:.17g} at {self.output(place)}. If it draws random numbers, let it "
                "make its generator anew in every call, from a seed"
            )

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
        places = numpy.arange(direction.size)
        pairs = zip([0, *self.ends], self.ends, strict=False)
        return [
            numpy.where((start <= places) & (places < end), direction, 0.0) for start, end in pairs
        ]

    def differences(self, direction: Vector, *, careful: bool = False) -> Derivative:
        """The derivative of all outputs along a direction."""
        moved = self.shaped(direction)

        def along(t: Any) -> NDArray[Any]:
            return self.values([x + t * v for x, v in zip(self.points, moved, strict=True)])

        return differentiate(along, self.method, careful=careful, terms=self.terms)

    def shaped(self, direction: Vector) -> list[Array]:
        """A direction as arrays like the inputs, in their memory order, too."""
        found = []
        for point, part in zip(self.points, numpy.split(direction, self.ends[:-1]), strict=True):
            moved = namespace(point).zeros_like(point)
            moved[...] = namespace(point).asarray(part.reshape(point.shape))
            found.append(moved)
        return found

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
                f"{self.what} has no derivative at this sample: {found.trouble}, in "
                f"{self.output(found.where)} along a direction in {self.subject(look)}. Draw "
                "values away from its kinks and jumps; in a test of hypothesis kinks='reject' "
                "draws another sample"
            )

    # ---------------------------------------------------------------- gradients

    def pulled_twice(self) -> Matrix:
        """u J  for all covectors; check that it is the same when computed again."""
        pulled, again = self.pull(self.covectors), self.pull(self.covectors)
        self.check_unchanged(f"a rule of {self.what}")
        if not _same(pulled, again):
            place = int(numpy.abs(pulled - again).max(axis=0).argmax())
            raise GradientError(
                f"the gradient of {self.what} for {self.input(place)} is another one when it is "
                "computed again: a rule writes to an array that the tape saved, or keeps a state"
            )
        return pulled

    def pull(self, covectors: Matrix) -> Matrix:
        """u J  for every u in the rows of ``covectors``, (k, n)."""
        if self.given is not None:
            return covectors @ self.given
        self.function.place(self.leaves)
        self.connected = [False] * len(self.leaves)
        rows = numpy.zeros((len(covectors), self.ends[-1]))
        for row, u in zip(rows, covectors, strict=True):
            for place, part in enumerate(self.split(u)):
                row += self.gradient(place, part)
        return rows

    def gradient(self, place: int, covector: Vector) -> Vector:
        """The gradient of one output, (n,), checked to be of the inputs' shapes and dtypes."""
        out = list(self.outs.values())[place]
        sources = [*self.leaves, self.seeds[place]]
        try:
            with numpy.errstate(all="ignore"):
                *found, seed = self.tape.gradient(
                    out, sources, _like(out, covector), retain=True, unconnected="none"
                )
        except TapeError as error:
            raise GradientError(f"the gradient of {self.what} fails: {error}") from error
        if not numpy.array_equal(seed.numpy(), to_numpy(_like(out, covector))):
            raise GradientError(
                f"a rule of {self.what} writes to the gradient that it is given: compute a new "
                "array instead"
            )
        parts = []
        for i, (leaf, part) in enumerate(zip(self.leaves, found, strict=True)):
            if part is None:
                parts.append(numpy.zeros(leaf.size))
            else:
                self.connected[i] = True
                self.check_fits(self.function.inputs[i], part.array, leaf.array)
                parts.append(part.array)
        return _flat(parts)

    def check_fits(self, name: str, gradient: Array, point: Array) -> None:
        """Raise unless a gradient has the shape and dtype of its input."""
        if gradient.shape != point.shape or gradient.dtype != point.dtype:
            raise GradientError(
                f"the gradient of {self.what} for {name} is {describe(gradient)}, and the input "
                f"is {describe(point)}"
            )

    def push(self, direction: Vector, points: list[Array] | None = None) -> Vector:
        """J v  for a direction v, (m,); at the inputs, or at other ``points``."""
        at = tuple(self.points if points is None else points)
        try:
            with numpy.errstate(all="ignore"):
                _, pushed = jvp(lambda *xs: self.function(xs), at, tuple(self.shaped(direction)))
        except TapeError as error:
            raise GradientError(
                f"the derivative of {self.what} in forward mode fails: {error}"
            ) from error
        return _flat([part.array for part in pushed])

    def next_function(self) -> FlatFunction:
        """The gradient  x -> u J,  with one output for each input."""
        function, parts = self.function, self.split(self.covector)

        def gradient(tensors: Sequence[Tensor]) -> Any:
            value, pull = vjp(lambda *xs: function(xs), *tensors)
            return pull([_like(out, part) for out, part in zip(value, parts, strict=True)])

        return replace(function, name=f"the gradient of {function.name}", call=gradient)

    # ---------------------------------------------------------------- comparing

    def compare_pulled(self, look: Look, pulled: Matrix, precision: float = ROUNDING) -> None:
        """Compare  (u J) . v  with differences."""
        with numpy.errstate(all="ignore"):
            products = pulled @ look.direction
            rounding = precision * (numpy.abs(pulled) @ numpy.abs(look.direction))
            rounding += self.cancelled() * numpy.abs(self.covectors).sum(axis=1)

        def near(points: list[Array]) -> Vector:
            self.record(points)
            return self.pull(self.covectors) @ look.direction

        allowed = self.confirmed(look, products, rounding, self.covectors, near)
        if allowed is not None:
            for part in self.narrowed(look):
                self.compare_pulled(part, pulled, precision)
            self.fail(look, "vjp", products, allowed, self.covectors)

    def compare_pushed(self, look: Look) -> None:
        """Compare  J v  with differences, element by element."""
        pushed = self.push(look.direction)
        rounding = ROUNDING * numpy.abs(pushed) + self.cancelled()

        def near(points: list[Array]) -> Vector:
            return self.push(look.direction, points)

        allowed = self.confirmed(look, pushed, rounding, None, near)
        if allowed is not None:
            for part in self.narrowed(look):
                self.compare_pushed(part)
            self.fail(look, "jvp", pushed, allowed, None)

    def cancelled(self) -> float:
        """What terms that cancel may leave in a derivative along a direction."""
        return ROUNDING * max(self.terms, self.largest)

    def narrowed(self, look: Look) -> list[Look]:
        """A look at each input by itself, if there are several in the direction."""
        parts = [part for part in self.parts(look.direction) if part.any()]
        return [Look(part, self.differences(part)) for part in parts] if len(parts) > 1 else []

    def confirmed(
        self,
        look: Look,
        derivatives: Vector,
        rounding: Vector,
        weights: Matrix | None,
        near: Callable[[list[Array]], Vector],
    ) -> Vector | None:
        """The rounding beyond which derivatives are wrong; ``None`` if they are right after all.

        Of those that look wrong, the differences are taken once more, and the noise of the
        gradient is measured, too: what terms that cancel have left is another number ``near``
        the inputs.
        """
        if not self.excess(look, derivatives, rounding, weights).any():
            return None
        self.look_again(look)
        if not self.excess(look, derivatives, rounding, weights).any():
            return None
        if self.given is None:
            for sign in (-1.0, 1.0):
                beside = near([point * (1.0 + sign * NEAR) for point in self.points])
                rounding = numpy.maximum(rounding, 4.0 * numpy.abs(beside - derivatives))
            self.record(self.points)
        return rounding if self.excess(look, derivatives, rounding, weights).any() else None

    def excess(
        self, look: Look, derivatives: Vector, rounding: Vector, weights: Matrix | None
    ) -> Vector:
        """By how much each derivative is outside of what differences allow, or 0.

        The derivatives are those of the elements, or of what ``weights`` make of them.
        """
        value, error = look.found.value, look.found.error
        if weights is not None:
            value, error = weights @ value, numpy.abs(weights) @ error
        off = numpy.abs(derivatives - value)
        return numpy.where(off <= error + rounding, 0.0, numpy.nan_to_num(off, nan=numpy.inf))

    def compare_dtypes(self, exact: Matrix) -> None:
        """Compare gradients in the inputs' own dtypes with those in float64."""
        dtypes = [point.dtype for point in self.function.points]
        if all(dtype == "float64" for dtype in dtypes):
            return
        self.record(self.function.points)
        off = numpy.abs(self.pull(self.covectors) - exact)
        for start, end, point in zip([0, *self.ends], self.ends, self.points, strict=False):
            size = float(abs(point).max()) if point.size else 0.0
            scale = numpy.abs(exact[:, start:end]).max(initial=self.largest / size if size else 0.0)
            wrong = ~(off[:, start:end] <= half_of(*dtypes) * scale)
            if wrong.any():
                k, j = numpy.argwhere(wrong)[0]
                raise GradientError(
                    f"the gradient of {self.what} for {self.input(start + j)} is off by "
                    f"{off[k, start + j]:.3g} from {exact[k, start + j]:.9g}, which it is in "
                    f"float64, as differences confirm; the inputs are of "
                    f"{', '.join(sorted({str(dtype) for dtype in dtypes}))}"
                )

    # ---------------------------------------------------------------- reporting

    def fail(
        self,
        look: Look,
        mode: Mode,
        derivatives: Vector,
        rounding: Vector,
        weights: Matrix | None,
    ) -> NoReturn:
        """Raise the error that says all that is known."""
        k = int(self.excess(look, derivatives, rounding, weights).argmax())
        u = _unit(k, derivatives.size) if weights is None else weights[k]
        entry = self.worst_entry(look, mode, u)
        found, inputs = look.found, self.inputs_of(look)
        advice, direction = "", look.direction
        if len(inputs) == 1:
            direction = self.shaped(direction)[inputs[0]]
            if mode == "vjp" and not self.connected[inputs[0]]:
                advice = UNCONNECTED[self.level > 1].format(self.function.inputs[inputs[0]])
        what = "(u J) . v" if mode == "vjp" else f"J v  at {self.output(k)}"
        source = mode if self.given is None else "given"
        raise GradientError(
            str(
                Mismatch(
                    function=self.what,
                    subject=self.subject(look, described=True),
                    how=f"order {self.level}, {source}:  {what}",
                    gradient=float(derivatives[k]),
                    differences=float(u @ found.value),
                    error=float(numpy.abs(u) @ found.error + rounding[k]),
                    steps=found.steps,
                    slopes=[float(u @ slope) for slope in found.slopes],
                    direction=to_numpy(direction),
                    entry=entry,
                    advice=NONLINEAR if entry.right else advice,
                )
            )
        )

    def worst_entry(self, look: Look, mode: Mode, u: Vector) -> Entry:
        """The entry of the Jacobian that is most wrong, or of a large one one that is."""
        columns, m = numpy.flatnonzero(look.direction), sum(self.sizes)
        if len(columns) * m > FULL:
            return self.entry_by_halves(look, mode, u)
        units = [_unit(int(j), look.direction.size) for j in columns]
        numeric = numpy.stack([self.differences(unit).value for unit in units], axis=1)
        if mode == "vjp":
            analytic = self.pull(numpy.eye(m))[:, columns]
        else:
            analytic = numpy.stack([self.push(unit) for unit in units], axis=1)
        off = numpy.nan_to_num(numpy.abs(analytic - numeric), nan=numpy.inf)
        r, c = numpy.unravel_index(int(off.argmax()), off.shape)
        entry = self.entry(int(r), int(columns[c]), analytic[r, c], numeric[r, c])
        if entry.right:
            return entry
        there = numpy.abs(numeric) > 1e-3 * numpy.abs(numeric).max()
        factors = analytic[there] / numeric[there]
        alike = factors.size > 1 and numpy.ptp(factors) <= 1e-4 * numpy.abs(factors).max()
        return replace(entry, factor=float(factors.mean())) if alike else entry

    def entry_by_halves(self, look: Look, mode: Mode, u: Vector) -> Entry:
        """An entry that is wrong, by halving the direction and then the covector."""
        columns = numpy.flatnonzero(look.direction)

        def along(low: int, high: int) -> float:
            part = numpy.zeros_like(look.direction)
            part[columns[low:high]] = look.direction[columns[low:high]]
            numeric = u @ self.differences(part).value
            analytic = self.pull(u[None])[0] @ part if mode == "vjp" else u @ self.push(part)
            return float(analytic - numeric)

        j = int(columns[_halved(along, len(columns))])
        unit = _unit(j, look.direction.size)
        numeric = self.differences(unit).value
        pushed = self.push(unit) if mode == "jvp" else None

        def analytic(covector: Vector) -> float:
            if pushed is not None:
                return float(covector @ pushed)
            return float(self.pull(covector[None])[0, j])

        def against(low: int, high: int) -> float:
            part = numpy.zeros_like(u)
            part[low:high] = u[low:high]
            return analytic(part) - float(part @ numeric)

        r = _halved(against, u.size)
        return self.entry(r, j, analytic(_unit(r, u.size)), numeric[r])

    def entry(self, r: int, j: int, analytic: float, numeric: float) -> Entry:
        """Entry (r, j) of the Jacobian, named."""
        return Entry(f"d {self.output(r)} / d {self.input(j)}", float(analytic), float(numeric))

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
        return _element(place, self.function.inputs, [point.shape for point in self.points])

    def output(self, place: int) -> str:
        """The name of an element of all outputs."""
        return _element(place, self.outputs, self.shapes)

    def split(self, covector: Vector) -> list[Vector]:
        """The part of a covector that belongs to each output."""
        return numpy.split(covector, numpy.cumsum(self.sizes)[:-1])


def half_of(*dtypes: Any) -> float:
    """The relative error that leaves half of the digits of the smallest dtype."""
    eps = max([float(numpy.finfo(dtype).eps) for dtype in dtypes])
    return max(eps**0.5 if eps > EPS else 0.0, ROUNDING)


def _flat(arrays: Sequence[Array]) -> NDArray[Any]:
    """All elements of the arrays in one vector, of float64 or of complex numbers."""
    joined = numpy.concatenate([to_numpy(array).ravel() for array in arrays])
    return joined if joined.dtype.kind == "c" else joined.astype("float64", copy=False)


def _like(tensor: Tensor, values: Vector) -> Array:
    """A vector as an array of the shape, dtype and device of a tensor."""
    return namespace(tensor.array).array(values.reshape(tensor.shape), dtype=tensor.dtype)


def _same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Whether two arrays are equal but for the order in which sums were taken."""
    off = numpy.abs(a - b) <= 16.0 * EPS * numpy.max(numpy.abs(a), initial=0.0)
    return bool((off | (a == b) | (numpy.isnan(a) & numpy.isnan(b))).all())


def _scale(point: Array) -> float:
    """The size of the largest element; 1 if all are 0, or have squares that are."""
    largest = float(abs(point).max()) if point.size else 0.0
    return largest if VANISHING < largest < numpy.inf else 1.0


def _unit(place: int, size: int) -> Vector:
    unit = numpy.zeros(size)
    unit[place] = 1.0
    return unit


def _element(place: int, names: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> str:
    """The name of an element of several flattened arrays: ``output[1, 2]``."""
    for name, shape in zip(names, shapes, strict=True):
        size = int(numpy.prod(shape))
        if place < size:
            index = ", ".join(map(str, numpy.unravel_index(place, shape)))
            return f"{name}[{index}]" if shape else name
        place -= size
    raise IndexError(place)


def _halved(mismatch: Callable[[int, int], float], size: int) -> int:
    """A place among ``size`` of them, by following the half with the larger mismatch."""
    low, high = 0, size
    while high - low > 1:
        middle = (low + high) // 2
        left, right = abs(mismatch(low, middle)), abs(mismatch(middle, high))
        low, high = (middle, high) if right > left or right != right else (low, middle)
    return low
