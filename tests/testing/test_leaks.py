"""assert_no_leak: what it finds, what it says, and what it lets pass."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad.testing import assert_no_leak


def training_step() -> Callable[[], None]:
    weight = mg.tensor(np.full((20, 20), 0.1), requires_grad=True)
    optimizer = mg.optim.Adam([weight], lr=0.01)

    def step() -> None:
        with mg.Tape() as tape:
            loss = mg.mean(mg.tanh(weight @ weight) ** 2)
        tape.backward(loss)
        optimizer.step()
        optimizer.zero_grad()

    return step


def cycle() -> None:
    parts: list[Any] = [np.ones(100)]
    parts.append(parts)


@pytest.fixture(scope="module", autouse=True)
def _what_other_tests_left_is_not_searched() -> None:
    gc.collect()
    gc.freeze()


class TestNoLeak:
    def test_of_nothing(self) -> None:
        for _ in range(3):
            with assert_no_leak():
                pass

    def test_of_a_function_that_cleans_up(self) -> None:
        def tidy() -> None:
            x = mg.tensor(np.ones(100), requires_grad=True)
            with mg.Tape() as tape:
                y = mg.sum(mg.tanh(x) * x)
            tape.gradient(y, x)

        tidy()
        with assert_no_leak():
            tidy()
        assert_no_leak(tidy)

    def test_of_a_training_step(self) -> None:
        assert_no_leak(training_step())

    def test_of_a_cache_that_is_filled_once(self) -> None:
        cache: dict[int, Any] = {}
        assert_no_leak(lambda: cache.setdefault(0, [np.ones(1000)]))

    def test_of_fewer_objects_than_before(self) -> None:
        kept = [mg.tensor(np.ones(1000)) for _ in range(100)]
        with assert_no_leak():
            del kept[1:]
        assert_no_leak(kept.clear)

    def test_of_a_function_whose_result_is_dropped(self) -> None:
        assert_no_leak(lambda: [[np.ones(10)], {"a": []}])


class TestLeak:
    def test_of_tensors(self) -> None:
        kept: list[Any] = []
        with pytest.raises(AssertionError) as error:
            assert_no_leak(lambda: kept.append(mg.tensor(np.ones(1000))), calls=7)
        on_cpu = mg.tensor(0.0).device == "cpu"
        memory = "+56,000 bytes of arrays" if on_cpu else "+57,344 bytes of arrays on the GPU"
        told = str(error.value)
        assert told.startswith("7 calls left behind\n")
        assert "\n  +7 minigrad.tensor.Tensor\n" in told
        assert f"\n  {memory}\n  asked for by these lines:\n" in told
        line = told.partition("these lines:\n")[2].splitlines()[0]
        assert f"{__file__}:" in line
        assert "kept.append(mg.tensor(np.ones(1000)))" in line

    def test_of_arrays_alone(self) -> None:
        kept = dict.fromkeys(range(100), np.ones(1))
        keys = iter(range(100))
        with pytest.raises(AssertionError, match=r"behind\n  \+240 bytes of arrays"):
            assert_no_leak(lambda: kept.update({next(keys): np.ones(3) * 1.0}), calls=10)

    def test_of_plain_bytes(self) -> None:
        kept: list[bytes] = []
        # Other threads, as those of a distributed run, take and free some hundred meanwhile.
        told = r"\+100,\d\d\d bytes of Python's own"
        with pytest.raises(AssertionError, match=told), assert_no_leak():
            kept.append(bytes(100_500))
        with assert_no_leak(slack=200_000):
            kept.append(bytes(100_000))

    def test_of_numbers_in_many_calls(self) -> None:
        kept: list[float] = []
        with pytest.raises(AssertionError, match="bytes of Python's own"):
            assert_no_leak(lambda: kept.append(0.5 * len(kept)), calls=1000)

    def test_of_a_cycle(self) -> None:
        with pytest.raises(AssertionError) as error, assert_no_leak():
            cycle()
        told = str(error.value)
        assert "+1 list" in told
        assert "+800 bytes of arrays" in told
        assert "1 objects are in cycles" in told

    def test_of_a_name_bound_in_the_block(self) -> None:
        told = r"\+1 minigrad.tensor.Tensor"
        with pytest.raises(AssertionError, match=told), assert_no_leak():
            y = mg.tensor(np.ones(10))
        assert y.size == 10

    def test_of_a_tape_that_is_kept(self) -> None:
        kept: list[mg.Tape] = []
        x = mg.tensor(np.ones(1000), requires_grad=True)

        def record() -> None:
            with mg.Tape() as tape:
                mg.tanh(x)
            kept.append(tape)

        with pytest.raises(AssertionError, match=r"\+10 minigrad.tape.Tape"):
            assert_no_leak(record)


class TestSurroundings:
    @pytest.mark.parametrize("enabled", [True, False])
    @pytest.mark.parametrize("failing", [True, False])
    def test_the_collector_and_the_tracing_are_left_as_they_were(
        self, enabled: bool, failing: bool
    ) -> None:
        kept: list[Any] = []
        if not enabled:
            gc.disable()
        try:
            if failing:
                with pytest.raises(AssertionError):
                    assert_no_leak(lambda: kept.append([]))
            else:
                assert_no_leak(lambda: None)
            assert gc.isenabled() == enabled
        finally:
            gc.enable()
        assert not tracemalloc.is_tracing()

    def test_tracing_from_before_goes_on(self) -> None:
        tracemalloc.start()
        try:
            x = mg.tensor(np.ones(1000), requires_grad=True)
            with assert_no_leak():  # which knows the array that is replaced
                x.rebind(mg.tensor(np.zeros(1000)))
            assert tracemalloc.is_tracing()
        finally:
            tracemalloc.stop()

    def test_an_error_in_the_block_is_the_one_that_is_raised(self) -> None:
        kept: list[Any] = []
        with pytest.raises(KeyError), assert_no_leak():
            kept.append([])
            raise KeyError
        assert gc.isenabled()
        assert not tracemalloc.is_tracing()

    def test_no_calls_are_refused(self) -> None:
        with pytest.raises(ValueError, match="at least 1 call, not 0"):
            assert_no_leak(lambda: None, calls=0)
