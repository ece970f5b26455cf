"""What the tests of the examples share."""

from __future__ import annotations

import signal
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

import minigrad as mg
import minigrad_rnn as rnn


@pytest.fixture
def press_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """A function that has Ctrl-C pressed while the update of that number is made."""

    def press(update: int) -> None:
        real, updates = rnn.clip_grad_norm_, count(1)

        def clip_and_press(*args: Any, **settings: Any) -> mg.Tensor:
            if next(updates) == update:
                signal.raise_signal(signal.SIGINT)
            return real(*args, **settings)

        monkeypatch.setattr(rnn, "clip_grad_norm_", clip_and_press)

    return press
