"""The program that translates, on digits and on pairs of the user's own."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import assert_equal

pytest.importorskip("matplotlib")
pytest.importorskip("threadpoolctl")
pytest.importorskip("tqdm")

import translation as program

import minigrad as mg
import minigrad_rnn as rnn
from minigrad_rnn import datasets

pytestmark = pytest.mark.host

SMALL = ["--hidden", "8", "--embedding", "8", "--batch", "8", "--units", "60", "--dropout", "0.2"]
SHORT = ["--updates", "12", "--every", "4", "--beam", "2"]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Numbers in two notations, of one to three digits."""
    path = tmp_path / "pairs.tsv"
    lines = (f"{' '.join(str(n))}\t{' '.join(bin(n)[2:])}" for n in range(120))
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def run(folder: Path, pairs: Path, *more: str) -> mg.SavedTensors:
    """Run the program and return the checkpoint that it leaves."""
    program.main([*SMALL, *SHORT, "--data", str(pairs), "--folder", str(folder), *more])
    return mg.load(folder / "checkpoint.safetensors")


@pytest.mark.parametrize("attention", ["additive", "dot"])
def test_it_learns_digits_and_translates_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], attention: str
) -> None:
    learn = ["--data", "digits", "--attention", attention, "--folder", str(tmp_path)]
    program.main([*learn, "--held-out", "60"])
    printed = capsys.readouterr().out
    exact = re.search(r"60 held-out .* BLEU ([\d.]+), chrF ([\d.]+), ([\d.]+)% exactly", printed)
    assert exact is not None
    assert float(exact[1]) > 90
    assert float(exact[2]) > 90
    assert float(exact[3]) > 90
    picture = tmp_path / "attention.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    picture.unlink()

    saved = (tmp_path / "checkpoint.safetensors").read_bytes()
    program.main(["--folder", str(tmp_path), "--translate", " four zero  two "])
    assert "  four zero two\n  quatre zéro deux\n" in capsys.readouterr().out
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == saved


def test_the_quick_mode_on_digits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program.main(["--quick", "--data", "digits", "--folder", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "Training is done after 30 updates" in printed
    assert "On 40 held-out sentences" in printed


@pytest.mark.data
def test_the_quick_mode_on_verses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        datasets.bible_verses()
    except datasets.DatasetUnavailableError as error:
        pytest.skip(str(error))
    program.main(["--quick", "--folder", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "on verses" in printed
    assert "On 40 held-out sentences" in printed


@pytest.mark.data
@pytest.mark.slow
def test_numbers_are_translated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        datasets.number_words([])
    except datasets.DatasetUnavailableError as error:
        pytest.skip(str(error))
    program.main(["--data", "numbers", "--folder", str(tmp_path)])
    exact = re.search(r"([\d.]+)% exactly", capsys.readouterr().out)
    assert exact is not None
    assert float(exact[1]) >= 97


def test_without_a_data_set_the_next_simpler_one_is_learned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(*_: Any) -> Path:
        raise datasets.DatasetUnavailableError("no network here")

    monkeypatch.setattr(datasets.fetching, "fetch", unavailable)
    monkeypatch.setattr(datasets.fetching, "fetch_debian", unavailable)
    program.main(["--quick", "--folder", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "no network here\nFalling back to --data numbers" in printed
    assert "no network here\nFalling back to --data digits" in printed
    assert "on digits" in printed


def test_two_runs_with_one_seed_are_the_same(tmp_path: Path, pairs: Path) -> None:
    first, second = (run(tmp_path / name, pairs, "--seed", "3") for name in "ab")
    assert_equal(first, second)
    other = run(tmp_path / "c", pairs, "--seed", "4")
    assert np.any(first["model"]["bias"].numpy() != other["model"]["bias"].numpy())


@pytest.mark.parametrize("update", [5, 23])  # before an evaluation, and in the second epoch
def test_resuming_is_the_same_as_not_stopping_bit_for_bit(
    tmp_path: Path,
    pairs: Path,
    update: int,
    press_ctrl_c: Callable[[int], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = ["--updates", "40", "--every", "10"]
    whole = run(tmp_path / "whole", pairs, *settings)
    capsys.readouterr()
    press_ctrl_c(update)
    run(tmp_path / "parts", pairs, *settings)
    printed = capsys.readouterr().out
    assert f"Training is interrupted after {update} updates" in printed
    assert "held-out sentences" not in printed
    program.main(["--translate", "1 2", "--folder", str(tmp_path / "parts")])
    program.main(["--resume", "--folder", str(tmp_path / "parts")])
    assert "Training is done after 40 updates" in capsys.readouterr().out
    assert_equal(whole, mg.load(tmp_path / "parts" / "checkpoint.safetensors"))


def test_an_error_leaves_the_last_checkpoint_to_go_on_from(
    tmp_path: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tmp_path / "whole", pairs)
    real, calls = rnn.clip_grad_norm_, count(1)

    def clip(*args: Any, **more: Any) -> mg.Tensor:
        if next(calls) > 10:
            raise KeyboardInterrupt  # as the second Ctrl-C does
        return real(*args, **more)

    monkeypatch.setattr(rnn, "clip_grad_norm_", clip)
    with pytest.raises(SystemExit, match="interrupted: --resume goes on"):
        run(tmp_path / "parts", pairs)
    monkeypatch.undo()
    assert_equal(whole, run(tmp_path / "parts", pairs, "--resume"))


def test_training_ends_early_where_it_gets_no_better(
    tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A learning rate this high only does harm after the first updates.
    settings = ["--lr", "1", "--every", "1", "--patience", "3", "--updates", "100"]
    saved = run(tmp_path, pairs, *settings)
    assert "no longer improving" in capsys.readouterr().out
    assert 4 <= saved["optimizer"]["steps"].item() < 100
    assert np.any(saved["best"]["bias"].numpy() != saved["model"]["bias"].numpy())


def test_the_time_limit_ends_the_run(
    tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = run(tmp_path, pairs, "--minutes", "0")
    assert saved["optimizer"]["steps"].item() == 1
    assert "out of time" in capsys.readouterr().out


class TestErrors:
    """Each wrong use ends in one sentence, and nothing on disk is lost."""

    def refuse(self, arguments: list[str], message: str) -> None:
        with pytest.raises(SystemExit, match=message) as caught:
            program.main(arguments)
        assert "\n" not in str(caught.value)

    def test_pairs_that_cannot_be_used(self, tmp_path: Path, pairs: Path) -> None:
        self.refuse(
            ["--data", str(tmp_path / "missing")], "cannot read the pairs .*missing: No such"
        )
        self.refuse(["--data", str(pairs), "--words", "1"], "has 2 pairs of at most 1 words, too")
        pairs.write_text("one\tun\nno tab")
        self.refuse(["--data", str(pairs)], "line 2 of .* is not two texts with a tab")

    @pytest.mark.parametrize("option", ["--batch", "--held-out", "--beam"])
    def test_a_count_below_1(self, option: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            program.main([option, "0"])
        assert f"argument {option}: 0 is not at least 1" in capsys.readouterr().err

    def test_settings_that_make_no_sense(
        self, pairs: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        use = ["--data", str(pairs)]
        self.refuse([*use, "--units", "5"], "size is at least")
        self.refuse([*use, "--dropout", "1.5"], r"in \[0, 1\), not 1.5")
        with pytest.raises(SystemExit):
            program.main([*use, "--alpha", "-1"])
        assert "--alpha: -1.0 is not at least 0" in capsys.readouterr().err
        self.refuse([*use, "--device", "gpu"], "unknown device 'gpu'")

    def test_files_that_are_no_checkpoint(self, tmp_path: Path) -> None:
        use = ["--folder", str(tmp_path), "--translate", "one"]
        path = tmp_path / "checkpoint.safetensors"
        self.refuse(use, "there is no checkpoint .*checkpoint.safetensors: train first")
        path.write_bytes(b"no such thing")
        self.refuse(use, "is not a safetensors file")
        mg.save(path, {"w": mg.tensor([1.0])})
        self.refuse(use, "is not a checkpoint of this program")

    def test_a_text_without_words(self, tmp_path: Path) -> None:
        self.refuse(["--folder", str(tmp_path), "--translate", "  "], "no text to translate")

    def test_a_checkpoint_of_something_else(self, tmp_path: Path, pairs: Path) -> None:
        saved = run(tmp_path, pairs)
        resume = ["--resume", "--folder", str(tmp_path)]
        self.refuse([*resume, "--hidden", "9"], "trained with --hidden 8, .* with --hidden 9")
        pairs.write_text(pairs.read_text(encoding="utf-8") + "\nx\ty", encoding="utf-8")
        self.refuse(resume, "the data are not those that this checkpoint was trained on")
        assert_equal(saved, mg.load(tmp_path / "checkpoint.safetensors"))

    def test_a_loss_that_is_not_finite(self, tmp_path: Path, pairs: Path) -> None:
        with np.errstate(all="ignore"):
            self.refuse(
                [*SMALL, "--data", str(pairs), "--folder", str(tmp_path), "--lr", "1e38"],
                "the loss is (nan|inf) at update",
            )
