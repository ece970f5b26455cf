"""The program that reads spoken digits, on artificial ones and on sound files that it is given."""

from __future__ import annotations

import re
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import assert_equal

pytest.importorskip("matplotlib")
pytest.importorskip("threadpoolctl")
pytest.importorskip("tqdm")

import speech_recognition as program

import minigrad as mg
from minigrad_rnn import datasets, features

pytestmark = pytest.mark.host

DIPHTHONGS = ["--data", "diphthongs"]
SHORT = ["--hidden", "8", "--batch", "4", "--updates", "12", "--every", "4", "--strings", "8"]


def run(folder: Path, *more: str) -> mg.SavedTensors:
    """Run the program and return the checkpoint that it leaves."""
    program.main([*DIPHTHONGS, *SHORT, "--folder", str(folder), *more])
    return mg.load(folder / "checkpoint.safetensors")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a network that reads diphthongs, and is not trained any further."""
    folder = tmp_path_factory.mktemp("trained")
    program.main(["--quick", *DIPHTHONGS, "--folder", str(folder)])
    return folder


def write_wav(path: Path, samples: Any, rate: int = 8000, channels: int = 1) -> Path:
    """A file of 16-bit samples."""
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, 2, rate, 0, "NONE", ""))
        values = np.repeat(np.round(32767 * np.asarray(samples)).astype("<i2"), channels)
        file.writeframes(values.tobytes())
    return path


def spoken(digits: list[int], pause: float = 0.3) -> Any:
    """Diphthongs of a pitch of its own, with pauses and a little noise."""
    rng = np.random.default_rng(5)
    quiet = np.zeros(int(pause * 8000))
    parts = [quiet]
    for digit in digits:
        parts += [program.diphthong(digit, 117.0, rng), quiet]
    samples = np.concatenate(parts)
    return samples + 0.001 * rng.standard_normal(len(samples))


# --------------------------------------------------------------------------------------
# Learning
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_it_learns_to_read_diphthongs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], cell: str
) -> None:
    program.main(["--quick", *DIPHTHONGS, "--cell", cell, "--folder", str(tmp_path)])
    printed = capsys.readouterr().out
    assert f"Bidirectional {cell.upper()} of 32 features" in printed
    assert "Training is done after 200 updates" in printed
    found = re.search(r"held-out recordings +([\d.]+)% +([\d.]+)%\n +their best", printed)
    assert found is not None
    assert float(found[1]) < 10
    assert float(found[2]) > 70
    assert (tmp_path / "speech_recognition.png").read_bytes().startswith(b"\x89PNG")


def unavailable() -> Any:
    raise datasets.DatasetUnavailableError("no network here")


def test_without_the_data_set_it_learns_diphthongs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "spoken_digits", unavailable)
    program.main([*SHORT, "--folder", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "no network here\nFalling back to --data diphthongs" in printed
    assert "recordings (diphthongs)" in printed
    # What is resumed is what was learned from.
    program.main(["--resume", "--folder", str(tmp_path)])
    assert "Falling back" not in capsys.readouterr().out


@pytest.mark.data
def test_the_quick_mode_on_spoken_digits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        datasets.spoken_digits()
    except datasets.DatasetUnavailableError as error:
        pytest.skip(str(error))
    program.main(["--quick", "--folder", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "learns from 2,400 recordings (spoken)" in printed
    found = re.search(r"held-out recordings +([\d.]+)%", printed)
    assert found is not None
    assert float(found[1]) < 60  # by chance it would be about 90
    # Where the data set is gone, it is not replaced by another.
    monkeypatch.setattr(datasets, "spoken_digits", unavailable)
    with pytest.raises(SystemExit, match="no network here"):
        program.main(["--resume", "--folder", str(tmp_path)])


@pytest.mark.data
@pytest.mark.slow
def test_spoken_digits_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        datasets.spoken_digits()
    except datasets.DatasetUnavailableError as error:
        pytest.skip(str(error))
    short = ["--updates", "600", "--every", "300", "--strings", "200"]
    program.main([*short, "--folder", str(tmp_path)])
    found = re.search(r"held-out recordings +([\d.]+)%", capsys.readouterr().out)
    assert found is not None
    assert float(found[1]) <= 4


def test_two_runs_with_one_seed_are_the_same(tmp_path: Path) -> None:
    first, second = (run(tmp_path / name, "--seed", "3") for name in "ab")
    assert_equal(first, second)
    other = run(tmp_path / "c", "--seed", "4")
    name = "output.weight"
    assert np.any(first["model"][name].numpy() != other["model"][name].numpy())


def test_resuming_is_the_same_as_not_stopping_bit_for_bit(
    tmp_path: Path, press_ctrl_c: Callable[[int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    whole = run(tmp_path / "whole")
    press_ctrl_c(7)  # between two evaluations
    part = run(tmp_path / "parts")
    assert "Training is interrupted after 7 updates" in capsys.readouterr().out
    assert part["schedule"]["steps"].item() == 7
    program.main(["--resume", "--folder", str(tmp_path / "parts")])
    assert "Training is done after 12 updates" in capsys.readouterr().out
    assert_equal(whole, mg.load(tmp_path / "parts" / "checkpoint.safetensors"))


# --------------------------------------------------------------------------------------
# What is held out
# --------------------------------------------------------------------------------------


def test_what_generalization_costs_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, "--leave-out", "theo")
    printed = capsys.readouterr().out
    assert "learns from 500 recordings (diphthongs); held out: theo" in printed
    assert re.search(r"of theo, whom it has never heard, [\d.]+%", printed)
    run(tmp_path, "--split", "official")
    printed = capsys.readouterr().out
    assert "learns from 300 recordings" in printed
    assert "has never heard" not in printed


def test_each_speaker_is_left_out_in_turn_and_the_rest_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "SPEAKERS", ("george", "theo"))
    run_all = [*DIPHTHONGS, *SHORT, "--leave-out", "all", "--folder", str(tmp_path)]
    learn = program.learn

    def interrupted(options: Any) -> Any:
        return "interrupted", *learn(options)[1:]

    monkeypatch.setattr(program, "learn", interrupted)
    program.main(run_all)
    assert [path.name for path in tmp_path.iterdir()] == ["without_george"]
    monkeypatch.setattr(program, "learn", learn)
    capsys.readouterr()
    program.main([*run_all, "--resume"])
    printed = capsys.readouterr().out
    table = re.findall(r"^(george|theo|mean) +([\d.]+)% +([\d.]+)%$", printed, re.MULTILINE)
    assert [row[0] for row in table] == ["george", "theo", "mean"]
    for column in (1, 2):
        george, theo, mean = (float(row[column]) for row in table)
        assert abs(mean - (george + theo) / 2) <= 0.11
    checkpoints = sorted(path.parent.name for path in tmp_path.rglob("checkpoint.safetensors"))
    assert checkpoints == ["without_george", "without_theo"]


# --------------------------------------------------------------------------------------
# Sound files
# --------------------------------------------------------------------------------------


def transcribe(folder: Path, path: Path) -> None:
    program.main(["--transcribe", str(path), "--folder", str(folder)])


@pytest.mark.parametrize("kind", ["plain", "long pauses", "stereo", "48 kHz"])
def test_a_sound_file_is_read(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    digits = [4, 0, 7, 7, 2, 9]
    samples, rate, channels = spoken(digits, 1.0 if kind == "long pauses" else 0.2), 8000, 1
    if kind == "48 kHz":
        samples, rate = features.resample(samples, rate, 48_000), 48_000
    elif kind == "stereo":
        channels = 2
    (trained / "speech_recognition.png").unlink(missing_ok=True)
    saved = (trained / "checkpoint.safetensors").read_bytes()
    transcribe(trained, write_wav(tmp_path / "digits.wav", samples, rate, channels))
    assert capsys.readouterr().out.startswith("4 0 7 7 2 9\n")
    assert (trained / "speech_recognition.png").read_bytes().startswith(b"\x89PNG")
    assert (trained / "checkpoint.safetensors").read_bytes() == saved


def test_pauses_are_left_out() -> None:
    cepstra = np.zeros((20, 13))
    cepstra[:, 0] = -1000.0
    cepstra[[8, 14], 0] = 0.0
    cepstra[:, 1] = np.arange(20)
    kept = program.without_pauses(cepstra)[:, 1]
    assert kept.tolist() == [6, 7, 8, 9, 10, 12, 13, 14, 15, 16]


def test_a_tone_is_no_error(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)
    transcribe(trained, write_wav(tmp_path / "tone.wav", tone))
    assert re.match(r"(\d( \d)*|\(no digits\))\nPicture:", capsys.readouterr().out)


class TestErrors:
    """Each wrong use ends in one sentence."""

    def refuse(self, arguments: list[str], message: str) -> None:
        with pytest.raises(SystemExit, match=message) as caught:
            program.main(arguments)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("samples", "rate", "message"),
        [
            (np.zeros(8000), 8000, "sound.wav is silent"),
            (spoken([1]), 4000, "sound.wav has 4000 samples a second, and .* trained with 8000"),
            (np.zeros(0), 8000, "sound.wav has no samples"),
            (np.ones(100), 8000, "100 samples are too short for frames of 400"),
        ],
    )
    def test_a_sound_that_cannot_be_read(
        self, trained: Path, tmp_path: Path, samples: Any, rate: int, message: str
    ) -> None:
        path = write_wav(tmp_path / "sound.wav", samples, rate)
        self.refuse(["--transcribe", str(path), "--folder", str(trained)], message)

    def test_a_file_that_is_no_sound(self, trained: Path, tmp_path: Path) -> None:
        path = tmp_path / "text.wav"
        use = ["--transcribe", str(path), "--folder", str(trained)]
        self.refuse(use, "No such file .*text.wav")
        path.write_bytes(b"no sound at all")
        self.refuse(use, "text.wav is not a WAV file")

    def test_a_checkpoint_that_does_not_fit(self, trained: Path, tmp_path: Path) -> None:
        sound = write_wav(tmp_path / "sound.wav", spoken([1]))
        use = ["--folder", str(tmp_path), "--transcribe", str(sound)]
        self.refuse(use, "there is no checkpoint .*: train first")
        mg.save(tmp_path / "checkpoint.safetensors", {"w": mg.tensor([1.0])})
        self.refuse(use, "is not a checkpoint of this program")
        resume = ["--resume", "--folder", str(trained)]
        self.refuse([*resume, "--cell", "lstm"], "trained with --cell gru, .* with --cell lstm")

    @pytest.mark.parametrize("strength", ["-1", "nan", "inf"])
    def test_a_distortion_that_makes_no_sense(self, strength: str) -> None:
        self.refuse(["--distortion", strength], "--distortion is at least 0, and not")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--beam", "0"], "--beam: 0 is not at least 1"),
            (["--hidden", "0"], "--hidden: 0 is not at least 1"),
            (["--leave-out", "anna"], "--leave-out: invalid choice: 'anna'"),
            (["--leave-out", "theo", "--split", "official"], "so --split does not go with it"),
        ],
    )
    def test_options_that_make_no_sense(
        self, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit):
            program.main(arguments)
        assert message in capsys.readouterr().err.splitlines()[-1]
