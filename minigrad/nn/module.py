"""Module: a function with parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Self

from minigrad import arrays
from minigrad.arrays import TensorLike
from minigrad.tensor import Tensor, asarray, describe, make_leaf


class Parameter(Tensor):
    """A leaf that a module trains.

    Takes a float array or tensor, and shares its memory. Optimizers give a parameter new
    arrays (:meth:`Tensor.rebind`) and never write to the one it holds.

    Raises ``TypeError`` if the data is not of a float dtype.

    >>> from minigrad import nn
    >>> import numpy as np
    >>> nn.Parameter(np.zeros(2))
    Parameter([0., 0.], dtype=float64)
    """

    __slots__ = ()

    def __init__(self, data: TensorLike) -> None:
        super().__init__(asarray(data).array)
        make_leaf(self)

    def __repr__(self) -> str:
        return self._describe("Parameter")


class Module:
    """A function with parameters: subclass it, and write ``forward``.

    Parameters and modules that are attributes of a module, or items of a list, tuple or
    dictionary that is one, belong to it under the attribute's name. One that is reachable
    by several names is the same parameter: it is counted and trained once.

    >>> from minigrad import nn
    >>> import minigrad as mg
    >>> class Double(nn.Module):
    ...     def __init__(self):
    ...         self.factor = nn.Parameter(mg.tensor(2.0))
    ...     def forward(self, x):
    ...         return self.factor * x
    >>> Double()(mg.tensor(3.0))
    tensor(6.)
    """

    #: Whether the module is being trained; Dropout asks. Set by train() and eval().
    training: bool = True

    def forward(self, *args: Any, **settings: Any) -> Any:
        """Compute the module's value; subclasses define it."""
        raise NotImplementedError(f"{type(self).__name__} needs a method forward")

    def __call__(self, *args: Any, **settings: Any) -> Any:
        """The same as ``forward``."""
        return self.forward(*args, **settings)

    # ---------------------------------------------------------------- what belongs to it

    def members(self) -> Iterator[tuple[str, Any]]:
        """What belongs to this module, by name: its attributes.

        Members with an empty name lend their own members' names to this module.
        """
        yield from vars(self).items()

    def modules(self) -> Iterator[Module]:
        """This module and all inside it, each once."""
        seen: set[int] = set()
        for _, found in _walk("", self):
            if isinstance(found, Module) and id(found) not in seen:
                seen.add(id(found))
                yield found

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Name and parameter, each parameter once, under its first name."""
        seen: set[int] = set()
        for name, found in _walk("", self):
            if isinstance(found, Parameter) and id(found) not in seen:
                seen.add(id(found))
                yield name, found

    def parameters(self) -> Iterator[Parameter]:
        """All parameters, each once."""
        return (parameter for _, parameter in self.named_parameters())

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for parameter in self.parameters():
            parameter.grad = None

    # ---------------------------------------------------------------- state

    def state_dict(self) -> dict[str, Tensor]:
        """All parameters by name, as constants that share memory with them.

        A later update does not change them, since it gives the parameters new arrays.
        """
        return {
            name: found.detach() for name, found in _walk("", self) if isinstance(found, Parameter)
        }

    def load_state_dict(self, state: Mapping[str, TensorLike]) -> None:
        """Give the parameters the values in ``state``: tensors or arrays by name.

        Raises ``ValueError`` if names, shapes or dtypes do not match, naming all that do
        not; the module is then left as it was.
        """
        own = {name: found for name, found in _walk("", self) if isinstance(found, Parameter)}
        given = {name: asarray(value) for name, value in state.items()}
        wrong = [f"{name} is missing" for name in own.keys() - given.keys()]
        wrong += [f"{name} is unknown" for name in given.keys() - own.keys()]
        wrong += [
            f"{name} is {describe(given[name])} instead of {describe(own[name])}"
            for name in own.keys() & given.keys()
            if given[name].shape != own[name].shape or given[name].dtype != own[name].dtype
        ]
        if wrong:
            raise ValueError(
                f"this state does not fit the {type(self).__name__}: {'; '.join(sorted(wrong))}"
            )
        for name, parameter in own.items():
            parameter.rebind(arrays.to_device(given[name].array.copy(), parameter.device))

    # ---------------------------------------------------------------- modes and places

    def train(self, mode: bool = True) -> Self:
        """Set ``training`` here and in all modules inside."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """The same as ``train(False)``."""
        return self.train(False)

    def to(self, device: str) -> Self:
        """Move all parameters, and their gradients, to ``device``."""
        for parameter in self.parameters():
            gradient = parameter.grad
            parameter.array = arrays.to_device(parameter.array, device)
            parameter.grad = None if gradient is None else gradient.to(device)
        return self

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__}({self.extra_repr()})"]
        for name, value in self.members():
            if isinstance(value, Module) and name:
                lines += [f"  {line}" for line in f"{name}: {value!r}".splitlines()]
        return "\n".join(lines)

    def extra_repr(self) -> str:
        """What ``repr`` shows in parentheses; by default the parameters' shapes."""
        own = ((n, v) for n, v in self.members() if isinstance(v, Parameter))
        return ", ".join(f"{name} {parameter.shape}" for name, parameter in own)


def _walk(name: str, value: Any) -> Iterator[tuple[str, Module | Parameter]]:
    """Every module and parameter reachable from ``value``, with its dotted name."""
    if isinstance(value, Parameter):
        yield name, value
        return
    items: Any
    if isinstance(value, Module):
        yield name, value
        items = value.members()
    elif isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    else:
        return
    for key, item in items:
        yield from _walk(".".join(filter(None, (name, str(key)))), item)
