"""Schedules: how the learning rate changes while training goes on.

A schedule sets ``lr`` of every group of an optimizer when it is made, and whenever its
``step()`` is called: after each ``optimizer.step()`` or once per epoch, as the numbers that it
was made with are meant.

>>> import minigrad as mg
>>> optimizer = mg.optim.SGD([mg.tensor([1.0], requires_grad=True)], lr=1.0)
>>> cosine = mg.optim.CosineAnnealingLR(optimizer, T_max=4)
>>> schedule = mg.optim.LinearWarmup(optimizer, total_iters=2, start_factor=0.5, then=cosine)
>>> rates = []
>>> for _ in range(7):
...     rates.append(round(optimizer.lr, 2))
...     schedule.step()
>>> rates
[0.5, 0.75, 1.0, 0.85, 0.5, 0.15, 0.0]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import cos, inf, pi
from typing import Literal

from minigrad.arrays import TensorLike
from minigrad.optim.optimizer import Optimizer, check_range
from minigrad.tensor import Tensor, asarray


class Schedule:
    """A learning rate that is a function of how many steps were taken: see :meth:`rate`.

    The optimizer's learning rates belong to it: what else was assigned to them is replaced at
    the next step.

    Args:
        optimizer: its groups' learning rates at this moment are the base rates.

    Attributes:
        steps: how many steps of the schedule were taken.
        base_lrs: the base rate of every group.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.base_lrs: list[float] = [group["lr"] for group in optimizer.groups]
        self.steps = 0
        self._set()

    def rate(self, base: float, t: int) -> float:
        """The learning rate after ``t`` steps of a group whose base rate is ``base``."""
        raise NotImplementedError(f"{type(self).__name__} needs a method rate")

    def step(self) -> None:
        """Set the next learning rates.

        Raises ``ValueError`` if the optimizer got another group since the schedule was made.
        """
        self.steps += 1
        self._set()

    def _set(self) -> None:
        groups = self.optimizer.groups
        if len(groups) != len(self.base_lrs):
            raise ValueError(
                f"this {type(self).__name__} was made for {len(self.base_lrs)} groups of "
                f"parameters, and there are {len(groups)}: make it after add_group"
            )
        for group, base in zip(groups, self.base_lrs, strict=True):
            group["lr"] = self.rate(base, self.steps)

    def state_dict(self) -> dict[str, Tensor]:
        """The steps and the base rates, as constants."""
        return {
            "steps": asarray(self.steps, "int64"),
            "base_lrs": asarray(self.base_lrs, "float64"),
        }

    def load_state_dict(self, state: Mapping[str, TensorLike]) -> None:
        """Continue where the schedule that ``state`` was taken from stopped.

        Raises ``ValueError`` if it was taken from another kind of schedule, or from one for
        another number of groups.
        """
        given = _fitting(self, state)
        self.steps = int(given["steps"].item())
        self.base_lrs = given["base_lrs"].tolist()
        self._set()

    def __repr__(self) -> str:
        rates = " and ".join(str(group["lr"]) for group in self.optimizer.groups)
        return f"{type(self).__name__}(steps={self.steps}, lr={rates})"


class StepLR(Schedule):
    """The base rate times  gamma^floor(t / step_size).

    Raises ``ValueError`` if step_size is not positive, or gamma is negative.

    >>> import minigrad as mg
    >>> optimizer = mg.optim.SGD([mg.tensor([1.0], requires_grad=True)], lr=1.0)
    >>> mg.optim.StepLR(optimizer, step_size=30).rate(1.0, 59)
    0.1
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        _check_count("step_size", step_size)
        check_range("gamma", gamma)
        self.step_size = step_size
        self.gamma = gamma
        super().__init__(optimizer)

    def rate(self, base: float, t: int) -> float:
        """base gamma^floor(t / step_size)"""
        return base * self.gamma ** (t // self.step_size)


class ExponentialLR(Schedule):
    """The base rate times  gamma^t.

    Raises ``ValueError`` if gamma is negative.

    >>> import minigrad as mg
    >>> optimizer = mg.optim.SGD([mg.tensor([1.0], requires_grad=True)], lr=1.0)
    >>> mg.optim.ExponentialLR(optimizer, gamma=0.5).rate(1.0, 3)
    0.125
    """

    def __init__(self, optimizer: Optimizer, gamma: float) -> None:
        check_range("gamma", gamma)
        self.gamma = gamma
        super().__init__(optimizer)

    def rate(self, base: float, t: int) -> float:
        """base gamma^t"""
        return base * self.gamma**t


class CosineAnnealingLR(Schedule):
    """From the base rate down to ``eta_min`` in ``T_max`` steps, along half a cosine.

    eta_min + (base - eta_min) (1 + cos(pi t / T_max)) / 2,  which rises again after T_max.

    Loshchilov and Hutter, SGDR: stochastic gradient descent with warm restarts, 2017 (the
    restarts are left out, as in PyTorch).

    Raises ``ValueError`` if T_max is not positive, or eta_min is negative.

    >>> import minigrad as mg
    >>> optimizer = mg.optim.SGD([mg.tensor([1.0], requires_grad=True)], lr=1.0)
    >>> mg.optim.CosineAnnealingLR(optimizer, T_max=100, eta_min=0.5).rate(1.0, 50)
    0.75
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0) -> None:  # noqa: N803
        _check_count("T_max", T_max)
        check_range("eta_min", eta_min)
        self.T_max = T_max
        self.eta_min = eta_min
        super().__init__(optimizer)

    def rate(self, base: float, t: int) -> float:
        """eta_min + (base - eta_min) (1 + cos(pi t / T_max)) / 2"""
        return self.eta_min + (base - self.eta_min) * (0.5 + 0.5 * cos(pi * t / self.T_max))


class LinearWarmup(Schedule):
    """From  start_factor times the base rate  up to the base rate, in ``total_iters`` steps.

    base (start_factor + (1 - start_factor) t / total_iters),  and after that the rate that
    ``then`` has  t - total_iters  steps after its beginning. PyTorch calls the first part
    LinearLR, and joins it with the second by SequentialLR.

    Args:
        optimizer: its groups' learning rates at this moment are the base rates; if there is
            a ``then``, its base rates are.
        total_iters: how many steps the warm-up takes.
        start_factor: where it begins, at least 0 and at most 1.
        then: another schedule for the same optimizer, which is not to be stepped itself; by
            default the rate stays where it is. Before :class:`ReduceLROnPlateau`, which
            is not a function of time, step the warm-up until it is over, and then that.

    Raises ``ValueError`` if total_iters is not positive, start_factor is not in [0, 1], or
    ``then`` is for another optimizer.

    >>> import minigrad as mg
    >>> optimizer = mg.optim.SGD([mg.tensor([1.0], requires_grad=True)], lr=1.0)
    >>> schedule = mg.optim.LinearWarmup(optimizer, total_iters=4, start_factor=0.0)
    >>> [schedule.rate(1.0, t) for t in range(6)]
    [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_iters: int,
        start_factor: float = 1.0 / 3.0,
        then: Schedule | None = None,
    ) -> None:
        _check_count("total_iters", total_iters)
        if not 0.0 <= start_factor <= 1.0:
            raise ValueError(f"start_factor is at least 0 and at most 1, not {start_factor}")
        if then is not None:
            if then.optimizer is not optimizer:
                raise ValueError("the schedule after the warm-up is for another optimizer")
            for group, base in zip(optimizer.groups, then.base_lrs, strict=True):
                group["lr"] = base  # before ``then`` was made
        self.total_iters = total_iters
        self.start_factor = start_factor
        self.then = then
        super().__init__(optimizer)

    def rate(self, base: float, t: int) -> float:
        """base (start_factor + (1 - start_factor) t / total_iters),  then that of ``then``"""
        if t < self.total_iters:
            return base * (self.start_factor + (1.0 - self.start_factor) * (t / self.total_iters))
        return base if self.then is None else self.then.rate(base, t - self.total_iters)


class ReduceLROnPlateau:
    """Multiplies the learning rates by ``factor`` when a metric has stopped improving.

    That is when it did not get better ``patience`` times in succession and once more.

    Args:
        optimizer: whose groups' learning rates are reduced.
        mode: whether ``"min"`` or ``"max"`` is better.
        factor: what the rates are multiplied by, below 1.
        patience: how many steps without improvement are put up with.
        threshold: how much better is better: by this factor of the best value so far
            (``threshold_mode="rel"``), or by this much (``"abs"``).
        threshold_mode: ``"rel"`` or ``"abs"``.
        cooldown: for how many steps after a reduction no bad one is counted.
        min_lr: a lower bound of the rates, one for all groups or one for each.
        eps: a rate that would change by less stays as it is.

    Attributes:
        best: the best value of the metric so far.
        bad_steps: how often in succession it was not better.
        resting: for how many more steps no bad one is counted.

    Raises ``ValueError`` if a setting makes no sense.

    >>> import minigrad as mg
    >>> optimizer = mg.optim.SGD([mg.tensor([1.0], requires_grad=True)], lr=1.0)
    >>> schedule = mg.optim.ReduceLROnPlateau(optimizer, patience=1)
    >>> for loss in (3.0, 2.0, 2.5, 2.0):
    ...     schedule.step(loss)
    >>> optimizer.lr
    0.1
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: Literal["min", "max"] = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: Literal["rel", "abs"] = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0.0,
        eps: float = 1e-8,
    ) -> None:
        check_range("factor", factor, below=1.0)
        check_range("patience", patience)
        check_range("threshold", threshold)
        check_range("cooldown", cooldown)
        check_range("eps", eps)
        if mode not in ("min", "max"):
            raise ValueError(f"the mode is 'min' or 'max', not {mode!r}")
        if threshold_mode not in ("rel", "abs"):
            raise ValueError(f"the threshold_mode is 'rel' or 'abs', not {threshold_mode!r}")
        groups = len(optimizer.groups)
        self.min_lrs = [min_lr] * groups if isinstance(min_lr, float | int) else list(min_lr)
        if len(self.min_lrs) != groups:
            raise ValueError(
                f"min_lr is one number, or one for each of the {groups} groups, not {min_lr}"
            )
        self.optimizer = optimizer
        self.mode = mode
        self.factor = factor
        self.patience = patience
        self.threshold = threshold
        self.threshold_mode = threshold_mode
        self.cooldown = cooldown
        self.eps = eps
        self.best = inf if mode == "min" else -inf
        self.bad_steps = 0
        self.resting = 0

    def step(self, metric: TensorLike) -> None:
        """Take note of the metric's value, a number, and reduce the rates if it is time."""
        value = float(metric)
        if self._is_better(value):
            self.best = value
            self.bad_steps = 0
        else:
            self.bad_steps += 1
        if self.resting:
            self.resting -= 1
            self.bad_steps = 0
        if self.bad_steps > self.patience:
            self._reduce()
            self.resting = self.cooldown
            self.bad_steps = 0

    def _is_better(self, value: float) -> bool:
        """Whether ``value`` is better than the best so far by the threshold."""
        margin = -self.threshold if self.mode == "min" else self.threshold
        relative = self.threshold_mode == "rel"
        bar = self.best * (1.0 + margin) if relative else self.best + margin
        return value < bar if self.mode == "min" else value > bar

    def _reduce(self) -> None:
        for group, lowest in zip(self.optimizer.groups, self.min_lrs, strict=True):
            rate = max(group["lr"] * self.factor, lowest)
            if group["lr"] - rate > self.eps:
                group["lr"] = rate

    def state_dict(self) -> dict[str, Tensor]:
        """What was noted of the metric, as constants; the rates are in the optimizer's state."""
        return {
            "best": asarray(self.best, "float64"),
            "bad_steps": asarray(self.bad_steps, "int64"),
            "resting": asarray(self.resting, "int64"),
        }

    def load_state_dict(self, state: Mapping[str, TensorLike]) -> None:
        """Continue where the schedule that ``state`` was taken from stopped.

        Raises ``ValueError`` if it was taken from another kind of schedule.
        """
        given = _fitting(self, state)
        self.best = float(given["best"].item())
        self.bad_steps = int(given["bad_steps"].item())
        self.resting = int(given["resting"].item())

    def __repr__(self) -> str:
        return f"ReduceLROnPlateau(best={self.best}, bad_steps={self.bad_steps})"


def _fitting(
    schedule: Schedule | ReduceLROnPlateau, state: Mapping[str, TensorLike]
) -> dict[str, Tensor]:
    """``state`` as tensors; ``ValueError`` unless names and shapes are the schedule's own."""
    given = {name: asarray(value) for name, value in state.items()}
    expected = {name: value.shape for name, value in schedule.state_dict().items()}
    found = {name: value.shape for name, value in given.items()}
    if found != expected:
        raise ValueError(
            f"this state does not fit the {type(schedule).__name__}, which has {expected}: "
            f"the state has {found}"
        )
    return given


def _check_count(name: str, value: int) -> None:
    """Raise ``ValueError`` unless ``value`` is positive."""
    if value < 1:
        raise ValueError(f"{name} is at least 1, not {value}")
