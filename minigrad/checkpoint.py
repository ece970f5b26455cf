"""Recompute instead of remember: memory for time.

A checkpointed function is recorded like any other. Then what it recorded is dropped from the
tape, and one entry takes its place that can run the function again. When the tape is read
backwards, that entry runs it on a tape of its own and reads that one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import update_wrapper
from typing import Any, NamedTuple, ParamSpec, TypeVar

from minigrad.arrays import (
    Array,
    DType,
    States,
    default_device,
    device,
    namespace,
    remembered_draws,
    repeated_draws,
)
from minigrad.containers import leaves_of, map_leaves
from minigrad.primitive import finished, primitive
from minigrad.slots import LEAF, active_tape, leaves, tape_of
from minigrad.tape import Tape
from minigrad.tensor import TapeError, Tensor, as_operand

P = ParamSpec("P")
R = TypeVar("R")


def checkpoint(function: Callable[P, R]) -> Callable[P, R]:
    """A function with the values and gradients of ``function``, of which the tape saves little.

    It keeps the arguments and results, and computes everything in between a second time when
    the gradient needs it. The function may return nested containers of tensors, and use
    parameters and other tensors besides its arguments: all of these get their gradients.
    Parameters that were updated since are as they were in the second run, too, and random
    numbers (of nn.Dropout) are the same. Second order is computed on the same tape, where what
    it recomputes is recorded in full.

    The function must compute the same again, and what it computes must leave it only by its
    results. Griewank and Walther, Algorithm 799: revolve, 2000.

    Raises ``TapeError``, when the gradient is computed, if a tensor that was computed inside is
    used outside without having been returned.

    >>> import minigrad as mg
    >>> def long(x):
    ...     for _ in range(100):
    ...         x = mg.tanh(x)
    ...     return x
    >>> x = mg.tensor(0.5, requires_grad=True)
    >>> with mg.Tape() as tape:
    ...     y = mg.checkpoint(long)(x)
    ...     tape.nbytes
    0
    >>> with mg.Tape() as other:
    ...     z = long(x)
    >>> tape.gradient(y, x).item() == other.gradient(z, x).item()
    True
    """

    def computed(*args: P.args, **settings: P.kwargs) -> R:
        tape = active_tape.get()
        if tape is None:
            return function(*args, **settings)
        mark = tape.mark()
        with remembered_draws() as states:
            value = function(*args, **settings)
        parts = leaves_of(value)
        made_here = [i for i, part in enumerate(parts) if _made_since(part, mark)]
        if not made_here:
            return value
        outside = _operands_from_before(tape, mark)
        name = getattr(function, "__name__", type(function).__name__)
        replay = Replay(lambda: function(*args, **settings), made_here, name, outside, states, mark)
        tape.collapse(mark)
        made = iter(
            finished(
                _checkpoint.primitive,
                list(outside),
                list(outside.values()),
                {"replay": replay},
                tuple(parts[i].array for i in made_here),
            )
        )
        return map_leaves(lambda name, part: next(made) if _made_since(part, mark) else part, value)

    return update_wrapper(computed, function)


class Operand(NamedTuple):
    """A tensor from outside that the function uses; of a leaf also the array it held."""

    shape: tuple[int, ...]
    dtype: DType
    array: Array | None


def _made_since(part: Any, mark: int) -> bool:
    return isinstance(part, Tensor) and mark <= part.slot < LEAF


def _operands_from_before(tape: Tape, mark: int) -> dict[int, Operand]:
    """The leaves and the tensors from before ``mark`` that were used since, by slot."""
    found: dict[int, Operand] = {}
    for slot, entry in tape.numbered():
        if slot < mark:
            continue
        shapes, dtypes = entry.like or (
            [entry.shape] * len(entry.plan.rules),
            [entry.dtype] * len(entry.plan.rules),
        )
        for rule, shape, dtype in zip(entry.plan.rules, shapes, dtypes, strict=True):
            operand = entry.operands[rule.position]
            if operand < mark or operand >= LEAF:
                leaf = leaves.get(operand)
                found[operand] = Operand(shape, dtype, None if leaf is None else leaf.array)
    return found


class Replay:
    """Runs the function again, and knows the gradients of everything it used from outside."""

    def __init__(
        self,
        function: Callable[[], Any],
        results: list[int],
        name: str,
        outside: dict[int, Operand],
        states: States,
        mark: int,
        *,
        strict: bool = True,
    ) -> None:
        self.function = function
        #: The numbers of the results, among all parts of what the function returns.
        self.results = results
        self.__name__ = name
        self.outside = outside
        self.slots = list(outside)
        self.states = states
        self.mark = mark
        #: Whether all results have to be computed again, or may be found to be constants.
        self.strict = strict
        self.device = default_device()
        # The results' gradients that were given last, and what is left of the answer to them.
        self.given: Any = None
        self.found: dict[int, Any] = {}

    def gradient(self, given: tuple[Any, ...], position: int) -> Any:
        """The gradient of one operand. All are computed when the first is asked for."""
        if self.given is not given:
            self.given, self.found = given, self._gradients(given)
        slot = self.slots[position]
        if slot in self.found:
            return self.found.pop(slot)
        zeros = namespace(as_operand(given[0])).zeros
        shape, dtype, _ = self.outside[slot]
        return zeros(shape, dtype)

    def _gradients(self, given: tuple[Any, ...]) -> dict[int, Any]:
        recording = active_tape.get()
        outer = tape_of(self.mark)
        assert outer is not None
        with self._as_it_was():
            if recording is not None:
                tape, mark = recording, recording.mark()
                value = self.function()
            else:
                with Tape() as tape:
                    tape.base = outer.base  # so that what was used from there counts
                    mark = tape.mark()
                    value = self.function()
        parts = leaves_of(value)
        results = [parts[i] for i in self.results]
        targets = [pair for pair in zip(results, given, strict=True) if _made_since(pair[0], mark)]
        if self.strict and len(targets) < len(results):
            raise TapeError(
                f"{self.__name__} has not computed the same again: of its results that have a "
                f"gradient, {len(results) - len(targets)} were not computed the second time"
            )
        if not targets:
            return {}
        graph = recording is not None
        return tape.play_back(targets, set(self.slots), True, graph, since=mark)

    @contextmanager
    def _as_it_was(self) -> Iterator[None]:
        """Parameters, generators, and the device of what is made are those of the first run."""
        held = {slot: operand.array for slot, operand in self.outside.items() if slot >= LEAF}
        now = {slot: (leaf, leaf.array) for slot in held if (leaf := leaves.get(slot)) is not None}
        for slot, (leaf, _) in now.items():
            leaf.array = held[slot]
        try:
            with repeated_draws(self.states), device(self.device):
                yield
        finally:
            for leaf, array in now.values():
                leaf.array = array


@primitive
def _checkpoint(*operands: Any, replay: Replay) -> Any:
    raise NotImplementedError  # it is entered in the tape, never called


_checkpoint.rules(operands=lambda g, replay, position: replay.gradient(g, position))
