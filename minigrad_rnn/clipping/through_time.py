"""Clipping the gradient on its way back through time, at every step that it passes."""

from __future__ import annotations

from math import inf
from typing import Any, Literal

import minigrad as mg
from minigrad import Tensor
from minigrad_rnn.clipping.fixed import clipped_values
from minigrad_rnn.clipping.gradients import check_nonfinite, check_positive, finite_or_zero
from minigrad_rnn.clipping.norms import norm_along, unrecorded, wide_dtype
from minigrad_rnn.states import map_state


def clip_gradient(
    state: Any,
    *,
    max_norm: float | None = None,
    clip_value: float | None = None,
    per_row: bool = False,
    nonfinite: Literal["propagate", "zero", "error"] = "propagate",
) -> Any:
    """The state as it is, whose gradient is clipped where it flows back through this point.

    On a recurrent edge this bounds the gradient at every step, so that it cannot explode on
    its way, which clipping the sum over all steps afterwards cannot do. Wrap what a cell
    receives, and delta, the gradient that step t + 1 hands down to the state of step t, is
    clipped before that of the output y_t is added to it:

        delta_t = clip(delta_t+1 ds_t+1 / ds_t) + dloss / dy_t dy_t / ds_t

    The result is the gradient of no function any more, and has no derivative: a second order
    through this point is refused.

    Of a cell of any kind:

        def clipped(x, state):
            return cell(x, rnn.clip_gradient(state, max_norm=1.0))

    which ``rnn.unroll`` runs; or a subclass of a cell of this package, for layers:

        class ClippedLSTMCell(rnn.LSTMCell):
            def step(self, projected, state):
                return super().step(projected, rnn.clip_gradient(state, clip_value=1.0))

    Graves, Generating sequences with recurrent neural networks, 2013, clips by value.

    Args:
        state: a tensor, or tensors in nested tuples, lists and dictionaries. Each is clipped by
            itself; to clip h alone, wrap h alone. ``None`` stays ``None``.
        max_norm: scale the gradient to this 2-norm if it is larger.
        clip_value: bring every element into  [-clip_value, clip_value].  Give one of the two;
            an infinite one changes nothing, bit for bit.
        per_row: with ``max_norm``, take the norm along the last axis: of every sequence of the
            batch by itself. Otherwise sequences that are far off scale down all the others.
        nonfinite: what becomes of gradients that are not finite: ``"propagate"`` clips them by
            the formula (a norm that is NaN makes all NaN, an infinite one makes infinity NaN
            and the rest 0; by value, NaN stays and infinity becomes the limit); ``"zero"``
            counts such elements as 0; ``"error"`` raises ``FloatingPointError`` from the
            backward pass, for which a GPU is waited for at every step. To skip an update is
            for the functions that clip gradients of parameters to decide.

    Raises:
        ValueError: if a limit is not positive, not exactly one is given, ``per_row`` goes with
            ``clip_value``, or ``nonfinite`` is none of the three.
        TapeError: from a backward pass with ``create_graph=True``.

    >>> import minigrad as mg, minigrad_rnn as rnn
    >>> w = mg.tensor(3.0, requires_grad=True)
    >>> with mg.Tape() as tape:
    ...     state = w
    ...     for _ in range(4):
    ...         state = 3.0 * rnn.clip_gradient(state, clip_value=2.0)
    >>> tape.gradient(state, w)
    tensor(2.)
    """
    if (max_norm is None) == (clip_value is None):
        raise ValueError("give either max_norm or clip_value")
    if per_row and max_norm is None:
        raise ValueError("per_row says along what to take a norm: it goes with max_norm")
    check_nonfinite(nonfinite, ("propagate", "zero", "error"))
    limit = max_norm if clip_value is None else clip_value
    assert limit is not None
    check_positive(**{"max_norm" if clip_value is None else "clip_value": limit})
    if limit == inf and nonfinite == "propagate":
        return state

    def on_the_way_back(part: Any) -> Any:
        if not isinstance(part, Tensor):
            return part
        return _clip_gradient(part, max_norm, clip_value, per_row, nonfinite)

    return map_state(on_the_way_back, state)


@mg.primitive
def _clip_gradient(
    x: Any, /, max_norm: float | None, clip_value: float | None, per_row: bool, nonfinite: str
) -> Any:
    return x


@unrecorded()
def _clipped(
    g: Any, max_norm: float | None, clip_value: float | None, per_row: bool, nonfinite: str
) -> Any:
    if isinstance(g, Tensor):
        # The next order would read this node once more, and clip what is no such gradient.
        raise mg.TapeError(
            "a gradient that clip_gradient has changed is that of no function, and cannot be "
            "differentiated: leave out create_graph=True, or clip_gradient"
        )
    gradient = mg.asarray(g)
    if nonfinite == "zero":
        gradient = finite_or_zero(gradient)
    elif nonfinite == "error" and not mg.isfinite(gradient).all().item():
        raise FloatingPointError(
            f"the gradient {gradient.shape} that flows back through clip_gradient is not finite"
        )
    if clip_value is not None:
        gradient = clipped_values(gradient, clip_value)
    elif max_norm is not None and max_norm < inf and gradient.size:
        norm = norm_along(gradient, -1 if per_row and gradient.ndim else None)
        gradient = gradient * norm.scale(max_norm).astype(wide_dtype([gradient]))
    return gradient.array


_clip_gradient.rules(x=_clipped)
