"""Decoding: drawing from a model's predictions, and searching for its likeliest sequences."""

from __future__ import annotations

from itertools import product
from math import inf, nan
from typing import Any, NamedTuple

import numpy as np
import pytest

import minigrad as mg
import minigrad_rnn as rnn
from minigrad import Tensor, nn

LOGITS = [0.3, -1.0, 2.0, 0.0, 1.0]

# --------------------------------------------------------------------------------------
# Sampling
# --------------------------------------------------------------------------------------


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


def support(probabilities: list[float], **settings: Any) -> set[int]:
    """Which classes are drawn, with every kept one likely to be among 4000 draws."""
    logits = mg.log(mg.tensor([probabilities] * 4000))
    return set(rnn.sample(logits, rng=5, **settings).tolist())


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"top_k": 1}, {2}),
        ({"top_k": 2}, {2, 4}),
        ({"top_k": 3}, {1, 2, 4}),
        ({"top_k": 5}, {0, 1, 2, 3, 4}),
        ({"top_k": 99}, {0, 1, 2, 3, 4}),
        ({"top_k": None}, {0, 1, 2, 3, 4}),
        ({"top_p": 1e-9}, {2}),
        ({"top_p": 0.39}, {2}),
        ({"top_p": 0.41}, {2, 4}),
        ({"top_p": 0.69}, {2, 4}),
        ({"top_p": 0.71}, {1, 2, 4}),
        ({"top_p": 0.94}, {0, 1, 2, 4}),
        ({"top_p": 0.96}, {0, 1, 2, 3, 4}),
        ({"top_p": 1.0}, {0, 1, 2, 3, 4}),
        # 0.4 is 4/7 of what top_k leaves.
        ({"top_k": 2, "top_p": 0.57}, {2}),
        ({"top_k": 2, "top_p": 0.58}, {2, 4}),
        # The square roots have shares 0.30 and 0.26: hotter means a larger nucleus.
        ({"temperature": 2.0, "top_p": 0.39}, {2, 4}),
        ({"temperature": 0.0, "top_k": 3, "top_p": 0.9}, {2}),
    ],
)
def test_what_is_kept_is_drawn_and_nothing_else(settings: dict[str, Any], kept: set[int]) -> None:
    assert support([0.1, 0.15, 0.4, 0.05, 0.3], **settings) == kept


def test_of_equally_likely_classes_the_first_are_kept() -> None:
    equal = [0.1, 0.3, 0.3, 0.3]
    assert support(equal, top_k=1) == {1}
    assert support(equal, top_k=2) == {1, 2}
    assert support(equal, top_p=0.5) == {1, 2}


@pytest.mark.parametrize("settings", [{"top_k": 3}, {"top_p": 0.8}, {"top_k": 4, "top_p": 0.88}])
def test_what_is_kept_is_drawn_in_proportion(settings: dict[str, Any]) -> None:
    draws = 20_000
    weights = np.array([0.1, 0.15, 0.4, 0.05, 0.3])
    drawn = rnn.sample(mg.tensor(np.log(np.tile(weights, (draws, 1)))), rng=7, **settings)
    counts = np.bincount(drawn, minlength=5)
    kept = [1, 2, 4]
    assert counts[kept].sum() == draws
    expected = draws * weights[kept] / weights[kept].sum()
    # Chi-square with two degrees of freedom is above 13.8 once in a thousand times.
    assert np.sum((counts[kept] - expected) ** 2 / expected) < 13.8


def test_every_row_has_a_nucleus_of_its_own() -> None:
    rows = np.log([[0.9, 0.05, 0.05], [0.05, 0.9, 0.05]])
    logits = mg.tensor(np.tile(rows[:, None], (1, 200, 1)))
    drawn = rnn.sample(logits, top_p=0.8, rng=0)
    assert (drawn == [[0], [1]]).all()


@pytest.mark.parametrize("settings", [{"top_k": 4}, {"top_p": 1.0}, {"top_k": None}])
def test_to_keep_all_draws_what_is_drawn_without(settings: dict[str, Any]) -> None:
    logits = mg.tensor(np.random.default_rng(0).normal(size=(500, 4)))
    np.testing.assert_array_equal(
        rnn.sample(logits, 0.7, rng=1, **settings), rnn.sample(logits, 0.7, rng=1)
    )


def test_a_class_that_is_ruled_out_is_not_kept() -> None:
    logits = mg.tensor([[-inf, 0.0, -inf, -1.0]] * 200)
    assert set(rnn.sample(logits, top_k=3, rng=0).tolist()) == {1, 3}
    assert set(rnn.sample(logits, top_p=0.9999, rng=0).tolist()) == {1, 3}


def test_what_cannot_be_kept_is_refused() -> None:
    logits = mg.tensor([[0.0, 1.0]])
    with pytest.raises(ValueError, match="top_k keeps at least 1 class, not 0"):
        rnn.sample(logits, top_k=0)
    for top_p in (0.0, 1.1, nan):
        with pytest.raises(ValueError, match=f"share of the probability in .0, 1., not {top_p}"):
            rnn.sample(logits, top_p=top_p)


# --------------------------------------------------------------------------------------
# Beam search
# --------------------------------------------------------------------------------------

CLASSES, END = 4, 0


class Model(nn.Module):
    """A small random model whose predictions depend on everything before."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.embedding = nn.Embedding(CLASSES, 3, dtype="float64", rng=rng)
        self.cell = rnn.LSTMCell(3, 5, dtype="float64", rng=rng)
        self.cell.weight_hh.rebind(mg.tensor(2.0 * rng.normal(size=(20, 5))))
        self.weight = nn.Parameter(3.0 * rng.normal(size=(CLASSES, 5)))
        self.bias = nn.Parameter(rng.normal(size=CLASSES))
        self.calls: list[int] = []

    def forward(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        self.calls.append(tokens.size)
        h, state = self.cell(self.embedding(tokens), state)
        return mg.linear(h, self.weight, self.bias), state

    def log_probabilities(self, start: int, state: Any, tokens: tuple[int, ...]) -> Any:
        """Those of every class after these tokens, for a state of one row."""
        for token in (start, *tokens):
            logits, state = self(mg.tensor([token]), state)
        return mg.log_softmax(logits).numpy()[0]


class Found(NamedTuple):
    tokens: tuple[int, ...]
    log_probability: float
    score: float
    ended: bool


def penalty(length: int, alpha: float, kind: str) -> float:
    return ((5.0 + length) / 6.0) ** alpha if kind == "wu" else float(length) ** alpha


def ranked(found: list[Found]) -> list[Found]:
    return sorted(found, key=lambda each: (not each.ended, -each.score))


def all_sequences(
    model: Model, start: int, state: Any, length: int, alpha: float, kind: str
) -> list[Found]:
    """Every sequence that there is, best first."""
    found = []
    for size in range(1, length + 1):
        for tokens in product(range(CLASSES), repeat=size):
            ended = tokens[-1] == END
            if END in tokens[:-1] or not (ended or size == length):
                continue
            total = sum(
                model.log_probabilities(start, state, tokens[:i])[tokens[i]] for i in range(size)
            )
            found.append(Found(tokens, total, total / penalty(size, alpha, kind), ended))
    return ranked(found)


def plain_beam_search(
    model: Model, start: int, state: Any, width: int, length: int, alpha: float, kind: str
) -> list[Found]:
    """The definition, for one source, without stopping early."""
    found: list[Found] = []
    live: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    for size in range(1, length + 1):
        candidates = [
            (total + logs[token], (*tokens, token))
            for total, tokens in live
            for logs in [model.log_probabilities(start, state, tokens)]
            for token in range(CLASSES)
        ]
        best = sorted(candidates, key=lambda each: -each[0])[: width - len(found)]
        live = []
        for total, tokens in best:
            if tokens[-1] == END or size == length:
                score = total / penalty(size, alpha, kind)
                found.append(Found(tokens, total, score, tokens[-1] == END))
            else:
                live.append((total, tokens))
    return ranked(found)


def assert_found(own: list[rnn.Hypothesis], expected: list[Found]) -> None:
    assert [tuple(h.tokens) for h in own] == [each.tokens for each in expected]
    assert [h.ended for h in own] == [each.ended for each in expected]
    for name in ("score", "log_probability"):
        np.testing.assert_allclose(
            [getattr(h, name) for h in own], [getattr(each, name) for each in expected], rtol=1e-12
        )


def states(seed: int, sources: int) -> Any:
    rng = np.random.default_rng([seed, 1])
    return tuple(mg.tensor(rng.normal(size=(sources, 5))) for _ in "hc")


every_penalty = pytest.mark.parametrize(
    ("alpha", "kind"), [(0.0, "wu"), (0.6, "wu"), (1.0, "power"), (2.0, "wu")]
)


@every_penalty
@pytest.mark.parametrize("seed", range(3))
def test_a_beam_wide_enough_finds_the_best_of_all(seed: int, alpha: float, kind: Any) -> None:
    model, state = Model(seed), states(seed, 1)
    expected = all_sequences(model, 2, state, 4, alpha, kind)
    assert len(expected) == 1 + 3 + 9 + 27 * 4
    for n_best in (1, 20, len(expected)):
        [own] = rnn.beam_search(
            model,
            state,
            2,
            END,
            width=300,
            max_length=4,
            alpha=alpha,
            length_penalty=kind,
            n_best=n_best,
        )
        assert_found(own, expected[:n_best])


@every_penalty
@pytest.mark.parametrize("width", [1, 2, 3, 7])
def test_every_source_is_searched_as_by_itself(width: int, alpha: float, kind: Any) -> None:
    model, state = Model(4), states(4, 6)
    starts = [0, 1, 2, 3, 1, 2]
    for n_best in {1, width}:
        found = rnn.beam_search(
            model,
            state,
            starts,
            END,
            width=width,
            max_length=7,
            alpha=alpha,
            length_penalty=kind,
            n_best=n_best,
        )
        for i, own in enumerate(found):
            alone = tuple(part[i : i + 1] for part in state)
            expected = plain_beam_search(model, starts[i], alone, width, 7, alpha, kind)
            assert_found(own, expected[:n_best])


@pytest.mark.parametrize("alpha", [0.0, 1.0, 5.0])
def test_a_width_of_one_is_greedy(alpha: float) -> None:
    model, state = Model(6), states(6, 5)
    found = rnn.beam_search(model, state, [1] * 5, END, width=1, max_length=9, alpha=alpha)
    for i, [own] in enumerate(found):
        tokens: list[int] = []
        while len(tokens) < 9 and END not in tokens:
            alone = tuple(part[i : i + 1] for part in state)
            tokens.append(int(model.log_probabilities(1, alone, tuple(tokens)).argmax()))
        assert own.tokens.tolist() == tokens


def test_one_call_for_each_length_and_no_longer_than_needed() -> None:
    model = Model(7)
    rnn.beam_search(model, states(7, 3), [1, 2, 3], None, width=4, max_length=5)
    assert model.calls == [3, 12, 12, 12, 12]
    # The end is all but certain: nothing that goes on can still become the best.
    model.bias.rebind(mg.tensor([50.0, 0.0, 0.0, 0.0], dtype="float64"))
    model.calls.clear()
    found = rnn.beam_search(model, states(7, 3), [1, 2, 3], END, width=4, max_length=500)
    assert [own.tokens.tolist() for [own] in found] == [[END]] * 3
    assert model.calls == [3]


def test_it_does_not_stop_while_a_longer_one_may_win() -> None:
    # Token by token: the end at once has probability 0.5; 1 1 1 0 has 0.4.
    one, zero = [1e-9, 1.0, 1e-9], [1.0, 1e-9, 1e-9]
    table = mg.log(mg.tensor([[0.5, 0.4, 0.1], one, one, zero]))

    def step(tokens: Tensor, state: Any) -> Any:
        return table[state], state + 1

    def best(alpha: float, n_best: int = 1) -> list[list[int]]:
        [found] = rnn.beam_search(
            step,
            mg.tensor([0]),
            0,
            0,
            width=2,
            max_length=4,
            alpha=alpha,
            length_penalty="power",
            n_best=n_best,
        )
        return [hypothesis.tokens.tolist() for hypothesis in found]

    assert best(0.0) == [[0]]
    assert best(1.0) == [[1, 1, 1, 0]]
    assert best(0.0, 2) == [[0], [1, 1, 1, 0]]


def test_those_that_ended_come_before_those_that_were_cut_off() -> None:
    logits = mg.log(mg.tensor([[0.1, 0.9]]))

    def step(tokens: Tensor, state: Any) -> Any:
        return mg.tile(logits, (tokens.size, 1)), state

    [found] = rnn.beam_search(step, None, 1, 0, width=4, max_length=3, n_best=4)
    assert [(h.tokens.tolist(), h.ended) for h in found] == [
        ([0], True),
        ([1, 0], True),
        ([1, 1, 0], True),
        ([1, 1, 1], False),
    ]


def test_a_model_may_have_no_state() -> None:
    follows = mg.log(mg.tensor([[0.2, 0.8], [0.9, 0.1]]))

    def step(tokens: Tensor, state: Any) -> Any:
        return follows[tokens], state

    [[best]] = rnn.beam_search(step, None, 0, None, max_length=3)
    assert best.tokens.tolist() == [1, 0, 1]


def test_equal_ones_are_taken_in_order() -> None:
    def step(tokens: Tensor, state: Any) -> Any:
        return mg.tensor(np.zeros((tokens.size, 3))), state

    [found] = rnn.beam_search(step, None, 0, None, width=4, max_length=2, n_best=4)
    assert [h.tokens.tolist() for h in found] == [[0, 0], [0, 1], [0, 2], [1, 0]]


def test_a_class_that_is_ruled_out_is_in_no_hypothesis() -> None:
    def step(tokens: Tensor, state: Any) -> Any:
        return mg.tensor([[0.0, -inf, 1.0]] * tokens.size), state

    [found] = rnn.beam_search(step, None, 0, None, width=50, max_length=3, n_best=50)
    assert len(found) == 8
    assert all(1 not in hypothesis.tokens for hypothesis in found)


def test_logits_and_log_probabilities_are_the_same() -> None:
    model, state = Model(8), states(8, 2)

    def normalised(tokens: Tensor, state: Any) -> Any:
        logits, state = model(tokens, state)
        return mg.log_softmax(logits), state

    settings: dict[str, Any] = {"width": 3, "max_length": 6, "n_best": 3}
    for own, other in zip(
        rnn.beam_search(model, state, [1, 2], END, **settings),
        rnn.beam_search(normalised, state, [1, 2], END, **settings),
        strict=True,
    ):
        assert [h.tokens.tolist() for h in own] == [h.tokens.tolist() for h in other]
        np.testing.assert_allclose([h.score for h in own], [h.score for h in other], rtol=1e-12)


def test_any_state_moves_with_its_hypothesis_and_extras_are_kept() -> None:
    """Every part of the state says what was read so far, and so do the extras."""
    model, state = Model(9), states(9, 2)

    class History(NamedTuple):
        sum: Tensor
        last: Any
        nothing: None = None

    def step(tokens: Tensor, state: Any) -> Any:
        inner, [history, more] = state
        logits, inner = model(tokens, inner)
        new = History(history.sum + tokens, tokens.numpy())
        return (
            logits,
            (inner, [new, {"twice": more["twice"] + 2 * tokens}]),
            mg.stack([tokens, new.sum], 1),
        )

    zeros = mg.tensor([0, 0])
    given = (state, [History(zeros, np.zeros(2, int)), {"twice": zeros}])
    settings: dict[str, Any] = {"width": 4, "max_length": 6, "n_best": 4}
    for start, own, plain in zip(
        [1, 2],
        rnn.beam_search(step, given, [1, 2], END, **settings),
        rnn.beam_search(model, state, [1, 2], END, **settings),
        strict=True,
    ):
        for hypothesis, expected in zip(own, plain, strict=True):
            np.testing.assert_array_equal(hypothesis.tokens, expected.tokens)
            assert expected.extras is None
            read = [start, *hypothesis.tokens[:-1]]
            np.testing.assert_array_equal(hypothesis.extras, np.stack([read, np.cumsum(read)], 1))


def test_it_records_nothing_and_is_the_same_each_time() -> None:
    model, state = Model(10), states(10, 2)
    with mg.Tape() as tape:
        live = tuple(part * model.bias.sum() for part in state)
        before = len(tape)
        first = rnn.beam_search(model, live, [1, 2], END, width=3, max_length=6, n_best=3)
        assert len(tape) == before
    second = rnn.beam_search(model, live, [1, 2], END, width=3, max_length=6, n_best=3)
    assert repr(first) == repr(second)


def test_searches_that_make_no_sense_are_refused() -> None:
    def step(tokens: Tensor, state: Any) -> Any:
        return mg.tensor(np.zeros((tokens.size, 3))), state

    usual: dict[str, Any] = {
        "step": step,
        "state": None,
        "start": 0,
        "end": 1,
        "width": 2,
        "max_length": 3,
    }

    def search(**given: Any) -> None:
        rnn.beam_search(**{**usual, **given})

    for given, message in (
        ({"width": 0}, "width and max_length are at least 1, not 0 and 3"),
        ({"max_length": 0}, "width and max_length are at least 1, not 2 and 0"),
        ({"n_best": 3}, "n_best is from 1 to the width, 2, not 3"),
        ({"alpha": -1.0}, "alpha is at least 0, not -1.0"),
        ({"alpha": nan}, "alpha is at least 0, not nan"),
        ({"length_penalty": "gnmt"}, "length_penalty is 'wu' or 'power', not 'gnmt'"),
        ({"start": [[0]]}, r"one token for each source, \(sources,\), not \(1, 1\)"),
        ({"start": np.zeros(0, int)}, r"one token for each source, \(sources,\), not \(0,\)"),
        ({"end": 3}, "the end is one of the 3 classes, not 3"),
        ({"state": mg.tensor(np.zeros((2, 5)))}, r"1 rows on the first axis.*\(2, 5\)"),
        ({"state": [mg.tensor(0.0)]}, r"1 rows on the first axis.*\(\)"),
        ({"step": lambda tokens, state: (mg.tensor(np.zeros((5, 3))), state)}, r"not \(5, 3\)"),
        ({"step": lambda tokens, state: (*step(tokens, 0), mg.tensor([1, 2]))}, r"1 rows.*\(2,\)"),
        ({"step": lambda tokens, state: (mg.tensor([[0.0, nan]]), state)}, "contain NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            search(**given)
    with pytest.raises(TypeError, match="one token for each source, an integer, not float64"):
        search(start=0.5)
    with pytest.raises(TypeError, match=r"step returns \(logits, state\) or .* not a Tensor"):
        search(step=lambda tokens, state: mg.tensor([[0.0, 1.0]]))
