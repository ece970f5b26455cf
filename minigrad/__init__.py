"""minigrad: tape-based reverse-mode automatic differentiation on NumPy or CuPy arrays."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from minigrad import cuda, nn, optim
from minigrad.arrays import device, set_default_dtype
from minigrad.checkpoint import checkpoint
from minigrad.derivatives import grad, hessian, hvp, jacobian, jvp, value_and_grad, vjp
from minigrad.diagnosis import debug
from minigrad.ops import *  # noqa: F403
from minigrad.ops import __all__ as _operations
from minigrad.ops import linalg
from minigrad.primitive import primitive
from minigrad.scanning import ScanError, scan, set_workspace_limit
from minigrad.serialization import SavedTensors, load, save
from minigrad.tape import Tape, no_grad
from minigrad.tensor import TapeError, Tensor, asarray, from_dlpack, tensor

if TYPE_CHECKING:
    from minigrad import testing, training

__version__ = "0.1.0"

__all__ = [
    "SavedTensors",
    "ScanError",
    "Tape",
    "TapeError",
    "Tensor",
    "asarray",
    "checkpoint",
    "cuda",
    "debug",
    "device",
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
    "scan",
    "set_default_dtype",
    "set_workspace_limit",
    "tensor",
    "testing",
    "training",
    "value_and_grad",
    "vjp",
]
__all__ += _operations


def __getattr__(name: str) -> Any:
    if name in ("testing", "training"):  # not needed to compute, and so imported on first use
        return import_module(f"minigrad.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
