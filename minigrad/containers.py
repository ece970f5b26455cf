"""Nested containers of tensors: tuples, lists and dictionaries of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

#: What holds tensors.
CONTAINERS: Final = (tuple, list, dict)


def map_leaves(function: Callable[[str, Any], Any], tree: Any, name: str = "it") -> Any:
    """The same containers with ``function(name, leaf)`` in place of every leaf.

    A leaf is whatever is not a tuple, list or dictionary; its name says where it was found.
    """
    if not isinstance(tree, CONTAINERS):
        return function(name, tree)
    if isinstance(tree, dict):
        return {key: map_leaves(function, part, f"{name}[{key!r}]") for key, part in tree.items()}
    parts = [map_leaves(function, part, f"{name}[{i}]") for i, part in enumerate(tree)]
    if isinstance(tree, list):
        return parts
    return tree._make(parts) if hasattr(tree, "_make") else tuple(parts)


def leaves_of(tree: Any) -> list[Any]:
    """All leaves, in the order in which :func:`map_leaves` meets them."""
    if not isinstance(tree, CONTAINERS):
        return [tree]
    parts = tree.values() if isinstance(tree, dict) else tree
    return [leaf for part in parts for leaf in leaves_of(part)]
