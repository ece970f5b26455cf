"""Unrolling: the loop of a cell over time, whose recording is the graph of BPTT."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

import numpy

import minigrad as mg
from minigrad import Tensor
from minigrad_rnn.cells import Cell, State
from minigrad_rnn.sequences import lengths_to_mask, to_host
from minigrad_rnn.states import as_tensors, map_state, select, zeros_for

#: Anything that computes one step: (x, state) -> (y, state).
Step = Callable[[Any, State], tuple[Any, State]]

#: How many steps are projected at once: enough for large products, and few beside a long
#: sequence, of which the projection (four times as wide as h, for an LSTM) is not kept.
BLOCK = 64

#: From so many steps on, recording one step and playing it takes less time than the loop.
SHORT = 4

#: What of all steps is returned: every y, the last y, or every y and every state.
Outputs = Literal["sequence", "last", "states"]


def unroll(
    cell: Step,
    xs: Tensor,
    state: State = None,
    *,
    lengths: Any = None,
    mask: Any = None,
    reset: Any = None,
    reverse: bool = False,
    outputs: Outputs = "sequence",
    initial: State = None,
    unrolled: bool | None = None,
) -> tuple[Any, State]:
    """Run a cell over time: the loop whose recording backpropagation through time reads.

        for every t:  y_t, state = cell(x_t, state)

    Not every sequence of a batch has to be valid at every step. At steps that are not, its
    state stays what it was, its y is 0, and the gradient of its x is 0, whatever stands there,
    NaN included. A sequence without a valid step keeps its first state. So the loop may run
    backwards over padding, and over holes, as if they were not there.

    Args:
        cell: any function or module that maps (x, state) to (y, state). A state is a tensor, or
            tensors in nested tuples, lists and dictionaries. With ``lengths``, ``mask`` or
            ``reset``, the first axis of y and of every part of the state is the batch.
        xs: (time, batch, ...), of at least one step; without a batch, (time, ...).
        state: the state before the first step. ``None`` is ``initial`` if that is given,
            and is handed to the cell if not, which for the cells of this package means zeros.
        lengths: (batch,), how many steps of each sequence are valid: integers from 1 to time,
            in any order, in the memory of the host. Steps at which all sequences are valid cost
            nothing extra; the others cost one ``mg.where`` for each part of the state.
        mask: instead of lengths, (time, batch) booleans, True at valid steps.
        reset: (time, batch) booleans, True at the first step of a new sequence, before which
            the state of that row is the initial one. In reverse, it is the initial one before
            the step that then follows, the last of the sequence before.
        reverse: whether to run from the last step to the first. The y stay in the order of xs.
        outputs: ``"sequence"`` returns the y of all steps, (time, batch, ...), and the last
            state; ``"last"`` the y of the last valid step of each sequence, (batch, ...), and
            the last state (in reverse, the last to be run is the first in time);
            ``"states"`` the y of all steps and the state after every one, (time, batch, ...).
        initial: the state from which a sequence starts. By default what the cell's method
            ``initial_state(batch_size)`` returns; if it has none, as a plain function, zeros
            of the state's shapes.
        unrolled: whether every operation of every step is recorded. ``False`` records one step
            and plays it with :func:`minigrad.scan`, which is faster, and one entry on the tape.
            By default the cells of this package are played, where that is possible, and other
            cells and functions are unrolled: their steps may do something besides.

    Raises:
        ValueError: if there are no steps, a shape does not suit the cell or xs, a length is 0
            or longer than xs, or both lengths and a mask are given.
        TypeError: if lengths are not integers, a mask or reset is not boolean, or the cell
            does not return a pair.
        ScanError: if the steps are to be played, and cannot be.

    >>> import minigrad as mg, minigrad_rnn as rnn
    >>> def running_sum(x, state):
    ...     return state + x, state + x
    >>> rnn.unroll(running_sum, mg.tensor([[1.0], [2.0], [3.0]]), mg.tensor([0.0]))
    (tensor([[1.],
            [3.],
            [6.]]), tensor([6.]))
    """
    check_outputs(outputs)
    if not isinstance(xs, Tensor):
        xs = mg.asarray(xs)
    state, initial = as_tensors(state), as_tensors(initial)
    marked = not (lengths is None and mask is None and reset is None)
    _check_axes(cell, xs, marked)
    time = xs.shape[0]
    valid = valid_steps(xs, lengths, mask)
    starts = None if reset is None else flags("reset", reset, xs)
    if initial is None and marked and hasattr(cell, "initial_state"):
        initial = cell.initial_state(xs.shape[1])
    if state is None:
        state = initial
    if valid is not None:
        xs = blanked(valid, xs)
    step: Step
    project = None
    if isinstance(cell, Cell) and type(cell).forward is Cell.forward:
        state = cell.checked_state(state, *xs.shape[1:-1])
        step, project = cell.step, cell.project
    else:
        step = _checked(cell)

    if time >= SHORT and _is_own(cell) if unrolled is None else not unrolled:
        one = step if project is None else lambda x, state: step(project(x), state)
        marks = {"valid": valid, "starts": starts}
        try:
            return _played(one, xs, state, marks, reverse, outputs, initial)
        except mg.ScanError:
            if unrolled is not None:
                raise

    valid_rows = _by_step(valid, time, True, xs.device)
    fresh_rows = _by_step(starts, time, False, xs.device)
    if reverse:
        fresh_rows = [*fresh_rows[1:], None]
    ys, states, last = [], [], None
    for t, x in _steps(xs, project, reverse):
        rows = fresh_rows[t]
        if rows is not None and state is not None:
            state = select(rows, zeros_for(state) if initial is None else initial, state)
        y, new = step(x, state)
        rows = valid_rows[t]
        if rows is None:
            state, last = new, y
        else:
            state = select(rows, new, zeros_for(new) if state is None else state)
            if outputs == "last":
                last = select(rows, y, zeros_for(y) if last is None else last)
        if outputs != "last":
            ys.append(y)
        if outputs == "states":
            states.append(state)
    if outputs == "last":
        return last, state
    all_ys = _stacked(ys, reverse)
    if valid is not None:
        all_ys = map_state(lambda part: blanked(valid, part), all_ys)
    return all_ys, _stacked(states, reverse) if outputs == "states" else state


def _is_own(cell: Step) -> bool:
    """Whether it is known to do nothing but to compute: a cell of this package."""
    own = [getattr(type(cell), name, None) for name in ("forward", "project", "step")]
    return isinstance(cell, Cell) and all(
        f is not None and f.__module__.startswith(f"{__package__}.") for f in own
    )


def _played(
    step: Step,
    xs: Tensor,
    state: State,
    marks: dict[str, Tensor | None],
    reverse: bool,
    outputs: Outputs,
    initial: State,
) -> tuple[Any, State]:
    """The loop by :func:`minigrad.scan`."""
    if state is None:
        raise ValueError("to be played a cell needs a first state, whose shapes are then known")
    flagged = {name: rows.to(xs.device) for name, rows in marks.items() if rows is not None}
    if reverse and "starts" in flagged:  # at the step that is run after the first of a sequence
        starts = flagged["starts"]
        flagged["starts"] = mg.concatenate([starts[1:], mg.asarray(starts.array[:1] & False)])

    def advance(given: dict[str, Tensor], old: State) -> tuple[Any, State]:
        if "starts" in given:
            old = select(given["starts"], zeros_for(old) if initial is None else initial, old)
        y, new = step(given["x"], old)
        if "valid" in given:
            new = select(given["valid"], new, old)
        return (y, new) if outputs == "states" else y, new

    ys, last = mg.scan(advance, state, {"x": xs, **flagged}, reverse=reverse)
    states = None
    if outputs == "states":
        ys, states = ys
    if outputs == "last":
        return map_state(lambda part: _last(part, marks["valid"], reverse), ys), last
    valid = marks["valid"]
    if valid is not None:
        ys = map_state(lambda part: blanked(valid, part), ys)
    return ys, last if states is None else states


def _last(ys: Tensor, valid: Tensor | None, reverse: bool) -> Tensor:
    """The y of the last valid step of each sequence, and 0 for one that has none."""
    if valid is None:
        return ys[0 if reverse else -1]
    batch, valid = ys.shape[1], valid.to(ys.device)
    steps = mg.argmax(valid if reverse else mg.flip(valid, 0), axis=0)
    rows = mg.asarray(numpy.arange(batch), device=ys.device)
    picked = ys[steps if reverse else len(valid) - 1 - steps, rows]
    some = mg.any(valid, axis=0).reshape((batch, *[1] * (picked.ndim - 1)))
    return mg.where(some, picked, 0)


def check_outputs(outputs: str) -> None:
    """Raise ``ValueError`` unless it is one of :data:`Outputs`."""
    if outputs not in get_args(Outputs):
        raise ValueError(f"outputs is 'sequence', 'last' or 'states', not {outputs!r}")


def name_of(cell: Any) -> str:
    """What a cell is called in errors: a function by its own name, a module by its type's."""
    return getattr(cell, "__name__", type(cell).__name__)


def _check_axes(cell: Step, xs: Tensor, marked: bool) -> None:
    """Raise ``ValueError`` unless xs has steps, the cell's features, and a batch if need be."""
    if not xs.ndim or not xs.shape[0]:
        raise ValueError(f"a sequence has at least one step; xs is {xs.shape}, time first")
    if isinstance(cell, Cell) and (xs.ndim not in (2, 3) or xs.shape[-1] != cell.input_size):
        raise ValueError(
            f"{type(cell).__name__} expects xs (time, batch, {cell.input_size}), not {xs.shape}"
        )
    if marked and xs.ndim < (3 if isinstance(cell, Cell) else 2):
        raise ValueError(
            "lengths, mask and reset are for a batch of sequences: give xs as (time, batch, ...), "
            f"a single sequence as xs[:, None]; it is {xs.shape}"
        )


def flags(name: str, given: Any, xs: Tensor, layout: str = "(time, batch)") -> Tensor:
    """A mask or the resets as a boolean tensor of the first two axes of xs."""
    with mg.device("cpu"):  # What is on the host stays there, to be looked at without waiting.
        checked = mg.asarray(given)
    if checked.dtype != "bool":
        raise TypeError(f"{name} is boolean, not {checked.dtype}: write {name} != 0")
    if checked.shape != xs.shape[:2]:
        raise ValueError(f"{name} is {layout} as xs, {xs.shape[:2]}, not {checked.shape}")
    return checked


def valid_steps(xs: Tensor, lengths: Any, mask: Any) -> Tensor | None:
    """Which steps are valid, (time, batch); ``None`` if all are known to be."""
    if lengths is None:
        if mask is None:
            return None
        valid = flags("mask", mask, xs)
        return None if valid.device == "cpu" and valid.array.all() else valid
    if mask is not None:
        raise ValueError("lengths and a mask say the same: give one of them")
    time, batch = xs.shape[:2]
    given = to_host(lengths)
    if given.shape != (batch,):
        raise ValueError(
            f"lengths are one integer for each of the {batch} sequences, ({batch},), not "
            f"{given.shape}"
        )
    if not batch:
        return None
    marks = lengths_to_mask(given, time)
    return None if marks.all() else mg.asarray(marks, device="cpu")


def _by_step(marks: Tensor | None, time: int, usual: bool, device: str) -> list[Tensor | None]:
    """The flags (batch,) of every step; ``None`` at steps where they are as usual for all.

    That is found out for flags in the host's memory alone: to ask a GPU is to wait for it.
    """
    if marks is None:
        return [None] * time
    steps = mg.unstack(marks.to(device))
    if marks.device != "cpu":
        return list(steps)
    unusual = (marks.array != usual).any(axis=1).tolist()
    return [step if some else None for step, some in zip(steps, unusual, strict=True)]


def _steps(
    xs: Tensor, project: Callable[[Tensor], Tensor] | None, reverse: bool
) -> Iterator[tuple[int, Tensor]]:
    """The number of every step and its x, projected, in the order in which they are run."""
    order = -1 if reverse else 1
    cuts = range(BLOCK, xs.shape[0], BLOCK)
    starts = [0, *cuts]
    blocks = mg.split(xs, cuts) if cuts else [xs]
    for start, block in list(zip(starts, blocks, strict=True))[::order]:
        steps = mg.unstack(block if project is None else project(block))
        for i in range(len(steps))[::order]:
            yield start + i, steps[i]


def blanked(valid: Tensor, xs: Tensor) -> Tensor:
    """xs with 0 at the steps that are not valid."""
    return mg.where(valid.to(xs.device).reshape((*valid.shape, *[1] * (xs.ndim - 2))), xs, 0)


def _stacked(steps: list[Any], reverse: bool) -> Any:
    """Every part over all steps, in the order of time."""
    if reverse:
        steps.reverse()
    return map_state(lambda *parts: mg.stack(parts), *steps)


def _checked(cell: Step) -> Step:
    """The user's cell, with a clear error if it does not return a pair."""

    def step(x: Any, state: State) -> tuple[Any, State]:
        result = cell(x, state)
        if not isinstance(result, tuple) or len(result) != 2:
            raise TypeError(
                f"a cell returns the pair (y, state); {name_of(cell)} returned a "
                f"{type(result).__name__}"
            )
        return result

    return step
