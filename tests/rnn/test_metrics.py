"""Metrics: worked examples, their properties, and the numbers of sacreBLEU."""

from __future__ import annotations

from math import exp, inf, log, nan, sqrt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad_rnn import metrics

pytestmark = pytest.mark.host

#: What a model may have written, and two translations to hold it against.
WRITTEN = [
    "The old ship left the harbour before the sun came up.",
    "She paid 1,250.50 euros for a well-made chair, and (sadly) lost it.",
    "nobody knows",
    'In 3-4 days the "long" winter & its storms were over; weren\'t they?',
]
FIRST = [
    "The old ship had left the harbour before sunrise.",
    "She paid 1,250.50 euros for a well-made chair and, sadly, lost it.",
    "Nobody knows why.",
    'After 3-4 days, the "long" winter and its storms were over, weren\'t they?',
]
SECOND = [
    "Before the sun came up, the old ship left port.",
    "For a well-made chair she spent 1,250.50 euros; (sadly) it was lost.",
    "No one knows.",
    "The long winter & its storms ended in 3-4 days, did they not?",
]


def cut(texts: list[str]) -> list[list[str]]:
    return [metrics.tokenize_13a(text) for text in texts]


# --------------------------------------------------------------------------------------
# BLEU
# --------------------------------------------------------------------------------------

# From Papineni et al., 2002: two candidates for one sentence, and three references.
CANDIDATE_1 = (
    "It is a guide to action which ensures that the military always obeys the commands of the party"
)
CANDIDATE_2 = "It is to insure the troops forever hearing the activity guidebook that party direct"
REFERENCES = [
    "It is a guide to action that ensures that the military will forever heed Party commands",
    "It is the guiding principle which guarantees the military forces always being under the "
    "command of the Party",
    "It is the practical guide for the army always to heed the directions of the party",
]


def papineni(candidate: str, order: int) -> float:
    references = [[text.lower().split()] for text in REFERENCES]
    return metrics.bleu([candidate.lower().split()], *references, order=order) / 100.0


def test_the_examples_of_papineni() -> None:
    # The precisions of the paper are 17/18 and 8/14 for words, 10/17 and 1/13 for pairs. The
    # references have 16, 18 and 16 words, the candidates 18 and 14.
    assert papineni(CANDIDATE_1, 1) == pytest.approx(17 / 18)
    assert papineni(CANDIDATE_1, 2) == pytest.approx(sqrt(17 / 18 * 10 / 17))
    brevity = exp(1 - 16 / 14)
    assert papineni(CANDIDATE_2, 1) == pytest.approx(brevity * 8 / 14)
    assert papineni(CANDIDATE_2, 2) == pytest.approx(brevity * sqrt(8 / 14 / 13))
    # "the" counts as often as in the reference that has most of it.
    the = ["the"] * 7
    cat = cut(["the cat is on the mat"]), cut(["there is a cat on the mat"])
    assert metrics.bleu([the], *cat, order=1) == pytest.approx(100 * 2 / 7)


def test_counts_are_added_up_before_they_are_divided() -> None:
    hypotheses, references = [list("ab"), list("cxyz")], [list("ab"), list("cdef")]
    assert metrics.bleu(hypotheses, references, order=1) == pytest.approx(100 * 3 / 6)
    assert metrics.bleu(hypotheses, references, order=2) == pytest.approx(100 * sqrt(3 / 6 / 4))


@pytest.mark.parametrize(
    ("lengths", "closest"), [((4,), 4), ((4, 2), 2), ((7, 5), 5), ((3, 9), 3), ((1, 5), 1)]
)
def test_the_brevity_penalty_takes_the_closest_length(
    lengths: tuple[int, ...], closest: int
) -> None:
    references = [[["a"] * length] for length in lengths]
    brevity = min(1.0, exp(1 - closest / 3))
    precision = min(3, max(lengths)) / 3
    own = metrics.bleu([["a"] * 3], *references, order=1)
    assert own == pytest.approx(100 * brevity * precision)


@pytest.mark.parametrize(
    ("smoothing", "precisions"),
    [
        ("none", [3 / 4, 1 / 3, 0.0, 0.0]),
        ("exp", [3 / 4, 1 / 3, 0.5 / 2, 0.25 / 1]),
        ("add-one", [3 / 4, 2 / 4, 1 / 3, 1 / 2]),
    ],
)
def test_smoothing(smoothing: Any, precisions: list[float]) -> None:
    own = metrics.bleu([list("abxd")], [list("abcd")], smoothing=smoothing)
    mean = 0.0 if 0.0 in precisions else exp(sum(map(log, precisions)) / 4)
    assert own == pytest.approx(100 * mean)


def test_a_perfect_and_a_hopeless_score() -> None:
    tokens = cut(FIRST)
    assert metrics.bleu(tokens, tokens) == pytest.approx(100.0)
    assert metrics.bleu(tokens, cut(SECOND), tokens) == pytest.approx(100.0)
    nothing = [["x"] * 9] * 4
    for smoothing in ("none", "exp", "add-one"):
        assert metrics.bleu(nothing, tokens, smoothing=smoothing) == 0.0
    assert metrics.bleu([[]] * 4, tokens) == 0.0
    # Too short for a pair of words.
    assert metrics.bleu([["a"]], [["a"]], order=2, smoothing="exp") == 0.0
    assert metrics.bleu([["a"]], [["a"]], order=2, smoothing="add-one") == pytest.approx(100.0)


def test_tokens_may_be_numbers() -> None:
    assert metrics.bleu([[1, 2, 3]], [[1, 2, 4]], order=1) == pytest.approx(100 * 2 / 3)


@pytest.mark.parametrize(
    ("smoothing", "order", "one", "both"),
    [
        ("none", 4, 48.010209738272444, 56.60096547492749),
        ("exp", 6, 29.879129567858914, 32.67118946675375),
        ("add-one", 4, 49.41134912891861, 57.712634394270864),
    ],
)
def test_the_scores_of_sacrebleu(smoothing: Any, order: int, one: float, both: float) -> None:
    """Those that sacreBLEU 2.6 gives these sentences, against one reference and both."""
    settings = {"order": order, "smoothing": smoothing}
    own = metrics.bleu(cut(WRITTEN), cut(FIRST), **settings)
    assert own == pytest.approx(one, rel=1e-12)
    own = metrics.bleu(cut(WRITTEN), cut(FIRST), cut(SECOND), **settings)
    assert own == pytest.approx(both, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", ""),
        ("  two   words ", "two words"),
        ("end.", "end ."),
        ("3.5 and 1,000, or .5", "3.5 and 1,000 , or . 5"),
        ("v1.x", "v1 . x"),
        ("well-known 3-4", "well-known 3 - 4"),
        ("don't (so) [x] a/b", "don't ( so ) [ x ] a / b"),
        ("&quot;R&amp;D&quot; &lt;i&gt;", '" R & D " < i >'),
        ("one\ntwo thr-\nee", "one two three"),
        ("¿Qué niño?", "¿Qué niño ?"),
    ],
)
def test_how_a_text_is_cut(text: str, tokens: str) -> None:
    assert metrics.tokenize_13a(text) == tokens.split()


# --------------------------------------------------------------------------------------
# chrF
# --------------------------------------------------------------------------------------


def test_chrf_by_hand() -> None:
    # abc and abd: 2 of 3 characters, 1 of 2 pairs, 0 of 1 triple, in both directions.
    mean = (2 / 3 + 1 / 2 + 0 / 1) / 3
    assert metrics.chrf(["a b c"], ["ab d"]) == pytest.approx(100 * mean)
    # ab and abcd: all of 2 and 1; 2 of 4 and 1 of 3. Longer n-grams are in one of them alone.
    recall = (2 / 4 + 1 / 3) / 2
    for beta in (1.0, 2.0, 3.0):
        expected = (1 + beta**2) * recall / (beta**2 + recall)
        assert metrics.chrf(["ab"], ["abcd"], beta=beta) == pytest.approx(100 * expected)


def test_a_perfect_and_a_hopeless_chrf() -> None:
    assert metrics.chrf(FIRST, FIRST) == pytest.approx(100.0)
    assert metrics.chrf(FIRST, SECOND, FIRST) == pytest.approx(100.0)
    assert metrics.chrf(["xyz"], ["abc"]) == 0.0
    assert metrics.chrf([""], ["abc"]) == 0.0


@pytest.mark.parametrize(
    ("order", "beta", "one", "both"),
    [
        (6, 2, 73.99164852289374, 74.39879280990067),
        (4, 1, 80.57503356367162, 80.57503356367162),
    ],
)
def test_the_chrf_of_sacrebleu(order: int, beta: float, one: float, both: float) -> None:
    settings: dict[str, Any] = {"order": order, "beta": beta}
    assert metrics.chrf(WRITTEN, FIRST, **settings) == pytest.approx(one, rel=1e-12)
    assert metrics.chrf(WRITTEN, FIRST, SECOND, **settings) == pytest.approx(both, rel=1e-12)


# --------------------------------------------------------------------------------------
# Properties of both, and the small ones
# --------------------------------------------------------------------------------------

texts = st.text("ab c", max_size=12)


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=4))
def test_scores_are_between_0_and_100(pairs: list[tuple[str, str]]) -> None:
    hypotheses, references = map(list, zip(*pairs, strict=True))
    tokens = [[text.split() for text in each] for each in (hypotheses, references)]
    for smoothing in ("none", "exp", "add-one"):
        own = metrics.bleu(*tokens, smoothing=smoothing)
        assert 0.0 <= own <= 100.0 + 1e-9
    assert 0.0 <= metrics.chrf(hypotheses, references) <= 100.0 + 1e-9
    twice = [2 * hypotheses, 2 * references]
    assert metrics.chrf(*twice) == pytest.approx(metrics.chrf(hypotheses, references))


def test_exact_match() -> None:
    assert metrics.exact_match([[1, 2], [3], []], [[1, 2], [4], []]) == pytest.approx(2 / 3)


def test_perplexity_and_bits() -> None:
    assert metrics.perplexity(log(17.0)) == pytest.approx(17.0)
    assert metrics.perplexity(1e4) == inf
    assert metrics.bits_per_character(log(8.0)) == pytest.approx(3.0)
    assert metrics.bits_per_character(log(8.0), 1.5) == pytest.approx(2.0)
    with pytest.raises(ValueError, match="a token has more than 0 characters, not 0"):
        metrics.bits_per_character(1.0, 0.0)


def test_what_cannot_be_compared_is_refused() -> None:
    for metric in (metrics.bleu, metrics.chrf, metrics.exact_match):
        with pytest.raises(ValueError, match="2 hypotheses need as many references, not 1"):
            metric(["a", "b"], ["a"])
        with pytest.raises(ValueError, match="there is nothing to compare"):
            metric([], [])
        with pytest.raises(TypeError, match="lists of texts, not one text"):
            metric("a", "a")
    with pytest.raises(ValueError, match="there is nothing to compare"):
        metrics.bleu([["a"]])
    with pytest.raises(TypeError, match="bleu compares lists of tokens, not 'a b': cut it"):
        metrics.bleu([["a", "b"]], ["a b"])
    with pytest.raises(TypeError, match="chrf compares strings, not list"):
        metrics.chrf([["a", "b"]], ["a b"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="the order is at least 1, not 0"):
        metrics.bleu([["a"]], [["a"]], order=0)
    with pytest.raises(ValueError, match="smoothing is 'none', 'exp' or 'add-one', not 'floor'"):
        metrics.bleu([["a"]], [["a"]], smoothing="floor")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="order is at least 1 and beta above 0, not 6 and 0"):
        metrics.chrf(["a"], ["a"], beta=0.0)


# --------------------------------------------------------------------------------------
# Forecasts
# --------------------------------------------------------------------------------------


def test_mean_absolute_error_is_of_the_targets_that_are_there() -> None:
    predictions = [[1.0, 2.0, 3.0], [0.0, 0.0, 5.0]]
    targets = [[2.0, nan, 6.0], [nan, nan, 5.0]]
    assert metrics.mean_absolute_error(predictions, targets) == pytest.approx(4 / 3)
    assert metrics.mean_absolute_error(predictions, targets, axis=1).tolist() == [2.0, 0.0]
    assert metrics.mean_absolute_error(1.0, [0.0, 3.0]) == 1.5
    with pytest.raises(ValueError, match="there is nothing to average"):
        metrics.mean_absolute_error(predictions, targets, axis=0)


def test_coverage_is_the_share_within_both_ends() -> None:
    targets = [0.0, 0.5, 1.0, 1.5, -0.1, nan]
    assert metrics.coverage(0.0, 1.0, targets) == pytest.approx(0.6)
    assert metrics.coverage([[0.0], [0.5]], 1.0, targets, axis=1).tolist() == [0.6, 0.4]
    with pytest.raises(ValueError, match="there is nothing to average"):
        metrics.coverage([0.0], [1.0], [nan])
