"""Operations that leave a value as it is and act on the gradient that flows back through it.

Clipping the gradient on its way through time, stopping it, scaling it, looking at it: all
are one such node on the edge in question.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minigrad.arrays import TensorLike, as_array
from minigrad.primitive import operation, primitive
from minigrad.tensor import Tensor, as_operand


@operation
def detach(x: TensorLike) -> Tensor:
    """x as a constant: no gradient flows back.

    >>> import minigrad as mg
    >>> x = mg.tensor(3.0, requires_grad=True)
    >>> with mg.Tape() as tape:
    ...     y = x * mg.detach(x)
    >>> tape.gradient(y, x)
    tensor(3.)
    """
    return x.detach() if isinstance(x, Tensor) else x


@operation
@primitive
def scale_gradient(x: TensorLike, /, scale: TensorLike) -> Tensor:
    """x, whose gradient is multiplied by ``scale`` on its way back.

    ``scale`` is a number, or an array that broadcasts against x.

    >>> import minigrad as mg
    >>> x = mg.tensor(3.0, requires_grad=True)
    >>> with mg.Tape() as tape:
    ...     y = mg.scale_gradient(x, -1.0) ** 2
    >>> tape.gradient(y, x)
    tensor(-6.)
    """
    return x


scale_gradient.rules(x=lambda g, scale: g * scale)


@operation
@primitive
def map_gradient(x: TensorLike, /, function: Callable[[Tensor], TensorLike]) -> Tensor:
    """x, whose gradient is replaced by ``function(gradient)`` on its way back.

    ``function`` receives and returns a Tensor of the shape of x. A second derivative reads the
    entry again: what flows back through it then is mapped, too.

    >>> import minigrad as mg
    >>> x = mg.tensor([3.0, 0.1], requires_grad=True)
    >>> with mg.Tape() as tape:
    ...     y = mg.sum(mg.map_gradient(x, lambda g: mg.clip(g, -1.0, 1.0)) ** 2)
    >>> tape.gradient(y, x)
    tensor([1. , 0.2])
    """
    return x


def _mapped(g: Any, function: Callable[[Tensor], TensorLike]) -> Any:
    if isinstance(g, Tensor):
        return function(g)
    return as_operand(function(Tensor(as_array(g))))


map_gradient.rules(x=_mapped)
