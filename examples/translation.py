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
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from settings import (
    at_least,
    check_data,
    conclude,
    given,
    load_checkpoint,
    parser,
    positive,
    run,
    setting,
    start,
    training_of,
)
from tqdm import tqdm

import minigrad as mg
import minigrad_rnn as rnn
from minigrad import Tensor, nn
from minigrad_rnn import datasets, metrics

#: What is learned instead of a data set that cannot be had.
FALLBACK = {"verses": "numbers", "numbers": "digits"}
NUMBERS = 12_000
#: The figure whose smallest value marks the best weights.
PERPLEXITY = "perplexity of the validation pairs"
DIGITS = (
    ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
    ["zéro", "un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf"],
)


@dataclass
class Settings:
    """What decides the numbers of a run; it is stored in the checkpoint.

    The defaults are those of verses.
    """

    data: str = setting("verses", "'verses', 'numbers', 'digits', or a file with a tab per line")
    words: int = setting(15, "words of the longest sentence")
    units: int = setting(2000, "subword units, those of both languages together")
    attention: str = setting("dot", "how units are compared", choices=("dot", "additive"))
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
    seed: int = setting(0, "of the initial values, the order and the dropout", minimum=0)


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

    def place(self, array: np.ndarray) -> Tensor:
        """An array on the device of the parameters."""
        return mg.asarray(array, device=self.bias.device)

    def cut(self, text: str) -> np.ndarray:
        """The units of a text and its end. Its first word has a space before it, as all others."""
        return np.append(self.units.encode(f" {text}"), self.units.special["</s>"])

    def translate(
        self, texts: Sequence[str], width: int, alpha: float
    ) -> Iterator[tuple[int, str, rnn.Hypothesis]]:
        """Which text, its translation, and how it was found; texts of similar length together."""
        sources = [self.cut(text) for text in texts]
        for batch in rnn.bucket_by_length([len(source) for source in sources], 50):
            padded, lengths = rnn.pad_sequences([sources[i] for i in batch])
            found = rnn.beam_search(
                self.step,
                self.encode(self.place(padded), lengths),
                np.full(len(batch), self.units.special["<s>"]),
                self.units.special["</s>"],
                width=width,
                max_length=2 * int(max(lengths)) + 10,
                alpha=alpha,
            )
            for i, [best] in zip(batch, found, strict=True):
                yield int(i), self.units.decode(best.tokens).strip(), best


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


class Learner:
    """The network, the pairs that it learns from, and what changes it."""

    def __init__(self, settings: Settings, corpus: Corpus, device: str) -> None:
        s = self.settings = settings
        texts = [text for pair in corpus.training for text in pair]
        units = rnn.BytePairEncoding.train([f" {text}" for text in texts], s.units)
        self.rng = np.random.default_rng(s.seed)
        self.model = Translator(units, s, self.rng).to(device)
        self.pairs = self.cut(corpus.training)
        self.validation = self.cut(corpus.validation)
        lengths = [len(target) for _, target in self.pairs]
        self.batches = rnn.Batches(lengths, s.batch, seed=s.seed)
        self.optimizer = mg.optim.Adam(self.model.named_parameters(), lr=s.lr)
        self.schedule = mg.optim.CosineAnnealingLR(self.optimizer, s.updates)

    def cut(self, pairs: list[tuple[str, str]]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Pairs of texts as pairs of units."""
        return [(self.model.cut(source), self.model.cut(target)) for source, target in pairs]

    def loss(self, pairs: Sequence[tuple[np.ndarray, np.ndarray]], **settings: Any) -> Tensor:
        """The cross-entropy of the targets' units."""
        place = self.model.place
        source, lengths = rnn.pad_sequences([source for source, _ in pairs])
        target, steps = rnn.pad_sequences([target for _, target in pairs])
        before, _ = rnn.shift(target, start=self.model.units.special["<s>"])
        scores = self.model(place(source), lengths, place(before))
        valid = place(rnn.lengths_to_mask(steps, len(target)))
        return nn.cross_entropy(scores, place(target), valid, **settings)

    def update(self) -> dict[str, Tensor]:
        """Learn from the next batch."""
        with mg.Tape() as tape:
            loss = self.loss([self.pairs[i] for i in next(self.batches)])
        tape.backward(loss)
        norm = rnn.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        return {"loss": loss, "norm": norm}

    def evaluate(self) -> dict[str, float]:
        """The perplexity per unit of the validation pairs."""
        total, count = 0.0, 0
        for batch in rnn.bucket_by_length([len(target) for _, target in self.validation], 64):
            pairs = [self.validation[i] for i in batch]
            total += self.loss(pairs, reduction="sum").item()
            count += sum(len(target) for _, target in pairs)
        return {PERPLEXITY: metrics.perplexity(total / count)}


def prepare(options: argparse.Namespace) -> tuple[Learner, Corpus, mg.SavedTensors | None]:
    """What learns, on the data or on what stands in where they cannot be had."""
    data = given(options, Settings).get("data", Settings.data)
    presets = {**PRESETS.get(data, {}), **(QUICK if options.quick else {})}
    saved, s, about = start(options, Settings, presets)
    try:
        corpus = Corpus(load_pairs(s), s.held_out)
    except datasets.DatasetUnavailableError as error:
        options.data = FALLBACK[s.data]
        print(f"{error}\nFalling back to --data {options.data}.\n")
        return prepare(options)
    check_data(about, corpus.digest)
    return Learner(s, corpus, options.device), corpus, saved


def train(options: argparse.Namespace) -> None:
    """Train, and unless that is interrupted, translate the held-out sentences."""
    learner, corpus, saved = prepare(options)
    s, model = learner.settings, learner.model
    state = {
        "model": model,
        "optimizer": learner.optimizer,
        "schedule": learner.schedule,
        "batches": learner.batches,
        "rng": learner.rng,
    }
    about = {"digest": corpus.digest, "units": [model.units.characters, model.units.merges]}
    training = training_of(
        learner, options, saved, state, about=about, best=PERPLEXITY, patience=s.patience
    )
    count = sum(parameter.size for parameter in model.parameters())
    print(
        f"GRUs of {s.hidden} features with {s.attention} attention, {count:,} parameters, on "
        f"{s.data}: {len(corpus.training):,} pairs to learn from, {len(corpus.validation)} to "
        f"choose the best weights by, {len(corpus.test)} held out; {len(model.units)} subword "
        "units."
    )
    end = training.run()
    conclude(options, training, end)
    mg.training.plot_history(training.history, options.folder / "training.png")
    if end != "interrupted":
        training.use_best()
        model.eval()
        show(model, score(model, corpus, options), options)


def score(model: Translator, corpus: Corpus, options: argparse.Namespace) -> str:
    """Translate the held-out sentences, say how well, and return one that suits a picture."""
    pairs = corpus.test
    sources, targets = (list(side) for side in zip(*pairs, strict=True))
    translated = [""] * len(pairs)
    search = model.translate(sources, options.beam, options.alpha)
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
    [(_, translated, best)] = model.translate([text], options.beam, options.alpha)
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
    made = parser("translation", __doc__, Settings, minutes=4.5)
    add = made.add_argument_group("translating").add_argument
    add("--translate", metavar="TEXT", help="with the checkpoint in --folder; no training")
    add("--beam", type=positive, default=5, help="hypotheses of beam search (default: 5)")
    alpha = "how much length is made up for (default: 1)"
    add("--alpha", type=at_least(0.0), default=1.0, help=alpha)
    return made.parse_args(arguments)


def translate(options: argparse.Namespace) -> None:
    """Translate one text with the network in the checkpoint."""
    text = " ".join(options.translate.split())
    if not text:
        raise SystemExit("there is no text to translate")
    saved, settings, about = load_checkpoint(options, Settings)
    units = rnn.BytePairEncoding(*about["units"])
    model = Translator(units, settings, np.random.default_rng())
    model.load_state_dict(saved["best" if "best" in saved else "model"])
    show(model.to(options.device).eval(), text, options)


def main(arguments: list[str] | None = None) -> None:
    """Run the program."""
    options = parse(arguments)
    run(train if options.translate is None else translate, options)


if __name__ == "__main__":
    main()
