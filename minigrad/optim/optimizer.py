"""Optimizer: from gradients to new parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy

from minigrad.arrays import Array, TensorLike, namespace, to_device
from minigrad.tensor import Tensor, asarray, describe


class Optimizer:
    """Gives parameters new arrays, computed from their gradients.

    Subclasses define :meth:`update`. No array that a parameter holds is ever written to, so
    a tape that still needs the old values keeps them (see :meth:`Tensor.rebind`).

    Args:
        parameters: tensors that require a gradient, or (name, tensor) pairs as
            ``module.named_parameters()`` gives; names make errors more readable. One that
            occurs several times is updated once.
        lr: the learning rate; a plain attribute that may be set at any time.

    Raises ``ValueError`` if there is nothing to train or the learning rate is negative, and
    ``TypeError`` for something that is not a leaf.
    """

    def __init__(
        self, parameters: Iterable[Tensor] | Iterable[tuple[str, Tensor]], lr: float
    ) -> None:
        self.parameters: list[Tensor] = []
        self._names: list[str] = []
        seen = set()
        for i, item in enumerate(parameters):
            name, leaf = item if isinstance(item, tuple) else (f"parameter {i}", item)
            if not isinstance(leaf, Tensor) or not leaf.is_leaf:
                raise TypeError(
                    f"{name} cannot be trained: it is not a Parameter, nor a tensor made with "
                    "requires_grad=True"
                )
            if leaf.slot not in seen:
                seen.add(leaf.slot)
                self.parameters.append(leaf)
                self._names.append(name)
        if not self.parameters:
            raise ValueError("there are no parameters to train")
        _check("lr", lr)
        self.lr = lr
        #: How many steps were taken.
        self.steps = 0
        #: How often each parameter was updated; seldom fewer times than there were steps.
        self.updates = [0] * len(self.parameters)
        #: What the update rule remembers of each parameter, by name.
        self.state: list[dict[str, Array]] = [{} for _ in self.parameters]

    def update(self, array: Array, gradient: Array, state: dict[str, Array], t: int) -> Array:
        """The new array for a parameter at its update number ``t``, from 1 on.

        May write to the arrays in ``state``.
        """
        raise NotImplementedError

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
        self.lr = float(self.lr)  # a NumPy scalar would change the dtype of parameters
        for i, (parameter, state) in enumerate(zip(self.parameters, self.state, strict=True)):
            if parameter.grad is not None:
                self.updates[i] += 1
                array, gradient = parameter.array, parameter.grad.array
                parameter.rebind(self.update(array, gradient, state, self.updates[i]))

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for parameter in self.parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, Tensor]:
        """All that a resumed run needs, as constants: copies, since steps write to the state."""
        known = {
            "steps": asarray(numpy.int64(self.steps)),
            "lr": asarray(numpy.float64(self.lr)),
            "updates": asarray(numpy.array(self.updates, numpy.int64)),
        }
        for i, state in enumerate(self.state):
            known |= {f"{i}.{name}": asarray(array.copy()) for name, array in state.items()}
        return known

    def load_state_dict(self, state: Mapping[str, TensorLike]) -> None:
        """Continue where the optimizer that ``state`` was taken from stopped.

        Raises ``ValueError`` if it was taken from an optimizer of other parameters or of
        another kind; this one is then left as it was.
        """
        given = {name: asarray(value) for name, value in state.items()}
        shapes = {"steps": (), "lr": (), "updates": (len(self.parameters),)}
        wrong = [f"{name} is missing" for name in shapes if name not in given]
        wrong += [
            f"{name} is {describe(given[name])} instead of {shape}"
            for name, shape in shapes.items()
            if name in given and given[name].shape != shape
        ]
        expected = {
            f"{i}.{name}": parameter
            for i, parameter in enumerate(self.parameters)
            for name in self.state_names()
        }
        for name in given.keys() - shapes.keys():
            if name not in expected:
                wrong.append(f"{name} is unknown")
            elif describe(given[name]) != describe(expected[name]):
                wrong.append(f"{name} is {describe(given[name])} for a {describe(expected[name])}")
        if not wrong:
            updates = given["updates"].tolist()
            wrong = [
                f"{name} is missing"
                for name in expected
                if updates[int(name.partition(".")[0])] and name not in given
            ]
        if wrong:
            raise ValueError(
                f"this state does not fit the {type(self).__name__}: {'; '.join(sorted(wrong))}"
            )
        self.steps = int(given["steps"].item())
        self.lr = float(given["lr"].item())
        self.updates = updates
        self.state = [{} for _ in self.parameters]
        for name in expected.keys() & given.keys():
            number, _, key = name.partition(".")
            leaf = self.parameters[int(number)]
            self.state[int(number)][key] = to_device(given[name].array.copy(), leaf.device)

    def state_names(self) -> tuple[str, ...]:
        """What :meth:`update` keeps in a parameter's state."""
        return ()

    def _remembered(self, state: dict[str, Array], name: str, like: Array) -> Array:
        """The array ``name`` of a parameter's state; zeros at first."""
        if name not in state:
            state[name] = namespace(like).zeros_like(like)
        return state[name]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.parameters)} parameters, lr={self.lr})"


def _check(name: str, value: float, below: float = float("inf")) -> None:
    """Raise unless ``0 <= value < below``."""
    if not 0.0 <= value < below:
        limit = "" if below == float("inf") else f" and below {below:g}"
        raise ValueError(f"{name} must be at least 0{limit}, not {value}")


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum.

    With the gradient g, momentum mu and weight decay d:

        g <- g + d w;    v <- mu v + g;    w <- w - lr v

    As PyTorch has it, v is g at the first step, and lr is not inside v.

    >>> import minigrad as mg
    >>> w = mg.tensor([1.0], requires_grad=True)
    >>> optimizer = mg.optim.SGD([w], lr=0.1)
    >>> with mg.Tape() as tape:
    ...     loss = mg.sum(w * w)
    >>> tape.backward(loss)
    >>> optimizer.step()
    >>> w
    tensor([0.8], requires_grad=True)
    """

    def __init__(
        self,
        parameters: Iterable[Tensor] | Iterable[tuple[str, Tensor]],
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, lr)
        _check("momentum", momentum)
        _check("weight_decay", weight_decay)
        self.momentum = momentum
        self.weight_decay = weight_decay

    def state_names(self) -> tuple[str, ...]:
        """The velocity, if there is momentum."""
        return ("velocity",) if self.momentum else ()

    def update(self, array: Array, gradient: Array, state: dict[str, Array], t: int) -> Array:
        """w - lr v"""
        if self.weight_decay:
            gradient = gradient + self.weight_decay * array
        if self.momentum:
            velocity = self._remembered(state, "velocity", array)
            velocity *= self.momentum
            velocity += gradient
            gradient = velocity
        return array - self.lr * gradient


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
        parameters: Iterable[Tensor] | Iterable[tuple[str, Tensor]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, lr)
        _check("the first beta", betas[0], below=1.0)
        _check("the second beta", betas[1], below=1.0)
        _check("eps", eps)
        _check("weight_decay", weight_decay)
        self.betas = betas
        self.eps = eps
        self.weight_decay = weight_decay

    def state_names(self) -> tuple[str, ...]:
        """The moving averages of the gradient and its square."""
        return ("m", "v")

    def update(self, array: Array, gradient: Array, state: dict[str, Array], t: int) -> Array:
        """w - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)"""
        if self.weight_decay:
            gradient = gradient + self.weight_decay * array
        b1, b2 = self.betas
        m, v = self._remembered(state, "m", array), self._remembered(state, "v", array)
        m *= b1
        m += (1.0 - b1) * gradient
        v *= b2
        v += (1.0 - b2) * (gradient * gradient)
        step = v / (1.0 - b2**t)
        step **= 0.5
        step += self.eps
        return array - (self.lr / (1.0 - b1**t)) * (m / step)


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
        parameters: Iterable[Tensor] | Iterable[tuple[str, Tensor]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(parameters, lr, betas, eps)
        _check("weight_decay", weight_decay)
        self.decoupled_decay = weight_decay

    def update(self, array: Array, gradient: Array, state: dict[str, Array], t: int) -> Array:
        """Adam's step from  (1 - lr d) w"""
        return super().update(array * (1.0 - self.lr * self.decoupled_decay), gradient, state, t)
