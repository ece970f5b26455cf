"""Adagrad: the gradient divided by all that came before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minigrad.arrays import Array
from minigrad.optim.optimizer import Optimizer, Parameters, remembered


class Adagrad(Optimizer):
    """Adagrad: small steps where gradients were large or many, large ones where they are rare.

    With the gradient g and weight decay d, at step t:

        g <- g + d w;    s <- s + g^2
        w <- w - lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps)

    where s is ``initial_accumulator_value`` at first.

    Duchi, Hazan and Singer, Adaptive subgradient methods for online learning and stochastic
    optimization, 2011.

    >>> import minigrad as mg
    >>> w = mg.tensor([1.0], requires_grad=True)
    >>> optimizer = mg.optim.Adagrad([w], lr=0.1)
    >>> with mg.Tape() as tape:
    ...     loss = mg.sum(w * w)
    >>> tape.backward(loss)
    >>> optimizer.step()
    >>> w
    tensor([0.9], requires_grad=True)
    """

    def __init__(
        self,
        parameters: Parameters,
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
    ) -> None:
        super().__init__(
            parameters,
            lr=lr,
            lr_decay=lr_decay,
            weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value,
            eps=eps,
        )

    def state_names(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The sum of the squared gradients."""
        return ("sum",)

    def update(
        self,
        array: Array,
        gradient: Array,
        state: dict[str, Array],
        t: int,
        *,
        lr: float,
        lr_decay: float,
        weight_decay: float,
        initial_accumulator_value: float,
        eps: float,
    ) -> Array:
        """w - lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps)"""
        if weight_decay:
            gradient = gradient + weight_decay * array
        total = remembered(state, "sum", array, initial_accumulator_value)
        total += gradient * gradient
        size = total**0.5
        size += eps
        step = gradient / size
        step *= -lr / (1.0 + (t - 1) * lr_decay)
        step += array
        return step
