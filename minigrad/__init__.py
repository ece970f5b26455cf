"""minigrad: tape-based reverse-mode automatic differentiation on NumPy or CuPy arrays."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from minigrad import nn, optim
from minigrad.arrays import set_default_dtype
from minigrad.checkpoint import checkpoint
from minigrad.derivatives import grad, hessian, hvp, jacobian, jvp, value_and_grad, vjp
from minigrad.diagnosis import debug
from minigrad.ops import *  # noqa: F403
from minigrad.ops import __all__ as _operations
from minigrad.ops import linalg
from minigrad.primitive import primitive
from minigrad.serialization import SavedTensors, load, save
from minigrad.tape import Tape, no_grad
from minigrad.tensor import TapeError, Tensor, asarray, from_dlpack, tensor

if TYPE_CHECKING:
    from minigrad import testing

__version__ = "0.1.0"

__all__ = [
    "SavedTensors",
    "Tape",
    "TapeError",
    "Tensor",
    "asarray",
    "checkpoint",
    "debug",
    "from_dlpack",
    "grad",
    "hessian",
    "hvp",
    "jacobian",
    "jvp",
    "linalg",
    "load",
    "nn",
    "no_grad",
    "optim",
    "primitive",
    "save",
    "set_default_dtype",
    "tensor",
    "testing",
    "value_and_grad",
    "vjp",
]
__all__ += _operations


def __getattr__(name: str) -> Any:
    if name == "testing":  # not needed to compute, and so imported on first use
        return import_module("minigrad.testing")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
