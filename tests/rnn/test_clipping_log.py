"""ClipLog: norms, fractions and angles, against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, isnan, nan
from typing import Any

import numpy as np
import pytest

import minigrad as mg
import minigrad_rnn as rnn
from minigrad import Tensor


def leaves(*gradients: Any, dtype: str = "float64") -> list[Tensor]:
    made = []
    for gradient in gradients:
        values = np.asarray(gradient, dtype)
        made.append(mg.tensor(np.ones_like(values), requires_grad=True))
        made[-1].grad = mg.tensor(values)
    return made


def together(parameters: list[Tensor]) -> np.ndarray:
    return np.concatenate([p.grad.numpy().ravel() for p in parameters if p.grad is not None])


def by_spikes(parameters: Any, log: rnn.ClipLog) -> None:
    rnn.ZClip(max_norm=2.0, log=log)(parameters)


RULES: list[Callable[..., Any]] = [
    lambda parameters, log: rnn.clip_grad_norm_(parameters, 2.0, log=log),
    lambda parameters, log: rnn.clip_grad_norm_(parameters, 2.0, inf, log=log),
    lambda parameters, log: rnn.clip_grad_norm_(parameters, inf, log=log),
    lambda parameters, log: rnn.clip_grad_norm_per_tensor_(parameters, 2.0, log=log),
    lambda parameters, log: rnn.clip_grad_value_(parameters, 0.5, log=log),
    lambda parameters, log: rnn.clip_grad_agc_(parameters, 0.5, log=log),
    by_spikes,
]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_record_is_what_was_changed(
    rng: np.random.Generator, rule: Callable[..., Any], dtype: str
) -> None:
    log = rnn.ClipLog()
    for scale in (0.1, 10.0):
        parameters = leaves(
            scale * rng.normal(size=(3, 4)), [0.0, scale], np.zeros((0, 2)), scale, dtype=dtype
        )
        before = together(parameters).astype("float64")
        rule(parameters, log)
        after = together(parameters).astype("float64")
        record, rounding = log.read()[-1], 8 * float(np.finfo(dtype).eps)
        np.testing.assert_allclose(record.norm_before, np.linalg.norm(before), rtol=rounding)
        np.testing.assert_allclose(record.norm_after, np.linalg.norm(after), rtol=rounding)
        cosine = before @ after / np.linalg.norm(before) / np.linalg.norm(after)
        np.testing.assert_allclose(record.cosine, cosine, rtol=rounding)
        assert record.fraction_clipped == np.sum(before != after) / np.sum(before != 0.0)
    assert len(log) == 2


def test_scaling_turns_nothing_and_clipping_values_does() -> None:
    log = rnn.ClipLog()
    rnn.clip_grad_norm_(leaves([3.0, 4.0]), 1.0, log=log)
    rnn.clip_grad_value_(leaves([1.0, 2.0]), 1.0, log=log)
    scaled, clipped = log.read()
    assert scaled.angle < 1e-6
    assert scaled.fraction_clipped == 1.0
    assert clipped.fraction_clipped == 0.5
    assert clipped.cosine == pytest.approx(3.0 / np.sqrt(10.0), rel=1e-14)
    assert clipped.angle == pytest.approx(45.0 - np.degrees(np.arctan(0.5)), rel=1e-13)


def test_the_opposite_direction_is_180_degrees() -> None:
    log = rnn.ClipLog()
    log.add([mg.tensor([3.0, 0.1])], [mg.tensor([-6.0, -0.2])])
    (record,) = log.read()
    assert record.angle == pytest.approx(180.0, abs=1e-4)


@pytest.mark.parametrize(("dtype", "value"), [("float16", 6e4), ("float32", 3e38)])
def test_norms_beyond_the_dtype_are_recorded(dtype: str, value: float) -> None:
    log = rnn.ClipLog()
    rnn.clip_grad_norm_(leaves([value] * 4, dtype=dtype), 1.0, log=log)
    (record,) = log.read()
    np.testing.assert_allclose(record.norm_before, 2.0 * value, rtol=1e-3)
    np.testing.assert_allclose(record.norm_after, 1.0, rtol=1e-3)
    assert record.angle < 0.01


def test_gradients_that_are_zero_have_no_angle() -> None:
    log = rnn.ClipLog()
    rnn.clip_grad_norm_(leaves([0.0, 0.0]), 1.0, log=log)
    rnn.clip_grad_norm_(leaves([]), 1.0, log=log)
    for record in log.read():
        assert record[:3] == (0.0, 0.0, 0.0)
        assert isnan(record.cosine)
        assert isnan(record.angle)


@pytest.mark.parametrize("value", [nan, inf])
def test_a_step_that_is_not_finite_is_recorded(value: float) -> None:
    log = rnn.ClipLog()
    rnn.clip_grad_norm_(leaves([value, 4.0]), 1.0, nonfinite="skip", log=log)
    rnn.clip_grad_norm_(leaves([value, 4.0]), 1.0, nonfinite="zero", log=log)
    skipped, zeroed = log.read()
    assert str(skipped.norm_before) == str(zeroed.norm_before) == str(value)
    assert skipped[1:3] == (0.0, 1.0)
    assert zeroed[1:3] == (1.0, 1.0)
    assert isnan(skipped.cosine)
    assert isnan(zeroed.cosine)
    with pytest.raises(FloatingPointError):
        rnn.clip_grad_norm_(leaves([value, 4.0]), 1.0, nonfinite="error", log=log)
    assert len(log) == 2


def test_a_log_of_limited_capacity_keeps_the_latest() -> None:
    log = rnn.ClipLog(capacity=2)
    for norm in (1.0, 2.0, 3.0):
        rnn.clip_grad_norm_(leaves([norm]), 1.5, log=log)
    assert [record.norm_before for record in log.read()] == [2.0, 3.0]
    assert [record.norm_after for record in log.read()] == [1.5, 1.5]
    assert repr(log) == "ClipLog(2 records)"
    log.clear()
    assert log.read() == []
    with pytest.raises(ValueError, match="a log has room for at least 1 record, not 0"):
        rnn.ClipLog(capacity=0)


def test_nothing_is_recorded_on_an_open_tape() -> None:
    (parameter,) = leaves([3.0, 4.0])
    log = rnn.ClipLog()
    with mg.Tape() as tape:
        computed = parameter * 2.0
        before = len(tape)
        log.add([computed], [computed * 0.5])
        assert len(tape) == before + 1
    assert log.read()[0].norm_before == pytest.approx(np.sqrt(8.0))
