"""Training: updates until there are enough, and what a run of them needs besides.

A :class:`Training` repeats a function that does one update. In between it evaluates, keeps the
best weights, ends early, writes checkpoints, and shows how far it is. It knows of the data and
the model only what it is given: a function, and the objects that change while it runs.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf, isfinite, isnan
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy

from minigrad.nn import Module
from minigrad.serialization import SavedTensors, load, save
from minigrad.tape import no_grad
from minigrad.tensor import Tensor, asarray

#: Why a training came to its end.
End: TypeAlias = Literal["done", "no longer improving", "interrupted", "out of time"]

#: How much of the loss that the progress bar shows is that of the last update.
RECENT = 0.05


@runtime_checkable
class Stateful(Protocol):
    """What can be saved and resumed: modules, optimizers, schedules, streams."""

    def state_dict(self) -> Mapping[str, Any]:
        """All that changes while training, as tensors by name."""
        ...

    def load_state_dict(self, state: Any, /) -> None:
        """Continue from what :meth:`state_dict` returned."""
        ...


@dataclass
class History:
    """What a training has noted, in lists that grow.

    Attributes:
        updates: what each update has returned, by name: one number per update.
        evaluations: what each evaluation has returned, by name: after how many updates, and
            the number.
        seconds: how long the training took, evaluations and all.
    """

    updates: dict[str, list[float]] = field(default_factory=dict)
    evaluations: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    seconds: float = 0.0

    def __len__(self) -> int:
        """How many updates were made."""
        return len(next(iter(self.updates.values()), ()))

    def state_dict(self) -> dict[str, Any]:
        """All that was noted, as constants."""

        def constants(noted: Mapping[str, Any]) -> dict[str, Tensor]:
            return {name: asarray(numbers, "float64") for name, numbers in noted.items()}

        return {
            "seconds": asarray(self.seconds, "float64"),
            "updates": constants(self.updates),
            "evaluations": constants(self.evaluations),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with what another history has noted."""
        self.seconds = state["seconds"].item()
        self.updates = {name: v.tolist() for name, v in state.get("updates", {}).items()}
        self.evaluations = {
            name: [(int(update), number) for update, number in pairs.tolist()]
            for name, pairs in state.get("evaluations", {}).items()
        }


class Draws:
    """A generator as a part of the state: what it will draw.

    :class:`Training` makes one of every generator that it is given. The state is JSON, as
    bytes, since its integers are too long for tensors.

    >>> import minigrad as mg, numpy as np
    >>> rng = np.random.default_rng(0)
    >>> state = mg.training.Draws(rng).state_dict()
    >>> first = rng.random()
    >>> mg.training.Draws(rng).load_state_dict(state)
    >>> rng.random() == first
    True
    """

    def __init__(self, rng: numpy.random.Generator) -> None:
        self.rng = rng

    def state_dict(self) -> dict[str, Any]:
        """The state of the generator."""
        text = json.dumps(self.rng.bit_generator.state, default=numpy.ndarray.tolist)
        return {"json": numpy.frombuffer(text.encode(), "uint8")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Draw what the generator that ``state`` was taken from would have drawn.

        Raises ``ValueError`` if it is one of another kind.
        """
        self.rng.bit_generator.state = json.loads(bytes(asarray(state["json"]).numpy()))


class Training:
    """Updates until there are enough, with evaluations, checkpoints, and a way to go on.

    Every ``every`` updates, and at the end, the model is evaluated, the callbacks are called,
    and a checkpoint is written. Ctrl-C ends the training after the update that is being made,
    with a checkpoint; pressed again, it raises ``KeyboardInterrupt`` at once. Where Ctrl-C is
    not to be had, as outside of the main thread, :meth:`stop` does the same.

    A training that is interrupted and resumed is the same as one that is not, bit for bit on
    the CPU, if ``state`` names all that changes: give one generator to everything that draws,
    and name it. Only what an end by ``minutes`` evaluates is noted besides.

    Args:
        update: makes one update and returns what to note of it, numbers by name, among them
            the ``"loss"``.
        updates: how many updates to make.
        state: by name, all that changes while training: modules, optimizers, schedules,
            streams of data, and generators.
        evaluate: returns figures by name. The modules in ``state`` are in evaluation mode
            meanwhile, and nothing is recorded.
        every: the number of updates between two evaluations, and two checkpoints.
        best: which of the figures is the smallest when ``state["model"]`` is at its best. The
            best weights are kept: see :meth:`use_best`.
        patience: how many evaluations may pass without a better one than the best; then the
            training ends.
        checkpoint: the file to save to; none is written by default.
        metadata: strings by name, stored in it.
        minutes: the time after which :meth:`run` ends.
        callbacks: called in their order with this object after every evaluation, as
            ``evaluate`` is: to write samples, or to reduce the learning rate.
        progress: whether to show a progress bar and print evaluations. Needs tqdm.

    Attributes:
        history: what was noted, a :class:`History`.
        best_state: the weights at the best evaluation so far, if ``best`` is given.

    Raises ``ValueError`` for settings that make no sense.

    >>> import minigrad as mg
    >>> from minigrad import nn
    >>> model = nn.Linear(1, 1, rng=0)
    >>> optimizer = mg.optim.SGD(model.parameters(), lr=0.1)
    >>> def update():
    ...     with mg.Tape() as tape:
    ...         loss = nn.mse_loss(model(mg.tensor([[1.0], [2.0]])), mg.tensor([[3.0], [5.0]]))
    ...     tape.backward(loss)
    ...     optimizer.step()
    ...     optimizer.zero_grad()
    ...     return {"loss": loss}
    >>> state = {"model": model, "optimizer": optimizer}
    >>> training = mg.training.Training(update, 200, state, progress=False)
    >>> training.run()
    'done'
    >>> training.history.updates["loss"][-1] < 1e-3
    True
    """

    def __init__(
        self,
        update: Callable[[], Mapping[str, Any]],
        updates: int,
        state: Mapping[str, Stateful | numpy.random.Generator],
        *,
        evaluate: Callable[[], Mapping[str, Any]] | None = None,
        every: int = 500,
        best: str | None = None,
        patience: int | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        metadata: Mapping[str, str] | None = None,
        minutes: float = inf,
        callbacks: Sequence[Callable[[Training], Any]] = (),
        progress: bool = True,
    ) -> None:
        for name, count in (("updates", updates), ("every", every), ("patience", patience)):
            if count is not None and count < 1:
                raise ValueError(f"{name} is at least 1, not {count}")
        if not minutes >= 0:
            raise ValueError(f"minutes is at least 0, not {minutes}")
        if best is not None and (evaluate is None or not isinstance(state.get("model"), Module)):
            raise ValueError(
                f"best={best!r} needs evaluate, which returns it, and a module state['model'] "
                "whose weights are kept"
            )
        if patience is not None and best is None:
            raise ValueError("patience needs best, the name of the figure that is waited for")
        for name, part in state.items():
            if name in ("best", "history") or "/" in name:
                raise ValueError(f"a part of the state cannot be named {name!r}: choose another")
            if not isinstance(part, Stateful | numpy.random.Generator):
                raise TypeError(
                    f"state[{name!r}] is a {type(part).__name__}, which has no state_dict() and "
                    "load_state_dict(), and is no numpy.random.Generator"
                )
        self.update = update
        self.updates = updates
        self.history = History()
        self.state: dict[str, Stateful] = {"history": self.history}
        for name, part in state.items():
            self.state[name] = Draws(part) if isinstance(part, numpy.random.Generator) else part
        self.evaluate = evaluate
        self.every = every
        self.best = best
        self.patience = patience
        self.checkpoint = checkpoint
        self.metadata = dict(metadata or {})
        self.minutes = minutes
        self.callbacks = tuple(callbacks)
        self.progress = progress
        self.best_state: dict[str, Tensor] | None = None
        self._stopping = False
        self._bar: Any = None
        self._recent = 0.0

    # ---------------------------------------------------------------- what is called

    def run(self) -> End:
        """Train, and return why it ended.

        ``"done"``, ``"no longer improving"`` (see ``patience``), ``"interrupted"`` or ``"out of
        time"``. Called again, it goes on if there is more to do.

        Raises ``FloatingPointError`` if a loss is not finite; the last checkpoint is kept.
        ``ImportError`` if the progress bar needs tqdm and it is not installed.
        """
        began, before = time.monotonic(), self.history.seconds
        self._stopping = False
        with self._ctrl_c(), self._showing_progress():
            end = self._end_by_itself()
            while end is None:
                self._note_update(self.update())
                self.history.seconds = before + time.monotonic() - began
                late = self.history.seconds - before >= 60 * self.minutes
                due = len(self.history) % self.every == 0
                if due or self._end_by_itself() or (late and not self._stopping):
                    self._note_evaluation()
                end = self._end_by_itself() or (
                    "interrupted" if self._stopping else "out of time" if late else None
                )
                if due or end:
                    self._save()
        return end

    def stop(self) -> None:
        """End after the update that is being made, as Ctrl-C does; from any thread."""
        self._stopping = True

    def resume(self, saved: SavedTensors | None = None) -> None:
        """Go on from the checkpoint, or from what :func:`minigrad.load` has read of one.

        Raises ``FileNotFoundError`` if there is no checkpoint, and ``ValueError`` if it does
        not fit what is trained.
        """
        if saved is None:
            if self.checkpoint is None:
                raise ValueError("there is nothing to resume from: name a checkpoint")
            saved = load(self.checkpoint)
        unknown = saved.keys() - self.state.keys() - {"best"}
        if unknown:
            raise ValueError(
                f"the checkpoint has {', '.join(sorted(unknown))}, too: it is of another training"
            )
        for name, part in self.state.items():
            try:
                part.load_state_dict(saved.get(name, {}))
            except KeyError as error:
                raise ValueError(f"the checkpoint has no {error} of the {name}") from error
        self.best_state = saved.get("best")

    def use_best(self) -> None:
        """Give the model the weights that it had at the best evaluation.

        Raises ``ValueError`` if there was none.
        """
        if self.best_state is None:
            raise ValueError("there are no best weights: give best=..., and train first")
        self.state["model"].load_state_dict(self.best_state)

    def print(self, text: str) -> None:
        """Print a text without disturbing the progress bar."""
        if self._bar is None:
            print(text)
        else:
            self._bar.write(text)

    # ---------------------------------------------------------------- one after the other

    def _end_by_itself(self) -> End | None:
        """Whether there is nothing left to do, and why."""
        if len(self.history) >= self.updates:
            return "done"
        if self.best and self.patience:
            values = self._evaluated(self.best)
            if values and len(values) - values.index(min(values)) > self.patience:
                return "no longer improving"
        return None

    def _note_update(self, noted: Mapping[str, Any]) -> None:
        numbers = {name: float(number) for name, number in noted.items()}
        updates = self.history.updates
        if "loss" not in numbers or (updates and numbers.keys() != updates.keys()):
            raise ValueError(
                "every update returns the same numbers by name, with its 'loss' among them, not "
                f"{', '.join(numbers) or 'none'}"
            )
        for name, number in numbers.items():
            updates.setdefault(name, []).append(number)
        loss = numbers["loss"]
        if not isfinite(loss):
            kept = f"; the last checkpoint, if any, is kept: {self.checkpoint}"
            raise FloatingPointError(
                f"the loss is {loss} at update {len(self.history)}: try a smaller learning rate, "
                f"or clip gradients{kept if self.checkpoint else ''}"
            )
        if self._bar is not None:
            self._recent += (RECENT if self._recent else 1.0) * (loss - self._recent)
            shown = {**numbers, "loss": self._recent}
            text = ", ".join(f"{name} {number:.3g}" for name, number in shown.items())
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update()

    def _note_evaluation(self) -> None:
        done = len(self.history)
        with self._evaluating():
            if self.evaluate is not None:
                figures = {name: float(value) for name, value in self.evaluate().items()}
                if self.best is not None:
                    self._keep_if_best(self.best, figures)
                for name, value in figures.items():
                    self.history.evaluations.setdefault(name, []).append((done, value))
                if self.progress:
                    text = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
                    self.print(f"update {done}: {text}")
            for callback in self.callbacks:
                callback(self)

    def _keep_if_best(self, name: str, figures: Mapping[str, float]) -> None:
        if name not in figures:
            raise ValueError(
                f"the best weights are those of the smallest {name!r}, and evaluate() returned "
                f"{', '.join(figures) or 'nothing'}"
            )
        if figures[name] < min(self._evaluated(name), default=inf):
            self.best_state = dict(self.state["model"].state_dict())

    def _evaluated(self, name: str) -> list[float]:
        """A figure at all evaluations so far; one that is no number is worse than any."""
        values = [value for _, value in self.history.evaluations.get(name, [])]
        return [inf if isnan(value) else value for value in values]

    def _save(self) -> None:
        if self.checkpoint is None:
            return
        tensors = {name: part.state_dict() for name, part in self.state.items()}
        if self.best_state is not None:
            tensors["best"] = self.best_state
        save(self.checkpoint, tensors, self.metadata)

    # ---------------------------------------------------------------- around them

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """All modules are in evaluation mode, and afterwards in the one they were in."""
        roots = [part for part in self.state.values() if isinstance(part, Module)]
        modes = [(module, module.training) for root in roots for module in root.modules()]
        for root in roots:
            root.eval()
        try:
            with no_grad():
                yield
        finally:
            for module, mode in modes:
                module.training = mode

    @contextmanager
    def _ctrl_c(self) -> Iterator[None]:
        """Ctrl-C asks to stop; the second one does what it did before."""
        previous = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is not threading.main_thread() or not callable(previous):
            yield
            return

        def press(number: int, frame: Any) -> None:
            signal.signal(signal.SIGINT, previous)
            self.stop()

        signal.signal(signal.SIGINT, press)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)

    @contextmanager
    def _showing_progress(self) -> Iterator[None]:
        if not self.progress:
            yield
            return
        try:
            from tqdm.auto import tqdm
        except ImportError as error:
            raise ImportError(
                "the progress bar needs tqdm: install minigrad[training], or give progress=False"
            ) from error
        with tqdm(
            total=self.updates, initial=len(self.history), unit="update", dynamic_ncols=True
        ) as self._bar:
            try:
                yield
            finally:
                self._bar = None


def plot_history(
    history: History,
    path: str | os.PathLike[str] | None = None,
    names: Sequence[str] | None = None,
) -> Any:
    """Draw what a training has noted over its updates, each name in a panel of its own.

    What updates and evaluations have noted by the same name shares a panel. Norms, which
    differ by powers of ten, are drawn on a logarithmic scale.

    Args:
        history: of a training.
        path: the picture to write, if any.
        names: what to draw, all by default.

    Returns the matplotlib figure, for titles and more; its ``axes`` are the panels. Write it
    again with ``figure.savefig(path)``.

    Raises ``ImportError`` if matplotlib is not installed, and ``ValueError`` if a name was not
    noted.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: install minigrad[training]") from error
    known = [*history.updates, *(n for n in history.evaluations if n not in history.updates)]
    names = known if names is None else names
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ValueError(
            f"there is no {', '.join(unknown) or 'history'} to draw; noted were "
            f"{', '.join(known) or 'no updates'}"
        )
    figure = Figure(figsize=(9, 1 + 2.8 * len(names)), layout="constrained")
    panels = figure.subplots(len(names), sharex=True, squeeze=False)[:, 0]
    for axes, name in zip(panels, names, strict=True):
        values = numpy.array(history.updates.get(name, []))
        if values.size:
            width = max(1, len(values) // 100)
            smooth = numpy.convolve(values, numpy.ones(width) / width, mode="valid")
            at = numpy.arange(1, len(values) + 1)
            axes.plot(at, values, color="0.8", linewidth=0.7)
            axes.plot(at[width - 1 :], smooth, color="C0", label="training, smoothed")
        if name in history.evaluations:
            axes.plot(
                *zip(*history.evaluations[name], strict=True), "o-", color="C3", label="held out"
            )
            axes.legend(frameon=False)
        if name == "norm":
            axes.set_yscale("log")
        axes.set_ylabel(name)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.2)
    panels[-1].set_xlabel("updates")
    if path is not None:
        figure.savefig(path, dpi=110)
    return figure
