"""Gradient clipping: against torch, and at the edges of what numbers can hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf, nan
from typing import Any

import numpy as np
import pytest

import minigrad as mg
import minigrad_rnn as rnn
from minigrad import Tensor, nn

every_norm = pytest.mark.parametrize("norm_type", [1.0, 2.0, inf, 3.0])
every_dtype = pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch")


def leaf(gradient: Any, dtype: str = "float64") -> Tensor:
    """A leaf with this gradient."""
    values = np.asarray(gradient, dtype=dtype)
    made = mg.tensor(np.zeros_like(values), requires_grad=True)
    made.grad = mg.tensor(values)
    return made


def gradient_of(parameter: Tensor) -> np.ndarray:
    assert parameter.grad is not None
    assert parameter.grad.dtype == parameter.dtype
    return parameter.grad.numpy()


def random_gradients(rng: np.random.Generator, scale: float) -> list[np.ndarray]:
    return [scale * rng.normal(size=shape) for shape in [(3, 4), (5,), (), (2, 0)]]


# --------------------------------------------------------------------------------------
# The norm
# --------------------------------------------------------------------------------------


@every_norm
@pytest.mark.parametrize("max_norm", [1e-3, 1.0, 50.0, 1e12])
def test_norm_and_clipped_gradients_equal_torchs(
    torch: Any, rng: np.random.Generator, norm_type: float, max_norm: float
) -> None:
    # torch adds 1e-6 to the norm; with a norm of 1e9 this is lost in rounding.
    gradients = random_gradients(rng, 1e9)[:3]
    leaves = [leaf(gradient) for gradient in gradients]
    theirs = [torch.zeros(gradient.shape, dtype=torch.float64) for gradient in gradients]
    for their, gradient in zip(theirs, gradients, strict=True):
        their.grad = torch.tensor(gradient)
    norm = rnn.clip_grad_norm_(leaves, max_norm, norm_type)
    their_norm = torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type)
    np.testing.assert_allclose(norm.item(), their_norm.item(), rtol=1e-13)
    for own, their in zip(leaves, theirs, strict=True):
        np.testing.assert_allclose(gradient_of(own), their.grad.numpy(), rtol=1e-13)


@every_norm
@every_dtype
def test_the_clipped_norm_is_the_limit(
    rng: np.random.Generator, norm_type: float, dtype: str
) -> None:
    leaves = [leaf(gradient, dtype) for gradient in random_gradients(rng, 10.0)]
    before = np.concatenate([gradient_of(p).ravel() for p in leaves]).astype(np.float64)
    norm = rnn.clip_grad_norm_(leaves, 0.5, norm_type)
    after = np.concatenate([gradient_of(p).ravel() for p in leaves]).astype(np.float64)
    rounding = 4 * float(np.finfo(dtype).eps)
    expected = np.linalg.norm(before, norm_type)
    np.testing.assert_allclose(norm.item(), expected, rtol=min(rounding, 1e-6))
    np.testing.assert_allclose(np.linalg.norm(after, norm_type), 0.5, rtol=rounding)
    np.testing.assert_allclose(after, before * (0.5 / expected), rtol=rounding, atol=1e-6)
    assert norm.shape == ()
    assert not norm.requires_grad


@every_norm
@every_dtype
@pytest.mark.parametrize("max_norm", [1e4, 1e30, 1e60, 1e300, inf])
def test_below_the_limit_gradients_stay_bit_for_bit(
    rng: np.random.Generator, norm_type: float, dtype: str, max_norm: float
) -> None:
    leaves = [leaf(gradient, dtype) for gradient in random_gradients(rng, 1.0)]
    before = [gradient_of(p).copy() for p in leaves]
    rnn.clip_grad_norm_(leaves, max_norm, norm_type)
    for parameter, expected in zip(leaves, before, strict=True):
        np.testing.assert_array_equal(gradient_of(parameter), expected)


def test_a_norm_equal_to_the_limit_is_not_clipped() -> None:
    parameter = leaf([3.0, 4.0])
    assert rnn.clip_grad_norm_([parameter], 5.0).item() == 5.0
    assert gradient_of(parameter).tolist() == [3.0, 4.0]


@every_norm
def test_zero_gradients_stay_zero(norm_type: float) -> None:
    parameter = leaf([0.0, -0.0])
    assert rnn.clip_grad_norm_([parameter], 1.0, norm_type).item() == 0.0
    assert gradient_of(parameter).tolist() == [0.0, 0.0]


def test_gradients_of_no_elements_have_norm_zero() -> None:
    assert rnn.clip_grad_norm_([leaf([])], 1.0).item() == 0.0


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("float64", 1e200), ("float32", 1e30), ("float16", 6e4), ("float64", 1e-200)],
)
@every_norm
def test_powers_do_not_leave_the_range(dtype: str, value: float, norm_type: float) -> None:
    parameters = [leaf([value, -value], dtype), leaf([value, value], dtype)]
    norm = rnn.clip_grad_norm_(parameters, value / 4, norm_type)
    held = float(np.dtype(dtype).type(value))
    factor = 4.0 ** (0.0 if norm_type == inf else 1.0 / norm_type)
    np.testing.assert_allclose(norm.item() / held, factor, rtol=1e-6)
    rounding = 4 * float(np.finfo(dtype).eps)
    expected = value / 4 / (factor * value)
    np.testing.assert_allclose(
        gradient_of(parameters[0]) / held, [expected, -expected], rtol=rounding
    )


def test_dtypes_may_be_mixed() -> None:
    single, double = leaf([3e30], "float32"), leaf([4e200])
    assert rnn.clip_grad_norm_([single, double], 1.0).item() == 4e200
    assert gradient_of(double).tolist() == [1.0]
    assert gradient_of(single).tolist() == [0.0]


# --------------------------------------------------------------------------------------
# What is not finite
# --------------------------------------------------------------------------------------


@every_norm
def test_one_nan_makes_everything_nan(norm_type: float) -> None:
    parameters = [leaf([1.0, nan]), leaf([2.0])]
    assert np.isnan(rnn.clip_grad_norm_(parameters, 1.0, norm_type).item())
    assert all(np.isnan(gradient_of(p)).all() for p in parameters)


@every_norm
@pytest.mark.parametrize("value", [inf, -inf])
def test_an_infinite_element_becomes_nan_and_the_others_zero(
    norm_type: float, value: float
) -> None:
    parameters = [leaf([1.0, value]), leaf([2.0])]
    assert rnn.clip_grad_norm_(parameters, 1.0, norm_type).item() == inf
    np.testing.assert_array_equal(gradient_of(parameters[0]), [0.0, nan])
    np.testing.assert_array_equal(gradient_of(parameters[1]), [0.0])


@pytest.mark.parametrize("value", [nan, inf])
@pytest.mark.parametrize("max_norm", [1.0, inf])
def test_error_if_nonfinite_leaves_the_gradients_alone(value: float, max_norm: float) -> None:
    parameters = [leaf([1.0, value]), leaf([2.0])]
    before = [p.grad for p in parameters]
    with pytest.raises(FloatingPointError, match=f"the norm of the gradients is {value}"):
        rnn.clip_grad_norm_(parameters, max_norm, error_if_nonfinite=True)
    for parameter, gradient in zip(parameters, before, strict=True):
        assert parameter.grad is gradient


def test_error_if_nonfinite_lets_finite_gradients_pass() -> None:
    parameter = leaf([3.0, 4.0])
    assert rnn.clip_grad_norm_([parameter], 1.0, error_if_nonfinite=True).item() == 5.0
    np.testing.assert_allclose(gradient_of(parameter), [0.6, 0.8], rtol=1e-15)


# --------------------------------------------------------------------------------------
# Values
# --------------------------------------------------------------------------------------


@every_dtype
def test_values_equal_torchs(torch: Any, rng: np.random.Generator, dtype: str) -> None:
    parameters = [leaf(gradient, dtype) for gradient in random_gradients(rng, 1.0)]
    theirs = [torch.zeros(p.shape, dtype=getattr(torch, dtype)) for p in parameters]
    for their, parameter in zip(theirs, parameters, strict=True):
        their.grad = torch.tensor(gradient_of(parameter))
    rnn.clip_grad_value_(parameters, 0.5)
    torch.nn.utils.clip_grad_value_(theirs, 0.5)
    for own, their in zip(parameters, theirs, strict=True):
        np.testing.assert_array_equal(gradient_of(own), their.grad.numpy())


def test_values_that_are_not_finite() -> None:
    parameter = leaf([nan, inf, -inf, 0.5])
    rnn.clip_grad_value_([parameter], 2.0)
    np.testing.assert_array_equal(gradient_of(parameter), [nan, 2.0, -2.0, 0.5])


@every_dtype
@pytest.mark.parametrize("clip_value", [1e5, 1e60, inf])
def test_a_limit_beyond_the_dtype_changes_nothing(dtype: str, clip_value: float) -> None:
    parameter = leaf([nan, 6e4, -1.0], dtype)
    before = gradient_of(parameter).copy()
    rnn.clip_grad_value_([parameter], clip_value)
    np.testing.assert_array_equal(gradient_of(parameter), before)


# --------------------------------------------------------------------------------------
# What both share
# --------------------------------------------------------------------------------------


def by_norm(parameters: Any) -> None:
    rnn.clip_grad_norm_(parameters, 1.0)


def by_value(parameters: Any) -> None:
    rnn.clip_grad_value_(parameters, 0.7)


both = pytest.mark.parametrize("clip", [by_norm, by_value])
Clip = Callable[[Any], None]


def test_a_shared_parameter_counts_once() -> None:
    parameter = leaf([3.0, 4.0])
    assert rnn.clip_grad_norm_([parameter, parameter], 1.0).item() == 5.0
    np.testing.assert_allclose(gradient_of(parameter), [0.6, 0.8], rtol=1e-15)


@both
def test_parameters_without_a_gradient_are_passed_over(clip: Clip) -> None:
    without, parameter = mg.tensor([1.0], requires_grad=True), leaf([3.0, 4.0])
    clip([without, parameter])
    assert without.grad is None
    assert np.abs(gradient_of(parameter)).max() < 1.0


@both
def test_gradients_are_bound_anew_and_never_written_to(clip: Clip) -> None:
    parameter = leaf([3.0, 4.0])
    old = parameter.grad
    assert old is not None
    old.array.flags.writeable = False
    clip([parameter])
    assert parameter.grad is not old
    assert old.tolist() == [3.0, 4.0]
    assert parameter.numpy().tolist() == [0.0, 0.0]


@both
@pytest.mark.parametrize("kind", [list, tuple, iter, dict.fromkeys])
def test_parameters_may_come_from_any_iterable(clip: Clip, kind: Callable[[Any], Any]) -> None:
    parameters = [leaf([3.0]), leaf([4.0])]
    clip(kind(parameters))
    assert all(gradient_of(p) < 1.0 for p in parameters)


@both
def test_one_parameter_alone_may_be_given(clip: Clip) -> None:
    parameter = leaf([3.0, 4.0])
    clip(parameter)
    assert np.abs(gradient_of(parameter)).max() < 1.0


@both
def test_a_modules_parameters_are_clipped(clip: Clip) -> None:
    layer = rnn.GRU(3, 4, dtype="float64", rng=0)
    with mg.Tape() as tape:
        loss = (layer(mg.tensor(np.ones((5, 2, 3))))[0] * 1e3).sum()
    tape.backward(loss)
    clip(layer.parameters())
    assert max(np.abs(gradient_of(p)).max() for p in layer.parameters()) <= 1.0


@both
def test_nothing_is_recorded_and_an_open_tape_is_left_alone(clip: Clip) -> None:
    parameter = leaf([3.0, 4.0])
    with mg.Tape() as tape:
        clip([parameter])
        assert len(tape) == 0
        mg.sum(parameter * 2.0)
        assert len(tape) == 2


@both
@pytest.mark.parametrize("parameters", [[], [nn.Parameter(np.ones(2))]])
def test_nothing_to_clip_is_refused(clip: Clip, parameters: Sequence[Tensor]) -> None:
    with pytest.raises(ValueError, match="no parameter has a gradient to clip"):
        clip(parameters)


@both
def test_a_generator_that_was_used_up_is_refused(clip: Clip) -> None:
    parameters = iter([leaf([3.0, 4.0])])
    clip(parameters)
    with pytest.raises(ValueError, match="if a generator was used up before"):
        clip(parameters)


@pytest.mark.parametrize("limit", [0.0, -1.0, nan])
def test_a_limit_that_is_not_positive_is_refused(limit: float) -> None:
    parameter = leaf([3.0, 4.0])
    with pytest.raises(ValueError, match=f"max_norm is more than 0, not {limit}"):
        rnn.clip_grad_norm_([parameter], limit)
    with pytest.raises(ValueError, match=f"clip_value is more than 0, not {limit}"):
        rnn.clip_grad_value_([parameter], limit)
    assert gradient_of(parameter).tolist() == [3.0, 4.0]


@pytest.mark.parametrize("norm_type", [0.0, 0.5, -inf, nan])
def test_a_norm_that_is_none_is_refused(norm_type: float) -> None:
    with pytest.raises(ValueError, match=f"norm_type is at least 1, not {norm_type}"):
        rnn.clip_grad_norm_([leaf([3.0, 4.0])], 1.0, norm_type)
