"""The program: what one step computes, as a list of operations on numbered values.

    x #0 (32, 4) float32, state #1 (32, 4) float32, outside #2 (4, 4) float32
    #3 = matmul(#1, #2)
    #4 = add(#0, #3)
    #5 = tanh(#4)
    y #5, state #5

A program is data. The passes of :mod:`minigrad.scanning.passes` make another program of it, and
:mod:`minigrad.scanning.playing` plays it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from types import FunctionType, NoneType
from typing import Any, NamedTuple

from minigrad.arrays import Array, DType
from minigrad.listing import short
from minigrad.primitive import Primitive
from minigrad.tensor import TapeError, Tensor


class ScanError(TapeError):
    """A step cannot be recorded once and played for every x: it must be run in a loop."""


@dataclass(frozen=True, slots=True)
class Ref:
    """Stands for the value of that number, among operands and settings."""

    number: int
    #: Whether no gradient flows to the value here, since it was detached.
    detached: bool = False

    def __repr__(self) -> str:
        return f"#{self.number}{' detached' if self.detached else ''}"


class Kind(NamedTuple):
    """The shape and dtype of a value, of one step."""

    shape: tuple[int, ...]
    dtype: DType


@dataclass(eq=False)
class Instruction:
    """One operation: what it is done to, and the numbers of its results."""

    primitive: Primitive
    #: A Ref, or a number of Python.
    operands: tuple[Any, ...]
    settings: dict[str, Any]
    results: tuple[int, ...]
    #: What :func:`minigrad.scanning.kernels.viewed` has found out about it.
    view: Any = field(init=False, default=...)

    @cached_property
    def reads(self) -> tuple[int, ...]:
        """The numbers of the values that it needs."""
        return tuple(numbers_in((*self.operands, *self.settings.values())))

    def __str__(self) -> str:
        given = [*map(str, self.operands)]
        given += [f"{name}={short(value)}" for name, value in self.settings.items()]
        results = ", ".join(f"#{number}" for number in self.results)
        return f"{results} = {self.primitive.name}({', '.join(given)})"


def numbers_in(parts: Iterable[Any]) -> Iterator[int]:
    """The numbers of all Refs, of which a setting may hold several."""
    for part in parts:
        if isinstance(part, Ref):
            yield part.number
        elif isinstance(part, tuple | list):
            yield from numbers_in(part)
        elif isinstance(part, dict):
            yield from numbers_in(part.values())


@dataclass
class Program:
    """The instructions of a step, and the numbers of what goes in and comes out.

    Attributes:
        kinds: of every value, by number.
        xs, states, outside: the values that a step is given: those of that step, those that
            the step before has left, and those that are the same for all steps.
        drawn: random numbers that every step draws, in this order.
        constants: arrays that the step makes by itself.
        instructions: in an order in which they can be run.
        ys, new_states: the values that a step returns.
        seeds: for every one of these, the number of its gradient, which is given to the
            backward pass; ``None`` for a value that has none.
        gradients: the numbers of the gradients of xs, states and outside, by theirs.
        forward: how many of the instructions compute the step; the rest are its gradient.
    """

    kinds: list[Kind] = field(default_factory=list)
    xs: list[int] = field(default_factory=list)
    states: list[int] = field(default_factory=list)
    outside: list[int] = field(default_factory=list)
    drawn: list[int] = field(default_factory=list)
    constants: dict[int, Array] = field(default_factory=dict)
    instructions: list[Instruction] = field(default_factory=list)
    ys: list[int] = field(default_factory=list)
    new_states: list[int] = field(default_factory=list)
    seeds: list[int | None] = field(default_factory=list)
    gradients: dict[int, int] = field(default_factory=dict)
    forward: int = 0

    def value(self, shape: Sequence[int], dtype: DType) -> int:
        """A new value's number."""
        self.kinds.append(Kind(tuple(shape), dtype))
        return len(self.kinds) - 1

    @property
    def given(self) -> list[int]:
        """What may have a gradient: xs, states, and what comes from outside."""
        return [*self.xs, *self.states, *self.outside]

    def seeds_of_states(self) -> dict[int, int]:
        """The seeds of the states through which a gradient flows from step to step."""
        pairs = zip(self.states, self.seeds[len(self.ys) :], strict=False)  # none: no seeds
        return {state: seed for state, seed in pairs if seed is not None}

    @property
    def is_own(self) -> bool:
        """Whether all operations are minigrad's, and no setting is a function.

        Others, and their rules, may do something else in another call: they may read variables.
        """
        return all(
            [
                each.primitive.is_own and not any(map(callable, each.settings.values()))
                for each in self.instructions
            ]
        )

    def key(self) -> Any:
        """Equal for programs that do the same to values of the same shapes and dtypes."""
        ends = self.xs, self.drawn, self.states, self.outside, self.ys, self.new_states
        return (
            tuple(self.kinds),
            *[(e.primitive, frozen(e.operands), frozen(e.settings)) for e in self.instructions],
            *map(tuple, ends),
        )

    def inputs(self) -> str:
        """What is given to a step."""
        given = {"x": self.xs, "drawn": self.drawn, "state": self.states, "outside": self.outside}
        return ", ".join(
            f"{name} #{n} {self.kinds[n].shape} {self.kinds[n].dtype}"
            for name, numbers in given.items()
            for n in numbers
            if n not in self.constants
        )

    def outputs(self) -> list[str]:
        """What comes out of it."""
        ends = {"y": self.ys, "state": self.new_states}
        results = [f"{name} #{n}" for name, numbers in ends.items() for n in numbers]
        gradients = [f"gradient of #{n}: #{g}" for n, g in self.gradients.items()]
        return [", ".join(results), *gradients]

    def __str__(self) -> str:
        return "\n".join([self.inputs(), *map(str, self.instructions), *self.outputs()])


def frozen(value: Any) -> Any:
    """Something hashable that is equal for equal settings."""
    if type(value) in (int, str, bool, NoneType, Ref):
        return type(value), value
    if isinstance(value, dict):
        return dict, tuple([(name, frozen(part)) for name, part in value.items()])
    if isinstance(value, tuple | list):
        return type(value), tuple(map(frozen, value))
    if isinstance(value, partial):
        return partial, frozen((value.func, value.args, value.keywords))
    if isinstance(value, FunctionType):  # such as a lambda, which the step makes every time
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        variables = [_Identity(x) if isinstance(x, FunctionType) else frozen(x) for x in cells]
        defaults = frozen((value.__defaults__, value.__kwdefaults__))
        return value.__code__, id(value.__globals__), tuple(variables), defaults
    # 1, 1.0 and True are equal, and not the same operand; nor are 0.0 and -0.0. NaN is the same.
    if isinstance(value, slice | float):
        return type(value), str(value)
    try:
        hash(value)
    except TypeError:
        return _Identity(value)
    return _Identity(value) if isinstance(value, Tensor) else (type(value), value)


class _Identity:
    """Equal for the same object alone."""

    __slots__ = ("of",)

    def __init__(self, of: Any) -> None:
        self.of = of

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and self.of is other.of

    def __hash__(self) -> int:
        return id(self.of)


def needed_for(instructions: Sequence[Instruction], wanted: Iterable[int]) -> set[int]:
    """These values, and all of which they are made."""
    needed = set(wanted)
    for each in reversed(instructions):
        if not needed.isdisjoint(each.results):
            needed.update(each.reads)
    return needed


def read_by(instructions: Iterable[Instruction]) -> set[int]:
    """The values that instructions read."""
    return {number for each in instructions for number in each.reads}


def changing(instructions: Iterable[Instruction], given: Iterable[int]) -> set[int]:
    """The values that are given at every step, and those that are made of them."""
    found = set(given)
    for each in instructions:
        if not found.isdisjoint(each.reads):
            found.update(each.results)
    return found
