"""check_gradients finds every planted mistake, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from planted_mistakes import EXAMPLES, MISTAKES, Mistake

import minigrad as mg
import minigrad_rnn as rnn
from minigrad.testing import check_gradients
from minigrad_rnn.testing import check_truncated_bptt


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_planted_mistake_is_found(mistake: Mistake) -> None:
    assert mistake.found_at(mistake.caught) is not None, f"not within {EXAMPLES} examples"


def test_there_are_at_least_forty() -> None:
    assert len({mistake.name for mistake in MISTAKES}) == len(MISTAKES) >= 40


def test_the_right_operation_of_the_same_form_raises_no_alarm() -> None:
    # tests/engine/test_operations.py says this of the whole table; here it is said of what the
    # planted mistakes are made from.
    rng = np.random.default_rng(0)
    for number in range(EXAMPLES):
        x = rng.normal(size=(2, 3))
        check_gradients(lambda x: mg.exp(x) * mg.sin(x), x, seed=number)
        check_gradients(lambda x: mg.softmax(x), x, seed=number)
        check_gradients(lambda a, b: a @ b, x, x.T, seed=number)


@pytest.mark.parametrize("number", range(5))
def test_right_truncation_raises_no_alarm(number: int) -> None:
    rng = np.random.default_rng(number)
    cell = rnn.LSTMCell(2, 3, rng=rng)
    check_truncated_bptt(cell, None, rng.normal(size=(8, 2, 2)), k1=2, k2=3, seed=number)
