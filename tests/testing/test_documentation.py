"""The code of docs/testing.md runs, and prints what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parent.parent.parent / "docs" / "testing.md"

#: Blocks of code, each with the library that it needs and the output below it.
BLOCKS = re.compile(
    r"^```python ?(\w*)\n(.*?)^```\n(?:\n^```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE
)


def test_the_examples_print_what_is_written_below_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    namespace: dict[str, Any] = {}
    for library, code, output in BLOCKS.findall(PAGE.read_text(encoding="utf-8")):
        if library:
            continue
        exec(compile(code, str(PAGE), "exec"), namespace)
        assert_printed(capsys.readouterr().out, output)


def test_the_examples_of_other_libraries() -> None:
    pytest.importorskip("scipy")
    blocks = BLOCKS.findall(PAGE.read_text(encoding="utf-8"))
    assert any(library == "scipy" for library, _, _ in blocks)
    namespace: dict[str, Any] = {}
    exec("import numpy as np, minigrad as mg\nx = np.linspace(-1.0, 1.0, 6)", namespace)
    for library, code, _ in blocks:
        if library == "scipy":
            exec(compile(code, str(PAGE), "exec"), namespace)


def assert_printed(printed: str, expected: str) -> None:
    """``expected`` stands in ``printed``, where a line of three dots leaves something out."""
    place = 0
    for part in filter(None, re.split(r"^\.\.\.\n", expected, flags=re.MULTILINE)):
        place = _rounded(printed).find(_rounded(part), place)
        assert place >= 0, f"{part}\nis not in\n\n{printed}"
    assert bool(printed) == bool(expected)


def _rounded(text: str) -> str:
    """The text with its numbers to six digits, which all machines agree on."""
    return re.sub(r"\d+\.\d{6,}", lambda number: f"{float(number[0]):.6f}", text)
