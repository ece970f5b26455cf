"""Between the host and the device that the tests run on: the CPU, unless ``--device`` says more."""

from __future__ import annotations

from typing import Any

import numpy as np

import minigrad as mg
from minigrad.arrays import is_array, to_numpy

#: The type of the arrays that tensors hold there.
ARRAY = type(mg.tensor(0.0).array)


def to_host(value: Any) -> np.ndarray[Any, Any]:
    """A tensor, an array of any library, or a number, as a NumPy array."""
    if isinstance(value, mg.Tensor):
        return value.numpy()
    return to_numpy(value) if is_array(value) else np.asarray(value)


def on_device(value: Any) -> Any:
    """A NumPy array as an array of the device's library; so are those in a tuple or list."""
    if isinstance(value, tuple | list):
        return type(value)(map(on_device, value))
    return mg.asarray(value).array if isinstance(value, np.ndarray) else value
