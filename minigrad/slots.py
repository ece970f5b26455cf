"""Slot numbers: all that connects a tensor to its history.

A tensor does not point at the operation that made it. It carries one integer, its
*slot*, and whoever wants to know something about the tensor compares that integer:

===================  =========================================================
slot                 the tensor is
===================  =========================================================
``CONSTANT`` (-1)    a constant: no gradient
in a tape's block    computed while that tape was recording
``>= LEAF``          a leaf: the user asked for its gradient
===================  =========================================================

Every tape owns a block of ``2**40`` numbers and every block is above all earlier ones,
so slots of different tapes never collide. While a tape records, "does this operand want
a gradient?" is the single comparison ``slot >= tape.base``, because leaves lie above
every block; and cutting a tape is nothing but raising ``base``.

The two directories below are weak: they find a leaf or a tape by number and keep
neither alive.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from minigrad.tape import Tape
    from minigrad.tensor import Tensor

CONSTANT: Final = -1
BLOCK: Final = 1 << 40
LEAF: Final = 1 << 80
NOTHING: Final = 1 << 160  # above every slot: what no tensor reaches

leaves: WeakValueDictionary[int, Tensor] = WeakValueDictionary()
tapes: WeakValueDictionary[int, Tape] = WeakValueDictionary()

#: The tape that is recording in this thread or asyncio task, if any.
active_tape: ContextVar[Tape | None] = ContextVar("active_tape", default=None)

#: Whether tapes that are opened now check everything, see :func:`minigrad.debug`.
debugging: ContextVar[bool] = ContextVar("debugging", default=False)

_leaf_numbers = count(LEAF)
_tape_numbers = count(1)


def in_step() -> bool:
    """Whether a step is being recorded for a scan."""
    tape = active_tape.get()
    return tape is not None and tape.in_step


@contextmanager
def without_tape() -> Iterator[None]:
    """In this block no tape is active."""
    token = active_tape.set(None)
    try:
        yield
    finally:
        active_tape.reset(token)


def new_leaf(tensor: Tensor) -> int:
    """Enter ``tensor`` in the directory of leaves and return its slot."""
    slot = next(_leaf_numbers)
    leaves[slot] = tensor
    return slot


def new_block(tape: Tape) -> int:
    """Enter ``tape`` in the directory of tapes and return the first slot of its block."""
    number = next(_tape_numbers)
    tapes[number] = tape
    return number * BLOCK


def tape_of(slot: int) -> Tape | None:
    """The tape in whose block ``slot`` lies, if it still exists."""
    return tapes.get(slot // BLOCK)
