"""The program of the first command, on a tiny text."""

from __future__ import annotations

import io
import re
import signal
from collections.abc import Callable
from itertools import product
from math import inf, isnan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import assert_equal

pytest.importorskip("matplotlib")
pytest.importorskip("threadpoolctl")
pytest.importorskip("tqdm")

import text_generation as program
import truncation_study

import minigrad as mg
import minigrad_rnn as rnn
from minigrad import nn
from minigrad_rnn import datasets

pytestmark = pytest.mark.host

SMALL = ["--hidden", "8", "--embedding", "4", "--batch", "4", "--k1", "8", "--k2", "8"]
QUICK = ["--updates", "12", "--every", "4", "--length", "20"]


def write_text(folder: Path) -> Path:
    path = folder / "text.txt"
    path.write_text("the quick brown fox jumps over the lazy dog; " * 100, encoding="utf-8")
    return path


@pytest.fixture
def text(tmp_path: Path) -> Path:
    return write_text(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model that is used, and not trained any further."""
    folder = tmp_path_factory.mktemp("trained")
    run(folder, write_text(folder), "--updates", "40", "--lr", "0.02")
    return folder


def run(folder: Path, text: Path, *more: str) -> mg.SavedTensors:
    """Run the program and return the checkpoint that it leaves."""
    program.main([*SMALL, *QUICK, "--text", str(text), "--folder", str(folder), *more])
    return mg.load(folder / "checkpoint.safetensors")


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_it_learns_saves_draws_and_writes(
    tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str], cell: str
) -> None:
    saved = run(tmp_path, text, "--cell", cell, "--layers", "2", "--updates", "60", "--lr", "0.02")
    loss = saved["history"]["updates"]["loss"].numpy()
    assert len(loss) == 60
    assert loss[-5:].mean() < 0.9 * loss[:5].mean()
    assert (tmp_path / "training.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert re.search(r"update 60: bits per character \d\.\d+", printed)
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
    assert_equal(whole, run(tmp_path / "parts", text, *settings, "--resume"))


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


@pytest.mark.parametrize(("k1", "k2"), [(8, 8), (4, 10), (8, 4)])
def test_ctrl_c_saves_and_ends(
    tmp_path: Path,
    text: Path,
    k1: int,
    k2: int,
    capsys: pytest.CaptureFixture[str],
    press_ctrl_c: Callable[[int], None],
) -> None:
    settings = ["--k1", str(k1), "--k2", str(k2), "--dropout", "0.2", "--layers", "2"]
    whole = run(tmp_path / "whole", text, *settings)
    press_ctrl_c(6)
    saved = run(tmp_path, text, *settings)
    assert saved["optimizer"]["steps"].item() == 6
    printed = capsys.readouterr().out
    assert "Training is interrupted after 6 updates" in printed
    assert "--resume" in printed
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert_equal(whole, run(tmp_path, text, *settings, "--resume"))


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


def log_probability(model: program.CharacterModel, prompt: str, text: str) -> float:
    """Of ``text`` after ``prompt``, all characters read at once."""
    numbers = model.alphabet.encode(prompt + text)
    scores, _ = model(model.place(numbers[:-1, None]))
    told = nn.cross_entropy(scores, model.place(numbers[1:, None]), reduction="none")
    return -told.numpy()[len(prompt) - 1 :].sum().item()


def test_samples_are_drawn_from_the_likeliest_characters_alone(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    use = ["--folder", str(trained), "--length", "30", "--generate", "the fox"]

    def written(*more: str) -> str:
        program.main([*use, *more])
        return capsys.readouterr().out

    likeliest = written("--temperature", "0")
    hot = ["--temperature", "50"]
    assert written(*hot, "--top-k", "1") == likeliest
    assert written(*hot, "--top-p", "1e-6") == likeliest
    assert written(*hot) != likeliest
    assert written(*hot, "--top-p", "1") == written(*hot, "--top-k", "1000") == written(*hot)
    assert len(set(written(*hot, "--top-k", "2"))) < len(set(written(*hot)))


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("prompt", ["t", "the fox"])
def test_a_wide_beam_finds_the_likeliest_text_of_all(
    tmp_path: Path, text: Path, cell: str, prompt: str
) -> None:
    run(tmp_path, text, "--cell", cell, "--layers", "2")
    options = program.parse(["--folder", str(tmp_path), "--generate", "a"])
    model, _ = program.load_model(options)
    model.eval()
    alphabet = model.alphabet.characters
    found, bits = model.likeliest(prompt, 2, width=len(alphabet) ** 2)
    every = {a + b: log_probability(model, prompt, a + b) for a, b in product(alphabet, repeat=2)}
    assert every[found] == pytest.approx(max(every.values()), rel=1e-5)
    assert bits == pytest.approx(-every[found] / np.log(2) / 2, rel=1e-5)


def test_a_beam_of_one_is_the_sample_at_temperature_0(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    use = ["--folder", str(trained), "--length", "30", "--generate", "the fox"]
    program.main([*use, "--temperature", "0"])
    greedy = capsys.readouterr().out
    program.main([*use, "--beam", "1"])
    printed = capsys.readouterr().out
    assert printed.startswith(greedy)
    assert printed.endswith(" bits per character.\n")


class TestInteractive:
    """A conversation, which ends as its user likes."""

    def converse(
        self, folder: Path, typed: str, monkeypatch: pytest.MonkeyPatch, *more: str
    ) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        program.main(["--folder", str(folder), "--interactive", "--length", "10", *more])

    def test_each_prompt_is_continued_as_if_it_were_the_only_one(
        self,
        trained: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        saved = mg.load(trained / "checkpoint.safetensors")
        self.converse(trained, "the fox\nlazy\nthe fox\n", monkeypatch, "--temperature", "0")
        _, *answers = capsys.readouterr().out.split("> ")
        assert answers[0] == answers[2]
        assert [len(answer.strip("\n")) for answer in answers] == [17, 14, 17, 0]
        assert_equal(saved, mg.load(trained / "checkpoint.safetensors"))

    def test_samples_of_the_same_prompt_differ(
        self,
        trained: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        self.converse(trained, "the\nthe\n", monkeypatch)
        _, first, second, _ = capsys.readouterr().out.split("> ")
        assert first.startswith("the")
        assert second.startswith("the")
        assert first != second

    @pytest.mark.parametrize(("typed", "prompts"), [("\nthe\n", 1), ("", 1), ("fox\n", 2)])
    def test_an_empty_line_and_the_end_of_the_input_end_it(
        self,
        trained: Path,
        typed: str,
        prompts: int,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        self.converse(trained, typed, monkeypatch)
        assert capsys.readouterr().out.count("\n> ") == prompts

    def test_ctrl_c_ends_it_while_it_waits_and_while_it_writes(
        self, trained: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls = 0

        def press(*args: Any, **settings: Any) -> Any:
            nonlocal calls
            calls += 1
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(rnn, "sample", press)
            self.converse(trained, "the\nfox\n", monkeypatch)
        monkeypatch.setattr("builtins.input", press)
        self.converse(trained, "", monkeypatch)
        assert calls == 2

    def test_a_character_that_it_does_not_know_is_no_end(
        self,
        trained: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        self.converse(trained, "Ω\nfox\n", monkeypatch, "--beam", "2")
        _, refused, answer, _ = capsys.readouterr().out.split("> ")
        assert refused.startswith("the character 'Ω' does not occur")
        assert answer.startswith("fox")


class TestStudy:
    """The comparison, by networks that are too small to show much."""

    def run(self, folder: Path, text: Path, *more: str) -> None:
        small = ["--hidden", "4", "--embedding", "4", "--batch", "4", "--updates", "4"]
        program.main(["--study", "--text", str(text), "--folder", str(folder), *small, *more])

    def test_it_prints_a_table_and_draws_a_figure(
        self, tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.run(tmp_path, text, "--seeds", "2")
        printed = capsys.readouterr().out
        rows = {
            line.split(" | ")[0].strip("| "): line for line in printed.splitlines() if "|" in line
        }
        assert rows.keys() - {"network", "---|---|---|---|---"} == truncation_study.RUNS.keys()
        assert all(" to " in rows[name] for name in truncation_study.RUNS)
        assert (tmp_path / "study.png").read_bytes().startswith(b"\x89PNG")
        assert not (tmp_path / "checkpoint.safetensors").exists()

    def test_the_quick_mode(
        self, tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        quick = ["--study", "--quick", "--text", str(text), "--folder", str(tmp_path)]
        program.main([*quick, "--batch", "4"])
        assert "Networks of 8 features" in capsys.readouterr().out
        assert (tmp_path / "study.png").read_bytes().startswith(b"\x89PNG")

    @pytest.mark.slow
    def test_a_letter_that_returns_is_learned_if_gradients_reach_it(self) -> None:
        bits = {}
        for k2 in (4, 16):
            s = program.Settings(hidden=64, embedding=32, k1=4, k2=k2, lr=1e-2, updates=800)
            corpus = truncation_study.recall_corpus()
            curve = truncation_study.learn(s, corpus, "cpu", False, lambda: None)
            bits[k2] = curve.bits[-1]
        # A letter of 8 in a line of 8 characters is 3 / 8 bits per character.
        assert bits[4] > 0.7
        assert bits[16] < 0.5

    def test_a_run_that_is_lost_is_a_result(self) -> None:
        s = program.Settings(cell="rnn", hidden=8, batch=4, k1=4, k2=4, updates=50, clip=inf)
        s.lr = 1e38
        corpus = truncation_study.recall_corpus()
        with np.errstate(all="ignore"):
            curve = truncation_study.learn(s, corpus, "cpu", True, lambda: None)
        assert len(curve.norms) < 50
        assert isnan(curve.bits[-1])
        assert "nan" in truncation_study.summary([curve])

    def test_settings_that_it_chooses_itself(self, tmp_path: Path, text: Path) -> None:
        for name, value in {
            "cell": "gru",
            "k1": 4,
            "k2": 8,
            "lr": 0.1,
            "clip": 1,
            "seed": 3,
        }.items():
            with pytest.raises(SystemExit, match=f"of its own choice: leave out --{name}"):
                self.run(tmp_path, text, f"--{name}", str(value))


def test_the_time_limit_ends_the_run_and_not_the_resumed_one(
    tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = run(tmp_path, text, "--minutes", "0")
    assert saved["optimizer"]["steps"].item() == 1
    assert "out of time" in capsys.readouterr().out
    assert run(tmp_path, text, "--resume")["optimizer"]["steps"].item() == 12


def test_the_quick_mode(tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program.main(["--quick", "--text", str(text), "--folder", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "LSTM of 32 features" in printed
    assert "Training is done after 40 updates" in printed


@pytest.mark.data
def test_the_quick_mode_on_plays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        datasets.shakespeare_plays()
    except datasets.DatasetUnavailableError as error:
        pytest.skip(str(error))
    program.main(["--quick", "--folder", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "on shakespeare" in printed
    bits = re.findall(r"update \d+: bits per character ([\d.]+)", printed)
    assert float(bits[-1]) < float(bits[0]) < 6.0
    assert "It writes:" in printed


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
        self.refuse(resume, "the data are not those that this checkpoint was trained on")
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

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--top-k", "0"], "--top-k: 0 is not at least 1"),
            (["--top-p", "0"], "--top-p: 0.0 is not above 0 and at most 1"),
            (["--top-p", "1.1"], "--top-p: 1.1 is not above 0 and at most 1"),
            (["--top-p", "nan"], "--top-p: nan is not above 0"),
            (["--temperature", "-1"], "--temperature: -1.0 is not at least 0"),
            (["--beam", "0"], "--beam: 0 is not at least 1"),
            (["--beam", "4", "--temperature", "1"], "so --temperature does not go with it"),
            (["--beam", "4", "--top-k", "5"], "so --top-k does not go with it"),
            (["--study", "--resume"], "so --resume does not go with it"),
            (["--generate", "a", "--interactive"], "not allowed with argument"),
        ],
    )
    def test_options_that_make_no_sense(
        self, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit):
            program.main(arguments)
        assert message in capsys.readouterr().err.splitlines()[-1]

    def test_a_conversation_without_a_checkpoint(self, tmp_path: Path) -> None:
        self.refuse(["--folder", str(tmp_path), "--interactive"], "there is no checkpoint")

    def test_a_loss_that_is_not_finite(self, tmp_path: Path, text: Path) -> None:
        with np.errstate(all="ignore"):
            self.refuse(
                [*SMALL, "--text", str(text), "--folder", str(tmp_path), "--lr", "1e38"],
                "the loss is (nan|inf) at update",
            )
