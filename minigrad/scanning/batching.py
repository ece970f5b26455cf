"""All steps at once: operations on values that have an axis of time before the others.

What a :class:`Schedule` computes is known before it runs, down to the arrays that may be written
over, so that running it is reading one list.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

from minigrad.arrays import Array
from minigrad.scanning import kernels
from minigrad.scanning.kernels import (
    OUT,
    as_recorded,
    axes_of,
    calls,
    computed,
    may_overwrite,
    viewed,
)
from minigrad.scanning.program import Instruction, Kind, Ref, read_by

#: Arrays by the numbers of the values: those that change with time have an axis of it.
Values = dict[int, Array]
#: Computes the results of an instruction, into an array if one is given and it can.
Compute = Callable[[Values, Array | None], Sequence[Array]]


class Batch:
    """What is known of all values.

    Args:
        kinds: of one step.
        timed: the values that are not the same at all steps.
        time: the number of steps.
        xp: the array library.
    """

    def __init__(self, kinds: Sequence[Kind], timed: Container[int], time: int, xp: Any) -> None:
        self.kinds = kinds
        self.timed = timed
        self.time = time
        self.xp = xp

    def is_timed(self, instruction: Instruction) -> bool:
        """Whether its results change with time."""
        return any([number in self.timed for number in instruction.reads])

    def compute(self, instruction: Instruction) -> Compute:
        """How to compute an instruction at all steps."""
        timed, primitive = self.is_timed(instruction), instruction.primitive
        view = viewed(instruction, self.kinds)
        if view is not None:
            number = instruction.operands[0].number
            return lambda values, out: view(values[number], int(timed))
        if primitive in kernels.ELEMENTWISE or primitive is kernels.COPY:
            return self._elementwise(instruction, timed)
        if not timed:
            return lambda values, out: computed(instruction, values.__getitem__)
        if primitive in kernels.ALONG_AXES:
            return self._along_axes(instruction)
        if primitive is kernels.CONCATENATE or primitive is kernels.STACK:
            return self._joining(instruction)
        ranks = [len(self.kinds[number].shape) for number in instruction.reads]
        if primitive is kernels.MATMUL and ranks[1] == 2:
            a, b = instruction.reads
            if b not in self.timed:
                return self._single_product(a, b)
            if ranks[0] == 2:
                return lambda values, out: [values[a] @ values[b]]
        return self._one_by_one(instruction)

    def _elementwise(self, instruction: Instruction, timed: bool) -> Compute:
        kind, empty = self.kinds[instruction.results[0]], self.xp.empty
        shape = (self.time, *kind.shape) if timed else kind.shape

        def argument(x: Any) -> Callable[[Values, Array], Any]:
            """With as many axes behind that of time as the result has."""
            if x is OUT:
                return lambda values, made: made
            if not isinstance(x, Ref):
                return lambda values, made: x
            missing = len(kind.shape) - len(self.kinds[x.number].shape)
            if x.number in self.timed and missing:
                index = (slice(None), *[None] * missing)
                return lambda values, made: values[x.number][index]
            return lambda values, made: values[x.number]

        called = [
            (function, [argument(x) for x in arguments])
            for function, arguments in calls(instruction, self.xp)
        ]

        def compute(values: Values, out: Array | None) -> Sequence[Array]:
            if out is None and not timed:  # in the order of the operand, a transposed weight's too
                return computed(instruction, values.__getitem__)
            made = empty(shape, kind.dtype) if out is None else out
            for function, arguments in called:
                function(*[argument(values, made) for argument in arguments])
            return (made,)

        return compute

    def _along_axes(self, instruction: Instruction) -> Compute:
        number, forward = instruction.operands[0].number, instruction.primitive.forward
        axes = tuple([1 + axis for axis in axes_of(instruction, self.kinds)])
        settings = instruction.settings | {"axis": axes[0] if len(axes) == 1 else axes}
        return lambda values, out: [forward(values[number], **settings)]

    def _joining(self, instruction: Instruction) -> Compute:
        xp, axis = self.xp, 1 + instruction.settings["axis"]
        join = xp.concatenate if instruction.primitive is kernels.CONCATENATE else xp.stack
        shapes = [
            (x.number, (self.time, *self.kinds[x.number].shape)) for x in instruction.operands
        ]
        return lambda values, out: [
            join([xp.broadcast_to(values[number], shape) for number, shape in shapes], axis)
        ]

    def _single_product(self, a: int, b: int) -> Compute:
        """One product for all steps, since the right side is always the same."""
        inner, columns = self.kinds[b].shape

        def compute(values: Values, out: Array | None) -> Sequence[Array]:
            left, right = values[a], values[b]
            rows = left.reshape(prod(left.shape[:-1]), inner)
            if out is None:
                return [(rows @ right).reshape(*left.shape[:-1], columns)]
            self.xp.matmul(rows, right, out=out.reshape(len(rows), columns))
            return [out]

        return compute

    def _one_by_one(self, instruction: Instruction) -> Compute:
        name = instruction.primitive.name

        def at(values: Values, t: int) -> Callable[[int], Array]:
            return lambda n: values[n][t, ...] if n in self.timed else values[n]

        def compute(values: Values, out: Array | None) -> Sequence[Array]:
            each = [computed(instruction, at(values, t)) for t in range(self.time)]
            return [
                self.xp.stack([as_recorded(name, array, self.kinds[n].shape) for array in arrays])
                for n, arrays in zip(instruction.results, zip(*each, strict=True), strict=True)
            ]

        return compute

    # ------------------------------------------------------------ sums over all steps

    def summed(self, number: int, values: Values) -> Array:
        """The sum of a value over all steps."""
        array = values[number]
        return array.sum(axis=0) if number in self.timed else array * self.time

    def adds(self, instruction: Instruction) -> bool:
        """Whether the sum of the results is that of the operands' sums."""
        if viewed(instruction, self.kinds) is not None:
            return True
        kinds = {self.kinds[n] for n in (*instruction.reads, *instruction.results)}
        return (
            instruction.primitive in kernels.ADDING
            and len(kinds) == 1
            and all([isinstance(x, Ref) for x in instruction.operands])
        )

    def is_summed_at_once(self, instruction: Instruction) -> bool:
        """Whether the sum over all steps takes no more than the values at one."""
        if instruction.primitive is kernels.MATMUL:
            return {len(self.kinds[n].shape) for n in instruction.reads} == {2}
        return instruction.primitive is kernels.SUM

    def summed_product(self, a: int, b: int, values: Values, turned: bool) -> Array:
        """The sum of a product of matrices: one product.

        ``turned`` if its transpose is wanted: that has its rows in one piece then, as parameters
        do.
        """
        left, right = values[a], values[b]
        both = a in self.timed and b in self.timed
        if not both:
            left = self.summed(a, values) if a in self.timed else left
            right = right if a in self.timed else self.summed(b, values)
        if turned:  # (A B)^T = B^T A^T
            left, right = right.swapaxes(-1, -2), left.swapaxes(-1, -2)
        if both:
            time, rows, inner = left.shape
            left = left.swapaxes(0, 1).reshape(rows, time * inner)
            right = right.reshape(time * inner, right.shape[-1])
        product = left @ right
        return product.T if turned else product

    def summed_sum(self, instruction: Instruction, values: Values) -> Array:
        """The sum of a sum over axes."""
        (number,) = instruction.reads
        array, keepdims = values[number], instruction.settings["keepdims"]
        axes = axes_of(instruction, self.kinds)
        if number not in self.timed:
            return array.sum(axes, keepdims=keepdims) * self.time
        total = array.sum((0, *[1 + axis for axis in axes]), keepdims=keepdims)
        return total[0] if keepdims else total

    def total(
        self, instruction: Instruction, total: Callable[[int], Array], values: Values, turned: bool
    ) -> Sequence[Array]:
        """The sums of an instruction's results, where ``total`` has those of its operands."""
        if self.adds(instruction):
            return computed(instruction, total)
        if not self.is_summed_at_once(instruction):
            return [self.summed(number, values) for number in instruction.results]
        if instruction.primitive is kernels.MATMUL:
            a, b = [x.number for x in instruction.operands]
            return [self.summed_product(a, b, values, turned)]
        return [self.summed_sum(instruction, values)]


class _Computation(NamedTuple):
    """How to compute the results of an instruction, and where."""

    compute: Compute
    results: tuple[int, ...]
    place: Array | None
    #: A value into whose array the result may be computed.
    over: int | None
    #: The values that nobody reads any more.
    dead: list[int]


class Schedule:
    """The results of instructions, in their order, at all steps.

    Args:
        batch: of which values.
        instructions: what is computed.
        needed: the values that are read afterwards; others may be written over.
        fresh: the values that lie in arrays of their own.
        places: arrays for some of the results.
    """

    def __init__(
        self,
        batch: Batch,
        instructions: Sequence[Instruction],
        needed: Container[int],
        fresh: Iterable[int] = (),
        places: Mapping[int, Array] | None = None,
    ) -> None:
        #: The values that lie in arrays of their own afterwards.
        self.fresh = set(fresh)
        self._computations: list[_Computation] = []
        places = places or {}
        last_use = {n: i for i, each in enumerate(instructions) for n in each.reads}
        for i, each in enumerate(instructions):
            (result, *_) = each.results
            dead = [n for n in {*each.reads} if last_use[n] == i and n not in needed]
            over = [
                x.number
                for x in [each.operands[p] for p in may_overwrite(each)]
                if isinstance(x, Ref)
                and x.number in self.fresh.intersection(dead)
                and batch.kinds[x.number] == batch.kinds[result]
            ]
            place = places.get(result)
            self._computations.append(
                _Computation(
                    batch.compute(each),
                    each.results,
                    place,
                    over[-1] if over and place is None else None,
                    dead,
                )
            )
            if viewed(each, batch.kinds) is not None:
                self.fresh.difference_update(each.reads)
            elif batch.is_timed(each) and result not in places:
                self.fresh.update(each.results)

    def run(self, values: Values) -> None:
        """Compute what is to be computed of the values, and add it to them."""
        for compute, results, place, over, dead in self._computations:
            found = compute(values, place if over is None else values[over])
            for number, array in zip(results, found, strict=True):
                values[number] = array
            for number in dead:
                del values[number]


class Sums:
    """What comes after a loop: the results of instructions, and sums of some over all steps.

    A product is summed while it is computed, and a sum of products part by part, so that the
    gradient of a weight is never there for every step.

    Args:
        batch: of which values.
        instructions: what is computed.
        wanted: the values that are wanted at all steps.
        sums: the values whose sums are.
        fresh: the values that lie in arrays of their own.
    """

    def __init__(
        self,
        batch: Batch,
        instructions: Sequence[Instruction],
        wanted: set[int],
        sums: set[int],
        fresh: Iterable[int],
    ) -> None:
        self._batch = batch
        self._sums = sums
        at_all_steps, summed = set(wanted), set(sums)
        for each in reversed(instructions):
            if not summed.isdisjoint(each.results):
                if batch.adds(each):
                    summed.update(each.reads)
                elif batch.is_summed_at_once(each):
                    at_all_steps.update(each.reads)
                else:
                    at_all_steps.update(each.results)
            if not at_all_steps.isdisjoint(each.results):
                at_all_steps.update(each.reads)
        self._adding = [each for each in instructions if not summed.isdisjoint(each.results)]
        self.schedule = Schedule(
            batch,
            [each for each in instructions if not at_all_steps.isdisjoint(each.results)],
            wanted | sums | summed | read_by(self._adding),
            fresh,
        )
        self._turned = read_by(
            [each for each in self._adding if each.primitive is kernels.TRANSPOSE]
        )

    def run(self, values: Values) -> dict[int, Array]:
        """Add to the values what is wanted of them; the sums, by number."""
        self.schedule.run(values)
        totals: dict[int, Array] = {}

        def total(number: int) -> Array:
            return totals[number] if number in totals else self._batch.summed(number, values)

        for each in self._adding:
            turned = not self._turned.isdisjoint(each.results)
            found = self._batch.total(each, total, values, turned)
            totals |= zip(each.results, found, strict=True)
        return {number: total(number) for number in self._sums}
