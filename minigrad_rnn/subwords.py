"""Subword units: a text as pieces of words, of which a few thousand spell everything."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from heapq import heapify, heappop, heappush
from itertools import pairwise
from math import inf
from os import PathLike
from pathlib import Path

import numpy
from numpy.typing import ArrayLike, NDArray

#: What is never merged with what stands beside it: a word or a run of punctuation marks, each
#: with the space before it, and any other white space. Together they are the text.
PIECES = re.compile(r" ?\w+| ?[^\w\s]+|\s")

#: How many pieces are remembered, so that a frequent word is cut only once.
REMEMBERED = 100_000

#: What stands for a character that is not known.
UNKNOWN = "<unk>"

Pair = tuple[str, str]


class BytePairEncoding:
    """Subword units by byte pair encoding: what often stands together becomes one unit.

    At first the units are the characters of some texts. Then, again and again, the most
    frequent pair of neighbouring units is merged into a new one. A text is cut in the same way:
    into characters, and these are merged in the order in which the merges were found. Sennrich,
    Haddow and Birch, Neural machine translation of rare words with subword units, 2016.

    No unit reaches across a word. In place of the paper's mark for the end of a word, the space
    before it belongs to it, so that a text and its white space can be restored exactly.

    Units are numbered: first the special ones, then ``unknown``, then the characters in the
    order of their code points, then what was merged. Special units are never found in a text:
    they are for the program to add.

    Args:
        characters: all that are known; a character that is not is encoded as ``unknown``.
        merges: pairs of units, in the order in which they are merged.
        special: the names of special units.

    Attributes:
        units: the text of every unit by its number; of special ones the name.
        special: the number of every special unit, by name.
        unknown: the number that stands for a character that is not known.
        characters, merges: as they were given, the characters in order.

    Raises ``ValueError`` for a character or special unit that is there twice, and a merge of
    what is no unit before it.

    >>> import minigrad_rnn as rnn
    >>> bpe = rnn.BytePairEncoding.train(["low lower lowest newer wider"] * 2, size=18)
    >>> [bpe.units[number] for number in bpe.encode("lower, slower")]
    ['low', 'er', '<unk>', ' ', 's', 'low', 'er']
    >>> bpe.decode(bpe.encode("slowest  wider"))
    'slowest  wider'
    >>> bpe.special["</s>"], len(bpe)
    (2, 18)
    """

    def __init__(
        self,
        characters: Iterable[str],
        merges: Iterable[Sequence[str]] = (),
        special: Sequence[str] = ("<pad>", "<s>", "</s>"),
    ) -> None:
        self.characters = "".join(sorted(characters))
        self.merges: list[Pair] = [(left, right) for left, right in merges]
        named = [*special, UNKNOWN]
        for what, given in (("character", self.characters), ("special unit", named)):
            for item, count in Counter(given).items():
                if count > 1:
                    raise ValueError(f"the {what} {item!r} is there {count} times")
        self.special = {name: number for number, name in enumerate(special)}
        self.unknown = len(special)
        self._numbers = {unit: len(named) + i for i, unit in enumerate(self.characters)}
        self._ranks: dict[Pair, int] = {}
        for left, right in self.merges:
            for part in (left, right):
                if part not in self._numbers:
                    raise ValueError(f"{left!r} and {right!r} cannot merge: {part!r} is no unit")
            self._ranks.setdefault((left, right), len(self._ranks))
            self._numbers.setdefault(left + right, len(named) + len(self._numbers))
        self.units = [*named, *self._numbers]
        self._remembered: dict[str, list[int]] = {}

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        size: int,
        special: Sequence[str] = ("<pad>", "<s>", "</s>"),
    ) -> BytePairEncoding:
        """The units that these texts suggest.

        Of pairs that are equally frequent, the first in the order of their code points is
        merged.

        Args:
            texts: what the units are for; all their characters become units.
            size: how many units there are to be, the special and unknown ones included. There
                are fewer if no pair is left that occurs twice.
            special: see :class:`BytePairEncoding`.

        Raises ``ValueError`` if there is no text, or the characters alone are more than
        ``size``; ``TypeError`` if ``texts`` is a single string.
        """
        if isinstance(texts, str):
            raise TypeError("texts are several strings: for one, write [text]")
        pieces = Counter(piece for text in texts for piece in PIECES.findall(text))
        characters = sorted({character for piece in pieces for character in piece})
        if not characters:
            raise ValueError("there is no text to train on")
        units = {*characters}
        room = size - len(special) - 1
        if len(units) > room:
            raise ValueError(
                f"size is at least {len(special) + 1 + len(units)}: there are {len(units)} "
                f"characters, {len(special)} special units and {UNKNOWN}; it is {size}"
            )
        pairs = _Pairs(pieces)
        merges = []
        while len(units) < room and (pair := pairs.most_frequent()):
            merges.append(pair)
            units.add(pair[0] + pair[1])
            pairs.merge(pair)
        return cls(characters, merges, special)

    def __len__(self) -> int:
        return len(self.units)

    def encode(self, text: str) -> NDArray[numpy.int64]:
        """The numbers of a text's units, (length,)."""
        numbers: list[int] = []
        for piece in PIECES.findall(text):
            if piece not in self._remembered:
                if len(self._remembered) >= REMEMBERED:
                    self._remembered.clear()
                cut = self._cut(piece)
                self._remembered[piece] = [self._numbers.get(u, self.unknown) for u in cut]
            numbers += self._remembered[piece]
        return numpy.array(numbers, numpy.int64)

    def decode(self, numbers: ArrayLike) -> str:
        """The text of units, given by number; special ones are left out.

        For a text whose characters are all known it is the text that was encoded. In place of an
        unknown character stands U+FFFD.

        Raises ``TypeError`` if the numbers are not integers, and ``IndexError`` if there is no
        unit of such a number.
        """
        given = numpy.asarray(numbers)
        if given.size and given.dtype.kind not in "iu":
            raise TypeError(f"units are given by number, integers, not {given.dtype}")
        for number in given.ravel().tolist():
            if not 0 <= number < len(self):
                raise IndexError(f"units have numbers from 0 to {len(self) - 1}, not {number}")
        texts = [""] * len(self.special) + ["\N{REPLACEMENT CHARACTER}"]
        texts += self.units[len(texts) :]
        return "".join([texts[number] for number in given.ravel().tolist()])

    def save(self, path: str | PathLike[str]) -> None:
        """Write the units to a JSON file."""
        content = {
            "special": list(self.special),
            "characters": self.characters,
            "merges": self.merges,
        }
        Path(path).write_text(json.dumps(content), encoding="ascii")

    @classmethod
    def load(cls, path: str | PathLike[str]) -> BytePairEncoding:
        """The units that :meth:`save` has written.

        Raises ``ValueError`` if the file is none of these, and ``OSError`` if there is none.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="ascii"))
            return cls(content["characters"], content["merges"], content["special"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} does not hold byte pair encodings: {error}") from error

    def _cut(self, piece: str) -> list[str]:
        """Its units: again and again, the pair that was merged first is merged everywhere."""
        units = list(piece)
        while len(units) > 1:
            pair = min(pairwise(units), key=lambda pair: self._ranks.get(pair, inf))
            if pair not in self._ranks:
                break
            units = _merged(units, pair)
        return units


class _Pairs:
    """How often units stand side by side in a text; kept up to date while pairs are merged."""

    def __init__(self, pieces: Counter[str]) -> None:
        self._words = [list(piece) for piece in pieces]
        self._counts = list(pieces.values())
        self._frequency: Counter[Pair] = Counter()
        #: In which words a pair is, or was before other pairs were merged.
        self._where: dict[Pair, set[int]] = {}
        for i in range(len(self._words)):
            self._count(i, 1)
        #: Every pair by frequency; an entry whose frequency has changed since is passed over.
        self._queue = [(-count, pair) for pair, count in self._frequency.items()]
        heapify(self._queue)

    def most_frequent(self) -> Pair | None:
        """The pair that occurs most often; ``None`` if all occur once."""
        while self._queue:
            negative, pair = heappop(self._queue)
            if -negative == self._frequency[pair] >= 2:
                return pair
        return None

    def merge(self, pair: Pair) -> None:
        """Make one unit of the pair, everywhere."""
        changed: set[Pair] = set()
        for i in self._where.pop(pair):
            changed |= self._count(i, -1)
            self._words[i] = _merged(self._words[i], pair)
            changed |= self._count(i, 1)
        for each in changed:
            heappush(self._queue, (-self._frequency[each], each))

    def _count(self, i: int, sign: int) -> set[Pair]:
        """Add the pairs of word i to what is known, or take them away; which they are."""
        pairs = list(pairwise(self._words[i]))
        for pair in pairs:
            self._frequency[pair] += sign * self._counts[i]
            if sign > 0:
                self._where.setdefault(pair, set()).add(i)
        return set(pairs)


def _merged(units: list[str], pair: Pair) -> list[str]:
    """The units with the pair made one wherever it stands, from the left."""
    merged, i = [], 0
    while i < len(units):
        if tuple(units[i : i + 2]) == pair:
            merged.append(units[i] + units[i + 1])
            i += 2
        else:
            merged.append(units[i])
            i += 1
    return merged
