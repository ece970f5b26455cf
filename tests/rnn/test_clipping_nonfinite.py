"""Clipping gradients that are not finite: each policy, in every rule."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nan
from typing import Any

import numpy as np
import pytest

import minigrad as mg
import minigrad_rnn as rnn
from minigrad import Tensor

Rule = Callable[..., Any]


def by_norm(parameters: Any, **settings: Any) -> Any:
    return rnn.clip_grad_norm_(parameters, 1.0, **settings)


def by_measuring(parameters: Any, **settings: Any) -> Any:
    return rnn.clip_grad_norm_(parameters, inf, **settings)


def by_norm_per_tensor(parameters: Any, **settings: Any) -> Any:
    return rnn.clip_grad_norm_per_tensor_(parameters, 1.0, **settings)


def by_value(parameters: Any, **settings: Any) -> Any:
    return rnn.clip_grad_value_(parameters, 1.0, **settings)


def by_weights(parameters: Any, **settings: Any) -> Any:
    return rnn.clip_grad_agc_(parameters, 0.5, eps=2.0, **settings)


def by_history(parameters: Any, **settings: Any) -> Any:
    clip = rnn.AutoClip(percentile=0.0, **settings)
    clip.load_state_dict({"norms": [1.0]})
    return clip(parameters)


def by_spikes(parameters: Any, **settings: Any) -> Any:
    clip = rnn.ZClip(warmup=2, **settings)
    clip.load_state_dict({"norms": [1.0, 1.0], "mean": 1.0, "variance": 0.0})
    return clip(parameters)


RULES = [by_norm, by_measuring, by_norm_per_tensor, by_value, by_weights, by_history, by_spikes]
every_rule = pytest.mark.parametrize("rule", RULES)
every_value = pytest.mark.parametrize("value", [nan, inf, -inf])
every_dtype = pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])


def leaves(value: float, dtype: str = "float64") -> list[Tensor]:
    """Two parameters, one of whose gradients holds this value."""
    made = []
    for gradient in ([0.75, value], [3.0, 4.0]):
        parameter = mg.tensor([0.0, 0.0], dtype, requires_grad=True)
        parameter.grad = mg.tensor(gradient, dtype)
        made.append(parameter)
    return made


def gradients_of(parameters: list[Tensor]) -> list[list[float]]:
    return [p.grad.tolist() for p in parameters if p.grad is not None]


@every_rule
@every_value
@every_dtype
def test_zero_is_clipping_with_zeros_in_their_place(rule: Rule, value: float, dtype: str) -> None:
    given, replaced = leaves(value, dtype), leaves(0.0, dtype)
    result, expected = rule(given, nonfinite="zero"), rule(replaced)
    assert gradients_of(given) == gradients_of(replaced)
    assert str(result) == str(expected)
    assert [p.grad.dtype for p in given if p.grad is not None] == [dtype, dtype]


@every_rule
@every_value
@every_dtype
def test_skip_leaves_no_gradient_and_the_parameters_as_they_are(
    rule: Rule, value: float, dtype: str
) -> None:
    parameters = leaves(1.0, dtype)
    optimizer = mg.optim.Adam(parameters, lr=0.1)
    optimizer.step()  # a momentum that would move them on
    for parameter, fresh in zip(parameters, leaves(value, dtype), strict=True):
        parameter.grad = fresh.grad
    before = [p.tolist() for p in parameters], str(optimizer.state), optimizer.updates
    rule(parameters, nonfinite="skip")
    assert [p.grad for p in parameters] == [None, None]
    with pytest.raises(ValueError, match=r"step\(allow_missing=True\)"):
        optimizer.step()
    optimizer.step(allow_missing=True)
    assert ([p.tolist() for p in parameters], str(optimizer.state), optimizer.updates) == before


@every_rule
@every_value
def test_error_names_the_parameters_and_leaves_the_gradients(rule: Rule, value: float) -> None:
    parameters = leaves(value)
    before = [p.grad for p in parameters]
    with pytest.raises(FloatingPointError) as caught:
        rule([("first", parameters[0]), ("second", parameters[1])], nonfinite="error")
    assert str(caught.value) == (
        f"the norm of the gradients is {abs(value)}, because of first (2,): look at the learning "
        "rate, the loss, and the data of this step"
    )
    assert all(p.grad is old for p, old in zip(parameters, before, strict=True))


@every_rule
@pytest.mark.parametrize("nonfinite", ["zero", "skip", "error"])
def test_finite_gradients_do_not_notice_the_policy(rule: Rule, nonfinite: str) -> None:
    one, other = leaves(-7.0), leaves(-7.0)
    assert str(rule(one, nonfinite=nonfinite)) == str(rule(other))
    assert gradients_of(one) == gradients_of(other)


@every_rule
@pytest.mark.parametrize("nonfinite", ["skip", "error", "zero"])
def test_huge_gradients_are_finite(rule: Rule, nonfinite: str) -> None:
    parameters = leaves(1.7e308)
    for parameter in parameters:
        parameter.grad = mg.tensor([1.7e308, -1.7e308], "float64")
    rule(parameters, nonfinite=nonfinite)
    assert np.isfinite(gradients_of(parameters)).all()


@pytest.mark.parametrize(
    ("rule", "value", "expected"),
    [
        (by_norm, nan, [[nan, nan], [nan, nan]]),
        (by_norm, inf, [[0.0, nan], [0.0, 0.0]]),
        (by_norm, -inf, [[0.0, nan], [0.0, 0.0]]),
        (by_measuring, nan, [[0.75, nan], [3.0, 4.0]]),
        (by_measuring, -inf, [[0.75, -inf], [3.0, 4.0]]),
        (by_norm_per_tensor, nan, [[nan, nan], [0.6, 0.8]]),
        (by_norm_per_tensor, inf, [[0.0, nan], [0.6, 0.8]]),
        (by_value, nan, [[0.75, nan], [1.0, 1.0]]),
        (by_value, inf, [[0.75, 1.0], [1.0, 1.0]]),
        (by_value, -inf, [[0.75, -1.0], [1.0, 1.0]]),
        (by_weights, nan, [[nan, nan], [0.6, 0.8]]),
        (by_weights, -inf, [[0.0, nan], [0.6, 0.8]]),
        (by_history, nan, [[nan, nan], [nan, nan]]),
        (by_history, inf, [[0.0, nan], [0.0, 0.0]]),
        (by_spikes, inf, [[0.0, nan], [0.0, 0.0]]),
        (by_spikes, nan, [[nan, nan], [nan, nan]]),
    ],
)
def test_propagate_follows_the_formula(
    rule: Rule, value: float, expected: list[list[float]]
) -> None:
    parameters = leaves(value)
    rule(parameters, nonfinite="propagate")
    np.testing.assert_allclose(gradients_of(parameters), expected, rtol=1e-15)


@pytest.mark.parametrize("rule", [by_norm, by_measuring, by_history, by_spikes])
@every_value
def test_the_norm_that_is_returned_tells(rule: Rule, value: float) -> None:
    assert str(rule(leaves(value)).item()) == str(abs(value))
    assert str(rule(leaves(value), nonfinite="skip").item()) == str(abs(value))


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever would wait for a GPU raises."""

    def wait(self: Tensor, *_: Any) -> Any:
        raise AssertionError("this waits for the device")

    for name in ("item", "tolist", "numpy", "__bool__", "__float__", "__int__", "__array__"):
        monkeypatch.setattr(Tensor, name, wait)


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("nonfinite", ["propagate", "zero"])
@every_value
def test_the_other_policies_and_the_log_wait_for_nothing(nonfinite: Any, value: float) -> None:
    log = rnn.ClipLog()
    settings = {"nonfinite": nonfinite, "log": log}
    rules: list[Rule] = [by_norm, by_measuring, by_norm_per_tensor, by_value, by_weights]
    for rule in rules:
        rule(leaves(value), **settings)
    for clip in (rnn.AutoClip(**settings), rnn.ZClip(warmup=2, **settings)):
        for _ in range(4):
            clip(leaves(value))
    assert len(log) == len(rules) + 8
    x = mg.tensor([value, 1.0], requires_grad=True)
    with mg.Tape() as tape:
        loss = (rnn.clip_gradient(x, max_norm=1.0, nonfinite=nonfinite) * x).sum()
    tape.backward(loss)
    with pytest.raises(AssertionError, match="this waits"):
        by_norm(leaves(value), nonfinite="skip")


@every_rule
def test_an_unknown_policy_is_refused(rule: Rule) -> None:
    with pytest.raises(
        ValueError, match="nonfinite is 'propagate', 'zero', 'skip' or 'error', not 'raise'"
    ):
        rule(leaves(1.0), nonfinite="raise")


def test_error_if_nonfinite_beside_another_policy_is_refused() -> None:
    with pytest.raises(ValueError, match="nonfinite='skip' was given as well"):
        rnn.clip_grad_norm_(leaves(1.0), 1.0, nonfinite="skip", error_if_nonfinite=True)
    rnn.clip_grad_norm_(leaves(1.0), 1.0, nonfinite="error", error_if_nonfinite=True)
