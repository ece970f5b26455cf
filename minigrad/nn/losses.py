"""Losses."""

from __future__ import annotations

from typing import Literal

from minigrad.arrays import TensorLike, check_positions, device_of, namespace
from minigrad.ops import log_softmax, reshape
from minigrad.tensor import Tensor, asarray, describe

Reduction = Literal["mean", "sum", "none"]


def cross_entropy(
    logits: TensorLike,
    targets: TensorLike,
    mask: TensorLike = None,
    *,
    reduction: Reduction = "mean",
) -> Tensor:
    """The negative log-likelihood of integer ``targets`` under  softmax(logits),  in nats.

    -logits[..., target] + logsumexp(logits, -1),  computed without overflow.

    Args:
        logits: (..., classes), floats; unlike in PyTorch the classes are the last axis.
        targets: (...), integers in 0 .. classes - 1.
        mask: (...), booleans or weights: how much each position counts. Targets where it is
            0 must be valid numbers all the same.
        reduction: ``"mean"`` over positions (weighted by the mask), ``"sum"``, or
            ``"none"`` for the loss of every position.

    Raises:
        ValueError: if the shapes do not fit, the reduction is unknown, or there is nothing
            to average.
        TypeError: if the targets are not integers.
        IndexError: if a target is not a class.

    >>> from minigrad import nn
    >>> import minigrad as mg
    >>> logits = mg.tensor([[0.0, 0.0], [0.0, 100.0]])
    >>> nn.cross_entropy(logits, mg.tensor([0, 1]), reduction="none")
    tensor([0.6931472, 0.       ])
    """
    if not isinstance(logits, Tensor):
        logits = asarray(logits)
    positions = asarray(targets).array
    if logits.ndim < 1 or positions.shape != logits.shape[:-1]:
        raise ValueError(
            f"cross_entropy: logits (..., classes) need targets (...), and these are "
            f"{describe(logits)} and {describe(positions)}"
        )
    classes = logits.shape[-1]
    check_positions(positions, classes, "the targets of cross_entropy")
    scores = reshape(log_softmax(logits), (-1, classes))
    rows = namespace(positions).arange(positions.size)
    losses = reshape(0.0 - scores[rows, positions.reshape(-1)], positions.shape)
    count: TensorLike = positions.size
    if mask is not None:
        weights = asarray(mask, losses.dtype)
        if weights.shape != positions.shape:
            raise ValueError(
                f"cross_entropy: the mask is {describe(weights)}, the targets {describe(positions)}"
            )
        losses = losses * weights
        count = weights.sum()
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    if reduction != "mean":
        raise ValueError(f"the reduction is 'mean', 'sum' or 'none', not {reduction!r}")
    if (mask is None or device_of(positions) == "cpu") and not count:
        raise ValueError("cross_entropy: there is nothing to average (no targets, or all masked)")
    return losses.sum() / count
