"""Where and when figures were taken, and writing them down."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PEERS = ("numpy", "torch", "jax", "autograd", "mygrad")


def about() -> dict[str, Any]:
    """The date, the commit, the machine, and the versions of everything."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": output("git", "describe", "--always", "--dirty"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        **{name: version for name in PEERS if (version := installed(name))},
    }


def write(path: Path, figures: dict[str, Any]) -> None:
    """Write figures as JSON, and before them where and when they were taken."""
    path.write_text(json.dumps({**about(), **figures}, indent=1) + "\n", encoding="utf-8")


def installed(distribution: str) -> str | None:
    """The version of a distribution, or ``None``."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def output(*command: str) -> str | None:
    """The first line that a command prints, or ``None`` where there is no such command."""
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    except (OSError, subprocess.CalledProcessError):
        return None
    return run.stdout.partition("\n")[0]
