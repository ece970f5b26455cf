"""assert_no_leak: nothing stays in memory that was made by a block, or by calling a function.

Objects are counted by type, and bytes by ``tracemalloc``, which knows NumPy's arrays, with the
cyclic collector switched off: what only a collector would free counts as a leak.
"""

from __future__ import annotations

import gc
import linecache
import os
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar, overload

import numpy as np

K = TypeVar("K")

#: How many frames of every allocation are remembered, to find the user's line among them.
_FRAMES: Final = 25
#: The libraries whose lines are not the user's.
_INNER: Final = ("minigrad", "numpy", "cupy")
#: Allocations of these files are those of the measurement itself.
_OWN: Final = (__file__, tracemalloc.__file__)
#: How many types, and how many lines, a message names.
_NAMED: Final = 8


@overload
def assert_no_leak(*, slack: int = ...) -> AbstractContextManager[None]: ...
@overload
def assert_no_leak(
    function: Callable[[], object], *, calls: int = ..., slack: int = ...
) -> None: ...
def assert_no_leak(
    function: Callable[[], object] | None = None, *, calls: int = 10, slack: int = 16_384
) -> Any:
    """Raise ``AssertionError`` if objects or memory are left behind; says which, and where.

    Without a function this is a context manager, and what its block makes must be gone at its
    end. Everything counts: the value of a name that is bound in the block, a cache that is
    filled for the first time, and an array that takes the place of one from before.

    With a function none of this counts: it is called twice to warm up, then ``calls`` times.
    This is the form for a training step.

    Args:
        function: takes no arguments; what it returns is dropped.
        calls: how often it is called. Objects of a type leak if there is one more with every
            call, arrays if they take more bytes than before.
        slack: how many more bytes of Python's own memory there may be. The interpreter keeps
            some of what was freed; a small leak, of plain numbers, needs more calls to show.

    Raises ``ValueError`` if there are no calls.

    >>> import minigrad as mg
    >>> from minigrad.testing import assert_no_leak
    >>> x = mg.tensor([1.0, 2.0], requires_grad=True)
    >>> def step():
    ...     with mg.Tape() as tape:
    ...         loss = mg.sum(x * x)
    ...     tape.backward(loss)
    >>> assert_no_leak(step)
    >>> kept = []
    >>> assert_no_leak(lambda: kept.append(mg.tanh(x)))
    Traceback (most recent call last):
    AssertionError: 10 calls left behind
      +10 minigrad.tensor.Tensor
      +80 bytes of arrays
      ...
    """
    __tracebackhide__ = True
    if function is None:
        return _block(slack)
    if calls < 1:
        raise ValueError(f"there is at least 1 call, not {calls}")
    with _measuring():
        function()
        function()
        before = _first_census()
        for _ in range(calls):
            function()
        _compare(f"{calls} calls", before, _census(), calls, slack)
    return None


@contextmanager
def _block(slack: int) -> Iterator[None]:
    __tracebackhide__ = True
    with _measuring():
        before = _first_census()
        yield
        _compare("the block", before, _census(), 1, slack)


@contextmanager
def tracing() -> Iterator[None]:
    """``tracemalloc`` knows what is allocated in this block, and by which lines."""
    if tracemalloc.is_tracing():
        yield
        return
    tracemalloc.start(_FRAMES)
    try:
        yield
    finally:
        tracemalloc.stop()


@contextmanager
def _measuring() -> Iterator[None]:
    """Allocations are traced, and only reference counting frees memory."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        with tracing():
            yield
    finally:
        if collecting:
            gc.enable()


class _Census(NamedTuple):
    """What is in memory: objects by type, and bytes by the line that asked for them."""

    objects: dict[type, int]
    arrays: dict[str, int]
    own: dict[str, int]
    on_device: int


def _first_census() -> _Census:
    gc.collect()  # empties, too, what the interpreter keeps of freed objects to make new ones of
    for _ in range(2):  # the second finds the first in memory, as the last will find the second
        census = _census()
    return census


def _compare(subject: str, before: _Census, now: _Census, least: int, slack: int) -> None:
    """Raise ``AssertionError`` for what there is more of now than before.

    Types count from ``least`` objects on, and Python's own memory above ``slack`` bytes.
    """
    __tracebackhide__ = True
    types = [
        (kind, number)
        for kind, number in _largest(_grown(now.objects, before.objects))
        if number >= least
    ]
    arrays, own = _grown(now.arrays, before.arrays), _grown(now.own, before.own)
    on_device = now.on_device - before.on_device
    in_cycles = gc.collect()
    if sum(own.values()) > slack:
        own = _grown(_census().own, before.own)
    found = [f"+{number} {_name(kind)}" for kind, number in types]
    if sum(arrays.values()) > 0:
        found.append(f"+{sum(arrays.values()):,} bytes of arrays")
    if on_device > 0:
        found.append(f"+{on_device:,} bytes of arrays on the GPU")
    if sum(own.values()) > slack:
        found.append(f"+{sum(own.values()):,} bytes of Python's own")
    if not found:
        return
    lines = {line: arrays.get(line, 0) + own.get(line, 0) for line in arrays | own}
    found.append("asked for by these lines:")
    found += [f"+{size:,} bytes  {_with_text(line)}" for line, size in _largest(lines)]
    if in_cycles:
        found.append(f"{in_cycles} objects are in cycles, which only the collector can free")
    raise AssertionError("\n  ".join([f"{subject} left behind", *found]))


# What runs while memory is counted must not count itself. It asks for memory in this file or
# in tracemalloc's (so no Counter), and makes no containers of containers.


def _census() -> _Census:
    groups: dict[type, list[Any]] = {}
    for found in gc.get_objects():
        group = groups.get(type(found))
        if group is None:
            groups[type(found)] = [found]
        else:  # cheaper than a sum, whose every step is an allocation that is traced
            group.append(found)
    # The collector loses sight of dictionaries and tuples without containers, and finds them
    # again when they are next filled: what was there before must not look new.
    for kind in (dict, tuple):
        groups[kind] = [found for found in groups[kind] if tracemalloc.get_object_traceback(found)]
    objects = {kind: len(group) for kind, group in groups.items()}
    del groups, group, found
    inner = _inner_folders()
    arrays: dict[str, int] = {}
    own: dict[str, int] = {}
    for trace in tracemalloc.take_snapshot().traces:
        if trace.traceback[-1].filename not in _OWN:
            sizes = arrays if trace.domain == np.lib.tracemalloc_domain else own
            line = _users_line(trace.traceback, inner)
            sizes[line] = sizes.get(line, 0) + trace.size
    return _Census(objects, arrays, own, _bytes_on_device())


def _inner_folders() -> tuple[str, ...]:
    """The folders of those libraries among ``_INNER`` that are imported."""
    files = [sys.modules[name].__file__ for name in _INNER if name in sys.modules]
    return tuple([f"{Path(file).parent}{os.sep}" for file in files if file])


def _users_line(traceback: tracemalloc.Traceback, inner: tuple[str, ...]) -> str:
    """The innermost line outside of some folders."""
    frames = [frame for frame in traceback if not frame.filename.startswith(inner)]
    frame = frames[-1] if frames else traceback[-1]
    return f"{frame.filename}:{frame.lineno}"


def _bytes_on_device() -> int:
    cupy = sys.modules.get("cupy")
    return cupy.get_default_memory_pool().used_bytes() if cupy and cupy.is_available() else 0


def _grown(now: dict[K, int], before: dict[K, int]) -> dict[K, int]:
    return {key: now.get(key, 0) - before.get(key, 0) for key in now | before}


def _largest(sizes: dict[K, int]) -> list[tuple[K, int]]:
    """The largest above 0, in descending order."""
    positive = [(key, size) for key, size in sizes.items() if size > 0]
    return sorted(positive, key=lambda pair: -pair[1])[:_NAMED]


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")


def _with_text(line: str) -> str:
    file, _, number = line.rpartition(":")
    return f"{line}  {linecache.getline(file, int(number)).strip()}".rstrip()
