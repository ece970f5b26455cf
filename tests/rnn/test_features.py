"""Features of speech: against scipy, formulas written down again, and values that are known."""

from __future__ import annotations

import dataclasses
import struct
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from minigrad_rnn import features

pytestmark = pytest.mark.host


def noise(size: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).uniform(-0.9, 0.9, size)


# --------------------------------------------------------------------------------------
# WAV files
# --------------------------------------------------------------------------------------


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"WAVE"
    for kind, data in chunks:
        body += kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def form(tag: int, bits: int, channels: int = 1, rate: int = 8000) -> tuple[bytes, bytes]:
    size = channels * bits // 8
    return b"fmt ", struct.pack("<HHIIHH", tag, channels, rate, rate * size, size, bits)


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_integers_of_all_widths_are_read(tmp_path: Path, width: int, channels: int) -> None:
    bits = 8 * width
    whole = np.round(noise(10 * channels) * 2.0 ** (bits - 1)).astype(np.int64)
    whole[:2] = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    stored = whole + 128 if width == 1 else whole
    data = b"".join(int(v).to_bytes(width, "little", signed=width > 1) for v in stored)
    path = tmp_path / "some.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, width, 11025, 10, "NONE", ""))
        file.writeframes(data)
    expected = (whole / 2.0 ** (bits - 1)).reshape(10, channels)
    samples, rate = features.read_wav(path, mono=False)
    assert rate == 11025
    np.testing.assert_array_equal(samples, expected)
    np.testing.assert_array_equal(features.read_wav(str(path))[0], expected.mean(1))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "int32", "uint8"])
def test_scipy_writes_what_is_read(tmp_path: Path, dtype: str) -> None:
    wavfile = pytest.importorskip("scipy.io.wavfile")
    values = noise(50)
    scale = {"float32": 1.0, "float64": 1.0, "int16": 2.0**15, "int32": 2.0**31, "uint8": 2.0**7}
    stored = (values * scale[dtype] + 128.0 * (dtype == "uint8")).astype(dtype)
    wavfile.write(tmp_path / "some.wav", 16000, stored)
    samples, rate = features.read_wav(tmp_path / "some.wav", 16000)
    assert samples.dtype == np.float64
    assert rate == 16000
    expected = (stored.astype(float) - 128.0 * (dtype == "uint8")) / scale[dtype]
    np.testing.assert_array_equal(samples, expected)


def test_other_chunks_and_headers_are_read_over(tmp_path: Path) -> None:
    tag, plain = form(1, 16)
    extended = struct.pack("<H", 0xFFFE) + plain[2:] + struct.pack("<HHIH14x", 22, 16, 4, 1)
    data = (b"data", struct.pack("<3h", 1, -2, 3))
    streamed = riff(form(1, 16), data)
    streamed = streamed.replace(b"data" + struct.pack("<I", 6), b"data\xff\xff\xff\xff")
    for content in (
        riff((b"LIST", b"odd"), form(1, 16), (b"fact", b"four"), data, (b"LIST", b"x")),
        riff((tag, extended), data),
        streamed,  # by a program that could not go back to write the length
        riff(form(1, 16), (b"data", data[1] + b"\1")),  # half a sample at the end
    ):
        (tmp_path / "some.wav").write_bytes(content)
        samples, _ = features.read_wav(tmp_path / "some.wav")
        np.testing.assert_array_equal(samples * 2**15, [1, -2, 3])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a WAV file"),
        (b"ID3 and then music", "is not a WAV file"),
        (riff(form(1, 16)), "lacks its format or its data"),
        (riff((b"data", b"1234")), "lacks its format or its data"),
        (riff((b"fmt ", b"short"), (b"data", b"1234")), "lacks its format or its data"),
        (riff(form(7, 8), (b"data", b"1234")), r"compressed .* \(format 7, 8 bits\): save it as"),
        (riff(form(1, 12), (b"data", b"1234")), r"unusual samples \(format 1, 12 bits\)"),
        (riff(form(1, 16, channels=0), (b"data", b"1234")), "its format contradicts itself"),
        (riff(form(1, 16, rate=0), (b"data", b"1234")), "its format contradicts itself"),
        (riff(form(1, 16), (b"data", b"")), "has no samples"),
        (riff(form(3, 32), (b"data", struct.pack("<f", np.nan))), "are NaN or infinite"),
        (riff(form(1, 16, rate=16000), (b"data", b"1234")), "16000 samples a second, and 8000 are"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "bad.wav").write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.wav.*" + message):
        features.read_wav(tmp_path / "bad.wav", rate=8000)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.wav"):
        features.read_wav("nowhere.wav")


# --------------------------------------------------------------------------------------
# From samples to a spectrum
# --------------------------------------------------------------------------------------


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 60))
def test_resampling_is_that_of_scipy(size: int, rate: int, wanted: int) -> None:
    signal = pytest.importorskip("scipy.signal")
    samples = noise(size)
    found = features.resample(samples, rate, wanted)
    assert found.shape == (max(1, round(size * wanted / rate)),)
    np.testing.assert_allclose(found, signal.resample(samples, len(found)), atol=1e-12)


def test_resampling_removes_what_a_lower_rate_cannot_hold() -> None:
    low, high = (np.sin(2 * np.pi * (f * np.arange(8000) % 8000) / 8000) for f in (300, 3000))
    found = features.resample(low + high, 8000, 4000)
    np.testing.assert_allclose(found, low[::2], atol=1e-12)
    with pytest.raises(ValueError, match="rates are at least 1 sample a second, not 8000 and 0"):
        features.resample(low, 8000, 0)


@given(st.integers(1, 50), st.floats(0.0, 1.0))
def test_preemphasis_is_that_filter(size: int, coefficient: float) -> None:
    signal = pytest.importorskip("scipy.signal")
    samples = noise(size)
    expected = signal.lfilter([1.0, -coefficient], [1.0], samples)
    expected[0] = (1.0 - coefficient) * samples[0]
    np.testing.assert_allclose(features.preemphasize(samples, coefficient), expected, atol=1e-14)


@given(st.integers(1, 100), st.integers(1, 30), st.integers(1, 30), st.booleans())
def test_frames_are_cut_where_they_should_be(
    size: int, length: int, hop: int, center: bool
) -> None:
    samples = noise(size)
    if size < (length // 2 + 1 if center else length):
        with pytest.raises(ValueError, match=f"{size} samples are too short for frames of"):
            features.frame(samples, length, hop, center=center)
        return
    frames = features.frame(samples, length, hop, center=center)
    start = -(length // 2) if center else 0
    for t, row in enumerate(frames):
        places = np.abs(start + t * hop + np.arange(length))  # mirrored at 0
        places = np.where(places < size, places, 2 * (size - 1) - places)  # and at the end
        np.testing.assert_array_equal(row, samples[places])
    end = size + 2 * (length // 2) if center else size
    assert len(frames) == (end - length) // hop + 1


@pytest.mark.parametrize("name", ["hann", "hamming"])
@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("length", [1, 2, 7, 400])
def test_windows_are_those_of_scipy(name: Any, periodic: bool, length: int) -> None:
    signal = pytest.importorskip("scipy.signal")
    expected = signal.get_window(name, length, fftbins=periodic)
    np.testing.assert_allclose(
        features.window(name, length, periodic=periodic), expected, atol=1e-15
    )


def test_a_rectangular_window_and_none() -> None:
    np.testing.assert_array_equal(features.window("rectangular", 3), np.ones(3))
    with pytest.raises(ValueError, match="'hann', 'hamming' or 'rectangular', not 'kaiser'"):
        features.window("kaiser", 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 1 sample long, not 0"):
        features.window("hann", 0)


@given(st.integers(1, 40), st.integers(0, 20))
def test_the_power_spectrum_keeps_the_energy(length: int, more: int) -> None:
    frames = noise(3 * length).reshape(3, length)
    power = features.power_spectrum(frames, length + more)
    assert power.shape == (3, (length + more) // 2 + 1)
    # Parseval: bins 1 ... stand for two frequencies each, but for the last of an even number.
    twice = np.full(power.shape[1], 2.0)
    twice[0] = 1.0
    if (length + more) % 2 == 0:
        twice[-1] = 1.0
    np.testing.assert_allclose(power @ twice / (length + more), (frames**2).sum(-1))


def test_a_tone_is_in_its_bin() -> None:
    samples = np.cos(2 * np.pi * 1000.0 * np.arange(400) / 8000.0)
    power = features.power_spectrum(samples)
    assert power.argmax() * 8000 / 400 == 1000.0
    np.testing.assert_allclose(power[50], 200.0**2)
    with pytest.raises(ValueError, match="fft_length 256 would cut off the end of frames of 400"):
        features.power_spectrum(samples, 256)


@pytest.mark.parametrize("samples", [np.zeros((2, 3)), np.zeros(0), 1.0])
def test_a_signal_is_one_row(samples: Any) -> None:
    for function in (
        features.preemphasize,
        lambda x: features.resample(x, 1, 2),
        lambda x: features.frame(x, 1, 1),
    ):
        with pytest.raises(ValueError, match="a signal is one row of at least one sample"):
            function(samples)


def test_frames_of_no_length_are_refused() -> None:
    for length, hop in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match=f"long and apart, not {length} and {hop}"):
            features.frame(noise(9), length, hop)


# --------------------------------------------------------------------------------------
# The mel scale
# --------------------------------------------------------------------------------------


def test_known_values_of_the_mel_scales() -> None:
    np.testing.assert_allclose(features.hz_to_mel([0.0, 700.0]), [0.0, 2595.0 * np.log10(2.0)])
    np.testing.assert_allclose(features.hz_to_mel(1000.0), 1000.0, atol=0.02)
    np.testing.assert_allclose(
        features.hz_to_mel([0.0, 60.0, 440.0, 1000.0, 6400.0], "slaney"), [0, 0.9, 6.6, 15, 42]
    )
    # The corners that librosa's documentation prints for 40 frequencies up to 11025 Hz.
    mels = np.linspace(0.0, features.hz_to_mel(11025.0, "slaney"), 40)
    printed = {1: 85.317, 11: 938.49, 12: 1024.856, 20: 2071.84, 30: 4994.285, 39: 11025.0}
    corners = features.mel_to_hz(mels, "slaney")
    np.testing.assert_allclose(corners[list(printed)], list(printed.values()), atol=5e-4)


@pytest.mark.parametrize("scale", ["htk", "slaney"])
@given(hz=st.floats(0.0, 50_000.0))
def test_the_mel_scale_has_an_inverse(scale: Any, hz: float) -> None:
    mel = features.hz_to_mel(hz, scale)
    np.testing.assert_allclose(features.mel_to_hz(mel, scale), hz, rtol=1e-10, atol=1e-9)
    assert features.hz_to_mel(hz + 1.0, scale) > mel


@pytest.mark.parametrize("scale", ["htk", "slaney"])
@pytest.mark.parametrize("equal_area", [False, True])
def test_mel_filters_are_triangles(scale: Any, equal_area: bool) -> None:
    filters = features.mel_filters(
        20, 512, 16000, low=100.0, high=7000.0, scale=scale, equal_area=equal_area
    )
    lowest, highest = features.hz_to_mel([100.0, 7000.0], scale)
    mels = np.linspace(lowest, highest, 22)
    corners = features.mel_to_hz(mels, scale)
    hz = np.arange(257) * 31.25
    for i in range(20):
        triangle = np.interp(hz, corners[i : i + 3], [0.0, 1.0, 0.0])
        height = 2.0 / (corners[i + 2] - corners[i]) if equal_area else 1.0
        np.testing.assert_allclose(filters[:, i], height * triangle, atol=1e-12)
    if not equal_area:  # between the first and the last middle, they add up to 1
        inside = (hz >= corners[1]) & (hz <= corners[-2])
        np.testing.assert_allclose(filters[inside].sum(1), 1.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_mels": 0}, "mel filters are at least 1"),
        ({"high": 5000.0}, r"high <= 4000\.0 Hz, half of the rate; not 20 from 0\.0 to 5000\.0"),
        ({"low": 300.0, "high": 200.0}, r"from 300\.0 to 200\.0 Hz"),
        ({"scale": "bark"}, "the mel scale is 'htk' or 'slaney', not 'bark'"),
        ({"num_mels": 100, "fft_length": 64}, r"has no bin .* 125\.0 Hz apart: use fewer filters"),
    ],
)
def test_filters_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        features.mel_filters(**{"num_mels": 20, "fft_length": 256, "rate": 8000} | settings)


# --------------------------------------------------------------------------------------
# Cepstra, slopes, and scaling
# --------------------------------------------------------------------------------------


@given(st.integers(1, 40), st.data())
def test_the_cosine_transform_is_that_of_scipy(length: int, data: st.DataObject) -> None:
    fft = pytest.importorskip("scipy.fft")
    count = data.draw(st.integers(1, length))
    values = noise(2 * length).reshape(2, length)
    expected = fft.dct(values, type=2, norm="ortho")
    np.testing.assert_allclose(features.dct(values, count), expected[:, :count], atol=1e-13)
    full = features.dct(values)
    np.testing.assert_allclose((full**2).sum(-1), (values**2).sum(-1))  # orthonormal


def test_more_coefficients_than_values_are_refused() -> None:
    with pytest.raises(ValueError, match="4 values have 1 to 4 coefficients, not 5"):
        features.dct(np.zeros(4), 5)


def test_liftering_is_that_of_htk() -> None:
    weights = features.lifter(np.ones((2, 13)), 22)
    np.testing.assert_allclose(weights[0], [1 + 11 * np.sin(np.pi * n / 22) for n in range(13)])
    np.testing.assert_allclose(weights[1, 11], 12.0)
    with pytest.raises(ValueError, match="the width of a lifter is at least 1, not 0"):
        features.lifter(np.ones(3), 0)


@given(st.integers(1, 4), st.integers(1, 12))
def test_deltas_are_slopes_of_fitted_lines(width: int, time: int) -> None:
    values = noise(3 * time).reshape(time, 3)
    padded = np.pad(values, ((width, width), (0, 0)), mode="edge")
    steps = np.arange(-width, width + 1)
    for t, row in enumerate(features.deltas(values, width)):
        slopes, _ = np.polyfit(steps, padded[t : t + 2 * width + 1], 1)
        np.testing.assert_allclose(row, slopes, atol=1e-12)


@given(st.integers(1, 20), st.booleans(), st.sampled_from([1e-9, 1.0, 1e9]))
def test_normalized_features_have_mean_0_and_deviation_1(
    time: int, variance: bool, scale: float
) -> None:
    values = scale * noise(3 * time).reshape(time, 3) + 0.1
    values[:, 1] = 0.1  # whose mean is not exactly 0.1
    found = features.normalize(values, variance=variance)
    np.testing.assert_allclose(found.mean(0), 0.0, atol=1e-7 * (1.0 if variance else scale))
    assert not found[:, 1].any()
    if time > 1:
        expected = 1.0 if variance else values[:, [0, 2]].std(0)
        np.testing.assert_allclose(found[:, [0, 2]].std(0), expected, rtol=1e-7)


@pytest.mark.parametrize("values", [np.zeros((0, 3)), 1.0])
def test_features_have_steps(values: Any) -> None:
    for function in (features.deltas, features.normalize):
        with pytest.raises(ValueError, match="with at least one step"):
            function(values)
    with pytest.raises(ValueError, match="at least 1 step, not 0"):
        features.deltas(np.zeros((3, 1)), 0)


# --------------------------------------------------------------------------------------
# All steps together
# --------------------------------------------------------------------------------------


def test_mfcc_step_by_step() -> None:
    """Centered frames, decibels below the loudest, as many data sets have them."""
    signal, fft = pytest.importorskip("scipy.signal"), pytest.importorskip("scipy.fft")
    samples = noise(3000) * np.linspace(0.0, 1.0, 3000) ** 4
    _, _, spectrum = signal.stft(
        samples, window="hann", nperseg=400, noverlap=200, boundary="even", padded=False
    )
    power = np.abs(spectrum.T * 200.0) ** 2  # scipy divides by the sum of the window
    mels = np.linspace(0.0, 2595 * np.log10(1 + 4000 / 700), 42)
    corners = 700 * (10 ** (mels / 2595) - 1)
    bins = np.linspace(0.0, 4000.0, 201)
    filters = [np.interp(bins, corners[i : i + 3], [0.0, 1.0, 0.0]) for i in range(40)]
    levels = 10 * np.log10(np.maximum(power @ np.transpose(filters), 1e-10))
    levels = np.maximum(levels, levels.max() - 60.0)
    expected = fft.dct(levels, type=2, norm="ortho")[:, :13]
    mfcc = features.MFCC(
        rate=8000,
        frame_length=0.05,
        hop=0.025,
        center=True,
        fft_length=400,
        unit="decibels",
        dynamic_range=60.0,
    )
    found = mfcc(samples)
    assert (levels == levels.min()).sum() > 10
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    log_mel = features.LogMel(
        **{k: v for k, v in dataclasses.asdict(mfcc).items() if k in _log_mel_settings()}
    )
    np.testing.assert_allclose(log_mel(samples), levels, rtol=1e-9, atol=1e-9)


def _log_mel_settings() -> set[str]:
    return {field.name for field in dataclasses.fields(features.LogMel)}


def test_preemphasis_and_liftering_are_applied() -> None:
    samples = noise(2000)
    plain = features.MFCC(rate=8000)
    raised = features.MFCC(rate=8000, preemphasis=0.97)
    np.testing.assert_allclose(raised(samples), plain(features.preemphasize(samples)))
    liftered = features.MFCC(rate=8000, lifter_width=22)
    np.testing.assert_allclose(liftered(samples), features.lifter(plain(samples)))


@given(
    st.integers(201, 2000), st.sampled_from([8000, 11025, 16000]), st.integers(1, 30), st.booleans()
)
def test_one_row_of_features_for_each_frame(
    size: int, rate: int, num_mels: int, center: bool
) -> None:
    log_mel = features.LogMel(rate=rate, num_mels=num_mels, center=center)
    length, hop = round(0.025 * rate), round(0.01 * rate)
    samples = noise(max(size, length))
    found = log_mel(samples)
    frames = features.frame(samples, length, hop, center=center)
    assert found.shape == (len(frames), num_mels)
    assert np.isfinite(found).all()


@given(st.floats(0.01, 100.0))
def test_loudness_is_in_the_first_coefficient_alone(gain: float) -> None:
    samples = noise(1000)
    log_mel = features.LogMel(rate=8000, num_mels=24)
    mfcc = features.MFCC(rate=8000, num_mels=24)
    louder = log_mel(gain * samples) - log_mel(samples)
    np.testing.assert_allclose(louder, 2.0 * np.log(gain), atol=1e-9)
    change = mfcc(gain * samples) - mfcc(samples)
    np.testing.assert_allclose(change[:, 0], 2.0 * np.log(gain) * np.sqrt(24.0), atol=1e-9)
    np.testing.assert_allclose(change[:, 1:], 0.0, atol=1e-9)
    normal = features.normalize
    np.testing.assert_allclose(normal(mfcc(gain * samples)), normal(mfcc(samples)), atol=1e-7)


def test_a_delay_of_one_hop_is_one_frame() -> None:
    samples = noise(2000)
    mfcc = features.MFCC(rate=8000)
    np.testing.assert_allclose(mfcc(samples[80:]), mfcc(samples)[1:])


def test_silence_is_finite() -> None:
    for unit, level in (("nepers", np.log(1e-10)), ("decibels", -100.0)):
        log_mel = features.LogMel(rate=8000, unit=unit, dynamic_range=80.0)  # type: ignore[arg-type]
        np.testing.assert_allclose(log_mel(np.zeros(400)), level)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rate": 8000, "unit": "bels"}, "the unit is 'nepers' or 'decibels', not 'bels'"),
        ({"rate": 8000, "dynamic_range": 0.0}, r"above 0 decibels, not 0\.0"),
        ({"rate": 8000, "hop": 0.0}, "frames are at least 1 sample long and apart, not 200 and 0"),
        ({"rate": 8000, "frame_length": 0.0}, "a window is at least 1 sample long, not 0"),
        ({"rate": 8000, "fft_length": 100}, "fft_length 100 would cut off"),
        ({"rate": 8000, "high": 8000.0}, "half of the rate"),
        ({"rate": 8000, "num_coefficients": 41}, "40 values have 1 to 40 coefficients, not 41"),
        ({"rate": 8000, "lifter_width": 0}, "the width of a lifter is at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused_at_once(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        features.MFCC(**settings)


def test_settings_are_compared_and_kept() -> None:
    mfcc = features.MFCC(rate=8000, num_mels=30)
    assert features.MFCC(**dataclasses.asdict(mfcc)) == mfcc
    assert mfcc != features.MFCC(rate=8000)
