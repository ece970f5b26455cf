"""Features of speech: from a WAV file to the log-mel spectrum and MFCC that networks read.

Everything is computed by NumPy on the host, in float64. Sequences are (time, features).

The usual steps, each a function of its own: the signal is cut into frames that overlap, each
frame is windowed and becomes a power spectrum, filters that are evenly spaced on the mel scale
add up its bins, and the logarithm is taken: the log-mel spectrum. Its cosine transform, of which
the first coefficients are kept, are the mel-frequency cepstral coefficients, MFCC.

Davis and Mermelstein, Comparison of parametric representations for monosyllabic word recognition
in continuously spoken sentences, 1980; Young et al., The HTK book, 2006.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy
from numpy.typing import ArrayLike, NDArray

Array: TypeAlias = NDArray[numpy.float64]
WindowName: TypeAlias = Literal["hann", "hamming", "rectangular"]
MelScale: TypeAlias = Literal["htk", "slaney"]

# --------------------------------------------------------------------------------------
# WAV files
# --------------------------------------------------------------------------------------

#: What the numbers of a WAV file are: the tag of the format, and bits.
_SAMPLES: Final = {
    (1, 8): "u1",
    (1, 16): "<i2",
    (1, 24): "",  # which NumPy has no name for
    (1, 32): "<i4",
    (3, 32): "<f4",
    (3, 64): "<f8",
}
#: The tag of a format whose real tag comes later.
_EXTENSIBLE: Final = 0xFFFE


def read_wav(
    path: str | PathLike[str], rate: int | None = None, *, mono: bool = True
) -> tuple[Array, int]:
    """The samples of a WAV file, and how many there are in a second.

    Read are integers of 8, 16, 24 and 32 bits (PCM), which become floats in [-1, 1), and floats of
    32 and 64 bits, which stay as they are.

    Args:
        path: the file.
        rate: how many samples a second it must have; anything by default.
        mono: whether channels are averaged.

    Returns the samples, (time,), or (time, channels) if not ``mono``; and the rate.

    Raises ``ValueError`` if it is not a WAV file, is damaged, compressed or empty, or has another
    rate; ``OSError`` if it cannot be read.

    >>> import os, tempfile, wave
    >>> from minigrad_rnn import features
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "three.wav")
    ...     with wave.open(path, "wb") as file:
    ...         file.setparams((1, 2, 8000, 3, "NONE", ""))
    ...         file.writeframes(bytes([0, 0, 0, 64, 0, 128]))
    ...     features.read_wav(path, rate=8000)
    (array([ 0. ,  0.5, -1. ]), 8000)
    """
    name = fspath(path)
    chunks = dict(_chunks(Path(path).read_bytes(), name))
    form = chunks.get(b"fmt ", b"")
    if len(form) < 16 or b"data" not in chunks:
        raise ValueError(f"{name} is a damaged WAV file: it lacks its format or its data")
    tag, channels, found, _, size, bits = struct.unpack_from("<HHIIHH", form)
    if tag == _EXTENSIBLE and len(form) >= 26:
        (tag,) = struct.unpack_from("<H", form, 24)
    if (tag, bits) not in _SAMPLES:
        raise ValueError(
            f"{name} is compressed or has unusual samples (format {tag}, {bits} bits): save it as "
            "PCM of 16 bits"
        )
    if not channels or not found or size != channels * bits // 8:
        raise ValueError(f"{name} is a damaged WAV file: its format contradicts itself")
    if rate is not None and found != rate:
        raise ValueError(
            f"{name} has {found} samples a second, and {rate} are needed here: record it so, or "
            f"write features.resample(samples, {found}, {rate})"
        )
    data = chunks[b"data"]
    values = _samples(data[: len(data) // size * size], tag, bits).reshape(-1, channels)
    if not values.size:
        raise ValueError(f"{name} has no samples")
    if not numpy.isfinite(values).all():
        raise ValueError(f"{name} has samples that are NaN or infinite")
    return (values.mean(1) if mono else values), found


def _chunks(data: bytes, name: str) -> Iterator[tuple[bytes, bytes]]:
    """The parts of a RIFF file: four letters, the length, and as many bytes, made even."""
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise ValueError(f"{name} is not a WAV file")
    place = 12
    while place + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, place)
        place += 8
        # A program that writes while it records leaves a length that is too long.
        yield kind, data[place : place + length]
        place += length + length % 2


def _samples(data: bytes, tag: int, bits: int) -> Array:
    if bits == 24:
        # As the upper bytes of 32 bits, the lowest of which is 0.
        wide = numpy.zeros((len(data) // 3, 4), numpy.uint8)
        wide[:, 1:] = numpy.frombuffer(data, numpy.uint8).reshape(-1, 3)
        return wide.view("<i4")[:, 0] / 2.0**31
    values = numpy.frombuffer(data, _SAMPLES[tag, bits]).astype(numpy.float64)
    if tag == 3:
        return values
    return values / 2.0 ** (bits - 1) - (bits == 8)  # those of 8 bits have no sign


def resample(samples: ArrayLike, rate: int, wanted: int) -> Array:
    """A signal at another rate, by its Fourier series.

    Frequencies that the lower of the two rates can hold are kept as they are, and those above
    are removed. The signal counts as periodic: what happens at its end echoes at its beginning,
    unless both are quiet.

    Args:
        samples: (time,).
        rate, wanted: samples a second, as they are and as they shall be.

    Returns about time · wanted / rate samples.

    >>> import numpy as np
    >>> from minigrad_rnn import features
    >>> second = np.arange(8000) / 8000
    >>> tone = features.resample(np.sin(2 * np.pi * 440 * second), 8000, 16000)
    >>> np.allclose(tone, np.sin(2 * np.pi * 440 * np.arange(16000) / 16000))
    True
    """
    signal = _signal(samples)
    if rate < 1 or wanted < 1:
        raise ValueError(f"rates are at least 1 sample a second, not {rate} and {wanted}")
    old, new = signal.size, max(1, round(signal.size * wanted / rate))
    fewer = min(old, new)
    spectrum = numpy.fft.rfft(signal)[: fewer // 2 + 1]
    if fewer % 2 == 0 and old != new:
        # The highest frequency of an even number of samples stands for a pair of them.
        spectrum[-1] = spectrum[-1] / 2.0 if new > old else 2.0 * spectrum[-1].real
    return numpy.fft.irfft(spectrum, new) * (new / old)


# --------------------------------------------------------------------------------------
# From samples to a spectrum
# --------------------------------------------------------------------------------------


def preemphasize(samples: ArrayLike, coefficient: float = 0.97) -> Array:
    """y[n] = x[n] - a x[n-1],  which raises high frequencies;  y[0] = (1 - a) x[0], as in HTK.

    >>> from minigrad_rnn import features
    >>> features.preemphasize([1.0, 1.0, 3.0], 0.5)
    array([0.5, 0.5, 2.5])
    """
    signal = _signal(samples)
    return signal - coefficient * numpy.concatenate([signal[:1], signal[:-1]])


def frame(samples: ArrayLike, length: int, hop: int, *, center: bool = False) -> Array:
    """A signal cut into frames (frames, length) that begin ``hop`` samples apart.

    Args:
        samples: (time,).
        length, hop: in samples, at least 1.
        center: whether the middle of frame t is at sample t · hop. The signal is then mirrored
            at both ends. Otherwise frame t begins there, and the rest at the end that does not
            fill a frame is left out.

    Raises ``ValueError`` if the signal is not one row, or too short for a frame.

    >>> import numpy as np
    >>> from minigrad_rnn import features
    >>> features.frame(np.arange(6.0), length=4, hop=2)
    array([[0., 1., 2., 3.],
           [2., 3., 4., 5.]])
    """
    signal = _signal(samples)
    if length < 1 or hop < 1:
        raise ValueError(f"frames are at least 1 sample long and apart, not {length} and {hop}")
    half = length // 2
    if signal.size < (half + 1 if center else length):
        raise ValueError(
            f"{signal.size} samples are too short for frames of {length}: use a longer recording"
        )
    if center:
        signal = numpy.pad(signal, half, mode="reflect")
    return numpy.lib.stride_tricks.sliding_window_view(signal, length)[::hop].copy()


def window(name: WindowName, length: int, *, periodic: bool = True) -> Array:
    """The weights (length,) of the samples of a frame.

        hann         0.5  - 0.5  cos(2 pi n / N)
        hamming      0.54 - 0.46 cos(2 pi n / N)
        rectangular  1

    Args:
        name: one of these.
        length: of the frame.
        periodic: whether N is the length, as suits a spectrum; else N = length - 1, and the
            window is symmetric, as in HTK.

    Raises ``ValueError`` for another name, or a length below 1.

    >>> from minigrad_rnn import features
    >>> features.window("hann", 4)
    array([0. , 0.5, 1. , 0.5])
    """
    if length < 1:
        raise ValueError(f"a window is at least 1 sample long, not {length}")
    mean = {"hann": 0.5, "hamming": 0.54, "rectangular": 1.0}.get(name)
    if mean is None:
        raise ValueError(f"a window is 'hann', 'hamming' or 'rectangular', not {name!r}")
    if length == 1:
        return numpy.ones(1)
    angles = 2.0 * numpy.pi * numpy.arange(length) / (length if periodic else length - 1)
    return mean - (1.0 - mean) * numpy.cos(angles)


def power_spectrum(frames: ArrayLike, fft_length: int | None = None) -> Array:
    """|X[k]|^2,  of the discrete Fourier transform X of each frame, for k = 0 ... N/2.

    Args:
        frames: (..., length), windowed.
        fft_length: N, to which a frame is filled up with zeros; its length by default.

    Returns (..., N // 2 + 1). Bin k is the frequency  k rate / N.

    Raises ``ValueError`` if frames are longer than N.

    >>> from minigrad_rnn import features
    >>> features.power_spectrum([[1.0, 1.0, 1.0, 1.0], [1.0, -1.0, 1.0, -1.0]])
    array([[16.,  0.,  0.],
           [ 0.,  0., 16.]])
    """
    array = numpy.asarray(frames, numpy.float64)
    if fft_length is not None and fft_length < array.shape[-1]:
        raise ValueError(
            f"fft_length {fft_length} would cut off the end of frames of {array.shape[-1]} samples"
        )
    spectrum = numpy.fft.rfft(array, fft_length)
    return spectrum.real**2 + spectrum.imag**2


# --------------------------------------------------------------------------------------
# The mel scale
# --------------------------------------------------------------------------------------

#: Slaney's scale is 3 mel in 200 Hz up to here, and then e^(27 mel) is a factor of 6.4.
_LINEAR_MELS: Final = 15.0
_LOG_STEP: Final = numpy.log(6.4) / 27.0


def hz_to_mel(frequency: ArrayLike, scale: MelScale = "htk") -> Any:
    """How high a frequency in Hz sounds.

    ``"htk"`` is  2595 log10(1 + f / 700)  (O'Shaughnessy 1987, as in HTK); ``"slaney"`` is
    3 f / 200  below 1000 Hz, and above  15 + 27 log(f / 1000) / log(6.4)  (Slaney, Auditory
    toolbox, 1998).

    >>> from minigrad_rnn import features
    >>> round(float(features.hz_to_mel(1000.0)), 2), float(features.hz_to_mel(1000.0, "slaney"))
    (999.99, 15.0)
    """
    hz = numpy.asarray(frequency, numpy.float64)
    if _is_htk(scale):
        return 2595.0 * numpy.log10(1.0 + hz / 700.0)
    above = numpy.log(numpy.maximum(hz, 1000.0) / 1000.0) / _LOG_STEP
    return numpy.minimum(hz, 1000.0) * 3.0 / 200.0 + above


def mel_to_hz(mel: ArrayLike, scale: MelScale = "htk") -> Any:
    """The inverse of :func:`hz_to_mel`.

    >>> from minigrad_rnn import features
    >>> float(features.mel_to_hz(15.0, "slaney"))
    1000.0
    """
    mels = numpy.asarray(mel, numpy.float64)
    if _is_htk(scale):
        return 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    above = numpy.exp(_LOG_STEP * numpy.maximum(mels - _LINEAR_MELS, 0.0))
    return numpy.minimum(mels, _LINEAR_MELS) * 200.0 / 3.0 * above


def _is_htk(scale: str) -> bool:
    if scale not in ("htk", "slaney"):
        raise ValueError(f"the mel scale is 'htk' or 'slaney', not {scale!r}")
    return scale == "htk"


def mel_filters(
    num_mels: int,
    fft_length: int,
    rate: int,
    *,
    low: float = 0.0,
    high: float | None = None,
    scale: MelScale = "htk",
    equal_area: bool = False,
) -> Array:
    """Triangular filters, (fft_length // 2 + 1, num_mels): power spectrum @ filters.

    The corners of the triangles are evenly spaced on the mel scale from ``low`` to ``high``; each
    rises from one corner to 1 at the next, and falls to the one after that.

    Args:
        num_mels: how many filters.
        fft_length, rate: of the power spectrum, and of the signal.
        low, high: in Hz; ``high`` is half of the rate by default.
        scale: of :func:`hz_to_mel`.
        equal_area: whether each filter is divided by half its width in Hz, as Slaney does.

    Raises ``ValueError`` if a setting makes no sense, or a filter is so narrow that it lies between
    two bins.

    >>> from minigrad_rnn import features
    >>> features.mel_filters(40, 512, 16000).shape
    (257, 40)
    """
    high = rate / 2.0 if high is None else high
    if num_mels < 1 or not 0.0 <= low < high <= rate / 2.0:
        raise ValueError(
            f"mel filters are at least 1, from 0 <= low < high <= {rate / 2} Hz, half of the rate; "
            f"not {num_mels} from {low} to {high} Hz"
        )
    lowest, highest = hz_to_mel([low, high], scale)
    corners = mel_to_hz(numpy.linspace(lowest, highest, num_mels + 2), scale)
    left, middle, right = corners[:-2], corners[1:-1], corners[2:]
    bins = numpy.arange(fft_length // 2 + 1)[:, None] * (rate / fft_length)
    rising, falling = (bins - left) / (middle - left), (right - bins) / (right - middle)
    filters = numpy.maximum(0.0, numpy.minimum(rising, falling))
    for i in numpy.flatnonzero(~filters.any(0)):
        raise ValueError(
            f"mel filter {i}, {left[i]:.0f} to {right[i]:.0f} Hz, has no bin of a spectrum whose "
            f"bins are {rate / fft_length:.1f} Hz apart: use fewer filters or a larger fft_length"
        )
    return filters * (2.0 / (right - left)) if equal_area else filters


# --------------------------------------------------------------------------------------
# Cepstra, and what is made of all features
# --------------------------------------------------------------------------------------


def dct(values: ArrayLike, count: int | None = None) -> Array:
    """The first ``count`` coefficients of the cosine transform of the last axis.

        c[k] = s[k] sum_n x[n] cos(pi k (n + 1/2) / N),    s[0]^2 = 1 / N,  s[k]^2 = 2 / N

    This is the orthonormal DCT-II.

    >>> import numpy as np
    >>> from minigrad_rnn import features
    >>> np.round(features.dct([1.0, 1.0, 1.0, 1.0], 2), 12) + 0.0
    array([2., 0.])
    """
    array = numpy.asarray(values, numpy.float64)
    length = array.shape[-1]
    count = length if count is None else count
    if not 1 <= count <= length:
        raise ValueError(f"{length} values have 1 to {length} coefficients, not {count}")
    waves = numpy.cos(numpy.pi / length * numpy.outer(numpy.arange(length) + 0.5, range(count)))
    waves[:, 0] /= numpy.sqrt(2.0)
    return array @ waves * numpy.sqrt(2.0 / length)


def lifter(cepstra: ArrayLike, width: int = 22) -> Array:
    """Cepstra (..., coefficients) with  c[k]  multiplied by  1 + L/2 sin(pi k / L),  L the width.

    It brings the higher coefficients to the size of the lower ones; that of HTK.

    >>> import numpy as np
    >>> from minigrad_rnn import features
    >>> features.lifter(np.ones(3), width=2)
    array([1., 2., 1.])
    """
    array = numpy.asarray(cepstra, numpy.float64)
    if width < 1:
        raise ValueError(f"the width of a lifter is at least 1, not {width}")
    return array * (1.0 + width / 2.0 * numpy.sin(numpy.pi / width * numpy.arange(array.shape[-1])))


def deltas(features: ArrayLike, width: int = 2) -> Array:
    """The slope over time of features (time, ...), of the line through 2 width + 1 steps.

        d[t] = sum_k k (x[t + k] - x[t - k]) / (2 sum_k k^2),    k = 1 ... width

    Before the first step and after the last one, these are repeated (HTK).

    >>> from minigrad_rnn import features
    >>> features.deltas([[0.0], [1.0], [2.0], [3.0]], width=1).T
    array([[0.5, 1. , 1. , 0.5]])
    """
    array = numpy.asarray(features, numpy.float64)
    if width < 1:
        raise ValueError(f"the width of a slope is at least 1 step, not {width}")
    if not array.ndim or not len(array):
        raise ValueError(f"features are (time, ...) with at least one step, not {array.shape}")
    steps = numpy.arange(len(array))
    total = numpy.zeros(array.shape)
    for k in range(1, width + 1):
        later, earlier = numpy.minimum(steps + k, steps[-1]), numpy.maximum(steps - k, 0)
        total += k * (array[later] - array[earlier])
    return total / (2 * sum(k * k for k in range(1, width + 1)))


def normalize(features: ArrayLike, *, variance: bool = True) -> Array:
    """Features (time, ...) of one utterance, each with mean 0 over time, and standard deviation 1.

    This takes away much of what differs between speakers, rooms and microphones. A feature that
    does not change becomes 0.

    Args:
        features: of one utterance.
        variance: whether to divide by the standard deviation.

    >>> from minigrad_rnn import features
    >>> features.normalize([[1.0, 5.0], [3.0, 5.0]])
    array([[-1.,  0.],
           [ 1.,  0.]])
    """
    array = numpy.asarray(features, numpy.float64)
    if not array.ndim or not len(array):
        raise ValueError(f"features are (time, ...) with at least one step, not {array.shape}")
    # What rounding leaves of a constant is no change.
    centered = numpy.where(numpy.ptp(array, 0) == 0.0, 0.0, array - array.mean(0))
    deviation = centered.std(0)
    return centered / numpy.where(deviation > 0.0, deviation, 1.0) if variance else centered


def _signal(samples: ArrayLike) -> Array:
    """Samples as one row of floats."""
    signal = numpy.asarray(samples, numpy.float64)
    if signal.ndim != 1 or not signal.size:
        raise ValueError(
            f"a signal is one row of at least one sample, (time,), not {signal.shape}; average "
            "channels first"
        )
    return signal


# --------------------------------------------------------------------------------------
# All steps together
# --------------------------------------------------------------------------------------

#: Power below this counts as this, so that silence has a logarithm.
FLOOR: Final = 1e-10


@dataclass(frozen=True, kw_only=True)
class LogMel:
    """The log-mel spectrum of a signal: a function (time,) -> (frames, num_mels) and its settings.

    The settings can be kept with a model: ``dataclasses.asdict`` makes a dictionary of them.

    Attributes:
        rate: samples a second.
        frame_length, hop: of the frames, in seconds; see :func:`frame`.
        center: whether frames are centered, see :func:`frame`.
        preemphasis: the coefficient of :func:`preemphasize`; 0 for none.
        window: ``"hann"``, ``"hamming"`` or ``"rectangular"``, periodic; see :func:`window`.
        fft_length: see :func:`power_spectrum`; by default the power of two from the frame's length
            on.
        num_mels, low, high, mel_scale, equal_area: see :func:`mel_filters`.
        unit: ``"nepers"``, the natural logarithm of the power; or ``"decibels"``, 10 log10.
        dynamic_range: how many decibels below the largest value of the signal all others are at
            most; ``None`` for a floor of 1e-10 alone.

    Raises what the functions raise, for settings that make no sense already when it is made.

    >>> import numpy as np
    >>> from minigrad_rnn import features
    >>> log_mel = features.LogMel(rate=8000, num_mels=24)
    >>> log_mel(np.sin(np.arange(8000))).shape
    (98, 24)
    """

    rate: int
    frame_length: float = 0.025
    hop: float = 0.01
    center: bool = False
    preemphasis: float = 0.0
    window: WindowName = "hann"
    fft_length: int | None = None
    num_mels: int = 40
    low: float = 0.0
    high: float | None = None
    mel_scale: MelScale = "htk"
    equal_area: bool = False
    unit: Literal["nepers", "decibels"] = "nepers"
    dynamic_range: float | None = None

    def __post_init__(self) -> None:
        if self.unit not in ("nepers", "decibels"):
            raise ValueError(f"the unit is 'nepers' or 'decibels', not {self.unit!r}")
        if self.dynamic_range is not None and not self.dynamic_range > 0.0:
            raise ValueError(f"the dynamic range is above 0 decibels, not {self.dynamic_range}")
        power_spectrum(self._weights, self._fft_length)
        frame(self._weights, self._samples(self.frame_length), self._samples(self.hop))
        _ = self._filters

    def __call__(self, samples: ArrayLike) -> Array:
        """The features of a signal (time,)."""
        if self.preemphasis:
            samples = preemphasize(samples, self.preemphasis)
        frames = frame(
            samples,
            self._samples(self.frame_length),
            self._samples(self.hop),
            center=self.center,
        )
        power = power_spectrum(frames * self._weights, self._fft_length) @ self._filters
        floor = FLOOR
        if self.dynamic_range is not None:
            floor = max(floor, power.max() / 10.0 ** (self.dynamic_range / 10.0))
        levels = numpy.log(numpy.maximum(power, floor))
        return levels * (10.0 / numpy.log(10.0)) if self.unit == "decibels" else levels

    def _samples(self, seconds: float) -> int:
        return round(seconds * self.rate)

    @property
    def _fft_length(self) -> int:
        length = self._samples(self.frame_length)
        return self.fft_length or 1 << (length - 1).bit_length()

    @cached_property
    def _weights(self) -> Array:
        return window(self.window, self._samples(self.frame_length))

    @cached_property
    def _filters(self) -> Array:
        return mel_filters(
            self.num_mels,
            self._fft_length,
            self.rate,
            low=self.low,
            high=self.high,
            scale=self.mel_scale,
            equal_area=self.equal_area,
        )


@dataclass(frozen=True, kw_only=True)
class MFCC(LogMel):
    """Mel-frequency cepstra of a signal: (time,) -> (frames, num_coefficients), and settings.

    They are the first coefficients of the :func:`dct` of the log-mel spectrum; the very first is
    a measure of loudness.

    Attributes:
        num_coefficients: how many are kept, at most ``num_mels``.
        lifter_width: of :func:`lifter`; ``None`` for none.

    The other attributes are those of :class:`LogMel`.

    >>> import numpy as np
    >>> from minigrad_rnn import features
    >>> mfcc = features.MFCC(rate=8000, preemphasis=0.97, lifter_width=22)
    >>> cepstra = mfcc(np.sin(np.arange(8000)))
    >>> np.concatenate([cepstra, features.deltas(cepstra)], axis=1).shape
    (98, 26)
    """

    num_coefficients: int = 13
    lifter_width: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._cepstra(numpy.zeros(self.num_mels))

    def __call__(self, samples: ArrayLike) -> Array:
        """The features of a signal (time,)."""
        return self._cepstra(super().__call__(samples))

    def _cepstra(self, levels: Array) -> Array:
        cepstra = dct(levels, self.num_coefficients)
        return cepstra if self.lifter_width is None else lifter(cepstra, self.lifter_width)
