"""The programs in docs/clipping.md print what is written below them."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent.parent.parent / "docs" / "clipping.md"


def test_the_programs_print_what_is_written_below_them() -> None:
    text = PAGE.read_text(encoding="utf-8")
    programs = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, flags=re.DOTALL)
    assert len(programs) == text.count("```python") == 4
    names: dict[str, Any] = {}
    for program, expected in programs:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(program, str(PAGE), "exec"), names)
        assert _rounded(printed.getvalue()) == _rounded(expected)


def _rounded(text: str) -> str:
    """The text with its numbers to five digits, which all machines agree on."""
    return re.sub(r"\d+\.\d{5,}", lambda number: f"{float(number[0]):.5f}", text)
