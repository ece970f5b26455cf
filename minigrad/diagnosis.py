"""What the debug scope looks for: values that are not finite, and arrays that were changed."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from minigrad import listing
from minigrad.arrays import Array, is_array, namespace, to_numpy
from minigrad.slots import debugging

if TYPE_CHECKING:
    from minigrad.tape import Entry, Line


@contextmanager
def debug() -> Iterator[None]:
    """Tapes opened in this block check every value and gradient, and every array they keep.

    The first result or gradient that is NaN or infinite raises ``FloatingPointError``, which
    names the operation, the shapes, and the line where it was recorded. An array that was
    written to after the tape had saved it raises ``TapeError`` when it is needed. On a GPU an
    integer index that is out of range raises ``IndexError``, as on the CPU, where CuPy would
    wrap it around. All this is slow, and waits for a GPU after every operation; outside of the
    block it costs nothing.

    >>> import minigrad as mg
    >>> x = mg.tensor([1.0, float("inf")], requires_grad=True)
    >>> with mg.debug(), mg.Tape() as tape:  # doctest: +ELLIPSIS
    ...     y = x * 2.0
    Traceback (most recent call last):
    ...
    FloatingPointError: the result of multiply, (2,) float32, has 1 infinite element; recorded ...
    """
    token = debugging.set(True)
    try:
        yield
    finally:
        debugging.reset(token)


def check_finite(array: Array, subject: str, place: str) -> None:
    """Raise ``FloatingPointError`` if an array of floats holds a NaN or an infinity."""
    if array.dtype.kind != "f":
        return
    library = namespace(array)
    counts = {
        "NaN": int(library.isnan(array).sum()),
        "infinite element": int(library.isinf(array).sum()),
    }
    found = [
        f"{n} {what}{'s' if n > 1 and what != 'NaN' else ''}" for what, n in counts.items() if n
    ]
    if found:
        raise FloatingPointError(
            f"{subject}, {array.shape} {array.dtype}, has {' and '.join(found)}; {place}"
        )


def check_result(name: str, values: Any, results: Any, line: Line) -> None:
    """Check the results of an operation, and say which operands were not finite before."""
    for result in results:
        try:
            check_finite(result, f"the result of {name}", f"recorded at {listing.place(line)}")
        except FloatingPointError as error:
            bad = [
                f"operand {i}"
                for i, value in enumerate(values)
                if is_array(value)
                and value.dtype.kind == "f"
                and not bool(namespace(value).isfinite(value).all())
            ]
            cause = f"{' and '.join(bad)} already had" if bad else "all operands were finite"
            raise FloatingPointError(f"{error}; {cause}") from None


def fingerprints(entry: Entry | Any) -> list[int]:
    """A checksum of every array that an entry has saved."""
    found = []
    for value in entry[2]:
        for array in value if isinstance(value, tuple) else (value,):
            if is_array(array):
                found.append(zlib.crc32(to_numpy(array).tobytes()))
    return found
