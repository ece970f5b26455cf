"""Connectionist temporal classification: against all alignments, differences, and PyTorch."""

from __future__ import annotations

from itertools import groupby, product
from math import inf, log, nan
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import minigrad as mg
import minigrad_rnn as rnn

Labels = tuple[int, ...]


def read(alignment: Labels, blank: int) -> Labels:
    return tuple(label for label, _ in groupby(alignment) if label != blank)


def by_labelling(
    log_probs: NDArray[Any], blank: int
) -> dict[Labels, list[tuple[Labels, np.float64]]]:
    """All alignments of one sequence, and their probabilities, by what they read as."""
    found: dict[Labels, list[tuple[Labels, np.float64]]] = {}
    steps, classes = log_probs.shape
    for alignment in product(range(classes), repeat=steps):
        total = np.exp(sum(log_probs[t, c] for t, c in enumerate(alignment)))
        found.setdefault(read(alignment, blank), []).append((alignment, total))
    return found


class Batch(NamedTuple):
    log_probs: NDArray[Any]
    targets: NDArray[Any]
    input_lengths: list[int]
    target_lengths: list[int]
    blank: int

    def loss(self, log_probs: Any = None, **settings: Any) -> Any:
        given = self.log_probs if log_probs is None else log_probs
        return rnn.ctc_loss(given, *self[1:], **settings)

    def sequence(self, i: int) -> tuple[NDArray[Any], Labels]:
        labels = self.targets[i, : self.target_lengths[i]].tolist()
        return self.log_probs[: self.input_lengths[i], i], tuple(labels)


@st.composite
def batches(draw: st.DrawFn, possible: bool = False) -> Batch:
    """Small batches, whose log-probabilities need not add up to anything."""
    time, batch = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    classes = draw(st.integers(2, 4))
    blank = draw(st.integers(0, classes - 1))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    labels = [c for c in range(classes) if c != blank]
    targets = rng.choice(labels, (batch, 3))
    input_lengths = rng.integers(1 if possible else 0, time + 1, batch).tolist()
    target_lengths = rng.integers(0, 4, batch).tolist()
    if possible:
        for i, steps in enumerate(input_lengths):
            row = targets[i]
            while target_lengths[i] + (np.diff(row[: target_lengths[i]]) == 0).sum() > steps:
                target_lengths[i] -= 1
    return Batch(
        rng.standard_normal((time, batch, classes)), targets, input_lengths, target_lengths, blank
    )


# --------------------------------------------------------------------------------------
# The loss
# --------------------------------------------------------------------------------------


@given(batches())
def test_the_loss_sums_over_all_alignments(batch: Batch) -> None:
    losses = batch.loss(reduction="none").numpy()
    for i, loss in enumerate(losses):
        steps, labels = batch.sequence(i)
        total = sum(p for _, p in by_labelling(steps, batch.blank).get(labels, []))
        np.testing.assert_allclose(loss, -np.log(total) if total else inf, rtol=1e-12, atol=1e-12)


@given(batches(possible=True))
def test_the_gradient_is_the_share_of_alignments_through_a_class(batch: Batch) -> None:
    with mg.Tape() as tape:
        log_probs = mg.tensor(batch.log_probs, requires_grad=True)
        loss = batch.loss(log_probs, reduction="sum")
    gradient = tape.gradient(loss, log_probs).numpy()
    for i in range(len(batch.targets)):
        steps, labels = batch.sequence(i)
        expected = np.zeros_like(batch.log_probs[:, i])
        alignments = by_labelling(steps, batch.blank)[labels]
        for alignment, probability in alignments:
            expected[range(len(alignment)), alignment] -= probability
        expected /= sum(p for _, p in alignments)
        np.testing.assert_allclose(gradient[:, i], expected, rtol=1e-12, atol=1e-12)


@given(batches(possible=True), st.sampled_from(["mean", "sum", "none"]))
def test_gradients_to_the_second_order_agree_with_differences(batch: Batch, reduction: str) -> None:
    mg.testing.check_gradients(
        lambda x: batch.loss(x, reduction=reduction), batch.log_probs, order=2
    )


def test_gradients_through_log_softmax_and_of_the_third_order(rng: np.random.Generator) -> None:
    logits = rng.standard_normal((5, 2, 3))
    mg.testing.check_gradients(
        lambda x: rnn.ctc_loss(mg.log_softmax(x), [[1, 1], [2, 0]], [5, 3], [2, 1]), logits, order=3
    )


@given(batches(), st.sampled_from(["mean", "sum", "none"]), st.booleans(), st.booleans())
@settings(max_examples=60)
def test_pytorch_agrees(batch: Batch, reduction: Any, zero_infinity: bool, in_a_row: bool) -> None:
    torch = pytest.importorskip("torch")
    targets = batch.targets
    if in_a_row:
        targets = np.concatenate([batch.sequence(i)[1] for i in range(len(targets))])
        targets = targets.astype(int)
    theirs = torch.tensor(batch.log_probs, requires_grad=True)
    expected = torch.nn.functional.ctc_loss(
        torch.log_softmax(theirs, -1),
        torch.tensor(targets),
        torch.tensor(batch.input_lengths),
        torch.tensor(batch.target_lengths),
        batch.blank,
        reduction,
        zero_infinity,
    )
    weights = np.arange(1.0, 1.0 + expected.numel())
    (expected * torch.tensor(weights).reshape(expected.shape)).sum().backward()
    with mg.Tape() as tape:
        logits = mg.tensor(batch.log_probs, requires_grad=True)
        found = rnn.ctc_loss(
            mg.log_softmax(logits), targets, *batch[2:], reduction, zero_infinity=zero_infinity
        )
        loss = mg.sum(found * mg.tensor(weights.reshape(found.shape)))
    np.testing.assert_allclose(found.numpy(), expected.detach().numpy(), rtol=1e-10, atol=1e-10)
    gradient, reference = tape.gradient(loss, logits).numpy(), theirs.grad.numpy()
    impossible = np.isnan(gradient)
    np.testing.assert_allclose(
        gradient[~impossible], reference[~impossible], rtol=1e-10, atol=1e-10
    )
    assert np.isnan(reference[impossible]).all()


@given(batches(possible=True), st.sampled_from([nan, inf, -inf]))
def test_steps_after_the_end_have_no_influence_and_gradient_0(batch: Batch, junk: float) -> None:
    changed = batch.log_probs.copy()
    for i, steps in enumerate(batch.input_lengths):
        changed[steps:, i] = junk
    results = []
    for values in (batch.log_probs, changed):
        with mg.Tape() as tape:
            log_probs = mg.tensor(values, requires_grad=True)
            loss = batch.loss(log_probs)
        results.append((loss.item(), tape.gradient(loss, log_probs).numpy()))
    (loss, gradient), (other_loss, other_gradient) = results
    assert loss == other_loss
    np.testing.assert_array_equal(gradient, other_gradient)
    for i, steps in enumerate(batch.input_lengths):
        assert not gradient[steps:, i].any()


@given(batches())
def test_sequences_of_a_batch_do_not_influence_each_other(batch: Batch) -> None:
    together = batch.loss(reduction="none").numpy()
    for i, loss in enumerate(together):
        steps, labels = batch.sequence(i)
        if len(steps):
            alone = rnn.ctc_loss(
                steps[:, None], [labels], [len(steps)], [len(labels)], batch.blank, "sum"
            )
            np.testing.assert_allclose(alone.item(), loss, rtol=1e-14)


def test_a_sequence_that_no_alignment_fits() -> None:
    logits = np.zeros((3, 3, 3))
    targets = [[1, 1, 2], [1, 2, 1], [1, 1, 1]]
    for zero_infinity, lost, undefined in ((False, inf, nan), (True, 0.0, 0.0)):
        with mg.Tape() as tape:
            x = mg.tensor(logits, requires_grad=True)
            losses = rnn.ctc_loss(
                mg.log_softmax(x), targets, [3, 3, 2], [3, 3, 2], 0, "none", zero_infinity
            )
            loss = losses.sum()
        np.testing.assert_allclose(losses.numpy(), [lost, 3 * log(3.0), lost])
        gradient = tape.gradient(loss, x).numpy()
        assert np.isfinite(gradient[:, 1]).all()
        for impossible in (gradient[:, 0], gradient[:2, 2]):
            np.testing.assert_array_equal(impossible, np.full_like(impossible, undefined))
        assert not gradient[2:, 2].any()


def test_a_class_that_is_ruled_out() -> None:
    logits = np.array([[[0.5, 1.0, -inf]], [[0.1, -inf, 0.3]], [[0.4, 0.2, 0.7]]])
    with mg.Tape() as tape:
        log_probs = mg.tensor(logits, requires_grad=True)
        loss = rnn.ctc_loss(log_probs, [[1, 2]], [3], [2], reduction="sum")
    total = sum(p for _, p in by_labelling(logits[:, 0], 0)[1, 2])
    np.testing.assert_allclose(loss.item(), -np.log(total))
    gradient = tape.gradient(loss, log_probs).numpy()
    np.testing.assert_allclose(gradient.sum(-1), -1.0)
    assert not gradient[np.isinf(logits)].any()
    assert rnn.ctc_loss(log_probs, [[2]], [1], [1]).item() == inf  # by way of -inf alone


def test_nan_stays_in_its_sequence() -> None:
    logits = np.zeros((3, 2, 3))
    logits[1, 0] = nan
    with mg.Tape() as tape:
        log_probs = mg.tensor(logits, requires_grad=True)
        with np.errstate(invalid="ignore"):
            losses = rnn.ctc_loss(log_probs, [[1], [1]], [3, 3], [1, 1], reduction="none")
            loss = losses.sum()
            gradient = tape.gradient(loss, log_probs)
    assert np.isnan(losses.numpy()).tolist() == [True, False]
    assert np.isnan(gradient.numpy()[:, 0]).any()
    assert np.isfinite(gradient.numpy()[:, 1]).all()


def test_long_sequences_do_not_underflow() -> None:
    time = 3000
    log_probs = mg.tensor(np.full((time, 1, 2), -log(2.0)), requires_grad=True)
    with mg.Tape() as tape:
        loss = rnn.ctc_loss(log_probs, [[1]], [time], [1])
    alignments = time * (time + 1) / 2  # one run of the label, from any step to any later one
    np.testing.assert_allclose(loss.item(), time * log(2.0) - log(alignments), rtol=1e-13)
    gradient = tape.gradient(loss, log_probs).numpy()
    np.testing.assert_allclose(gradient.sum(-1), -1.0, rtol=1e-9)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_dtypes_are_kept(dtype: str) -> None:
    log_probs = mg.tensor(np.full((4, 2, 3), -log(3.0)), dtype=dtype, requires_grad=True)
    with mg.Tape() as tape:
        loss = rnn.ctc_loss(log_probs, [[1, 2], [1, 0]], [4, 2], [2, 1])
    assert loss.dtype == dtype
    assert loss.shape == ()
    assert tape.gradient(loss, log_probs).dtype == dtype


def test_targets_and_lengths_may_be_tensors_and_empty(rng: np.random.Generator) -> None:
    log_probs = rng.standard_normal((4, 2, 3))
    nothing = rnn.ctc_loss(log_probs, np.zeros((2, 0)), [4, 3], [0, 0], reduction="none")
    blanks = [-log_probs[:4, 0, 0].sum(), -log_probs[:3, 1, 0].sum()]
    np.testing.assert_allclose(nothing.numpy(), blanks)
    flat = rnn.ctc_loss(log_probs, [], [4, 3], [0, 0], reduction="mean")
    np.testing.assert_allclose(flat.item(), np.mean(blanks))
    lists: Any = ([[1, 2], [2, 1]], [4, 4], [2, 1])
    tensors: Any = [mg.tensor(np.array(given)) for given in lists]
    assert rnn.ctc_loss(log_probs, *tensors).item() == rnn.ctc_loss(log_probs, *lists).item()
    empty = rnn.ctc_loss(np.zeros((4, 0, 3)), np.zeros((0, 2)), [], [], reduction="none")
    assert empty.shape == (0,)


def test_the_loss_runs_in_a_debug_scope(rng: np.random.Generator) -> None:
    log_probs = mg.tensor(rng.standard_normal((4, 2, 3)), requires_grad=True)
    with mg.debug(), mg.Tape() as tape:
        loss = rnn.ctc_loss(mg.log_softmax(log_probs), [[1, 1], [2, 1]], [4, 3], [2, 1])
        tape.backward(loss)


def test_descent_along_the_gradient_learns_the_labels(rng: np.random.Generator) -> None:
    targets = [(1, 1, 2), (3,), (2, 3, 2, 1)]
    padded = np.zeros((3, 4), int)
    for row, labels in zip(padded, targets, strict=True):
        row[: len(labels)] = labels
    logits = mg.tensor(rng.standard_normal((12, 3, 4)), requires_grad=True)
    for _ in range(60):
        with mg.Tape() as tape:
            loss = rnn.ctc_loss(mg.log_softmax(logits), padded, [12, 9, 12], [3, 1, 4])
        step = tape.gradient(loss, logits)
        logits = mg.tensor((logits - 20.0 * step).numpy(), requires_grad=True)
    assert loss.item() < 0.1
    assert rnn.ctc_greedy_decode(logits, [12, 9, 12]) == targets


FLOATS = np.zeros((4, 2, 3))


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"log_probs": FLOATS.astype(int)}, TypeError, "log_probs are floats, not int64"),
        ({"log_probs": FLOATS[0]}, ValueError, r"log_probs are \(time, batch, classes\)"),
        ({"log_probs": FLOATS[:0]}, ValueError, r"at least one step, not \(0, 2, 3\)"),
        ({"blank": 3}, IndexError, "the blank is one of 3 classes, 0 to 2, not 3"),
        ({"blank": -1}, IndexError, "not -1"),
        ({"reduction": "average"}, ValueError, "'mean', 'sum' or 'none', not 'average'"),
        ({"targets": [[1.0, 2.0]] * 2}, TypeError, "targets are integers, not float64"),
        ({"targets": [[1, 2]]}, ValueError, r"targets are \(2, length\), or in one row"),
        ({"targets": [1, 2, 1]}, ValueError, "as many as target_lengths say, 4, not 3"),
        ({"targets": [[1, 2], [1, 3]]}, IndexError, "from 0 to 2; there is a 3"),
        ({"targets": [[1, 2], [-1, 1]]}, IndexError, "from 0 to 2; there is a -1"),
        ({"targets": [[1, 2], [0, 1]]}, ValueError, "0 is the blank: leave it out"),
        ({"input_lengths": [4, 5]}, ValueError, "input_lengths are from 0 to 4; sequence 1 has 5"),
        ({"input_lengths": [-1, 4]}, ValueError, "from 0 to 4; sequence 0 has -1"),
        ({"input_lengths": [4]}, ValueError, r"one integer for each of 2 sequences, \(2,\)"),
        ({"input_lengths": [4.0, 4.0]}, TypeError, "input_lengths are integers, not float64"),
        ({"target_lengths": [2, 3]}, ValueError, "target_lengths are from 0 to 2; sequence 1"),
        ({"target_lengths": 2}, ValueError, r"for each of 2 sequences, \(2,\), not \(\)"),
    ],
)
def test_what_does_not_fit_is_refused(
    changed: dict[str, Any], error: type[Exception], message: str
) -> None:
    arguments: dict[str, Any] = {
        "log_probs": FLOATS,
        "targets": [[1, 2], [2, 1]],
        "input_lengths": [4, 4],
        "target_lengths": [2, 2],
    }
    with pytest.raises(error, match=message):
        rnn.ctc_loss(**arguments | changed)


def test_an_empty_batch_has_no_mean() -> None:
    with pytest.raises(ValueError, match="nothing to average, the batch is empty"):
        rnn.ctc_loss(np.zeros((4, 0, 3)), np.zeros((0, 2)), [], [])


# --------------------------------------------------------------------------------------
# Decoding
# --------------------------------------------------------------------------------------


@given(batches())
def test_greedy_decoding_reads_the_most_probable_alignment(batch: Batch) -> None:
    found = rnn.ctc_greedy_decode(batch.log_probs, batch.input_lengths, batch.blank)
    for i, labels in enumerate(found):
        steps, _ = batch.sequence(i)
        every = by_labelling(steps, batch.blank)
        best = max(every, key=lambda labelling: max(p for _, p in every[labelling]))
        assert labels == best


@given(batches())
def test_a_wide_beam_finds_every_labelling_and_its_probability(batch: Batch) -> None:
    found = rnn.ctc_beam_search(batch.log_probs, batch.input_lengths, 1000, batch.blank)
    for i, labellings in enumerate(found):
        every = by_labelling(batch.sequence(i)[0], batch.blank)
        exact = {labels: np.log(sum(p for _, p in ways)) for labels, ways in every.items()}
        assert {labelling.labels for labelling in labellings} == set(exact)
        for labels, log_probability, score in labellings:
            np.testing.assert_allclose(log_probability, exact[labels], rtol=1e-12, atol=1e-12)
            assert score == log_probability
        assert sorted(labellings, key=lambda each: -each.score) == labellings


@given(batches(), st.integers(1, 4))
def test_a_narrow_beam_is_short_and_does_not_overestimate(batch: Batch, width: int) -> None:
    found = rnn.ctc_beam_search(batch.log_probs, batch.input_lengths, width, batch.blank)
    for i, labellings in enumerate(found):
        every = by_labelling(batch.sequence(i)[0], batch.blank)
        assert 1 <= len(labellings) <= width
        for labels, log_probability, _ in labellings:
            assert log_probability <= np.log(sum(p for _, p in every[labels])) + 1e-12


@given(batches())
def test_a_language_model_is_added_for_every_label(batch: Batch) -> None:
    def language_model(labels: Labels, label: int) -> float:
        return 0.7 * label - 1.5 * labels.count(label) - 0.2 * len(labels)

    found = rnn.ctc_beam_search(
        batch.log_probs, batch.input_lengths, 1000, batch.blank, language_model
    )
    for i, labellings in enumerate(found):
        scores = {}
        for labels, ways in by_labelling(batch.sequence(i)[0], batch.blank).items():
            extra = sum(language_model(labels[:k], label) for k, label in enumerate(labels))
            scores[labels] = np.log(sum(p for _, p in ways)) + extra
        assert labellings[0].labels == max(scores, key=lambda labels: scores[labels])
        for labelling in labellings:
            np.testing.assert_allclose(labelling.score, scores[labelling.labels], atol=1e-12)


def test_what_a_language_model_forbids_is_not_found() -> None:
    log_probs = np.log(np.full((4, 1, 3), 1 / 3))
    [found] = rnn.ctc_beam_search(
        log_probs, language_model=lambda labels, label: -inf if label == 2 else 0.0
    )
    assert {labelling.labels for labelling in found} == {(), (1,), (1, 1)}


def test_the_beam_finds_what_greedy_decoding_misses() -> None:
    log_probs = np.log([[[0.6, 0.4]], [[0.6, 0.4]]])
    assert rnn.ctc_greedy_decode(log_probs) == [()]
    [[best, other]] = rnn.ctc_beam_search(log_probs)
    assert best.labels == (1,)
    np.testing.assert_allclose(np.exp([best.log_probability, other.log_probability]), [0.64, 0.36])


def test_decoding_takes_tensors_and_all_steps_by_default(rng: np.random.Generator) -> None:
    log_probs = mg.log_softmax(mg.tensor(rng.standard_normal((6, 2, 4)), requires_grad=True))
    assert rnn.ctc_greedy_decode(log_probs) == rnn.ctc_greedy_decode(log_probs, [6, 6])
    assert rnn.ctc_beam_search(log_probs) == rnn.ctc_beam_search(log_probs, [6, 6])
    assert rnn.ctc_greedy_decode(log_probs, [0, 0]) == [(), ()]


@pytest.mark.parametrize("decode", [rnn.ctc_greedy_decode, rnn.ctc_beam_search])
def test_what_cannot_be_decoded_is_refused(decode: Any) -> None:
    for row in ([nan, 0.0], [inf, 0.0], [-inf, -inf]):
        log_probs = np.array([[[0.0, 0.0], row]])
        with pytest.raises(ValueError, match="cannot decode sequence 1: its log_probs contain NaN"):
            decode(log_probs)
        decode(log_probs, [1, 0])  # a step that is not valid does not matter
    with pytest.raises(ValueError, match=r"log_probs are \(time, batch, classes\)"):
        decode(np.zeros((3, 2)))
    with pytest.raises(TypeError, match="log_probs are floats"):
        decode(np.zeros((3, 2, 2), int))
    with pytest.raises(ValueError, match="lengths are from 0 to 3; sequence 1 has 4"):
        decode(np.zeros((3, 2, 2)), [3, 4])
    with pytest.raises(IndexError, match="the blank is one of 2 classes, 0 to 1, not 2"):
        decode(np.zeros((3, 2, 2)), blank=2)


def test_an_empty_beam_is_refused() -> None:
    with pytest.raises(ValueError, match="beam_width is at least 1, not 0"):
        rnn.ctc_beam_search(np.zeros((3, 2, 2)), beam_width=0)


# --------------------------------------------------------------------------------------
# Error rates
# --------------------------------------------------------------------------------------

texts = st.text("abc", max_size=6)


def slow_distance(a: str, b: str) -> int:
    if not a or not b:
        return len(a) + len(b)
    replaced = slow_distance(a[1:], b[1:]) + (a[0] != b[0])
    return min(replaced, slow_distance(a[1:], b) + 1, slow_distance(a, b[1:]) + 1)


@given(st.text("abc", max_size=5), st.text("abc", max_size=5))
def test_edit_distance_is_that_of_its_definition(a: str, b: str) -> None:
    assert rnn.metrics.edit_distance(a, b) == slow_distance(a, b)


@given(texts, texts, texts)
def test_edit_distance_is_a_metric(a: str, b: str, c: str) -> None:
    distance = rnn.metrics.edit_distance
    assert distance(a, b) == distance(b, a)
    assert (distance(a, b) == 0) == (a == b)
    assert distance(a, c) <= distance(a, b) + distance(b, c)


def test_error_rates() -> None:
    assert rnn.metrics.error_rate([(1, 2), (3,)], [(1, 2, 2), (3,)]) == 0.25
    assert rnn.metrics.error_rate(["abc"], ["a"]) == 2.0
    assert rnn.metrics.error_rate([(), ()], [(), (1,)]) == 1.0
    with pytest.raises(ValueError, match="all references are empty"):
        rnn.metrics.error_rate([(1,)], [()])
    with pytest.raises(ValueError, match="2 hypotheses need as many references, not 1"):
        rnn.metrics.error_rate([(1,), (2,)], [(1,)])
