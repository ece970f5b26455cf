"""Byte pair encoding: the merges, what is cut and restored, and the file."""

from __future__ import annotations

import copy
import json
import pickle
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minigrad_rnn as rnn
from minigrad_rnn.subwords import PIECES

pytestmark = pytest.mark.host

SPECIAL = ("<pad>", "<s>", "</s>")

#: Few letters, so that pairs are frequent and equally frequent, and all kinds of white space.
texts = st.text("aabbc é,.9_ \n\t\u3000", max_size=40)


def joined(units: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    for unit in units:
        if out and (out[-1], unit) == pair:
            out[-1] += unit
        else:
            out.append(unit)
    return out


def plain_merges(training: list[str], size: int) -> list[tuple[str, str]]:
    """The definition: count all pairs of the whole text, merge one, and count again."""
    words = [list(piece) for text in training for piece in PIECES.findall(text)]
    units = {unit for word in words for unit in word}
    merges = []
    while len(units) < size - len(SPECIAL) - 1:
        counts = Counter(pair for word in words for pair in pairwise(word))
        frequent = [pair for pair, count in counts.items() if count == max(counts.values())]
        if not frequent or counts[frequent[0]] < 2:
            break
        merges.append(min(frequent))
        units.add("".join(merges[-1]))
        words = [joined(word, merges[-1]) for word in words]
    return merges


@given(st.lists(texts, min_size=1, max_size=5), st.integers(0, 20))
def test_the_merges_are_those_of_counting_anew(training: list[str], more: int) -> None:
    characters = set("".join(training))
    if characters:
        size = len(SPECIAL) + 1 + len(characters) + more
        bpe = rnn.BytePairEncoding.train(training, size)
        assert bpe.merges == plain_merges(training, size)
        assert len(bpe) <= size


@given(st.lists(texts, min_size=1, max_size=5), texts)
def test_a_text_of_known_characters_is_restored(training: list[str], text: str) -> None:
    bpe = rnn.BytePairEncoding.train([*training, "abc é,.9_ \n\t\u3000"], 40)
    numbers = bpe.encode(text)
    assert numbers.dtype == np.int64
    assert bpe.unknown not in numbers
    assert bpe.decode(numbers) == text
    assert "".join(bpe.units[number] for number in numbers) == text


def test_the_example_of_the_paper() -> None:
    """Sennrich et al., 2016, without their mark for the end: "low" 5, "lower" 2, "newest" 6, ..."""
    frequencies = {"low": 5, "lower": 2, "newest": 6, "widest": 3}
    training = [word for word, count in frequencies.items() for _ in range(count)]
    bpe = rnn.BytePairEncoding.train(training, 18)
    assert bpe.merges == [("e", "s"), ("es", "t"), ("l", "o"), ("lo", "w")]
    assert bpe.units == [*SPECIAL, "<unk>", *"deilnorstw", "es", "est", "lo", "low"]
    assert [bpe.units[number] for number in bpe.encode("lowest")] == ["low", "est"]


def test_no_unit_reaches_across_a_word() -> None:
    bpe = rnn.BytePairEncoding.train(["to be, or not to be.  To be?\n"] * 9, 60)
    for unit in bpe.units[len(SPECIAL) + 1 :]:
        assert PIECES.fullmatch(unit) or len(unit) == 1, unit
    assert " be" in bpe.units
    assert " not" in bpe.units


def test_pairs_that_occur_once_are_not_merged() -> None:
    bpe = rnn.BytePairEncoding.train(["abab xyz"], 100)
    assert bpe.merges == [("a", "b")]
    assert len(bpe) == len(SPECIAL) + 1 + len(set("ab xyz")) + 1


def test_merges_are_applied_in_the_order_in_which_they_were_found() -> None:
    bpe = rnn.BytePairEncoding("abc", [("b", "c"), ("a", "b"), ("a", "bc")])
    assert [bpe.units[number] for number in bpe.encode("abcab")] == ["abc", "ab"]
    same = rnn.BytePairEncoding("ab", [("a", "a"), ("aa", "a")])
    assert [same.units[number] for number in same.encode("aaaaa")] == ["aa", "aaa"]


def test_two_merges_may_make_the_same_unit() -> None:
    bpe = rnn.BytePairEncoding("abc", [("a", "b"), ("ab", "c"), ("b", "c"), ("a", "bc")])
    assert bpe.units[len(SPECIAL) + 1 :] == ["a", "b", "c", "ab", "abc", "bc"]
    assert bpe.encode("abc").tolist() == [bpe.units.index("abc")]


def test_an_unknown_character_is_one_unit_and_shows() -> None:
    bpe = rnn.BytePairEncoding.train(["abab"], 7)
    numbers = bpe.encode("abxyab ab")
    expected = [bpe.units.index("ab"), *[bpe.unknown] * 2, bpe.units.index("ab")]
    assert numbers[:4].tolist() == expected
    assert bpe.units[bpe.unknown] == "<unk>"
    assert bpe.decode(numbers) == "ab\ufffd\ufffdab\ufffdab"


def test_special_units_are_added_by_the_program_alone() -> None:
    bpe = rnn.BytePairEncoding.train(["<s> <s> </s>"], 40)
    assert list(bpe.special.items()) == [("<pad>", 0), ("<s>", 1), ("</s>", 2)]
    numbers = bpe.encode("<s> </s>")
    assert numbers.min() > bpe.unknown
    framed = [bpe.special["<s>"], *numbers, bpe.special["</s>"], bpe.special["<pad>"]]
    assert bpe.decode(framed) == "<s> </s>"
    other = rnn.BytePairEncoding.train(["ab"], 10, special=["<sep>"])
    assert other.units == ["<sep>", "<unk>", "a", "b"]


def test_an_empty_text_has_no_units() -> None:
    bpe = rnn.BytePairEncoding("ab")
    assert bpe.encode("").shape == (0,)
    assert bpe.encode("").dtype == np.int64
    assert bpe.decode([]) == ""


def test_texts_become_a_batch() -> None:
    bpe = rnn.BytePairEncoding.train(["low lower lowest"] * 3, 20)
    padded, lengths = rnn.pad_sequences(
        [bpe.encode(text) for text in ("low", "lowest low")], value=bpe.special["<pad>"]
    )
    assert [bpe.decode(row) for row in padded.T] == ["low", "lowest low"]
    assert lengths.tolist() == [len(bpe.encode("low")), len(bpe.encode("lowest low"))]


def test_it_is_saved_and_loaded(tmp_path: Path) -> None:
    text = "Ähnlich, naïve \U0001f600 „low“ \ud800 lower\n" * 3
    bpe = rnn.BytePairEncoding.train([text], 40, special=["<é>"])
    bpe.save(tmp_path / "units.json")
    loaded = rnn.BytePairEncoding.load(tmp_path / "units.json")
    for own in (loaded, copy.deepcopy(bpe), pickle.loads(pickle.dumps(bpe))):
        assert own.units == bpe.units
        assert own.merges == bpe.merges
        assert own.special == bpe.special
        np.testing.assert_array_equal(own.encode(text), bpe.encode(text))
        assert own.decode(own.encode(text)) == text
    assert set(json.loads((tmp_path / "units.json").read_text())) == {
        "special",
        "characters",
        "merges",
    }


def test_training_does_not_depend_on_the_order_of_the_texts() -> None:
    training = ["the cat sat", "on the mat", "that", "the rat ate"]
    bpe = rnn.BytePairEncoding.train(training, 25)
    assert rnn.BytePairEncoding.train(training[::-1], 25).merges == bpe.merges


def test_few_pieces_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minigrad_rnn.subwords.REMEMBERED", 3)
    bpe = rnn.BytePairEncoding.train(["low lower lowest"] * 3, 20)
    text = "low lower lowest low we rest"
    assert bpe.decode(bpe.encode(text)) == text
    assert len(bpe._remembered) <= 3


@pytest.mark.slow
def test_two_thousand_merges_of_a_megabyte_are_found_in_seconds() -> None:
    rng = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlu"))
    words = ["".join(rng.choice(letters, rng.integers(2, 12))) for _ in range(20_000)]
    often = 1.0 / np.arange(1, len(words) + 1)
    text = " ".join(rng.choice(words, 150_000, p=often / often.sum()))
    assert len(text) > 1_000_000
    before = time.process_time()
    bpe = rnn.BytePairEncoding.train([text], 2000)
    assert bpe.decode(bpe.encode(text)) == text
    assert time.process_time() - before < 10.0
    assert len(bpe) == 2000


def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="size is at least 6: there are 2 characters, 3 special"):
        rnn.BytePairEncoding.train(["abab"], 5)
    with pytest.raises(ValueError, match="there is no text to train on"):
        rnn.BytePairEncoding.train([""], 50)
    with pytest.raises(TypeError, match=r"for one, write \[text\]"):
        rnn.BytePairEncoding.train("abab", 50)
    with pytest.raises(ValueError, match="the character 'a' is there 2 times"):
        rnn.BytePairEncoding("aba")
    with pytest.raises(ValueError, match="the special unit '<unk>' is there 2 times"):
        rnn.BytePairEncoding("ab", special=["<unk>"])
    with pytest.raises(ValueError, match="'a' and 'bc' cannot merge: 'bc' is no unit"):
        rnn.BytePairEncoding("abc", [("a", "bc")])
    bpe = rnn.BytePairEncoding("ab")
    for number in (-1, 6):
        with pytest.raises(IndexError, match=f"numbers from 0 to 5, not {number}"):
            bpe.decode([4, number])
    with pytest.raises(TypeError, match="units are given by number, integers, not float64"):
        bpe.decode([1.0])
    for content in ("no JSON", "[]", "{}", '{"characters": "aa", "merges": [], "special": []}'):
        (tmp_path / "other.json").write_text(content)
        with pytest.raises(ValueError, match=r"other.json does not hold byte pair encodings"):
            rnn.BytePairEncoding.load(tmp_path / "other.json")
    with pytest.raises(FileNotFoundError):
        rnn.BytePairEncoding.load(tmp_path / "missing.json")
