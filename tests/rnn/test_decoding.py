"""sample: draws from softmax(logits / temperature)."""

from __future__ import annotations

from math import inf, nan

import numpy as np
import pytest

import minigrad as mg
import minigrad_rnn as rnn

LOGITS = [0.3, -1.0, 2.0, 0.0, 1.0]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_classes_are_drawn_as_softmax_says(temperature: float, dtype: str) -> None:
    draws = 20_000
    logits = mg.tensor(np.tile(LOGITS, (draws, 1)), dtype=dtype)
    counts = np.bincount(rnn.sample(logits, temperature, rng=1), minlength=5)
    held = logits.numpy()[0].astype(np.float64)
    weights = np.exp(held / temperature)
    expected = draws * weights / weights.sum()
    # Chi-square with four degrees of freedom is above 18.5 once in a thousand times.
    assert np.sum((counts - expected) ** 2 / expected) < 18.5


@pytest.mark.parametrize("offset", [1e4, -1e4])
def test_large_logits_do_not_overflow(offset: float) -> None:
    logits = mg.tensor(np.tile(LOGITS, (1000, 1)))
    np.testing.assert_array_equal(rnn.sample(logits + offset, rng=2), rnn.sample(logits, rng=2))


@pytest.mark.parametrize("temperature", [0.0, 1e-6, 1e-300, 1e-308])
def test_with_temperature_zero_and_close_to_it_the_likeliest_is_taken(temperature: float) -> None:
    logits = mg.tensor([[20.0, 30.0, -5.0], [-1.0, -3.0, -2.0]], dtype="float64")
    assert rnn.sample(logits, temperature, rng=0).tolist() == [1, 0]


def test_a_class_of_probability_zero_is_never_drawn() -> None:
    logits = mg.tensor(np.tile([0.0, -inf, 0.0], (1000, 1)))
    for temperature in (0.0, 1.0, 1e6):
        assert 1 not in rnn.sample(logits, temperature, rng=0)


@pytest.mark.parametrize("shape", [(5,), (0, 5), (7, 5), (2, 3, 5)])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_one_class_per_row(shape: tuple[int, ...], temperature: float) -> None:
    drawn = rnn.sample(mg.tensor(np.zeros(shape)), temperature, rng=0)
    assert drawn.shape == shape[:-1]
    assert drawn.dtype == np.int64


def test_a_seed_or_generator_gives_the_same_draws() -> None:
    logits = mg.tensor(np.zeros((50, 10)))
    drawn = rnn.sample(logits, rng=3)
    np.testing.assert_array_equal(rnn.sample(logits, rng=3), drawn)
    generator = np.random.default_rng(3)
    np.testing.assert_array_equal(rnn.sample(logits, rng=generator), drawn)
    assert (rnn.sample(logits, rng=generator) != drawn).any()
    assert (rnn.sample(logits, rng=4) != drawn).any()


def test_sampling_records_nothing() -> None:
    w = mg.tensor(LOGITS, requires_grad=True)
    with mg.Tape() as tape:
        rnn.sample(w * 1.0, rng=0)
    assert len(tape) == 1


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("row", [[0.0, nan], [0.0, inf], [-inf, -inf]])
def test_nan_and_infinity_are_refused(row: list[float], temperature: float) -> None:
    with pytest.raises(ValueError, match="cannot sample from logits that contain NaN"):
        rnn.sample(mg.tensor([[0.0, 1.0], row]), temperature)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_class_that_is_ruled_out_is_never_drawn(temperature: float) -> None:
    drawn = rnn.sample(mg.tensor([[-inf, 0.0, -9.0]] * 50), temperature, rng=0)
    assert set(drawn.tolist()) == {1}


@pytest.mark.parametrize("temperature", [-1.0, -1e-9, nan])
def test_a_negative_temperature_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match=f"the temperature is at least 0, not {temperature}"):
        rnn.sample(mg.tensor([[0.0, 1.0]]), temperature)
