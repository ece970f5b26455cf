"""Scratch memory: arrays that all runs of a thread share, one run after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from math import prod
from threading import RLock, get_ident, local
from typing import Any
from weakref import WeakValueDictionary

from minigrad.arrays import Array
from minigrad.scanning.program import Kind


class _Depth(local):
    """How many runs of this thread are going on: an operation may scan something itself."""

    runs = 0


_depth = _Depth()


@contextmanager
def running() -> Iterator[Hashable]:
    """Around a run; who runs it: no two runs that go on at the same time have the same."""
    _depth.runs += 1
    try:
        yield get_ident(), _depth.runs
    finally:
        _depth.runs -= 1


class _Block:
    """An array that is counted, and to which weak references can be made, whatever it is."""

    #: The bytes of all blocks.
    total = 0
    #: Taken again by a block that is let go while another one is counted.
    lock = RLock()

    def __init__(self, array: Array) -> None:
        self.array = array
        with self.lock:
            _Block.total += array.nbytes

    def __del__(self) -> None:
        with self.lock:
            _Block.total -= self.array.nbytes


_blocks: WeakValueDictionary[Hashable, _Block] = WeakValueDictionary()


def scratch_nbytes() -> int:
    """The bytes of all scratch memory that there is."""
    return _Block.total


class Scratch:
    """Arrays to work in, which last until the same runner works with another scratch.

    All that are made for one runner hand out the same arrays, each of them one of a size after
    the other. An array is there as long as a scratch that has handed it out.
    """

    def __init__(self, runner: Hashable, device: str, xp: Any) -> None:
        #: Who may work in it.
        self.runner = runner
        self._device = device
        self._xp = xp
        self._blocks: list[_Block] = []
        self._handed_out: Counter[Hashable] = Counter()

    def empty(self, steps: int, kind: Kind) -> Array:
        """An array for so many steps."""
        size = steps * prod(kind.shape)
        sort = self.runner, self._device, kind.dtype, size
        place = *sort, self._handed_out[sort]
        block = _blocks.get(place)
        if block is None:
            block = _blocks[place] = _Block(self._xp.empty(size, kind.dtype))
        self._handed_out[sort] += 1
        self._blocks.append(block)
        return block.array.reshape(steps, *kind.shape)
