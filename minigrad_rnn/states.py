"""States: what a cell carries from one step to the next, tensors in nested containers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import minigrad as mg
from minigrad import Tensor


def map_state(function: Callable[..., Any], *states: Any) -> Any:
    """The same containers with ``function`` of the parts that stand there in all ``states``.

    Containers are tuples, lists and dictionaries; a part is whatever is none of these.

    Raises ``ValueError`` if the states are not nested in the same way.
    """
    first = states[0]
    for state in states[1:]:
        if _frame(state) != _frame(first):
            raise ValueError(
                f"a state keeps its nesting: {shapes_of(first)} and {shapes_of(state)} do not fit"
            )
    if isinstance(first, dict):
        return {key: map_state(function, *[state[key] for state in states]) for key in first}
    if not isinstance(first, list | tuple):
        return function(*states)
    parts = [map_state(function, *each) for each in zip(*states, strict=True)]
    if isinstance(first, list):
        return parts
    return first._make(parts) if hasattr(first, "_make") else tuple(parts)


def as_tensors(state: Any) -> Any:
    """The same state with tensors for arrays, those of NumPy on the device of the scope."""

    def tensor(part: Any) -> Any:
        plain = isinstance(part, Tensor) or not hasattr(part, "shape")
        return part if plain else mg.asarray(part)

    return map_state(tensor, state)


def zeros_for(state: Any) -> Any:
    """A zero in the place of every part, which broadcasts to it."""
    return map_state(lambda part: 0, state)


def select(rows: Tensor, new: Any, old: Any, batch_axis: int = 0) -> Any:
    """``new`` in the sequences that ``rows`` (batch,) flags, and ``old`` in the others.

    Raises ``ValueError`` if a part of the states has no such batch axis.
    """

    def selected(a: Any, b: Any) -> Tensor:
        part = b if hasattr(b, "shape") else a
        axes = [1] * getattr(part, "ndim", 0)
        if rows.ndim:
            if not -len(axes) <= batch_axis < len(axes) or part.shape[batch_axis] != rows.size:
                raise ValueError(
                    f"axis {batch_axis} of every part of the state is that of the {rows.size} "
                    f"sequences, which start and end by themselves; a part is {shapes_of(part)}"
                )
            axes[batch_axis] = rows.size
        chosen = mg.where(rows.to(part.device).reshape(axes), a, b)
        if chosen.shape != part.shape:
            raise ValueError(f"a state {shapes_of(a)} does not fit in a state {shapes_of(b)}")
        return chosen

    return map_state(selected, new, old)


def detach_state(state: Any) -> Any:
    """The same state as a constant, every part of it: no gradient flows through it.

    The nesting of tuples, lists and dictionaries is kept; ``None`` stays ``None``.

    >>> import minigrad as mg, minigrad_rnn as rnn
    >>> cell = rnn.LSTMCell(1, 2, rng=0)
    >>> with mg.Tape() as tape:
    ...     _, state = cell(mg.tensor([[1.0]]))
    ...     h, c = rnn.detach_state(state)
    >>> h.requires_grad, c.requires_grad
    (False, False)
    """
    return map_state(lambda part: part.detach() if isinstance(part, Tensor) else part, state)


def reset_state(state: Any, fresh: Any, initial: Any = None, *, batch_axis: int = -2) -> Any:
    """The state with those sequences set back to the initial state that start anew.

    Call it between two batches, where some rows go on and others begin. No gradient flows
    from a row that was set back to what came before.

    Args:
        state: of a cell or a layer, nested in any way; ``None`` is ``initial``.
        fresh: (batch,) booleans, True where a sequence starts anew; or one for all of them.
        initial: the state to set back to, nested as ``state`` and of shapes that broadcast to
            its shapes: ``layer.initial_state(batch_size)`` if that is learned; zeros by default.
        batch_axis: which axis of every part counts the sequences. The default, the last axis
            but one, is that of the cells (batch, hidden) and of the layers
            (num_layers, batch, hidden) of this package.

    Raises ``TypeError`` if ``fresh`` is not boolean, and ``ValueError`` if it is not of one
    axis or a part does not have as many rows.

    >>> import minigrad as mg, minigrad_rnn as rnn
    >>> rnn.reset_state(mg.tensor([[1.0, 2.0], [3.0, 4.0]]), [False, True])
    tensor([[1., 2.],
            [0., 0.]])
    """
    if state is None:
        return initial
    state, initial = as_tensors(state), as_tensors(initial)
    rows = mg.asarray(fresh)
    if rows.dtype != "bool":
        raise TypeError(f"fresh is boolean, not {rows.dtype}: write fresh != 0")
    if rows.ndim > 1:
        raise ValueError(f"fresh is one boolean for each sequence, not {rows.shape}")
    return select(rows, zeros_for(state) if initial is None else initial, state, batch_axis)


def shapes_of(state: Any) -> Any:
    """The shape of every part, nested as the state is; for a part without one, its type."""
    return map_state(lambda part: getattr(part, "shape", type(part).__name__), state)


def check_state(name: str, state: Any, sizes: Any, *leading: int) -> None:
    """Raise ``ValueError`` unless each part of the state of ``name`` is (*leading, its size)."""
    expected = map_state(lambda size: (*leading, size), sizes)
    given = shapes_of(state)
    if given != expected:
        raise ValueError(f"{name} expects a state of shape {expected}, not {given}")


def _frame(state: Any) -> Any:
    """Which container it is, of what; ``None`` for a part."""
    if isinstance(state, dict):
        return dict, state.keys()
    return (type(state), len(state)) if isinstance(state, list | tuple) else None
