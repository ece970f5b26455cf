"""Metrics: how good a text or a forecast is, beside what was written or came to pass.

Scores of texts are those of a whole corpus: its counts are added up before anything is divided.
Metrics are computed on the host and have no gradient.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Sequence
from math import exp, inf, log
from typing import Any, Literal, get_args

import numpy
from numpy.typing import ArrayLike, NDArray

#: A text as its tokens: words, subword units, numbers.
Tokens = Sequence[Hashable]

#: What stands for the precision of an order of which no n-gram is found.
Smoothing = Literal["none", "exp", "add-one"]


def bleu(
    hypotheses: Sequence[Tokens],
    *references: Sequence[Tokens],
    order: int = 4,
    smoothing: Smoothing = "none",
) -> float:
    """BLEU, from 0 to 100: the geometric mean of n-gram precisions, times a brevity penalty.

        BLEU = 100 min(1, exp(1 - r / c)) (p_1 p_2 ... p_order)^(1 / order)

    p_n is the share of the n-grams of all hypotheses that are in a reference, each as often at
    most as in the reference that has most of them. c is the length of all hypotheses, and r that
    of the references closest to them in length (of two as close, the shorter).
    Papineni, Roukos, Ward and Zhu, BLEU: a method for automatic evaluation of machine
    translation, 2002.

    The score depends on how texts are cut into tokens. :func:`tokenize_13a` does it in the way
    of most published results.

    Args:
        hypotheses: one list of tokens for each sentence.
        references: what each of them should be, in as many lists of references as there are.
        order: the length of the longest n-grams.
        smoothing: ``"none"``: an order without a match makes the score 0. ``"exp"``: the first
            such order counts as 1/2 match, the second as 1/4, ..., as in sacreBLEU and NIST's
            mteval. ``"add-one"``: above n = 1, matches and n-grams count one more; Lin and Och,
            ORANGE: a method for evaluating automatic evaluation metrics, 2004.

    Raises ``ValueError`` if there are no hypotheses or references, or not one reference for each
    hypothesis, or a setting makes no sense; ``TypeError`` for a text that was not cut.

    >>> from minigrad_rnn import metrics
    >>> hypothesis = "the the the the the the the".split()
    >>> reference = "the cat is on the mat".split()
    >>> round(metrics.bleu([hypothesis], [reference], order=1), 2)
    28.57
    """
    _check_parallel(hypotheses, references)
    _check_tokens(hypotheses, *references)
    if order < 1:
        raise ValueError(f"the order is at least 1, not {order}")
    if smoothing not in get_args(Smoothing):
        raise ValueError(f"smoothing is 'none', 'exp' or 'add-one', not {smoothing!r}")
    matches, totals = [0] * order, [0] * order
    length = reference_length = 0
    for hypothesis, *known in zip(hypotheses, *references, strict=True):
        length += len(hypothesis)
        reference_length += min(
            (abs(len(reference) - len(hypothesis)), len(reference)) for reference in known
        )[1]
        for n in range(1, order + 1):
            grams = _ngrams(hypothesis, n)
            most: Counter[Any] = Counter()
            for reference in known:
                most |= _ngrams(reference, n)
            matches[n - 1] += (grams & most).total()
            totals[n - 1] += grams.total()
    if not any(matches):
        return 0.0
    precisions = _smoothed(matches, totals, smoothing)
    if 0.0 in precisions:
        return 0.0
    brevity = min(1.0, exp(1.0 - reference_length / length))
    return 100.0 * brevity * exp(sum(map(log, precisions)) / order)


def _smoothed(matches: list[int], totals: list[int], smoothing: Smoothing) -> list[float]:
    """The precision of every order; 0 for one longer than all hypotheses, if none is added."""
    precisions, share = [], 1.0
    for n, (found, total) in enumerate(zip(matches, totals, strict=True), start=1):
        added = smoothing == "add-one" and n > 1
        count = float(found + added)
        if not found and smoothing == "exp":
            count = share = share / 2.0
        precisions.append(count / (total + added) if total + added else 0.0)
    return precisions


def tokenize_13a(text: str) -> list[str]:
    """A text as words and punctuation marks, as NIST's mteval-v13a and sacreBLEU cut it.

    It is made for languages that put spaces between words. Full stops and commas stay inside
    numbers, and hyphens stay inside words unless a digit comes before.

    >>> from minigrad_rnn import metrics
    >>> metrics.tokenize_13a("In 1,000 well-known cases (2.5%), 3-4 fail.")
    ['In', '1,000', 'well-known', 'cases', '(', '2.5', '%', ')', ',', '3', '-', '4', 'fail', '.']
    """
    text = text.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, character in (("quot", '"'), ("amp", "&"), ("lt", "<"), ("gt", ">")):
        text = text.replace(f"&{entity};", character)
    text = re.sub(r"([{-~\[-`!-&(-+:-@/])", r" \1 ", f" {text} ")
    text = re.sub(r"([^0-9])([.,])", r"\1 \2 ", text)
    text = re.sub(r"([.,])([^0-9])", r" \1 \2", text)
    return re.sub(r"([0-9])(-)", r"\1 \2 ", text).split()


def chrf(
    hypotheses: Sequence[str],
    *references: Sequence[str],
    order: int = 6,
    beta: float = 2.0,
) -> float:
    """chrF, from 0 to 100: an F-score of the n-grams of characters, spaces left out.

        chrF = 100 (1 + beta^2) P R / (beta^2 P + R)

    P is the share of the n-grams of the hypotheses that are in the references, R that of
    the references' n-grams that are in the hypotheses, both averaged over n = 1 ... order (over
    those of which there are some in both). With several references, each sentence counts with the
    one that gives it the highest score. Popović, chrF: character n-gram F-score for automatic
    MT evaluation, 2015; the default is chrF2.

    Args:
        hypotheses: one text for each sentence.
        references: what each of them should be, in as many lists as there are.
        order: the length of the longest n-grams.
        beta: how many times as much recall counts as precision.

    Raises ``ValueError`` if there are no hypotheses or references, or not one reference for each
    hypothesis, or a setting makes no sense; ``TypeError`` if a text is not a string.

    >>> from minigrad_rnn import metrics
    >>> round(metrics.chrf(["the cat sat"], ["the cat sits"]), 2)
    61.03
    """
    _check_parallel(hypotheses, references)
    if order < 1 or not beta > 0.0:
        raise ValueError(f"order is at least 1 and beta above 0, not {order} and {beta}")
    for text in (text for texts in (hypotheses, *references) for text in texts):
        if not isinstance(text, str):
            raise TypeError(f"chrf compares strings, not {type(text).__name__}")
    # For every order: n-grams of the hypothesis, of the reference, and in both.
    totals = [(0, 0, 0)] * order
    for hypothesis, *known in zip(hypotheses, *references, strict=True):
        counts = [_chrf_counts(hypothesis, reference, order) for reference in known]
        best = max(counts, key=lambda each: _chrf_score(each, beta))
        totals = [(a + x, b + y, c + z) for (a, b, c), (x, y, z) in zip(totals, best, strict=True)]
    return 100.0 * _chrf_score(totals, beta)


def _chrf_counts(hypothesis: str, reference: str, order: int) -> list[tuple[int, int, int]]:
    written, wanted = "".join(hypothesis.split()), "".join(reference.split())
    counts = []
    for n in range(1, order + 1):
        own, other = _ngrams(written, n), _ngrams(wanted, n)
        # As in sacreBLEU, precision does not suffer where the reference is too short for n.
        counts.append((own.total() if other else 0, other.total(), (own & other).total()))
    return counts


def _chrf_score(counts: list[tuple[int, int, int]], beta: float) -> float:
    used = [each for each in counts if each[0] and each[1]]
    if not any(found for _, _, found in used):
        return 0.0
    precision = sum(found / written for written, _, found in used) / len(used)
    recall = sum(found / wanted for _, wanted, found in used) / len(used)
    return (1 + beta**2) * precision * recall / (beta**2 * precision + recall)


def exact_match(hypotheses: Sequence[Any], references: Sequence[Any]) -> float:
    """The share of hypotheses that equal their reference, from 0 to 1.

    Raises ``ValueError`` if there are none, or not one reference for each.

    >>> from minigrad_rnn import metrics
    >>> metrics.exact_match(["one", "two"], ["one", "ten"])
    0.5
    """
    _check_parallel(hypotheses, [references])
    pairs = zip(hypotheses, references, strict=True)
    return sum(1 for a, b in pairs if a == b) / len(hypotheses)


def edit_distance(a: Tokens, b: Tokens) -> int:
    """How many tokens must be inserted, deleted or replaced to turn a into b.

    Levenshtein, Binary codes capable of correcting deletions, insertions and reversals, 1966.

    >>> from minigrad_rnn import metrics
    >>> metrics.edit_distance("kitten", "sitting")
    3
    """
    # distances[j] is that of the tokens of a read so far from the first j of b.
    distances = list(range(len(b) + 1))
    for i, token in enumerate(a, start=1):
        diagonal, distances[0] = distances[0], i
        for j, other in enumerate(b, start=1):
            replaced = diagonal + (token != other)
            diagonal = distances[j]
            distances[j] = min(replaced, diagonal + 1, distances[j - 1] + 1)
    return distances[-1]


def error_rate(hypotheses: Sequence[Tokens], references: Sequence[Tokens]) -> float:
    """The edit distances of all hypotheses, divided by the length of all references.

    Of words it is the word error rate, of a string's characters the character error rate, and
    of labels the label error rate of Graves et al., 2006. It can be above 1.

    Raises ``ValueError`` if there are no hypotheses, or not one reference for each, or all of
    these are empty.

    >>> from minigrad_rnn import metrics
    >>> metrics.error_rate(["the cat sat".split()], ["a cat sat down".split()])
    0.5
    """
    _check_parallel(hypotheses, [references])
    length = sum(map(len, references))
    if not length:
        raise ValueError("all references are empty: there is nothing to divide by")
    return sum(map(edit_distance, hypotheses, references)) / length


def perplexity(loss: float) -> float:
    """exp(loss),  for the mean cross-entropy of a token in nats.

    It is the number of equally likely tokens that would be as hard to predict.

    >>> from minigrad_rnn import metrics
    >>> metrics.perplexity(0.0)
    1.0
    """
    try:
        return exp(loss)
    except OverflowError:
        return inf


def bits_per_character(loss: float, characters_per_token: float = 1.0) -> float:
    """loss / log(2) / characters_per_token,  for the mean cross-entropy of a token in nats.

    Unlike perplexity, it compares models that cut a text into different tokens.

    Raises ``ValueError`` if ``characters_per_token`` is not above 0.

    >>> from minigrad_rnn import metrics
    >>> metrics.bits_per_character(0.0, characters_per_token=3.5)
    0.0
    """
    if not characters_per_token > 0.0:
        raise ValueError(f"a token has more than 0 characters, not {characters_per_token}")
    return loss / log(2.0) / characters_per_token


def mean_absolute_error(
    predictions: ArrayLike, targets: ArrayLike, axis: int | None = None
) -> NDArray[Any]:
    """The mean of  |prediction - target|,  where there is a target, that is, not NaN.

    Args:
        predictions, targets: numbers, of shapes that broadcast.
        axis: what is averaged over; all axes by default.

    Raises ``ValueError`` if there is no target to average over, or the shapes do not fit.

    >>> from minigrad_rnn import metrics
    >>> float(metrics.mean_absolute_error([1.0, 2.0, 3.0], [1.0, 4.0, float("nan")]))
    1.0
    """
    wanted = numpy.asarray(targets, float)
    return _mean_of_known(numpy.abs(predictions - wanted), wanted, axis)


def coverage(
    lower: ArrayLike, upper: ArrayLike, targets: ArrayLike, axis: int | None = None
) -> NDArray[Any]:
    """The share of targets that lie in their interval, ends and all; NaN are no targets.

    Of an interval from the 10 % to the 90 % quantile it should be 0.8.

    Args:
        lower, upper, targets: numbers, of shapes that broadcast.
        axis: what is averaged over; all axes by default.

    Raises ``ValueError`` if there is no target to average over, or the shapes do not fit.

    >>> from minigrad_rnn import metrics
    >>> float(metrics.coverage([0.0, 0.0], [1.0, 1.0], [0.5, 2.0]))
    0.5
    """
    wanted = numpy.asarray(targets, float)
    return _mean_of_known((lower <= wanted) & (wanted <= upper), wanted, axis)


def _mean_of_known(values: NDArray[Any], targets: NDArray[Any], axis: int | None) -> NDArray[Any]:
    known = numpy.broadcast_to(~numpy.isnan(targets), values.shape)
    if not known.any(axis).all():
        raise ValueError("there is nothing to average: no targets, or all missing")
    return values.mean(axis, where=known)


def _ngrams(tokens: Sequence[Hashable], n: int) -> Counter[Any]:
    """How often the text has each run of n tokens."""
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


def _check_parallel(hypotheses: Sequence[Any], references: Sequence[Sequence[Any]]) -> None:
    if not hypotheses or not references:
        raise ValueError("there is nothing to compare: no hypotheses, or no references")
    for texts in (hypotheses, *references):
        if isinstance(texts, str):
            raise TypeError("hypotheses and references are lists of texts, not one text")
        if len(texts) != len(hypotheses):
            raise ValueError(
                f"{len(hypotheses)} hypotheses need as many references, not {len(texts)}"
            )


def _check_tokens(*corpora: Sequence[Tokens]) -> None:
    for text in (text for corpus in corpora for text in corpus):
        if isinstance(text, str):
            raise TypeError(
                f"bleu compares lists of tokens, not {text!r}: cut it with tokenize_13a or split"
            )
