"""Random programs on the engine and on its naive twin, compared after every step."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    multiple,
    rule,
)
from naive_engine import Consumed, Engine, Node

import minigrad as mg
from minigrad import TapeError, Tensor

Pair = tuple[Tensor, Node]


@mg.primitive
def double_and_square(x: Any, /) -> Any:
    """Two results of one operation."""
    return 2.0 * x, x * x


double_and_square.rules(x=lambda g, x: 2.0 * g[0] + 2.0 * x * g[1])

numbers = st.sampled_from([-1.5, -0.5, 0.25, 0.5, 1.0, 2.0])


pairs = Bundle("pairs")
marks = Bundle("marks")


def distinct(count: int) -> st.SearchStrategy[list[Pair]]:
    """Up to so many different sources."""
    return st.lists(pairs, min_size=1, max_size=count, unique_by=lambda pair: id(pair[1]))


class Twins(RuleBasedStateMachine):
    """Record, gradient, retain, mark, cut, drop, second order, exceptions, other threads."""

    pairs, marks = pairs, marks

    @initialize(target=pairs, value=numbers)
    def begin(self, value: float) -> Any:
        self.twin = Engine()
        self.tape = mg.Tape()
        self.tape.__enter__()
        return self.new_leaf(value)

    def teardown(self) -> None:
        if hasattr(self, "tape"):
            self.tape.__exit__(None, None, None)

    @rule(target=pairs, value=numbers)
    def new_leaf(self, value: float) -> Pair:
        return mg.tensor(value, "float64", requires_grad=True), self.twin.new_leaf(value)

    @rule(target=pairs, value=numbers)
    def new_constant(self, value: float) -> Pair:
        return mg.tensor(value, "float64"), self.twin.constant(value)

    @rule(target=pairs, a=pairs, b=pairs)
    def add(self, a: Pair, b: Pair) -> Pair:
        return a[0] + b[0], self.twin.add(a[1], b[1])

    @rule(target=pairs, a=pairs, b=pairs)
    def multiply(self, a: Pair, b: Pair) -> Pair:
        assume(abs(a[1].value * b[1].value) < 1e3)
        return a[0] * b[0], self.twin.multiply(a[1], b[1])

    @rule(target=pairs, a=pairs)
    def tanh(self, a: Pair) -> Pair:
        return mg.tanh(a[0]), self.twin.tanh(a[1])

    @rule(target=pairs, a=pairs)
    def several_results(self, a: Pair) -> Any:
        assume(abs(a[1].value) < 1e2)
        tensors, nodes = double_and_square(a[0]), self.twin.double_and_square(a[1])
        return multiple(*zip(tensors, nodes, strict=True))

    @rule(target=pairs, a=pairs, how=st.sampled_from(["detach", "no_grad", "thread"]))
    def without_recording(self, a: Pair, how: str) -> Pair:
        value = a[1].value
        if how == "detach":
            return a[0].detach(), self.twin.constant(value)
        found: list[Tensor] = []
        if how == "no_grad":
            with mg.no_grad():
                found.append(a[0] * 2.0)
        else:
            thread = threading.Thread(target=lambda: found.append(a[0] * 2.0))
            thread.start()
            thread.join()
        return found[0], self.twin.constant(2.0 * value)

    @rule(a=consumes(pairs))
    def drop(self, a: Pair) -> None:
        """Nobody holds it any longer; the tape does not mind."""

    @rule(target=marks)
    def mark(self) -> tuple[int, int]:
        return self.tape.mark(), self.twin.count

    @rule(mark=marks)
    def cut(self, mark: tuple[int, int]) -> None:
        self.tape.cut(mark[0])
        self.twin.cut(mark[1])

    @rule()
    def cut_all(self) -> None:
        self.tape.cut()
        self.twin.cut(self.twin.count)

    @rule()
    def exception_in_the_block(self) -> None:
        self.tape.__exit__(ValueError, ValueError(), None)
        self.twin.cut(self.twin.count)
        self.tape.__enter__()

    @rule(target=pairs, a=pairs)
    def another_tape(self, a: Pair) -> Any:
        """A tape in between sees the tensors of this one as constants, and leaves it alone."""
        with mg.no_grad(), mg.Tape() as inner:
            x = mg.tensor(3.0, "float64", requires_grad=True)
            y = x * a[0] if not a[0].is_leaf else x * a[0].detach()
            assert inner.gradient(y, x).item() == a[1].value
        return y.detach(), self.twin.constant(y.item())

    @rule(target_pair=pairs, sources=distinct(3), retain=st.booleans())
    def gradient(self, target_pair: Pair, sources: list[Pair], retain: bool) -> None:
        self.compare(target_pair, sources, retain, create_graph=False)

    @rule(target=pairs, target_pair=pairs, sources=distinct(2))
    def second_order(self, target_pair: Pair, sources: list[Pair]) -> Any:
        return multiple(*self.compare(target_pair, sources, retain=True, create_graph=True))

    def compare(
        self, target: Pair, sources: list[Pair], retain: bool, create_graph: bool
    ) -> list[Pair]:
        for tensor, node in (target, *sources):
            assert tensor.requires_grad == node.alive
            assume(node.alive)
        try:
            if any(node.consumed for _, node in (target, *sources)):
                raise Consumed
            nodes = self.twin.gradient(target[1], [node for _, node in sources], retain)
        except Consumed:
            with pytest.raises(TapeError, match="consumed"):
                self.ask(target, sources, retain, create_graph)
            return []
        made = []
        found = self.ask(target, sources, retain, create_graph)
        for gradient, result in zip(found, nodes, strict=True):
            value = 0.0 if result is None else result.value
            np.testing.assert_allclose(gradient.item(), value, rtol=1e-9, atol=1e-9)
            if create_graph and result is not None and abs(value) < 1e3:
                # Where only one of several results is used, the engine records a product with
                # zero that the twin leaves out; such a derivative is not carried on with.
                assert gradient.requires_grad >= result.alive
                if gradient.requires_grad == result.alive:
                    made.append((gradient, result))
        return made

    def ask(
        self, target: Pair, sources: list[Pair], retain: bool, create_graph: bool
    ) -> list[Tensor]:
        found: list[Tensor] = self.tape.gradient(
            target[0],
            [tensor for tensor, _ in sources],
            retain=retain,
            create_graph=create_graph,
            unconnected="zero",
        )
        return found


Twins.TestCase.settings = settings(stateful_step_count=40)
TestTwins = Twins.TestCase
