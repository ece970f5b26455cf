"""Diagnostics: does the gradient arrive where it should?"""

from __future__ import annotations

from collections.abc import Iterable

from minigrad import Tensor, nn


def check_all_received_grad(parameters: nn.Module | Iterable[Tensor | tuple[str, Tensor]]) -> None:
    """Raise ``ValueError`` naming the parameters whose ``.grad`` is ``None``.

    Call it once after the first backward pass. A parameter without a gradient is one that the
    loss does not depend on: a layer that was left out, or a weight whose place was taken by a
    copy that the gradient does not flow through.

    Args:
        parameters: a module, its ``named_parameters()``, or parameters, which are then named
            by number.

    >>> import minigrad as mg, minigrad_rnn as rnn
    >>> cell = rnn.RNNCell(1, 2, rng=0)
    >>> with mg.Tape() as tape:
    ...     y, _ = cell(mg.tensor([[1.0]]))
    ...     loss = y.sum()
    >>> tape.backward(loss)
    >>> rnn.check_all_received_grad(cell)
    """
    given = parameters.named_parameters() if isinstance(parameters, nn.Module) else parameters
    named = [
        item if isinstance(item, tuple) else (f"parameter {number}", item)
        for number, item in enumerate(given)
    ]
    if not named:
        raise ValueError("there are no parameters; an iterator, for one, can be read only once")
    missing = [name for name, parameter in named if parameter.grad is None]
    if missing:
        raise ValueError(
            f"no gradient reached {', '.join(missing)}: either the loss does not depend on that, "
            "or there was no backward pass"
        )
