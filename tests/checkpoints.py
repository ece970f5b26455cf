"""Comparing the checkpoints that the examples leave."""

from __future__ import annotations

from typing import Any

import numpy as np


def assert_equal(a: Any, b: Any) -> None:
    """Two checkpoints, or parts of them, hold the same bits, but for the seconds it took."""
    assert a.keys() == b.keys()
    for name in a:
        if isinstance(a[name], dict):
            assert_equal(a[name], b[name])
        elif name != "seconds":
            np.testing.assert_array_equal(a[name].numpy(), b[name].numpy(), err_msg=name)
