"""Decoding: from what a model predicts to what is written."""

from __future__ import annotations

from typing import Any

import numpy
from numpy.typing import NDArray

from minigrad import Tensor


def sample(logits: Tensor, temperature: float = 1.0, *, rng: Any = None) -> NDArray[numpy.int64]:
    """Draw one class per row from  softmax(logits / temperature).

    Args:
        logits: (..., classes).
        temperature: 1 draws as the model predicts, less is more cautious; 0 takes the most
            likely class.
        rng: generator or seed.

    Returns integers (...), on the host.

    Raises ``ValueError`` if the temperature is negative, or the largest logit of a row is not
    finite.

    >>> import minigrad as mg, minigrad_rnn as rnn
    >>> rnn.sample(mg.tensor([[0.0, 3.0, 1.0]]), temperature=0.0)
    array([1])
    """
    if not temperature >= 0.0:
        raise ValueError(f"the temperature is at least 0, not {temperature}")
    scores = logits.numpy().astype(numpy.float64)
    largest = scores.max(-1, keepdims=True)
    if not numpy.isfinite(largest).all():
        raise ValueError(
            "cannot sample from logits that contain NaN or infinity, or -infinity alone"
        )
    if temperature == 0.0:
        return scores.argmax(-1)
    # The largest of the logits with Gumbel noise is distributed as softmax(logits).
    noise = numpy.random.default_rng(rng).gumbel(size=scores.shape)
    with numpy.errstate(over="ignore"):  # far below the largest is as good as never
        relative = (scores - largest) / temperature
    return (relative + noise).argmax(-1)
