"""Train a recurrent network to write text, one character at a time.

    python examples/text_generation.py                         # learns Shakespeare's plays
    python examples/text_generation.py --generate "ROMEO:"     # writes on, with what it learned
    python examples/text_generation.py --interactive           # writes on from what you type
    python examples/text_generation.py --study                 # compares cells and truncations
    python examples/text_generation.py --text my_book.txt --cell gru --k1 32 --k2 128

The network reads character after character and predicts the next one. It is trained by
truncated backpropagation through time: every k1 characters, gradients flow back through the
last k2, and everything older is cut from the tape. Training leaves a checkpoint, a picture
of loss and gradient norm, and a sample of what it writes. Samples may be drawn from the
likeliest characters alone (--top-k, --top-p); --beam searches for the likeliest text instead.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import cos, gcd, isfinite, pi
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

import minigrad as mg
import minigrad_rnn as rnn
from minigrad import Tensor, nn
from minigrad_rnn.metrics import bits_per_character

LAYERS = {"lstm": rnn.LSTM, "gru": rnn.GRU, "rnn": rnn.RNN}
HELD_OUT_PLAYS = ("othello", "timon-of-athens")
HELD_OUT_SHARE = 0.05
#: Options that decide how a sample is drawn, by their names in :meth:`Training.write`.
SAMPLING = ("temperature", "top_k", "top_p")


@dataclasses.dataclass
class Settings:
    """What decides the numbers of a run; it is stored in the checkpoint."""

    text: str = "shakespeare"
    cell: str = "lstm"
    hidden: int = 192
    embedding: int = 64
    layers: int = 1
    dropout: float = 0.0
    batch: int = 32
    k1: int = 64
    k2: int = 64
    lr: float = 5e-3
    clip: float = 1.0
    updates: int = 2000
    seed: int = 0


class CharacterModel(nn.Module):
    """Characters in, scores for the next character out."""

    def __init__(self, characters: int, settings: Settings, rng: np.random.Generator) -> None:
        s = settings
        self.embedding = nn.Embedding(characters, s.embedding, rng=rng)
        between = s.dropout if s.layers > 1 else 0.0
        self.recurrent = LAYERS[s.cell](
            s.embedding, s.hidden, num_layers=s.layers, dropout=between, rng=rng
        )
        self.dropout = nn.Dropout(s.dropout, rng=rng)
        self.decoder = nn.Linear(s.hidden, characters, rng=rng)

    def forward(self, characters: Any, state: Any = None) -> tuple[Tensor, Any]:
        """integers (time, batch) and a state to scores (time, batch, characters), new state"""
        ys, state = self.recurrent(self.embedding(characters), state)
        return self.decoder(self.dropout(ys)), state


# --------------------------------------------------------------------------------------
# The text
# --------------------------------------------------------------------------------------


class Corpus:
    """A text to learn from and one held out, as numbers."""

    def __init__(self, training: str, held_out: str, name: str) -> None:
        self.name = name
        self.characters = "".join(sorted(set(training + held_out)))
        #: What to begin with where there is no prompt: a new line, if the text has any.
        self.beginning = "\n" if "\n" in self.characters else self.characters[0]
        self.digest = hashlib.sha256((training + held_out).encode()).hexdigest()
        self.training = self.encode(training)
        self.held_out = self.encode(held_out)

    def encode(self, text: str) -> np.ndarray:
        """The number of every character."""
        numbers = {character: i for i, character in enumerate(self.characters)}
        try:
            return np.array([numbers[character] for character in text], dtype=np.int64)
        except KeyError as error:
            raise ValueError(
                f"the character {error.args[0]!r} does not occur in the text ({self.name}), so "
                "the network does not know it"
            ) from None


def load_corpus(choice: str) -> Corpus:
    """The plays, Python's own source, or the user's file."""
    if choice == "shakespeare":
        try:
            plays = rnn.datasets.shakespeare_plays()
        except rnn.datasets.DatasetUnavailableError as error:
            print(f"{error}\nFalling back to --text python, which needs no network.\n")
            return load_corpus("python")
        held_out = [plays.pop(name) for name in HELD_OUT_PLAYS]
        return Corpus("\n\n".join(plays.values()), "\n\n".join(held_out), choice)
    if choice == "python":
        modules = list(rnn.datasets.python_sources().values())
        step = round(1 / HELD_OUT_SHARE)
        held_out = modules[::step]
        del modules[::step]
        return Corpus("\n\n".join(modules), "\n\n".join(held_out), choice)
    path = Path(choice)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SystemExit(f"{path} is not a UTF-8 text: byte {error.start} does not fit") from None
    except OSError as error:
        raise SystemExit(f"cannot read the text {path}: {error.strerror}") from None
    cut = round(len(text) * (1 - HELD_OUT_SHARE))
    if len(text) - cut < 2:
        raise SystemExit(f"{path} has only {len(text)} characters, too few to learn from")
    return Corpus(text[:cut], text[cut:], choice)


# --------------------------------------------------------------------------------------
# Training
# --------------------------------------------------------------------------------------


class Training:
    """All that changes while the network learns, and can be saved and resumed."""

    def __init__(self, settings: Settings, corpus: Corpus, device: str) -> None:
        self.settings = settings
        self.corpus = corpus
        self.rng = np.random.default_rng(settings.seed)
        self.model = CharacterModel(len(corpus.characters), settings, self.rng).to(device)
        self.optimizer: mg.optim.Optimizer = mg.optim.Adam(
            self.model.named_parameters(), lr=settings.lr
        )
        self.stream = rnn.Stream(corpus.training, settings.batch)
        self.truncated = rnn.TBPTT(settings.k1, settings.k2)
        self.device = device
        self.state: Any = None
        self.history: dict[str, list[float]] = {"loss": [], "norm": [], "held_out": []}
        self.seconds = 0.0

    def windows(self) -> Iterator[tuple[float, float]]:
        """Train until the settings' number of updates; yields loss and gradient norm of each."""
        s = self.settings
        part = gcd(s.k1, s.k2)  # characters that are computed in one go
        with self.truncated:
            while self.optimizer.steps < s.updates:
                inputs, targets, fresh = self.stream.window(part)
                if fresh:
                    self.state = None
                scores, self.state = self.model(self.place(inputs), self.state)
                loss = self.truncated.step(
                    nn.cross_entropy(scores, self.place(targets)), steps=part
                )
                if loss is None:
                    continue
                norm = rnn.clip_grad_norm_(self.model.parameters(), s.clip)
                self.optimizer.lr = s.lr * (0.5 + 0.5 * cos(pi * self.optimizer.steps / s.updates))
                self.optimizer.step()
                self.optimizer.zero_grad()
                self.history["loss"].append(loss.item())
                self.history["norm"].append(norm.item())
                yield self.history["loss"][-1], self.history["norm"][-1]

    def place(self, numbers: np.ndarray) -> Tensor:
        """Numbers on the device."""
        return mg.asarray(numbers, device=self.device)

    def held_out_bits(self) -> float:
        """Bits per character on the held-out text."""
        part = 128
        rows = max(1, min(64, len(self.corpus.held_out) // (4 * part)))
        stream = rnn.Stream(self.corpus.held_out, rows)
        self.model.eval()
        total, count, state = 0.0, 0, None
        with mg.no_grad():
            while stream.position < stream.length:
                steps = min(part, stream.length - stream.position)
                inputs, targets, _ = stream.window(steps)
                scores, state = self.model(self.place(inputs), state)
                total += nn.cross_entropy(scores, self.place(targets), reduction="sum").item()
                count += targets.size
        self.model.train()
        return bits_per_character(total / count)

    def write(
        self,
        prompt: str,
        length: int,
        rng: Any,
        *,
        temperature: float = 0.8,
        top_k: int | None = None,
        top_p: float = 1.0,
    ) -> Iterator[str]:
        """Continue ``prompt`` by a sample, character by character."""
        self.model.eval()
        with mg.no_grad():
            numbers = self.corpus.encode(prompt)[:, None]
            state = None
            for _ in range(length):
                scores, state = self.model(self.place(numbers), state)
                numbers = rnn.sample(scores[-1:], temperature, top_k=top_k, top_p=top_p, rng=rng)
                yield self.corpus.characters[numbers.item()]
        self.model.train()

    def likeliest(self, prompt: str, length: int, width: int) -> tuple[str, float]:
        """The likeliest continuation that beam search finds, and its bits per character."""

        def step(characters: Tensor, state: Any) -> tuple[Tensor, Any]:
            scores, state = self.model(characters[None], batch_second(state))
            return scores[0], batch_second(state)

        def batch_second(state: Any) -> Any:
            """Between (batch, layers, hidden), as in beam search, and (layers, batch, hidden)."""
            if isinstance(state, tuple):
                return tuple(map(batch_second, state))
            return None if state is None else mg.swapaxes(state, 0, 1)

        self.model.eval()
        *read, start = self.corpus.encode(prompt)
        state = None
        with mg.no_grad():
            if read:
                _, state = self.model(self.place(np.array(read)[:, None]))
            [[best]] = rnn.beam_search(
                step, batch_second(state), start, None, width=width, max_length=length
            )
        self.model.train()
        text = "".join(self.corpus.characters[number] for number in best.tokens)
        return text, bits_per_character(-best.log_probability / length)

    # ---------------------------------------------------------------- checkpoints

    def save(self, path: Path) -> None:
        """Write everything that resuming needs, whole or not at all."""
        # With k1 < k2 a window is retained that cannot be saved. It is cut from the tape here,
        # so that going on from this point is the same as resuming from it.
        self.truncated.reset()
        state = self.state if isinstance(self.state, tuple) else (self.state,)
        tensors = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "state": {str(i): part for i, part in enumerate(state) if part is not None},
            "history": {name: np.array(values) for name, values in self.history.items()},
        }
        about = {
            "settings": json.dumps(dataclasses.asdict(self.settings)),
            "characters": self.corpus.characters,
            "digest": self.corpus.digest,
            "rng": json.dumps(self.rng.bit_generator.state),
            "position": str(self.stream.position),
            "seconds": str(self.seconds),
        }
        mg.save(path, tensors, about)

    def load(self, saved: mg.SavedTensors) -> None:
        """Continue from what :meth:`save` wrote."""
        if saved.metadata["digest"] != self.corpus.digest:
            raise SystemExit("the text is not the one that this checkpoint was trained on")
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        parts = tuple(part.to(self.device) for part in saved.get("state", {}).values())
        self.state = None if not parts else parts if self.settings.cell == "lstm" else parts[0]
        self.history = {name: values.tolist() for name, values in saved["history"].items()}
        self.rng.bit_generator.state = json.loads(saved.metadata["rng"])
        self.stream.position = int(saved.metadata["position"])
        self.seconds = float(saved.metadata["seconds"])


def train(training: Training, options: argparse.Namespace) -> None:
    """Train with a progress bar, samples, checkpoints, and a picture at the end."""
    s = training.settings
    began, before = time.monotonic(), training.seconds
    checkpoint = options.folder / "checkpoint.safetensors"
    sampler = np.random.default_rng(s.seed + 1)
    stopped = "done"
    with (
        interruptions() as interrupted,
        tqdm(total=s.updates, initial=training.optimizer.steps, unit="update", ncols=100) as bar,
    ):
        recent = 0.0
        for loss, norm in training.windows():
            done = training.optimizer.steps
            spent = time.monotonic() - began
            training.seconds = before + spent
            if not isfinite(loss):
                raise SystemExit(
                    f"the loss is {loss} at update {done}: try a smaller --lr or --clip. The last "
                    f"checkpoint, if any, is kept: {checkpoint}"
                )
            recent = loss if not recent else 0.98 * recent + 0.02 * loss
            rate = s.batch * s.k1 * bar.format_dict["rate"] if bar.format_dict["rate"] else 0.0
            bar.set_postfix_str(
                f"loss {recent:.3f}, {bits_per_character(recent):.2f} bits/char, |g| {norm:.2f}, "
                f"{rate / 1e3:.0f}k char/s",
                refresh=False,
            )
            bar.update()
            if interrupted:
                stopped = "interrupted"
            elif done < s.updates and spent > 60 * options.minutes:
                stopped = f"out of time ({options.minutes:g} minutes; see --minutes)"
            if done % options.every == 0 or done == s.updates or stopped != "done":
                if stopped != "interrupted":
                    bits = training.held_out_bits()
                    training.history["held_out"] += [done, bits]
                    bar.write(f"\nupdate {done}: {bits:.3f} bits per character on held-out text")
                    sample = "".join(training.write(training.corpus.beginning, 160, sampler))
                    bar.write(f"  {sample}".replace("\n", "\n  "))
                training.save(checkpoint)
            if stopped != "done":
                break
    picture = options.folder / "training.png"
    plot(training, picture)
    print(f"\nTraining is {stopped} after {training.optimizer.steps} updates.")
    print(f"Checkpoint: {checkpoint}\nPicture:    {picture}")
    if training.optimizer.steps < s.updates:
        print("Go on with --resume.")


@contextmanager
def interruptions() -> Iterator[list[bool]]:
    """A list that is empty until Ctrl-C is pressed; the second time stops the program."""
    pressed: list[bool] = []

    def press(number: int, frame: Any) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(True)

    previous = signal.signal(signal.SIGINT, press)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, previous)


def plot(training: Training, path: Path) -> None:
    """Draw loss and gradient norm over time."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    s, history = training.settings, training.history
    loss = np.array([bits_per_character(loss) for loss in history["loss"]])
    characters = np.arange(1, len(loss) + 1) * s.batch * s.k1 / 1e6
    figure, (above, below) = pyplot.subplots(2, 1, figsize=(9, 6.5), sharex=True)
    above.plot(characters, loss, color="0.8", linewidth=0.7)
    width = max(1, len(loss) // 100)
    smooth = np.convolve(loss, np.ones(width) / width, mode="valid")
    above.plot(characters[width - 1 :], smooth, color="C0", label="training (smoothed)")
    updates, bits = np.array(history["held_out"]).reshape(-1, 2).T
    at = updates * s.batch * s.k1 / 1e6
    above.plot(at, bits, "o-", color="C3", label="held-out text")
    above.set_ylabel("bits per character")
    above.set_ylim(min([*bits, *smooth]) - 0.2, min(5.0, max(smooth) + 0.2))
    above.legend()
    above.set_title(
        f"{s.cell.upper()}({s.hidden}) on {training.corpus.name}, "
        f"k1={s.k1}, k2={s.k2}, {training.seconds:.0f} s"
    )
    below.semilogy(characters, history["norm"], color="C1", linewidth=0.7)
    below.axhline(s.clip, color="0.4", linestyle="--", label=f"clipped at {s.clip:g}")
    below.set_ylabel("gradient norm")
    below.set_xlabel("million characters read")
    below.legend()
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.2)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


# --------------------------------------------------------------------------------------
# The command line
# --------------------------------------------------------------------------------------


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line. Settings that are not given are absent."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    default = Settings()
    settings = parser.add_argument_group("settings of the run")

    def setting(name: str, about: str, **more: Any) -> None:
        value = getattr(default, name)
        settings.add_argument(
            f"--{name}",
            type=more.pop("type", type(value)),
            default=argparse.SUPPRESS,
            help=f"{about} (default: {value})",
            **more,
        )

    setting("text", "'shakespeare', 'python' (the standard library's source), or a UTF-8 file")
    setting("cell", "the kind of recurrence", choices=sorted(LAYERS))
    setting("hidden", "features of the state", type=positive)
    setting("embedding", "features of a character", type=positive)
    setting("layers", "recurrent layers, one above the other", type=positive)
    setting("dropout", "probability of dropping an output of a layer")
    setting("batch", "rows of the text that are read in parallel", type=positive)
    setting("k1", "characters between two updates", type=positive)
    setting("k2", "characters that a gradient reaches back", type=positive)
    setting("lr", "learning rate at the start; it falls to 0 along a cosine")
    setting("clip", "largest norm of the gradient")
    setting("updates", "updates in all", type=positive)
    setting("seed", "of the initial values and samples")
    where = parser.add_argument_group("where and how long")
    where.add_argument("--device", default="cpu", help="'cpu', or 'cuda' with CuPy")
    where.add_argument("--threads", type=positive, default=1, help="threads of the matrix products")
    where.add_argument("--minutes", type=float, default=2.8, help="stop after this time")
    where.add_argument("--every", type=positive, default=500, help="updates between checkpoints")
    where.add_argument(
        "--folder", type=Path, default=Path("runs/text_generation"), help="of checkpoint and plot"
    )
    use = parser.add_argument_group(
        "what to do, other than to train"
    ).add_mutually_exclusive_group()
    use.add_argument("--resume", action="store_true", help="go on with the training in --folder")
    use.add_argument("--generate", metavar="PROMPT", help="write on from PROMPT; no training")
    use.add_argument("--interactive", action="store_true", help="write on from what is typed")
    use.add_argument("--study", action="store_true", help="compare cells, truncation, clipping")
    where.add_argument("--seeds", type=positive, default=1, help="runs of each network of --study")
    writing = parser.add_argument_group("writing")
    writing.add_argument("--length", type=positive, default=600, help="characters to write")

    def sampling(name: str, kind: Any, about: str) -> None:
        writing.add_argument(name, type=kind, default=argparse.SUPPRESS, help=about)

    sampling("--temperature", temperature, "0 is the most likely character (default: 0.8)")
    sampling("--top-k", positive, "draw from this many of the likeliest characters")
    sampling("--top-p", share, "draw from the likeliest with this share of the probability")
    writing.add_argument(
        "--beam", type=positive, metavar="WIDTH", help="search for the likeliest text instead"
    )
    options = parser.parse_args(arguments)
    sampled = [f"--{name.replace('_', '-')}" for name in SAMPLING if hasattr(options, name)]
    if options.beam is not None and sampled:
        parser.error(f"--beam draws no sample, so {sampled[0]} does not go with it")
    return options


def positive(text: str) -> int:
    """A number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not at least 1")
    return number


def temperature(text: str) -> float:
    """A number of at least 0."""
    number = float(text)
    if not number >= 0.0:
        raise argparse.ArgumentTypeError(f"{number} is not at least 0")
    return number


def share(text: str) -> float:
    """A number in (0, 1]."""
    number = float(text)
    if not 0.0 < number <= 1.0:
        raise argparse.ArgumentTypeError(f"{number} is not above 0 and at most 1")
    return number


def given_settings(options: argparse.Namespace) -> dict[str, Any]:
    """The settings that stand on the command line."""
    names = [field.name for field in dataclasses.fields(Settings)]
    return {name: getattr(options, name) for name in names if hasattr(options, name)}


def start(options: argparse.Namespace) -> Training:
    """A new training, or the one in the checkpoint."""
    given = given_settings(options)
    if not options.resume and not options.interactive and options.generate is None:
        settings = Settings(**given)
        return Training(settings, load_corpus(settings.text), options.device)
    path = options.folder / "checkpoint.safetensors"
    if not path.is_file():
        raise SystemExit(f"there is no checkpoint {path}: train first, without this option")
    saved = mg.load(path)
    if "settings" not in saved.metadata:
        raise SystemExit(f"{path} is not a checkpoint of this program")
    stored = json.loads(saved.metadata["settings"])
    for name, value in given.items():
        if name != "updates" and stored[name] != value:
            raise SystemExit(
                f"the checkpoint {path} was trained with --{name} {stored[name]}, so it cannot "
                f"go on with --{name} {value}"
            )
    settings = Settings(**{**stored, **given})
    training = Training(settings, load_corpus(settings.text), options.device)
    training.load(saved)
    return training


def continue_text(
    training: Training, prompt: str, options: argparse.Namespace, rng: np.random.Generator
) -> None:
    """Print how the network goes on from ``prompt``."""
    if options.beam is not None:
        text, bits = training.likeliest(prompt, options.length, options.beam)
        print(f"{text}\n\nThe network gives this text {bits:.2f} bits per character.")
        return
    chosen = {name: getattr(options, name) for name in SAMPLING if hasattr(options, name)}
    for character in training.write(prompt, options.length, rng, **chosen):
        print(character, end="", flush=True)
    print()


def converse(training: Training, options: argparse.Namespace, rng: np.random.Generator) -> None:
    """Continue what the user types, each time from a state of zeros."""
    print("Type how a text begins; an empty line, Ctrl-D or Ctrl-C ends.")
    try:
        while prompt := input("\n> "):
            try:
                training.corpus.encode(prompt)
            except ValueError as error:
                print(f"{error}.")
                continue
            print(prompt, end="", flush=True)
            continue_text(training, prompt, options, rng)
    except (EOFError, KeyboardInterrupt):
        print()


def main(arguments: list[str] | None = None) -> None:
    """Run the program."""
    options = parse(arguments)
    try:
        with threadpool_limits(options.threads):
            if options.study:
                from truncation_study import study

                study(options)
                return
            training = start(options)
            rng = np.random.default_rng(training.settings.seed)
            if options.interactive:
                converse(training, options, rng)
                return
            if options.generate is None:
                describe(training)
                train(training, options)
            prompt = options.generate or training.corpus.beginning
            print(prompt if options.generate else "\nIt writes:\n", end="", flush=True)
            continue_text(training, prompt, options, rng)
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        raise SystemExit(f"{Path(sys.argv[0]).name}: {error}") from error
    except KeyboardInterrupt:
        raise SystemExit("\ninterrupted") from None


def describe(training: Training) -> None:
    """Say what is about to happen."""
    s, corpus = training.settings, training.corpus
    count = sum(parameter.size for parameter in training.model.parameters())
    print(
        f"{s.cell.upper()} of {s.hidden} features, {count:,} parameters, on {corpus.name}: "
        f"{len(corpus.training):,} characters to learn from, {len(corpus.held_out):,} held out.\n"
        f"Every {s.k1} characters gradients flow back through the last {s.k2}; Ctrl-C saves and "
        "ends."
    )


if __name__ == "__main__":
    main()
