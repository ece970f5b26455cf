"""GPUs: whether there are any, their memory, and waiting for them.

>>> import minigrad as mg
>>> device = "cuda" if mg.cuda.is_available() else "cpu"
"""

from __future__ import annotations

from typing import Any

from minigrad.arrays import cuda_device, cupy


def is_available() -> bool:
    """Whether CuPy is installed and finds a GPU that it can use."""
    try:
        return bool(cupy().is_available())
    except ImportError:
        return False


def device_count() -> int:
    """How many GPUs there are; 0 without CuPy."""
    return int(cupy().cuda.runtime.getDeviceCount()) if is_available() else 0


def synchronize(device: str | None = None) -> None:
    """Wait until a device has computed all that it was asked to; the current one by default.

    Operations only enqueue their work and return, so a clock is read after this.
    """
    cuda_device(device).synchronize()


def memory_allocated(device: str | None = None) -> int:
    """The bytes that arrays on a device take now; each counts in units of 512."""
    with cuda_device(device):
        return int(_pool().used_bytes())


def memory_reserved(device: str | None = None) -> int:
    """The bytes that CuPy's memory pool holds on a device, those of freed arrays included."""
    with cuda_device(device):
        return int(_pool().total_bytes())


def empty_cache(device: str | None = None) -> None:
    """Give the memory of freed arrays on a device back, for other programs to use."""
    with cuda_device(device):
        _pool().free_all_blocks()


def _pool() -> Any:
    return cupy().get_default_memory_pool()
