"""Data sets that are fetched once, checked, and read without being installed."""

from minigrad_rnn.datasets.fetching import (
    DatasetUnavailableError,
    cache_folder,
    fetch,
    fetch_debian,
    fetch_source,
)
from minigrad_rnn.datasets.series import (
    Series,
    airport_weather,
    daily_stocks,
    read_series,
    seattle_weather,
)
from minigrad_rnn.datasets.speech import (
    SPOKEN_DIGITS_MFCC,
    SPOKEN_DIGITS_SPEAKERS,
    SpokenDigit,
    split_spoken_digits,
    spoken_digits,
)
from minigrad_rnn.datasets.texts import (
    bible_verses,
    number_words,
    python_sources,
    read_pairs,
    shakespeare_plays,
)

__all__ = [
    "SPOKEN_DIGITS_MFCC",
    "SPOKEN_DIGITS_SPEAKERS",
    "DatasetUnavailableError",
    "Series",
    "SpokenDigit",
    "airport_weather",
    "bible_verses",
    "cache_folder",
    "daily_stocks",
    "fetch",
    "fetch_debian",
    "fetch_source",
    "number_words",
    "python_sources",
    "read_pairs",
    "read_series",
    "seattle_weather",
    "shakespeare_plays",
    "split_spoken_digits",
    "spoken_digits",
]
