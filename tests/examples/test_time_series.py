"""The program that forecasts series, on generated waves and on a file of the user's own."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import assert_equal

pytest.importorskip("matplotlib")
pytest.importorskip("threadpoolctl")
pytest.importorskip("tqdm")

import time_series as program

import minigrad as mg
import minigrad_rnn as rnn
from minigrad_rnn import datasets

pytestmark = pytest.mark.host

SMALL = ["--hidden", "6", "--steps", "12", "--batch", "16", "--updates", "12", "--every", "4"]


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """Hours of a wave, with a column that helps, missing values, and a name for a place."""
    path = tmp_path / "series.csv"
    rng = np.random.default_rng(0)
    lines = ["time,temp,wind,place"]
    for hour in range(240):
        time = np.datetime64("2026-11-01T00:00") + np.timedelta64(hour, "h")
        wave = np.sin(hour / 4) + 0.1 * rng.standard_normal()
        lines.append(f"{time},{'NA' if hour % 17 == 0 else wave},{np.cos(hour / 4)},here")
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def run(folder: Path, series: Path, *more: str) -> mg.SavedTensors:
    """Run the program and return the checkpoint that it leaves."""
    use = ["--data", str(series), "--column", "temp", "--folder", str(folder)]
    program.main([*SMALL, *use, *more])
    return mg.load(folder / "checkpoint.safetensors")


def better(printed: str, name: str) -> list[float]:
    """By how many percent the network was better than a simple forecast, for each target."""
    found = re.findall(rf"([\d.]+)% (better|worse) than {name}", printed)
    return [float(percent) * (1 if word == "better" else -1) for percent, word in found]


def test_it_learns_waves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    use = ["--data", "waves", "--folder", str(tmp_path), "--updates", "400"]
    program.main(use)
    printed = capsys.readouterr().out
    assert "A sequence-to-sequence GRU" in printed
    for name in ("persistence", "constant"):
        [percent] = better(printed, name)
        assert percent > 60
    covered = re.search(r"(\d+)% lie in the 80% interval", printed)
    assert covered is not None
    assert 70 <= int(covered[1]) <= 90
    for name in ("forecast.png", "training.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("horizon", ["1", "3"])
def test_a_file_of_the_users_own(
    tmp_path: Path, series: Path, capsys: pytest.CaptureFixture[str], horizon: str
) -> None:
    run(tmp_path, series, "--horizon", horizon, "--ahead", "2")
    printed = capsys.readouterr().out
    assert "2 hours ahead" in printed
    assert ("4 hours ahead" in printed) == (horizon == "3")
    assert "nan" not in printed
    assert len(better(printed, "persistence")) == 1
    assert (tmp_path / "forecast.png").read_bytes().startswith(b"\x89PNG")


def test_the_quick_mode_on_waves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program.main(["--quick", "--data", "waves", "--folder", str(tmp_path)])
    assert "Training is done after 60 updates" in capsys.readouterr().out


@pytest.mark.data
@pytest.mark.parametrize("data", ["weather", "seattle", "stocks"])
def test_the_quick_mode_on_real_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], data: str
) -> None:
    settings = program.Settings(data=data)
    try:
        program.load(settings)
    except datasets.DatasetUnavailableError as error:
        pytest.skip(str(error))
    program.main(["--quick", "--data", data, "--folder", str(tmp_path)])
    printed = capsys.readouterr().out
    assert f"on {data}" in printed
    assert "nan" not in printed
    assert len(better(printed, "persistence")) == (2 if data == "stocks" else 1)


@pytest.mark.data
@pytest.mark.slow
def test_the_weather_is_forecast(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        datasets.airport_weather()
    except datasets.DatasetUnavailableError as error:
        pytest.skip(str(error))
    program.main(["--folder", str(tmp_path)])
    [percent] = better(capsys.readouterr().out, "persistence")
    assert percent >= 30


@pytest.mark.data
@pytest.mark.slow
def test_ranges_are_forecast_and_returns_are_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        datasets.daily_stocks()
    except datasets.DatasetUnavailableError as error:
        pytest.skip(str(error))
    program.main(["--data", "stocks", "--folder", str(tmp_path)])
    printed = capsys.readouterr().out
    spread, _ = better(printed, "22-day mean")
    assert spread > 3
    _, gain = better(printed, "constant")
    assert abs(gain) < 2
    assert "cannot be told from these data" in printed


def test_without_a_data_set_waves_are_learned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(*_: Any) -> Path:
        raise datasets.DatasetUnavailableError("no network here")

    for name in ("fetch", "fetch_source"):
        monkeypatch.setattr(datasets.fetching, name, unavailable)
    for data in ("weather", "seattle", "stocks"):
        program.main(["--quick", "--data", data, "--folder", str(tmp_path)])
        printed = capsys.readouterr().out
        assert "no network here\nFalling back to --data waves" in printed
        assert "on waves" in printed


def test_two_runs_with_one_seed_are_the_same(tmp_path: Path, series: Path) -> None:
    first, second = (run(tmp_path / name, series, "--seed", "3") for name in "ab")
    assert_equal(first, second)
    other = run(tmp_path / "c", series, "--seed", "4")
    one, another = (saved["model"]["output.bias"].numpy() for saved in (first, other))
    assert np.any(one != another)


def test_resuming_is_the_same_as_not_stopping_bit_for_bit(
    tmp_path: Path,
    series: Path,
    press_ctrl_c: Callable[[int], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = ["--updates", "30", "--every", "10", "--horizon", "2"]
    whole = run(tmp_path / "whole", series, *settings)
    press_ctrl_c(23)  # between two evaluations, in the second epoch
    run(tmp_path / "parts", series, *settings)
    assert "Training is interrupted after 23 updates" in capsys.readouterr().out
    program.main(["--resume", "--folder", str(tmp_path / "parts")])
    assert_equal(whole, mg.load(tmp_path / "parts" / "checkpoint.safetensors"))


def test_the_future_is_not_known() -> None:
    """What is learned and forecast does not depend on what comes afterwards."""
    settings = program.Settings(**{**program.PRESETS["waves"], "data": "waves", "hidden": 6})
    task = program.load(settings)
    learner = program.Learner(settings, task, "cpu")
    learner.model.eval()
    _, _, test = learner.parts
    end = int(learner.windows.starts[test[0]]) + settings.steps
    changed = [each.copy() for each in (task.read, task.wanted)]
    for each in changed:
        each[end:] = 1e3
    other = program.Learner(settings, task._replace(read=changed[0], wanted=changed[1]), "cpu")
    other.model.eval()
    losses = [each.update()["loss"].item() for each in (learner, other)]
    assert losses[0] == losses[1]
    chosen = test[:1]
    np.testing.assert_array_equal(learner.forecast(chosen), other.forecast(chosen))
    for name in task.simple:
        one, another = (
            program.SIMPLE[name](each.task, each.windows, each.known)[:, chosen]
            for each in (learner, other)
        )
        np.testing.assert_array_equal(one, another)


def test_quantiles_rise() -> None:
    settings = program.Settings(**{**program.PRESETS["waves"], "data": "waves"})
    learner = program.Learner(settings, program.load(settings), "cpu")
    quantiles = learner.forecast(learner.parts[1])
    assert quantiles.shape == (3, 6, len(learner.parts[1]), 1)
    assert (np.diff(quantiles, axis=0) > 0).all()


def test_simple_forecasts() -> None:
    days = 3 * 365
    times = np.datetime64("2023-01-01", "s") + np.timedelta64(1, "D") * np.arange(days)
    wanted = np.arange(days, dtype=float)[:, None]
    task = program.Task(times, wanted, wanted, ("day",), ())
    windows = rnn.Windows(times, 30, horizon=2)
    known = np.arange(2 * 365)
    last = windows.starts + 29.0
    found = {name: each(task, windows, known)[..., 0] for name, each in program.SIMPLE.items()}
    assert all(each.shape == (2, len(windows)) for each in found.values())
    np.testing.assert_array_equal(found["persistence"], [last, last])
    np.testing.assert_array_equal(found["yesterday"], [last, last])
    np.testing.assert_array_equal(found["22-day mean"], [last - 10.5] * 2)
    np.testing.assert_array_equal(found["constant"], (2 * 365 - 1) / 2)
    # The mean of two years, on a day in July.
    day = 200
    assert found["climatology"][0, 365 + day - 30] == pytest.approx(day + 365 / 2)


def test_the_time_of_day_and_year() -> None:
    hours = np.datetime64("2012-01-01", "s") + np.timedelta64(1, "h") * np.arange(800 * 24)
    short = program.calendar(hours, hours[:5000])
    assert short.shape == (len(hours), 3)
    np.testing.assert_allclose(short[24:, 1:], short[:-24, 1:], atol=1e-9)
    assert program.calendar(hours, hours).shape == (len(hours), 4)
    assert program.calendar(hours[::24], hours).shape == (800, 2)


class TestErrors:
    """Each wrong use ends in one sentence, and nothing on disk is lost."""

    def refuse(self, arguments: list[str], message: str) -> None:
        with pytest.raises(SystemExit, match=message) as caught:
            program.main(arguments)
        assert "\n" not in str(caught.value)

    def test_series_that_cannot_be_used(self, tmp_path: Path, series: Path) -> None:
        use = ["--data", str(series), "--folder", str(tmp_path / "run")]
        self.refuse(["--data", "none.csv"], "cannot read the series none.csv: No such file")
        self.refuse(use, "has no column '' to forecast: --column is one of temp, wind")
        self.refuse([*use, "--column", "Temp"], "has no column 'Temp' to forecast")
        self.refuse([*use, "--column", "place"], "has no column 'place' to forecast")
        use += ["--column", "temp"]
        self.refuse([*use, "--steps", "300"], "a window has 301 steps, and the longest .* has 240")
        self.refuse([*use, "--steps", "236"], "4 windows are too few for parts")
        lines = series.read_text(encoding="utf-8").splitlines()
        series.write_text("\n".join([*lines[:100], *lines[101:]]), encoding="utf-8")
        gap = "has 1 gaps, the first of them from 2026-11-05T02:00:00 to 2026-11-05T04:00:00"
        self.refuse(use, gap)
        lines[50] = lines[50].replace(",", ",warm", 1)
        series.write_text("\n".join(lines), encoding="utf-8")
        self.refuse(use, "series.csv: line 51 has 'warm.*' as its temp, which is no number")
        assert not (tmp_path / "run").exists()

    def test_gaps_can_be_left_out_or_crossed(self, tmp_path: Path, series: Path) -> None:
        lines = series.read_text(encoding="utf-8").splitlines()
        series.write_text("\n".join([*lines[:100], *lines[101:]]), encoding="utf-8")
        for gaps in ("skip", "cross"):
            run(tmp_path / gaps, series, "--gaps", gaps)

    @pytest.mark.parametrize("option", ["--batch", "--steps", "--ahead", "--horizon"])
    def test_a_count_below_1(self, option: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            program.main([option, "0"])
        assert f"argument {option}: 0 is not at least 1" in capsys.readouterr().err

    def test_a_checkpoint_of_something_else(self, tmp_path: Path, series: Path) -> None:
        resume = ["--resume", "--folder", str(tmp_path)]
        self.refuse(resume, "there is no checkpoint .*: train first")
        saved = run(tmp_path, series)
        self.refuse([*resume, "--hidden", "9"], "trained with --hidden 6, .* with --hidden 9")
        text = series.read_text(encoding="utf-8")
        series.write_text(f"{text}\n2026-12-01,0.5,0.5,here", encoding="utf-8")
        self.refuse(resume, "the data are not those that this checkpoint was trained on")
        assert_equal(saved, mg.load(tmp_path / "checkpoint.safetensors"))

    def test_a_loss_that_is_not_finite(self, tmp_path: Path, series: Path) -> None:
        use = ["--data", str(series), "--column", "temp", "--folder", str(tmp_path)]
        with np.errstate(all="ignore"):
            self.refuse([*SMALL, *use, "--lr", "1e38"], "the loss is (nan|inf) at update")
