"""Checkpointing: the same values and gradients, and less memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minigrad as mg
import minigrad_rnn as rnn
from minigrad import Tape, TapeError, Tensor, nn

Wrapper = Callable[[Any], Any]


def plain(function: Any) -> Any:
    return function


def both(run: Callable[[Wrapper], list[Any]]) -> None:
    """What ``run`` computes is the same, bit for bit, with and without checkpointing."""
    for expected, found in zip(run(plain), run(mg.checkpoint), strict=True):
        np.testing.assert_array_equal(found, expected)


def leaf(value: Any) -> Tensor:
    return mg.tensor(value, dtype="float64", requires_grad=True)


def test_arguments_parameters_and_captured_tensors_get_their_gradients() -> None:
    def run(wrap: Wrapper) -> list[Any]:
        x, w, v = leaf([0.5, -1.0]), leaf([2.0, 3.0]), leaf(1.5)
        with Tape() as tape:
            captured = v * w
            early = x * x

            def layer(a: Tensor, *, scale: float) -> Tensor:
                return mg.tanh(a * w * captured) * scale + a

            y = wrap(layer)(early, scale=0.25)
            loss = (y * y + captured).sum()
        return [y.numpy(), *[g.numpy() for g in tape.gradient(loss, [x, w, v, captured, early])]]

    both(run)


def test_containers_go_in_and_come_out() -> None:
    def run(wrap: Wrapper) -> list[Any]:
        x, y = leaf(0.5), leaf(2.0)

        def function(pair: dict[str, Tensor]) -> dict[str, Any]:
            product = pair["x"] * pair["y"]
            return {"parts": (mg.tanh(product), [product + 1.0]), "x": pair["x"], "n": 3}

        with Tape() as tape:
            found = wrap(function)({"x": x, "y": y})
            assert found["n"] == 3
            assert found["x"] is x
            loss = found["parts"][0] * found["parts"][1][0]
        return [g.numpy() for g in tape.gradient(loss, [x, y])]

    both(run)


def test_the_gradients_of_several_results_are_played_back_together() -> None:
    """A rule that is not linear, such as clipping, sees their sum, and once."""
    seen: list[Any] = []

    def clipped(g: Any) -> Any:
        seen.append(g)
        return mg.clip(g, -1.0, 1.0)

    def run(wrap: Wrapper) -> list[Any]:
        seen.clear()
        x = leaf(0.5)

        def two(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            h = mg.map_gradient(x, clipped)
            return h, 0.25 * h, h

        with Tape() as tape:
            loss = sum(wrap(two)(x), start=mg.tensor(0.0, dtype="float64"))
        return [tape.gradient(loss, x).numpy(), len(seen)]

    both(run)
    assert run(mg.checkpoint) == [1.0, 1]


def test_second_order_and_nesting() -> None:
    def run(wrap: Wrapper) -> list[Any]:
        x = leaf([0.3, -0.8])

        def inner(a: Tensor) -> Tensor:
            return mg.tanh(a * x) * a

        def outer(a: Tensor) -> Tensor:
            return wrap(inner)(mg.exp(a)) + inner(a)

        with Tape() as tape:
            loss = wrap(outer)(x * 2.0).sum()
            slope = tape.gradient(loss, x, create_graph=True)
            second = tape.gradient((slope * slope).sum(), x, create_graph=True)
            third = tape.gradient(second.sum(), x)
        return [slope.numpy(), second.numpy(), third.numpy()]

    for expected, found in zip(run(plain), run(mg.checkpoint), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_random_numbers_are_drawn_again_and_only_once() -> None:
    def run(wrap: Wrapper) -> list[Any]:
        drop = nn.Dropout(0.5, rng=0)
        x = leaf(np.ones(50))
        with Tape() as tape:
            y = wrap(lambda a: drop(a) * a)(x)
            z = wrap(lambda a: wrap(drop)(a) * a)(x)
            after = drop(x)
            loss = (y * z).sum()
        return [y.numpy(), z.numpy(), after.numpy(), tape.gradient(loss, x).numpy()]

    both(run)


def test_parameters_are_as_they_were() -> None:
    def run(wrap: Wrapper) -> list[Any]:
        w = leaf(2.0)
        with Tape() as tape:
            y = wrap(lambda a: a * w * w)(mg.tensor(3.0, "float64"))
            w.rebind(mg.tensor(100.0, "float64"))
            loss = y * w
        gradient = tape.gradient(loss, w)
        return [gradient.numpy(), w.numpy()]

    both(run)


def test_a_long_recurrence_takes_a_fraction_of_the_memory() -> None:
    cell = rnn.LSTMCell(8, 16, dtype="float64", rng=0)
    xs = mg.tensor(np.random.default_rng(0).normal(size=(10, 10, 4, 8)))

    def run(wrap: Wrapper) -> tuple[int, list[Any]]:
        with Tape() as tape:
            state, loss = None, mg.tensor(0.0, "float64")
            for part in xs:
                y, state = wrap(lambda part, state: rnn.unroll(cell, part, state))(part, state)
                loss = loss + (y * y).sum()
            held = tape.nbytes
        return held, [g.numpy() for g in tape.gradient(loss, list(cell.parameters()))]

    held, expected = run(plain)
    less, found = run(mg.checkpoint)
    assert less < held / 5
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-12)


def test_it_can_be_read_again_and_cut() -> None:
    x = leaf(0.5)
    with Tape() as tape:
        y = mg.checkpoint(lambda a: mg.tanh(a) * a)(x)
        first = tape.gradient(y, x, retain=True)
        second = tape.gradient(y, x, retain=True)
        tape.cut()
        z = mg.checkpoint(lambda a: a * y)(x)
    assert first.item() == second.item()
    assert tape.gradient(z, x).item() == y.item()


def test_without_a_tape_or_a_gradient_it_is_the_function() -> None:
    double = mg.checkpoint(lambda a: a * 2.0)
    assert double(leaf(1.0)).item() == 2.0
    with Tape() as tape:
        assert double(mg.tensor(1.0)).item() == 2.0
        assert len(tape) == 0


def test_what_leaves_by_another_way_is_refused() -> None:
    x, kept = leaf(2.0), []

    def leaky(a: Tensor) -> Tensor:
        kept.append(a * 3.0)
        return kept[-1] * a

    with Tape() as tape:
        y = mg.checkpoint(leaky)(x) + kept[0]
    with pytest.raises(TapeError, match="inside a checkpointed function and is not one of its"):
        tape.gradient(y, x)


def test_the_table_shows_it_by_name() -> None:
    x = leaf(2.0)

    def block(a: Tensor) -> Tensor:
        return mg.tanh(a) * x

    with Tape() as tape:
        mg.checkpoint(block)(x)
    assert "checkpoint(leaf a, replay=block)" in str(tape)


def test_a_function_that_does_not_compute_the_same_again_is_refused() -> None:
    kept: list[mg.Tensor] = []

    def remembering(x: mg.Tensor) -> tuple[mg.Tensor, mg.Tensor]:
        kept.append(mg.tanh(x))
        return kept[0], mg.sin(x)

    x = mg.tensor([0.5, -0.5], requires_grad=True)
    with mg.Tape() as tape:
        first, second = mg.checkpoint(remembering)(x)
        loss = (first + second).sum()
    with pytest.raises(mg.TapeError, match=r"not computed the same .*, 1 were not"):
        tape.gradient(loss, x)
