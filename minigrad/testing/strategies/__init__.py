"""Hypothesis strategies: shapes, axes, indices, arrays, tensors, sequences and programs."""

try:
    import hypothesis  # noqa: F401
except ImportError as error:
    raise ImportError(
        "minigrad.testing.strategies needs hypothesis: install minigrad[testing]"
    ) from error

from minigrad.testing.strategies.programs import Program, programs
from minigrad.testing.strategies.shapes import axes, broadcastable_shapes, indices, shapes
from minigrad.testing.strategies.values import arrays, dtypes, masks, sequences, tensors

__all__ = [
    "Program",
    "arrays",
    "axes",
    "broadcastable_shapes",
    "dtypes",
    "indices",
    "masks",
    "programs",
    "sequences",
    "shapes",
    "tensors",
]
