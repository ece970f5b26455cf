"""The README's program prints what the README says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_thirty_lines_print_what_is_written_below_them(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    program = re.search(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    output = re.search(r"```text\n(.*?)```", readme, flags=re.DOTALL)
    assert program is not None
    assert output is not None
    path = tmp_path / "readme.py"
    path.write_text(program[1], encoding="utf-8")
    run = subprocess.run([sys.executable, path], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert _rounded(run.stdout) == _rounded(output[1])


def _rounded(text: str) -> str:
    """The text with its numbers to five digits, which all machines agree on."""
    return re.sub(r"\d+\.\d{5,}", lambda number: f"{float(number[0]):.5f}", text)
