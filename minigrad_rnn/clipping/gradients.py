"""The gradients that a clipping rule works on, and what becomes of those that are not finite."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf
from typing import Any, Literal, TypeAlias, get_args

import minigrad as mg
from minigrad import Tensor, nn
from minigrad_rnn.clipping.log import ClipLog
from minigrad_rnn.clipping.norms import Norm, largest_of_each, wide_dtype

#: What can be clipped: leaves with a gradient, or (name, leaf) pairs.
Parameters: TypeAlias = Iterable[Tensor | tuple[str, Tensor]]

#: What becomes of gradients with elements that are NaN or infinite:
#:
#: ``"propagate"``
#:     they are clipped like all others, by the formula of the rule;
#: ``"zero"``
#:     such elements count as 0, the finite ones are clipped as usual;
#: ``"skip"``
#:     if there is one such element, all gradients become ``None``, so that
#:     ``optimizer.step(allow_missing=True)`` leaves the parameters, its own averages and
#:     momenta as they are, and ``optimizer.step()`` refuses;
#: ``"error"``
#:     if there is one such element, ``FloatingPointError``; the gradients stay as they were.
#:
#: ``"skip"`` and ``"error"`` must know, and so wait for a GPU; the other two never do.
NonFinite: TypeAlias = Literal["propagate", "zero", "skip", "error"]


class Gradients:
    """The gradients of some parameters, each once; parameters without one are left out.

    Args:
        parameters: what to clip.
        nonfinite: what becomes of elements that are not finite, see :data:`NonFinite`.
        log: where to write down what was changed.

    Attributes:
        leaves: the parameters that have a gradient.
        values: their gradients; for ``"zero"`` with 0 in the place of what is not finite.

    Raises ``ValueError`` if there is no gradient or no such policy, and ``TypeError`` for what
    is not a parameter.
    """

    def __init__(self, parameters: Parameters, nonfinite: NonFinite, log: ClipLog | None) -> None:
        check_nonfinite(nonfinite)
        if isinstance(parameters, Tensor | nn.Module):
            parameters = [parameters]
        found: dict[int, tuple[str, Tensor]] = {}
        for number, item in enumerate(parameters):
            name, leaf = item if isinstance(item, tuple) else (f"parameter {number}", item)
            if not isinstance(leaf, Tensor):
                raise TypeError(
                    f"{name} is a {type(leaf).__name__}, and has no gradient to clip: hand over "
                    "module.parameters() or module.named_parameters()"
                )
            if leaf.grad is not None:
                found.setdefault(leaf.slot, (name, leaf))
        if not found:
            raise ValueError(
                "no parameter has a gradient to clip: call this after tape.backward(loss) and "
                "before optimizer.step() (and hand over a list, if a generator was used up before)"
            )
        self._names = [name for name, _ in found.values()]
        self.leaves = [leaf for _, leaf in found.values()]
        self._given: list[Any] = [leaf.grad for leaf in self.leaves]
        self.values: list[Tensor] = (
            [finite_or_zero(g) for g in self._given] if nonfinite == "zero" else self._given
        )
        self.nonfinite = nonfinite
        self.log = log

    def usable(self, witness: Tensor | None = None) -> bool:
        """Whether to go on; if not, the step is skipped, and all gradients are ``None`` now.

        ``witness`` is finite if, and only if, all elements are; by default the largest of them.
        """
        if self.nonfinite in ("propagate", "zero"):
            return True
        if witness is None:
            witness = largest_of_each(self.values)
        if mg.isfinite(witness).all().item():
            return True
        if self.nonfinite == "error":
            raise FloatingPointError(self._complaint())
        for leaf in self.leaves:
            leaf.grad = None
        if self.log is not None:
            self.log.add(self._given, [finite_or_zero(g) * 0.0 for g in self._given])
        return False

    def replace(self, values: Sequence[Tensor]) -> None:
        """Bind the clipped gradients to the parameters, in their dtype."""
        bound = [
            value if value.dtype == leaf.dtype else value.astype(leaf.dtype)
            for leaf, value in zip(self.leaves, values, strict=True)
        ]
        for leaf, value in zip(self.leaves, bound, strict=True):
            leaf.grad = value
        if self.log is not None:
            self.log.add(self._given, bound)

    def shrink(self, norm: Norm, limit: Tensor | float) -> None:
        """Scale the gradients to a norm of at most ``limit``: all together, or each by its own."""
        values = self.values
        if not (isinstance(limit, float) and limit == inf):
            scale = norm.scale(limit).astype(wide_dtype(values))
            factors = mg.unstack(scale) if scale.ndim else [scale] * len(values)
            values = [g * factor for g, factor in zip(values, factors, strict=True)]
        self.replace(values)

    def _complaint(self) -> str:
        wrong = [
            f"{name} {leaf.shape}"
            for name, leaf, g in zip(self._names, self.leaves, self._given, strict=True)
            if not mg.isfinite(g).all().item()
        ]
        return (
            f"the norm of the gradients is {largest_of_each(self._given).max().item()}, because "
            f"of {', '.join(wrong)}: look at the learning rate, the loss, and the data of this step"
        )


def check_nonfinite(nonfinite: str, allowed: Sequence[str] = get_args(NonFinite)) -> None:
    """Raise ``ValueError`` for a policy that there is not."""
    if nonfinite not in allowed:
        names = ", ".join(map(repr, allowed[:-1])) + f" or {allowed[-1]!r}"
        raise ValueError(f"nonfinite is {names}, not {nonfinite!r}")


def check_positive(**limits: float) -> None:
    """Raise ``ValueError`` unless all of the named limits are more than 0."""
    for name, limit in limits.items():
        if not limit > 0.0:
            raise ValueError(f"{name} is more than 0, not {limit}")


def finite_or_zero(gradient: Tensor) -> Tensor:
    """The gradient with 0 in the place of NaN and infinities."""
    return mg.where(mg.isfinite(gradient), gradient, 0.0)
