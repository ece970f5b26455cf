"""The debug scope, the summary of a tape, and the warning of one that nobody reads."""

from __future__ import annotations

import re
import sys
import warnings

import numpy as np
import pytest
from transfer import on_device

import minigrad as mg
from minigrad import Tape, TapeError, Tensor, tape


def leaf(value: object) -> Tensor:
    return mg.tensor(value, dtype="float64", requires_grad=True)


class TestDebug:
    def test_a_result_that_is_not_finite_names_its_operation_and_line(self) -> None:
        x = leaf([1.0, 0.0, -1.0])
        with (
            np.errstate(all="ignore"),
            pytest.raises(FloatingPointError) as caught,
            mg.debug(),
            Tape(),
        ):
            mg.log(x)
        assert re.fullmatch(
            r"the result of log, \(3,\) float64, has 1 NaN and 1 infinite element; recorded at "
            r".*test_diagnosis.py:\d+; all operands were finite",
            str(caught.value),
        )

    def test_it_tells_which_operand_was_not_finite_before(self) -> None:
        x = leaf([1.0, 2.0])
        with pytest.raises(FloatingPointError, match="operand 1 already had"), mg.debug(), Tape():
            x * mg.tensor([1.0, np.nan])

    def test_a_gradient_that_is_not_finite_names_its_rule(self) -> None:
        x = leaf([4.0, 0.0])
        with mg.debug(), Tape() as tape:
            loss = mg.sqrt(x).sum()
        with (
            np.errstate(all="ignore"),
            pytest.raises(
                FloatingPointError,
                match=r"the gradient of sqrt for x, \(2,\) float64, has 1 infinite element; .*:\d+",
            ),
        ):
            tape.gradient(loss, x)

    @pytest.mark.parametrize("operation", [mg.tanh, lambda x: x * x, lambda x: mg.stack([x, x])])
    def test_nothing_else_changes(self, operation: object) -> None:
        assert callable(operation)
        x = leaf([0.5, -2.0])
        found = []
        for _ in range(2):
            with Tape() as plain:
                loss = operation(x).sum()
            found.append(plain.gradient(loss, x).tolist())
            with mg.debug(), Tape() as checked:
                loss = operation(x).sum()
                slope = checked.gradient(loss, x, create_graph=True)
            found.append(slope.tolist())
            assert len(checked) >= len(plain)
        assert found[0] == found[1] == found[2] == found[3]

    def test_an_array_that_was_written_to_is_noticed(self) -> None:
        shared = on_device(np.array([1.0, 2.0]))
        x, factor = leaf([3.0, 4.0]), mg.asarray(shared)
        with mg.debug(), Tape() as tape:
            y = (x * factor).sum()
            shared[0] = 100.0
            with pytest.raises(TapeError, match=r"that multiply saved at .*:\d+ was written to"):
                tape.gradient(y, x)

    def test_several_results_and_second_order_are_checked_too(self) -> None:
        x = leaf([1.0, 2.0])
        with mg.debug(), Tape() as tape:
            a, b = mg.split(x**3, 2)
            slope = tape.gradient((a * b).sum(), x, create_graph=True)
            assert tape.gradient(slope.sum(), x).shape == (2,)

    def test_off_it_checks_nothing(self) -> None:
        x = leaf([0.0])
        with np.errstate(all="ignore"), Tape() as tape:
            loss = mg.log(x).sum()
        assert not tape.fingerprints
        with np.errstate(all="ignore"):
            assert tape.gradient(loss, x).item() == np.inf

    def test_cutting_forgets_the_checksums(self) -> None:
        x = leaf([1.0])
        with mg.debug(), Tape() as tape:
            mg.tanh(x)
            assert len(tape.fingerprints) == 1
            tape.cut()
            assert not tape.fingerprints


def test_the_summary_ranks_operations_and_lines_by_bytes() -> None:
    x = leaf(np.ones((10, 10)))
    with Tape() as tape:
        for _ in range(3):
            y = mg.tanh(x)
        y.sum()
    lines = tape.summary().splitlines()
    assert lines[0] == "Tape: 4 results, 2.3 KiB held"
    assert lines[1].split() == ["operation", "results", "holds"]
    assert lines[2].split() == ["tanh", "3", "2.3", "KiB"]
    assert lines[3].split() == ["sum", "1", "0", "B"]
    assert lines[4].split() == ["line", "results", "holds"]
    assert re.match(r"test_diagnosis.py:\d+  y = mg.tanh\(x\) +3 +2.3 KiB", lines[5])


def test_a_tape_that_grows_unread_warns_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["minigrad.primitive"], "LARGE", 100)
    assert tape.LARGE == 1_000_000
    x = leaf(np.ones(2))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Tape() as long:
            for _ in range(300):
                x * 2.0
        with Tape() as cut:
            for _ in range(300):
                x * 2.0
                cut.cut()
        with Tape() as several:
            for _ in range(300):
                mg.unstack(x)
    assert len(long) == 300
    assert len(several) == 600
    assert [str(warning.message)[:28] for warning in caught] == ["this tape holds 100 results "] * 2
    assert caught[0].filename == __file__
