"""The program of the first command, on a tiny text."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("threadpoolctl")
pytest.importorskip("tqdm")

import text_generation as program

import minigrad as mg
import minigrad_rnn as rnn
from minigrad import nn
from minigrad_rnn import datasets

SMALL = ["--hidden", "8", "--embedding", "4", "--batch", "4", "--k1", "8", "--k2", "8"]
QUICK = ["--updates", "12", "--every", "4", "--length", "20"]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("the quick brown fox jumps over the lazy dog; " * 100, encoding="utf-8")
    return path


def run(folder: Path, text: Path, *more: str) -> mg.SavedTensors:
    """Run the program and return the checkpoint that it leaves."""
    program.main([*SMALL, *QUICK, "--text", str(text), "--folder", str(folder), *more])
    return mg.load(folder / "checkpoint.safetensors")


def assert_equal(a: Any, b: Any) -> None:
    """Two checkpoints hold the same bits."""
    assert a.keys() == b.keys()
    for name in a:
        if isinstance(a[name], dict):
            assert_equal(a[name], b[name])
        else:
            np.testing.assert_array_equal(a[name].numpy(), b[name].numpy(), err_msg=name)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_it_learns_saves_draws_and_writes(
    tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str], cell: str
) -> None:
    saved = run(tmp_path, text, "--cell", cell, "--layers", "2", "--updates", "60", "--lr", "0.02")
    loss = saved["history"]["loss"].numpy()
    assert len(loss) == 60
    assert loss[-5:].mean() < 0.9 * loss[:5].mean()
    assert (tmp_path / "training.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "bits per character on held-out text" in printed
    assert len(printed.partition("It writes:\n")[2].strip("\n")) == 20


@pytest.mark.parametrize(("k1", "k2", "parts"), [(8, 8, 1), (4, 8, 1), (8, 4, 2)])
def test_resuming_is_the_same_as_not_stopping_bit_for_bit(
    tmp_path: Path, text: Path, k1: int, k2: int, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ["--k1", str(k1), "--k2", str(k2), "--dropout", "0.2", "--layers", "2"]
    whole = run(tmp_path / "whole", text, *settings)

    # The run ends without warning, two updates after its second checkpoint; every update
    # computes its loss in so many parts.
    monkeypatch.setattr(nn, "cross_entropy", _fails_after(10 * parts))
    with pytest.raises(SystemExit, match="the power is gone"):
        run(tmp_path / "parts", text, *settings)
    monkeypatch.undo()
    resumed = run(tmp_path / "parts", text, *settings, "--resume")
    for part in ("model", "optimizer", "state", "history"):
        assert_equal(whole[part], resumed[part])


def _fails_after(calls: int) -> Any:
    real, count = nn.cross_entropy, 0

    def cross_entropy(*args: Any, **settings: Any) -> mg.Tensor:
        nonlocal count
        if "reduction" not in settings:  # not the evaluation
            count += 1
        if count > calls:
            raise OSError("the power is gone")
        return real(*args, **settings)

    return cross_entropy


def test_ctrl_c_saves_and_ends(
    tmp_path: Path,
    text: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = rnn.clip_grad_norm_
    updates = 0

    def clip_and_press(*args: Any, **settings: Any) -> mg.Tensor:
        nonlocal updates
        updates += 1
        if updates == 6:
            signal.raise_signal(signal.SIGINT)
        return real(*args, **settings)

    monkeypatch.setattr(rnn, "clip_grad_norm_", clip_and_press)
    saved = run(tmp_path, text)
    assert saved["optimizer"]["steps"].item() == 6
    printed = capsys.readouterr().out
    assert "Training is interrupted after 6 updates" in printed
    assert "--resume" in printed
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    whole = run(tmp_path / "whole", text)
    assert_equal(whole["model"], run(tmp_path, text, "--resume")["model"])


def test_generate_writes_on_and_trains_nothing(
    tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = run(tmp_path, text)
    capsys.readouterr()
    use = ["--folder", str(tmp_path), "--length", "30", "--temperature", "0.5"]
    for _ in range(2):
        program.main([*use, "--generate", "the fox"])
    first, second = capsys.readouterr().out.splitlines()[:2]
    assert first == second
    assert first.startswith("the fox")
    assert len(first) == 37
    assert_equal(saved, mg.load(tmp_path / "checkpoint.safetensors"))


def test_the_time_limit_ends_the_run_and_not_the_resumed_one(
    tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = run(tmp_path, text, "--minutes", "0")
    assert saved["optimizer"]["steps"].item() == 1
    assert "out of time" in capsys.readouterr().out
    assert run(tmp_path, text, "--resume")["optimizer"]["steps"].item() == 12


def test_without_network_and_cache_it_learns_pythons_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable() -> dict[str, str]:
        raise datasets.DatasetUnavailableError("no network here")

    monkeypatch.setattr(datasets, "shakespeare_plays", unavailable)
    run(tmp_path, Path("shakespeare"), "--updates", "1", "--minutes", "0")
    printed = capsys.readouterr().out
    assert "no network here\nFalling back to --text python" in printed
    assert "on python" in printed


class TestErrors:
    """Each wrong use ends in one sentence, and nothing on disk is lost."""

    def refuse(self, arguments: list[str], message: str) -> None:
        with pytest.raises(SystemExit, match=message) as caught:
            program.main(arguments)
        assert "\n" not in str(caught.value)

    def test_text_that_cannot_be_used(self, tmp_path: Path) -> None:
        missing, empty, binary = tmp_path / "missing", tmp_path / "empty", tmp_path / "binary"
        empty.write_text("")
        binary.write_bytes(b"abc\xff\xfe")
        self.refuse(["--text", str(missing)], "cannot read the text .*missing: No such file")
        self.refuse(["--text", str(tmp_path)], "cannot read the text")
        self.refuse(["--text", str(empty)], "empty has only 0 characters, too few")
        self.refuse(["--text", str(binary)], "binary is not a UTF-8 text: byte 3")

    def test_a_text_shorter_than_the_rows(self, tmp_path: Path) -> None:
        short = tmp_path / "short"
        short.write_text("abc" * 30)
        self.refuse(["--text", str(short), "--folder", str(tmp_path)], "does not fit rows of")

    def test_a_checkpoint_of_another_model(self, tmp_path: Path, text: Path) -> None:
        saved = run(tmp_path, text)
        resume = ["--resume", "--folder", str(tmp_path)]
        self.refuse([*resume, "--hidden", "9"], "trained with --hidden 8, .* with --hidden 9")
        other = tmp_path / "other.txt"
        other.write_text("something else entirely, but long enough. " * 50)
        self.refuse([*resume, "--text", str(other)], "trained with --text")
        text.write_text(text.read_text(encoding="utf-8") + "!" * 5)
        self.refuse(resume, "not the one that this checkpoint was trained on")
        assert_equal(saved, mg.load(tmp_path / "checkpoint.safetensors"))

    def test_a_file_that_is_no_checkpoint(self, tmp_path: Path) -> None:
        use = ["--folder", str(tmp_path), "--generate", "a"]
        path = tmp_path / "checkpoint.safetensors"
        self.refuse(use, "there is no checkpoint .*checkpoint.safetensors: train first")
        path.write_bytes(b"no such thing")
        self.refuse(use, "is not a safetensors file")
        mg.save(path, {"w": mg.tensor([1.0])})
        self.refuse(use, "is not a checkpoint of this program")

    def test_a_prompt_of_unknown_characters(self, tmp_path: Path, text: Path) -> None:
        run(tmp_path, text)
        self.refuse(["--folder", str(tmp_path), "--generate", "Ω"], "the character 'Ω' does not")

    def test_settings_that_make_no_sense(
        self, text: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit):
            program.main(["--k1", "0"])
        assert "0 is not at least 1" in capsys.readouterr().err
        self.refuse(["--text", str(text), "--dropout", "1.5"], r"in \[0, 1\), not 1.5")
        self.refuse(["--text", str(text), "--device", "gpu"], "unknown device 'gpu'")

    def test_a_loss_that_is_not_finite(self, tmp_path: Path, text: Path) -> None:
        with np.errstate(all="ignore"):
            self.refuse(
                [*SMALL, "--text", str(text), "--folder", str(tmp_path), "--lr", "1e38"],
                "the loss is (nan|inf) at update",
            )
