"""Two devices with their memory, and a record of the times that the host waits for them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

#: How many devices there are.
COUNT = 2


class CUDARuntimeError(RuntimeError):
    """What CuPy raises for whatever goes wrong in CUDA."""


# --------------------------------------------------------------------------------------
# Waiting
# --------------------------------------------------------------------------------------

_records: list[list[str]] = []


def wait(reason: str) -> None:
    """Enter in all open records that the host waits for the device."""
    for record in _records:
        record.append(reason)


@contextmanager
def waits() -> Iterator[list[str]]:
    """What the host waits for in this block: names of methods and functions, in their order."""
    record: list[str] = []
    _records.append(record)
    try:
        yield record
    finally:
        _records.remove(record)


# --------------------------------------------------------------------------------------
# Devices
# --------------------------------------------------------------------------------------


class _Thread(threading.local):
    """What each thread has of its own: the number of its current device."""

    device = 0


thread = _Thread()


def current() -> int:
    """The number of the current device of this thread."""
    return thread.device


class Device:
    """``cupy.cuda.Device``"""

    compute_capability = "00"

    def __init__(self, device: int | Device | None = None) -> None:
        self.id: int = current() if device is None else int(device)
        self._before: list[int] = []

    def use(self) -> None:
        if not 0 <= self.id < COUNT:
            raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        thread.device = self.id

    def synchronize(self) -> None:
        wait("Device.synchronize")

    def __enter__(self) -> Device:
        self._before.append(current())
        self.use()
        return self

    def __exit__(self, *error: object) -> None:
        thread.device = self._before.pop()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"

    def __int__(self) -> int:
        return self.id


def properties(device: int) -> dict[str, Any]:
    """``cupy.cuda.runtime.getDeviceProperties``, of which there are many more."""
    return {"name": b"stand-in", "totalGlobalMem": 0}


# --------------------------------------------------------------------------------------
# Memory
# --------------------------------------------------------------------------------------


class MemoryPool:
    """``cupy.cuda.MemoryPool``, of the current device: figures only."""

    def __init__(self) -> None:
        self._used = [0] * COUNT
        self._held = [0] * COUNT

    def take(self, device: int, nbytes: int) -> int:
        """Allocate, in units of 512 bytes; returns how much."""
        taken = -(-nbytes // 512) * 512
        self._used[device] += taken
        self._held[device] = max(self._held[device], self._used[device])
        return taken

    def give(self, device: int, taken: int) -> None:
        """Free what was taken; the pool goes on holding it."""
        self._used[device] -= taken

    def used_bytes(self) -> int:
        return self._used[current()]

    def total_bytes(self) -> int:
        return self._held[current()]

    def free_bytes(self) -> int:
        return self.total_bytes() - self.used_bytes()

    def free_all_blocks(self, stream: Any = None) -> None:
        self._held[current()] = self._used[current()]


pool = MemoryPool()
