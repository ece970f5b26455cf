"""RMSprop: the gradient divided by its recent size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minigrad.arrays import Array, namespace
from minigrad.optim.optimizer import Optimizer, Parameters, check_range, remembered


class RMSprop(Optimizer):
    """RMSprop: the gradient divided by a moving average of its size.

    With the gradient g, smoothing alpha, momentum mu and weight decay d:

        g <- g + d w;    v <- alpha v + (1 - alpha) g^2
        b <- mu b + g / (sqrt(v) + eps);    w <- w - lr b

    ``centered=True`` divides by the standard deviation instead:  sqrt(v - m^2)  with
    m <- alpha m + (1 - alpha) g. There is no correction of the averages' start at 0.

    Tieleman and Hinton, lecture 6.5 of Neural networks for machine learning, 2012; with
    momentum and centered: Graves, Generating sequences with recurrent neural networks, 2013.

    Raises ``ValueError`` if alpha is not in [0, 1); see :class:`Optimizer` for the rest.

    >>> import minigrad as mg
    >>> w = mg.tensor([1.0], dtype="float64", requires_grad=True)
    >>> optimizer = mg.optim.RMSprop([w], lr=0.01, eps=0.0)
    >>> with mg.Tape() as tape:
    ...     loss = mg.sum(w * w)
    >>> tape.backward(loss)
    >>> optimizer.step()
    >>> w
    tensor([0.9], dtype=float64, requires_grad=True)
    """

    def __init__(
        self,
        parameters: Parameters,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
    ) -> None:
        super().__init__(
            parameters,
            lr=lr,
            alpha=alpha,
            eps=eps,
            weight_decay=weight_decay,
            momentum=momentum,
            centered=centered,
        )

    def check(self, settings: Mapping[str, Any]) -> None:
        """Alpha is below 1."""
        super().check(settings)
        check_range("alpha", settings["alpha"], below=1.0)

    def state_names(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The moving averages of the squared gradient and of the gradient; the momentum."""
        names = ["v"]
        if settings["centered"]:
            names.append("m")
        if settings["momentum"]:
            names.append("velocity")
        return tuple(names)

    def update(
        self,
        array: Array,
        gradient: Array,
        state: dict[str, Array],
        t: int,
        *,
        lr: float,
        alpha: float,
        eps: float,
        weight_decay: float,
        momentum: float,
        centered: bool,
    ) -> Array:
        """w - lr b"""
        if weight_decay:
            gradient = gradient + weight_decay * array
        v = remembered(state, "v", array)
        squares = gradient * gradient
        squares *= 1.0 - alpha
        v *= alpha
        v += squares
        power = v
        if centered:
            m = remembered(state, "m", array)
            m *= alpha
            m += (1.0 - alpha) * gradient
            # Of a constant gradient the variance is 0, and rounding may leave it below.
            power = namespace(v).maximum(v - m * m, 0.0)
        size = power**0.5
        size += eps
        step = gradient / size
        if momentum:
            velocity = remembered(state, "velocity", array)
            velocity *= momentum
            velocity += step
            step = velocity
        step = -lr * step
        step += array
        return step
