"""Decoding: from what a model predicts to what is written."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any, Literal, NamedTuple, get_args

import numpy
from numpy.typing import ArrayLike, NDArray

import minigrad as mg
from minigrad import Tensor
from minigrad_rnn.sequences import to_host
from minigrad_rnn.states import map_state, shapes_of

# --------------------------------------------------------------------------------------
# Sampling
# --------------------------------------------------------------------------------------


def sample(
    logits: Tensor,
    temperature: float = 1.0,
    *,
    top_k: int | None = None,
    top_p: float = 1.0,
    rng: Any = None,
) -> NDArray[numpy.int64]:
    """Draw one class per row from  softmax(logits / temperature),  or from its likeliest classes.

    ``top_k`` is applied before ``top_p``, and what is left is drawn in proportion to its
    probability. Of classes that are equally likely, those with lower numbers are kept first.

    Args:
        logits: (..., classes).
        temperature: 1 draws as the model predicts, less is more cautious; 0 takes the most
            likely class.
        top_k: keep this many of the likeliest classes; ``None``, or as many as there are,
            keeps all. Fan, Lewis and Dauphin, Hierarchical neural story generation, 2018.
        top_p: keep the nucleus, the fewest of the likeliest classes whose share of the
            probability is at least ``top_p``; 1 keeps all. Holtzman et al., The curious case of
            neural text degeneration, 2020.
        rng: generator or seed.

    Returns integers (...), on the host.

    Raises ``ValueError`` if the temperature is negative, ``top_k`` below 1, ``top_p`` not in
    (0, 1], or the largest logit of a row is not finite.

    >>> import minigrad as mg, minigrad_rnn as rnn
    >>> rnn.sample(mg.tensor([[0.0, 3.0, 1.0]]), temperature=0.0)
    array([1])
    >>> set(rnn.sample(mg.tensor([[0.0, 3.0, 1.0]] * 100), top_k=2, rng=0).tolist())
    {1, 2}
    """
    if not temperature >= 0.0:
        raise ValueError(f"the temperature is at least 0, not {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k keeps at least 1 class, not {top_k}")
    if not 0.0 < top_p <= 1.0:
        raise ValueError(f"top_p is a share of the probability in (0, 1], not {top_p}")
    scores = logits.numpy().astype(numpy.float64)
    largest = _largest(scores, "sample from")
    if temperature == 0.0:
        return scores.argmax(-1)
    # The largest of the logits with Gumbel noise is distributed as softmax(logits).
    noise = numpy.random.default_rng(rng).gumbel(size=scores.shape)
    with numpy.errstate(over="ignore"):  # far below the largest is as good as never
        relative = (scores - largest) / temperature
    if top_k is not None or top_p < 1.0:
        relative = numpy.where(_likeliest(relative, top_k, top_p), relative, -inf)
    return (relative + noise).argmax(-1)


def _largest(scores: NDArray[Any], purpose: str) -> NDArray[Any]:
    """The largest logit of every row; it is finite, or the row says nothing."""
    largest = scores.max(-1, keepdims=True)
    if not numpy.isfinite(largest).all():
        raise ValueError(
            f"cannot {purpose} logits that contain NaN or infinity, or -infinity alone"
        )
    return largest


def _likeliest(relative: NDArray[Any], top_k: int | None, top_p: float) -> NDArray[Any]:
    """Which classes are kept; ``relative`` are their logits, with 0 for the likeliest."""
    order = numpy.argsort(-relative, axis=-1, kind="stable")[..., :top_k]
    powers = numpy.exp(numpy.take_along_axis(relative, order, -1))
    upto = powers.cumsum(-1)
    # A class is in the nucleus if those before it are not yet enough.
    inside = (upto - powers < top_p * upto[..., -1:]) if top_p < 1.0 else True
    kept = numpy.zeros(relative.shape, bool)
    numpy.put_along_axis(kept, order, inside, -1)
    return kept


# --------------------------------------------------------------------------------------
# Beam search
# --------------------------------------------------------------------------------------

#: By what a log-probability is divided, so that longer hypotheses are not at a loss.
LengthPenalty = Literal["wu", "power"]


class Hypothesis(NamedTuple):
    """What beam search has found.

    Attributes:
        tokens: (length,), without the start; with the end, if it was reached.
        score: log_probability / length penalty.
        log_probability: of all tokens, the end included, in nats.
        ended: whether the end was reached, not the greatest length.
        extras: (length, ...), what ``step`` gave besides with each token; or ``None``.
    """

    tokens: NDArray[numpy.int64]
    score: float
    log_probability: float
    ended: bool
    extras: NDArray[Any] | None


def beam_search(
    step: Callable[[Tensor, Any], Any],
    state: Any,
    start: ArrayLike,
    end: int | None,
    *,
    width: int = 5,
    max_length: int,
    alpha: float = 0.0,
    length_penalty: LengthPenalty = "wu",
    n_best: int = 1,
) -> list[list[Hypothesis]]:
    """The likeliest sequences that a model continues ``start`` with, found breadth first.

    At every step, of all continuations of the hypotheses the ``width`` likeliest are kept. One
    that reaches the end is set aside, and from then on one fewer is kept; so a width of 1 is
    greedy search. A hypothesis of length l (with its end) has the score

        log_probability / ((5 + l) / 6)^alpha      "wu": Wu et al., Google's neural machine
                                                   translation system, 2016
        log_probability / l^alpha                  "power"

    A search stops as soon as no hypothesis that is left can become one of the best. Equal
    continuations are taken in the order of their hypotheses' ranks, then of the tokens.

    All hypotheses of all sources are the rows of one batch: ``step`` is called once for each
    length. Nothing is recorded.

    Args:
        step: maps (tokens, state) to (logits, state), or to (logits, state, extras). Tokens are
            (rows,) integers, logits (rows, classes); log-probabilities are logits, too. Extras,
            (rows, ...), such as attention weights, are kept with the hypotheses.
        state: before the start: ``None``, or tensors and arrays in nested tuples, lists and
            dictionaries, whose first axis counts the rows, at first one for each source. What
            the hypotheses of a source read, such as an encoder's outputs, is part of it.
        start: the token that is read first: (sources,) integers, or one for a single source.
        end: the token that ends a sequence; ``None`` if all go on to the greatest length.
        width: how many hypotheses are kept for each source.
        max_length: the greatest length, with the end.
        alpha: how much length is made up for; 0, for not at all, ranks by probability.
        length_penalty: ``"wu"`` or ``"power"``.
        n_best: how many hypotheses are returned for each source; at most ``width``.

    Returns for each source a list of the best hypotheses, best first. Those that have ended
    come before those that were cut off at the greatest length. There are fewer than ``n_best``
    if so few have a probability above 0.

    Raises ``ValueError`` if a setting makes no sense, logits or a part of the state do not have
    one row for each hypothesis, or the largest logit of a row is not finite; ``TypeError`` if
    ``step`` returns anything else.

    >>> import minigrad as mg, minigrad_rnn as rnn
    >>> follows = mg.log(mg.tensor([[0.2, 0.5, 0.3], [0.4, 0.3, 0.3], [0.05, 0.05, 0.9]]))
    >>> def step(tokens, state):
    ...     return follows[tokens], state
    >>> for width in (1, 2):
    ...     [[best]] = rnn.beam_search(step, None, 0, None, width=width, max_length=2)
    ...     print(best.tokens, round(mg.exp(best.log_probability).item(), 3))
    [1 0] 0.2
    [2 2] 0.27
    """
    first = numpy.atleast_1d(to_host(start))
    _check_search(first, width, max_length, alpha, length_penalty, n_best)
    sources = first.size
    _check_rows(state, sources)
    beam = _Beam(
        numpy.arange(sources), numpy.zeros(sources), numpy.empty((sources, 0), numpy.int64), None
    )
    found: list[list[Hypothesis]] = [[] for _ in range(sources)]
    greatest = _penalty(max_length, alpha, length_penalty)
    devices = [part.device for part in _parts((state, start)) if isinstance(part, Tensor)]
    tokens = mg.asarray(first, device=devices[0] if devices else None)
    with mg.no_grad():
        for length in range(1, max_length + 1):
            logits, state, extras = _stepped(step, tokens, state)
            if end is not None and not 0 <= end < logits.shape[1]:
                raise ValueError(f"the end is one of the {logits.shape[1]} classes, not {end}")
            rows, beam = _continued(beam, _log_probabilities(logits), extras, found, width)

            penalty = _penalty(length, alpha, length_penalty)
            is_end = beam.tokens[:, -1] == (-1 if end is None else end)
            over = is_end | (length == max_length)
            for row in numpy.flatnonzero(over):
                total = float(beam.totals[row])
                seen = None if beam.extras is None else beam.extras[row]
                found[beam.sources[row]].append(
                    Hypothesis(beam.tokens[row], total / penalty, total, bool(is_end[row]), seen)
                )
            for source in numpy.unique(beam.sources[~over]):
                mine = beam.sources == source
                # What goes on becomes less likely with every token, and at most so long.
                bound = beam.totals[mine & ~over].max() / greatest
                over |= mine & (sum(h.score >= bound for h in found[source]) >= n_best)
            if over.all():
                break
            going = numpy.flatnonzero(~over)
            beam, state = _rows_of(beam, going), _rows_of(state, rows[going])
            tokens = mg.asarray(beam.tokens[:, -1], device=logits.device)
    return [sorted(each, key=lambda h: (not h.ended, -h.score))[:n_best] for each in found]


class _Beam(NamedTuple):
    """The hypotheses that go on, one in each row, those of a source by rank."""

    sources: NDArray[numpy.int64]
    totals: NDArray[numpy.float64]
    tokens: NDArray[numpy.int64]
    extras: NDArray[Any] | None


def _continued(
    beam: _Beam,
    log_probabilities: NDArray[Any],
    extras: Tensor | None,
    found: list[list[Hypothesis]],
    width: int,
) -> tuple[NDArray[numpy.int64], _Beam]:
    """The likeliest continuations for each source, and the rows that they continue."""
    totals = beam.totals[:, None] + log_probabilities
    classes = totals.shape[1]
    chosen = []
    for source in numpy.unique(beam.sources):
        mine = numpy.flatnonzero(beam.sources == source)
        best = _largest_of(totals[mine].ravel(), width - len(found[source]))
        chosen.append(mine[0] * classes + best)
    rows, picked = numpy.divmod(numpy.concatenate(chosen), classes)
    before = _rows_of(beam, rows)
    seen = None
    if extras is not None:
        seen = extras.numpy()[rows][:, None]
        if before.extras is not None:
            seen = numpy.concatenate([before.extras, seen], axis=1)
    written = numpy.concatenate([before.tokens, picked[:, None]], axis=1)
    return rows, _Beam(before.sources, totals[rows, picked], written, seen)


def _largest_of(values: NDArray[Any], count: int) -> NDArray[Any]:
    """The positions of the largest values, in order, equal ones by position; none of -inf."""
    positions = numpy.arange(values.size)
    if count < values.size:
        positions = numpy.flatnonzero(values >= numpy.partition(values, -count)[-count])
    positions = positions[values[positions] > -inf]
    return positions[numpy.argsort(-values[positions], kind="stable")[:count]]


def _penalty(length: int, alpha: float, kind: LengthPenalty) -> float:
    """By what the log-probability of a hypothesis of this length is divided."""
    return float(((5 + length) / 6 if kind == "wu" else length) ** alpha)


def _log_probabilities(logits: Tensor) -> NDArray[Any]:
    """log_softmax, in float64 on the host."""
    scores = logits.numpy().astype(numpy.float64)
    relative = scores - _largest(scores, "search by")
    return relative - numpy.log(numpy.exp(relative).sum(-1, keepdims=True))


def _stepped(
    step: Callable[[Tensor, Any], Any], tokens: Tensor, state: Any
) -> tuple[Tensor, Any, Tensor | None]:
    """Logits, state and extras, with a clear error for what they cannot be."""
    result = step(tokens, state)
    if not isinstance(result, tuple) or len(result) not in (2, 3):
        raise TypeError(
            "step returns (logits, state) or (logits, state, extras), not a "
            f"{type(result).__name__}"
        )
    logits, state, extras = (*result, None)[:3]
    if logits.ndim != 2 or logits.shape[0] != tokens.size:
        raise ValueError(
            f"step returns logits ({tokens.size}, classes), one row for each token, not "
            f"{logits.shape}"
        )
    _check_rows((state, extras), tokens.size)
    return logits, state, extras


def _check_rows(state: Any, rows: int) -> None:
    for part in _parts(state):
        if hasattr(part, "shape") and part.shape[:1] != (rows,):
            raise ValueError(
                f"every part of the state, and the extras, have {rows} rows on the first axis, one "
                f"for each token; there is one of shape {part.shape} in {shapes_of(state)}"
            )


def _rows_of(state: Any, rows: NDArray[Any]) -> Any:
    """These rows of every part that has some."""
    index = rows.tolist()
    return map_state(lambda part: part[index] if hasattr(part, "shape") else part, state)


def _parts(state: Any) -> list[Any]:
    """All parts of a state."""
    parts: list[Any] = []
    map_state(parts.append, state)
    return parts


def _check_search(
    start: NDArray[Any], width: int, max_length: int, alpha: float, kind: str, n_best: int
) -> None:
    if start.dtype.kind not in "iu":
        raise TypeError(f"the start is one token for each source, an integer, not {start.dtype}")
    if start.ndim != 1 or not start.size:
        raise ValueError(f"the start is one token for each source, (sources,), not {start.shape}")
    if width < 1 or max_length < 1:
        raise ValueError(f"width and max_length are at least 1, not {width} and {max_length}")
    if not 1 <= n_best <= width:
        raise ValueError(f"n_best is from 1 to the width, {width}, not {n_best}")
    if not 0.0 <= alpha < inf:
        raise ValueError(f"alpha is at least 0, not {alpha}")
    if kind not in get_args(LengthPenalty):
        raise ValueError(f"length_penalty is 'wu' or 'power', not {kind!r}")
