"""Train a network to forecast a series, with intervals, and hold it against simple forecasts.

    python examples/time_series.py                    # temperature at JFK airport, in six hours
    python examples/time_series.py --data seattle     # days in Seattle, the next seven
    python examples/time_series.py --data stocks      # range and return of the next day
    python examples/time_series.py --data my.csv --column temp --ahead 3

A GRU reads the last steps of a series. What it has read is turned into the 10, 50 and 90 %
quantiles of what comes next (many-to-one), or is handed to a second GRU, which writes several
steps (sequence-to-sequence). Training leaves a checkpoint with the best weights, the errors of
the network and of simple forecasts on the last part of the series, and a picture of both.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.dates import ConciseDateFormatter
from matplotlib.figure import Figure
from numpy.typing import NDArray
from settings import (
    check_data,
    conclude,
    given,
    parser,
    run,
    setting,
    start,
    training_of,
)

import minigrad as mg
import minigrad_rnn as rnn
from minigrad import Tensor, nn
from minigrad_rnn import datasets, metrics

QUANTILES = (0.1, 0.5, 0.9)
#: The parts that are learned from, used to stop and to adjust intervals, and judged by.
SHARES = (0.7, 0.15, 0.15)
HOUR, DAY = np.timedelta64(1, "h"), np.timedelta64(1, "D")
STOCKS = ("AAPL", "GOOG", "IBM", "MSFT")


@dataclass
class Settings:
    """What decides the numbers of a run; it is stored in the checkpoint."""

    data: str = setting("weather", "'weather', 'seattle', 'stocks', 'waves', or a CSV file")
    column: str = setting("", "the column of a CSV file that is forecast; the others help")
    airport: str = setting("JFK", "whose weather it is", choices=("EWR", "JFK", "LGA"))
    gaps: str = setting(
        "refuse", "jumps of a file's times within a window", choices=("refuse", "skip", "cross")
    )
    steps: int = setting(48, "steps that are read")
    ahead: int = setting(1, "how far ahead the first forecast is")
    horizon: int = setting(1, "how many steps are forecast")
    hidden: int = setting(32, "features of the state")
    dropout: float = setting(0.2, "probability of dropping a feature of the state")
    blanking: float = setting(0.1, "probability of dropping a number that is read")
    batch: int = setting(64, "windows of an update")
    lr: float = setting(3e-3, "learning rate at the start; it falls to 0 along a cosine")
    clip: float = setting(1.0, "largest norm of the gradient")
    updates: int = setting(1500, "updates in all")
    every: int = setting(100, "updates between evaluations")
    patience: int = setting(8, "evaluations without a better one that end the training")
    seed: int = setting(0, "of the initial values, the order and the dropout", minimum=0)


#: What suits a data set.
PRESETS: dict[str, dict[str, Any]] = {
    "weather": {"gaps": "skip", "ahead": 6},
    "seattle": {"steps": 30, "horizon": 7, "hidden": 24, "lr": 2e-3, "every": 50},
    "stocks": {"gaps": "cross", "steps": 30, "lr": 2e-3},
    "waves": {"gaps": "skip", "steps": 24, "horizon": 6},
}
#: A run that shows that the program works, not what the network can learn.
QUICK = {"hidden": 12, "updates": 60, "every": 20}


# --------------------------------------------------------------------------------------
# The series
# --------------------------------------------------------------------------------------


class Task(NamedTuple):
    """What is read, what is forecast of it, and what that is held against."""

    times: NDArray[np.datetime64]
    read: NDArray[Any]  # (time, columns), NaN where a value is missing
    wanted: NDArray[Any]  # (time, targets)
    names: tuple[str, ...]  # of the targets
    simple: tuple[str, ...]  # forecasts, of SIMPLE
    lasting: bool = True  # whether the next value is close to the last one
    remark: str = ""


def load(s: Settings) -> Task:
    """The data set, or the user's file."""
    if s.data == "weather":
        times, columns = datasets.airport_weather()[s.airport]
        angle = np.deg2rad(columns.pop("wind_dir"))
        columns["east"] = columns["wind_speed"] * np.sin(angle)
        columns["north"] = columns["wind_speed"] * np.cos(angle)
        wanted, name = columns["temp"][:, None], f"temperature at {s.airport}, °F"
        return Task(times, table(columns), wanted, (name,), ("persistence", "yesterday"))
    if s.data == "seattle":
        times, columns = datasets.seattle_weather()
        columns["precipitation"] = np.log1p(columns["precipitation"])
        wanted, name = columns["temp_max"][:, None], "highest temperature of the day, °C"
        return Task(times, table(columns), wanted, (name,), ("persistence", "climatology"))
    if s.data == "stocks":
        prices = datasets.daily_stocks()
        several = [traded(prices[ticker]) for ticker in STOCKS]
        times, read = (np.concatenate(parts) for parts in zip(*several, strict=True))
        names = ("range of a day's prices, logarithm", "return of a day, %")
        simple = ("persistence", "22-day mean", "constant")
        remark = (
            "What prices do tomorrow cannot be told from these data, only how much: the return is "
            "forecast\nas well by a constant. The network knows when its interval must be wide. "
            f"The picture shows {STOCKS[0]}."
        )
        return Task(times, read, read[:, :2], names, simple, lasting=False, remark=remark)
    if s.data == "waves":
        times, columns = waves()
        return Task(times, table(columns), table(columns), ("waves",), ("persistence", "constant"))
    try:
        times, columns = datasets.read_series(s.data)
    except OSError as error:
        raise SystemExit(f"cannot read the series {s.data}: {error.strerror}") from None
    if s.column not in columns:
        raise SystemExit(
            f"{s.data} has no column {s.column!r} to forecast: --column is one of "
            f"{', '.join(columns)}"
        )
    wanted = columns[s.column][:, None]
    return Task(times, table(columns), wanted, (s.column,), ("persistence", "constant"))


def table(columns: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """Columns by name as (time, columns)."""
    return np.stack([*columns.values()], axis=1)


def traded(series: datasets.Series) -> tuple[NDArray[Any], NDArray[Any]]:
    """Of a stock: the days, and what describes them, which has no trend."""
    times, prices = series
    spread = np.log(np.maximum(np.log(prices["high"] / prices["low"]), 1e-4))
    gain = 100.0 * np.diff(np.log(prices["adj_close"]), prepend=np.nan)
    volume = np.diff(np.log(prices["volume"]), prepend=np.nan)
    return times, np.stack([spread, gain, np.abs(gain), volume], axis=1)


def waves() -> datasets.Series:
    """Two waves with noise, some of it missing: what stands in where nothing can be fetched."""
    rng = np.random.default_rng(0)
    hours = np.delete(np.arange(2000), slice(700, 720))
    values = np.sin(hours * np.pi / 12) + 0.5 * np.sin(hours * np.pi / 80)
    values += 0.1 * rng.standard_normal(len(hours))
    values[rng.random(len(hours)) < 0.05] = np.nan
    return datasets.Series(np.datetime64("2026-01-01", "s") + hours * HOUR, {"waves": values})


def calendar(times: NDArray[np.datetime64], known: NDArray[np.datetime64]) -> NDArray[Any]:
    """The time of the day and of the year as angles, (time, features), which rise and fall.

    Where the ``known`` times are no more than a year, spring has no counterpart in what is to
    come: the year is then told by its warm and cold half alone.
    """

    def angles(period: np.timedelta64) -> NDArray[Any]:
        since = times - np.datetime64("2000-12-21", "s")
        return 2.0 * np.pi * (since / period)

    year = angles(np.timedelta64(31556952, "s"))
    features = [np.cos(year)]
    if known.max() - known.min() > 400 * DAY:
        features.append(np.sin(year))
    if spacing(times) < DAY:
        day = angles(DAY.astype("timedelta64[s]"))
        features += [np.cos(day), np.sin(day)]
    return np.stack(features, axis=1)


def spacing(times: NDArray[np.datetime64]) -> Any:
    """How far apart steps are, but for gaps."""
    return np.median(np.diff(times).astype(int)).astype("timedelta64[s]")


def unit(times: NDArray[np.datetime64]) -> str:
    """What a step is called."""
    return {HOUR: "hour", DAY: "day"}.get(spacing(times), "step")


def ahead(steps: int, step: str) -> str:
    """How far ahead, in words."""
    return f"{steps} {step}{'s' if steps > 1 else ''} ahead"


# --------------------------------------------------------------------------------------
# Simple forecasts: of the targets' (time, targets), (horizon, windows, targets)
# --------------------------------------------------------------------------------------


def persistence(task: Task, windows: rnn.Windows, known: NDArray[Any]) -> NDArray[Any]:
    """The last value that is known."""
    return np.repeat(windows.inputs(rnn.fill_forward(task.wanted))[-1:], windows.horizon, axis=0)


def yesterday(task: Task, windows: rnn.Windows, known: NDArray[Any]) -> NDArray[Any]:
    """The last known value at the same time of the day."""
    day = int(DAY / spacing(task.times))
    after = windows.ahead + np.arange(windows.horizon)
    values = windows.inputs(rnn.fill_forward(task.wanted))
    return values[windows.steps - 1 + after - day * -(-after // day)]


def mean_of_22(task: Task, windows: rnn.Windows, known: NDArray[Any]) -> NDArray[Any]:
    """The mean of the last 22 values, which is a month of trading."""
    mean = np.nanmean(windows.inputs(task.wanted)[-22:], axis=0, keepdims=True)
    return np.repeat(mean, windows.horizon, axis=0)


def climatology(task: Task, windows: rnn.Windows, known: NDArray[Any]) -> NDArray[Any]:
    """The mean of all years that were learned from, within 10 days of the same date."""
    days = (task.times - task.times.astype("datetime64[Y]")) // DAY
    means = []
    for day in range(366):
        distance = np.abs(days[known] - day)
        near = np.minimum(distance, 366 - distance) <= 10
        means.append(np.nanmean(task.wanted[known][near], axis=0))
    return windows.targets(np.stack(means)[days])


def constant(task: Task, windows: rnn.Windows, known: NDArray[Any]) -> NDArray[Any]:
    """The mean of all that was learned from."""
    mean = np.nanmean(task.wanted[known], axis=0)
    return np.broadcast_to(mean, (windows.horizon, len(windows), len(mean)))


SIMPLE: dict[str, Callable[[Task, rnn.Windows, NDArray[Any]], NDArray[Any]]] = {
    "persistence": persistence,
    "yesterday": yesterday,
    "22-day mean": mean_of_22,
    "climatology": climatology,
    "constant": constant,
}


# --------------------------------------------------------------------------------------
# The network
# --------------------------------------------------------------------------------------


class Forecaster(nn.Module):
    """Steps of a series in, quantiles of steps to come out."""

    def __init__(self, sizes: tuple[int, int, int], s: Settings, rng: np.random.Generator) -> None:
        features, dates, targets = sizes
        self.blanking = nn.Dropout(s.blanking, rng=rng)
        self.encoder = rnn.GRU(features, s.hidden, rng=rng)
        self.decoder = rnn.GRU(dates, s.hidden, rng=rng) if s.horizon > 1 else None
        self.dropout = nn.Dropout(s.dropout, rng=rng)
        self.output = nn.Linear(s.hidden, len(QUANTILES) * targets, rng=rng)

    def forward(self, xs: Tensor, dates: Tensor, base: Tensor) -> Tensor:
        """(horizon, batch, targets, quantiles), in rising order.

        Args:
            xs: (steps, batch, features), what is read.
            dates: (horizon, batch, dates), when the steps to come are.
            base: (batch, targets), what the forecast is a change of.
        """
        ys, last = self.encoder(self.blanking(xs))
        ys = ys[-1:] if self.decoder is None else self.decoder(dates, last)[0]
        scores = self.output(self.dropout(ys))
        below, change, above = mg.split(scores, len(QUANTILES), axis=-1)
        median = base + change
        quantiles = [median - mg.softplus(below), median, median + mg.softplus(above)]
        return mg.stack(quantiles, axis=-1)


class Learner:
    """The network, the windows that it learns from, and what changes it."""

    def __init__(self, settings: Settings, task: Task, device: str) -> None:
        s = self.settings = settings
        gaps: Any = s.gaps
        self.task, self.device = task, device
        self.windows = rnn.Windows(task.times, s.steps, ahead=s.ahead, horizon=s.horizon, gaps=gaps)
        self.parts = self.windows.split(*SHARES)
        self.known = self.windows.extent(self.parts[0])
        self.scaler = rnn.Scaler(task.wanted[self.known])
        scaled = rnn.Scaler(task.read[self.known])(task.read)
        filled, there = rnn.fill_missing(scaled)
        self.dates = calendar(task.times, task.times[self.known]).astype(np.float32)
        self.read = np.concatenate([filled, there, self.dates], axis=1).astype(np.float32)
        wanted = self.scaler(task.wanted).astype(np.float32)
        self.wanted, self.there = rnn.fill_missing(wanted)
        # Forecasts are of the change since the last value that is known.
        base = rnn.fill_forward(wanted) if task.lasting else np.zeros_like(wanted)
        self.base, _ = rnn.fill_missing(base)
        self.rng = np.random.default_rng(s.seed)
        sizes = self.read.shape[1], self.dates.shape[1], self.wanted.shape[1]
        self.model = Forecaster(sizes, s, self.rng).to(device)
        self.batches = rnn.Batches(len(self.parts[0]), s.batch, seed=s.seed)
        self.optimizer = mg.optim.Adam(self.model.named_parameters(), lr=s.lr)
        self.schedule = mg.optim.CosineAnnealingLR(self.optimizer, s.updates)

    def quantiles(self, chosen: NDArray[Any]) -> Tensor:
        """Those of scaled targets of the chosen windows."""
        inputs = (
            self.windows.inputs(self.read, chosen),
            self.windows.targets(self.dates, chosen),
            self.windows.inputs(self.base, chosen)[-1],
        )
        return self.model(*map(self.place, inputs))

    def loss(self, chosen: NDArray[Any], **settings: Any) -> Tensor:
        """The quantile loss of the chosen windows' targets, missing ones left out."""
        wanted, there = (
            self.place(self.windows.targets(each, chosen)) for each in (self.wanted, self.there)
        )
        return nn.quantile_loss(self.quantiles(chosen), wanted, QUANTILES, there, **settings)

    def place(self, array: NDArray[Any]) -> Tensor:
        """An array on the device."""
        return mg.asarray(array, device=self.device)

    def update(self) -> dict[str, Tensor]:
        """Learn from the next batch."""
        with mg.Tape() as tape:
            loss = self.loss(self.parts[0][next(self.batches)])
        tape.backward(loss)
        norm = rnn.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        return {"loss": loss, "norm": norm}

    def evaluate(self) -> dict[str, float]:
        """The loss on the validation part."""
        total = sum(self.loss(each, reduction="sum").item() for each in slices(self.parts[1]))
        return {"loss": total / self.windows.targets(self.there, self.parts[1]).sum()}

    def forecast(self, chosen: NDArray[Any]) -> NDArray[Any]:
        """Quantiles (quantiles, horizon, windows, targets) of the chosen windows' targets."""
        with mg.no_grad():
            scaled = [self.quantiles(each).numpy() for each in slices(chosen)]
        return self.scaler.inverse(np.moveaxis(np.concatenate(scaled, axis=1), -1, 0))


def slices(chosen: NDArray[Any]) -> list[NDArray[Any]]:
    """Windows in batches, in their order."""
    return np.array_split(chosen, -(-len(chosen) // 512))


# --------------------------------------------------------------------------------------
# What comes of it
# --------------------------------------------------------------------------------------


class Result(NamedTuple):
    """Forecasts for the windows of the last part, and what came to pass."""

    windows: NDArray[Any]
    truth: NDArray[Any]  # (horizon, windows, targets)
    quantiles: NDArray[Any]  # (quantiles, horizon, windows, targets)
    simple: dict[str, NDArray[Any]]  # (horizon, windows, targets)

    def errors(self) -> dict[str, NDArray[Any]]:
        """The mean absolute error (horizon, targets) of each forecast."""
        forecasts = {"network": self.quantiles[1], **self.simple}
        return {
            name: metrics.mean_absolute_error(each, self.truth, axis=1)
            for name, each in forecasts.items()
        }


def judge(learner: Learner) -> Result:
    """Forecast the last part, and print how good that is beside simple forecasts."""
    task, windows = learner.task, learner.windows
    _, validation, test = learner.parts
    truth = windows.targets(task.wanted)
    share = QUANTILES[-1] - QUANTILES[0]
    low, _, high = learner.forecast(validation).swapaxes(1, 2)
    margin = rnn.conformal_margin(low, high, truth[:, validation].swapaxes(0, 1), share)
    raw = learner.forecast(test)
    quantiles = raw + np.stack([-margin, 0 * margin, margin])[:, :, None]
    simple = {name: SIMPLE[name](task, windows, learner.known)[:, test] for name in task.simple}
    result = Result(test, truth[:, test], quantiles, simple)
    print(f"\nOn the last part, from {windows.times[test].min()} to {windows.times[test].max()}:")
    covered, adjusted = (
        metrics.coverage(q[0], q[-1], result.truth, axis=1) for q in (raw, quantiles)
    )
    errors = result.errors()
    for i, target in enumerate(task.names):
        print(f"\n  {target}\n  mean absolute error   " + "".join(f"{n:>13}" for n in errors))
        for j in range(windows.horizon):
            far = ahead(windows.ahead + j, unit(task.times))
            print(f"    {far:<20}" + "".join(f"{e[j, i]:13.3f}" for e in errors.values()))
        ours = errors["network"][:, i].mean()
        for name, error in list(errors.items())[1:]:
            gain = 1 - ours / error[:, i].mean()
            print(f"  {abs(gain):.1%} {'better' if gain > 0 else 'worse'} than {name}")
        print(
            f"  {adjusted[:, i].mean():.0%} lie in the {share:.0%} interval; "
            f"{covered[:, i].mean():.0%} before it was adjusted to the validation part"
        )
    print(f"\n{task.remark}" if task.remark else "")
    return result


def draw(learner: Learner, result: Result, path: Path) -> None:
    """Forecasts beside the truth and persistence, with intervals, and the errors of each."""
    task, windows = learner.task, learner.windows
    horizon, step = windows.horizon, unit(task.times)
    steps = windows.ahead + np.arange(horizon)
    shown = slice(0, 240 if step == "hour" else 180)
    when = windows.targets(task.times, result.windows[shown])
    rows = len(task.names) * min(horizon, 2)
    figure = Figure(figsize=(12, 0.4 + 3.2 * rows), layout="constrained")
    grid = figure.subplots(rows, 2, width_ratios=[3, 1], squeeze=False)
    for i, target in enumerate(task.names):
        low, median, high = result.quantiles[:, :, shown, i]
        truth, last = result.truth[:, shown, i], result.simple["persistence"][:, shown, i]
        errors = {name: error[:, i] for name, error in result.errors().items()}
        series, side = grid[i]
        series.set_title(f"{target}, {ahead(windows.ahead, step)}", loc="left")
        series.plot(when[0], truth[0], color="black", linewidth=1.4, label="truth")
        series.plot(when[0], last[0], color="C1", linewidth=0.9, label="persistence")
        series.plot(when[0], median[0], color="C0", linewidth=1.5, label="network")
        band = {"color": "C0", "alpha": 0.22, "linewidth": 0}
        series.fill_between(when[0], low[0], high[0], label="80 % interval", **band)
        axis = series.xaxis
        axis.set_major_formatter(ConciseDateFormatter(axis.get_major_locator()))
        side.set_title("mean absolute error", loc="left")
        colors = [f"C{k}" for k in range(len(errors))]
        if horizon == 1:
            bars = side.barh([*errors], [error[0] for error in errors.values()], color=colors)
            side.bar_label(bars, fmt="%.3g", padding=-34, color="white")
            side.invert_yaxis()
            continue
        for (name, error), color in zip(errors.items(), colors, strict=True):
            side.plot(steps, error, "o-", color=color, label=name)
        side.set_ylim(bottom=0)
        side.legend(frameon=False)
        fan, share = grid[len(task.names) + i]
        fan.set_title(f"{horizon} {step}s, forecast together", loc="left")
        fan.plot(when[0], truth[0], color="black", linewidth=1.4)
        for j in range(0, when.shape[1], horizon):
            fan.plot(when[:, j], last[:, j], color="C1", linewidth=0.9)
            fan.plot(when[:, j], median[:, j], color="C0", linewidth=1.5)
            fan.fill_between(when[:, j], low[:, j], high[:, j], **band)
        fan.xaxis.set_major_formatter(ConciseDateFormatter(fan.xaxis.get_major_locator()))
        low, _, high = result.quantiles[..., i]
        covered = metrics.coverage(low, high, result.truth[..., i], axis=1)
        share.set_title("share in the 80 % interval", loc="left")
        share.plot(steps, covered, "o-", color="C0")
        share.axhline(QUANTILES[-1] - QUANTILES[0], color="black", linestyle=":")
        share.set_ylim(0, 1)
        share.set_xlabel(f"{step}s ahead")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=4, frameon=False, loc="outside lower center")
    for axes in grid.flat:
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=90)


# --------------------------------------------------------------------------------------
# The command line
# --------------------------------------------------------------------------------------


def prepare(options: argparse.Namespace) -> tuple[Learner, mg.SavedTensors | None, str]:
    """What learns, on the data or on what stands in where they cannot be had."""
    data = given(options, Settings).get("data", Settings.data)
    presets = {**PRESETS.get(data, {}), **(QUICK if options.quick else {})}
    saved, s, about = start(options, Settings, presets)
    try:
        task = load(s)
    except datasets.DatasetUnavailableError as error:
        options.data = "waves"
        print(f"{error}\nFalling back to --data waves.\n")
        return prepare(options)
    digest = hashlib.sha256(task.read.tobytes() + task.times.tobytes()).hexdigest()
    check_data(about, digest)
    return Learner(s, task, options.device), saved, digest


def train(options: argparse.Namespace) -> None:
    """Train, and unless that is interrupted, judge the forecasts and draw them."""
    learner, saved, digest = prepare(options)
    s, model = learner.settings, learner.model
    state = {
        "model": model,
        "optimizer": learner.optimizer,
        "schedule": learner.schedule,
        "batches": learner.batches,
        "rng": learner.rng,
    }
    about = {"digest": digest}
    training = training_of(
        learner, options, saved, state, about=about, best="loss", patience=s.patience
    )
    count = sum(parameter.size for parameter in model.parameters())
    kind = "sequence-to-sequence" if s.horizon > 1 else "many-to-one"
    first, validation, test = map(len, learner.parts)
    print(
        f"A {kind} GRU of {s.hidden} features, {count:,} parameters, on {s.data}: {first:,} "
        f"windows of {s.steps} steps to learn from, {validation:,} to choose the best weights "
        f"by, and {test:,} after them to be judged by; {np.isnan(learner.task.read).mean():.1%} "
        "of the values are missing."
    )
    end = training.run()
    conclude(options, training, end)
    mg.training.plot_history(training.history, options.folder / "training.png")
    if end != "interrupted":
        training.use_best()
        model.eval()
        picture = options.folder / "forecast.png"
        draw(learner, judge(learner), picture)
        print(f"Picture:    {picture}")


def main(arguments: list[str] | None = None) -> None:
    """Run the program."""
    run(train, parser("time_series", __doc__, Settings, minutes=3).parse_args(arguments))


if __name__ == "__main__":
    main()
