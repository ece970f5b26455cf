"""Train an encoder-decoder with attention to translate, one subword unit at a time.

    python examples/translation.py                       # English to Spanish, verses of the Bible
    python examples/translation.py --translate "And he said unto them, Fear not."
    python examples/translation.py --data numbers        # number words, English to French, in 30 s
    python examples/translation.py --data my_pairs.tsv   # a source, a tab and its target per line

A bidirectional GRU reads the source. At every step of the target, a decoder attends to what was
read and predicts the next unit from it and from the unit before: in training that of the true
target (teacher forcing), later its own, found by beam search. Training leaves a checkpoint with
the best weights, scores on held-out sentences, and a picture of the attention for one of them.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from math import cos, inf, isfinite, pi
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits
from tqdm import tqdm

import minigrad as mg
import minigrad_rnn as rnn
from minigrad import Tensor, nn
from minigrad_rnn import datasets, metrics

#: What is learned instead of a data set that cannot be had.
FALLBACK = {"verses": "numbers", "numbers": "digits"}
NUMBERS = 12_000
DIGITS = (
    ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
    ["zéro", "un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf"],
)


def setting(default: Any, about: str) -> Any:
    """A field with the text of its option."""
    return dataclasses.field(default=default, metadata={"about": about})


@dataclasses.dataclass
class Settings:
    """What decides the numbers of a run; it is stored in the checkpoint."""

    data: str = setting("verses", "'verses', 'numbers', 'digits', or a file with a tab per line")
    words: int = setting(15, "words of the longest sentence")
    units: int = setting(2000, "subword units, those of both languages together")
    attention: str = setting("dot", "'dot' or 'additive'")
    embedding: int = setting(96, "features of a unit")
    hidden: int = setting(160, "features of the decoder, and of both directions of the encoder")
    dropout: float = setting(0.2, "probability of dropping a feature")
    batch: int = setting(32, "sentences of an update")
    lr: float = setting(3e-3, "learning rate at the start; it falls to 0 along a cosine")
    clip: float = setting(1.0, "largest norm of the gradient")
    updates: int = setting(1800, "updates in all")
    every: int = setting(200, "updates between evaluations")
    patience: int = setting(4, "evaluations without a better one that end the training")
    held_out: int = setting(400, "sentences to be judged by")
    seed: int = setting(0, "of the initial values, the order and the dropout")


#: What suits number words: they are few, and there is one way to say a number.
NUMBER_WORDS = {
    "words": 40,
    "units": 150,
    "embedding": 64,
    "hidden": 96,
    "dropout": 0.0,
    "batch": 64,
    "lr": 5e-3,
    "updates": 200,
    "every": 50,
}
PRESETS = {"numbers": NUMBER_WORDS, "digits": {**NUMBER_WORDS, "updates": 150}}
#: A run that shows that the program works, not what the network can learn.
QUICK = {"hidden": 32, "embedding": 32, "updates": 30, "every": 10, "held_out": 40}


class Translator(nn.Module):
    """Units of a source in, scores for the units of a target out."""

    def __init__(
        self, units: rnn.BytePairEncoding, settings: Settings, rng: np.random.Generator
    ) -> None:
        size, hidden = settings.embedding, settings.hidden
        self.units = units
        self.embedding = nn.Embedding(len(units), size, rng=rng)
        self.dropout = nn.Dropout(settings.dropout, rng=rng)
        self.encoder = rnn.GRU(size, hidden // 2, bidirectional=True, rng=rng)
        self.bridge = nn.Linear(hidden, hidden, rng=rng)
        attention = (
            rnn.AdditiveAttention(hidden, hidden, hidden, rng=rng)
            if settings.attention == "additive"
            else rnn.DotAttention(hidden, general=True, rng=rng)
        )
        cell = rnn.GRUCell(2 * size, hidden, rng=rng)
        self.decoder = rnn.AttentionCell(cell, attention, size, rng=rng)
        self.bias = nn.Parameter(np.zeros(len(units), np.float32))

    def encode(self, source: Tensor, lengths: Any) -> tuple[Any, Any]:
        """(time, batch) integers to the state of the decoder, and what it attends to."""
        ys, last = self.encoder(self.dropout(self.embedding(source)), lengths=lengths)
        first = mg.tanh(self.bridge(mg.concatenate([last[0], last[1]], axis=-1)))
        state = self.decoder.initial_state(source.shape[1], first)
        return state, self.decoder.attention.prepare(self.dropout(ys), lengths=lengths)

    def scores(self, h: Tensor) -> Tensor:
        """Units are predicted by the vectors that they are read with."""
        return self.dropout(h) @ self.embedding.weight.T + self.bias

    def forward(self, source: Tensor, lengths: Any, before: Tensor) -> Tensor:
        """Scores (steps, batch, units) for targets, given the unit ``before`` each of theirs."""
        state, memory = self.encode(source, lengths)
        step = partial(self.decoder, memory=memory)
        (hs, _), _ = rnn.unroll(step, self.dropout(self.embedding(before)), state)
        return self.scores(hs)

    def step(self, tokens: Tensor, carried: Any) -> tuple[Tensor, Any, Tensor]:
        """One step of beam search, which keeps the weights of the attention."""
        state, memory = carried
        (h, weights), state = self.decoder(self.embedding(tokens), state, memory)
        return self.scores(h), (state, memory), weights

    def cut(self, text: str) -> np.ndarray:
        """The units of a text and its end. Its first word has a space before it, as all others."""
        return np.append(self.units.encode(f" {text}"), self.units.special["</s>"])

    def translate(
        self, texts: Sequence[str], width: int, alpha: float, device: str
    ) -> Iterator[tuple[int, str, rnn.Hypothesis]]:
        """Which text, its translation, and how it was found; texts of similar length together."""
        self.eval()
        sources = [self.cut(text) for text in texts]
        for batch in rnn.bucket_by_length([len(source) for source in sources], 50):
            padded, lengths = rnn.pad_sequences([sources[i] for i in batch])
            with mg.no_grad():
                carried = self.encode(mg.asarray(padded, device=device), lengths)
            found = rnn.beam_search(
                self.step,
                carried,
                np.full(len(batch), self.units.special["<s>"]),
                self.units.special["</s>"],
                width=width,
                max_length=2 * int(max(lengths)) + 10,
                alpha=alpha,
            )
            for i, [best] in zip(batch, found, strict=True):
                yield int(i), self.units.decode(best.tokens).strip(), best
        self.train()


# --------------------------------------------------------------------------------------
# The sentences
# --------------------------------------------------------------------------------------


def load_pairs(settings: Settings) -> list[tuple[str, str]]:
    """The data set or the user's file; no source twice, and none too long."""
    choice = settings.data
    drawn = np.random.default_rng(0).choice(1_000_000, NUMBERS, replace=False).tolist()
    if choice == "verses":
        pairs = datasets.bible_verses()
    elif choice == "numbers":
        english, french = (datasets.number_words(drawn, language) for language in ("en", "fr"))
        pairs = list(zip(english, french, strict=True))
    elif choice == "digits":
        rows = [str(number)[: 1 + i % 6] for i, number in enumerate(drawn)]
        english, french = (
            [" ".join(names[int(digit)] for digit in row) for row in rows] for names in DIGITS
        )
        pairs = list(zip(english, french, strict=True))
    else:
        try:
            pairs = datasets.read_pairs(choice)
        except OSError as error:
            raise SystemExit(f"cannot read the pairs {choice}: {error.strerror}") from None
    short = {a: b for a, b in pairs if max(len(a.split()), len(b.split())) <= settings.words}
    if len(short) < 30:
        raise SystemExit(
            f"{choice} has {len(short)} pairs of at most {settings.words} words, too few to learn "
            "from"
        )
    return list(short.items())


class Corpus:
    """Pairs to learn from, to choose the weights by, and to be judged by."""

    def __init__(self, pairs: list[tuple[str, str]], held_out: int) -> None:
        self.digest = hashlib.sha256(json.dumps(pairs).encode()).hexdigest()
        # The same for every seed, so that runs can be compared.
        order = np.random.default_rng(0).permutation(len(pairs))
        shuffled = [pairs[i] for i in order]
        test = min(held_out, len(pairs) // 10)
        rest = test + max(1, test // 2)
        self.test, self.validation = shuffled[:test], shuffled[test:rest]
        self.training = shuffled[rest:]


# --------------------------------------------------------------------------------------
# Training
# --------------------------------------------------------------------------------------


class Training:
    """All that changes while the network learns, and can be saved and resumed."""

    def __init__(self, settings: Settings, corpus: Corpus, device: str) -> None:
        self.settings = settings
        self.corpus = corpus
        self.device = device
        texts = [text for pair in corpus.training for text in pair]
        units = rnn.BytePairEncoding.train([f" {text}" for text in texts], settings.units)
        self.rng = np.random.default_rng(settings.seed)
        self.model = Translator(units, settings, self.rng).to(device)
        self.optimizer = mg.optim.Adam(self.model.named_parameters(), lr=settings.lr)
        self.pairs = self.cut(corpus.training)
        self.validation = self.cut(corpus.validation)
        self.best = self.model.state_dict()
        self.losses: list[float] = []  # on the validation pairs
        self.epoch, self.position, self.seconds = 0, 0, 0.0

    def cut(self, pairs: list[tuple[str, str]]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Pairs of texts as pairs of units."""
        return [(self.model.cut(source), self.model.cut(target)) for source, target in pairs]

    def batches(self) -> Iterator[np.ndarray]:
        """Positions of pairs with targets of similar length, without end."""
        lengths = [len(target) for _, target in self.pairs]
        while True:
            order = rnn.bucket_by_length(
                lengths, self.settings.batch, rng=[self.settings.seed, self.epoch]
            )
            while self.position < len(order):
                self.position += 1
                yield order[self.position - 1]
            self.epoch, self.position = self.epoch + 1, 0

    def loss(self, pairs: Sequence[tuple[np.ndarray, np.ndarray]], **settings: Any) -> Tensor:
        """The cross-entropy of the targets' units."""
        source, lengths = rnn.pad_sequences([source for source, _ in pairs])
        target, steps = rnn.pad_sequences([target for _, target in pairs])
        before, _ = rnn.shift(target, start=self.model.units.special["<s>"])
        scores = self.model(self.place(source), lengths, self.place(before))
        valid = self.place(rnn.lengths_to_mask(steps, len(target)))
        return nn.cross_entropy(scores, self.place(target), valid, **settings)

    def place(self, array: np.ndarray) -> Tensor:
        """An array on the device."""
        return mg.asarray(array, device=self.device)

    def updates(self) -> Iterator[float]:
        """Train until the settings' number of updates; yields the loss of each."""
        s = self.settings
        for batch in self.batches():
            if self.optimizer.steps >= s.updates:
                return
            with mg.Tape() as tape:
                loss = self.loss([self.pairs[i] for i in batch])
            tape.backward(loss)
            rnn.clip_grad_norm_(self.model.parameters(), s.clip)
            self.optimizer.lr = s.lr * (0.5 + 0.5 * cos(pi * self.optimizer.steps / s.updates))
            self.optimizer.step()
            self.optimizer.zero_grad()
            yield loss.item()

    def evaluate(self) -> None:
        """Note the loss per unit on the validation pairs; keep the weights if it is the least."""
        self.model.eval()
        total, count = 0.0, 0
        with mg.no_grad():
            for batch in rnn.bucket_by_length([len(target) for _, target in self.validation], 64):
                pairs = [self.validation[i] for i in batch]
                total += self.loss(pairs, reduction="sum").item()
                count += sum(len(target) for _, target in pairs)
        self.model.train()
        self.losses.append(total / count)
        if self.losses[-1] == min(self.losses):
            self.best = self.model.state_dict()

    # ---------------------------------------------------------------- checkpoints

    def save(self, path: Path) -> None:
        """Write everything that translating and resuming need, whole or not at all."""
        tensors = {
            "best": self.best,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        units = self.model.units
        about = {
            "settings": dataclasses.asdict(self.settings),
            "units": [units.characters, units.merges],
            "digest": self.corpus.digest,
            "rng": self.rng.bit_generator.state,
            "progress": [self.epoch, self.position, self.seconds, self.losses],
        }
        mg.save(path, tensors, {name: json.dumps(value) for name, value in about.items()})

    def load(self, saved: mg.SavedTensors) -> None:
        """Continue from what :meth:`save` wrote."""
        about = {name: json.loads(value) for name, value in saved.metadata.items()}
        if about["digest"] != self.corpus.digest:
            raise SystemExit("the pairs are not those that this checkpoint was trained on")
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.best = saved["best"]
        self.rng.bit_generator.state = about["rng"]
        self.epoch, self.position, self.seconds, self.losses = about["progress"]


def train(training: Training, options: argparse.Namespace) -> None:
    """Train with a progress bar, early stopping and checkpoints."""
    s = training.settings
    began, before = time.monotonic(), training.seconds
    checkpoint = options.folder / "checkpoint.safetensors"
    steps, recent, stopped = training.optimizer.steps, 0.0, "done"
    with tqdm(total=s.updates, initial=steps, unit="update", ncols=90) as bar:
        for loss in training.updates():
            steps = training.optimizer.steps
            training.seconds = before + time.monotonic() - began
            if not isfinite(loss):
                raise SystemExit(f"the loss is {loss} at update {steps}: try a smaller --lr")
            recent = 0.95 * recent + 0.05 * loss if recent else loss
            bar.set_postfix_str(f"loss {recent:.3f}", refresh=False)
            bar.update()
            late = training.seconds - before > 60 * options.minutes
            if steps % s.every and steps < s.updates and not late:
                continue
            training.evaluate()
            training.save(checkpoint)
            perplexity = metrics.perplexity(training.losses[-1])
            bar.write(f"update {steps}: perplexity {perplexity:.2f} per unit on validation pairs")
            waited = len(training.losses) - 1 - int(np.argmin(training.losses))
            if steps < s.updates and (late or waited >= s.patience):
                stopped = "out of time (see --minutes)" if late else "no longer getting better"
                break
    print(
        f"Training is {stopped} after {steps} updates, {training.epoch + 1} epochs and "
        f"{training.seconds:.0f} s.\nCheckpoint: {checkpoint}"
    )


def score(training: Training, options: argparse.Namespace) -> str:
    """Translate the held-out sentences, say how well, and return one that suits a picture."""
    model, pairs = training.model, training.corpus.test
    model.load_state_dict(training.best)
    sources, targets = (list(side) for side in zip(*pairs, strict=True))
    translated = [""] * len(pairs)
    search = model.translate(sources, options.beam, options.alpha, training.device)
    for i, text, _ in tqdm(search, total=len(pairs), unit="sentence", ncols=90):
        translated[i] = text
    written = list(zip(sources, targets, translated, strict=True))
    for source, target, text in written[:5]:
        print(f"\n  source    {source}\n  target    {target}\n  written   {text}")
    cut = [[metrics.tokenize_13a(text) for text in texts] for texts in (translated, targets)]
    print(
        f"\nOn {len(pairs)} held-out sentences, with a beam of {options.beam}: "
        f"BLEU {metrics.bleu(*cut):.1f}, chrF {metrics.chrf(translated, targets):.1f}, "
        f"{metrics.exact_match(translated, targets):.1%} exactly as the target."
    )
    # Translated well, and not too short.
    return max(written, key=lambda e: min(len(e[1]), 60) * metrics.chrf([e[2]], [e[1]]))[0]


def show(model: Translator, text: str, options: argparse.Namespace) -> None:
    """Translate one text, and draw what the decoder attended to at every unit that it wrote."""
    [(_, translated, best)] = model.translate([text], options.beam, options.alpha, options.device)
    # The space that a word begins with is shown as a low line, as is usual.
    names = [unit.replace(" ", "_") for unit in model.units.units]
    names[model.units.special["</s>"]] = "(end)"
    across, down = [names[unit] for unit in model.cut(text)], [names[unit] for unit in best.tokens]
    size = (2.5 + 0.36 * len(across), 1.8 + 0.3 * len(down))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(np.asarray(best.extras), cmap="Blues", vmin=0, aspect="auto")
    axes.set_xticks(range(len(across)), across, rotation=90)
    axes.set_yticks(range(len(down)), down)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_ylabel("written, from top to bottom")
    axes.set_xlabel("read")
    figure.colorbar(shown, ax=axes, label="attention")
    figure.savefig(options.folder / "attention.png", dpi=110)
    print(f"\n  {text}\n  {translated}\n\nPicture:    {options.folder / 'attention.png'}")


# --------------------------------------------------------------------------------------
# The command line
# --------------------------------------------------------------------------------------


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line. Settings that are not given are absent."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    settings = parser.add_argument_group("settings of the run; defaults are those of verses")
    for field in dataclasses.fields(Settings):
        kind = type(field.default)
        settings.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=positive if kind is int and field.name != "seed" else kind,
            choices=("dot", "additive") if field.name == "attention" else None,
            default=argparse.SUPPRESS,
            help=f"{field.metadata['about']} (default: {field.default})",
        )
    add = parser.add_argument
    add("--quick", action="store_true", help="a small network and few updates, to try the program")
    add("--translate", metavar="TEXT", help="with the checkpoint in --folder; no training")
    add("--resume", action="store_true", help="go on with the training in --folder")
    add("--beam", type=positive, default=5, help="hypotheses of beam search (default: 5)")
    add("--alpha", type=float, default=1.0, help="how much length is made up for (default: 1)")
    add("--minutes", type=float, default=4.5, help="stop training after this time (default: 4.5)")
    add("--device", default="cpu", help="'cpu', or 'cuda' with CuPy")
    add("--threads", type=positive, default=1, help="threads of the matrix products (default: 1)")
    add("--folder", type=Path, default=Path("runs/translation"), help="of checkpoint and picture")
    return parser.parse_args(arguments)


def positive(text: str) -> int:
    """A number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not at least 1")
    return number


def start(options: argparse.Namespace, given: dict[str, Any]) -> Training:
    """A new training on the data, or on what stands in where they cannot be had."""
    data = given.get("data", Settings.data)
    quick = QUICK if options.quick else {}
    settings = Settings(**{**PRESETS.get(data, {}), **quick, **given})
    try:
        corpus = Corpus(load_pairs(settings), settings.held_out)
    except datasets.DatasetUnavailableError as error:
        print(f"{error}\nFalling back to --data {FALLBACK[data]}.\n")
        return start(options, {**given, "data": FALLBACK[data]})
    return Training(settings, corpus, options.device)


def stored(options: argparse.Namespace) -> tuple[mg.SavedTensors, dict[str, Any]]:
    """The checkpoint and its settings."""
    path = options.folder / "checkpoint.safetensors"
    if not path.is_file():
        raise SystemExit(f"there is no checkpoint {path}: train first, without this option")
    saved = mg.load(path)
    if "units" not in saved.metadata:
        raise SystemExit(f"{path} is not a checkpoint of this program")
    return saved, json.loads(saved.metadata["settings"])


def run(options: argparse.Namespace) -> None:
    """Translate, or train and then translate."""
    names = [field.name for field in dataclasses.fields(Settings)]
    given = {name: getattr(options, name) for name in names if hasattr(options, name)}
    if options.translate is not None:
        text = " ".join(options.translate.split())
        if not text:
            raise SystemExit("there is no text to translate")
        saved, settings = stored(options)
        units = rnn.BytePairEncoding(*json.loads(saved.metadata["units"]))
        model = Translator(units, Settings(**settings), np.random.default_rng())
        model.load_state_dict(saved["best"])
        show(model.to(options.device), text, options)
        return
    if options.resume:
        saved, settings = stored(options)
        for name, value in given.items():
            if settings[name] != value:
                raise SystemExit(
                    f"the checkpoint was trained with {name} {settings[name]}, so it cannot go on "
                    f"with {name} {value}"
                )
        training = start(options, settings)
        training.load(saved)
    else:
        training = start(options, given)
    options.folder.mkdir(parents=True, exist_ok=True)
    s, corpus = training.settings, training.corpus
    count = sum(parameter.size for parameter in training.model.parameters())
    print(
        f"GRUs of {s.hidden} features with {s.attention} attention, {count:,} parameters, on "
        f"{s.data}: {len(corpus.training):,} pairs to learn from, {len(corpus.validation)} to "
        f"choose the best weights by, {len(corpus.test)} held out; {len(training.model.units)} "
        "subword units."
    )
    train(training, options)
    show(training.model, score(training, options), options)


def main(arguments: list[str] | None = None) -> None:
    """Run the program."""
    options = parse(arguments)
    if not 0.0 <= options.alpha < inf:
        raise SystemExit(f"--alpha is at least 0, not {options.alpha}")
    try:
        with threadpool_limits(options.threads):
            run(options)
    except KeyboardInterrupt:
        raise SystemExit("interrupted: --resume goes on from the last checkpoint, if any") from None
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        raise SystemExit(f"{Path(sys.argv[0]).name}: {error}") from error


if __name__ == "__main__":
    main()
