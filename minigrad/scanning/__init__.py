"""Scan: record one step, and play its program for every x of a sequence.

The Python loop over a step records every operation of every step. Here one step is recorded
(:mod:`~minigrad.scanning.recording`), with the derivative that its own tape computes
(:mod:`~minigrad.scanning.gradients`); the program is put into another form
(:mod:`~minigrad.scanning.passes`) and sorted by what depends on what
(:mod:`~minigrad.scanning.stages`): what does not depend on the state is computed for all steps
at once, and the gradients of weights are one product each; the rest is a list of calls into
arrays that were there before (:mod:`~minigrad.scanning.loop`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

from minigrad.arrays import (
    Array,
    States,
    device_of,
    ignoring_floating_point_errors,
    namespace,
    random_like,
    remembered_draws,
    rewind,
)
from minigrad.checkpoint import Operand, Replay
from minigrad.containers import leaves_of, map_leaves
from minigrad.primitive import finished, primitive
from minigrad.scanning import pool
from minigrad.scanning.playing import Plan, Workspace
from minigrad.scanning.pool import set_workspace_limit
from minigrad.scanning.program import ScanError
from minigrad.scanning.recording import Recorder, Recording, Step, other_values, record
from minigrad.scanning.unrolled import loop
from minigrad.slots import LEAF, NOTHING, active_tape, debugging, tape_of
from minigrad.tape import Tape
from minigrad.tensor import Tensor, asarray, operations

__all__ = ["ScanError", "plan", "scan", "set_workspace_limit"]


def scan(step: Step, state: Any, xs: Any, *, reverse: bool = False) -> tuple[Any, Any]:
    """What a loop over a step computes, without recording every operation of every step.

        for every t:  y_t, state = step(x_t, state)

    The step is run once, to be recorded: Python's control flow in it goes the same way at every
    step. Its program is played for all x: one entry on the tape, with the gradients that the
    loop has, of xs, the state, and every tensor that the step uses. The second and higher
    orders record the loop. Cutting the tape cuts between two scans.

    Programs are kept by the step's code and what it does, so that it may be a new function every
    time; so are the arrays that a program of so many steps works in, see
    :func:`set_workspace_limit`.

    Args:
        step: a function (x, state) -> (y, state) of minigrad's operations. y and the state
            are tensors, or tensors in nested tuples, lists and dictionaries. It keeps the shapes
            and dtypes of the state. Random numbers (of nn.Dropout) are drawn anew at every step.
        state: what the first step is given.
        xs: (time, ...), at least one step; or such tensors in nested containers.
        reverse: whether to run from the last step to the first. ys stay in the order of xs.

    Returns the y of all steps, (time, ...), nested as y is, and the last state.

    Raises:
        ValueError: if there are no steps, xs differ in their number, or the state changes its
            shape, dtype or nesting.
        TypeError: if the step does not return a pair, or something that is no tensor.
        ScanError: if the step looks at the values of a tensor, does something else every time, or
            cannot be played otherwise; docs/scan.md says what can be.
        TapeError: if the step rebinds a leaf, or cuts a tape.

    >>> import minigrad as mg
    >>> w = mg.tensor(0.5, requires_grad=True)
    >>> def step(x, h):
    ...     h = w * h + x
    ...     return h, h
    >>> with mg.Tape() as tape:
    ...     ys, last = mg.scan(step, mg.tensor(0.0), mg.tensor([1.0, 1.0, 1.0]))
    >>> ys, tape.gradient(last, w)
    (tensor([1.  , 1.5 , 1.75], slot=0), tensor(2.))
    """
    xs, state = _tensors(xs), _tensors(state)
    time = _number_of_steps(leaves_of(xs))
    if debugging.get():
        return _in_python(step, state, xs, time, reverse)

    with remembered_draws() as draws:
        try:
            return _played(step, state, xs, time, reverse, draws)
        except Exception:
            rewind(draws)
            raise


def _played(
    step: Step, state: Any, xs: Any, time: int, reverse: bool, draws: States
) -> tuple[Any, Any]:
    """What :func:`scan` computes; ``draws`` are the states of the generators that the step uses."""
    parts, states = leaves_of(xs), leaves_of(state)
    tape, array = active_tape.get(), parts[0].array
    base = NOTHING if tape is None else tape.base
    order = range(time)[:: -1 if reverse else 1]

    def given(t: int) -> Any:
        return map_leaves(lambda name, x: Tensor(x.array[t, ...], x.slot), xs)

    recording = record(step, given(order[0]), state, base)
    program, outside = recording.program, recording.outside
    inputs = [*parts, *states, *outside]
    nested = isinstance(tape, Recorder) and any([x.requires_grad or tape.varies(x) for x in inputs])
    if nested:
        rewind(draws)
        return _in_python(step, state, xs, time, reverse)
    wanted = frozenset(
        [n for n, tensor in zip(program.given, inputs, strict=True) if tensor.slot >= base]
    )

    def again() -> Iterator[Recording]:
        """The step, recorded on other values if it takes them, and at the last step."""
        other = None
        with suppress(Exception), ignoring_floating_point_errors():
            other = record(step, _others(given(order[0])), _others(state), base)
        if other is not None:
            yield other
        if time > 1:
            yield record(step, given(order[-1]), recording.new_state, base)

    workspace = pool.take(
        step, recording, again, wanted or None, time, reverse, device_of(array), namespace(array)
    )
    drawn = _draw(recording, draws, time, reverse, array)
    ys, last = workspace.forward(_arrays(parts), drawn, _arrays(states), _arrays(outside))
    results = list(map(Tensor, (*ys, *last)))
    if tape is None or not wanted:
        pool.give_back(workspace)
    else:
        name = getattr(step, "__name__", type(step).__name__)
        unrolled = partial(loop, program, parts, drawn, states, outside, reverse)
        results = _entered(tape, workspace, name, unrolled, inputs, results)
    made = iter(results)
    return map_leaves(lambda name, part: next(made), (recording.y, recording.new_state))


def _others(tree: Any) -> Any:
    return map_leaves(lambda name, part: Tensor(other_values(part.array), part.slot), tree)


def _entered(
    tape: Tape,
    workspace: Workspace,
    name: str,
    unrolled: Callable[[], list[Tensor]],
    inputs: list[Tensor],
    results: list[Tensor],
) -> list[Tensor]:
    """The results, those that have a gradient as results of one entry on the tape."""
    program = workspace.plan.program
    differentiable = [i for i, seed in enumerate(program.seeds) if seed is not None]
    operands: dict[int, Operand] = {}
    numbers: dict[int, list[int]] = {}
    # The rules may have added to what the program is given.
    for number, tensor in zip(program.given, inputs, strict=False):
        if tensor.slot >= tape.base:
            array = tensor.array if tensor.slot >= LEAF else None
            operands[tensor.slot] = Operand(tensor.shape, tensor.dtype, array)
            numbers.setdefault(tensor.slot, []).append(number)
    # What a state leads to that takes some steps to become live is a constant of fewer steps.
    replay = Replay(unrolled, differentiable, name, operands, {}, tape.mark(), strict=False)
    run = _Run(workspace, replay, list(numbers.values()), len(program.ys))
    arrays = tuple([results[i].array for i in differentiable])
    recorded = finished(
        _scan.primitive, list(operands), list(operands.values()), {"run": run}, arrays
    )
    on_tape = dict(zip(differentiable, recorded, strict=True))
    return [on_tape.get(i, result) for i, result in enumerate(results)]


def plan(step: Step, state: Any, xs: Any) -> Plan:
    """What :func:`scan` makes of a step, with the gradients of all that is given to it, to print.

    ``docs/scan.md`` reads one line by line. The arguments and errors are those of :func:`scan`.

    >>> import minigrad as mg
    >>> from minigrad.scanning import plan
    >>> def step(x, h):
    ...     h = mg.tanh(x + h)
    ...     return h, h
    >>> print(plan(step, mg.tensor([0.0, 0.0]), mg.tensor([[1.0, 2.0], [3.0, 4.0]])))
    x #0 (2,) float32, state #1 (2,) float32
    forward, in the loop:
        #2 = add(#0, #1)
        #3 = tanh(#2)
    backward, for all steps, before the loop:
        #7 = multiply(#3, #3)
        #10 = subtract(1.0, #7)
    backward, in the loop:
        #6 = add(#4, #5)
        #9 = multiply(#6, #10)
    y #3, state #3
    gradient of #0: #9
    gradient of #1: #9
    """
    xs, state = _tensors(xs), _tensors(state)
    recording = record(step, map_leaves(lambda name, part: part[0], xs), state)
    program = recording.program
    wanted = frozenset([n for n in program.given if program.kinds[n].dtype.kind == "f"])
    device = device_of(leaves_of(xs)[0].array)
    return pool.planned(recording, recording, wanted, device)


class _Run:
    """One scan on a tape: knows the gradients of everything that it used."""

    def __init__(
        self, workspace: Workspace, replay: Replay, numbers: list[list[int]], ys: int
    ) -> None:
        self.__name__ = replay.__name__
        self._workspace = workspace
        self._replay = replay
        #: The values that each operand is, in the program.
        self._numbers = numbers
        self._ys = ys
        # The results' gradients that were given last, and the answer to them.
        self._given: Any = None
        self._found: dict[int, Array] = {}

    @property
    def nbytes(self) -> int:
        """The bytes that are held for the gradient."""
        return self._workspace.nbytes

    def gradient(self, given: tuple[Any, ...], position: int) -> Any:
        """The gradient of one operand. All are computed when the first is asked for."""
        if active_tape.get() is not None:  # of second order: of the loop
            return self._replay.gradient(given, position)
        if self._given is not given:
            parts = iter(given)
            seeds = self._workspace.plan.program.seeds
            every = [None if seed is None else next(parts) for seed in seeds]
            self._given = given
            tape = tape_of(self._replay.mark)
            retain = tape is None or tape.retains
            self._found = self._workspace.backward(every[: self._ys], every[self._ys :], retain)
        found = [self._found[n] for n in self._numbers[position] if n in self._found]
        if found:
            return sum(found[1:], found[0])
        shape, dtype, _ = list(self._replay.outside.values())[position]
        return namespace(given[0]).zeros(shape, dtype)

    def __del__(self) -> None:
        pool.give_back(self._workspace)


@primitive
def _scan(*operands: Any, run: _Run) -> Any:
    raise NotImplementedError  # it is entered in the tape, never called


_scan.rules(operands=lambda g, run, position: run.gradient(g, position))


def _in_python(step: Step, state: Any, xs: Any, time: int, reverse: bool) -> tuple[Any, Any]:
    """The same by calling the step for every x."""
    steps = list(zip(*[operations["unstack"](part) for part in leaves_of(xs)], strict=True))
    ys = []
    for t in range(time)[:: -1 if reverse else 1]:
        parts = iter(steps[t])
        y, state = step(map_leaves(lambda name, part: next(parts), xs), state)  # noqa: B023
        ys.append(leaves_of(y))
    if reverse:
        ys.reverse()
    stacked = iter([operations["stack"](each) for each in zip(*ys, strict=True)])
    return map_leaves(lambda name, part: next(stacked), y), state


def _tensors(tree: Any) -> Any:
    return map_leaves(lambda name, part: part if isinstance(part, Tensor) else asarray(part), tree)


def _arrays(tensors: list[Tensor]) -> list[Array]:
    return [tensor.array for tensor in tensors]


def _number_of_steps(xs: list[Tensor]) -> int:
    counts = {part.shape[0] if part.ndim else 0 for part in xs}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(
            "xs have time first, and all as many steps, at least one; they are of shapes "
            + ", ".join(str(part.shape) for part in xs)
        )
    return counts.pop()


def _draw(
    recording: Recording, before: States, time: int, reverse: bool, like: Array
) -> list[Array]:
    """Random numbers for all steps, as the loop draws them, where ``like`` is."""
    if not recording.generators:
        return []
    rewind(before)
    generators, program = recording.generators, recording.program
    drawn: list[list[Array]] = [[] for _ in generators]
    for _ in range(time):
        for each, generator, number in zip(drawn, generators, program.drawn, strict=True):
            each.append(random_like(generator, like, program.kinds[number].shape))
    order = -1 if reverse else 1
    return [namespace(like).stack(each[::order]) for each in drawn]
