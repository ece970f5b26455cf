"""Clipping to a limit that adapts: to the weights (AGC), or to the norms of earlier steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf, nan
from typing import Any

import minigrad as mg
from minigrad import Tensor
from minigrad_rnn.clipping.fixed import check_norm_type
from minigrad_rnn.clipping.gradients import (
    Gradients,
    NonFinite,
    Parameters,
    check_nonfinite,
    check_positive,
)
from minigrad_rnn.clipping.log import ClipLog
from minigrad_rnn.clipping.norms import Norm, norm_along, norm_of_all, unrecorded, wide_dtype


@unrecorded()
def clip_grad_agc_(
    parameters: Parameters,
    clip_factor: float = 0.01,
    *,
    eps: float = 1e-3,
    exclude: Iterable[Tensor] = (),
    nonfinite: NonFinite = "propagate",
    log: ClipLog | None = None,
) -> None:
    """Adaptive gradient clipping: bound the gradient of every unit by the norm of its weights.

    With the weights W_i of unit i and their gradient G_i, it scales

        G_i <- G_i  clip_factor max(|W_i|, eps) / |G_i|    if that is a factor below 1.

    A unit is a row: all weights with the same first index. Of recurrent weights that is one
    gate of one hidden unit, of an embedding one word. Vectors, such as biases, and numbers are
    one unit each. The gradients are bound to new tensors.

    Brock, De, Smith and Simonyan, High-performance large-scale image recognition without
    normalization, 2021.

    Args:
        parameters, log: as for :func:`clip_grad_norm_`.
        clip_factor: how large a gradient may be, as a fraction of its weights; above 0.
        eps: what the norm of weights at least counts as, so that those that are 0 can move.
        exclude: parameters to leave alone; the paper does not clip the last linear layer.
        nonfinite: as for :func:`clip_grad_norm_`. Under ``"propagate"`` only the unit that
            holds the element is concerned: infinity becomes NaN, and the rest of the unit 0.

    Raises what :func:`clip_grad_norm_` raises.

    >>> import minigrad as mg, minigrad_rnn as rnn
    >>> w = mg.tensor([[30.0, 40.0], [0.0, 0.0]], requires_grad=True)
    >>> w.grad = mg.tensor([[3.0, 4.0], [3.0, 4.0]])
    >>> rnn.clip_grad_agc_([w], clip_factor=0.01, eps=10.0)
    >>> w.grad
    tensor([[0.3 , 0.4 ],
            [0.06, 0.08]])
    """
    check_positive(clip_factor=clip_factor, eps=eps)
    gradients = Gradients(parameters, nonfinite, log)
    left_alone = {leaf.slot for leaf in exclude}
    if gradients.usable():
        gradients.replace(
            [
                g if leaf.slot in left_alone or not g.size else _bounded(g, leaf, clip_factor, eps)
                for leaf, g in zip(gradients.leaves, gradients.values, strict=True)
            ]
        )


def _bounded(gradient: Tensor, weight: Tensor, clip_factor: float, eps: float) -> Tensor:
    limit = clip_factor * mg.maximum(_norms_of_units(weight).value, eps)
    scale = _norms_of_units(gradient).scale(limit)
    return gradient * scale.astype(wide_dtype([gradient]))


def _norms_of_units(x: Tensor) -> Norm:
    return norm_along(x, tuple(range(1, x.ndim)) if x.ndim > 1 else None)


class NormClipper:
    """Clips the common norm of all gradients to a limit that follows from earlier norms.

    Call it where you would call :func:`clip_grad_norm_`: ``norm = clip(parameters)``. A
    subclass says what the limit is, in :meth:`limit`. Neither the norm nor the limit is waited
    for on a GPU, unless ``nonfinite`` is ``"skip"`` or ``"error"``.

    Args:
        norm_type: 1, 2 or infinity, or any p >= 1.
        nonfinite: as for :func:`clip_grad_norm_`. A step that is skipped is no part of the
            history.
        log: where to record what was changed.

    Raises ``ValueError`` for settings that make no sense.
    """

    def __init__(
        self,
        *,
        norm_type: float = 2.0,
        nonfinite: NonFinite = "propagate",
        log: ClipLog | None = None,
    ) -> None:
        check_norm_type(norm_type)
        check_nonfinite(nonfinite)
        self.norm_type = norm_type
        self.nonfinite = nonfinite
        self.log = log

    def limit(self, norm: Tensor) -> Tensor | float:
        """The largest norm to leave alone now that the gradients have this one; learns from it.

        ``norm`` is float64, of no dimensions, and infinite if an element is not finite.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method limit")

    @unrecorded()
    def __call__(self, parameters: Parameters) -> Tensor:
        """Clip the gradients; returns their norm before, as :func:`clip_grad_norm_` does."""
        gradients = Gradients(parameters, self.nonfinite, self.log)
        norm = norm_of_all(gradients.values, self.norm_type)
        if gradients.usable(norm.root):
            counted = mg.where(mg.isfinite(norm.value), norm.value, inf)
            gradients.shrink(norm, self.limit(counted))
        return norm.value.astype(wide_dtype(gradients.values))


class AutoClip(NormClipper):
    """Clip to a percentile of the norms of all steps so far, the present one included.

    Percentiles lie on straight lines between two norms, as those of ``numpy.percentile``. A
    norm that is not finite counts as larger than all others.

    Seetharaman, Wichern, Pardo and Le Roux, AutoClip: adaptive gradient clipping for source
    separation networks, 2020.

    Args:
        percentile: from 0 to 100. The paper's 10 scales nine steps out of ten.
        window: how many norms to remember, the latest; ``None`` for all, as in the paper, which
            are sorted at every step.
        norm_type, nonfinite, log: see :class:`NormClipper`.

    Attributes:
        norms: what it remembers, (steps,) float64, oldest first.

    Raises ``ValueError`` for settings that make no sense.

    >>> import minigrad as mg, minigrad_rnn as rnn
    >>> w = mg.tensor(0.0, requires_grad=True)
    >>> clip = rnn.AutoClip(percentile=50.0)
    >>> for gradient in (1.0, 2.0, 9.0):
    ...     w.grad = mg.tensor(gradient)
    ...     print(clip([w]), w.grad)
    tensor(1.) tensor(1.)
    tensor(2.) tensor(1.5)
    tensor(9.) tensor(2.)
    """

    def __init__(
        self,
        percentile: float = 10.0,
        *,
        window: int | None = 10_000,
        norm_type: float = 2.0,
        nonfinite: NonFinite = "propagate",
        log: ClipLog | None = None,
    ) -> None:
        super().__init__(norm_type=norm_type, nonfinite=nonfinite, log=log)
        if not 0.0 <= percentile <= 100.0:
            raise ValueError(f"percentile is from 0 to 100, not {percentile}")
        if window is not None and window < 1:
            raise ValueError(f"window is at least 1 norm, or None for all, not {window}")
        self.percentile = percentile
        self.window = window
        self.norms = mg.tensor([], "float64")

    def limit(self, norm: Tensor) -> Tensor:
        """The percentile of the norms up to and including this one."""
        self.norms = _appended(self.norms, norm)[-(self.window or 0) :]
        ordered = mg.sort(self.norms)
        place = self.percentile / 100.0 * (ordered.size - 1)
        below, part = int(place), place % 1.0
        if not part:
            return ordered[below]
        return ordered[below] * (1.0 - part) + ordered[below + 1] * part

    def state_dict(self) -> dict[str, Tensor]:
        """The norms that it remembers, as a constant."""
        return {"norms": self.norms}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where the AutoClip that ``state`` was taken from stopped.

        Of a longer history the last ``window`` norms count. Raises ``ValueError`` if ``state``
        was not taken from an AutoClip.
        """
        self.norms = _fitting(self, state, norms=1)["norms"]


class ZClip(NormClipper):
    """Clip spikes: norms that exceed the mean of earlier ones by many standard deviations.

    The mean m and the variance v of the norms are moving averages. A norm n is a spike if
    n - m > z sqrt(v),  and is brought down to

        m + z^2 v / (n - m),

    the further below m + z sqrt(v) the larger it was. Then, with n as clipped,

        m <- alpha m + (1 - alpha) n;    v <- alpha v + (1 - alpha) (n - m)^2.

    Both begin as mean and variance of the first norms, which are not clipped. A norm that is
    not finite counts as infinitely large.

    Kumar, Owen, Roy Chowdhury and Güra, ZClip: adaptive spike mitigation for LLM pre-training,
    2025 (the reciprocal form).

    Args:
        z: how many standard deviations make a spike; more than 0.
        alpha: how slowly the averages forget; between 0 and 1.
        warmup: the number of first steps, at least 2.
        max_norm: the largest norm to leave alone at any step, spike or not.
        norm_type, nonfinite, log: see :class:`NormClipper`.

    Attributes:
        norms: those of the warm-up, (steps,) float64.
        mean, variance: the averages; NaN during the warm-up.

    Raises ``ValueError`` for settings that make no sense.

    >>> import minigrad as mg, minigrad_rnn as rnn
    >>> w = mg.tensor(0.0, requires_grad=True)
    >>> clip = rnn.ZClip(z=2.0, warmup=2)
    >>> for gradient in (1.0, 3.0, 4.0, 10.0):  # mean 2 and variance 1 after two of them
    ...     w.grad = mg.tensor(gradient)
    ...     print(clip([w]), w.grad)
    tensor(1.) tensor(1.)
    tensor(3.) tensor(3.)
    tensor(4.) tensor(4.)
    tensor(10.) tensor(2.6055455)
    """

    def __init__(
        self,
        z: float = 2.5,
        *,
        alpha: float = 0.97,
        warmup: int = 25,
        max_norm: float = inf,
        norm_type: float = 2.0,
        nonfinite: NonFinite = "propagate",
        log: ClipLog | None = None,
    ) -> None:
        super().__init__(norm_type=norm_type, nonfinite=nonfinite, log=log)
        check_positive(z=z, max_norm=max_norm)
        if not 0.0 < alpha < 1.0:
            raise ValueError(f"alpha is between 0 and 1, not {alpha}")
        if warmup < 2:
            raise ValueError(f"warmup is at least 2 steps, which have a variance, not {warmup}")
        self.z = z
        self.alpha = alpha
        self.warmup = warmup
        self.max_norm = max_norm
        self.norms = mg.tensor([], "float64")
        self.mean = self.variance = mg.tensor(nan, "float64")

    def limit(self, norm: Tensor) -> Tensor | float:
        """What a spike is brought down to, or ``max_norm``."""
        if self.norms.size < self.warmup:
            self.norms = _appended(self.norms, norm)
            if self.norms.size == self.warmup:
                finite = mg.isfinite(self.norms)
                self.mean = _mean(self.norms, finite)
                self.variance = _mean((self.norms - self.mean) ** 2, finite)
            return self.max_norm
        mean, variance = self.mean.to(norm.device), self.variance.to(norm.device)
        excess = norm - mean
        spike = excess > self.z * mg.sqrt(variance)
        limit = mg.where(spike, mean + self.z**2 * variance / excess, inf)
        clipped = mg.minimum(norm, limit)
        self.mean = self.alpha * mean + (1.0 - self.alpha) * clipped
        self.variance = self.alpha * variance + (1.0 - self.alpha) * (clipped - self.mean) ** 2
        return mg.minimum(limit, self.max_norm)

    def state_dict(self) -> dict[str, Tensor]:
        """The norms of the warm-up and the averages, as constants."""
        return {"norms": self.norms, "mean": self.mean, "variance": self.variance}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where the ZClip that ``state`` was taken from stopped.

        Raises ``ValueError`` if ``state`` was not taken from a ZClip of this ``warmup``.
        """
        given = _fitting(self, state, norms=1, mean=0, variance=0)
        if given["norms"].size > self.warmup:
            raise ValueError(
                f"this state is of a warm-up of {given['norms'].size} steps or more, and this "
                f"ZClip has warmup={self.warmup}"
            )
        self.norms, self.mean, self.variance = (
            given[name] for name in ("norms", "mean", "variance")
        )


def _appended(norms: Tensor, norm: Tensor) -> Tensor:
    return mg.concatenate([norms.to(norm.device), norm.reshape(1)])


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    """The mean of those values that are counted."""
    return mg.where(counted, values, 0.0).sum() / counted.sum()


def _fitting(owner: NormClipper, state: Mapping[str, Any], **axes: int) -> dict[str, Tensor]:
    """The tensors in ``state``, in float64, if they have these names and numbers of axes."""
    given = {name: mg.tensor(value, "float64") for name, value in state.items()}
    if {name: value.ndim for name, value in given.items()} != axes:
        expected = ", ".join(f"{name} ({'steps,' if n else ''})" for name, n in axes.items())
        found = ", ".join(f"{name} {value.shape}" for name, value in given.items())
        raise ValueError(
            f"this state does not fit the {type(owner).__name__}, which has {expected}: it has "
            f"{found or 'nothing'}"
        )
    return given
