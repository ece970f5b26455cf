"""Adaptive clipping: against the papers' formulas in NumPy, over sequences with spikes."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nan
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minigrad as mg
import minigrad_rnn as rnn
from minigrad import Tensor


def leaf(weight: Any, gradient: Any, dtype: str = "float64") -> Tensor:
    made = mg.tensor(np.asarray(weight, dtype), requires_grad=True)
    made.grad = mg.tensor(np.asarray(gradient, dtype))
    return made


def gradient_of(parameter: Tensor) -> np.ndarray:
    assert parameter.grad is not None
    assert parameter.grad.dtype == parameter.dtype
    return parameter.grad.numpy()


# --------------------------------------------------------------------------------------
# AGC
# --------------------------------------------------------------------------------------


def agc(weight: np.ndarray, gradient: np.ndarray, clip_factor: float, eps: float) -> np.ndarray:
    """The paper's equation 3, unit by unit."""
    if weight.ndim > 1:
        rows = [
            agc(w.ravel(), g.ravel(), clip_factor, eps)
            for w, g in zip(weight, gradient, strict=True)
        ]
        return np.array(rows).reshape(weight.shape)
    most = clip_factor * max(np.sqrt((weight**2).sum()), eps)
    norm = np.sqrt((gradient**2).sum())
    return gradient * (most / norm) if norm > most else gradient


@pytest.mark.parametrize("shape", [(), (3,), (1, 4), (4, 1), (5, 3), (3, 2, 4), (2, 3, 2, 2)])
@pytest.mark.parametrize(("clip_factor", "eps"), [(0.01, 1e-3), (0.5, 1.0), (10.0, 1e-3)])
def test_agc_equals_the_formula(
    rng: np.random.Generator, shape: tuple[int, ...], clip_factor: float, eps: float
) -> None:
    weight = rng.normal(size=shape) * rng.choice([0.0, 0.1, 1.0], size=shape)
    gradient = rng.normal(size=shape) * rng.choice([0.0, 1.0, 30.0], size=shape)
    parameter = leaf(weight, gradient)
    rnn.clip_grad_agc_([parameter], clip_factor, eps=eps)
    np.testing.assert_allclose(
        gradient_of(parameter), agc(weight, gradient, clip_factor, eps), rtol=1e-14
    )


def test_agc_leaves_rows_below_the_limit_bit_for_bit() -> None:
    gradient = [[0.1, 0.2], [300.0, 400.0]]
    parameter = leaf([[30.0, 40.0], [30.0, 40.0]], gradient)
    rnn.clip_grad_agc_([parameter], 0.01)
    assert gradient_of(parameter)[0].tolist() == gradient[0]
    np.testing.assert_allclose(gradient_of(parameter)[1], [0.3, 0.4], rtol=1e-15)


@pytest.mark.parametrize("exclude", [list, iter, tuple])
def test_agc_leaves_alone_what_is_excluded(exclude: Callable[[Any], Any]) -> None:
    body, head = leaf([1.0, 0.0], [3.0, 4.0]), leaf([1.0, 0.0], [3.0, 4.0])
    rnn.clip_grad_agc_([body, head], 0.5, exclude=exclude([head]))
    np.testing.assert_allclose(gradient_of(body), [0.3, 0.4], rtol=1e-15)
    assert gradient_of(head).tolist() == [3.0, 4.0]


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("float16", 6e4), ("float32", 3e38), ("float64", 1.7e308), ("float64", 1e-300)],
)
def test_agc_squares_do_not_leave_the_range(dtype: str, value: float) -> None:
    parameter = leaf([[3.0, 4.0]], [[value, -value]], dtype)
    rnn.clip_grad_agc_([parameter], 0.5)
    clipped = min(2.5 / 2.0**0.5, value)
    rounding = max(2e-6, float(np.finfo(dtype).eps))
    np.testing.assert_allclose(gradient_of(parameter), [[clipped, -clipped]], rtol=rounding)


def test_agc_of_gradients_without_elements() -> None:
    empty, rows = leaf(np.zeros((0, 3)), np.zeros((0, 3))), leaf(np.zeros((2, 0)), np.zeros((2, 0)))
    rnn.clip_grad_agc_([empty, rows])
    assert gradient_of(empty).shape == (0, 3)
    assert gradient_of(rows).shape == (2, 0)


@pytest.mark.parametrize("value", [0.0, -1.0, nan])
def test_agc_settings_that_make_no_sense_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match=f"clip_factor is more than 0, not {value}"):
        rnn.clip_grad_agc_([leaf([1.0], [1.0])], value)
    with pytest.raises(ValueError, match=f"eps is more than 0, not {value}"):
        rnn.clip_grad_agc_([leaf([1.0], [1.0])], eps=value)


# --------------------------------------------------------------------------------------
# What learns from earlier norms
# --------------------------------------------------------------------------------------


def spiky(rng: np.random.Generator, steps: int) -> np.ndarray:
    """Gradients (steps, 3) whose norms drift, with a spike now and then, and a zero."""
    gradients = rng.normal(size=(steps, 3)) * np.exp(-np.arange(steps) / steps)[:, None]
    gradients[steps // 2 :: 7] *= 200.0
    gradients[steps // 3] = 0.0
    return gradients


def clipped_by(clip: rnn.NormClipper, gradients: np.ndarray) -> np.ndarray:
    """What the clipper makes of the gradients, each of which lies in two parameters."""
    after = []
    for gradient in gradients:
        parameters = [leaf(0.0, gradient[0]), leaf([0.0, 0.0], gradient[1:])]
        norm = clip(parameters)
        np.testing.assert_allclose(
            norm.item(), np.linalg.norm(gradient, clip.norm_type), rtol=1e-14
        )
        assert not norm.requires_grad
        after.append([*np.atleast_1d(gradient_of(parameters[0])), *gradient_of(parameters[1])])
    return np.array(after)


def autoclip(
    gradients: np.ndarray, percentile: float, window: int | None = None, p: float = 2.0
) -> np.ndarray:
    history: list[float] = []
    after = []
    for gradient in gradients:
        norm = float(np.linalg.norm(gradient, p))
        history.append(norm)
        limit = np.percentile(history[-window:] if window else history, percentile)
        after.append(gradient * (limit / norm) if norm > limit else gradient)
    return np.array(after)


def zclip(
    gradients: np.ndarray, z: float, alpha: float, warmup: int, max_norm: float = inf
) -> np.ndarray:
    """Algorithm 1 of the paper, with z-scores, and standard deviations."""
    first: list[float] = []
    mean = deviation = nan
    after = []
    for gradient in gradients:
        norm = limit = float(np.linalg.norm(gradient))
        if len(first) < warmup:
            first.append(norm)
            mean, deviation = float(np.mean(first)), float(np.std(first))
        else:
            score = (norm - mean) / deviation
            if score > z:
                limit = mean + z**2 / score * deviation
            mean = alpha * mean + (1.0 - alpha) * limit
            deviation = np.sqrt(alpha * deviation**2 + (1.0 - alpha) * (limit - mean) ** 2)
        limit = min(limit, max_norm)
        after.append(gradient * (limit / norm) if norm > limit else gradient)
    return np.array(after)


@pytest.mark.parametrize("percentile", [0.0, 10.0, 33.3, 50.0, 99.0, 100.0])
def test_autoclip_equals_the_formula(rng: np.random.Generator, percentile: float) -> None:
    gradients = spiky(rng, 60)
    np.testing.assert_allclose(
        clipped_by(rnn.AutoClip(percentile), gradients), autoclip(gradients, percentile), rtol=1e-12
    )


@pytest.mark.parametrize("window", [1, 5, None])
@pytest.mark.parametrize("p", [1.0, inf])
def test_autoclip_of_a_window_and_of_other_norms(
    rng: np.random.Generator, window: int | None, p: float
) -> None:
    gradients = spiky(rng, 30)
    clip = rnn.AutoClip(25.0, window=window, norm_type=p)
    np.testing.assert_allclose(
        clipped_by(clip, gradients), autoclip(gradients, 25.0, window, p), rtol=1e-12
    )
    assert clip.norms.size == (window or 30)


@given(
    norms=st.lists(st.floats(0.0, 1e6), min_size=1, max_size=12), percentile=st.floats(0.0, 100.0)
)
def test_autoclips_limit_is_numpys_percentile(norms: list[float], percentile: float) -> None:
    clip = rnn.AutoClip(percentile)
    for norm in norms:
        limit = clip.limit(mg.tensor(norm, "float64"))
    np.testing.assert_allclose(
        limit.item(), np.percentile(norms, percentile), rtol=1e-12, atol=1e-300
    )


@pytest.mark.parametrize(("z", "alpha", "warmup"), [(2.5, 0.97, 25), (1.0, 0.5, 2), (3.0, 0.2, 4)])
@pytest.mark.parametrize("max_norm", [inf, 1.0])
def test_zclip_equals_the_formula(
    rng: np.random.Generator, z: float, alpha: float, warmup: int, max_norm: float
) -> None:
    gradients = spiky(rng, 60)
    clip = rnn.ZClip(z, alpha=alpha, warmup=warmup, max_norm=max_norm)
    expected = zclip(gradients, z, alpha, warmup, max_norm)
    np.testing.assert_allclose(clipped_by(clip, gradients), expected, rtol=1e-10)
    clipped = np.abs(expected - gradients).max(axis=1) > 0.0
    assert clipped.any()
    assert not clipped.all()


def test_zclip_brings_larger_spikes_further_down() -> None:
    state = {"norms": [1.0, 3.0], "mean": 2.0, "variance": 1.0}
    after = []
    for norm in (4.0, 5.0, 6.0, 12.0, 1e6):
        clip = rnn.ZClip(2.0, warmup=2)
        clip.load_state_dict(state)
        parameter = leaf(0.0, norm)
        clip([parameter])
        after.append(gradient_of(parameter).item())
    np.testing.assert_allclose(after, [4.0, 2 + 4 / 3, 3.0, 2.4, 2.000004], rtol=1e-9)


CLIPPERS: list[Callable[..., rnn.AutoClip | rnn.ZClip]] = [
    lambda **s: rnn.AutoClip(30.0, **s),
    lambda **s: rnn.AutoClip(30.0, window=4, **s),
    lambda **s: rnn.ZClip(1.5, warmup=6, **s),
]
every_clipper = pytest.mark.parametrize("make", CLIPPERS)


@every_clipper
@pytest.mark.parametrize("stop", [0, 3, 6, 20])
def test_a_state_continues_where_it_was_taken(
    rng: np.random.Generator, make: Callable[..., Any], stop: int
) -> None:
    gradients = spiky(rng, 40)
    whole, first, second = make(), make(), make()
    expected = clipped_by(whole, gradients)
    before = clipped_by(first, gradients[:stop])
    state = {name: value.numpy() for name, value in first.state_dict().items()}
    clipped_by(first, gradients[:5])  # what was taken does not change any more
    second.load_state_dict(state)
    after = clipped_by(second, gradients[stop:])
    np.testing.assert_array_equal(np.concatenate([before.reshape(-1, 3), after]), expected)
    for name, value in whole.state_dict().items():
        np.testing.assert_array_equal(second.state_dict()[name].numpy(), value.numpy())


@every_clipper
@pytest.mark.parametrize("value", [nan, inf])
@pytest.mark.parametrize("at", [2, 12])
def test_one_step_that_is_not_finite_does_not_spoil_the_history(
    rng: np.random.Generator, make: Callable[..., Any], value: float, at: int
) -> None:
    gradients = spiky(rng, 40)[:20]
    clip = make()
    clipped_by(clip, gradients[:at])
    clip([leaf([0.0], [value])])
    after = clipped_by(clip, gradients[at:])
    assert np.isfinite(after).all()
    assert (after != gradients[at:]).any()


@every_clipper
@pytest.mark.parametrize("value", [nan, -inf])
@pytest.mark.parametrize("at", [2, 12])
def test_a_step_that_is_skipped_is_no_part_of_the_history(
    rng: np.random.Generator, make: Callable[..., Any], value: float, at: int
) -> None:
    gradients = spiky(rng, 20)
    clip, undisturbed = make(nonfinite="skip"), make()
    clipped_by(clip, gradients[:at])
    clip([leaf([0.0], [value])])
    np.testing.assert_array_equal(
        np.concatenate([clipped_by(clip, gradients[at:])]),
        clipped_by(undisturbed, gradients)[at:],
    )


def test_a_rule_of_your_own_is_a_limit() -> None:
    class Twice(rnn.NormClipper):
        last: Tensor | float = inf

        def limit(self, norm: Tensor) -> Tensor | float:
            limit, self.last = self.last, norm * 2.0
            return limit

    clip, gradients = Twice(), np.array([[3.0, 0.0, 4.0], [30.0, 0.0, 40.0]])
    np.testing.assert_allclose(
        clipped_by(clip, gradients), [[3.0, 0.0, 4.0], [6.0, 0.0, 8.0]], rtol=1e-15
    )
    with pytest.raises(NotImplementedError, match="NormClipper needs a method limit"):
        rnn.NormClipper()([leaf([0.0], [1.0])])


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (rnn.AutoClip, {"percentile": -1.0}, "percentile is from 0 to 100, not -1.0"),
        (rnn.AutoClip, {"percentile": nan}, "percentile is from 0 to 100, not nan"),
        (rnn.AutoClip, {"window": 0}, "window is at least 1 norm, or None for all, not 0"),
        (rnn.AutoClip, {"norm_type": 0.5}, "norm_type is at least 1, not 0.5"),
        (rnn.ZClip, {"norm_type": nan}, "norm_type is at least 1, not nan"),
        (rnn.ZClip, {"nonfinite": "no"}, "nonfinite is 'propagate'"),
        (rnn.ZClip, {"z": 0.0}, "z is more than 0, not 0.0"),
        (rnn.ZClip, {"max_norm": -1.0}, "max_norm is more than 0, not -1.0"),
        (rnn.ZClip, {"alpha": 1.0}, "alpha is between 0 and 1, not 1.0"),
        (rnn.ZClip, {"alpha": 0.0}, "alpha is between 0 and 1, not 0.0"),
        (rnn.ZClip, {"warmup": 1}, "warmup is at least 2 steps, which have a variance, not 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    make: Any, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(**settings)


@pytest.mark.parametrize(
    ("make", "state", "message"),
    [
        (rnn.AutoClip, {}, r"the AutoClip, which has norms \(steps,\): it has nothing"),
        (rnn.AutoClip, {"norms": 1.0}, r"it has norms \(\)"),
        (rnn.AutoClip, rnn.ZClip().state_dict(), r"it has norms \(0,\), mean \(\), variance \(\)"),
        (rnn.ZClip, rnn.AutoClip().state_dict(), r"norms \(steps,\), mean \(\), variance \(\)"),
        (
            rnn.ZClip,
            {"norms": np.ones(26), "mean": 1.0, "variance": 0.0},
            "a warm-up of 26 steps or more, and this ZClip has warmup=25",
        ),
    ],
)
def test_a_state_that_does_not_fit_is_refused(make: Any, state: Any, message: str) -> None:
    clip = make()
    before = clip.state_dict()
    with pytest.raises(ValueError, match=message):
        clip.load_state_dict(state)
    assert clip.state_dict() == before
