"""The tape: recording, reading backwards, cutting, and what goes wrong."""

from __future__ import annotations

import asyncio
import gc
import re
import threading
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

import minigrad as mg
from minigrad import Tape, TapeError, Tensor


def leaf(value: object = 2.0) -> Tensor:
    return mg.tensor(value, dtype="float64", requires_grad=True)


class TestRecording:
    def test_nothing_is_recorded_without_a_tape(self) -> None:
        x = leaf()
        y = x * x
        assert not y.requires_grad
        with pytest.raises(TapeError, match="nothing was recorded"):
            y.backward()

    def test_constants_are_not_recorded(self) -> None:
        with Tape() as tape:
            mg.tanh(mg.tensor([1.0]) * 2.0)
        assert len(tape) == 0

    def test_only_what_a_rule_names_is_saved(self) -> None:
        x = leaf(np.ones((10, 10)))
        constant = mg.tensor(np.ones((10, 10)))
        with Tape() as tape:
            x + constant
            -x  # noqa: B018
            x.sum()
            assert tape.nbytes == 0
            x * constant
            assert tape.nbytes == 800  # the constant, and not x
            y = mg.tanh(x)
            assert tape.nbytes == 1600  # the result, and not x
            y * y
            assert tape.nbytes == 1600  # the same array again

    def test_a_view_counts_as_the_memory_that_it_keeps(self) -> None:
        x, big = leaf(np.ones(10)), mg.tensor(np.ones(1000))
        with Tape() as tape:
            x * big[:10]
        assert tape.nbytes == 8000

    def test_no_grad_pauses_the_tape(self) -> None:
        x = leaf()
        with Tape() as tape:
            with mg.no_grad():
                x * x
            y = x * 3.0
        assert len(tape) == 1
        assert tape.gradient(y, x).item() == 3.0

    def test_an_open_tape_refuses_a_second_one(self) -> None:
        with Tape(), pytest.raises(TapeError, match="already recording"), Tape():
            pass

    def test_a_tape_inside_no_grad_is_independent(self) -> None:
        x = leaf()
        with Tape() as outer:
            y = x * x
            with mg.no_grad(), Tape() as inner:
                z = y * x  # y is a constant to the inner tape
            assert inner.gradient(z, x).item() == 4.0
        assert outer.gradient(y, x).item() == 4.0

    def test_a_tape_can_be_resumed(self) -> None:
        x, tape = leaf(), Tape()
        with tape:
            y = x * x
        x * 100.0
        with tape:
            z = y * x
        assert len(tape) == 2
        assert tape.gradient(z, x).item() == 12.0

    def test_an_exception_empties_the_tape(self) -> None:
        x, tape = leaf(), Tape()
        with pytest.raises(ZeroDivisionError), tape:
            y = x * x
            1 / 0  # noqa: B018
        assert len(tape) == 0
        with pytest.raises(TapeError, match="was cut away"):
            tape.gradient(y, x)

    def test_every_thread_has_its_own_tape(self) -> None:
        wrong: list[float] = []
        barrier = threading.Barrier(4)

        def work(factor: float) -> None:
            x = leaf(1.0)
            barrier.wait()
            for _ in range(200):
                with Tape() as tape:
                    y = x * factor * x
                if tape.gradient(y, x).item() != 2 * factor:
                    wrong.append(factor)

        threads = [threading.Thread(target=work, args=(float(i),)) for i in range(4)]
        with Tape() as mine:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert not wrong
        assert len(mine) == 0

    def test_every_asyncio_task_has_its_own_tape(self) -> None:
        async def work(factor: float) -> float:
            x = leaf(1.0)
            with Tape() as tape:
                y = x * factor
                await asyncio.sleep(0)
                y = y * x
            return float(tape.gradient(y, x))

        async def both() -> list[float]:
            return list(await asyncio.gather(work(2.0), work(3.0)))

        assert asyncio.run(both()) == [4.0, 6.0]


class TestGradient:
    def test_of_leaves_and_computed_tensors_in_the_form_asked_for(self) -> None:
        x = leaf()
        with Tape() as tape:
            y = x * x
            z = y * y
        found = tape.gradient(z, {"x": x, "inner": (y, [x])}, retain=True)
        assert found["x"].item() == 32.0
        assert found["inner"][0].item() == 8.0
        assert found["inner"][1][0].item() == 32.0
        assert tape.gradient(z, z).item() == 1.0

    def test_of_an_early_tensor_alone_stops_there(self) -> None:
        def forbidden(gradient: Tensor) -> Tensor:
            raise AssertionError("the tape was read too far")

        x = leaf()
        with Tape() as tape:
            early = mg.map_gradient(x * x, forbidden)
            middle = early * 3.0
            late = middle * middle
        assert tape.gradient(late, middle).item() == 24.0

    def test_the_seed_weighs_the_elements(self) -> None:
        x = leaf([1.0, 2.0])
        with Tape() as tape:
            y = x * x
        np.testing.assert_array_equal(tape.gradient(y, x, [1.0, 10.0]).numpy(), [2.0, 40.0])

    def test_a_used_leaf_keeps_its_dtype_whatever_it_meets(self) -> None:
        x = mg.tensor([1.0, 2.0], requires_grad=True)
        wide = leaf([3.0, 4.0])
        with Tape() as tape:
            y = mg.sum(x * wide)
        gx, gw = tape.gradient(y, [x, wide])
        assert [str(t.dtype) for t in (y, gx, gw)] == ["float64", "float32", "float64"]

    def test_backward_accumulates_constants_in_the_leaves(self) -> None:
        x = leaf()
        for times in (1, 2):
            with Tape() as tape:
                loss = x * x
            tape.backward(loss)
            assert x.grad is not None
            assert x.grad.item() == 4.0 * times
            assert not x.grad.requires_grad

    def test_a_leaf_that_is_gone_needs_no_gradient(self) -> None:
        x = leaf()
        with Tape() as tape:
            loss = x * leaf(5.0)
        tape.backward(loss)
        assert x.grad is not None
        assert x.grad.item() == 5.0

    def test_backward_of_a_tensor_finds_its_tape(self) -> None:
        x = leaf()
        with Tape() as tape:
            loss = x * x
        loss.backward()
        assert len(tape) == 0
        assert x.grad is not None
        assert x.grad.item() == 4.0

    def test_of_several_results_of_which_some_are_unused(self) -> None:
        x = leaf([1.0, 2.0, 3.0])
        with Tape() as tape:
            first, _, third = mg.unstack(x)
            loss = first * 10.0 + third * third
        gradient, part = tape.gradient(loss, [x, third])
        np.testing.assert_array_equal(gradient.numpy(), [10.0, 0.0, 6.0])
        assert part.item() == 6.0

    def test_several_results_are_consumed_together(self) -> None:
        x = leaf([1.0, 2.0, 3.0])
        with Tape() as tape:
            first, second, third = mg.unstack(x)
            later = first * 2.0
        tape.gradient(second, x)
        for target in (first, third):
            with pytest.raises(TapeError, match="this target was consumed"):
                tape.gradient(target, x)
        with pytest.raises(TapeError, match="depends on was consumed"):
            tape.gradient(later, x)

    def test_unconnected_sources_are_refused_unless_told_what_to_return(self) -> None:
        x, other = leaf(), leaf([1.0, 2.0])
        with Tape() as tape:
            y = x * x
        with pytest.raises(TapeError, match=r"does not depend on source\[1\], a \(2,\) float64"):
            tape.gradient(y, [x, other], retain=True)
        zeros = tape.gradient(y, other, unconnected="zero", retain=True)
        np.testing.assert_array_equal(zeros.numpy(), [0.0, 0.0])
        assert tape.gradient(y, other, unconnected="none") is None

    def test_rebinding_a_leaf_does_not_change_what_was_recorded(self) -> None:
        x = leaf(2.0)
        with Tape() as tape:
            y = x * x
            x.rebind(mg.tensor(100.0, dtype="float64"))
            z = y * x
        # y was computed with 2, z with 100:  d(y x) / dx = 2 * 2 * 100 + 4.
        assert tape.gradient(z, x).item() == 404.0

    def test_a_function_given_to_map_gradient_records_nothing(self) -> None:
        x, w = leaf(), leaf(3.0)
        with Tape() as tape:
            y = mg.map_gradient(x, lambda g: g * w) * 2.0
            assert tape.gradient(y, x, retain=True).item() == 6.0
            assert len(tape) == 2


class TestHigherOrders:
    def test_all_derivatives_of_a_power(self) -> None:
        x = leaf(2.0)
        with Tape() as tape:
            y = x**5
            found = []
            for _ in range(4):
                y = tape.gradient(y, x, create_graph=True)
                found.append(y.item())
        assert found == [5 * 16.0, 20 * 8.0, 60 * 4.0, 120 * 2.0]

    def test_a_gradient_penalty_reaches_the_parameters(self) -> None:
        w, x = leaf([1.0, -2.0]), leaf([0.3, 0.4])
        with Tape() as tape:
            slope = tape.gradient(mg.tanh(mg.sum(w * x)), x, create_graph=True)
            penalty = mg.sum(slope * slope)
        found = tape.gradient(penalty, w).numpy()

        def penalty_of(weights: np.ndarray) -> float:
            t = np.tanh(weights @ np.array([0.3, 0.4]))
            return float((((1 - t * t) * weights) ** 2).sum())

        step, value = 1e-6, np.array([1.0, -2.0])
        for i, unit in enumerate(np.eye(2)):
            expected = (penalty_of(value + step * unit) - penalty_of(value - step * unit)) / 2
            assert abs(found[i] - expected / step) < 1e-8

    def test_the_derivative_in_the_seed_is_the_forward_mode(self) -> None:
        x = leaf([0.5, -1.0])
        seed = leaf([1.0, 1.0])
        direction = np.array([2.0, 3.0])
        with Tape() as tape:
            vjp = tape.gradient(mg.tanh(x), x, seed, create_graph=True)
            found = tape.gradient(vjp, seed, direction)
        np.testing.assert_allclose(found.numpy(), (1 - np.tanh(x.numpy()) ** 2) * direction)

    def test_several_results_can_be_differentiated_twice(self) -> None:
        x = leaf([1.0, 2.0])
        with Tape() as tape:
            a, _ = mg.unstack(x)
            slope = tape.gradient(a**3, x, create_graph=True)
            second = tape.gradient(slope, x, [1.0, 1.0])
        np.testing.assert_array_equal(second.numpy(), [6.0, 0.0])

    def test_it_needs_the_tape_to_be_recording(self) -> None:
        x = leaf()
        with Tape() as tape:
            y = x * x
        with pytest.raises(TapeError, match="inside the `with` block"):
            tape.gradient(y, x, create_graph=True)


class TestCutting:
    def test_what_came_before_the_mark_is_constant(self) -> None:
        x = leaf(2.0)
        with Tape() as tape:
            h, c = x * 3.0, x * 5.0  # two tensors cross the mark
            mark = tape.mark()
            y = h * c * x
            tape.cut(mark)
        assert not h.requires_grad
        assert not c.requires_grad
        assert len(tape) == 2
        assert tape.gradient(y, x).item() == 60.0

    def test_it_frees_the_arrays_at_once(self, no_collector: None) -> None:
        x = leaf(np.ones(100_000))
        with Tape() as tape:
            for _ in range(5):
                kept = mg.tanh(x)
            assert tape.nbytes == 5 * 800_000
            tracemalloc.start()
            before = tracemalloc.get_traced_memory()[0]
            mark = tape.mark()
            for _ in range(5):
                kept = mg.tanh(kept)
            tape.cut(mark)
            tape.cut()
            del kept
            assert tracemalloc.get_traced_memory()[0] - before < 20_000
            tracemalloc.stop()
        assert tape.nbytes == 0

    def test_leaves_are_not_affected(self) -> None:
        x = leaf()
        with Tape() as tape:
            x * x
            tape.cut()
            y = x * x
        assert tape.gradient(y, x).item() == 4.0

    def test_cutting_twice_or_at_an_old_mark_is_harmless(self) -> None:
        x = leaf()
        with Tape() as tape:
            old = tape.mark()
            y = x * x
            tape.cut()
            tape.cut(old)
            tape.cut()
        assert not y.requires_grad

    @pytest.mark.parametrize("kept", [0, 1, 7, 100])
    def test_many_cuts_keep_the_last_entries(self, kept: int) -> None:
        x, marks = leaf(1.5), []
        with Tape() as tape:
            state = x * 1.0
            for step in range(500):
                marks.append(tape.mark())
                state = mg.tanh(state) * x
                tape.cut(marks[max(0, step + 1 - kept)] if kept else None)
                assert len(tape) <= 2 * kept
            if kept:
                slope = tape.gradient(state, x).item()

        def last(value: float) -> float:
            result = held
            for _ in range(kept):
                result = np.tanh(result) * value
            return result

        if kept:
            held = x.item()
            for _ in range(500 - kept):
                held = np.tanh(held) * x.item()
            numeric = (last(1.5 + 1e-6) - last(1.5 - 1e-6)) / 2e-6
            assert abs(slope - numeric) < 1e-8

    def test_a_mark_of_another_tape_is_refused(self) -> None:
        other = Tape()
        with Tape() as tape, pytest.raises(TapeError, match="not a position on this tape"):
            tape.cut(other.mark())

    def test_second_order_after_a_cut(self) -> None:
        x = leaf(2.0)
        with Tape() as tape:
            state = x**2
            tape.cut()
            y = state * x**3  # 4 x^3
            slope = tape.gradient(y, x, create_graph=True)
        assert tape.gradient(slope, x).item() == 4 * 6 * 2.0


class TestLifetimes:
    def test_keeping_losses_keeps_no_history(self, no_collector: None) -> None:
        x = leaf(np.ones(1000))
        tracemalloc.start()
        losses = []
        for step in range(1000):
            with Tape() as tape:
                loss = mg.sum(mg.tanh(x) * x)
            tape.backward(loss)
            losses.append(loss)
            if step == 10:
                before = tracemalloc.get_traced_memory()[0]
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert len(losses) == 1000
        assert grown < 1000 * 500  # the losses themselves; a history would be 16 MB

    @pytest.mark.parametrize("end", ["gradient", "create_graph", "nothing", "exception"])
    def test_no_cycle_is_ever_created(self, no_collector: None, end: str) -> None:
        def run() -> None:
            x = leaf(np.ones(10))
            try:
                with Tape() as tape:
                    a, b = mg.split(mg.tanh(x), 2)
                    loss = mg.sum(mg.stack([a, b]) * 2.0)
                    if end == "gradient":
                        tape.backward(loss)
                    if end == "create_graph":
                        tape.gradient(loss, x, create_graph=True)
                    if end == "exception":
                        raise KeyError
            except KeyError:
                pass

        run()
        gc.collect()
        run()
        assert gc.collect() == 0

    def test_entries_are_let_go_while_the_tape_is_read(self, no_collector: None) -> None:
        size = 1_000_000
        x = mg.tensor(np.ones(size // 8), requires_grad=True)
        with Tape() as tape:
            y = x
            for _ in range(20):
                y = mg.tanh(y)
            loss = y.sum()
            del y
        tracemalloc.start()
        tape.backward(loss)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 5 * size

    def test_a_chain_of_200_000_operations(self) -> None:
        x = leaf(1.0)
        with Tape() as tape:
            y = x
            for _ in range(200_000):
                y = y * 1.0
        assert tape.gradient(y, x).item() == 1.0

    def test_consuming_again_and_again_costs_nothing_more(self) -> None:
        x = leaf(1.0)
        with Tape() as tape:
            for _ in range(100):
                tape.gradient(x * x, x)
                assert len(tape) == 0


def consumed(tape: Tape, x: Tensor, y: Tensor) -> None:
    tape.gradient(y, x)
    tape.gradient(y, x)


def depends_on_consumed(tape: Tape, x: Tensor, y: Tensor) -> None:
    tape.gradient(y, x)
    with tape:
        z = y * x
    tape.gradient(z, x)


def foreign(tape: Tape, x: Tensor, y: Tensor) -> None:
    with Tape() as other:
        z = x * x
    kept.append(other)
    tape.gradient(z, x)


def cut_away(tape: Tape, x: Tensor, y: Tensor) -> None:
    tape.cut()
    tape.backward(y)


def cut_source(tape: Tape, x: Tensor, y: Tensor) -> None:
    tape.cut()
    tape.gradient(x, [x, y])


def newer_foreign_inside(tape: Tape, x: Tensor, y: Tensor) -> None:
    with Tape() as other:
        z = x * x
    with tape:
        mixed = y * z
    kept.append(other)
    tape.gradient(mixed, x)


kept: list[object] = []

MISUSES: dict[str, tuple[Callable[[Tape, Tensor, Tensor], object], type[Exception], str]] = {
    "backward twice": (consumed, TapeError, r"this target was consumed .*test_tape.py:\d+.*retain"),
    "through a used part": (depends_on_consumed, TapeError, r"depends on was consumed .*retain"),
    "non-scalar": (
        lambda tape, x, y: tape.gradient(mg.tensor([1.0]) * leaf([1.0, 2.0]), x),
        TapeError,
        "nothing was recorded",
    ),
    "no history": (
        lambda tape, x, y: tape.backward(mg.tensor(1.0)),
        TapeError,
        "this target is a constant, nothing was recorded for it",
    ),
    "cut away": (cut_away, TapeError, "this target was cut away"),
    "cut source": (cut_source, TapeError, r"source\[1\] was cut away"),
    "constant source": (
        lambda tape, x, y: tape.gradient(y, mg.tensor(1.0)),
        TapeError,
        "source is a constant, nothing was recorded .* or make it a leaf",
    ),
    "another tape": (foreign, TapeError, "recorded on another tape"),
    "another tape inside": (newer_foreign_inside, TapeError, "another tape recorded"),
    "not a tensor": (
        lambda tape, x, y: tape.gradient(y, [1.0]),
        TypeError,
        r"source\[0\] is a float, not a Tensor",
    ),
    "target is no tensor": (
        lambda tape, x, y: tape.gradient(x.array, x),
        TypeError,
        "this target is a ndarray, not a Tensor",
    ),
    "seed of another shape": (
        lambda tape, x, y: tape.gradient(y, x, [1.0, 2.0]),
        ValueError,
        r"the seed of a \(\) float64 target is \(2,\) float64",
    ),
}


@pytest.mark.parametrize("misuse", MISUSES)
def test_misuse_ends_in_one_sentence(misuse: str) -> None:
    act, kind, message = MISUSES[misuse]
    x = leaf()
    with Tape() as tape:
        y = x * x
    with pytest.raises(kind, match=message) as caught:
        act(tape, x, y)
    kept.clear()
    assert "\n" not in str(caught.value)


def test_a_loss_of_several_elements_is_refused() -> None:
    x = leaf([1.0, 2.0])
    with Tape() as tape:
        y = x * x
    with pytest.raises(ValueError, match=r"shape \(2,\).*mg.sum.*seed"):
        tape.gradient(y, x)


def test_an_integer_target_has_no_gradient() -> None:
    with Tape() as tape, pytest.raises(TapeError, match="nothing was recorded"):
        tape.backward(mg.argmax(leaf([1.0, 2.0])))


def test_a_tape_that_is_gone_says_so() -> None:
    x = leaf()
    with Tape() as tape:
        y = x * x
    del tape
    with pytest.raises(TapeError, match="is gone"):
        y.backward()


class TestLooks:
    def test_the_table_shows_what_was_computed_and_where(self) -> None:
        x, w = leaf(np.ones((2, 3))), leaf(np.ones((3, 4)))
        with Tape() as tape:
            h = mg.tanh(x @ w)
            mg.split(h, 2, axis=1)
        lines = str(tape).splitlines()
        assert lines[0] == "Tape: 4 results, 208 B held"
        assert re.match(r" +# +result +operation +holds +line", lines[1])
        assert re.match(
            r" +0 +\(2, 4\) float64 +matmul\(leaf a, leaf b\) +144 B +test_tape.py:\d+ +h = mg",
            lines[2],
        )
        assert re.match(r" +1 +\(2, 4\) float64 +tanh\(#0\) +64 B +test_tape.py", lines[3])
        assert re.match(r" *2-3 +2 x \(2, 2\) float64 +split\(#1, .*axis=1\) +test_tape", lines[4])

    def test_a_long_tape_is_shown_by_its_ends(self) -> None:
        x = leaf()
        with Tape() as tape:
            for _ in range(1000):
                x * 2.0
        text = str(tape)
        assert len(text.splitlines()) == 43
        assert "... 960 more entries ..." in text

    def test_numbers_go_on_after_a_cut(self) -> None:
        x = leaf()
        with Tape() as tape:
            x * x
            tape.cut()
            x * 3.0
        assert str(tape).splitlines()[2].strip().startswith("1 ")

    def test_empty_and_repr(self) -> None:
        with Tape() as tape:
            assert str(tape) == "Tape: 0 results, 0 B held"
            assert repr(tape) == "<Tape: 0 results, 0 B held, recording>"
        assert bool(tape)
        assert "not recording" in repr(tape)


def test_settings_are_shown_as_python_writes_them() -> None:
    x = leaf(np.ones((2, 3)))
    with Tape() as tape:
        x.reshape(6)
        x.reshape((6,))
        x[1:, ..., mg.tensor([0, 2])]
    lines = str(tape).splitlines()[2:]
    for line, call in zip(lines, ("shape=6)", "shape=(6,))", "index=(1:, ..., <"), strict=True):
        assert call in line
