"""Sequences: what is done to them on the host, as NumPy arrays, before a network reads them.

Many short sequences are padded to a batch, those of similar length together; a long one is
cut into parallel rows, which continue from window to window. Time comes first: a batch is
(time, batch, ...) unless ``batch_first`` says otherwise. :class:`Batches` and :class:`Stream`
know how far they have been read, so that a training can be resumed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from numbers import Integral
from typing import Any

import numpy
from numpy.typing import ArrayLike, NDArray

from minigrad import Tensor

# --------------------------------------------------------------------------------------
# Sequences of several lengths in one batch
# --------------------------------------------------------------------------------------


def pad_sequences(
    sequences: Iterable[ArrayLike], value: float = 0, *, batch_first: bool = False
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Sequences of several lengths as one array, and their lengths.

    Args:
        sequences: arrays (time, ...) of one dtype that differ in their length alone.
        value: what stands behind the end of a sequence.
        batch_first: whether the result is (batch, time, ...).

    Returns the array (time, batch, ...), as long as the longest sequence and of their dtype,
    and the lengths (batch,), for the ``lengths`` of a layer.

    Raises ``ValueError`` if there are no sequences, one has no steps, or they differ in the
    shape of a step; ``TypeError`` if they differ in dtype, are not numbers or booleans, or
    cannot hold ``value``.

    >>> import minigrad_rnn as rnn
    >>> padded, lengths = rnn.pad_sequences([[1, 2, 3], [4, 5]])
    >>> padded
    array([[1, 4],
           [2, 5],
           [3, 0]])
    >>> lengths
    array([3, 2])
    """
    arrays = [to_host(sequence) for sequence in sequences]
    if not arrays:
        raise ValueError("there are no sequences to pad")
    first = arrays[0]
    for i, array in enumerate(arrays):
        if not array.ndim or not len(array):
            raise ValueError(
                f"a sequence is (time, ...) with at least one step; sequence {i} is {array.shape}"
            )
        if array.shape[1:] != first.shape[1:]:
            raise ValueError(
                f"sequences may differ in length alone; a step of sequence {i} is "
                f"{array.shape[1:]}, and one of sequence 0 is {first.shape[1:]}"
            )
        if array.dtype != first.dtype or array.dtype.kind not in "fiub":
            raise TypeError(
                "sequences are numbers or booleans of one dtype; "
                f"sequence {i} is {array.dtype}, and sequence 0 is {first.dtype}"
            )
    if not _holds(first.dtype, value):
        raise TypeError(f"the padding value {value!r} is no {first.dtype}")
    lengths = numpy.array([len(array) for array in arrays])
    padded = numpy.full((max(lengths), len(arrays), *first.shape[1:]), value, first.dtype)
    for i, array in enumerate(arrays):
        padded[: len(array), i] = array
    return _laid_out(padded, batch_first), lengths


def unpad_sequences(
    padded: ArrayLike, lengths: ArrayLike, *, batch_first: bool = False
) -> list[NDArray[Any]]:
    """The sequences that :func:`pad_sequences` has padded, as a list of arrays (time, ...).

    Raises ``ValueError`` if there is not one length per sequence, or one is longer than the
    array, or below 1; ``TypeError`` if they are not integers.

    >>> import minigrad_rnn as rnn
    >>> rnn.unpad_sequences([[1, 4], [2, 5], [3, 0]], lengths=[3, 2])
    [array([1, 2, 3]), array([4, 5])]
    """
    array = to_host(padded)
    if array.ndim < 2:
        raise ValueError(f"a padded batch is (time, batch, ...), not {array.shape}")
    rows = array if batch_first else array.swapaxes(0, 1)
    checked = _checked_lengths(lengths, rows.shape[1])
    if len(rows) != len(checked):
        raise ValueError(f"{len(rows)} sequences need as many lengths, not {len(checked)}")
    return [row[:length].copy() for row, length in zip(rows, checked, strict=True)]


def lengths_to_mask(
    lengths: ArrayLike, time: int | None = None, *, batch_first: bool = False
) -> NDArray[Any]:
    """Booleans (time, batch), True where a sequence has not ended.

    Args:
        lengths: (batch,), integers of at least 1.
        time: the number of steps; that of the longest sequence by default.
        batch_first: whether the result is (batch, time).

    Raises ``ValueError`` if a length is below 1 or above ``time``; ``TypeError`` if they are
    not integers.

    >>> import minigrad_rnn as rnn
    >>> rnn.lengths_to_mask([3, 1])
    array([[ True,  True],
           [ True, False],
           [ True, False]])
    """
    checked = _checked_lengths(lengths, time)
    steps = numpy.arange(max(checked) if time is None else time)
    return _laid_out(steps[:, None] < checked, batch_first)


def mask_to_lengths(mask: ArrayLike, *, batch_first: bool = False) -> NDArray[Any]:
    """The lengths (batch,) of the sequences of a mask (time, batch) without holes.

    Raises ``ValueError`` if the mask has a hole or a sequence without any step, which no
    lengths can say; ``TypeError`` if it is not boolean.

    >>> import minigrad_rnn as rnn
    >>> rnn.mask_to_lengths([[True, True], [True, False], [True, False]])
    array([3, 1])
    """
    array = to_host(mask)
    if array.dtype != bool:
        raise TypeError(f"a mask is boolean, not {array.dtype}: write mask != 0")
    if array.ndim != 2:
        raise ValueError(f"a mask is (time, batch), not {array.shape}")
    array = _laid_out(array, batch_first)
    lengths = array.sum(0)
    for i in numpy.flatnonzero((array[1:] > array[:-1]).any(0) | (lengths == 0)):
        problem = "has a hole or begins late" if lengths[i] else "has no steps"
        raise ValueError(f"sequence {i} of the mask {problem}: hand the layer the mask itself")
    return lengths


def bucket_by_length(
    lengths: ArrayLike, batch_size: int, *, padding: float = 0.1, rng: Any = None
) -> list[NDArray[Any]]:
    """Batches of sequences of similar length, as arrays of their positions.

    The sequences are sorted by length and cut into batches. Every sequence is in one of them.

    Args:
        lengths: (sequences,), integers of at least 1.
        batch_size: how many sequences a batch has at most.
        padding: the share of a batch, once padded, that may be padding. A batch ends before
            it is full where the next sequence would bring it above that.
        rng: generator or seed: sequences of the same length, and the batches, are shuffled.
            ``None`` leaves the batches sorted, shortest first.

    Raises ``ValueError`` if there are no sequences, a length is below 1, or ``batch_size`` or
    ``padding`` make no sense; ``TypeError`` if lengths are not integers.

    >>> import minigrad_rnn as rnn
    >>> rnn.bucket_by_length([9, 2, 8, 2, 7], batch_size=2)
    [array([1, 3]), array([4, 2]), array([0])]
    """
    checked = _checked_lengths(lengths)
    if batch_size < 1:
        raise ValueError(f"batch_size is at least 1, not {batch_size}")
    if not 0 <= padding < 1:
        raise ValueError(f"padding is a share of at least 0 and below 1, not {padding}")
    generator = None if rng is None else numpy.random.default_rng(rng)
    order = numpy.arange(len(checked)) if generator is None else generator.permutation(len(checked))
    order = order[numpy.argsort(checked[order], kind="stable")]
    batches: list[list[int]] = []
    valid = 0  # steps in the last batch that are not padding
    for position in order:
        length = int(checked[position])
        size = len(batches[-1]) + 1 if batches else 0
        if batches and size <= batch_size and valid + length >= (1 - padding) * size * length:
            batches[-1].append(position)
            valid += length
        else:
            batches.append([position])
            valid = length
    found = [numpy.array(batch) for batch in batches]
    return found if generator is None else [found[i] for i in generator.permutation(len(found))]


class Batches(Iterator[NDArray[Any]]):
    """Shuffled batches of the positions of sequences, epoch after epoch, without end.

    In every epoch each sequence is in one batch, as :func:`bucket_by_length` has it, in an
    order that follows from ``seed`` and the number of the epoch.

    Args:
        lengths: (sequences,), integers of at least 1: those of similar length come together.
            Or how many sequences there are, if they are of one length.
        batch_size: how many sequences a batch has at most.
        seed: of the orders.
        padding: the share of a batch, once padded, that may be padding.

    Attributes:
        epoch: the epoch that the last batch was of, from 0 on.
        position: how many batches of that epoch were read.
        per_epoch: the number of batches in an epoch.

    Raises what :func:`bucket_by_length` raises.

    >>> import minigrad_rnn as rnn
    >>> batches = rnn.Batches(5, batch_size=2)
    >>> [next(batches) for _ in range(batches.per_epoch)]
    [array([1]), array([2, 4]), array([3, 0])]
    """

    def __init__(
        self, lengths: ArrayLike | int, batch_size: int, *, seed: int = 0, padding: float = 0.1
    ) -> None:
        self.lengths = numpy.ones(lengths, int) if isinstance(lengths, Integral) else lengths
        self.batch_size = batch_size
        self.seed = seed
        self.padding = padding
        self._begin(0)
        self.per_epoch = len(self._order)

    def _begin(self, epoch: int, position: int = 0) -> None:
        self.epoch = epoch
        self.position = position
        self._order = bucket_by_length(
            self.lengths, self.batch_size, padding=self.padding, rng=[self.seed, epoch]
        )

    def __next__(self) -> NDArray[Any]:
        """The positions of the next batch."""
        if self.position == self.per_epoch:
            self._begin(self.epoch + 1)
        self.position += 1
        return self._order[self.position - 1]

    def state_dict(self) -> dict[str, Any]:
        """The epoch and the position in it."""
        return {"epoch": numpy.array(self.epoch), "position": numpy.array(self.position)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the batches that ``state`` was taken from stopped.

        Raises ``ValueError`` if these have fewer batches.
        """
        position = int(state["position"])
        if position > self.per_epoch:
            raise ValueError(f"there are {self.per_epoch} batches, and {position} were read")
        self._begin(int(state["epoch"]), position)


def to_host(given: Any) -> NDArray[Any]:
    """``given`` as a NumPy array; a tensor on a GPU is waited for."""
    return numpy.asarray(given.to("cpu") if isinstance(given, Tensor) else given)


def _checked_lengths(lengths: ArrayLike, time: int | None = None) -> NDArray[Any]:
    checked = to_host(lengths)
    if checked.ndim != 1 or not checked.size:
        raise ValueError(f"lengths are one integer for each sequence, not {checked.shape}")
    if checked.dtype.kind not in "iu":
        raise TypeError(f"lengths are integers, one for each sequence, not {checked.dtype}")
    if checked.min() < 1:
        raise ValueError(
            f"sequence {checked.argmin()} has length {checked.min()}, and the shortest has 1 step: "
            "leave empty sequences out"
        )
    if time is not None and checked.max() > time:
        raise ValueError(
            f"sequence {checked.argmax()} has length {checked.max()}, and there are {time} steps"
        )
    return checked


def _holds(dtype: Any, value: float) -> bool:
    """Whether a number is one of that dtype, up to rounding."""
    if dtype.kind in "fb":
        return dtype.kind == "f" or value in (0, 1)
    limits = numpy.iinfo(dtype)
    return value % 1 == 0 and limits.min <= value <= limits.max


def _laid_out(array: NDArray[Any], batch_first: bool) -> NDArray[Any]:
    """(time, batch, ...) as it is wanted; and the way back."""
    return array.swapaxes(0, 1) if batch_first else array


# --------------------------------------------------------------------------------------
# One long sequence
# --------------------------------------------------------------------------------------


def shift(
    sequence: ArrayLike, ahead: int = 1, *, start: ArrayLike | None = None
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Inputs and targets for predicting what comes next:  target_t = input_(t + ahead).

    Args:
        sequence: (time, ...): one sequence, or a batch of them, time first.
        ahead: how many steps the target lies ahead.
        start: what stands for the inputs before the first step, (...) or one number, so that
            the first ``ahead`` steps are predicted, too, and no step is left out. Without it
            inputs and targets are shorter than the sequence.

    Raises ``ValueError`` if the sequence is too short for one target, or ``ahead`` below 1.

    >>> import minigrad_rnn as rnn
    >>> rnn.shift([1, 2, 3])
    (array([1, 2]), array([2, 3]))
    >>> rnn.shift([1, 2, 3], start=0)
    (array([0, 1, 2]), array([1, 2, 3]))
    """
    array = to_host(sequence)
    if ahead < 1:
        raise ValueError(f"targets lie at least 1 step ahead, not {ahead}")
    if start is not None and array.ndim:
        before = numpy.broadcast_to(numpy.asarray(start), (ahead, *array.shape[1:]))
        array = numpy.concatenate([before.astype(array.dtype, casting="same_kind"), array])
    if not array.ndim or len(array) <= ahead:
        raise ValueError(
            f"a sequence (time, ...) of {array.shape} has no target {ahead} steps ahead"
        )
    return array[:-ahead], array[ahead:]


def random_window(
    base: int,
    *,
    rng: numpy.random.Generator,
    halved: float = 0.05,
    deviation: float = 5.0,
    minimum: int = 5,
    maximum: int | None = None,
) -> tuple[int, float]:
    """A random number of steps for the next window, and the factor of its learning rate.

    With fixed windows the same steps are always the first of a window, whose gradient
    reaches nowhere. So the length is drawn anew for every window, from a normal distribution
    around ``base``, or now and then around half of it:

        steps ~ N(base, deviation)       with probability  1 - halved
        steps ~ N(base / 2, deviation)   with probability  halved

    rounded towards zero, within ``minimum`` and ``maximum``. The mean loss of a short window
    has a gradient as large as that of a long one, so the learning rate is multiplied by
    ``steps / base``.

    Merity, Keskar and Socher, Regularizing and optimizing LSTM language models, 2018.

    Raises ``ValueError`` for settings that make no sense; ``TypeError`` if ``rng`` is not a
    generator (a seed would draw the same length every time).

    >>> import numpy as np, minigrad_rnn as rnn
    >>> rng = np.random.default_rng(3)
    >>> stream = rnn.Stream(range(1000), batch_size=4)
    >>> for _ in range(2):
    ...     steps, factor = rnn.random_window(20, rng=rng)
    ...     inputs, targets, fresh = stream.window(steps, rest=True)
    ...     print(inputs.shape, factor)
    (7, 4) 0.35
    (17, 4) 0.85
    """
    if not isinstance(rng, numpy.random.Generator):
        raise TypeError(
            f"rng is a generator that every window draws from, such as "
            f"numpy.random.default_rng(0), not a {type(rng).__name__}"
        )
    if not 0 <= halved <= 1 or not deviation >= 0:
        raise ValueError(
            f"halved is a probability and deviation at least 0, not {halved} and {deviation}"
        )
    if not 1 <= minimum <= base or (maximum is not None and maximum < base):
        raise ValueError(
            f"a base of {base} steps is not between the minimum {minimum} and the maximum {maximum}"
        )
    mean = base / 2 if rng.random() < halved else base
    steps = max(minimum, int(rng.normal(mean, deviation)))
    steps = steps if maximum is None else min(steps, maximum)
    return steps, steps / base


class Stream:
    """A long sequence of tokens, read in windows by several rows in parallel.

    The sequence is cut into ``batch_size`` rows of equal length, so that row i of a window
    continues row i of the window before: the state can be carried on. At the end of the rows
    the reading begins anew, and the state must be reset.

    Args:
        tokens: (length,), integers; the last few that do not fill all rows are not read.
        batch_size: the number of rows.

    Attributes:
        position: where the next window starts; may be set, to resume.
        length: the number of steps in a row, each with the token after it as its target.

    Raises ``ValueError`` if there are too few tokens for the rows.

    >>> import minigrad_rnn as rnn
    >>> stream = rnn.Stream(range(11), batch_size=2)
    >>> inputs, targets, fresh = stream.window(3)
    >>> inputs.T, targets.T, fresh
    (array([[0, 1, 2],
           [5, 6, 7]]), array([[1, 2, 3],
           [6, 7, 8]]), True)
    """

    def __init__(self, tokens: ArrayLike, batch_size: int) -> None:
        whole = to_host(tokens)
        if whole.ndim != 1 or whole.dtype.kind not in "iu":
            raise ValueError(
                f"a stream is one sequence of integers, not {whole.shape} {whole.dtype}"
            )
        self.length = (len(whole) - 1) // batch_size if batch_size > 0 else 0
        if self.length < 1:
            raise ValueError(
                f"{len(whole)} tokens are too few for {batch_size} rows of at least 2 tokens"
            )
        used = batch_size * self.length
        self._inputs = whole[:used].reshape(batch_size, self.length).T
        self._targets = whole[1 : used + 1].reshape(batch_size, self.length).T
        self.position = 0

    def window(self, steps: int, *, rest: bool = False) -> tuple[NDArray[Any], NDArray[Any], bool]:
        """The next ``steps`` steps: inputs and targets (time, batch), and whether they are
        the first of the rows, before which the state must be reset.

        A rest of the rows that is shorter than a window is skipped; with ``rest=True`` it is
        a shorter window, so that every step is read.

        Raises ``ValueError`` if the rows are shorter than one window, without ``rest=True``.
        """
        if steps < 1 or (steps > self.length and not rest):
            raise ValueError(f"a window of {steps} steps does not fit rows of {self.length} steps")
        if self.position < 0:
            raise ValueError(f"the position in a stream is at least 0, not {self.position}")
        left = self.length - self.position
        if left < (1 if rest else steps):
            self.position, left = 0, self.length
        start, self.position = self.position, self.position + min(steps, left)
        taken = slice(start, self.position)
        return self._inputs[taken], self._targets[taken], start == 0

    def state_dict(self) -> dict[str, Any]:
        """The position."""
        return {"position": numpy.array(self.position)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the stream that ``state`` was taken from stopped.

        Raises ``ValueError`` if the rows of this one are shorter.
        """
        position = int(state["position"])
        if position > self.length:
            raise ValueError(f"rows of {self.length} steps have no position {position}")
        self.position = position
