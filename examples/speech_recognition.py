"""Train a network to read strings of spoken digits, by connectionist temporal classification.

    python examples/speech_recognition.py                       # digits spoken by six people
    python examples/speech_recognition.py --leave-out theo      # by a voice never heard before
    python examples/speech_recognition.py --leave-out all       # each of the six in turn
    python examples/speech_recognition.py --transcribe my.wav   # with the network in --folder
    python examples/speech_recognition.py --data diphthongs     # artificial: no download

A bidirectional GRU or LSTM hears 2 to 5 recordings in a row, and says of every 25 ms which digit
it is, or none. Nobody tells it where digits begin and end: the CTC loss adds up all ways to
spread them over time. Training leaves a checkpoint, the share of digits that are read wrong in
strings of held-out recordings, and a picture of what the network hears in two of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from settings import (
    checkpoint,
    conclude,
    load_checkpoint,
    parser,
    positive,
    run,
    setting,
    start,
    training_of,
)

import minigrad as mg
import minigrad_rnn as rnn
from minigrad import Tensor, nn
from minigrad_rnn import datasets, features, metrics
from minigrad_rnn.datasets import SpokenDigit

MFCC, SPEAKERS = datasets.SPOKEN_DIGITS_MFCC, datasets.SPOKEN_DIGITS_SPEAKERS
LENGTHS = range(2, 6)  # of strings
BLANK = 10  # the class after those of the digits
#: What artificial diphthongs are made of, in Hz: the formants of two vowels, and the pitch.
FIRST, SECOND = (300.0, 600.0, 1000.0, 1400.0), (1900.0, 2600.0, 3400.0)
PITCHES = (90.0, 100.0, 110.0, 125.0, 140.0, 160.0)


@dataclass
class Settings:
    """What decides the numbers of a run; it is stored in the checkpoint."""

    data: str = setting(
        "spoken", "spoken digits, or artificial ones", choices=("spoken", "diphthongs")
    )
    split: str = setting("default", "what is held out", choices=("default", "official"))
    leave_out: str = setting(
        "nobody", "who is held out instead", choices=("nobody", *SPEAKERS, "all")
    )
    cell: str = setting("gru", "the kind of recurrence", choices=("gru", "lstm"))
    hidden: int = setting(64, "features of the state, in each direction")
    batch: int = setting(32, "strings of an update")
    distortion: float = setting(1.0, "how much features are changed at random; 0 for not at all")
    lr: float = setting(0.01, "learning rate at the start; it falls to 0 along a cosine")
    clip: float = setting(5.0, "largest norm of the gradient")
    updates: int = setting(800, "updates in all")
    every: int = setting(100, "updates between evaluations")
    strings: int = setting(500, "strings of held-out recordings to be judged by")
    seed: int = setting(0, "of the initial values, the strings and their distortion", minimum=0)


#: A run that shows that the program works, not what the network can learn.
QUICK = {
    "hidden": 32,
    "batch": 16,
    "distortion": 0.3,
    "lr": 0.02,
    "updates": 200,
    "every": 100,
    "strings": 50,
}


class Recognizer(nn.Module):
    """Features in, the logarithms of the probabilities of all digits and of the blank out."""

    def __init__(self, settings: Settings, rng: np.random.Generator) -> None:
        layer = {"gru": rnn.GRU, "lstm": rnn.LSTM}[settings.cell]
        self.layer = layer(MFCC.num_coefficients, settings.hidden, bidirectional=True, rng=rng)
        self.output = nn.Linear(2 * settings.hidden, BLANK + 1, rng=rng)

    def forward(self, xs: Tensor, lengths: Any) -> Tensor:
        """(time, batch, features) to (time, batch, classes)."""
        ys, _ = self.layer(xs, lengths=lengths)
        return mg.log_softmax(self.output(ys))

    def hear(self, recordings: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Log-probabilities (time, classes) for each of many cepstra (time, features)."""
        heard: dict[int, NDArray[Any]] = {}
        with mg.no_grad():
            for batch in rnn.bucket_by_length([len(each) for each in recordings], 100):
                xs, lengths = rnn.pad_sequences([normalized(recordings[i]) for i in batch])
                ys = self(mg.asarray(xs, device=self.output.weight.device), lengths).numpy()
                heard.update(zip(batch.tolist(), rnn.unpad_sequences(ys, lengths), strict=True))
        return [heard[i] for i in range(len(recordings))]


def read(heard: NDArray[Any], beam: int) -> tuple[int, ...]:
    """The digits that log-probabilities (time, classes) stand for.

    With a beam, those that are most probable, in all their alignments together; with a beam of
    1, those of the most probable alignment.
    """
    if beam == 1:
        return rnn.ctc_greedy_decode(heard[:, None], blank=BLANK)[0]
    return rnn.ctc_beam_search(heard[:, None], beam_width=beam, blank=BLANK)[0][0].labels


# --------------------------------------------------------------------------------------
# Strings of digits
# --------------------------------------------------------------------------------------


class String(NamedTuple):
    """Recordings in a row, as if they were one."""

    cepstra: NDArray[Any]
    digits: tuple[int, ...]
    ends: NDArray[Any]  # of the recordings, in frames


def draw(recordings: Sequence[SpokenDigit], count: int, rng: np.random.Generator) -> String:
    """A string of recordings chosen at random."""
    parts = [recordings[i] for i in rng.integers(len(recordings), size=count)]
    frames = [part.features for part in parts]
    ends = np.cumsum([len(each) for each in frames])
    return String(np.concatenate(frames), tuple(part.digit for part in parts), ends)


def strings_to_judge_by(recordings: Sequence[SpokenDigit], count: int) -> list[String]:
    """Strings that are the same in every run."""
    rng = np.random.default_rng(0)
    return [draw(recordings, int(rng.choice(LENGTHS)), rng) for _ in range(count)]


def normalized(cepstra: NDArray[Any]) -> NDArray[np.float32]:
    """Features of mean 0 and deviation 1 over all of a string: its parts are not known."""
    return features.normalize(cepstra).astype(np.float32)


def distorted(
    frames: NDArray[np.float32], strength: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Features as of another voice and room: each with another gain and offset, and noise."""
    gain, offset = strength * rng.standard_normal((2, frames.shape[1])) * [[0.15], [0.3]]
    noise = 0.2 * strength * rng.standard_normal(frames.shape)
    return (np.exp(gain) * frames + offset + noise).astype(np.float32)


def diphthong(digit: int, pitch: float, rng: np.random.Generator) -> NDArray[Any]:
    """Two artificial vowels in turn, which stand for a digit: samples at the front end's rate."""
    first, second = divmod(digit, len(SECOND))
    time = np.arange(int(rng.uniform(0.15, 0.35) * MFCC.rate)) / MFCC.rate
    harmonics = np.arange(pitch, MFCC.rate / 2, pitch)
    distances = np.subtract.outer([FIRST[first], SECOND[second]], harmonics)
    vowels = np.exp(-((distances / 200.0) ** 2)) @ np.sin(2 * np.pi * np.outer(harmonics, time))
    swell = np.minimum(1.0, 40.0 * np.minimum(time, time[::-1]))
    voice = rng.uniform(0.02, 0.1) * swell * np.where(time < time[-1] / 2, *vowels)
    return voice + 0.001 * rng.standard_normal(len(time))


@cache
def diphthongs() -> list[SpokenDigit]:
    """Each digit ten times at each of six pitches, which are named as the speakers are."""
    rng = np.random.default_rng(0)
    return [
        SpokenDigit(MFCC(diphthong(digit, pitch, rng)).astype(np.float32), digit, name, take)
        for take in range(10)
        for name, pitch in zip(datasets.SPOKEN_DIGITS_SPEAKERS, PITCHES, strict=True)
        for digit in range(10)
    ]


# --------------------------------------------------------------------------------------
# Training
# --------------------------------------------------------------------------------------


class Learner:
    """A network, what it learns from, and what changes it."""

    def __init__(self, settings: Settings, recordings: list[SpokenDigit], device: str) -> None:
        s = self.settings = settings
        self.device = device
        self.known, held_out = datasets.split_spoken_digits(recordings, split_of(s))
        self.known_strings = strings_to_judge_by(self.known, s.strings)
        self.held_out_strings = strings_to_judge_by(held_out, s.strings)
        self.rng = np.random.default_rng(s.seed)
        self.model = Recognizer(s, self.rng).to(device)
        self.optimizer = mg.optim.Adam(self.model.named_parameters(), lr=s.lr)
        self.schedule = mg.optim.CosineAnnealingLR(self.optimizer, s.updates)

    def update(self) -> dict[str, Any]:
        """Learn from strings drawn anew, of as many digits each, so that they are about as long."""
        s, rng = self.settings, self.rng
        count = int(rng.choice(LENGTHS))
        strings = [draw(self.known, count, rng) for _ in range(s.batch)]
        xs, lengths = rnn.pad_sequences(
            [distorted(normalized(string.cepstra), s.distortion, rng) for string in strings]
        )
        digits = [string.digits for string in strings]
        with mg.Tape() as tape:
            heard = self.model(mg.asarray(xs, device=self.device), lengths)
            loss = rnn.ctc_loss(heard, digits, lengths, [count] * s.batch, BLANK)
        tape.backward(loss)
        norm = rnn.clip_grad_norm_(self.model.parameters(), s.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()
        return {"loss": loss, "norm": norm}

    def evaluate(self) -> dict[str, float]:
        """How well some of the held-out strings are read. Nothing is decided by it."""
        return {"digit error": judge(self.heard(self.held_out_strings[:100]), beam=1)[0]}

    def heard(self, strings: Sequence[String]) -> list[tuple[String, NDArray[Any]]]:
        """Strings, and what the network hears in each."""
        heard = self.model.hear([string.cepstra for string in strings])
        return list(zip(strings, heard, strict=True))


def split_of(settings: Settings) -> str:
    """What is held out."""
    return settings.split if settings.leave_out == "nobody" else settings.leave_out


def judge(pairs: Sequence[tuple[String, NDArray[Any]]], beam: int) -> tuple[float, float]:
    """The share of digits that are read wrong, and that of strings that are read right."""
    found = [read(heard, beam) for _, heard in pairs]
    said = [string.digits for string, _ in pairs]
    return metrics.error_rate(found, said), metrics.exact_match(found, said)


def prepare(options: argparse.Namespace) -> tuple[Learner, mg.SavedTensors | None]:
    """A learner with the settings of the options or of the checkpoint, and that checkpoint."""
    saved, s, _ = start(options, Settings, QUICK if options.quick else {})
    if not 0.0 <= s.distortion < inf:
        raise ValueError(f"--distortion is at least 0, and not {s.distortion}")
    try:
        recordings = diphthongs() if s.data == "diphthongs" else datasets.spoken_digits()
    except datasets.DatasetUnavailableError as error:
        if saved:
            raise
        print(f"{error}\nFalling back to --data diphthongs.\n")
        s.data, recordings = "diphthongs", diphthongs()
    return Learner(s, recordings, options.device), saved


def learn(options: argparse.Namespace) -> tuple[str, float, float]:
    """Train, and judge what was learned: how training ended, and what :func:`report` returns."""
    learner, saved = prepare(options)
    s, model = learner.settings, learner.model
    state = {
        "model": model,
        "optimizer": learner.optimizer,
        "schedule": learner.schedule,
        "rng": learner.rng,
    }
    training = training_of(learner, options, saved, state)
    print(
        f"Bidirectional {s.cell.upper()} of {s.hidden} features, "
        f"{sum(parameter.size for parameter in model.parameters()):,} parameters. It learns from "
        f"{len(learner.known):,} recordings ({s.data}); held out: {split_of(s)}."
    )
    options.folder.mkdir(parents=True, exist_ok=True)
    end = training.run()
    conclude(options, training, end)
    return end, *report(learner, options)


def report(learner: Learner, options: argparse.Namespace) -> tuple[float, float]:
    """Say how well strings are read, and draw two.

    Returns the shares of digits read wrong: of recordings learned from, and of held-out ones.
    """
    s, beam = learner.settings, options.beam
    held_out = learner.heard(learner.held_out_strings)
    rows = {
        "recordings it learned from": judge(learner.heard(learner.known_strings), beam),
        "held-out recordings": judge(held_out, beam),
        "  their best alignments alone": judge(held_out, 1),
    }
    print(f"\n{f'{s.strings} strings of':31} {'wrong digits':>12} {'right strings':>14}")
    for name, (wrong, right) in rows.items():
        print(f"{name:31} {wrong:12.2%} {right:14.1%}")
    of_known, of_held_out, _ = (wrong for wrong, _ in rows.values())
    if s.leave_out != "nobody":
        print(
            f"Of voices that it knows, it reads {of_known:.1%} of the digits wrong; of "
            f"{s.leave_out}, whom it has never heard, {of_held_out:.1%}."
        )
    # Of the longest strings, one that is read right, and one that is not.
    longest = sorted(held_out, key=lambda pair: -len(pair[0].digits))
    is_right = [read(heard, beam) == string.digits for string, heard in longest]
    show([longest[is_right.index(kind)] for kind in (True, False) if kind in is_right], options)
    return of_known, of_held_out


def leave_out_each(options: argparse.Namespace) -> None:
    """Train without each speaker in turn."""
    table = []
    for speaker in SPEAKERS:
        its = argparse.Namespace(**vars(options))
        its.leave_out, its.folder = speaker, options.folder / f"without_{speaker}"
        its.resume = options.resume and checkpoint(its).is_file()
        print(f"\n---- without {speaker}\n")
        end, known, unknown = learn(its)
        table.append((speaker, known, unknown))
        if end == "interrupted":
            break
    known, unknown = np.mean([row[1:] for row in table], axis=0)
    table.append(("mean", known, unknown))
    print(f"\n{'wrong digits':12} {'voices it knows':>16} {'the one left out':>18}")
    for name, known, unknown in table:
        print(f"{name:12} {known:16.1%} {unknown:18.1%}")
    more = 100 * (unknown - known)
    print(f"If it does not know the voice, {more:.0f} more of 100 digits are wrong.")


# --------------------------------------------------------------------------------------
# Pictures, and sound files
# --------------------------------------------------------------------------------------


def show(pairs: Sequence[tuple[String, NDArray[Any]]], options: argparse.Namespace) -> None:
    """Draw strings, and below each what the network hears in it."""
    figure = Figure(figsize=(9, 0.4 + 3.5 * len(pairs)), layout="constrained")
    panels = figure.subplots(2 * len(pairs), height_ratios=[1, 1.2] * len(pairs))
    top = float(features.hz_to_mel(MFCC.rate / 2))
    ticks = np.array([250, 500, 1000, 2000, 4000])
    for (string, heard), above, below in zip(pairs, panels[::2], panels[1::2], strict=True):
        found = read(heard, options.beam)
        length = MFCC.hop * len(heard)
        # What the cepstra that are kept leave of the spectrum.
        spectrum = string.cepstra @ features.dct(np.eye(MFCC.num_mels), MFCC.num_coefficients).T
        look = {"cmap": "magma", "origin": "lower", "aspect": "auto", "interpolation": "none"}
        above.imshow(spectrum.T[::3], extent=(0.0, length, 0.0, top), **look)
        above.set_yticks(features.hz_to_mel(ticks), [f"{tick:,} Hz" for tick in ticks])
        above.tick_params(labelbottom=False, bottom=False)
        ends = MFCC.hop * string.ends
        for digit, begin, end in zip(string.digits, [0.0, *ends], ends, strict=False):
            above.text(begin + 0.02, 0.86 * top, f"said {digit}", color="white", weight="bold")
            for panel in (above, below):
                panel.axvline(end, color="white" if panel is above else "0.4", linestyle=":")
        probabilities, seconds = np.exp(heard), MFCC.hop * (np.arange(len(heard)) + 0.5)
        below.plot(seconds, probabilities[:, BLANK], color="0.8", label="no digit")
        for digit in range(BLANK):
            below.fill_between(seconds, probabilities[:, digit], color=f"C{digit}", alpha=0.4)
            below.plot(seconds, probabilities[:, digit], color=f"C{digit}")
            before, now, after = np.lib.stride_tricks.sliding_window_view(
                np.pad(probabilities[:, digit], 1), 3
            ).T
            for peak in np.flatnonzero((now > 0.15) & (now > before) & (now >= after)):
                style = {"ha": "center", "color": f"C{digit}", "weight": "bold"}
                below.text(seconds[peak], now[peak] + 0.04, str(digit), **style)
        verdict = "" if not string.digits else ", right" if found == string.digits else ", wrong"
        below.set_title(f"read as {' '.join(map(str, found)) or 'nothing'}{verdict}", size=11)
        below.set(xlim=(0, length), ylim=(0, 1.2), yticks=(0, 0.5, 1), ylabel="probability")
        below.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel("seconds" if string.digits else "seconds, without long pauses")
    panels[1].legend(frameon=False, loc="upper right", bbox_to_anchor=(1.0, 1.18))
    path = options.folder / "speech_recognition.png"
    figure.savefig(path, dpi=100)
    print(f"Picture:    {path}")


def without_pauses(cepstra: NDArray[Any]) -> NDArray[Any]:
    """The frames at most two away from one that is less than 40 dB below the loudest.

    The recordings that the network learns from begin and end where the voice does.
    """
    loudness = cepstra[:, 0] / np.sqrt(MFCC.num_mels)
    near = np.convolve(loudness > loudness.max() - 40.0, np.ones(5), mode="full")[2:-2]
    return cepstra[near > 0.0]


def transcribe(options: argparse.Namespace) -> None:
    """Read the digits in a WAV file, with the network in the folder."""
    samples, rate = features.read_wav(options.transcribe)
    if rate < MFCC.rate:
        raise ValueError(
            f"{options.transcribe} has {rate} samples a second, and the network was trained with "
            f"{MFCC.rate}: record it with at least as many"
        )
    if not samples.any():
        raise ValueError(f"{options.transcribe} is silent")
    saved, s, _ = load_checkpoint(options, Settings)
    model = Recognizer(s, np.random.default_rng()).to(options.device)
    model.load_state_dict(saved["model"])
    cepstra = without_pauses(MFCC(features.resample(samples, rate, MFCC.rate)))
    [heard] = model.hear([cepstra])
    print(" ".join(map(str, read(heard, options.beam))) or "(no digits)")
    show([(String(cepstra, (), np.zeros(0)), heard)], options)


# --------------------------------------------------------------------------------------
# The command line
# --------------------------------------------------------------------------------------


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    made = parser("speech_recognition", __doc__, Settings, minutes=10)
    made.add_argument("--beam", type=positive, default=8, help="prefixes of the search; default: 8")
    made.add_argument("--transcribe", type=Path, metavar="WAV", help="read this; no training")
    options = made.parse_args(arguments)
    if getattr(options, "leave_out", "nobody") != "nobody" and hasattr(options, "split"):
        made.error("--leave-out says what is held out, so --split does not go with it")
    return options


def program(options: argparse.Namespace) -> None:
    """Do what the options say."""
    if options.transcribe is not None:
        transcribe(options)
    elif getattr(options, "leave_out", None) == "all":
        leave_out_each(options)
    else:
        learn(options)


def main(arguments: list[str] | None = None) -> None:
    """Run the program."""
    run(program, parse(arguments))


if __name__ == "__main__":
    main()
