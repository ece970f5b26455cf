"""ClipLog: what clipping did to the gradients, step by step."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import acos, degrees, nan
from typing import NamedTuple

import minigrad as mg
from minigrad import Tensor
from minigrad_rnn.clipping.norms import norm_of_all, unrecorded


class ClipRecord(NamedTuple):
    """What one call changed, in all gradients as one vector.

    Attributes:
        norm_before: the 2-norm that the gradients had.
        norm_after: the one that they were left with; 0 if the step was skipped.
        fraction_clipped: which part of the elements that were not 0 was changed. If the
            gradients are scaled together, that is 1 or 0.
        cosine: of the angle between before and after; NaN if one of them is 0 or not finite.
    """

    norm_before: float
    norm_after: float
    fraction_clipped: float
    cosine: float

    @property
    def angle(self) -> float:
        """By how many degrees clipping turned the gradient."""
        return degrees(acos(self.cosine))


class ClipLog:
    """A record of every call of the clipping functions that it is handed to as ``log``.

    A record stays on the device where the gradients are; only :meth:`read` waits for it.
    It costs several passes over the gradients.

    Args:
        capacity: how many records to keep, the latest; all by default.

    Raises ``ValueError`` if the capacity is below 1.

    >>> import minigrad as mg, minigrad_rnn as rnn
    >>> w = mg.tensor([0.0, 0.0], requires_grad=True)
    >>> w.grad = mg.tensor([3.0, 4.0])
    >>> log = rnn.ClipLog()
    >>> rnn.clip_grad_value_([w], 3.0, log=log)
    >>> (record,) = log.read()
    >>> record.norm_before, record.fraction_clipped, round(record.angle, 2)
    (5.0, 0.5, 8.13)
    """

    def __init__(self, capacity: int | None = None) -> None:
        if capacity is not None and capacity < 1:
            raise ValueError(f"a log has room for at least 1 record, not {capacity}")
        self._records: deque[Tensor] = deque(maxlen=capacity)

    @unrecorded()
    def add(self, before: Sequence[Tensor], after: Sequence[Tensor]) -> None:
        """Record gradients before and after clipping; for clipping functions of your own."""
        old, new = norm_of_all(before, 2.0), norm_of_all(after, 2.0)
        pairs = list(zip(before, after, strict=True))
        # The distance of the unit vectors tells small angles apart, where their product is 1.
        apart = [a / new.unit / new.root - b / old.unit / old.root for b, a in pairs]
        distance = norm_of_all(apart, 2.0).value
        cosine = mg.maximum(1.0 - distance * distance / 2.0, -1.0)
        present = mg.stack([(b != 0.0).sum() for b in before]).sum()
        changed = mg.stack([(a != b).sum() for b, a in pairs]).sum()
        record = [
            old.value,
            new.value,
            changed / mg.maximum(present, 1),
            mg.where(old.root * new.root > 0.0, cosine, nan),
        ]
        self._records.append(mg.stack(record))

    def read(self) -> list[ClipRecord]:
        """All records, oldest first; on a GPU this waits for them, once for all."""
        rows = mg.stack(list(self._records)).tolist() if self._records else []
        return [ClipRecord(*row) for row in rows]

    def clear(self) -> None:
        """Forget all records."""
        self._records.clear()

    def __len__(self) -> int:
        return len(self._records)

    def __repr__(self) -> str:
        return f"ClipLog({len(self)} records)"
