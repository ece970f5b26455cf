"""Gradient clipping: bounding the step that an exploding gradient would take."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf, isfinite

import numpy

import minigrad as mg
from minigrad import Tensor


def clip_grad_norm_(
    parameters: Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    *,
    error_if_nonfinite: bool = False,
) -> Tensor:
    """Scale all gradients by  max_norm / norm  if their common norm is larger than that.

    The norm is that of all gradients as one vector; parameters that occur twice count once,
    those without a gradient not at all. The gradients are bound to new tensors, and are bit
    for bit the same if the norm does not exceed ``max_norm``.

    Args:
        parameters: leaves with their gradients computed.
        max_norm: the largest norm to leave alone, more than 0; infinity only measures.
        norm_type: 1, 2 or infinity, or any p >= 1.
        error_if_nonfinite: raise if the norm is NaN or infinite; on a GPU this waits for it.

    Returns the norm before clipping, a constant of no dimensions; on a GPU it is not waited
    for. It is computed relative to the largest element, so squares do not overflow.

    NaN in one gradient makes the norm NaN and with it every gradient; an infinite element
    becomes NaN, and all others 0. Neither passes unseen: the norm returned tells, and
    ``error_if_nonfinite=True`` stops there, with the gradients as they were.

    Pascanu, Mikolov and Bengio, On the difficulty of training recurrent neural networks, 2013.

    Raises:
        ValueError: if ``max_norm`` is not positive, ``norm_type`` is below 1, or no parameter
            has a gradient.
        FloatingPointError: if the norm is not finite and that is to be an error.

    >>> import minigrad as mg, minigrad_rnn as rnn
    >>> w = mg.tensor([0.0, 0.0], requires_grad=True)
    >>> w.grad = mg.tensor([3.0, 4.0])
    >>> rnn.clip_grad_norm_([w], max_norm=1.0)
    tensor(5.)
    >>> w.grad
    tensor([0.6, 0.8])
    """
    if not max_norm > 0.0:
        raise ValueError(f"max_norm is more than 0, not {max_norm}")
    if not norm_type >= 1.0:
        raise ValueError(f"norm_type is at least 1, not {norm_type}")
    leaves = _with_gradient(parameters)
    with mg.no_grad():
        norm = _norm([leaf.grad for leaf in leaves if leaf.grad is not None], norm_type)
        if error_if_nonfinite and not isfinite(norm.item()):
            raise FloatingPointError(
                f"the norm of the gradients is {norm.item()}: look at the learning rate, the loss, "
                "and the data of this step"
            )
        if max_norm < inf:
            # Exactly 1 if the norm is not larger; no division by a norm of 0. In float64,
            # because max_norm may lie beyond the range of a narrower dtype.
            scale = max_norm / mg.maximum(norm.astype("float64"), max_norm)
            for leaf in leaves:
                assert leaf.grad is not None
                with numpy.errstate(invalid="ignore"):  # infinity times 0, as documented
                    leaf.grad = leaf.grad * scale.astype(leaf.dtype)
    return norm


def clip_grad_value_(parameters: Iterable[Tensor], clip_value: float) -> None:
    """Bring every element of every gradient into  [-clip_value, clip_value].

    This changes the direction of the gradient; :func:`clip_grad_norm_` does not. NaN stays
    NaN, infinity becomes ``clip_value``. The gradients are bound to new tensors.

    Raises ``ValueError`` if ``clip_value`` is not positive or no parameter has a gradient.

    >>> import minigrad as mg, minigrad_rnn as rnn
    >>> w = mg.tensor([0.0, 0.0], requires_grad=True)
    >>> w.grad = mg.tensor([3.0, -0.5])
    >>> rnn.clip_grad_value_([w], 1.0)
    >>> w.grad
    tensor([ 1. , -0.5])
    """
    if not clip_value > 0.0:
        raise ValueError(f"clip_value is more than 0, not {clip_value}")
    with mg.no_grad():
        for leaf in _with_gradient(parameters):
            assert leaf.grad is not None
            limit = min(clip_value, float(numpy.finfo(leaf.dtype).max))
            leaf.grad = mg.clip(leaf.grad, -limit, limit)


def _with_gradient(parameters: Iterable[Tensor]) -> list[Tensor]:
    """The parameters that have a gradient, each once."""
    if isinstance(parameters, Tensor):
        parameters = [parameters]
    leaves = {p.slot: p for p in parameters if p.grad is not None}
    if not leaves:
        raise ValueError(
            "no parameter has a gradient to clip: call this after tape.backward(loss) and before "
            "optimizer.step() (and hand over a list, if a generator was used up before)"
        )
    return list(leaves.values())


def _norm(gradients: list[Tensor], p: float) -> Tensor:
    """The p-norm of all gradients as one vector, relative to its largest element."""
    wide = "float64" if any(g.dtype == "float64" for g in gradients) else "float32"
    gradients = [g for g in gradients if g.size]
    if not gradients:
        return mg.tensor(0.0, wide)
    largest = mg.stack([mg.abs(g).max().astype(wide) for g in gradients]).max()
    if p == inf:
        return largest
    unit = mg.where((largest > 0.0) * (largest < inf), largest, 1.0)
    relative = [mg.abs(g).astype(wide) / unit for g in gradients]
    powers = [(r * r if p == 2.0 else r**p).sum() for r in relative]
    return largest * mg.stack(powers).sum() ** (1.0 / p)
