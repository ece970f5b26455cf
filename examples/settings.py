"""The command line of the examples: settings as options, checkpoints, errors as sentences.

The settings of an example are a dataclass, whose fields become options and are stored in the
checkpoint:

    @dataclass
    class Settings:
        hidden: int = setting(192, "features of the state")
        cell: str = setting("lstm", "the kind of recurrence", choices=("gru", "lstm"))

    options = parser("my_program", "Train a network.", Settings, minutes=3).parse_args()
    given(options, Settings)  # {"hidden": 64} for --hidden 64
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

import minigrad as mg

S = TypeVar("S")
N = TypeVar("N", int, float)

#: Settings that may be another when a training is resumed.
CHANGEABLE = ("updates",)


def setting(
    default: Any, about: str, *, choices: Sequence[Any] | None = None, minimum: int = 1
) -> Any:
    """A field of settings, and its option: ``minimum`` is the smallest of integers."""
    kind = at_least(minimum) if isinstance(default, int) else type(default)
    more = {"help": f"{about} (default: {default})", "choices": choices, "type": kind}
    return dataclasses.field(default=default, metadata=more)


def at_least(minimum: N) -> Callable[[str], N]:
    """The type of an option that is a number of the kind of ``minimum``, and not below it."""

    def number(text: str) -> N:
        given = type(minimum)(text)
        if not minimum <= given < inf:
            raise argparse.ArgumentTypeError(f"{given} is not at least {minimum:g}")
        return given

    return number


positive = at_least(1)


def parser(
    program: str, description: str, settings: type[Any], *, minutes: float
) -> argparse.ArgumentParser:
    """The options of all examples. Settings that are not given are absent from the result.

    Args:
        program: its name, by which its checkpoints are known.
        description: what it does; the first paragraph is shown.
        settings: a dataclass of fields made by :func:`setting`.
        minutes: the time after which training ends, by default.
    """
    made = argparse.ArgumentParser(description=description.partition("\n\n")[0])
    made.set_defaults(program=program)
    group = made.add_argument_group("settings of the run")
    for field in dataclasses.fields(settings):
        name = f"--{field.name.replace('_', '-')}"
        group.add_argument(name, default=argparse.SUPPRESS, **field.metadata)
    add = made.add_argument_group("where and how long").add_argument
    add("--quick", action="store_true", help="a small network and few updates, to try the program")
    add("--resume", action="store_true", help="go on with the training in --folder")
    add(
        "--minutes",
        type=at_least(0.0),
        default=minutes,
        help=f"stop training after this time (default: {minutes:g})",
    )
    add("--device", default="cpu", help="'cpu', or 'cuda' with CuPy")
    add("--threads", type=positive, default=1, help="threads of the matrix products (default: 1)")
    folder = Path("runs") / program
    add("--folder", type=Path, default=folder, help=f"of what is written (default: {folder})")
    return made


def given(options: argparse.Namespace, settings: Any) -> dict[str, Any]:
    """The settings that stand on the command line."""
    names = [field.name for field in dataclasses.fields(settings)]
    return {name: getattr(options, name) for name in names if hasattr(options, name)}


def checkpoint(options: argparse.Namespace) -> Path:
    """The file that training leaves."""
    return options.folder / "checkpoint.safetensors"


def metadata(options: argparse.Namespace, settings: Any, **more: Any) -> dict[str, str]:
    """What is stored with a checkpoint: the program, its settings, and ``more``, all as JSON."""
    about = {"program": options.program, "settings": dataclasses.asdict(settings), **more}
    return {name: json.dumps(value) for name, value in about.items()}


def load_checkpoint(
    options: argparse.Namespace, settings: type[S]
) -> tuple[mg.SavedTensors, S, dict[str, Any]]:
    """The checkpoint, its settings, and what else was stored with them.

    Settings that stand on the command line must be the same, but for ``CHANGEABLE`` ones, which
    replace those of the checkpoint.
    """
    path = checkpoint(options)
    if not path.is_file():
        raise SystemExit(f"there is no checkpoint {path}: train first, without this option")
    saved = mg.load(path)
    about = saved.metadata
    if json.loads(about.get("program", "null")) != options.program:
        raise SystemExit(f"{path} is not a checkpoint of this program")
    more = {name: json.loads(value) for name, value in about.items()}
    stored = more.pop("settings")
    for name, value in vars(options).items():
        if name in stored and name not in CHANGEABLE and stored[name] != value:
            option = f"--{name.replace('_', '-')}"
            raise SystemExit(
                f"the checkpoint {path} was trained with {option} {stored[name]}, so it cannot "
                f"go on with {option} {value}"
            )
    changed = {name: getattr(options, name) for name in CHANGEABLE if hasattr(options, name)}
    return saved, settings(**{**stored, **changed}), more


def start(
    options: argparse.Namespace, settings: type[S], presets: Mapping[str, Any]
) -> tuple[mg.SavedTensors | None, S, dict[str, Any]]:
    """What :func:`load_checkpoint` returns with --resume; or no checkpoint, and new settings.

    The options say what these are; else the presets; else their own defaults.
    """
    if options.resume:
        return load_checkpoint(options, settings)
    return None, settings(**{**presets, **given(options, settings)}), {}


def check_data(about: Mapping[str, Any], digest: str) -> None:
    """End the program if a checkpoint was trained on data of another ``digest``."""
    if about.get("digest", digest) != digest:
        raise SystemExit("the data are not those that this checkpoint was trained on")


def training_of(
    learner: Any,
    options: argparse.Namespace,
    saved: mg.SavedTensors | None,
    state: Mapping[str, Any],
    *,
    about: Mapping[str, Any] | None = None,
    **more: Any,
) -> mg.training.Training:
    """The training of a learner, by its settings and the options.

    Args:
        learner: has ``settings``, and the methods ``update`` and ``evaluate``.
        saved: the checkpoint to go on from, if any.
        state: all that changes, for :class:`minigrad.training.Training`.
        about: what is stored with a checkpoint besides the settings.
        more: further arguments of the training.
    """
    s = learner.settings
    training = mg.training.Training(
        learner.update,
        s.updates,
        state,
        evaluate=learner.evaluate,
        every=s.every,
        checkpoint=checkpoint(options),
        metadata=metadata(options, s, **(about or {})),
        minutes=options.minutes,
        **more,
    )
    if saved:
        training.resume(saved)
    return training


def conclude(options: argparse.Namespace, training: mg.training.Training, end: str) -> None:
    """Say why and when the training came to its end."""
    done, seconds = len(training.history), training.history.seconds
    print(f"\nTraining is {end} after {done} updates and {seconds:.0f} s.")
    print(f"Checkpoint: {checkpoint(options)}")
    if end in ("interrupted", "out of time"):
        print("Go on with --resume.")


def run(program: Callable[[argparse.Namespace], None], options: argparse.Namespace) -> None:
    """Run a program; what is wrong with its input ends it with one sentence."""
    try:
        with threadpool_limits(options.threads):
            program(options)
    except KeyboardInterrupt:
        raise SystemExit("interrupted: --resume goes on from the last checkpoint, if any") from None
    except (OSError, ValueError, ImportError, RuntimeError, ArithmeticError) as error:
        raise SystemExit(f"{Path(sys.argv[0]).name}: {error}") from error
