"""Forecasting: what is done to a series on the host, before a network reads it and afterwards.

Values are NumPy arrays (time, ...), in which NaN stands for what is missing. They are scaled,
the missing ones filled and marked, and cut into windows: some steps that are read, and the
steps after them to predict. Time comes first, as everywhere: a batch of windows is
(steps, batch, ...).
"""

from __future__ import annotations

from itertools import pairwise
from math import ceil
from typing import Any, Literal, get_args

import numpy
from numpy.typing import ArrayLike, NDArray

#: What is done about windows in which the time makes a jump.
Gaps = Literal["skip", "cross", "refuse"]


class Windows:
    """The windows over a series: ``steps`` inputs each, and ``horizon`` targets after them.

        inputs    t, ..., t + steps - 1
        targets   t + steps - 1 + ahead, ..., t + steps - 1 + ahead + horizon - 1

    for every t for which all of that lies in the series. Windows are numbered in its order.

    Args:
        times: (time,), datetime64 or numbers, or how many steps there are. Where they do not
            rise, another series begins, and no window lies in two of them.
        steps: how many steps are read.
        ahead: how far the first target lies after the last input.
        horizon: how many targets there are.
        gaps: what is done where two neighbours are not as far apart as most (as the median):
            ``"skip"`` leaves out the windows with such a gap, ``"cross"`` takes no notice, and
            ``"refuse"`` raises an error.

    Attributes:
        starts: (windows,), the t of each.
        times: (windows,), the time of the last target of each.

    Raises ``ValueError`` if there is no window, there is a gap and it is to be refused, or a
    setting makes no sense.

    >>> import numpy as np, minigrad_rnn as rnn
    >>> series = np.array([10.0, 11.0, 12.0, 13.0, 14.0])
    >>> windows = rnn.Windows(len(series), steps=2, ahead=2)
    >>> windows.inputs(series).T, windows.targets(series).T
    (array([[10., 11.],
           [11., 12.]]), array([[13.],
           [14.]]))
    """

    def __init__(
        self,
        times: ArrayLike | int,
        steps: int,
        *,
        ahead: int = 1,
        horizon: int = 1,
        gaps: Gaps = "skip",
    ) -> None:
        for name, count in (("steps", steps), ("ahead", ahead), ("horizon", horizon)):
            if count < 1:
                raise ValueError(f"{name} is at least 1, not {count}")
        if gaps not in get_args(Gaps):
            raise ValueError(f"gaps is 'skip', 'cross' or 'refuse', not {gaps!r}")
        stamps = numpy.arange(times) if isinstance(times, int) else numpy.asarray(times)
        if stamps.ndim != 1:
            raise ValueError(f"times are one for each step, not {stamps.shape}")
        self.steps = steps
        self.ahead = ahead
        self.horizon = horizon
        distances = numpy.diff(stamps)
        begins = distances <= numpy.zeros((), distances.dtype)
        if gaps != "cross" and not begins.all():
            jumps = ~begins & (distances != numpy.sort(distances[~begins])[(~begins).sum() // 2])
            if gaps == "refuse" and jumps.any():
                i = jumps.argmax()
                raise ValueError(
                    f"the series has {jumps.sum()} gaps, the first of them from {stamps[i]} to "
                    f"{stamps[i + 1]}: fill them with missing values, or let gaps be 'skip' or "
                    "'cross'"
                )
            begins |= jumps
        # The stretch that a step is in; a window begins and ends in the same.
        stretch = numpy.cumsum(numpy.append(False, begins)[: len(stamps)])
        length = steps + ahead + horizon - 1
        starts = numpy.arange(max(0, len(stamps) - length + 1))
        self.starts = starts[stretch[starts] == stretch[starts + length - 1]]
        if not len(self.starts):
            longest = numpy.bincount(stretch).max() if len(stamps) else 0
            raise ValueError(
                f"a window has {length} steps, and the longest stretch of the series without a "
                f"gap has {longest}"
            )
        self.times = stamps[self.starts + length - 1]
        self._first_times = stamps[self.starts + steps - 1 + ahead]

    def __len__(self) -> int:
        return len(self.starts)

    def inputs(self, series: ArrayLike, chosen: Any = slice(None)) -> NDArray[Any]:
        """What the chosen windows read of a series (time, ...): (steps, windows, ...)."""
        return self._taken(series, chosen, 0, self.steps)

    def targets(self, series: ArrayLike, chosen: Any = slice(None)) -> NDArray[Any]:
        """What the chosen windows are to predict of it: (horizon, windows, ...)."""
        return self._taken(series, chosen, self.steps - 1 + self.ahead, self.horizon)

    def _taken(self, series: ArrayLike, chosen: Any, after: int, count: int) -> NDArray[Any]:
        return numpy.asarray(series)[numpy.arange(count)[:, None] + self.starts[chosen] + after]

    def split(self, *shares: float) -> list[NDArray[Any]]:
        """The numbers of the windows in parts that follow each other in time.

        A target is in one part alone: a window with targets in two of them is in none. Inputs
        may reach back into the part before, as they are known when the forecast is made.

        Args:
            shares: that of each part, 1 together.

        Raises ``ValueError`` if the shares are not above 0 and 1 together, or leave nothing for
        a part.

        >>> import minigrad_rnn as rnn
        >>> rnn.Windows(11, steps=1).split(0.6, 0.2, 0.2)
        [array([0, 1, 2, 3, 4, 5]), array([6, 7]), array([8, 9])]
        """
        if not all(share > 0 for share in shares) or abs(sum(shares) - 1) > 1e-6:
            raise ValueError(f"shares are above 0, and 1 together, not {shares}")
        ordered = numpy.sort(self.times)
        ends = numpy.rint(numpy.cumsum(shares[:-1]) * len(ordered)).astype(int)
        cuts = [ordered[min(end, len(ordered) - 1)] for end in ends]
        parts = []
        for start, end in pairwise([None, *cuts, None]):
            inside = numpy.ones(len(self), bool)
            if start is not None:
                inside &= self._first_times >= start
            if end is not None:
                inside &= self.times < end
            parts.append(numpy.flatnonzero(inside))
        if not all(map(len, parts)):
            raise ValueError(f"{len(self)} windows are too few for parts of {shares}")
        return parts

    def extent(self, chosen: Any = slice(None)) -> NDArray[Any]:
        """The steps of the series that the chosen windows read or predict, (steps,) in order.

        >>> import minigrad_rnn as rnn
        >>> windows = rnn.Windows(11, steps=2)
        >>> windows.extent(windows.split(0.5, 0.5)[0])
        array([0, 1, 2, 3, 4, 5])
        """
        steps = numpy.arange(int(self.starts[-1]) + self.steps + self.ahead + self.horizon)
        return numpy.unique(
            numpy.concatenate(
                [self.inputs(steps, chosen).ravel(), self.targets(steps, chosen).ravel()]
            )
        )


class Scaler:
    """(x - mean) / std,  for each feature by itself.

    Mean and standard deviation are those of the values that it is made from, which should be
    those of the training part alone. Missing values do not count, and stay missing. A feature
    that is constant is not divided.

    Args:
        values: (..., features), numbers.

    Attributes:
        mean, std: (features,), float64.

    Raises ``ValueError`` if all values of a feature are missing, or one is infinite.

    >>> import numpy as np, minigrad_rnn as rnn
    >>> scaler = rnn.Scaler([[1.0, 5.0], [3.0, 5.0], [np.nan, 5.0]])
    >>> scaler([[3.0, 6.0]]), scaler.inverse([[1.0, 1.0]])
    (array([[1., 1.]]), array([[3., 6.]]))
    """

    def __init__(self, values: ArrayLike) -> None:
        array = numpy.asarray(values, float)
        rows = array.reshape(-1, array.shape[-1])
        known = numpy.isfinite(rows)
        if numpy.isinf(rows).any() or not known.any(0).all():
            column = int(numpy.argmax(numpy.isinf(rows).any(0) | ~known.any(0)))
            raise ValueError(
                f"feature {column} cannot be scaled: it has an infinite value, or none at all"
            )
        self.mean = rows.mean(0, where=known)
        deviation = rows.std(0, where=known)
        self.std = numpy.where(deviation > 0.0, deviation, 1.0)

    def __call__(self, values: ArrayLike) -> NDArray[Any]:
        """The values (..., features), scaled."""
        return (numpy.asarray(values) - self.mean) / self.std

    def inverse(self, scaled: ArrayLike) -> NDArray[Any]:
        """The values (..., features) that are scaled to these."""
        return numpy.asarray(scaled) * self.std + self.mean


def fill_missing(values: ArrayLike, value: float = 0.0) -> tuple[NDArray[Any], NDArray[Any]]:
    """The values with ``value`` for the missing ones, and booleans: where one is there.

    A network that is given both can tell a missing value from one that is 0, which is the mean
    once it is scaled. As the mask of a loss, the booleans leave missing targets out. Lipton,
    Kale and Wetzel, Directly modeling missing data in sequences with RNNs, 2016.

    >>> import numpy as np, minigrad_rnn as rnn
    >>> rnn.fill_missing([1.0, np.nan])
    (array([1., 0.]), array([ True, False]))
    """
    array = numpy.asarray(values)
    there = ~numpy.isnan(array)
    return numpy.where(there, array, numpy.asarray(value, array.dtype)), there


def fill_forward(values: ArrayLike) -> NDArray[Any]:
    """The values (time, ...) with the last one before it for each that is missing.

    Those before the first value stay missing.

    >>> import numpy as np, minigrad_rnn as rnn
    >>> rnn.fill_forward([np.nan, 1.0, np.nan, np.nan, 2.0])
    array([nan,  1.,  1.,  1.,  2.])
    """
    array = numpy.asarray(values)
    steps = numpy.arange(len(array)).reshape(-1, *[1] * (array.ndim - 1))
    last = numpy.maximum.accumulate(numpy.where(numpy.isnan(array), 0, steps))
    return numpy.take_along_axis(array, last, axis=0)


def conformal_margin(
    lower: ArrayLike, upper: ArrayLike, targets: ArrayLike, coverage: float
) -> NDArray[Any]:
    """How much wider intervals must be, at both ends, to cover a share of targets.

        margin = the ceil((n + 1) coverage)-th smallest of  max(lower - target, target - upper)

    Of targets that are like these n, intervals from  lower - margin  to  upper + margin  then
    cover at least that share. It is negative where intervals are too wide. The targets must not
    have been learned from: take those of a validation part. Romano, Patterson and Candès,
    Conformalized quantile regression, 2019.

    Args:
        lower, upper: (n, ...), the ends of the intervals.
        targets: (n, ...); missing ones do not count.
        coverage: the share, above 0 and below 1.

    Returns the margins (...).

    Raises ``ValueError`` if there are too few targets for the share, or it makes no sense.

    >>> import minigrad_rnn as rnn
    >>> float(rnn.conformal_margin([0.0] * 4, [1.0] * 4, [0.5, 0.9, 1.25, 1.5], coverage=0.6))
    0.25
    """
    if not 0.0 < coverage < 1.0:
        raise ValueError(f"coverage is a share above 0 and below 1, not {coverage}")
    wanted = numpy.asarray(targets, float)
    outside = numpy.maximum(lower - wanted, wanted - upper)
    count = (~numpy.isnan(outside)).sum(0)
    # Rounded, so that (n + 1) coverage is an integer where it should be.
    rank = numpy.ceil(numpy.round((count + 1) * coverage, 9)).astype(int)
    if numpy.any(rank > count):
        fewest = ceil(round(coverage / (1 - coverage), 9))
        raise ValueError(
            f"a coverage of {coverage} takes at least {fewest} targets, not {count.min()}"
        )
    ordered = numpy.sort(outside, axis=0)  # NaN comes last
    return numpy.take_along_axis(ordered, rank[None] - 1, axis=0)[0]
