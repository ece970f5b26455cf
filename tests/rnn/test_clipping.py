"""Clipping the gradients of parameters: against torch, and at the edges of what numbers hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from math import inf, nan
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

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


EXTREMES = [
    ("float64", [1.7e308] * 4, 1.0),
    ("float64", [1.7e308] * 4, 1e300),
    ("float64", [5e-324, -1e-323], 5e-324),
    ("float64", [1e300, 1e-300], 1e-5),
    ("float32", [3e38] * 4, 1.0),
    ("float32", [1e30, -1e30, 1e-30], 1.0),
    ("float32", [1e-45, -3e-45], 2e-45),
    ("float32", [1e-30, 1e-30], 1e-31),
    ("float16", [6e4] * 9, 1.0),
    ("float16", [6e4] * 9, 1e-2),
    ("float16", [6e-8, -6e-8, 3e-7], 1e-7),
]


@every_norm
@pytest.mark.parametrize(("dtype", "values", "max_norm"), EXTREMES)
@pytest.mark.parametrize("clip", [rnn.clip_grad_norm_, rnn.clip_grad_norm_per_tensor_])
def test_extreme_gradients_are_clipped_to_the_limit(
    clip: Any, dtype: str, values: list[float], max_norm: float, norm_type: float
) -> None:
    parameter = leaf(values, dtype)
    exact = [Fraction(v) for v in gradient_of(parameter).tolist()]
    largest = max(abs(v) for v in exact)
    norm = float(np.linalg.norm([float(v / largest) for v in exact], norm_type))  # in that unit
    scale = min(1.0, float(Fraction(max_norm) / largest) / norm)
    clip([parameter], max_norm, norm_type)
    # Rounding to subnormals, and in float32 that of a scale which is itself subnormal.
    smallest = float(np.finfo(dtype).smallest_subnormal)
    for after, before in zip(gradient_of(parameter).tolist(), exact, strict=True):
        expected = float(before * Fraction(scale))
        rounding = 2e-6 if dtype == "float32" else 4 * float(np.finfo(dtype).eps)
        assert abs(after - expected) <= rounding * abs(expected) + smallest


@every_norm
@pytest.mark.parametrize(
    ("dtype", "values", "max_norm"),
    [
        ("float64", [1e308, 1e-308, 5e-324], 1.7e308),
        ("float64", [1e-300, -1e-310], 1e-299),
        ("float32", [3e38, 3e38, 1e-45], 1e39),
        ("float32", [1e30, 1e-30], 2e30),
        ("float32", [1e-45, 3e-45], 1e-44),
        ("float16", [6e4, 6e4, 6e-8], 2e5),
        ("float16", [6e-8, 6e-8], 1e-6),
    ],
)
@pytest.mark.parametrize("clip", [rnn.clip_grad_norm_, rnn.clip_grad_norm_per_tensor_])
def test_extreme_gradients_below_the_limit_stay_bit_for_bit(
    clip: Any, dtype: str, values: list[float], max_norm: float, norm_type: float
) -> None:
    parameter = leaf(values, dtype)
    before = gradient_of(parameter).copy()
    clip([parameter], max_norm, norm_type)
    np.testing.assert_array_equal(gradient_of(parameter), before)


def test_a_norm_beyond_its_dtype_is_infinite_and_clipped_rightly() -> None:
    parameter = leaf([3e38] * 4, "float32")
    assert rnn.clip_grad_norm_([parameter], 1.0).item() == inf
    np.testing.assert_allclose(gradient_of(parameter), [0.5] * 4, rtol=2e-6)


gradients_of_any_size = arrays(
    "float64", st.integers(1, 6), elements=st.floats(-1e12, 1e12, allow_subnormal=False)
)


@given(
    gradients=st.lists(gradients_of_any_size, min_size=1, max_size=4),
    p=st.sampled_from([1.0, 1.5, 2.0, 7.0, inf]),
    fraction=st.floats(0.01, 2.0),
)
def test_clipping_never_exceeds_the_limit_and_never_turns(
    gradients: list[np.ndarray], p: float, fraction: float
) -> None:
    before = np.concatenate(gradients)
    norm = np.linalg.norm(before / (np.abs(before).max() or 1.0), p) * np.abs(before).max()
    max_norm = fraction * norm or 1.0
    leaves = [leaf(g) for g in gradients]
    np.testing.assert_allclose(rnn.clip_grad_norm_(leaves, max_norm, p).item(), norm, rtol=1e-13)
    after = np.concatenate([gradient_of(parameter) for parameter in leaves])
    if norm <= max_norm * (1.0 - 1e-13):
        np.testing.assert_array_equal(after, before)
    else:
        np.testing.assert_allclose(after, before * (max_norm / norm), rtol=1e-12)
    once = rnn.clip_grad_norm_(leaves, inf, p).item()
    assert once <= max_norm * (1.0 + 1e-13) or once <= norm
    rnn.clip_grad_norm_(leaves, once or 1.0, p)  # the norm that it has is none too large
    np.testing.assert_array_equal(
        np.concatenate([gradient_of(parameter) for parameter in leaves]), after
    )


# --------------------------------------------------------------------------------------
# The norm of every tensor
# --------------------------------------------------------------------------------------


@every_norm
def test_norms_per_tensor_are_torchs_of_every_tensor(
    torch: Any, rng: np.random.Generator, norm_type: float
) -> None:
    gradients = [1e9 * g for g in random_gradients(rng, 1.0)[:3]]
    leaves = [leaf(gradient) for gradient in gradients]
    norms = rnn.clip_grad_norm_per_tensor_(leaves, 1.2e9, norm_type)
    assert norms.shape == (3,)
    for own, gradient, norm in zip(leaves, gradients, norms.tolist(), strict=True):
        their = torch.zeros(gradient.shape, dtype=torch.float64)
        their.grad = torch.tensor(gradient)
        their_norm = torch.nn.utils.clip_grad_norm_([their], 1.2e9, norm_type)
        np.testing.assert_allclose(norm, their_norm.item(), rtol=1e-13)
        np.testing.assert_allclose(gradient_of(own), their.grad.numpy(), rtol=1e-13)


def test_per_tensor_small_gradients_are_not_scaled_with_large_ones() -> None:
    large, small, empty = leaf([3e200, 4e200]), leaf([0.3, 0.4]), leaf([])
    norms = rnn.clip_grad_norm_per_tensor_([large, small, empty], 1.0)
    np.testing.assert_allclose(norms.numpy(), [5e200, 0.5, 0.0], rtol=1e-15)
    np.testing.assert_allclose(gradient_of(large), [0.6, 0.8], rtol=1e-15)
    assert gradient_of(small).tolist() == [0.3, 0.4]


def test_per_tensor_one_nan_stays_in_its_tensor() -> None:
    bad, good = leaf([nan, 1.0]), leaf([3.0, 4.0])
    rnn.clip_grad_norm_per_tensor_([bad, good], 1.0)
    assert np.isnan(gradient_of(bad)).all()
    np.testing.assert_allclose(gradient_of(good), [0.6, 0.8], rtol=1e-15)


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
# What all share
# --------------------------------------------------------------------------------------


def by_norm(parameters: Any) -> None:
    rnn.clip_grad_norm_(parameters, 1.0)


def by_norm_per_tensor(parameters: Any) -> None:
    rnn.clip_grad_norm_per_tensor_(parameters, 0.9)


def by_value(parameters: Any) -> None:
    rnn.clip_grad_value_(parameters, 0.7)


def by_weights(parameters: Any) -> None:
    rnn.clip_grad_agc_(parameters)


def by_history(parameters: Any) -> None:
    clip = rnn.AutoClip(percentile=0.0)
    clip.load_state_dict({"norms": [0.5]})
    clip(parameters)


def by_spikes(parameters: Any) -> None:
    rnn.ZClip(max_norm=1.0)(parameters)


every_rule = pytest.mark.parametrize(
    "clip", [by_norm, by_norm_per_tensor, by_value, by_weights, by_history, by_spikes]
)
Clip = Callable[[Any], None]


@every_rule
def test_a_shared_parameter_is_clipped_once(clip: Clip) -> None:
    once, twice = leaf([3.0, 4.0]), leaf([3.0, 4.0])
    clip([once])
    clip([twice, twice])
    np.testing.assert_array_equal(gradient_of(twice), gradient_of(once))


def test_a_shared_parameter_counts_once() -> None:
    parameter = leaf([3.0, 4.0])
    assert rnn.clip_grad_norm_([parameter, parameter], 1.0).item() == 5.0
    np.testing.assert_allclose(gradient_of(parameter), [0.6, 0.8], rtol=1e-15)


@every_rule
def test_parameters_without_a_gradient_are_passed_over(clip: Clip) -> None:
    without, parameter = mg.tensor([1.0], requires_grad=True), leaf([3.0, 4.0])
    clip([without, parameter])
    assert without.grad is None
    assert np.abs(gradient_of(parameter)).max() < 1.0


@every_rule
def test_gradients_are_bound_anew_and_never_written_to(clip: Clip) -> None:
    parameter = leaf([3.0, 4.0])
    old = parameter.grad
    assert old is not None
    old.array.flags.writeable = False
    clip([parameter])
    assert parameter.grad is not old
    assert old.tolist() == [3.0, 4.0]
    assert parameter.numpy().tolist() == [0.0, 0.0]


@every_rule
@pytest.mark.parametrize("kind", [list, tuple, iter, dict.fromkeys])
def test_parameters_may_come_from_any_iterable(clip: Clip, kind: Callable[[Any], Any]) -> None:
    parameters = [leaf([3.0]), leaf([4.0])]
    clip(kind(parameters))
    assert all(gradient_of(p) < 1.0 for p in parameters)


@every_rule
def test_one_parameter_alone_may_be_given(clip: Clip) -> None:
    parameter = leaf([3.0, 4.0])
    clip(parameter)
    assert np.abs(gradient_of(parameter)).max() < 1.0


@every_rule
def test_a_modules_parameters_are_clipped(clip: Clip) -> None:
    layer = rnn.GRU(3, 4, dtype="float64", rng=0)
    with mg.Tape() as tape:
        loss = (layer(mg.tensor(np.ones((5, 2, 3))))[0] * 1e3).sum()
    tape.backward(loss)
    clip(layer.parameters())
    assert max(np.abs(gradient_of(p)).max() for p in layer.parameters()) <= 1.0


@every_rule
def test_nothing_is_recorded_and_an_open_tape_is_left_alone(clip: Clip) -> None:
    parameter = leaf([3.0, 4.0])
    with mg.Tape() as tape:
        clip([parameter])
        assert len(tape) == 0
        mg.sum(parameter * 2.0)
        assert len(tape) == 2


@every_rule
@pytest.mark.parametrize("parameters", [[], [nn.Parameter(np.ones(2))]])
def test_nothing_to_clip_is_refused(clip: Clip, parameters: Sequence[Tensor]) -> None:
    with pytest.raises(ValueError, match="no parameter has a gradient to clip"):
        clip(parameters)


@every_rule
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
    with pytest.raises(ValueError, match=f"norm_type is at least 1, not {norm_type}"):
        rnn.clip_grad_norm_per_tensor_([leaf([3.0, 4.0])], 1.0, norm_type)


@every_rule
def test_a_module_or_a_dictionary_in_place_of_parameters_is_refused(clip: Clip) -> None:
    for parameters in (rnn.GRUCell(1, 1), {"w": leaf([3.0, 4.0])}):
        with pytest.raises(TypeError, match=r"hand over module.parameters\(\) or module.named_p"):
            clip(parameters)


@every_rule
def test_what_is_no_parameter_is_refused(clip: Clip) -> None:
    with pytest.raises(TypeError, match="parameter 1 is a ndarray, and has no gradient to clip"):
        clip([leaf([3.0, 4.0]), np.zeros(2)])


@every_rule
def test_named_parameters_are_clipped(clip: Clip) -> None:
    parameters = [("w", leaf([3.0])), ("w", leaf([4.0]))]
    clip(parameters)
    assert all(gradient_of(p) < 1.0 for _, p in parameters)


# --------------------------------------------------------------------------------------
# Before or after the gradients of several windows are added up
# --------------------------------------------------------------------------------------


def test_clipping_once_after_accumulation_is_not_clipping_every_window() -> None:
    windows = [[3.0, 4.0], [0.0, -6.0]]  # of norms 5 and 6; their sum [3, -2]
    w = mg.tensor([0.0, 0.0], "float64", requires_grad=True)

    def backward(window: list[float]) -> None:
        with mg.Tape() as tape:
            loss = mg.sum(w * mg.tensor(window, "float64"))
        tape.backward(loss)

    for window in windows:
        backward(window)
    rnn.clip_grad_norm_([w], 1.0)
    np.testing.assert_allclose(gradient_of(w), np.array([3.0, -2.0]) / np.sqrt(13.0), rtol=1e-15)

    total = np.zeros(2)
    for window in windows:
        w.grad = None
        backward(window)
        rnn.clip_grad_norm_([w], 1.0)
        total += gradient_of(w)
    np.testing.assert_allclose(total, [0.6, -0.2], rtol=1e-15, atol=1e-15)

    # The mistake: without forgetting in between, the first window is clipped twice.
    w.grad = None
    for window in windows:
        backward(window)
        rnn.clip_grad_norm_([w], 1.0)
    mistaken = np.array([0.6, 0.8 - 6.0])
    np.testing.assert_allclose(
        gradient_of(w), mistaken / np.linalg.norm(mistaken), rtol=1e-15, atol=1e-15
    )
