"""Modules that hold modules in order: ModuleList, Sequential."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, MutableSequence
from typing import Any, Self, TypeAlias, overload

from minigrad.nn.module import Module

#: What can be one of several steps: a module, or a function such as ``mg.tanh``.
Step: TypeAlias = Callable[..., Any]


class ModuleList(Module, MutableSequence[Any]):
    """A list of modules that is a module itself; the parameters are named by position.

    A plain list does as well as an attribute of a module, and gives its parameters the same
    names. This one has ``train``, ``to`` and ``state_dict`` of its own.

    Args:
        modules: the modules.

    Raises ``TypeError`` for an item that is not a module.

    >>> from minigrad import nn
    >>> layers = nn.ModuleList(nn.Linear(2, 2, bias=False) for _ in range(2))
    >>> [name for name, _ in layers.named_parameters()]
    ['0.weight', '1.weight']
    """

    def __init__(self, modules: Iterable[Any] = ()) -> None:
        self._items: list[Any] = []
        self.extend(modules)

    def members(self) -> Iterator[tuple[str, Any]]:
        """The attributes, and the items under their numbers."""
        for name, value in super().members():
            yield "" if name == "_items" else name, value

    def check(self, item: Any) -> None:
        """Raise ``TypeError`` unless ``item`` can be held."""
        if not isinstance(item, Module):
            raise TypeError(f"a {type(self).__name__} holds modules, not {type(item).__name__}")

    def insert(self, index: int, value: Any) -> None:
        """Put ``value`` before the item at ``index``."""
        self.check(value)
        self._items.insert(index, value)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Any:
        if not isinstance(index, slice):
            return self._items[index]
        part = copy.copy(self)
        part._items = self._items[index]
        return part

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(index, slice):
            value = list(value)
        for item in value if isinstance(index, slice) else [value]:
            self.check(item)
        self._items[index] = value

    def __delitem__(self, index: int | slice) -> None:
        del self._items[index]

    def __len__(self) -> int:
        return len(self._items)


class Sequential(ModuleList):
    """Modules, one after the other: each is called with what the one before returned.

    Takes functions as well, such as ``mg.tanh``; they count as positions in the parameters'
    names. It is a list of its steps, which can be indexed, sliced and appended to.

    Args:
        steps: the modules and functions.

    Raises ``TypeError`` for a step that cannot be called.

    >>> from minigrad import nn
    >>> import minigrad as mg
    >>> net = nn.Sequential(nn.Linear(3, 4, rng=0), mg.tanh, nn.Linear(4, 1, rng=1))
    >>> net(mg.tensor([[1.0, 2.0, 3.0]])).shape
    (1, 1)
    >>> net
    Sequential(Linear, tanh, Linear)
      0: Linear(weight (4, 3), bias (4,))
      2: Linear(weight (1, 4), bias (1,))
    """

    def __init__(self, *steps: Step) -> None:
        super().__init__(steps)

    def check(self, item: Any) -> None:
        """Raise ``TypeError`` unless ``item`` can be called."""
        if not callable(item):
            raise TypeError(
                f"the steps of a {type(self).__name__} are modules or functions, not "
                f"{type(item).__name__}"
            )

    def forward(self, x: Any) -> Any:
        """What the last step returns; x itself if there are none."""
        for step in self:
            x = step(x)
        return x

    def extra_repr(self) -> str:
        """The steps in order."""
        return ", ".join(getattr(step, "__name__", type(step).__name__) for step in self)
