"""Checks of backpropagation through time: a step function against differences over a sequence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import numpy

import minigrad as mg
from minigrad import Tensor, nn
from minigrad_rnn.cells import State
from minigrad_rnn.states import as_tensors, detach_state
from minigrad_rnn.truncation import TBPTT
from minigrad_rnn.unrolling import Step, name_of

#: A module, or leaves by name or in order.
Parameters = nn.Module | Mapping[str, Tensor] | Iterable[Tensor] | None


def check_bptt(
    step: Step, state: State, xs: Any, *, parameters: Parameters = None, **settings: Any
) -> None:
    """Check backpropagation through time of any step function against differences.

    The outputs of all steps and the last state are differentiated by the inputs of all steps,
    by the first state and by the parameters; see ``minigrad.testing.check_gradients``.

    Args:
        step: maps (x, state) to (y, state): a cell, or a function.
        state: before the first step, nested in any way; ``None`` if the step knows it.
        xs: (time, ...), or a list with the x of every step. Integers are constants.
        parameters: what the step uses: a module, or leaves in a dictionary or list. Those of
            ``step`` by default, if that is a module.
        settings: those of ``minigrad.testing.check_gradients``: order, modes, seed, ...

    Raises what ``check_gradients`` raises: ``GradientError`` for a wrong gradient.

    >>> import minigrad as mg, minigrad_rnn as rnn, numpy as np
    >>> from minigrad_rnn.testing import check_bptt
    >>> rng = np.random.default_rng(0)
    >>> cell = rnn.RNNCell(2, 3, rng=rng)
    >>> check_bptt(cell, rng.normal(size=(1, 3)), rng.normal(size=(4, 1, 2)))
    """

    def unrolled(xs: Any, state: State) -> Any:
        ys = []
        for t in range(len(xs)):
            y, state = step(xs[t], state)
            ys.append(y)
        return ys, state

    unrolled.__name__ = f"the unrolled {name_of(step)}"
    mg.testing.check_gradients(unrolled, xs, state, parameters=_named(step, parameters), **settings)


def check_truncated_bptt(
    step: Step,
    state: State,
    xs: Any,
    *,
    k1: int,
    k2: int,
    losses: Literal["new", "last", "window"] = "new",
    normalize: Literal["mean", "sum"] = "mean",
    parameters: Parameters = None,
    loss: Callable[[Any, int], Tensor] | None = None,
    truncation: Callable[..., Any] = TBPTT,
    seed: int = 0,
) -> None:
    """Check truncated backpropagation through time against differences, window by window.

    Every ``k1`` steps the gradients of the parameters are compared with differences of the
    window's loss, recomputed from the state that stood ``k2`` steps before and that does not
    move with the parameters. A gradient that reaches further back, through whatever crosses
    the boundary, is found, and so is one that reaches less far.

    Args:
        step, state, xs, parameters: as for :func:`check_bptt`; more than ``k2`` steps, and a
            multiple of ``k1``.
        k1, k2, losses, normalize: see :class:`minigrad_rnn.TBPTT`.
        loss: maps y and the number of the step to the loss of that step, one number. By
            default that is a random linear function of y.
        truncation: what is checked: called with ``k1``, ``k2``, ``losses=`` and
            ``normalize=``, it makes a context manager with a method ``step(loss)``, which
            adds gradients to the parameters' ``.grad`` and returns a loss every ``k1`` steps
            and ``None`` between them.
        seed: of the random losses and directions.

    Raises:
        GradientError: if a gradient is wrong, or comes at another step.
        ValueError: if there are too few steps, or no parameters.

    >>> import minigrad as mg, minigrad_rnn as rnn, numpy as np
    >>> from minigrad_rnn.testing import check_truncated_bptt
    >>> rng = np.random.default_rng(0)
    >>> cell, xs = rnn.LSTMCell(2, 3, rng=rng), rng.normal(size=(6, 1, 2))
    >>> check_truncated_bptt(cell, None, xs, k1=1, k2=3)
    """
    steps = len(xs)
    if steps <= k2 or steps % k1:
        raise ValueError(
            f"{steps} steps do not check k1={k1} and k2={k2}: give more than k2, so that a "
            "boundary is crossed, and a multiple of k1"
        )
    named = _named(step, parameters)
    if not named:
        raise ValueError(
            f"truncated gradients are those of parameters, and {name_of(step)} has none"
        )
    if loss is None:
        loss = _random_loss(seed)
    state, xs = as_tensors(state), as_tensors(xs)
    kept = {name: parameter.grad for name, parameter in named.items()}
    before = []  # the state before every step
    try:
        _forget_gradients(named)
        with truncation(k1, k2, losses=losses, normalize=normalize) as truncated:
            for t in range(steps):
                before.append(detach_state(state))
                y, state = step(xs[t], state)
                due = truncated.step(loss(y, t)) is not None
                if due != ((t + 1) % k1 == 0):
                    raise mg.testing.GradientError(
                        f"after {t + 1} steps there {'was a' if due else 'was no'} gradient, with "
                        f"k1={k1}"
                    )
                if due:
                    gradients = [_gradient(parameter) for parameter in named.values()]
                    _forget_gradients(named)
                    start = max(t + 1 - k2, 0)
                    counted = {"new": k1, "last": 1, "window": k2}[losses]
                    window = _window(
                        step, before[start], xs, loss, start, t + 1, counted, normalize
                    )
                    mg.testing.compare_gradients(
                        window, gradients=gradients, parameters=named, seed=seed
                    )
    finally:
        for name, parameter in named.items():
            parameter.grad = kept[name]


def _window(
    step: Step,
    state: State,
    xs: Any,
    loss: Callable[[Any, int], Tensor],
    start: int,
    end: int,
    counted: int,
    normalize: str,
) -> Callable[[], Tensor]:
    """The loss of steps start to end from a frozen state, of which the last ``counted`` count."""

    def window() -> Tensor:
        now, found = state, []
        for t in range(start, end):
            y, now = step(xs[t], now)
            found.append(loss(y, t))
        found = found[-counted:]
        total = mg.stack(found).sum()
        return total / len(found) if normalize == "mean" else total

    window.__name__ = f"the loss of steps {start} to {end - 1}, with the state before them frozen,"
    return window


def _random_loss(seed: int) -> Callable[[Any, int], Tensor]:
    """A loss that weighs the elements of y at random, at each step in another way."""

    def loss(y: Tensor, t: int) -> Tensor:
        weights = numpy.random.default_rng([seed, t]).uniform(0.5, 1.5, y.shape)
        return (y * mg.asarray(weights, y.dtype, device=y.device)).sum()

    return loss


def _named(step: Step, parameters: Parameters) -> dict[str, Tensor]:
    """The parameters by name, each once; those of ``step`` if none are given."""
    if parameters is None:
        parameters = step if isinstance(step, nn.Module) else ()
    if isinstance(parameters, nn.Module):
        return dict(parameters.named_parameters())
    if isinstance(parameters, Mapping):
        return dict(parameters)
    return {str(i): parameter for i, parameter in enumerate(parameters)}


def _gradient(parameter: Tensor) -> Tensor:
    gradient = parameter.grad
    return 0.0 * parameter.detach() if gradient is None else gradient


def _forget_gradients(parameters: Mapping[str, Tensor]) -> None:
    for parameter in parameters.values():
        parameter.grad = None
