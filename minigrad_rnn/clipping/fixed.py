"""Clipping to a limit that you choose: by value, by the norm of all, by the norm of each."""

from __future__ import annotations

from math import inf

import numpy

import minigrad as mg
from minigrad import Tensor
from minigrad_rnn.clipping.gradients import Gradients, NonFinite, Parameters, check_positive
from minigrad_rnn.clipping.log import ClipLog
from minigrad_rnn.clipping.norms import norm_of_all, norm_of_each, unrecorded, wide_dtype


@unrecorded()
def clip_grad_norm_(
    parameters: Parameters,
    max_norm: float,
    norm_type: float = 2.0,
    *,
    nonfinite: NonFinite = "propagate",
    error_if_nonfinite: bool = False,
    log: ClipLog | None = None,
) -> Tensor:
    """Scale all gradients by  max_norm / norm  if their common norm is larger than that.

    The norm is that of all gradients as one vector; parameters that occur twice count once,
    those without a gradient not at all. The gradients are bound to new tensors, and are bit
    for bit the same if the norm does not exceed ``max_norm``. Their direction stays.

    Args:
        parameters: leaves with their gradients computed, or (name, leaf) pairs, whose names
            then stand in errors.
        max_norm: the largest norm to leave alone, more than 0; infinity only measures.
        norm_type: 1, 2 or infinity, or any p >= 1.
        nonfinite: ``"propagate"``, ``"zero"``, ``"skip"`` or ``"error"``, see
            :data:`minigrad_rnn.clipping.NonFinite`. Under ``"propagate"`` NaN in one gradient
            makes the norm NaN and with it every gradient; an infinite element becomes NaN,
            and all others 0. The norm returned tells.
        error_if_nonfinite: the same as ``nonfinite="error"``, under PyTorch's name.
        log: where to record what was changed.

    Returns the norm before clipping, a constant of no dimensions, of what ``nonfinite`` left.
    On a GPU it is not waited for, unless ``nonfinite`` is ``"skip"`` or ``"error"``. It is
    computed in float64, or relative to the largest element, so that powers do not overflow;
    the gradients are clipped rightly even if their norm is beyond what its dtype can hold, and
    so infinite.

    Pascanu, Mikolov and Bengio, On the difficulty of training recurrent neural networks, 2013.

    Raises:
        ValueError: if ``max_norm`` is not positive, ``norm_type`` is below 1, ``nonfinite`` is
            unknown, or no parameter has a gradient.
        FloatingPointError: if an element is not finite and that is to be an error.

    >>> import minigrad as mg, minigrad_rnn as rnn
    >>> w = mg.tensor([0.0, 0.0], requires_grad=True)
    >>> w.grad = mg.tensor([3.0, 4.0])
    >>> rnn.clip_grad_norm_([w], max_norm=1.0)
    tensor(5.)
    >>> w.grad
    tensor([0.6, 0.8])
    """
    check_positive(max_norm=max_norm)
    check_norm_type(norm_type)
    if error_if_nonfinite:
        if nonfinite not in ("propagate", "error"):
            raise ValueError(
                "error_if_nonfinite=True means nonfinite='error', and nonfinite="
                f"{nonfinite!r} was given as well: give one of them"
            )
        nonfinite = "error"
    gradients = Gradients(parameters, nonfinite, log)
    norm = norm_of_all(gradients.values, norm_type)
    if gradients.usable(norm.root):
        gradients.shrink(norm, max_norm)
    return norm.value.astype(wide_dtype(gradients.values))


@unrecorded()
def clip_grad_norm_per_tensor_(
    parameters: Parameters,
    max_norm: float,
    norm_type: float = 2.0,
    *,
    nonfinite: NonFinite = "propagate",
    log: ClipLog | None = None,
) -> Tensor:
    """Scale every gradient by itself by  max_norm / norm  if its norm is larger than that.

    What Keras calls ``clipnorm``. The direction of every gradient stays; that of all of them as
    one vector changes.

    Args:
        parameters, max_norm, norm_type, nonfinite, log: as for :func:`clip_grad_norm_`.
            ``"propagate"`` concerns the tensor that holds the element, the others are clipped
            as usual.

    Returns the norms before clipping, (number of parameters with a gradient,), in their order.

    Raises what :func:`clip_grad_norm_` raises.

    >>> import minigrad as mg, minigrad_rnn as rnn
    >>> v, w = (mg.tensor([0.0, 0.0], requires_grad=True) for _ in range(2))
    >>> v.grad, w.grad = mg.tensor([3.0, 4.0]), mg.tensor([0.0, 0.5])
    >>> rnn.clip_grad_norm_per_tensor_([v, w], max_norm=1.0)
    tensor([5. , 0.5])
    >>> v.grad, w.grad
    (tensor([0.6, 0.8]), tensor([0. , 0.5]))
    """
    check_positive(max_norm=max_norm)
    check_norm_type(norm_type)
    gradients = Gradients(parameters, nonfinite, log)
    norms = norm_of_each(gradients.values, norm_type)
    if gradients.usable(norms.root):
        gradients.shrink(norms, max_norm)
    return norms.value.astype(wide_dtype(gradients.values))


@unrecorded()
def clip_grad_value_(
    parameters: Parameters,
    clip_value: float,
    *,
    nonfinite: NonFinite = "propagate",
    log: ClipLog | None = None,
) -> None:
    """Bring every element of every gradient into  [-clip_value, clip_value].

    This turns the gradient; :func:`clip_grad_norm_` does not. The gradients are bound to new
    tensors.

    Args:
        parameters, log: as for :func:`clip_grad_norm_`.
        clip_value: the largest magnitude to leave alone, more than 0.
        nonfinite: as for :func:`clip_grad_norm_`. Under ``"propagate"`` NaN stays NaN, and
            infinity becomes ``clip_value``.

    Raises ``ValueError`` if ``clip_value`` is not positive, ``nonfinite`` is unknown, or no
    parameter has a gradient, and ``FloatingPointError`` if an element is not finite and that
    is to be an error.

    >>> import minigrad as mg, minigrad_rnn as rnn
    >>> w = mg.tensor([0.0, 0.0], requires_grad=True)
    >>> w.grad = mg.tensor([3.0, -0.5])
    >>> rnn.clip_grad_value_([w], 1.0)
    >>> w.grad
    tensor([ 1. , -0.5])
    """
    check_positive(clip_value=clip_value)
    gradients = Gradients(parameters, nonfinite, log)
    if gradients.usable():
        gradients.replace([clipped_values(g, clip_value) for g in gradients.values])


def clipped_values(gradient: Tensor, clip_value: float) -> Tensor:
    """Every element brought into  [-clip_value, clip_value]."""
    if clip_value == inf:
        return gradient
    limit = min(clip_value, float(numpy.finfo(gradient.dtype).max))
    return mg.clip(gradient, -limit, limit)


def check_norm_type(norm_type: float) -> None:
    """Raise ``ValueError`` unless there is such a norm."""
    if not norm_type >= 1.0:
        raise ValueError(f"norm_type is at least 1, not {norm_type}")
