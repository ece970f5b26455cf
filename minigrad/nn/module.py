"""Module: a function with parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from reprlib import recursive_repr
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
    dictionary that is one, belong to it under the attribute's name: ``self.layers = [...]``
    is enough. One that is reachable by several names is the same parameter: it is counted and
    trained once. A module may refer back to one that it is inside of.

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
        return (found for _, found in _walk("", self, {}) if isinstance(found, Module))

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Name and parameter, each parameter once, under its first name."""
        return ((n, found) for n, found in _walk("", self, {}) if isinstance(found, Parameter))

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

        One that has several names is there under each. A later update does not change
        them, since it gives the parameters new arrays.
        """
        return {name: parameter.detach() for name, parameter in self._all_names()}

    def load_state_dict(self, state: Mapping[str, TensorLike]) -> None:
        """Give the parameters the values in ``state``: tensors or arrays by name.

        Raises ``ValueError`` if names, shapes or dtypes do not match, or if two names of one
        parameter have different values, naming all that is wrong; the module is then left
        as it was.
        """
        own = dict(self._all_names())
        given = {name: asarray(value) for name, value in state.items()}
        wrong = [f"{name} is missing" for name in own.keys() - given.keys()]
        wrong += [f"{name} is unknown" for name in given.keys() - own.keys()]
        wrong += [
            f"{name} is {describe(given[name])} instead of {describe(own[name])}"
            for name in own.keys() & given.keys()
            if given[name].shape != own[name].shape or given[name].dtype != own[name].dtype
        ]
        if not wrong:
            first = {id(parameter): name for name, parameter in reversed(own.items())}
            wrong = [
                f"{name} differs from {first[id(parameter)]}, which is the same parameter"
                for name, parameter in own.items()
                if not _same_values(given[name], given[first[id(parameter)]])
            ]
        if wrong:
            raise ValueError(
                f"this state does not fit the {type(self).__name__}: {'; '.join(sorted(wrong))}"
            )
        for name, parameter in own.items():
            parameter.rebind(arrays.to_device(given[name].array.copy(), parameter.device))

    def _all_names(self) -> Iterator[tuple[str, Parameter]]:
        """Name and parameter, each parameter under all its names."""
        found = _walk("", self, {}, every_name=True)
        return ((name, value) for name, value in found if isinstance(value, Parameter))

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

    @recursive_repr("...")
    def __repr__(self) -> str:
        lines = [f"{type(self).__name__}({self.extra_repr()})"]
        for name, value in self._held():
            if isinstance(value, Module) and name:
                lines += [f"  {line}" for line in f"{name}: {value!r}".splitlines()]
        return "\n".join(lines)

    def extra_repr(self) -> str:
        """What ``repr`` shows in parentheses; by default the parameters' shapes."""
        own = ((name, value) for name, value in self._held() if isinstance(value, Parameter))
        return ", ".join(f"{name} {parameter.shape}" for name, parameter in own)

    def _held(self) -> Iterator[tuple[str, Module | Parameter]]:
        """The modules and parameters among the members, but not what is inside of these."""
        for name, value in self.members():
            yield from _walk(name, value, {}, every_name=True, into_modules=False)


def _walk(
    name: str,
    value: Any,
    entered: dict[int, Any],
    *,
    every_name: bool = False,
    into_modules: bool = True,
) -> Iterator[tuple[str, Module | Parameter]]:
    """Every module and parameter reachable from ``value``, with its dotted name.

    Each once, by the first name that leads there; with ``every_name`` by all names, except
    those that lead through something to itself. ``entered`` is what is not entered again.
    """
    if id(value) in entered:
        return
    entered[id(value)] = value
    if isinstance(value, Module | Parameter):
        yield name, value
    if into_modules or not isinstance(value, Module):
        for key, item in _items(value):
            inner = ".".join(filter(None, (name, str(key))))
            yield from _walk(inner, item, entered, every_name=every_name, into_modules=into_modules)
    if every_name:
        del entered[id(value)]


def _items(value: Any) -> Iterable[tuple[Any, Any]]:
    """What a module, dictionary, list or tuple holds, by attribute, key or number."""
    if isinstance(value, Module):
        return value.members()
    if isinstance(value, dict):
        return value.items()
    if isinstance(value, list | tuple):
        return enumerate(value)
    return ()


def _same_values(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors of one shape are equal, NaN being equal to NaN."""
    x, y = arrays.to_numpy(a.array), arrays.to_numpy(b.array)
    return bool(((x == y) | ((x != x) & (y != y))).all())
