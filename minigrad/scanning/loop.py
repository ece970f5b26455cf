"""The loop: where every value of a step lies, so that nothing is allocated while it runs.

A value that is wanted after the loop has an array for all steps; one that the next step needs,
two arrays, which take turns; and one that only this step needs, one. A result takes the place
of an operand that nobody needs any more, where the operation allows it. So the calls of all
steps are known before the loop begins, down to the views that they are handed, and running it
is reading one list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, pairwise, repeat
from typing import Any, Literal

from minigrad.arrays import Array
from minigrad.ops.axes import span
from minigrad.scanning import kernels
from minigrad.scanning.kernels import OUT, Seen, Steps
from minigrad.scanning.program import Instruction, Kind, Ref

#: A function and its arguments.
Call = tuple[Callable[..., Any], tuple[Any, ...]]


@dataclass(eq=False)
class _Buffer:
    """Memory of the loop, with a first axis of as many steps as it is for."""

    array: Array
    #: "time": an array for every step; "turns": two that take turns; "step": one for all.
    use: Literal["time", "turns", "step"]
    #: Whether it may be written to.
    own: bool = True
    #: The values that lie in it.
    values: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class _Place:
    """Where a value lies: in a buffer, between two positions of the last axis."""

    buffer: _Buffer
    start: int = 0
    stop: int = 1
    #: 1 for what lies one step further on in the buffer.
    shift: int = 0
    #: Makes the value of that part of the buffer, if it is looked at in another way.
    view: Callable[[Array, int], Array] | None = None

    def of(self, whole: Array) -> Array:
        """The value in an array of some steps of the buffer."""
        if whole.ndim > 1 and (self.start, self.stop) != (0, whole.shape[-1]):
            whole = whole[..., self.start : self.stop]
        return whole if self.view is None else self.view(whole, 1)

    def overlaps(self, other: _Place) -> bool:
        """Whether they share memory at the same step."""
        same = self.buffer is other.buffer and self.shift == other.shift
        return same and self.start < other.stop and other.start < self.stop


class Loop:
    """The calls of all steps, and where the values are that are wanted outside.

    Args:
        instructions: of one step, in their order.
        kinds: of all values.
        time: the number of steps.
        given: values from outside, the same arrays in every run.
        spare: those of them that may be overwritten.
        carried: pairs of values: what a step is given, and what it leaves to the next.
        kept: the values that are wanted at all steps afterwards.
        backwards: whether the steps are run from the last to the first.
        empty: makes an array for a number of steps.
        xp: the array library.
    """

    def __init__(
        self,
        instructions: Sequence[Instruction],
        kinds: Sequence[Kind],
        time: int,
        given: Mapping[int, Steps],
        spare: Iterable[int],
        carried: Sequence[tuple[int, int]],
        kept: Iterable[int],
        backwards: bool,
        empty: Callable[[int, Kind], Array],
        xp: Any,
    ) -> None:
        self._time, self._kinds, self._backwards, self._empty = time, kinds, backwards, empty
        self._kept = set(kept)
        for pair in carried:  # they are the same, one step apart
            if not self._kept.isdisjoint(pair):
                self._kept.update(pair)
        self._left = {new for _, new in carried}
        self._places: dict[int, _Place] = {}
        self._scratch: list[_Buffer] = []
        self._last_use = {n: i for i, each in enumerate(instructions) for n in each.reads}
        self._wishes: dict[int, _Place] = {}
        spare = set(spare)
        for number, steps in given.items():
            array = steps.array if steps.timed else steps.array[None]
            self._put(number, _Buffer(array, "time" if steps.timed else "step", number in spare))
        pairs = [self._carry(old, new) for old, new in carried]
        computed = {
            n for each in instructions if kernels.viewed(each, kinds) is None for n in each.results
        }
        for each in reversed(instructions):  # what is joined may be joined of others
            if each.primitive is kernels.CONCATENATE:
                self._wish_for_parts_of(each, computed)
        columns: list[Iterable[Call]] = []
        for i, each in enumerate(instructions):
            columns += self._columns(i, each, xp)
        #: What is run, in this order.
        self.calls: list[Call] = list(chain.from_iterable(zip(*columns, strict=True)))
        self._first = [self._arrays(old)[0] for old, _ in pairs]
        #: What the last step leaves; to be copied, since the next run writes to it.
        self.left = [self._arrays(new)[-1] for _, new in pairs]

    def run(self, first: Sequence[Any]) -> None:
        """Run all steps; the first is given ``first`` by the step before."""
        for array, value in zip(self._first, first, strict=True):
            array[...] = value
        for function, arguments in self.calls:
            function(*arguments)

    def steps(self, number: int) -> Steps:
        """A value that was kept, at all steps."""
        place = self._places[number]
        whole = place.buffer.array
        return Steps(place.of(whole[place.shift : place.shift + self._time]), True)

    def alone(self, number: int) -> bool:
        """Whether no other value that was kept or left lies where this one does."""
        place = self._places[number]
        others = self._kept.union(self._left).intersection(place.buffer.values)
        return others == {number} and place.buffer.array.shape[0] == self._time

    # ---------------------------------------------------------------- places

    def _put(self, number: int, buffer: _Buffer, shift: int = 0) -> _Place:
        """Let a value have a whole buffer."""
        shape = self._kinds[number].shape
        place = _Place(buffer, 0, shape[-1] if shape else 1, shift)
        return self._assign(number, place)

    def _assign(self, number: int, place: _Place) -> _Place:
        place.buffer.values.append(number)
        self._places[number] = place
        return place

    def _carry(self, old: int, new: int) -> tuple[_Place, _Place]:
        """Places of what a step is given and leaves: neighbours in one buffer."""
        kind = self._kinds[old]
        stop = kind.shape[-1] if kind.shape else 1
        kept = old in self._kept
        buffer = (
            _Buffer(self._empty(self._time + 1, kind), "time")
            if kept
            else _Buffer(self._empty(2, kind), "turns")
        )
        back = int(self._backwards and kept)
        self._wishes[new] = _Place(buffer, 0, stop, 1 - back)
        return self._put(old, buffer, back), self._wishes[new]

    def _wish_for_parts_of(self, whole: Instruction, computed: set[int]) -> None:
        """Let what is joined along the last axis be computed where it is to be."""
        (number,) = whole.results
        kind = self._kinds[number]
        parts = [x.number for x in whole.operands]
        place = self._wishes.get(number)
        if place is None:
            place = self._new(number, not self._kept.isdisjoint([number, *parts]))
        if whole.settings["axis"] != len(kind.shape) - 1:
            return
        for part, (start, stop) in zip(parts, pairwise(whole.settings["bounds"]), strict=True):
            fits = place.buffer.use == "time" or part not in self._kept
            if (
                part in computed
                and part not in self._wishes
                and fits
                and self._kinds[part].dtype == kind.dtype
            ):
                self._wishes[part] = replace(
                    place, start=place.start + start, stop=place.start + stop
                )

    def _new(self, number: int, timed: bool) -> _Place:
        buffer = _Buffer(
            self._empty(self._time if timed else 1, self._kinds[number]),
            "time" if timed else "step",
        )
        if not timed:
            self._scratch.append(buffer)
        return self._put(number, buffer)

    def _needed_after(self, number: int, i: int) -> bool:
        """Whether a value is needed after instruction i."""
        return self._last_use.get(number, -1) > i or number in self._kept or number in self._left

    def _place_of_result(self, i: int, instruction: Instruction, number: int) -> _Place:
        if number in self._wishes:
            return self._assign(number, self._wishes.pop(number))
        if number in self._places:  # what is joined has its place already
            return self._places[number]
        timed = number in self._kept
        candidates = [
            self._places[x.number]
            for x in (instruction.operands[p] for p in kernels.may_overwrite(instruction))
            if isinstance(x, Ref)
            and self._kinds[x.number] == self._kinds[number]
            and self._may_be_overwritten(i, instruction, x.number, timed)
        ]
        if candidates:
            # Rather in an array for all steps, so that what is kept needs no other.
            return self._assign(number, max(candidates, key=lambda p: p.buffer.use == "time"))
        if not timed:
            for buffer in self._scratch:
                kind = self._kinds[buffer.values[0]]
                free = not any([self._needed_after(v, i - 1) for v in buffer.values])
                if free and kind == self._kinds[number]:
                    return self._put(number, buffer)
        return self._new(number, timed)

    def _may_be_overwritten(
        self, i: int, instruction: Instruction, number: int, timed: bool
    ) -> bool:
        place = self._places[number]
        buffer = place.buffer
        if not buffer.own or place.view is not None or self._needed_after(number, i):
            return False
        if timed and buffer.use != "time":
            return False
        read = set(instruction.reads)
        return not any(
            self._places[other].overlaps(place)
            and other != number
            and (self._needed_after(other, i) or (other in read and self._places[other] != place))
            for other in buffer.values
        )

    # ---------------------------------------------------------------- calls

    def _columns(self, i: int, instruction: Instruction, xp: Any) -> Iterator[Iterable[Call]]:
        """The calls of one instruction: for every function a column with those of all steps."""
        view = kernels.viewed(instruction, self._kinds)
        if view is not None:
            self._look(instruction, view)
            return
        places = [self._place_of_result(i, instruction, n) for n in instruction.results]
        outs = [self._arrays(place) for place in places]
        if instruction.primitive is kernels.CONCATENATE:
            yield from self._parts_to_copy(instruction, places[0], outs[0])
            return
        out = outs[0] if len(outs) == 1 else [*zip(*outs, strict=True)]
        for function, arguments in kernels.calls(instruction, xp):
            columns = [self._argument(each, out) for each in arguments]
            yield zip(repeat(function, self._time), zip(*columns, strict=False), strict=True)

    def _argument(self, argument: Any, out: Sequence[Any]) -> Iterable[Any]:
        """What a function is given at all steps, where ``out`` is what it computes into."""
        if isinstance(argument, Seen):
            return map(argument.view, self._argument(argument.operand, out))
        return out if argument is OUT else self._column(argument)

    def _parts_to_copy(
        self, whole: Instruction, place: _Place, outs: list[Array]
    ) -> Iterator[Iterable[Call]]:
        """Copies of what is joined and does not lie where it is to be."""
        axis = whole.settings["axis"]
        last = axis == outs[0].ndim - 1
        for x, (start, stop) in zip(
            whole.operands, pairwise(whole.settings["bounds"]), strict=True
        ):
            there = self._places[x.number]
            here = replace(place, start=place.start + start, stop=place.start + stop)
            if not last or there != here:
                part = span(axis, start, stop)
                copies = zip([out[part] for out in outs], self._column(x), strict=True)
                yield zip(repeat(kernels.fill, self._time), copies, strict=True)

    def _look(self, instruction: Instruction, view: Callable[[Array, int], Any]) -> None:
        """Places for the results of an operation that computes nothing."""
        (operand,) = instruction.operands
        place = self._places[operand.number]
        settings = instruction.settings
        last = len(self._kinds[operand.number].shape) - 1
        if instruction.primitive is kernels.SPLIT and settings["axis"] == last and not place.view:
            for n, (start, stop) in zip(
                instruction.results, pairwise(settings["bounds"]), strict=True
            ):
                part = replace(place, start=place.start + start, stop=place.start + stop)
                self._assign(n, part)
            return
        for i, number in enumerate(instruction.results):
            self._assign(number, replace(place, view=_after(place.view, view, i)))

    def _column(self, argument: Any) -> Iterable[Any]:
        """An argument at all steps."""
        if isinstance(argument, Ref):
            return self._arrays(self._places[argument.number])
        if isinstance(argument, tuple):
            return zip(*map(self._column, argument), strict=False) if argument else repeat(())
        return repeat(argument)

    def _arrays(self, place: _Place) -> list[Array]:
        """What lies there, in the order in which the steps are run."""
        whole = place.of(place.buffer.array)
        # Of an array of one axis the items would be numbers, not arrays.
        each = [whole[i, ...] for i in range(len(whole))]
        return [each[i] for i in self._indices(place)]

    def _indices(self, place: _Place) -> list[int]:
        """The positions in the buffer, in the order in which the steps are run."""
        if place.buffer.use == "step":
            return [0] * self._time
        if place.buffer.use == "turns":
            return [(t + place.shift) % 2 for t in range(self._time)]
        steps = range(place.shift, place.shift + self._time)
        return [*reversed(steps)] if self._backwards else [*steps]


def _after(
    first: Callable[[Array, int], Array] | None, then: Callable[[Array, int], Any], i: int
) -> Callable[[Array, int], Array]:
    """Result i of ``then``, of what ``first`` makes."""
    return lambda array, lead: then(array if first is None else first(array, lead), lead)[i]
