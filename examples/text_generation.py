"""Train a recurrent network to write text, one character at a time.

    python examples/text_generation.py                         # learns Shakespeare's plays
    python examples/text_generation.py --generate "ROMEO:"     # writes on, with what it learned
    python examples/text_generation.py --interactive           # writes on from what you type
    python examples/text_generation.py --study                 # compares cells and truncations
    python examples/text_generation.py --text my_book.txt --cell gru --k1 32 --k2 128
    python examples/text_generation.py --quick                 # only to see that it runs

The network reads character after character and predicts the next one. It is trained by
truncated backpropagation through time: every k1 characters, gradients flow back through the
last k2, and everything older is cut from the tape. Training leaves a checkpoint, a picture
of loss and gradient norm, and a sample of what it writes. Samples may be drawn from the
likeliest characters alone (--top-k, --top-p); --beam searches for the likeliest text instead.
"""

from __future__ import annotations

import argparse
import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
from settings import (
    at_least,
    check_data,
    conclude,
    load_checkpoint,
    parser,
    positive,
    run,
    setting,
    start,
    training_of,
)

import minigrad as mg
import minigrad_rnn as rnn
from minigrad import Tensor, nn
from minigrad_rnn.metrics import bits_per_character

LAYERS = {"lstm": rnn.LSTM, "gru": rnn.GRU, "rnn": rnn.RNN}
HELD_OUT_PLAYS = ("othello", "timon-of-athens")
HELD_OUT_SHARE = 0.05
#: The figure that is shown, and drawn.
BITS = "bits per character"
#: Options that decide how a sample is drawn, by their names in :meth:`CharacterModel.write`.
SAMPLING = ("temperature", "top_k", "top_p")


@dataclass
class Settings:
    """What decides the numbers of a run; it is stored in the checkpoint."""

    text: str = setting(
        "shakespeare", "'shakespeare', 'python' (the standard library's source), or a UTF-8 file"
    )
    cell: str = setting("lstm", "the kind of recurrence", choices=sorted(LAYERS))
    hidden: int = setting(192, "features of the state")
    embedding: int = setting(64, "features of a character")
    layers: int = setting(1, "recurrent layers, one above the other")
    dropout: float = setting(0.0, "probability of dropping an output of a layer")
    batch: int = setting(32, "rows of the text that are read in parallel")
    k1: int = setting(64, "characters between two updates")
    k2: int = setting(64, "characters that a gradient reaches back")
    lr: float = setting(5e-3, "learning rate at the start; it falls to 0 along a cosine")
    clip: float = setting(1.0, "largest norm of the gradient")
    updates: int = setting(2000, "updates in all")
    every: int = setting(500, "updates between evaluations, samples and checkpoints")
    seed: int = setting(0, "of the initial values and samples", minimum=0)


#: A run that shows that the program works, not what the network can learn.
QUICK = {"hidden": 32, "embedding": 16, "updates": 40, "every": 20}


# --------------------------------------------------------------------------------------
# The text
# --------------------------------------------------------------------------------------


class Alphabet:
    """The characters that the network knows, and their numbers."""

    def __init__(self, characters: str) -> None:
        self.characters = characters
        self.numbers = {character: i for i, character in enumerate(characters)}
        #: What to begin with where there is no prompt: a new line, if the text has any.
        self.beginning = "\n" if "\n" in characters else characters[0]

    def encode(self, text: str) -> np.ndarray:
        """The number of every character."""
        try:
            return np.array([self.numbers[character] for character in text], dtype=np.int64)
        except KeyError as error:
            raise ValueError(
                f"the character {error.args[0]!r} does not occur in the text that was learned, so "
                "the network does not know it"
            ) from None


class Corpus:
    """A text to learn from and one held out, as numbers."""

    def __init__(self, training: str, held_out: str, name: str) -> None:
        self.name = name
        self.alphabet = Alphabet("".join(sorted(set(training + held_out))))
        self.digest = hashlib.sha256((training + held_out).encode()).hexdigest()
        self.training = self.alphabet.encode(training)
        self.held_out = self.alphabet.encode(held_out)


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
# The network
# --------------------------------------------------------------------------------------


class CharacterModel(nn.Module):
    """Characters in, scores for the next character out."""

    def __init__(self, alphabet: Alphabet, settings: Settings, rng: np.random.Generator) -> None:
        s, count = settings, len(alphabet.characters)
        self.alphabet = alphabet
        self.embedding = nn.Embedding(count, s.embedding, rng=rng)
        between = s.dropout if s.layers > 1 else 0.0
        self.recurrent = LAYERS[s.cell](
            s.embedding, s.hidden, num_layers=s.layers, dropout=between, rng=rng
        )
        self.dropout = nn.Dropout(s.dropout, rng=rng)
        self.decoder = nn.Linear(s.hidden, count, rng=rng)

    def forward(self, characters: Any, state: Any = None) -> tuple[Tensor, Any]:
        """integers (time, batch) and a state to scores (time, batch, characters), new state"""
        ys, state = self.recurrent(self.embedding(characters), state)
        return self.decoder(self.dropout(ys)), state

    def place(self, numbers: np.ndarray) -> Tensor:
        """Numbers on the device of the parameters."""
        return mg.asarray(numbers, device=self.embedding.weight.device)

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
        numbers, state = self.alphabet.encode(prompt)[:, None], None
        for _ in range(length):
            scores, state = self(self.place(numbers), state)
            numbers = rnn.sample(scores[-1:], temperature, top_k=top_k, top_p=top_p, rng=rng)
            yield self.alphabet.characters[numbers.item()]

    def likeliest(self, prompt: str, length: int, width: int) -> tuple[str, float]:
        """The likeliest continuation that beam search finds, and its bits per character."""

        def step(characters: Tensor, state: Any) -> tuple[Tensor, Any]:
            scores, state = self(characters[None], batch_second(state))
            return scores[0], batch_second(state)

        def batch_second(state: Any) -> Any:
            """Between (batch, layers, hidden), as in beam search, and (layers, batch, hidden)."""
            if isinstance(state, tuple):
                return tuple(map(batch_second, state))
            return None if state is None else mg.swapaxes(state, 0, 1)

        *read, last = self.alphabet.encode(prompt)
        state = self(self.place(np.array(read)[:, None]))[1] if read else None
        [[best]] = rnn.beam_search(
            step, batch_second(state), last, None, width=width, max_length=length
        )
        text = "".join(self.alphabet.characters[number] for number in best.tokens)
        return text, bits_per_character(-best.log_probability / length)


# --------------------------------------------------------------------------------------
# Training
# --------------------------------------------------------------------------------------


class Carried:
    """The state that is carried from one part of the text to the next."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.state: Any = None

    def state_dict(self) -> dict[str, Tensor]:
        """The parts of the state: that of an LSTM has two, and at the beginning there is none."""
        parts = self.state if isinstance(self.state, tuple) else (self.state,)
        return {str(i): part.detach() for i, part in enumerate(parts) if part is not None}

    def load_state_dict(self, saved: Mapping[str, Tensor]) -> None:
        """Carry on a state that was saved."""
        parts = tuple(part.to(self.device) for part in saved.values())
        self.state = parts if len(parts) > 1 else parts[0] if parts else None


class Learner:
    """Reads the text, and learns from it by truncated backpropagation through time.

    With k1 < k2 the tape retains what the next gradient reaches back to. That cannot be saved,
    but it can be read again: the learner's own state is how all ``parts`` were before each
    update that is still on the tape.
    """

    def __init__(
        self,
        settings: Settings,
        corpus: Corpus,
        device: str,
        optimizer: Callable[..., mg.optim.Optimizer] = mg.optim.Adam,
    ) -> None:
        s = settings
        self.settings = s
        self.corpus = corpus
        rng = np.random.default_rng(s.seed)
        self.model = CharacterModel(corpus.alphabet, s, rng).to(device)
        self.stream = rnn.Stream(corpus.training, s.batch)
        self.carried = Carried(device)
        self.truncated = rnn.TBPTT(s.k1, s.k2)
        self.parts: dict[str, Any] = {
            "model": self.model,
            "rng": mg.training.Draws(rng),
            "stream": self.stream,
            "carried": self.carried,
        }
        self.on_tape: deque[dict[str, Any]] = deque(maxlen=max(0, -(-s.k2 // s.k1) - 1))
        self.optimizer = optimizer(self.model.named_parameters(), lr=s.lr)
        self.schedule = mg.optim.CosineAnnealingLR(self.optimizer, s.updates)

    def read(self) -> Tensor:
        """Read k1 characters, propagate gradients back, and return the loss."""
        part = gcd(self.settings.k1, self.settings.k2)  # characters that are computed in one go
        loss = None
        while loss is None:
            inputs, targets, fresh = self.stream.window(part)
            state = None if fresh else self.carried.state
            scores, self.carried.state = self.model(self.model.place(inputs), state)
            loss = self.truncated.step(
                nn.cross_entropy(scores, self.model.place(targets)), steps=part
            )
        return loss

    def update(self) -> dict[str, float]:
        """Read, and update the parameters."""
        if self.on_tape.maxlen:
            self.on_tape.append({name: part.state_dict() for name, part in self.parts.items()})
        loss = self.read().item()
        norm = rnn.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        return {"loss": loss, BITS: bits_per_character(loss), "norm": norm.item()}

    def evaluate(self) -> dict[str, float]:
        """Bits per character on the held-out text."""
        part, text = 128, self.corpus.held_out
        stream = rnn.Stream(text, max(1, min(64, len(text) // (4 * part))))
        total, count, state = 0.0, 0, None
        while stream.position < stream.length:
            inputs, targets, _ = stream.window(part, rest=True)
            scores, state = self.model(self.model.place(inputs), state)
            told = nn.cross_entropy(scores, self.model.place(targets), reduction="sum")
            total, count = total + told.item(), count + targets.size
        return {BITS: bits_per_character(total / count)}

    def state_dict(self) -> dict[str, Any]:
        """How the parts were before each update on the tape."""
        return {str(i): parts for i, parts in enumerate(self.on_tape)}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Read again what was on the tape, each time with the weights of then."""
        weights = self.model.state_dict()
        self.truncated.reset()
        self.on_tape.clear()
        for before in saved.values():
            for name, part in self.parts.items():
                if name == "model" or not self.on_tape:  # the others go on from the first
                    part.load_state_dict(before.get(name, {}))
            self.on_tape.append(before)
            self.read()
        self.optimizer.zero_grad()
        self.model.load_state_dict(weights)


def train(options: argparse.Namespace) -> tuple[CharacterModel, Settings]:
    """Train with samples, checkpoints, and a picture at the end."""
    saved, s, about = start(options, Settings, QUICK if options.quick else {})
    corpus = load_corpus(s.text)
    check_data(about, corpus.digest)
    learner = Learner(s, corpus, options.device)
    model, sampler = learner.model, np.random.default_rng(s.seed + 1)

    def sample(training: mg.training.Training) -> None:
        written = "".join(model.write(corpus.alphabet.beginning, 160, sampler))
        training.print(f"  {written}\n".replace("\n", "\n  "))

    state = {
        **learner.parts,
        "optimizer": learner.optimizer,
        "schedule": learner.schedule,
        "sampler": sampler,
        "on_tape": learner,  # the last to be resumed, since it begins from the parts
    }
    about = {"digest": corpus.digest, "characters": corpus.alphabet.characters}
    count = sum(parameter.size for parameter in model.parameters())
    print(
        f"{s.cell.upper()} of {s.hidden} features, {count:,} parameters, on {corpus.name}: "
        f"{len(corpus.training):,} characters to learn from, {len(corpus.held_out):,} held out.\n"
        f"Every {s.k1} characters gradients flow back through the last {s.k2}; Ctrl-C saves and "
        "ends."
    )
    with learner.truncated:
        training = training_of(learner, options, saved, state, about=about, callbacks=[sample])
        end = training.run()
    conclude(options, training, end)
    picture = options.folder / "training.png"
    plot(training.history, s, corpus.name, picture)
    print(f"Picture:    {picture}")
    return model, s


def plot(history: mg.training.History, s: Settings, text: str, path: Path) -> None:
    """Draw bits per character and gradient norm over the updates."""
    figure = mg.training.plot_history(history, names=[BITS, "norm"])
    above, below = figure.axes
    above.set_ylim(top=min(5.0, above.get_ylim()[1]))  # the first updates are far above
    above.set_title(
        f"{s.cell.upper()}({s.hidden}) on {text}, k1={s.k1}, k2={s.k2}, {history.seconds:.0f} s"
    )
    below.axhline(s.clip, color="0.4", linestyle="--", label=f"clipped at {s.clip:g}")
    below.legend(frameon=False)
    below.set_xlabel(f"updates, of {s.batch * s.k1:,} characters each")
    figure.savefig(path, dpi=110)


# --------------------------------------------------------------------------------------
# The command line
# --------------------------------------------------------------------------------------


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line. Settings that are not given are absent."""
    made = parser("text_generation", __doc__, Settings, minutes=2.8)
    use = made.add_argument_group("what to do, other than to train").add_mutually_exclusive_group()
    use.add_argument("--generate", metavar="PROMPT", help="write on from PROMPT; no training")
    use.add_argument("--interactive", action="store_true", help="write on from what is typed")
    use.add_argument("--study", action="store_true", help="compare cells, truncation, clipping")
    made.add_argument("--seeds", type=positive, default=1, help="runs of each network of --study")
    writing = made.add_argument_group("writing")
    writing.add_argument("--length", type=positive, default=600, help="characters to write")

    def sampling(name: str, kind: Any, about: str) -> None:
        writing.add_argument(name, type=kind, default=argparse.SUPPRESS, help=about)

    sampling("--temperature", at_least(0.0), "0 is the most likely character (default: 0.8)")
    sampling("--top-k", positive, "draw from this many of the likeliest characters")
    sampling("--top-p", share, "draw from the likeliest with this share of the probability")
    writing.add_argument(
        "--beam", type=positive, metavar="WIDTH", help="search for the likeliest text instead"
    )
    options = made.parse_args(arguments)
    sampled = [f"--{name.replace('_', '-')}" for name in SAMPLING if hasattr(options, name)]
    if options.beam is not None and sampled:
        made.error(f"--beam draws no sample, so {sampled[0]} does not go with it")
    if options.study and options.resume:
        made.error("--study trains networks of its own, so --resume does not go with it")
    return options


def share(text: str) -> float:
    """A number in (0, 1]."""
    number = float(text)
    if not 0.0 < number <= 1.0:
        raise argparse.ArgumentTypeError(f"{number} is not above 0 and at most 1")
    return number


def load_model(options: argparse.Namespace) -> tuple[CharacterModel, Settings]:
    """The network in the checkpoint, and its settings."""
    saved, settings, about = load_checkpoint(options, Settings)
    model = CharacterModel(Alphabet(about["characters"]), settings, np.random.default_rng(0))
    model.load_state_dict(saved["model"])
    return model.to(options.device), settings


def continue_text(
    model: CharacterModel, prompt: str, options: argparse.Namespace, rng: np.random.Generator
) -> None:
    """Print how the network goes on from ``prompt``."""
    if options.beam is not None:
        text, bits = model.likeliest(prompt, options.length, options.beam)
        print(f"{text}\n\nThe network gives this text {bits:.2f} bits per character.")
        return
    chosen = {name: getattr(options, name) for name in SAMPLING if hasattr(options, name)}
    for character in model.write(prompt, options.length, rng, **chosen):
        print(character, end="", flush=True)
    print()


def converse(model: CharacterModel, options: argparse.Namespace, rng: np.random.Generator) -> None:
    """Continue what the user types, each time from a state of zeros."""
    print("Type how a text begins; an empty line, Ctrl-D or Ctrl-C ends.")
    try:
        while prompt := input("\n> "):
            try:
                model.alphabet.encode(prompt)
            except ValueError as error:
                print(f"{error}.")
                continue
            print(prompt, end="", flush=True)
            continue_text(model, prompt, options, rng)
    except (EOFError, KeyboardInterrupt):
        print()


def program(options: argparse.Namespace) -> None:
    """Train and write, or do what the options say."""
    if options.study:
        from truncation_study import study

        study(options)
        return
    trains = options.generate is None and not options.interactive
    model, s = (train if trains else load_model)(options)
    model.eval()
    rng = np.random.default_rng(s.seed)
    if options.interactive:
        converse(model, options, rng)
        return
    print(options.generate or "\nIt writes:\n", end="", flush=True)
    continue_text(model, options.generate or model.alphabet.beginning, options, rng)


def main(arguments: list[str] | None = None) -> None:
    """Run the program."""
    run(program, parse(arguments))


if __name__ == "__main__":
    main()
