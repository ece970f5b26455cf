"""A tape as a person reads it: ``print(tape)``."""

from __future__ import annotations

import linecache
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from minigrad.arrays import is_array, owner
from minigrad.slots import LEAF

if TYPE_CHECKING:
    from minigrad.tape import Entry, Line, Tape

_SHOWN_ENDS: Final = 20
_WIDEST_CALL: Final = 40
_HEADINGS: Final = ("#", "result", "operation", "holds", "line")


def line_number(line: Line) -> int:
    """The number of a recorded line; instructions are looked up only when it is asked for."""
    code, instruction = line
    for start, end, number in code.co_lines():
        if start <= instruction < end and number is not None:
            return number
    return code.co_firstlineno


def place(line: Line | None) -> str:
    """``file.py:12``, for a message."""
    return "an unknown line" if line is None else f"{line[0].co_filename}:{line_number(line)}"


def bytes_text(count: int) -> str:
    """``1536`` as ``1.5 KiB``."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"


def held_bytes(entry: Entry, seen: set[int]) -> int:
    """The bytes that ``entry`` keeps alive and that are not in ``seen``, to which it adds."""
    total = 0
    for value in (*entry.saved, *entry.settings.values()):
        for array in value if type(value) is tuple else (value,):
            # What is no array may hold some, such as a scan.
            whole = owner(array) if is_array(array) else array
            if id(whole) not in seen:
                seen.add(id(whole))
                total += getattr(whole, "nbytes", 0)
    return total


def table(tape: Tape, origin: int) -> str:
    """The numbered table of what is on the tape; a long one is shown by its two ends."""
    rows, total, seen = [], 0, set[int]()
    leaf_names: dict[int, str] = {}
    for slot, entry in tape.numbered():
        holds = held_bytes(entry, seen)
        total += holds
        rows.append(_row(slot, entry, holds, origin, leaf_names))
    title = f"Tape: {len(tape)} results, {bytes_text(total)} held"
    if not rows:
        return title
    skipped = len(rows) - 2 * _SHOWN_ENDS
    shown = rows if skipped <= 0 else rows[:_SHOWN_ENDS] + rows[-_SHOWN_ENDS:]
    widths = [max(len(row[column]) for row in (_HEADINGS, *shown)) for column in range(5)]
    lines = [_format(row, widths) for row in (_HEADINGS, *shown)]
    if skipped > 0:
        lines.insert(1 + _SHOWN_ENDS, f"... {skipped} more entries ...")
    return "\n".join((title, *lines))


def summary(tape: Tape) -> str:
    """How many results come from each operation and each line, and the bytes they hold."""
    seen: set[int] = set()
    by_operation: dict[str, list[int]] = {}
    by_line: dict[str, list[int]] = {}
    total = 0
    for entry in tape:
        holds = held_bytes(entry, seen)
        total += holds
        count = len(entry.shape) if isinstance(entry.shape, list) else 1
        places = (by_operation, entry.operation.name), (by_line, _source(entry[-2:]))
        for table, key in places:
            figures = table.setdefault(key, [0, 0])
            figures[0] += count
            figures[1] += holds
    lines = [f"Tape: {len(tape)} results, {bytes_text(total)} held"]
    for heading, table in (("operation", by_operation), ("line", by_line)):
        width = max(len(key) for key in (heading, *table))
        lines.append(f"{heading:<{width}}  results  {'holds':>9}")
        ranked = sorted(table.items(), key=lambda item: (item[1][1], item[1][0]), reverse=True)
        lines += [f"{key:<{width}}  {n:>7}  {bytes_text(b):>9}" for key, (n, b) in ranked]
    return "\n".join(lines)


def _row(
    slot: int, entry: Entry, holds: int, origin: int, leaf_names: dict[int, str]
) -> tuple[str, ...]:
    number = str(slot - origin)
    if isinstance(entry.shape, list):
        count = len(entry.shape)
        number += f"-{slot - origin + count - 1}" if count > 1 else ""
        result = f"{count} x " if count > 1 else ""
        result += f"{entry.shape[0]} {entry.dtype[0]}"
    else:
        result = f"{entry.shape} {entry.dtype}"
    operands = [_operand(slot, origin, leaf_names) for slot in entry.operands]
    defaults = entry.plan.operation.defaults
    settings = [
        f"{name}={short(value)}"
        for name, value in entry.settings.items()
        if value is not defaults[name]
    ]
    call = f"{entry.plan.operation.name}({', '.join(operands + settings)})"
    if len(call) > _WIDEST_CALL:
        call = call[: _WIDEST_CALL - 4] + "...)"
    return (
        number,
        result,
        call,
        bytes_text(holds) if holds else "",
        _source((entry.code, entry.instruction)),
    )


def _operand(slot: int, origin: int, leaf_names: dict[int, str]) -> str:
    """``#3`` for a result, ``leaf a`` for a leaf, a dot for a constant."""
    if slot >= LEAF:
        return leaf_names.setdefault(slot, f"leaf {_letters(len(leaf_names))}")
    return f"#{slot - origin}" if slot >= origin else "const"


def _letters(number: int) -> str:
    """a, b, ..., z, aa, ab, ..."""
    text = ""
    number += 1
    while number:
        number, digit = divmod(number - 1, 26)
        text = chr(ord("a") + digit) + text
    return text


def short(value: Any) -> str:
    """A setting in few characters."""
    if isinstance(value, tuple):
        return f"({', '.join(map(short, value))}{',' * (len(value) == 1)})"
    if hasattr(value, "shape"):
        return f"<{value.shape} {value.dtype}>" if value.shape else str(value)
    if callable(value) or hasattr(value, "__name__"):
        return getattr(value, "__name__", type(value).__name__)
    if isinstance(value, slice):
        return ":".join("" if v is None else str(v) for v in (value.start, value.stop)) or ":"
    return "..." if value is Ellipsis else repr(value)


def _source(line: Line) -> str:
    name, number = line[0].co_filename, line_number(line)
    return f"{Path(name).name}:{number}  {linecache.getline(name, number).strip()}".rstrip()


def _format(row: Iterable[str], widths: list[int]) -> str:
    number, result, operation, holds, line = row
    return (
        f"{number:>{widths[0]}}  {result:<{widths[1]}}  {operation:<{widths[2]}}  "
        f"{holds:>{widths[3]}}  {line}"
    ).rstrip()
