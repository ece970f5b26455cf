"""The programs of the README and of docs/ run, and print what is written below them.

A block ```` ```python ```` is a program that goes on from the one before it on its page, and the
``text`` block that follows is what it prints; a line of three dots there leaves something out. A
word after ``python`` names a library that the program needs, or says that it is a ``fragment``.
"""

from __future__ import annotations

import linecache
import re
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.host

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WITH_PROGRAMS = [page for page in PAGES if "```python" in page.read_text(encoding="utf-8")]

#: Blocks of code: the word behind ``python``, the program, and what it prints.
BLOCKS = re.compile(
    r"^```python ?(\w*)\n(.*?)^```\n(?:\n^```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE
)


def test_there_are_pages_with_programs() -> None:
    assert len(WITH_PROGRAMS) >= 5


@pytest.mark.parametrize("page", WITH_PROGRAMS, ids=lambda page: page.stem)
def test_the_programs_of_a_page_print_what_is_written_below_them(
    page: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    blocks = BLOCKS.findall(page.read_text(encoding="utf-8"))
    programs = [block for block in blocks if block[0] != "fragment"]
    assert any(output for _, _, output in programs)
    for library, _, _ in programs:
        if library:
            pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"{page.stem.lower()}.py"
    names: dict[str, Any] = {}
    for _, code, output in programs:
        path.write_text(code, encoding="utf-8")
        linecache.checkcache()
        exec(compile(code, str(path), "exec"), names)
        assert_printed(capsys.readouterr().out, output)


def assert_printed(printed: str, expected: str) -> None:
    """The parts of ``expected`` between lines of three dots stand in ``printed``, in order."""
    parts = re.split(r"^\.\.\.\n", expected, flags=re.MULTILINE)
    if len(parts) == 1:
        assert _rounded(printed) == _rounded(expected)
    place = 0
    for part in parts:
        place = _rounded(printed).find(_rounded(part), place)
        assert place >= 0, f"{part}\nis not in\n\n{printed}"


def _rounded(text: str) -> str:
    """The text with its numbers to five digits, which all machines agree on."""
    return re.sub(r"\d+\.\d{5,}", lambda number: f"{float(number[0]):.5f}", text)
