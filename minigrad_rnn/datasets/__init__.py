"""Data sets that are fetched once, checked, and read without being installed."""

from minigrad_rnn.datasets.fetching import (
    DatasetUnavailableError,
    cache_folder,
    fetch,
    fetch_debian,
)
from minigrad_rnn.datasets.texts import (
    bible_verses,
    number_words,
    python_sources,
    read_pairs,
    shakespeare_plays,
)

__all__ = [
    "DatasetUnavailableError",
    "bible_verses",
    "cache_folder",
    "fetch",
    "fetch_debian",
    "number_words",
    "python_sources",
    "read_pairs",
    "shakespeare_plays",
]
