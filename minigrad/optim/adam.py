"""Adam and AdamW: steps of about the same length in every coordinate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minigrad.arrays import Array
from minigrad.optim.optimizer import Optimizer, Parameters, check_range, remembered


class Adam(Optimizer):
    """Adam: steps of about lr in every coordinate, whatever the gradient's scale.

    With the gradient g, at step t:

        m <- b1 m + (1 - b1) g;      v <- b2 v + (1 - b2) g^2
        w <- w - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

    ``weight_decay`` d adds d w to the gradient; see :class:`AdamW` for the decoupled form.

    Kingma and Ba, Adam: a method for stochastic optimization, 2015.

    >>> import minigrad as mg
    >>> w = mg.tensor([1.0], requires_grad=True)
    >>> optimizer = mg.optim.Adam([w], lr=0.1)
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
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def check(self, settings: Mapping[str, Any]) -> None:
        """The betas are below 1."""
        super().check(settings)
        for which, beta in zip(("first", "second"), settings["betas"], strict=True):
            check_range(f"the {which} beta", beta, below=1.0)

    def state_names(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The moving averages of the gradient and its square."""
        return ("m", "v")

    def update(
        self,
        array: Array,
        gradient: Array,
        state: dict[str, Array],
        t: int,
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
    ) -> Array:
        """w - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)"""
        if weight_decay:
            gradient = gradient + weight_decay * array
        b1, b2 = betas
        m, v = remembered(state, "m", array), remembered(state, "v", array)
        m *= b1
        m += (1.0 - b1) * gradient
        squares = gradient * gradient
        squares *= 1.0 - b2
        v *= b2
        v += squares
        step = v / (1.0 - b2**t)
        step **= 0.5
        step += eps
        step = m / step
        step *= -lr / (1.0 - b1**t)
        step += array
        return step


class AdamW(Adam):
    """Adam with decoupled weight decay:  w <- w - lr d w  before Adam's step.

    Loshchilov and Hutter, Decoupled weight decay regularization, 2019.

    >>> import minigrad as mg
    >>> w = mg.tensor([1.0], requires_grad=True)
    >>> optimizer = mg.optim.AdamW([w], lr=0.1, weight_decay=0.5)
    >>> with mg.Tape() as tape:
    ...     loss = mg.sum(w * w)
    >>> tape.backward(loss)
    >>> optimizer.step()
    >>> w
    tensor([0.84999996], requires_grad=True)
    """

    def __init__(
        self,
        parameters: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(parameters, lr, betas, eps, weight_decay)

    def update(
        self,
        array: Array,
        gradient: Array,
        state: dict[str, Array],
        t: int,
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
    ) -> Array:
        """Adam's step from  (1 - lr d) w"""
        decayed = array * (1.0 - lr * weight_decay)
        return super().update(
            decayed, gradient, state, t, lr=lr, betas=betas, eps=eps, weight_decay=0.0
        )
