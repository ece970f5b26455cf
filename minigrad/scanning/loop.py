"""The loop: where every value of a step lies, so that nothing is allocated while it runs.

A value that is wanted after the loop has an array for all steps; one that the next step needs,
two arrays, which take turns; and one that only this step needs, one. A result takes the place
of an operand that nobody needs any more, where the operation allows it. So the calls of all
steps are known before the loop begins, down to the views that they are handed, and running it
is reading one list.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, pairwise, repeat
from typing import Any, Literal, NamedTuple

from minigrad.arrays import Array
from minigrad.ops.axes import span
from minigrad.scanning import kernels
from minigrad.scanning.kernels import OUT, Seen
from minigrad.scanning.program import Instruction, Kind, Ref, numbers_in

#: A function and its arguments.
Call = tuple[Callable[..., Any], tuple[Any, ...]]


@dataclass(eq=False)
class _Buffer:
    """Memory of the loop, with a first axis of as many steps as it is for."""

    kind: Kind
    steps: int
    #: "time": an array for every step; "turns": two that take turns; "step": one for all.
    use: Literal["time", "turns", "step"]
    #: Whether it may be written to.
    own: bool = True
    #: There once it is known which values lie in it.
    array: Array = None
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


class _Part(NamedTuple):
    """Where a value is to lie: in what it is joined to, between two positions of the last axis."""

    whole: int
    start: int
    stop: int


class Loop:
    """The calls of all steps, and where the values are that are wanted outside.

    Args:
        instructions: of one step, in their order.
        kinds: of all values.
        time: the number of steps.
        given: values from outside, the same arrays in every run.
        copied: values from outside that are to be copied to where :meth:`steps` says.
        timed: the values that are not the same at all steps.
        spare: those of the values from outside that may be overwritten.
        carried: pairs of values: what a step is given, and what it leaves to the next.
        kept: the values that are wanted at all steps afterwards.
        backwards: whether the steps are run from the last to the first.
        empty: makes an array for a number of steps, in which these values are to lie.
        xp: the array library.
    """

    def __init__(
        self,
        instructions: Sequence[Instruction],
        kinds: Sequence[Kind],
        time: int,
        given: Mapping[int, Array],
        copied: Iterable[int],
        timed: Container[int],
        spare: Container[int],
        carried: Sequence[tuple[int, int]],
        kept: Iterable[int],
        backwards: bool,
        empty: Callable[[int, Kind, Sequence[int]], Array],
        xp: Any,
    ) -> None:
        self._time, self._kinds, self._backwards = time, kinds, backwards
        self._kept = set(kept)
        for pair in carried:  # they are the same, one step apart
            if not self._kept.isdisjoint(pair):
                self._kept.update(pair)
        self._left = {new for _, new in carried}
        self._places: dict[int, _Place] = {}
        self._buffers: list[_Buffer] = []
        self._last_use = {n: i for i, each in enumerate(instructions) for n in each.reads}
        #: The parts of what is joined, and of what is joined whether it is kept at all steps.
        self._parts: dict[int, _Part] = {}
        self._wholes: dict[int, bool] = {}
        for number in (*given, *copied):
            buffer = self._new(kinds[number], number in timed, number in spare)
            self._put(number, buffer)
            if number in given:
                buffer.array = given[number] if number in timed else given[number][None]
        pairs = [self._carry(old, new) for old, new in carried]
        computed = {
            n for each in instructions if kernels.viewed(each, kinds) is None for n in each.results
        }
        for each in reversed(instructions):  # what is joined may be joined of others
            if each.primitive is kernels.CONCATENATE:
                self._join(each, computed)
        for i, each in enumerate(instructions):
            self._find_places(i, each)
        for buffer in self._buffers:
            if buffer.array is None:
                buffer.array = empty(buffer.steps, buffer.kind, buffer.values)
        columns = [column for each in instructions for column in self._columns(each, xp)]
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

    def steps(self, number: int) -> Array:
        """A value that is kept or copied: at all steps, if it changes with time."""
        place = self._places[number]
        whole = place.buffer.array
        if place.buffer.use == "step":
            return place.of(whole)[0, ...]
        return place.of(whole[place.shift : place.shift + self._time])

    def alone(self, number: int) -> bool:
        """Whether no other value that was kept or left lies where this one does at all steps."""
        buffer = self._places[number].buffer
        others = self._kept.union(self._left).intersection(buffer.values)
        return others == {number} and (buffer.use, buffer.steps) == ("time", self._time)

    # ---------------------------------------------------------------- places

    def _new(self, kind: Kind, timed: bool, own: bool = True) -> _Buffer:
        buffer = _Buffer(kind, self._time if timed else 1, "time" if timed else "step", own)
        self._buffers.append(buffer)
        return buffer

    def _put(self, number: int, buffer: _Buffer, shift: int = 0) -> _Place:
        """Let a value have a whole buffer."""
        shape = self._kinds[number].shape
        return self._assign(number, _Place(buffer, 0, shape[-1] if shape else 1, shift))

    def _assign(self, number: int, place: _Place) -> _Place:
        place.buffer.values.append(number)
        self._places[number] = place
        return place

    def _carry(self, old: int, new: int) -> tuple[_Place, _Place]:
        """Places of what a step is given and leaves: neighbours in one buffer."""
        kind, kept = self._kinds[old], old in self._kept
        buffer = _Buffer(kind, self._time + 1, "time") if kept else _Buffer(kind, 2, "turns")
        self._buffers.append(buffer)
        back = int(self._backwards and kept)
        return self._put(old, buffer, back), self._put(new, buffer, 1 - back)

    def _join(self, whole: Instruction, computed: set[int]) -> None:
        """Let what is joined along the last axis be computed where it is to be."""
        (number,) = whole.results
        kind = self._kinds[number]
        parts = [x.number for x in whole.operands]
        if number in self._places:
            timed = self._places[number].buffer.use == "time"
        elif number in self._parts:
            timed = self._wholes[self._parts[number].whole]
        else:
            timed = not self._kept.isdisjoint([number, *parts])
        self._wholes[number] = timed
        if whole.settings["axis"] != len(kind.shape) - 1:
            return
        for part, (start, stop) in zip(parts, pairwise(whole.settings["bounds"]), strict=True):
            free = part in computed and part not in self._parts and part not in self._places
            fits = self._kinds[part].dtype == kind.dtype and (timed or part not in self._kept)
            if free and fits:
                self._parts[part] = _Part(number, start, stop)

    def _needed_after(self, number: int, i: int) -> bool:
        """Whether a value is needed after instruction i."""
        return self._last_use.get(number, -1) > i or number in self._kept or number in self._left

    def _find_places(self, i: int, instruction: Instruction) -> None:
        """Find places for the results of instruction i."""
        view = kernels.viewed(instruction, self._kinds)
        if view is not None:
            self._look(instruction, view)
        else:
            for number in instruction.results:
                self._find_place(i, instruction, number)

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

    def _find_place(self, i: int, instruction: Instruction, number: int) -> None:
        """Find a place for a result of instruction i."""
        if number in self._places or number in self._parts:
            self._place_from(i, number)
            return
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
            self._assign(number, max(candidates, key=lambda p: p.buffer.use == "time"))
        else:
            self._place_from(i, number)

    def _place_from(self, i: int, number: int) -> _Place:
        """The place of a value that is written from instruction i on."""
        if number in self._places:
            return self._places[number]
        if number in self._parts:
            whole, start, stop = self._parts[number]
            place = self._place_from(i, whole)
            part = replace(place, start=place.start + start, stop=place.start + stop)
            return self._assign(number, part)
        kind = self._kinds[number]
        timed = self._wholes.get(number, number in self._kept)
        sort = (kind, self._time, "time") if timed else (kind, 1, "step")
        for buffer in self._buffers:
            fits = buffer.own and (buffer.kind, buffer.steps, buffer.use) == sort
            if fits and not any([self._needed_after(v, i - 1) for v in buffer.values]):
                return self._put(number, buffer)
        return self._put(number, self._new(kind, timed))

    def _may_be_overwritten(
        self, i: int, instruction: Instruction, number: int, timed: bool
    ) -> bool:
        place = self._places[number]
        buffer = place.buffer
        if not buffer.own or place.view is not None or self._needed_after(number, i):
            return False
        if timed and (buffer.use != "time" or self._wastes(place)):
            return False
        read = set(instruction.reads)
        return not any(
            self._places[other].overlaps(place)
            and other != number
            and (self._needed_after(other, i) or (other in read and self._places[other] != place))
            for other in buffer.values
        )

    def _wastes(self, place: _Place) -> bool:
        """Whether a value that is kept there would keep more than itself."""
        whole = (0, *place.buffer.kind.shape[-1:])
        return (place.start, place.stop) != whole and self._kept.isdisjoint(place.buffer.values)

    # ---------------------------------------------------------------- calls

    def _columns(self, instruction: Instruction, xp: Any) -> Iterator[Iterable[Call]]:
        """The calls of one instruction: for every function a column with those of all steps."""
        if kernels.viewed(instruction, self._kinds) is not None:
            return
        places = [self._places[n] for n in instruction.results]
        outs = [self._arrays(place) for place in places]
        if instruction.primitive is kernels.CONCATENATE:
            yield from self._parts_to_copy(instruction, places[0], outs[0])
            return
        out = outs[0] if len(outs) == 1 else [*zip(*outs, strict=True)]
        for function, arguments in kernels.calls(instruction, xp, outs[0][0]):
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

    def _column(self, argument: Any) -> Iterable[Any]:
        """An argument at all steps."""
        if isinstance(argument, Ref):
            return self._arrays(self._places[argument.number])
        arrays = {n: self._arrays(self._places[n]) for n in numbers_in((argument,))}
        if not arrays:
            return repeat(argument)

        def at(step: int) -> Any:
            return kernels.resolved(argument, lambda number: arrays[number][step])

        return map(at, range(self._time))

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
