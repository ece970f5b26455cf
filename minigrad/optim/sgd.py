"""SGD: downhill, with momentum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minigrad.arrays import Array
from minigrad.optim.optimizer import Optimizer, Parameters, remembered


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum.

    With the gradient g, momentum mu and weight decay d:

        g <- g + d w;    v <- mu v + g;    w <- w - lr v

    As PyTorch has it, v is g at the first step, and lr is not inside v. ``nesterov=True``
    looks one step ahead:  w <- w - lr (g + mu v).

    Sutskever, Martens, Dahl and Hinton, On the importance of initialization and momentum in
    deep learning, 2013.

    Raises ``ValueError`` for Nesterov's momentum without momentum; see :class:`Optimizer` for
    the rest.

    >>> import minigrad as mg
    >>> w = mg.tensor([1.0], requires_grad=True)
    >>> optimizer = mg.optim.SGD([w], lr=0.1)
    >>> with mg.Tape() as tape:
    ...     loss = mg.sum(w * w)
    >>> tape.backward(loss)
    >>> optimizer.step()
    >>> w
    tensor([0.8], requires_grad=True)
    """

    def __init__(
        self,
        parameters: Parameters,
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(
            parameters, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov
        )

    def check(self, settings: Mapping[str, Any]) -> None:
        """Nesterov's momentum needs momentum."""
        super().check(settings)
        if settings["nesterov"] and not settings["momentum"]:
            raise ValueError("nesterov=True needs a momentum above 0: 0.9 is a common one")

    def state_names(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The velocity, if there is momentum."""
        return ("velocity",) if settings["momentum"] else ()

    def update(
        self,
        array: Array,
        gradient: Array,
        state: dict[str, Array],
        t: int,
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        nesterov: bool,
    ) -> Array:
        """w - lr v"""
        if weight_decay:
            gradient = gradient + weight_decay * array
        if momentum:
            velocity = remembered(state, "velocity", array)
            velocity *= momentum
            velocity += gradient
            gradient = gradient + momentum * velocity if nesterov else velocity
        step = -lr * gradient
        step += array
        return step
