"""Sequences: cutting a long stream into parallel rows that continue from window to window."""

from __future__ import annotations

from typing import Any

import numpy
from numpy.typing import ArrayLike, NDArray


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
        whole = numpy.asarray(tokens)
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

    def window(self, steps: int) -> tuple[NDArray[Any], NDArray[Any], bool]:
        """The next ``steps`` steps: inputs and targets (time, batch), and whether they are
        the first of the rows, before which the state must be reset.

        A rest of the rows that is shorter than a window is skipped.

        Raises ``ValueError`` if the rows are shorter than one window.
        """
        if not 1 <= steps <= self.length:
            raise ValueError(f"a window of {steps} steps does not fit rows of {self.length} steps")
        if self.position < 0:
            raise ValueError(f"the position in a stream is at least 0, not {self.position}")
        if self.position + steps > self.length:
            self.position = 0
        start, self.position = self.position, self.position + steps
        taken = slice(start, self.position)
        return self._inputs[taken], self._targets[taken], start == 0
