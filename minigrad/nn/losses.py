"""Losses: how far predictions are from targets, in one number or one per position.

All take a ``mask`` and a ``reduction``, and mean the same by them:

mask
    booleans or weights, one for each loss: how much it counts. What it multiplies by 0 must
    be finite all the same.
reduction
    ``"mean"`` (weighted by the mask), ``"sum"``, or ``"none"`` for every loss by itself.

A loss has the dtype of the predictions: targets and masks are cast to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from minigrad.arrays import Array, TensorLike, device_of, is_array, namespace
from minigrad.ops import (
    astype,
    broadcast_to,
    clip,
    expand_dims,
    logaddexp,
    maximum,
    reshape,
    softmax,
    square,
)
from minigrad.ops.indexing import checked_positions
from minigrad.ops.reductions import narrowed, widened
from minigrad.primitive import primitive
from minigrad.slots import in_step
from minigrad.tensor import Tensor, as_operand, asarray, describe

Reduction = Literal["mean", "sum", "none"]


def mse_loss(
    predictions: TensorLike,
    targets: TensorLike,
    mask: TensorLike = None,
    *,
    reduction: Reduction = "mean",
) -> Tensor:
    """The squared error  (prediction - target)^2.

    Args:
        predictions: floats of any shape.
        targets: numbers of the same shape.
        mask, reduction: see :mod:`minigrad.nn.losses`.

    Raises:
        ValueError: if the shapes differ, the reduction is unknown, or there is nothing to
            average.
        TypeError: if the predictions are not floats.

    >>> from minigrad import nn
    >>> import minigrad as mg
    >>> nn.mse_loss(mg.tensor([1.0, 2.0]), mg.tensor([1.0, 4.0]))
    tensor(2.)
    """
    predictions, targets = _compared("mse_loss", predictions, targets)
    return _reduced("mse_loss", square(predictions - targets), mask, reduction)


def huber_loss(
    predictions: TensorLike,
    targets: TensorLike,
    mask: TensorLike = None,
    *,
    delta: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Half the squared error d, but linear in d where it is larger than delta.

    d^2 / 2  where  |d| <= delta,  and  delta (|d| - delta / 2)  elsewhere.

    Huber, Robust estimation of a location parameter, 1964.

    Args:
        predictions, targets, mask, reduction: as for :func:`mse_loss`.
        delta: how large an error may be before it counts as an outlier; above 0.

    Raises what :func:`mse_loss` raises, and ``ValueError`` if delta is not positive.

    >>> from minigrad import nn
    >>> import minigrad as mg
    >>> nn.huber_loss(mg.tensor([1.0, 3.0]), mg.tensor([0.0, 0.0]), reduction="none")
    tensor([0.5, 2.5])
    """
    if not delta > 0.0:
        raise ValueError(f"huber_loss: delta is above 0, not {delta}")
    predictions, targets = _compared("huber_loss", predictions, targets)
    error = predictions - targets
    # With c, the error kept within delta, both cases are  c (d - c/2),  whose slope is c.
    kept = clip(error, -delta, delta)
    return _reduced("huber_loss", kept * (error - 0.5 * kept), mask, reduction)


def quantile_loss(
    predictions: TensorLike,
    targets: TensorLike,
    quantiles: Sequence[float],
    mask: TensorLike = None,
    *,
    reduction: Reduction = "mean",
) -> Tensor:
    """The pinball loss of several quantiles, averaged over them.

    max(q d, (q - 1) d)  for a quantile q and  d = target - prediction.  Its expectation is
    smallest where the prediction is the q-quantile of the targets; for q = 1/2, the median, it
    is half the absolute error. Quantiles on both sides bound an interval.

    Koenker and Bassett, Regression quantiles, 1978.

    Args:
        predictions: (..., quantiles), floats, one for each quantile.
        targets: (...), numbers.
        quantiles: above 0 and below 1.
        mask, reduction: see :mod:`minigrad.nn.losses`; the mask is (...).

    Raises what :func:`mse_loss` raises, and ``ValueError`` for what is no quantile.

    >>> from minigrad import nn
    >>> import minigrad as mg
    >>> nn.quantile_loss(mg.tensor([[1.0, 2.0], [1.0, 2.0]]), [2.0, 1.0], (0.25, 0.75))
    tensor(0.125)
    """
    if not quantiles or not all(0.0 < q < 1.0 for q in quantiles):
        raise ValueError(f"quantile_loss: quantiles are above 0 and below 1, not {quantiles}")
    predictions = predictions if isinstance(predictions, Tensor) else asarray(predictions)
    targets = targets if isinstance(targets, Tensor) else _constant(targets, predictions)
    if predictions.shape != (*targets.shape, len(quantiles)):
        raise ValueError(
            f"quantile_loss: predictions (..., quantiles) of {len(quantiles)} quantiles need "
            f"targets (...), and these are {describe(predictions)} and {describe(targets)}"
        )
    wanted = broadcast_to(expand_dims(targets, -1), predictions.shape)
    predictions, wanted = _compared("quantile_loss", predictions, wanted)
    error = wanted - predictions
    levels = _constant(list(quantiles), predictions)
    losses = maximum(levels * error, (levels - 1.0) * error)
    return _reduced("quantile_loss", losses.mean(-1), mask, reduction)


def binary_cross_entropy_with_logits(
    logits: TensorLike,
    targets: TensorLike,
    mask: TensorLike = None,
    *,
    pos_weight: TensorLike = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """-p t log(sigmoid(x)) - (1 - t) log(1 - sigmoid(x)),  for logits x and targets t, in nats.

    Computed as  p t log(1 + e^-x) + (1 - t) log(1 + e^x),  without overflow, and exact where
    sigmoid would round to 0 or 1.

    Args:
        logits: floats of any shape.
        targets: numbers of the same shape, from 0 to 1.
        pos_weight: p, how much more a positive counts than a negative; a number, or an array
            that broadcasts to the logits' shape. 1 by default.
        mask, reduction: see :mod:`minigrad.nn.losses`.

    Raises what :func:`mse_loss` raises, and ``ValueError`` if pos_weight does not broadcast.

    >>> from minigrad import nn
    >>> import minigrad as mg
    >>> logits, targets = mg.tensor([0.0, 1000.0]), mg.tensor([1.0, 0.0])
    >>> nn.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    tensor([6.931472e-01, 1.000000e+03])
    """
    name = "binary_cross_entropy_with_logits"
    logits, targets = _compared(name, logits, targets)
    positive = targets
    if pos_weight is not None:
        positive = targets * _constant(pos_weight, logits)
        if positive.shape != logits.shape:
            raise ValueError(
                f"{name}: pos_weight broadcasts to the logits {describe(logits)}, and is "
                f"{describe(asarray(pos_weight))}"
            )
    losses = positive * logaddexp(-logits, 0.0) + (1.0 - targets) * logaddexp(logits, 0.0)
    return _reduced(name, losses, mask, reduction)


def nll_loss(
    log_probabilities: TensorLike,
    targets: TensorLike,
    mask: TensorLike = None,
    *,
    reduction: Reduction = "mean",
) -> Tensor:
    """The negative log-likelihood  -log_probabilities[..., target].

    Args:
        log_probabilities: (..., classes), floats, as ``mg.log_softmax`` gives them; unlike
            in PyTorch the classes are the last axis.
        targets: (...), integers in 0 .. classes - 1; also where the mask is 0.
        mask, reduction: see :mod:`minigrad.nn.losses`.

    Raises what :func:`cross_entropy` raises.

    >>> from minigrad import nn
    >>> import minigrad as mg
    >>> nn.nll_loss(mg.log(mg.tensor([[0.5, 0.5], [0.0625, 0.9375]])), [0, 0], reduction="none")
    tensor([0.6931472, 2.7725887])
    """
    scores, positions = _classified("nll_loss", log_probabilities, targets)
    return _reduced("nll_loss", _surprisal(scores, positions=positions), mask, reduction)


def cross_entropy(
    logits: TensorLike,
    targets: TensorLike,
    mask: TensorLike = None,
    *,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """The negative log-likelihood of integer ``targets`` under  softmax(logits),  in nats.

    -logits[..., target] + logsumexp(logits, -1),  computed without overflow. With label
    smoothing e it is the cross-entropy of a distribution that gives  1 - e  to the target and
    shares e among all classes.

    Szegedy, Vanhoucke, Ioffe, Shlens and Wojna, Rethinking the Inception architecture for
    computer vision, 2016.

    Args:
        logits: (..., classes), floats; unlike in PyTorch the classes are the last axis.
        targets: (...), integers in 0 .. classes - 1; also where the mask is 0.
        label_smoothing: e, in [0, 1].
        mask, reduction: see :mod:`minigrad.nn.losses`.

    Raises:
        ValueError: if the shapes do not fit, the reduction is unknown, there is nothing
            to average, or the label smoothing is not in [0, 1].
        TypeError: if the targets are not integers.
        IndexError: if a target is not a class.

    >>> from minigrad import nn
    >>> import minigrad as mg
    >>> logits = mg.tensor([[0.0, 0.0], [0.0, 100.0]])
    >>> nn.cross_entropy(logits, mg.tensor([0, 1]), reduction="none")
    tensor([0.6931472, 0.       ])
    """
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"cross_entropy: the label smoothing is in [0, 1], not {label_smoothing}")
    logits, positions = _classified("cross_entropy", logits, targets)
    losses = _surprisal_of_logits(logits, positions=positions)
    if label_smoothing:
        losses = losses - label_smoothing * (
            _surprisal(logits, positions=positions) + logits.mean(-1)
        )
    return _reduced("cross_entropy", losses, mask, reduction)


@primitive
def _surprisal(scores: TensorLike, /, positions: Array) -> Tensor:
    """-scores[..., position],  for every position"""
    table, chosen, _ = _table(scores, positions)
    return (0.0 - table[chosen]).reshape(positions.shape)  # 0, never -0


@primitive
def _at_positions(g: TensorLike, /, positions: Array, shape: Sequence[int]) -> Tensor:
    """Zeros of ``shape``, with -g at every position"""
    out = namespace(g).zeros(shape, g.dtype)
    table, chosen, _ = _table(out, positions)
    table[chosen] = -g.reshape(-1)
    return out


_surprisal.rules(
    scores=lambda g, positions, operand_shape: _at_positions(
        g, positions=positions, shape=operand_shape
    )
)
_at_positions.rules(g=lambda g, positions: _surprisal(g, positions=positions))


@primitive
def _surprisal_of_logits(logits: TensorLike, /, positions: Array) -> Tensor:
    """-log(softmax(logits)[..., position]),  for every position"""
    table, chosen, xp = _table(logits, positions)
    losses = widened(0.0 - table[chosen])
    for rows in _blocks(table):
        powers = widened(table[rows])
        top = powers.max(-1)
        powers = powers - top[:, None]
        xp.exp(powers, out=powers)
        losses[rows] += top
        losses[rows] += xp.log(powers.sum(-1))
    return narrowed(losses, logits).reshape(positions.shape)


@primitive
def _surprisal_gradient(g: TensorLike, logits: TensorLike, /, positions: Array) -> Tensor:
    """g (softmax(logits) - 1 at the position, 0 elsewhere)"""
    table, chosen, xp = _table(logits, positions)
    g = g.reshape(-1)
    out = xp.empty(table.shape, widened(table[:0]).dtype)
    for rows in _blocks(table):
        powers = out[rows]
        xp.subtract(table[rows], table[rows].max(-1)[:, None], out=powers)
        xp.exp(powers, out=powers)
        powers *= (g[rows] / powers.sum(-1))[:, None]
    out[chosen] -= g
    return narrowed(out, logits).reshape(logits.shape)


def _surprisal_gradient_rule(v: Any, g: Any, logits: Any) -> Any:
    """g p (v - sum(p v)),  where p = softmax(logits)"""
    p = softmax(logits)
    return expand_dims(g, -1) * p * (v - (p * v).sum(-1, keepdims=True))


_surprisal_of_logits.rules(
    logits=lambda g, logits, positions: _surprisal_gradient(g, logits, positions=positions)
)
_surprisal_gradient.rules(
    g=lambda g, logits, positions: (
        (softmax(logits) * g).sum(-1) + _surprisal(g, positions=positions)
    ),
    logits=_surprisal_gradient_rule,
)


def _table(scores: Any, positions: Array) -> tuple[Any, tuple[Array, Array], Any]:
    """Scores (..., classes) as rows; an index of one in every row; the array library."""
    xp = namespace(positions)
    table = reshape(scores, (positions.size, scores.shape[-1]))
    return table, (xp.arange(positions.size), positions.reshape(-1)), xp


def _blocks(table: Array) -> Iterator[slice]:
    """Some rows at a time, as many as stay in the cache; on a GPU all at once."""
    count = len(table)
    step = max(1, 2**16 // max(1, table.shape[1])) if device_of(table) == "cpu" else max(1, count)
    for start in range(0, count, step):
        yield slice(start, start + step)


def _compared(name: str, predictions: TensorLike, targets: TensorLike) -> tuple[Tensor, Tensor]:
    """Predictions and targets as tensors of one shape and dtype."""
    predictions = predictions if isinstance(predictions, Tensor) else asarray(predictions)
    if predictions.dtype.kind != "f":
        raise TypeError(f"{name}: the predictions are floats, not {describe(predictions)}")
    if not isinstance(targets, Tensor):
        targets = _constant(targets, predictions)
    elif targets.dtype != predictions.dtype:
        targets = astype(targets, predictions.dtype)
    if targets.shape != predictions.shape:
        raise ValueError(
            f"{name}: predictions and targets have one shape, and these are "
            f"{describe(predictions)} and {describe(targets)}"
        )
    return predictions, targets


def _classified(name: str, scores: TensorLike, targets: TensorLike) -> tuple[Tensor, Array]:
    """Scores (..., classes) as a tensor, and the targets (...) as an array of class numbers."""
    scores = scores if isinstance(scores, Tensor) else asarray(scores)
    positions = asarray(targets, device=_device_for(targets, scores))
    if scores.ndim < 1 or positions.shape != scores.shape[:-1]:
        raise ValueError(
            f"{name}: scores (..., classes) need targets (...), and these are "
            f"{describe(scores)} and {describe(positions)}"
        )
    what = f"the targets of {name}"
    return scores, checked_positions(positions, scores.shape[-1], what).array


def _constant(value: TensorLike, like: Tensor) -> Tensor:
    """A constant of the dtype of ``like``."""
    return asarray(value, like.dtype, device=_device_for(value, like))


def _device_for(value: TensorLike, like: Tensor) -> str | None:
    """Numbers and lists are put on the device of ``like``, and tensors and arrays are not moved."""
    return None if isinstance(value, Tensor) or is_array(value) else like.device


def _reduced(name: str, losses: Tensor, mask: TensorLike, reduction: Reduction) -> Tensor:
    """The losses, weighted by the mask, and put together as the reduction says."""
    if losses.dtype == "float16":  # whose sums overflow at 65504
        return astype(_reduced(name, astype(losses, "float32"), mask, reduction), "float16")
    count: TensorLike = losses.size
    if mask is not None:
        weights = _constant(mask, losses)
        if weights.shape != losses.shape:
            raise ValueError(
                f"{name}: the mask is {describe(weights)}, and the losses are {describe(losses)}"
            )
        losses = losses * weights
        count = weights.sum()
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    if reduction != "mean":
        raise ValueError(f"the reduction is 'mean', 'sum' or 'none', not {reduction!r}")
    _check_count(as_operand(count), name)
    if mask is not None and in_step():
        count = _checked_count(count, of=name)
    return losses.sum() / count


def _check_count(count: Any, name: str) -> None:
    """Raise ``ValueError`` for 0 losses, or weights that sum up to 0; a GPU is not waited for."""
    on_a_device = is_array(count) and device_of(count) != "cpu"
    if not on_a_device and not count:
        raise ValueError(f"{name}: there is nothing to average (no losses, or all masked)")


@primitive
def _checked_count(count: TensorLike, /, of: str) -> Tensor:
    """The sum of weights, which is not 0 at any step of a scan."""
    _check_count(count, of)
    return count


_checked_count.rules(count=lambda g: g)
