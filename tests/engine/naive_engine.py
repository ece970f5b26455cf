"""A naive twin of the engine: scalars, pointers, recursion. Obviously right, and slow.

A node knows its parents and, for each, its partial derivative as another node. The derivative
of a node is the chain rule, applied recursively and built of nodes again, so that every order
follows. What the tape does with slots, the twin does with the order in which nodes were made:
``base`` is the number of nodes before the cut, ``consumed`` those before the last gradient.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


class Consumed(Exception):  # noqa: N818
    """The derivative needs a node that a gradient has consumed."""


class Node:
    """A number, and how it was computed."""

    def __init__(
        self, engine: Engine, value: float, parents: tuple[Node, ...] = (), leaf: bool = False
    ) -> None:
        self.engine = engine
        self.value = value
        self.leaf = leaf
        self.parents = tuple(p for p in parents if p.alive)
        #: For every parent, the partial derivative as a function that builds it.
        self.partials: dict[int, list[Callable[[], Node]]] = {}
        self.number = engine.count if self.parents else -1
        #: Results of one operation are played, and consumed, together.
        self.group_start, self.group_end = self.number, self.number + 1
        engine.count += bool(self.parents)

    @property
    def alive(self) -> bool:
        """Whether a gradient is wanted for it: a leaf, or computed since the last cut."""
        return self.leaf or self.number >= self.engine.base

    @property
    def consumed(self) -> bool:
        """Whether a gradient has consumed it."""
        return not self.leaf and self.number < self.engine.consumed

    def because(self, parent: Node, partial: Callable[[], Node]) -> Node:
        """Add the partial derivative with respect to a parent."""
        self.partials.setdefault(id(parent), []).append(partial)
        return self


class Engine:
    """The tape of the twin."""

    def __init__(self) -> None:
        self.count = self.base = self.consumed = 0

    def constant(self, value: float) -> Node:
        return Node(self, value)

    def new_leaf(self, value: float) -> Node:
        return Node(self, value, leaf=True)

    def add(self, a: Node, b: Node) -> Node:
        made = Node(self, a.value + b.value, (a, b))
        one = lambda: self.constant(1.0)  # noqa: E731
        return made.because(a, one).because(b, one)

    def multiply(self, a: Node, b: Node) -> Node:
        made = Node(self, a.value * b.value, (a, b))
        return made.because(a, lambda: b).because(b, lambda: a)

    def tanh(self, a: Node) -> Node:
        made = Node(self, float(np.tanh(a.value)), (a,))
        minus = self.constant(-1.0)
        return made.because(
            a,
            lambda: self.add(self.constant(1.0), self.multiply(minus, self.multiply(made, made))),
        )

    def double_and_square(self, a: Node) -> tuple[Node, Node]:
        """One operation with two results, which are consumed together."""
        double, squared = Node(self, 2.0 * a.value, (a,)), Node(self, a.value**2, (a,))
        double.group_end, squared.group_start = squared.group_end, double.group_start
        double.because(a, lambda: self.constant(2.0))
        squared.because(a, lambda: self.multiply(self.constant(2.0), a))
        return double, squared

    def cut(self, mark: int) -> None:
        self.base = max(self.base, mark)

    def gradient(self, target: Node, sources: list[Node], retain: bool) -> list[Node | None]:
        """The derivative of ``target``; consumes all nodes up to it unless ``retain``."""
        computed = [s.number for s in sources if not s.leaf]
        lowest = min(computed) if len(computed) == len(sources) else -1
        last, end = self.count, max(target.group_end, self.consumed)
        try:
            return [self._derivative(target, s, set(map(id, sources)), lowest) for s in sources]
        finally:
            if not retain:
                assert end <= last
                self.consumed = end

    def _derivative(self, node: Node, source: Node, wanted: set[int], lowest: int) -> Node | None:
        if node is source:
            return self.constant(1.0)
        if node.group_start <= lowest:  # it came before all sources, or with the first
            return None
        total = None
        for parent in {id(p): p for p in node.parents if p.alive}.values():
            if parent.leaf and id(parent) not in wanted:
                continue
            if parent.consumed:
                raise Consumed
            inner = self._derivative(parent, source, wanted, lowest)
            for partial in node.partials[id(parent)] if inner is not None else ():
                assert inner is not None
                part = self.multiply(partial(), inner)
                total = part if total is None else self.add(total, part)
        return total
