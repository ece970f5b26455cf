"""Training: a run that is interrupted and resumed is the one that is not, and how runs end."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from math import inf, isnan, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transfer import to_host

import minigrad as mg
import minigrad_rnn as rnn
from minigrad import nn
from minigrad.training import Draws, History, Training, plot_history

UPDATES, EVERY = 12, 4


class Network(nn.Module):
    """A recurrent step with dropout, and a readout."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.cell = rnn.GRUCell(2, 4, rng=rng)
        self.dropout = nn.Dropout(0.3, rng=rng)
        self.readout = nn.Linear(4, 1, rng=rng)

    def forward(self, x: mg.Tensor, h: mg.Tensor) -> tuple[mg.Tensor, mg.Tensor]:
        y, h = self.cell(x, h)
        return self.readout(self.dropout(y)), h


class Carried:
    """A state that is carried from update to update."""

    def __init__(self) -> None:
        self.h = mg.tensor(np.zeros((2, 4), "float32"))

    def state_dict(self) -> dict[str, mg.Tensor]:
        return {"h": self.h}

    def load_state_dict(self, state: Mapping[str, mg.Tensor]) -> None:
        self.h = state["h"]


class Learner:
    """A bit of everything that changes while training."""

    def __init__(self, checkpoint: Path, without: str = "") -> None:
        self.rng = np.random.default_rng(0)
        self.model = Network(self.rng)
        self.optimizer = mg.optim.Adam(self.model.parameters(), lr=0.05)
        self.schedule = mg.optim.CosineAnnealingLR(self.optimizer, UPDATES)
        self.batches = rnn.Batches([5, 5, 3, 3, 3, 3, 4, 4, 5, 5], batch_size=2)
        self.stream = rnn.Stream(range(20), batch_size=2)
        self.carried = Carried()
        self.data = np.random.default_rng(1).normal(size=(10, 2)).astype("float32")
        self.interrupt_at: int | None = None
        state: dict[str, Any] = {
            "model": self.model,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "rng": self.rng,
            "batches": self.batches,
            "stream": self.stream,
            "carried": self.carried,
        }
        state.pop(without, None)
        self.training = Training(
            self.update,
            UPDATES,
            state,
            evaluate=self.evaluate,
            every=EVERY,
            best="error",
            checkpoint=checkpoint,
            callbacks=[self.draw],
            progress=False,
        )

    def update(self) -> dict[str, Any]:
        x = self.data[next(self.batches)] + self.rng.normal(size=(2, 2)).astype("float32")
        _, target, _ = self.stream.window(1)
        with mg.Tape() as tape:
            y, h = self.model(mg.asarray(x), self.carried.h)
            loss = nn.mse_loss(y, mg.asarray(target.T.astype("float32") / 20))
        self.carried.h = h.detach()
        tape.backward(loss)
        norm = rnn.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        if len(self.training.history) + 1 == self.interrupt_at:
            self.training.stop()
        return {"loss": loss, "norm": norm}

    def evaluate(self) -> dict[str, Any]:
        """The first evaluation is the best, so that the best weights are not the last."""
        y, _ = self.model(mg.asarray(self.data[:2]), self.carried.h)
        return {"error": mg.sum(y * y) + len(self.training.history), "output": mg.sum(y)}

    def draw(self, training: Training) -> None:
        """Draws besides, as samples do."""
        self.rng.random()


def bits(state: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """All that is saved, but for the time that it took."""
    found: dict[str, Any] = {}
    for name, value in state.items():
        if isinstance(value, Mapping):
            found |= bits(value, f"{prefix}{name}/")
        else:
            array = to_host(value)
            found[prefix + name] = (array.dtype, array.shape, array.tobytes())
    found.pop("history/seconds", None)
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint.safetensors"


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a training has saved that was not interrupted."""
    path = tmp_path_factory.mktemp("training") / "checkpoint.safetensors"
    assert Learner(path).training.run() == "done"
    return bits(mg.load(path))


def simple(
    updates: int = UPDATES,
    state: Mapping[str, Any] | None = None,
    update: Callable[[], Mapping[str, Any]] = lambda: {"loss": 1.0},
    *,
    progress: bool = False,
    **settings: Any,
) -> Training:
    """A training of what is given, of nothing by default."""
    return Training(update, updates, state or {}, progress=progress, **settings)


class Counter(nn.Module):
    """A model whose only weight is how many updates were made."""

    def __init__(self) -> None:
        self.count = nn.Parameter(np.zeros((), "float32"))

    def update(self) -> dict[str, Any]:
        self.count.rebind(self.count.array + 1)
        return {"loss": self.count}


# --------------------------------------------------------------------------------------
# Interrupted and resumed
# --------------------------------------------------------------------------------------


def resumed(path: Path, *interruptions: int, without: str = "") -> dict[str, Any]:
    """What a training saves that is interrupted, each time to go on in a new process."""
    for i, at in enumerate((*interruptions, None)):
        learner = Learner(path, without)
        learner.interrupt_at = at
        if i:
            learner.training.resume()
            assert len(learner.training.history) == interruptions[i - 1]
        assert learner.training.run() == ("interrupted" if at else "done")
    return bits(mg.load(path))


@pytest.mark.parametrize(
    "interruptions", [(1,), (3,), (EVERY,), (7,), (2 * EVERY,), (11,), (2, 3, EVERY, 9)], ids=str
)
def test_a_resumed_training_is_the_uninterrupted_one_bit_for_bit(
    path: Path, interruptions: tuple[int, ...], uninterrupted: dict[str, Any]
) -> None:
    saved = resumed(path, *interruptions)
    assert saved.keys() == uninterrupted.keys()
    assert [name for name in saved if saved[name] != uninterrupted[name]] == []
    parts = {name.partition("/")[0] for name in saved}
    assert parts >= {"model", "optimizer", "schedule", "rng", "batches", "carried", "best"}
    assert parts >= {"stream", "history"}


@pytest.mark.parametrize("part", ["rng", "batches", "stream", "carried", "optimizer", "schedule"])
def test_a_part_of_the_state_that_is_not_named_shows(
    path: Path, part: str, uninterrupted: dict[str, Any]
) -> None:
    saved = resumed(path, 7, without=part)
    assert saved["history/updates/loss"] != uninterrupted["history/updates/loss"]


def test_a_checkpoint_is_written_at_every_evaluation(path: Path) -> None:
    """What a crash leaves behind is the last of them, from which the training goes on."""
    learner = Learner(path)

    def update() -> dict[str, Any]:
        if len(learner.training.history) == 2 * EVERY + 1:
            raise RuntimeError("power cut")
        return learner.update()

    learner.training.update = update
    with pytest.raises(RuntimeError, match="power cut"):
        learner.training.run()
    again = Learner(path)
    again.training.resume()
    assert len(again.training.history) == 2 * EVERY


def test_more_updates_follow_those_that_are_done() -> None:
    training = simple(4)
    assert training.run() == "done"
    assert training.run() == "done"
    assert len(training.history) == 4
    training.updates = 6
    assert training.run() == "done"
    assert len(training.history) == 6


def test_nothing_is_written_without_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    simple(every=1).run()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"])
def test_generators_of_all_kinds_go_on_drawing_what_they_would(path: Path, kind: str) -> None:
    def generator(seed: int) -> np.random.Generator:
        return np.random.Generator(getattr(np.random, kind)(seed))

    rng, other = generator(1), generator(2)
    rng.integers(9, dtype="uint32")  # half of a draw is kept for the next one
    mg.save(path, Draws(rng).state_dict())
    expected = rng.integers(9, size=5, dtype="uint32"), rng.normal(size=5)
    Draws(other).load_state_dict(mg.load(path))
    drawn = other.integers(9, size=5, dtype="uint32"), other.normal(size=5)
    np.testing.assert_array_equal(drawn, expected)


# --------------------------------------------------------------------------------------
# Ctrl-C
# --------------------------------------------------------------------------------------


def pressing_ctrl_c(path: Path, at: int, times: int = 1) -> tuple[Training, list[int]]:
    """A training in which Ctrl-C is pressed during an update, and what was done after that."""
    finished: list[int] = []
    rng = np.random.default_rng(0)

    def update() -> dict[str, float]:
        done = len(training.history)
        if done + 1 == at:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
        finished.append(done + 1)
        return {"loss": rng.random()}

    training = simple(update=update, state={"rng": rng}, every=EVERY, checkpoint=path)
    return training, finished


@pytest.fixture
def default_ctrl_c() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, and does so afterwards."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, previous)


@pytest.mark.usefixtures("default_ctrl_c")
def test_ctrl_c_ends_after_the_update_with_a_checkpoint(path: Path) -> None:
    training, finished = pressing_ctrl_c(path, at=6)
    assert training.run() == "interrupted"
    assert finished == [1, 2, 3, 4, 5, 6]
    assert len(mg.load(path)["history"]["updates"]["loss"]) == 6
    assert training.run() == "done"  # it goes on in the same process, too
    assert finished == list(range(1, UPDATES + 1))


@pytest.mark.usefixtures("default_ctrl_c")
def test_ctrl_c_twice_raises_at_once(path: Path) -> None:
    training, finished = pressing_ctrl_c(path, at=6, times=2)
    with pytest.raises(KeyboardInterrupt):
        training.run()
    assert finished == [1, 2, 3, 4, 5]
    assert len(mg.load(path)["history"]["updates"]["loss"]) == EVERY


@pytest.mark.usefixtures("default_ctrl_c")
def test_ctrl_c_in_an_evaluation_ends_after_it(path: Path) -> None:
    def evaluate() -> dict[str, float]:
        signal.raise_signal(signal.SIGINT)
        return {"bits": 1.0}

    training = simple(evaluate=evaluate, every=EVERY, checkpoint=path)
    assert training.run() == "interrupted"
    assert mg.load(path)["history"]["evaluations"]["bits"].tolist() == [[EVERY, 1.0]]
    assert len(training.history) == EVERY


@pytest.mark.usefixtures("default_ctrl_c")
def test_ctrl_c_in_the_last_update_is_no_interruption(path: Path) -> None:
    training, _ = pressing_ctrl_c(path, at=UPDATES)
    assert training.run() == "done"


def test_an_ignored_ctrl_c_stays_ignored(path: Path) -> None:
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        training, _ = pressing_ctrl_c(path, at=6)
        assert training.run() == "done"
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, previous)


def test_a_training_in_a_thread_is_stopped_from_another_one(path: Path) -> None:
    started, stopped, ends = threading.Event(), threading.Event(), list[str]()

    def update() -> dict[str, float]:
        started.set()
        assert stopped.wait(10)
        return {"loss": 1.0}

    training = simple(update=update, checkpoint=path)
    handler = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=lambda: ends.append(training.run()))
    thread.start()
    assert started.wait(10)
    assert signal.getsignal(signal.SIGINT) is handler
    training.stop()
    stopped.set()
    thread.join(10)
    assert ends == ["interrupted"]
    assert len(mg.load(path)["history"]["updates"]["loss"]) == 1


# --------------------------------------------------------------------------------------
# Evaluations, and what ends a training
# --------------------------------------------------------------------------------------


@given(
    figures=st.lists(st.sampled_from([1.0, 2.0, 3.0, 4.0, inf, nan]), min_size=8, max_size=8),
    patience=st.integers(1, 4),
)
def test_the_best_weights_are_kept_and_patience_ends(figures: list[float], patience: int) -> None:
    model, ahead = Counter(), iter(figures)
    training = simple(
        2 * len(figures),
        {"model": model},
        model.update,
        evaluate=lambda: {"bits": next(ahead)},
        every=2,
        best="bits",
        patience=patience,
    )
    end = training.run()

    best, best_at, waited, evaluated = inf, 0, 0, 0
    for figure in figures:
        evaluated += 1
        better = figure < best
        best, best_at = (figure, evaluated) if better else (best, best_at)
        # The first evaluation is waited for, even if it is no number.
        waited = 0 if better or evaluated == 1 else waited + 1
        if waited == patience:
            break
    assert len(training.history.evaluations["bits"]) == evaluated
    assert end == ("done" if evaluated == len(figures) else "no longer improving")
    if not best_at:
        with pytest.raises(ValueError, match="there are no best weights: give best="):
            training.use_best()
        return
    training.use_best()
    assert model.count.item() == 2 * best_at


def test_the_best_weights_are_resumed(path: Path) -> None:
    def made(updates: int, *figures: float) -> tuple[Counter, Training]:
        model, ahead = Counter(), iter(figures)
        return model, simple(
            updates,
            {"model": model},
            model.update,
            evaluate=lambda: {"bits": next(ahead)},
            every=1,
            best="bits",
            patience=2,
            checkpoint=path,
        )

    _, first = made(1, 1.0)
    assert first.run() == "done"
    model, second = made(9, 2.0, 3.0)
    second.resume()
    assert second.run() == "no longer improving"
    assert model.count.item() == 3
    second.use_best()
    assert model.count.item() == 1


def test_without_an_evaluation_there_are_no_best_weights() -> None:
    training = simple()
    training.run()
    with pytest.raises(ValueError, match="there are no best weights"):
        training.use_best()


def test_evaluations_and_callbacks_come_in_order_every_few_updates_and_at_the_end() -> None:
    calls: list[tuple[str, int]] = []

    def noting(name: str) -> Callable[..., dict[str, float]]:
        def note(*_: Any) -> dict[str, float]:
            calls.append((name, len(training.history)))
            return {"bits": 1.0}

        return note

    training = simple(
        5,
        evaluate=noting("evaluate"),
        every=2,
        callbacks=[noting("first"), noting("second")],
    )
    training.run()
    assert calls == [(n, at) for at in (2, 4, 5) for n in ("evaluate", "first", "second")]
    assert training.history.evaluations == {"bits": [(2, 1.0), (4, 1.0), (5, 1.0)]}


def test_callbacks_come_without_an_evaluation() -> None:
    calls: list[Training] = []
    training = simple(2, every=1, callbacks=[calls.append])
    training.run()
    assert calls == [training, training]


def test_a_callback_may_end_the_training(path: Path) -> None:
    training = simple(9, every=2, callbacks=[lambda training: training.stop()], checkpoint=path)
    assert training.run() == "interrupted"
    assert len(training.history) == 2
    assert len(mg.load(path)["history"]["updates"]["loss"]) == 2


def test_modules_are_evaluated_as_such_and_nothing_is_recorded() -> None:
    model = nn.Sequential(nn.Linear(1, 1, rng=0), nn.Dropout(0.5, rng=0))
    model[1].eval()  # frozen: to stay so
    during: list[bool] = []

    def evaluate() -> dict[str, Any]:
        during.extend(module.training for module in model.modules())
        return {"output": model(mg.tensor([[1.0]])).sum()}

    with mg.Tape() as tape:
        simple(1, {"model": model}, evaluate=evaluate).run()
    assert len(tape) == 0
    assert during == [False, False, False]
    assert [module.training for module in model.modules()] == [True, True, False]


def test_a_time_limit_ends_with_an_evaluation_and_a_checkpoint(path: Path) -> None:
    training = simple(evaluate=lambda: {"bits": 1.0}, minutes=0, checkpoint=path)
    assert training.run() == "out of time"
    assert len(training.history) == 1
    assert training.history.evaluations == {"bits": [(1, 1.0)]}
    again = simple(evaluate=lambda: {"bits": 1.0}, minutes=0, checkpoint=path)
    again.resume()
    assert again.run() == "out of time"  # the limit is that of a run
    assert len(again.history) == 2


def test_the_time_adds_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 10))  # seconds: 10 for every look at it
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    simple(3, checkpoint=path).run()
    again = simple(5, checkpoint=path)
    again.resume()
    assert again.history.seconds == 30
    again.run()
    assert again.history.seconds == 50


# --------------------------------------------------------------------------------------
# What goes wrong
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [nan, inf, -inf])
def test_a_loss_that_is_not_finite_is_an_error_and_the_checkpoint_is_kept(
    path: Path, loss: float
) -> None:
    losses = iter([3.0, 2.0, loss])
    training = simple(update=lambda: {"loss": next(losses)}, every=2, checkpoint=path)
    with pytest.raises(FloatingPointError, match=f"the loss is {loss} at update 3: .*checkpoint"):
        training.run()
    assert mg.load(path)["history"]["updates"]["loss"].tolist() == [3.0, 2.0]


def test_an_error_without_a_checkpoint_speaks_of_none() -> None:
    with pytest.raises(FloatingPointError, match=r"or clip gradients$"):
        simple(update=lambda: {"loss": mg.tensor(nan)}).run()


@pytest.mark.parametrize(
    ("first", "second", "named"),
    [
        ({}, {}, "none"),
        ({"norm": 1.0}, {}, "norm"),
        ({"loss": 1.0}, {"loss": 1.0, "norm": 2.0}, "loss, norm"),
        ({"loss": 1.0, "norm": 2.0}, {"loss": 1.0}, "loss"),
    ],
)
def test_updates_return_the_same_numbers(
    first: dict[str, float], second: dict[str, float], named: str
) -> None:
    noted = iter([first, second])
    with pytest.raises(ValueError, match=f"'loss' among them, not {named}$"):
        simple(update=lambda: next(noted)).run()


def test_an_evaluation_returns_the_figure_that_is_waited_for() -> None:
    model = Counter()
    training = simple(
        1, {"model": model}, model.update, evaluate=lambda: {"error": 1.0}, best="bits"
    )
    with pytest.raises(ValueError, match=r"smallest 'bits', and evaluate\(\) returned error"):
        training.run()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"updates": 0}, "updates is at least 1, not 0"),
        ({"every": 0}, "every is at least 1, not 0"),
        ({"minutes": -1}, "minutes is at least 0, not -1"),
        ({"minutes": nan}, "minutes is at least 0, not nan"),
        ({"best": "bits"}, "best='bits' needs evaluate"),
        ({"best": "bits", "evaluate": dict}, "needs evaluate.* and a module"),
        ({"patience": 3}, "patience needs best"),
        ({"patience": 0}, "patience is at least 1, not 0"),
        ({"state": {"history": Counter()}}, "cannot be named 'history'"),
        ({"state": {"best": Counter()}}, "cannot be named 'best'"),
        ({"state": {"a/b": Counter()}}, "cannot be named 'a/b'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simple(**settings)


class Half:
    """What can be saved alone."""

    def state_dict(self) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize("part", [3, np.random.RandomState(0), Half()])
def test_what_cannot_be_resumed_is_refused(part: Any) -> None:
    with pytest.raises(TypeError, match=rf"state\['x'\] is a {type(part).__name__}, which has no"):
        simple(state={"x": part})


# --------------------------------------------------------------------------------------
# Checkpoints that do not fit
# --------------------------------------------------------------------------------------


def saved_by(path: Path, **state: Any) -> None:
    simple(1, state, checkpoint=path).run()


def test_metadata_are_stored_and_checked(path: Path) -> None:
    simple(1, checkpoint=path, metadata={"data": "abc"}).run()
    assert mg.load(path).metadata == {"data": "abc"}
    wrong: Any = {"hidden": 3}
    with pytest.raises(TypeError, match="metadata are strings by name; 'hidden' is int"):
        simple(1, checkpoint=path, metadata=wrong).run()
    assert mg.load(path).metadata == {"data": "abc"}


def test_a_checkpoint_that_was_read_may_be_given(path: Path) -> None:
    """So that its metadata can be compared before it is used."""
    saved_by(path, rng=np.random.default_rng(0))
    training = simple(state={"rng": np.random.default_rng(1)})
    training.resume(mg.load(path))
    assert len(training.history) == 1


def test_there_must_be_something_to_resume_from(path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to resume from: name a checkpoint"):
        simple().resume()
    with pytest.raises(FileNotFoundError, match="there is no file"):
        simple(checkpoint=path).resume()


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_a_broken_checkpoint_is_refused(path: Path, keep: float) -> None:
    saved_by(path, model=nn.Linear(9, 9, rng=0))
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(ValueError, match="is not a safetensors file"):
        simple(checkpoint=path, state={"model": nn.Linear(9, 9, rng=0)}).resume()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "the checkpoint has model, rng, too: it is of another training"),
        ({"model": nn.Linear(2, 4, rng=0), "rng": np.random.default_rng(0)}, "weight is "),
        ({"model": Counter(), "rng": np.random.default_rng(0)}, "count is missing"),
        (
            {"model": nn.Linear(2, 3, rng=0), "rng": np.random.Generator(np.random.MT19937(0))},
            "MT19937",
        ),
        (
            {
                "model": nn.Linear(2, 3, rng=0),
                "rng": np.random.default_rng(0),
                "stream": rnn.Stream(range(9), 2),
            },
            "the checkpoint has no 'position' of the stream",
        ),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(
    path: Path, state: dict[str, Any], message: str
) -> None:
    saved_by(path, model=nn.Linear(2, 3, rng=0), rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match=message):
        simple(state=state, checkpoint=path).resume()


def test_a_file_that_no_training_has_written_is_refused(path: Path) -> None:
    mg.save(path, {"model": nn.Linear(2, 3, rng=0).state_dict()})
    with pytest.raises(ValueError, match="the checkpoint has no 'seconds' of the history"):
        simple(state={"model": nn.Linear(2, 3, rng=0)}, checkpoint=path).resume()


# --------------------------------------------------------------------------------------
# History, progress and plots
# --------------------------------------------------------------------------------------


def history() -> History:
    return History(
        {"loss": [3.0, 2.0, 1.5, 1.0], "norm": [10.0, 1.0, 0.1, 0.01]},
        {"loss": [(2, 2.5), (4, 1.5)], "accuracy": [(2, 0.5), (4, nan)]},
        seconds=1.5,
    )


def test_a_history_is_saved_and_read(path: Path) -> None:
    mg.save(path, history().state_dict())
    read = History()
    assert len(read) == 0
    read.load_state_dict(mg.load(path))
    assert len(read) == 4
    assert (read.updates, read.seconds) == (history().updates, 1.5)
    assert read.evaluations["loss"] == [(2, 2.5), (4, 1.5)]
    assert all(isinstance(at, int) for at, _ in read.evaluations["accuracy"])
    assert isnan(read.evaluations["accuracy"][1][1])


def test_an_empty_history_is_saved_and_read(path: Path) -> None:
    mg.save(path, History().state_dict())
    read = history()
    read.load_state_dict(mg.load(path))
    assert read == History()


def test_progress_is_shown_and_evaluations_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    training = simple(
        4,
        evaluate=lambda: {"bits": 1.25},
        every=2,
        progress=True,
        callbacks=[lambda training: training.print("a sample")],
    )
    training.run()
    shown = capsys.readouterr()
    assert shown.out == "update 2: bits 1.25\na sample\nupdate 4: bits 1.25\na sample\n"
    assert "4/4" in shown.err
    assert "loss 1" in shown.err
    training.print("afterwards")
    assert capsys.readouterr() == ("afterwards\n", "")


def test_without_progress_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    simple(2, evaluate=lambda: {"bits": 1.0}, every=1).run()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("module", "run", "message"),
    [
        ("tqdm.auto", lambda: simple(progress=True).run(), r"tqdm: .*\[training\], or .*=False"),
        ("matplotlib.figure", lambda: plot_history(history()), r"matplotlib: .*\[training\]"),
        ("safetensors.numpy", lambda: simple(checkpoint="x").run(), r"safetensors: .*\[io\]"),
    ],
)
def test_an_extra_that_is_not_installed_is_named(
    module: str, run: Callable[[], object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=message):
        run()


@pytest.mark.host
def test_a_plot_has_a_panel_for_every_name(tmp_path: Path) -> None:
    figure = plot_history(history(), tmp_path / "history.png")
    assert (tmp_path / "history.png").read_bytes().startswith(b"\x89PNG")
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "norm", "accuracy"]
    assert [axes.get_yscale() for axes in figure.axes] == ["linear", "log", "linear"]
    assert figure.axes[-1].get_xlabel() == "updates"
    drawn = [line.get_xydata().tolist() for line in figure.axes[0].lines]
    noted = [[1.0, 3.0], [2.0, 2.0], [3.0, 1.5], [4.0, 1.0]]
    assert drawn == [noted, noted, [[2.0, 2.5], [4.0, 1.5]]]


@pytest.mark.host
def test_long_histories_are_smoothed_over_a_hundredth() -> None:
    values = np.random.default_rng(0).normal(size=1000).tolist()
    _, smooth = plot_history(History({"loss": values})).axes[0].lines
    at, means = smooth.get_xydata().T
    assert at.tolist() == list(range(10, 1001))
    np.testing.assert_allclose(means, [np.mean(values[i : i + 10]) for i in range(991)])


@pytest.mark.host
def test_names_choose_the_panels(tmp_path: Path) -> None:
    (axes,) = plot_history(history(), names=["accuracy"]).axes
    assert axes.get_ylabel() == "accuracy"
    with pytest.raises(ValueError, match="there is no bits to draw; noted were loss, norm, acc"):
        plot_history(history(), names=["loss", "bits"])
    with pytest.raises(ValueError, match="there is no history to draw; noted were no updates"):
        plot_history(History())
