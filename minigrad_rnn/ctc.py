"""Connectionist temporal classification: labels for a sequence without knowing where they are.

A network says at every step how probable each label is, and how probable is *blank*: no label
here. An *alignment* chooses one of them at every step; it is read by dropping repetitions, and
then the blanks: ``- a a - a b`` is ``a a b``. The probability of a labelling is that of all
alignments that read so, together.

Graves, Fernández, Gomez and Schmidhuber, Connectionist temporal classification: labelling
unsegmented sequence data with recurrent neural networks, 2006.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from math import exp, inf, log1p, nan
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy
from numpy.typing import NDArray

import minigrad as mg
from minigrad import Tensor
from minigrad_rnn.sequences import to_host

#: Class numbers, none of which is the blank.
Labels: TypeAlias = tuple[int, ...]

# --------------------------------------------------------------------------------------
# The loss
# --------------------------------------------------------------------------------------


def ctc_loss(
    log_probs: Any,
    targets: Any,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: Literal["mean", "sum", "none"] = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """-log p(targets | log_probs),  where p is that of all alignments that read as the targets.

    It is computed in float64, and returned in the dtype of ``log_probs``. The gradient, -1 times
    the probability that the alignment goes through a class at a step, is exact, and so are
    derivatives of higher order, which take many times as long. (PyTorch's gradient is that by
    the logits, and agrees once it has gone through ``log_softmax``.)

    Args:
        log_probs: (time, batch, classes), floats: ``mg.log_softmax(logits)``, not the logits.
            A class that is ruled out is -inf.
        targets: integers, the labels without blanks: (batch, length), padded with anything, or
            those of all sequences in one row, (sum of ``target_lengths``,).
        input_lengths: (batch,), integers from 0 to time, how many steps of each sequence are
            valid. The steps after these have no influence, and gradient 0.
        target_lengths: (batch,), integers of at least 0, how many labels each sequence has.
        blank: the class that stands for no label.
        reduction: ``"none"`` returns one loss per sequence, (batch,); ``"sum"`` their sum;
            ``"mean"``, as PyTorch does, the mean over the batch of each loss divided by the
            number of labels (by 1 if there are none).
        zero_infinity: what becomes of a sequence that no alignment fits, such as one with more
            labels than steps (equal neighbours need a blank between them, too). Its loss is
            infinite and its gradient NaN; with ``zero_infinity`` both are 0.

    Targets and lengths are read on the host, and should be there; ``log_probs`` stays where it
    is.

    Raises:
        ValueError: if a shape does not fit the others, a length is out of range, a target is the
            blank, the reduction is unknown, or there is nothing to average.
        TypeError: if ``log_probs`` are not floats, or the others not integers.
        IndexError: if the blank or a target is not a class.

    >>> import minigrad as mg, minigrad_rnn as rnn
    >>> logits = mg.tensor([[[0.0, 0.0]]] * 3)
    >>> loss = rnn.ctc_loss(mg.log_softmax(logits), [[1]], [3], [1])
    >>> mg.round(mg.exp(-loss), 4)  # "- - -" and "1 - 1" read otherwise
    tensor(0.75)
    """
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"the reduction is 'mean', 'sum' or 'none', not {reduction!r}")
    log_probs = _checked(log_probs, blank)
    time, batch, classes = log_probs.shape
    if reduction == "mean" and not batch:
        raise ValueError("ctc_loss: there is nothing to average, the batch is empty")
    steps = _lengths("input_lengths", input_lengths, batch, time)
    labels, counts = _labels(targets, target_lengths, batch, classes, blank)

    def there(array: NDArray[Any]) -> Any:
        return mg.asarray(array, device=log_probs.device).array

    chain = _Chain(*map(there, _chain(labels, counts, steps, time, blank)))
    table = mg.reshape(mg.transpose(log_probs, (1, 2, 0)), (batch * classes, time))
    rows = chain.classes + there(classes * numpy.arange(batch)[:, None])
    emissions = mg.astype(mg.transpose(table[rows], (2, 0, 1)), "float64")
    losses = _ctc(emissions, chain=chain, zero_infinity=zero_infinity)
    if reduction == "mean":
        losses = losses / there(numpy.maximum(counts, 1.0) * batch)
    if reduction != "none":
        losses = mg.sum(losses)
    return mg.astype(losses, log_probs.dtype)


class _Chain(NamedTuple):
    """The states that an alignment goes through: the labels, and a blank before and after each.

    Costs are logarithms of probabilities, 0 or -inf.

    Attributes:
        classes: (batch, states), what each state stands for.
        start: (batch, states), the costs of coming from a state at the beginning.
        finish: (batch, states), the costs of being in a state at the end.
        skip: (batch, states), the costs of entering a state from the one before the last: a
            blank can be left out between two labels that differ.
        valid: (time, batch, 1), False after the end of a sequence.
    """

    classes: Any
    start: Any
    finish: Any
    skip: Any
    valid: Any


def _chain(
    labels: NDArray[Any], counts: NDArray[Any], steps: NDArray[Any], time: int, blank: int
) -> _Chain:
    """The chains of a batch, on the host; those of fewer labels end before the last state."""
    batch, longest = labels.shape
    classes = numpy.full((batch, 2 * longest + 1), blank)
    classes[:, 1::2] = labels
    start, finish, skip = numpy.full((3, *classes.shape), -inf)
    start[:, 0] = 0.0
    finish[numpy.arange(batch), 2 * counts] = 0.0
    skip[:, 3::2][labels[:, 1:] != labels[:, :-1]] = 0.0
    valid = numpy.arange(time)[:, None, None] < steps[:, None]
    return _Chain(classes, start, finish, skip, valid)


@mg.primitive
def _ctc(emissions: Any, /, chain: _Chain, zero_infinity: bool) -> Any:
    """-log of the sum, over all ways through a chain, of the product of e^emissions.

    ``emissions`` are (time, batch, states), and the losses (batch,).
    """
    emissions = mg.where(chain.valid, emissions, chain.finish)  # in the last state, it waits
    arrivals = _arrivals(emissions, chain.start, chain.skip)
    total = _total(arrivals[-1], chain.finish)
    return mg.where(total == -inf, 0.0 if zero_infinity else inf, 0.0 - total)


def _ctc_rule(g: Any, emissions: Any, chain: _Chain, zero_infinity: bool) -> Any:
    """-g times the probability of being in a state at a step,  e^(forward + backward - total).

    Backward is forward, read from the end: both run at once, as two halves of a batch.
    """
    _, start, finish, skip, valid = chain
    batch = len(start)
    emissions = mg.where(valid, emissions, finish)
    arrivals = _arrivals(
        mg.concatenate([emissions, emissions[::-1, :, ::-1]], axis=1),
        mg.concatenate([start, finish[:, ::-1]]),
        mg.concatenate([skip, mg.roll(skip[:, ::-1], 2, axis=1)]),
    )
    both = mg.stack(arrivals[:-1])
    forward, backward = both[:, :batch], both[::-1, batch:, ::-1]
    total = _total(arrivals[-1][:batch], finish)[:, None]
    none = total == -inf
    occupation = mg.exp(forward + emissions + backward - mg.where(none, 0.0, total))
    occupation = mg.where(none, 0.0 if zero_infinity else nan, occupation)
    return mg.where(valid, -g[:, None] * occupation, 0.0)


_ctc.rules(emissions=_ctc_rule)


def _arrivals(emissions: Any, start: Any, skip: Any) -> list[Any]:
    """log of the sum over all ways into each state: at every step, and after the last one.

    A way stays, goes on by one state, or skips one. What the state that it enters emits at that
    step is not counted.
    """
    edge = skip[:, :2]  # -inf: there is nothing to come from before the first state

    def enter(left: Any) -> Any:
        before = mg.concatenate([edge, left], axis=1)
        near = mg.logaddexp(left, before[:, 1:-1])
        return mg.logaddexp(near, before[:, :-2] + skip)

    arrivals = [enter(start)]
    for emission in mg.unstack(emissions):
        arrivals.append(enter(arrivals[-1] + emission))
    return arrivals


def _total(arrivals: Any, finish: Any) -> Any:
    """log of the sum over all ways that end where they should."""
    return mg.sum(mg.where(finish == 0.0, arrivals, 0.0), axis=-1)


# --------------------------------------------------------------------------------------
# Decoding, on the host
# --------------------------------------------------------------------------------------


class Labelling(NamedTuple):
    """What :func:`ctc_beam_search` found.

    Attributes:
        labels: the classes, without blanks.
        log_probability: log of the probability of its alignments, of those that were followed.
        score: what it is ranked by: ``log_probability``, and what the language model adds.
    """

    labels: Labels
    log_probability: float
    score: float


def ctc_greedy_decode(log_probs: Any, lengths: Any = None, blank: int = 0) -> list[Labels]:
    """The labels of the most probable alignment: the most probable class at every step.

    Args:
        log_probs: (time, batch, classes), floats; logits give the same.
        lengths: (batch,), integers from 0 to time, how many steps are valid; all by default.
        blank: the class that stands for no label.

    Returns one tuple of labels for each sequence.

    Raises what :func:`ctc_beam_search` raises.

    >>> import numpy as np, minigrad_rnn as rnn
    >>> scores = np.eye(3)[[0, 1, 1, 0, 1, 2]][:, None]  # - a a - a b
    >>> rnn.ctc_greedy_decode(scores)
    [(1, 1, 2)]
    """
    found = []
    for steps in _sequences(log_probs, lengths, blank):
        best = steps.argmax(-1)
        changed = numpy.diff(best, prepend=-1) != 0
        found.append(tuple(best[changed & (best != blank)].tolist()))
    return found


def ctc_beam_search(
    log_probs: Any,
    lengths: Any = None,
    beam_width: int = 16,
    blank: int = 0,
    language_model: Callable[[Labels, int], float] | None = None,
) -> list[list[Labelling]]:
    """The most probable labellings, by a search over prefixes, step by step.

    At every step the best prefixes are kept, and each is the sum of all alignments that read
    so far as it does. The result is exact if the beam is so wide that nothing is dropped.

    Hannun, Maas, Jurafsky and Ng, First-pass large vocabulary continuous speech recognition
    using bi-directional recurrent DNNs, 2014.

    Args:
        log_probs: (time, batch, classes), floats, as for :func:`ctc_loss`.
        lengths: (batch,), integers from 0 to time, how many steps are valid; all by default.
        beam_width: how many prefixes are kept, at least 1.
        blank: the class that stands for no label.
        language_model: a function of the labels so far and the next one. What it returns, for
            example  a log p(label | labels) + b,  is added to the score of whatever begins so.

    Returns for each sequence at most ``beam_width`` labellings, the best one first.

    Raises:
        ValueError: if a shape does not fit, a length is out of range, the beam is empty, or the
            largest of the log-probabilities of a valid step is not finite.
        TypeError: if ``log_probs`` are not floats, or lengths not integers.
        IndexError: if the blank is not a class.

    >>> import numpy as np, minigrad_rnn as rnn
    >>> log_probs = np.log([[[0.6, 0.4]], [[0.6, 0.4]]])
    >>> rnn.ctc_greedy_decode(log_probs)  # probability 0.36
    [()]
    >>> [best, other] = rnn.ctc_beam_search(log_probs)[0]
    >>> best.labels, float(np.exp(best.log_probability).round(2))
    ((1,), 0.64)
    """
    if beam_width < 1:
        raise ValueError(f"beam_width is at least 1, not {beam_width}")
    return [
        _prefix_search(steps, beam_width, blank, language_model)
        for steps in _sequences(log_probs, lengths, blank)
    ]


def _prefix_search(
    steps: NDArray[Any],
    beam_width: int,
    blank: int,
    language_model: Callable[[Labels, int], float] | None,
) -> list[Labelling]:
    # Of each prefix: log of the probability of the alignments that end in a blank, and of
    # those that end in its last label.
    beam: dict[Labels, list[float]] = {(): [0.0, -inf]}
    bonus: dict[Labels, float] = {(): 0.0}

    def judged(prefix: Labels, parts: list[float]) -> Labelling:
        if prefix not in bonus:
            more = language_model(prefix[:-1], prefix[-1]) if language_model else 0.0
            bonus[prefix] = bonus[prefix[:-1]] + more
        total = _log_add(*parts)
        return Labelling(prefix, total, total + bonus[prefix])

    best = [judged(*item) for item in beam.items()]
    for row in steps.tolist():
        grown: dict[Labels, list[float]] = defaultdict(lambda: [-inf, -inf])
        for prefix, total, _ in best:
            in_blank, in_label = beam[prefix]
            last = prefix[-1] if prefix else blank
            parts = grown[prefix]
            parts[0] = _log_add(parts[0], total + row[blank])
            if prefix:
                parts[1] = _log_add(parts[1], in_label + row[last])
            for label, log_prob in enumerate(row):
                if label != blank and log_prob > -inf:
                    # A label is repeated only after a blank.
                    parts = grown[*prefix, label]
                    before = in_blank if label == last else total
                    parts[1] = _log_add(parts[1], before + log_prob)
        beam = grown
        found = [judged(*item) for item in grown.items()]
        found.sort(key=lambda labelling: labelling.score, reverse=True)
        best = [labelling for labelling in found[:beam_width] if labelling.score > -inf]
    return best


def _log_add(a: float, b: float) -> float:
    """log(e^a + e^b)"""
    if a < b:
        a, b = b, a
    return a if b == -inf else a + log1p(exp(b - a))


def _sequences(log_probs: Any, lengths: Any, blank: int) -> list[NDArray[numpy.float64]]:
    """The valid steps (steps, classes) of each sequence, on the host."""
    log_probs = _checked(log_probs, blank)
    time, batch, _ = log_probs.shape
    counts = numpy.full(batch, time)
    if lengths is not None:
        counts = _lengths("lengths", lengths, batch, time)
    scores = log_probs.numpy().astype(numpy.float64)
    sequences = [scores[:count, i] for i, count in enumerate(counts)]
    for i, steps in enumerate(sequences):
        if not numpy.isfinite(steps.max(-1)).all():
            raise ValueError(
                f"cannot decode sequence {i}: its log_probs contain NaN or infinity, or a step "
                "with -infinity alone"
            )
    return sequences


# --------------------------------------------------------------------------------------
# What is given
# --------------------------------------------------------------------------------------


def _checked(log_probs: Any, blank: int) -> Tensor:
    """Log-probabilities as a tensor, of which the blank is a class."""
    checked = log_probs if isinstance(log_probs, Tensor) else mg.asarray(log_probs)
    if checked.dtype.kind != "f":
        raise TypeError(f"log_probs are floats, not {checked.dtype}")
    if checked.ndim != 3 or not checked.shape[0]:
        raise ValueError(
            f"log_probs are (time, batch, classes) with at least one step, not {checked.shape}"
        )
    classes = checked.shape[2]
    if not 0 <= blank < classes:
        raise IndexError(f"the blank is one of {classes} classes, 0 to {classes - 1}, not {blank}")
    return checked


def _labels(
    targets: Any, target_lengths: Any, batch: int, classes: int, blank: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The labels (batch, at least 1), padded with blanks, and how many of them count."""
    given = _integers("targets", targets)
    if given.ndim == 2 and len(given) == batch:
        counts = _lengths("target_lengths", target_lengths, batch, given.shape[1])
        row = given[numpy.arange(given.shape[1]) < counts[:, None]]
    elif given.ndim == 1:
        counts = _lengths("target_lengths", target_lengths, batch, given.size)
        row = given
        if row.size != counts.sum():
            raise ValueError(
                f"targets in one row are as many as target_lengths say, {counts.sum()}, not "
                f"{row.size}"
            )
    else:
        raise ValueError(
            f"targets are ({batch}, length), or in one row (sum of target_lengths,), not "
            f"{given.shape}"
        )
    for label in row[(row < 0) | (row >= classes)]:
        raise IndexError(f"targets are classes from 0 to {classes - 1}; there is a {label}")
    if (row == blank).any():
        raise ValueError(f"targets are labels, and {blank} is the blank: leave it out")
    labels = numpy.full((batch, max(counts, default=0) or 1), blank)
    labels[numpy.arange(labels.shape[1]) < counts[:, None]] = row
    return labels, counts


def _lengths(name: str, given: Any, batch: int, largest: int) -> NDArray[Any]:
    """Lengths as an array (batch,) of integers from 0 to the largest."""
    lengths = _integers(name, given)
    if lengths.shape != (batch,):
        raise ValueError(
            f"{name} are one integer for each of {batch} sequences, ({batch},), not {lengths.shape}"
        )
    for i in numpy.flatnonzero((lengths < 0) | (lengths > largest)):
        raise ValueError(f"{name} are from 0 to {largest}; sequence {i} has {lengths[i]}")
    return lengths


def _integers(name: str, given: Any) -> NDArray[Any]:
    """Integers of any kind as an array on the host; an empty list has no dtype to speak of."""
    array = to_host(given)
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"{name} are integers, not {array.dtype}")
    return array.astype(numpy.int64)
