"""Optimizer: from gradients to new parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf
from typing import Any, TypeAlias

from minigrad.arrays import Array, TensorLike, device_of, namespace, to_device
from minigrad.tensor import Tensor, asarray, describe

#: What an optimizer can be given to train: tensors, (name, tensor) pairs, or groups.
Parameters: TypeAlias = Iterable[Tensor | tuple[str, Tensor] | Mapping[str, Any]]


class Optimizer:
    """Gives parameters new arrays, computed from their gradients.

    Subclasses define :meth:`update`. No array that a parameter holds is ever written to, so
    a tape that still needs the old values keeps them (see :meth:`Tensor.rebind`).

    Args:
        parameters: tensors that require a gradient, or (name, tensor) pairs as
            ``module.named_parameters()`` gives; names make errors more readable. One that
            occurs several times is updated once. Or, as in PyTorch, groups: dictionaries
            with such parameters under ``"params"`` and settings of their own.
        settings: the learning rate ``lr``, and what else the update rule needs; those of
            every group that does not bring its own.

    Attributes:
        groups: a dictionary for each group, with its tensors under ``"params"`` and all its
            settings, which may be changed at any time: ``optimizer.groups[0]["lr"] = 0.1``.
        parameters: the tensors of all groups.
        steps: how many steps were taken.
        updates: how often each parameter was updated; seldom fewer times than there were
            steps.
        state: what the update rule remembers of each parameter, by name.

    Raises ``ValueError`` if there is nothing to train, a parameter is in two groups, or a
    setting makes no sense, and ``TypeError`` for something that is not a leaf, or for a
    setting that the update rule does not have.

    >>> import minigrad as mg
    >>> weight, bias = (mg.tensor([1.0], requires_grad=True) for _ in range(2))
    >>> groups = [{"params": [weight], "weight_decay": 0.1}, {"params": [bias], "lr": 0.5}]
    >>> mg.optim.SGD(groups, lr=0.1)
    SGD(2 parameters in 2 groups, lr=0.1 and 0.5)
    """

    def __init__(self, parameters: Parameters, **settings: Any) -> None:
        if isinstance(parameters, Tensor):
            raise TypeError("an optimizer takes several parameters: write [w] for a single one")
        self.defaults = settings
        self.groups: list[dict[str, Any]] = []
        self.parameters: list[Tensor] = []
        self.steps = 0
        self.updates: list[int] = []
        self.state: list[dict[str, Array]] = []
        self._names: list[str] = []
        given: list[Any] = list(parameters)
        in_groups = given and all(isinstance(item, Mapping) for item in given)
        for group in given if in_groups else [{"params": given}]:
            self.add_group(group)
        if not self.parameters:
            raise ValueError("there are no parameters to train")

    def add_group(self, group: Mapping[str, Any]) -> None:
        """Train more parameters from now on: ``group`` is a dictionary as in ``groups``.

        The settings that it lacks are those that the optimizer was made with.

        Raises what the constructor raises.
        """
        if "params" not in group:
            raise TypeError("a group of parameters is a dictionary with the key 'params'")
        unknown = group.keys() - self.defaults.keys() - {"params"}
        if unknown:
            raise TypeError(
                f"{type(self).__name__} has no setting {', '.join(sorted(unknown))}; those of a "
                f"group are {', '.join(self.defaults)}"
            )
        made = {**self.defaults, **group}
        self.check(_settings(made))
        trained = {leaf.slot for leaf in self.parameters}
        members: dict[int, tuple[str, Tensor]] = {}
        for i, item in enumerate(group["params"], len(self.parameters)):
            name, leaf = item if isinstance(item, tuple) else (f"parameter {i}", item)
            if not isinstance(leaf, Tensor) or not leaf.is_leaf:
                raise TypeError(
                    f"{name} cannot be trained: it is not a Parameter, nor a tensor made with "
                    "requires_grad=True"
                )
            if leaf.slot in trained:
                raise ValueError(f"{name} is in another group of parameters already")
            members.setdefault(leaf.slot, (name, leaf))
        made["params"] = [leaf for _, leaf in members.values()]
        self.groups.append(made)
        self.parameters += made["params"]
        self._names += [name for name, _ in members.values()]
        self.updates += [0] * len(members)
        self.state += [{} for _ in members]

    # ---------------------------------------------------------------- what a rule defines

    def update(self, *args: Any, **settings: Any) -> Array:
        """``update(array, gradient, state, t, *, lr, ...)``: a parameter's new array.

        It is the parameter's update number ``t``, from 1 on; ``state`` is what was remembered
        of this parameter, and may be written to, the arrays in it, too. The settings are
        those of the parameter's group. Of large parameters, fresh arrays cost more than the
        arithmetic: the rules here compute in few.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method update")

    def state_names(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """What :meth:`update` keeps in the state of a parameter of a group of such settings."""
        return ()

    def check(self, settings: Mapping[str, Any]) -> None:
        """Raise ``ValueError`` unless a group can have these settings: no number is negative."""
        for name, value in settings.items():
            if isinstance(value, float | int):
                check_range(name, value)

    # ---------------------------------------------------------------- training

    def step(self, *, allow_missing: bool = False) -> None:
        """Update every parameter by its gradient.

        Raises ``ValueError`` if a parameter has no gradient, which usually means that the
        loss does not depend on it; ``allow_missing=True`` leaves such parameters alone.
        """
        missing = [n for n, p in zip(self._names, self.parameters, strict=True) if p.grad is None]
        if missing and not allow_missing:
            raise ValueError(
                f"no gradient was computed for {', '.join(missing)}: call tape.backward(loss) "
                "with a loss that depends on it before step(), or step(allow_missing=True)"
            )
        self.steps += 1
        i = 0
        for group in self.groups:
            settings = _settings(group)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.updates[i] += 1
                    wide = _dtype_of_updates(parameter)
                    # Update rules combine the two again and again: in one order, that is fast.
                    array, gradient = (
                        held.astype(wide, order="C", copy=False)
                        for held in (parameter.array, parameter.grad.array)
                    )
                    array = self.update(array, gradient, self.state[i], self.updates[i], **settings)
                    parameter.rebind(array.astype(parameter.dtype, copy=False))
                i += 1

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for parameter in self.parameters:
            parameter.grad = None

    @property
    def lr(self) -> float:
        """The learning rate of all groups; may be set at any time.

        Reading it raises ``ValueError`` if the groups have different ones.
        """
        rates = self._rates()
        if len({*rates}) > 1:
            raise ValueError(
                f"the groups have the learning rates {rates}: read optimizer.groups[0]['lr']"
            )
        return rates[0]

    @lr.setter
    def lr(self, lr: float) -> None:
        for group in self.groups:
            group["lr"] = lr

    def _rates(self) -> list[float]:
        return [float(group["lr"]) for group in self.groups]

    # ---------------------------------------------------------------- state

    def state_dict(self) -> dict[str, Tensor]:
        """All that a resumed run needs, as constants: copies, since steps write to the state.

        ``steps``, ``updates``, the learning rate of every group under ``lr``, and under names
        such as ``0.m`` what is remembered of each parameter.
        """
        known = {
            "steps": asarray(self.steps, "int64", device="cpu"),
            "lr": asarray(self._rates(), "float64", device="cpu"),
            "updates": asarray(self.updates, "int64", device="cpu"),
        }
        for i, state in enumerate(self.state):
            known |= {f"{i}.{name}": Tensor(array.copy()) for name, array in state.items()}
        return known

    def load_state_dict(self, state: Mapping[str, TensorLike]) -> None:
        """Continue where the optimizer that ``state`` was taken from stopped.

        Raises ``ValueError`` if it was taken from an optimizer of other parameters or of
        another kind; this one is then left as it was.
        """
        given = {name: asarray(value) for name, value in state.items()}
        shapes = {"steps": (), "lr": (len(self.groups),), "updates": (len(self.parameters),)}
        wrong = [f"{name} is missing" for name in shapes if name not in given]
        wrong += [
            f"{name} is {describe(given[name])} instead of {shape}"
            for name, shape in shapes.items()
            if name in given and given[name].shape != shape
        ]
        expected = self._expected_state()
        for name in given.keys() - shapes.keys():
            if name not in expected:
                wrong.append(f"{name} is unknown")
                continue
            parameter = expected[name][1]
            like = f"{parameter.shape} {_dtype_of_updates(parameter)}"
            if describe(given[name]) != like:
                wrong.append(f"{name} is {describe(given[name])} for a {like}")
        if not wrong:
            updates = given["updates"].tolist()
            wrong = [
                f"{name} is missing"
                for name, (i, _) in expected.items()
                if updates[i] and name not in given
            ]
        if wrong:
            raise ValueError(
                f"this state does not fit the {type(self).__name__}: {'; '.join(sorted(wrong))}"
            )
        self.steps = int(given["steps"].item())
        self.updates = updates
        for group, rate in zip(self.groups, given["lr"].tolist(), strict=True):
            group["lr"] = rate
        self.state = [{} for _ in self.parameters]
        for name in expected.keys() & given.keys():
            i, parameter = expected[name]
            array = to_device(given[name].array.copy(), parameter.device)
            self.state[i][name.partition(".")[2]] = array

    def _expected_state(self) -> dict[str, tuple[int, Tensor]]:
        """Number and tensor of the parameter that each name in a state belongs to."""
        expected: dict[str, tuple[int, Tensor]] = {}
        i = 0
        for group in self.groups:
            names = self.state_names(_settings(group))
            for parameter in group["params"]:
                expected |= {f"{i}.{name}": (i, parameter) for name in names}
                i += 1
        return expected

    def __repr__(self) -> str:
        count = len(self.groups)
        groups = f" in {count} groups" if count > 1 else ""
        rates = " and ".join(map(str, dict.fromkeys(self._rates())))
        return f"{type(self).__name__}({len(self.parameters)} parameters{groups}, lr={rates})"


def check_range(name: str, value: float, below: float = inf) -> None:
    """Raise ``ValueError`` unless ``0 <= value < below``."""
    if not 0.0 <= value < below:
        limit = "" if below == inf else f" and below {below:g}"
        raise ValueError(f"{name} must be at least 0{limit}, not {value}")


def remembered(state: dict[str, Array], name: str, like: Array, initial: float = 0.0) -> Array:
    """The array ``name`` of a parameter's state, like ``like``; ``initial`` at first."""
    if name not in state:
        state[name] = namespace(like).full_like(like, initial)
    elif device_of(state[name]) != device_of(like):  # the parameter has moved
        state[name] = to_device(state[name], device_of(like))
    return state[name]


def _settings(group: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in a group, without its parameters.

    NumPy's scalars become Python's, which do not change the dtype of what they multiply.
    """
    return {name: _plain(value) for name, value in group.items() if name != "params"}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return tuple(map(_plain, value))
    return value.item() if hasattr(value, "item") else value


def _dtype_of_updates(parameter: Tensor) -> str:
    """A float16 parameter is updated in float32: small squares and epsilons would be 0."""
    return "float32" if parameter.dtype == "float16" else str(parameter.dtype)
